//! `surefoot wait`: what a pipeline runs after `kubectl apply`.

use std::{sync::Arc, time::Duration};

use anyhow::{anyhow, bail};
use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::{
    ClusterArgs, Outcome,
    live::{self, Cluster},
    print,
    values::{deployment_name, duration},
};
use crate::{
    cluster::rollouts,
    rollout::{
        Record,
        ending::{End, end, known},
        view::{self, Seen},
    },
    template::Digest,
};

/// Wait until the pod template that the Deployment has now has settled, or has failed.
///
/// What happened to another template before, or will to one that is applied meanwhile, is not its matter.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// deploy/NAME
    #[arg(value_parser = deployment_name, value_name = "deploy/NAME")]
    target: String,
    /// Namespace; default: that of the context
    #[arg(short, long)]
    namespace: Option<String>,
    /// What to wait for
    #[arg(long = "for", default_value = "settled", value_parser = ["settled"])]
    state: String,
    /// Give up after this long
    #[arg(long, default_value = "15m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Wait {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        live::run(async move {
            let deadline = Instant::now() + self.timeout;
            let cluster = Cluster::connect(&self.cluster).await?;
            let namespace = cluster.namespace(self.namespace.as_deref());
            let mut watched = live::patiently(Watched::begin(&cluster, &namespace, &self.target)).await?;
            let ended = timeout_at(deadline, watched.end(&cluster)).await;
            match ended.unwrap_or_else(|_| Err(watched.timed_out(self.timeout)))? {
                End::Settled(text) => print(&format!("{text}\n")).map(|()| Outcome::Fine),
                End::Failed(text) => print(&format!("{text}\n")).map(|()| Outcome::Findings),
                End::Replaced(text) => Err(anyhow!("{text}; its wait is another one")),
            }
        })
    }
}

/// One template of one Deployment, and what is known of it.
struct Watched {
    wanted: Digest,
    known: Option<Timestamp>,
    seen: Seen,
    record: Option<Arc<Record>>,
}

impl Watched {
    async fn begin(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Self> {
        cluster.guard(namespace).await?;
        let seen = rollouts::read(&cluster.client, namespace, name).await.map_err(anyhow::Error::msg)?;
        let record = cluster.records.get(namespace, name).await?.map(|stored| stored.record);
        Ok(Self { wanted: seen.digest.clone(), known: known(record.as_deref()), seen, record })
    }

    /// Watches until it is over.
    async fn end(&mut self, cluster: &Cluster) -> anyhow::Result<End> {
        let mut deployments = rollouts::follow(&cluster.client, &self.seen.namespace, &self.seen.name).boxed();
        let mut records = cluster.records.follow(&self.seen.namespace, &self.seen.name).boxed();
        loop {
            match self.judge() {
                // Which of the two watches is ahead nobody knows, but a revert is recorded before it is made.
                Some(End::Replaced(_)) => {
                    let record = cluster.records.get(&self.seen.namespace, &self.seen.name).await?;
                    self.record = record.map(|stored| stored.record);
                    if let Some(end) = self.judge() {
                        return Ok(end);
                    }
                }
                Some(end) => return Ok(end),
                None => {}
            }
            tokio::select! {
                Some(seen) = deployments.next() => self.saw(seen.map_err(anyhow::Error::msg)?)?,
                Some(record) = records.next() => self.record = record?.map(|stored| stored.record),
                else => bail!("the watch ended"),
            }
        }
    }

    fn judge(&self) -> Option<End> {
        end(&self.wanted, &self.seen, self.record.as_deref(), self.known, Timestamp::now())
    }

    fn saw(&mut self, seen: Option<Seen>) -> anyhow::Result<()> {
        match seen {
            Some(seen) if seen.uid == self.seen.uid => self.seen = seen,
            Some(_) => bail!("the Deployment was deleted and made again"),
            None => bail!("the Deployment was deleted"),
        }
        Ok(())
    }

    fn timed_out(&self, after: Duration) -> anyhow::Error {
        let row = view::row(&self.seen, self.record.as_deref(), Timestamp::now());
        let version = row.version.map(|version| format!(" {version}")).unwrap_or_default();
        let note = if row.note.is_empty() { String::new() } else { format!(", {}", row.note) };
        anyhow!("timed out after {}: {}{version} is {}{note}", view::age(after), row.name, row.state)
    }
}
