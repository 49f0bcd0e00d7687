//! `surefoot status --watch`: the same, for as long as somebody looks.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Notify;

use super::{Outcome, Rollout, Status, cells, clock, story, table};
use crate::{
    cli::live::{self, Cluster},
    cluster::{
        Guarded, Store,
        access::{self, Right},
        guarded::Namespaces,
        own_namespace,
        records::{RecordError, RecordStore, Stored},
        rollouts,
    },
    config::Guard,
    rollout::{timeline::timeline, view::Seen},
};

/// What comes together is shown together.
const TOGETHER: Duration = Duration::from_millis(100);
/// On a terminal times grow older before one's eyes.
const TICK: Duration = Duration::from_secs(1);
/// Home, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows until Ctrl-C, or until nobody reads any more.
pub(super) async fn run(status: &Status) -> anyhow::Result<Outcome> {
    // The words about a missing right, namespace or Deployment are those of one look.
    live::patiently(status.look(Timestamp::now())).await?;
    let cluster = Cluster::connect(&status.cluster).await?;
    let namespace = (!status.all_namespaces).then(|| cluster.namespace(status.namespace.as_deref()));
    let guard = match &namespace {
        Some(namespace) => live::patiently(cluster.guard(namespace)).await?,
        None => None,
    };
    may_watch(&cluster, namespace.as_deref()).await?;
    let own = own_namespace();
    let mut guarded = Guarded::new(cluster.client.clone(), &own);
    if namespace.is_some() {
        guarded = guarded.without_namespaces();
    }
    let happened = Arc::new(Notify::new());
    let (on_rollout, on_record) = (Arc::clone(&happened), Arc::clone(&happened));
    let deployments = rollouts::watch(&mut guarded, namespace.as_deref(), move |_| on_rollout.notify_one());
    let records = RecordStore::watch(&mut guarded, &own, move |_| on_record.notify_one());
    let (namespaces, mut synced) = (guarded.namespaces(), guarded.synced());
    let name = status.name.clone();
    let sight = Sight { name, namespace, guard, namespaces, deployments, records };
    let show = async {
        synced.wait_for(|synced| *synced).await.context("the watches ended")?;
        show(&sight, &happened, status.output == "json").await
    };
    tokio::select! {
        ended = guarded.run() => bail!("{}", match ended { Err(ended) => ended, Ok(never) => match never {} }),
        done = show => done.map(|()| Outcome::Fine),
        done = tokio::signal::ctrl_c() => done.map(|()| Outcome::Fine).context("cannot wait for Ctrl-C"),
    }
}

/// A watch that may not be made would be tried again for ever.
async fn may_watch(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<()> {
    let mut rights = vec![Right::new("watch", "", "configmaps", &own_namespace())];
    rights.extend(namespace.map(|namespace| Right::new("watch", "apps", "deployments", namespace)));
    match access::missing(&cluster.client, &rights).await.first() {
        Some(right) => bail!("no right to {right}; without --watch it takes none"),
        None => Ok(()),
    }
}

async fn show(sight: &Sight, happened: &Notify, json: bool) -> anyhow::Result<()> {
    let on_terminal = !json && io::stdout().is_terminal();
    let mut shown = String::new();
    let mut before = BTreeMap::new();
    loop {
        let now = Timestamp::now();
        let text = if on_terminal {
            let text = sight.whole(now);
            if text == shown { String::new() } else { format!("{CLEAR}{text}") }
        } else {
            let after = sight.see();
            let lines = news(sight, &before, &after, now, json)?;
            before = after;
            lines
        };
        if !text.is_empty() && !put(&text)? {
            return Ok(());
        }
        if on_terminal && !text.is_empty() {
            shown = text[CLEAR.len()..].to_owned();
        }
        tokio::select! {
            () = happened.notified() => tokio::time::sleep(TOGETHER).await,
            () = tokio::time::sleep(TICK), if on_terminal => {}
        }
    }
}

/// Whether somebody still reads.
fn put(text: &str) -> anyhow::Result<bool> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true).context("cannot write to stdout"),
    }
}

/// What is watched.
struct Sight {
    name: Option<String>,
    /// `None`: all that are guarded.
    namespace: Option<String>,
    /// Of the one namespace, where it may be read.
    guard: Option<Guard>,
    namespaces: Namespaces,
    deployments: Store<Seen>,
    records: RecordStore,
}

/// A Deployment and its record.
type Pair = (Arc<Seen>, Option<Arc<Result<Stored, RecordError>>>);

impl Sight {
    /// By namespace and name.
    fn see(&self) -> BTreeMap<(String, String), Pair> {
        let namespaces = match &self.namespace {
            Some(namespace) => vec![namespace.clone()],
            None => self.namespaces.all().iter().map(|namespace| namespace.name.clone()).collect(),
        };
        let wanted = |seen: &Seen| self.name.as_ref().is_none_or(|name| *name == seen.name);
        let seen = namespaces.iter().flat_map(|namespace| self.deployments.select(namespace, wanted));
        seen.map(|seen| {
            let record = self.records.get(&seen.namespace, &seen.name);
            ((seen.namespace.clone(), seen.name.clone()), (seen, record))
        })
        .collect()
    }

    fn rollout(&self, (seen, record): &Pair, now: Timestamp) -> Rollout {
        let guard = match self.namespace {
            Some(_) => self.guard,
            None => self.namespaces.get(&seen.namespace).map(|namespace| namespace.guard),
        };
        let record = match record.as_deref() {
            Some(Ok(stored)) => Ok(Some(&*stored.record)),
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(None),
        };
        let mut rollout = Rollout::new(seen, record.as_ref().map(|record| *record), guard, now);
        rollout.timeline = self.name.is_some().then(|| timeline(seen, record.ok().flatten()));
        rollout
    }

    /// As without `--watch`.
    fn whole(&self, now: Timestamp) -> String {
        let all: Vec<_> = self.see().values().map(|pair| self.rollout(pair, now)).collect();
        match (&self.name, all.first()) {
            (Some(name), None) => format!("{name} is not there\n"),
            (Some(_), Some(one)) => story(one, now),
            (None, _) => table(&all, now),
        }
    }
}

/// A line for each that reads otherwise than before at the same moment: that time passes is no news.
fn news(
    sight: &Sight,
    before: &BTreeMap<(String, String), Pair>,
    after: &BTreeMap<(String, String), Pair>,
    now: Timestamp,
    json: bool,
) -> anyhow::Result<String> {
    let mut lines = String::new();
    for (key, pair) in after {
        let rollout = sight.rollout(pair, now);
        let known = before.get(key).map(|pair| sight.rollout(pair, now));
        if known.is_some_and(|known| known.row == rollout.row && known.overridden == rollout.overridden) {
            continue;
        }
        lines += &if json { serde_json::to_string(&rollout)? } else { line(&rollout, now) };
        lines.push('\n');
    }
    for (namespace, name) in before.keys().filter(|key| !after.contains_key(*key)) {
        lines += &match json {
            true => json!({"namespace": namespace, "name": name, "deleted": true}).to_string(),
            false => format!("{} UTC  {namespace}/{name}  deleted", clock(now, now)),
        };
        lines.push('\n');
    }
    Ok(lines)
}

/// `14:21:22 UTC  shop/churn  2.4.0  failing 1/10  readiness of container "model", HTTP 503`
fn line(rollout: &Rollout, now: Timestamp) -> String {
    let [namespace, name, version, state, failed, budget, _, note] = cells(&rollout.row, now);
    let figures = rollout.row.failed.map(|_| format!(" {failed}/{budget}")).unwrap_or_default();
    let overridden = rollout.overridden.as_ref();
    let overridden =
        overridden.map(|one| format!("  override until {:.0}: {}", one.until, one.reason)).unwrap_or_default();
    let text = format!("{} UTC  {namespace}/{name}  {version}  {state}{figures}  {note}", clock(now, now));
    text.trim_end().to_owned() + &overridden
}
