//! `surefoot override`: the annotation, in its form and with an end.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use kube::{
    Client,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::{Value, json};

use super::{
    ClusterArgs, Outcome,
    live::{self, Cluster},
    print,
    values::{DryRun, deployment_name, duration},
};
use crate::{
    cluster::{
        Attempt,
        access::{self, Right},
        rollouts,
    },
    config::Guard,
    rollout::{
        Record,
        view::{self, Seen},
    },
    template::{keys, overriding},
};

/// Not that of what the controller writes: those fields it gives to whoever applied the template.
const FIELD_MANAGER: &str = "surefoot-override";

/// Let through what surefoot would refuse of one Deployment, and leave its rollout alone, until a time that is set.
///
/// Writes the annotation surefoot.dev/override in its form, over one that is there. It ends by itself.
#[derive(Debug, Args)]
pub(super) struct Override {
    /// Deployment: NAME or deploy/NAME
    #[arg(value_parser = deployment_name, value_name = "NAME")]
    name: String,
    /// Namespace; default: that of the context
    #[arg(short, long)]
    namespace: Option<String>,
    /// How long it lasts from now on, at most 24h
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    span: Duration,
    /// Why, in a few words: everybody who looks at the Deployment reads it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// server: have the API server say what it would say, and change nothing
    #[arg(long, value_enum, default_value_t, value_name = "HOW", hide_possible_values = true)]
    dry_run: DryRun,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Override {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let now = Timestamp::now();
        let wanted = overriding::Override::lasting(self.span, &self.reason, now)?;
        let said = live::run(live::patiently(self.set(&wanted, now)))?;
        print(&said)?;
        Ok(Outcome::Fine)
    }

    /// Sets it, and gives what is to be said of it.
    async fn set(&self, wanted: &overriding::Override, now: Timestamp) -> anyhow::Result<String> {
        let cluster = Cluster::connect(&self.cluster).await?;
        let namespace = cluster.namespace(self.namespace.as_deref());
        let guard = cluster.guard(&namespace).await?;
        let seen = rollouts::read(&cluster.client, &namespace, &self.name).await.map_err(anyhow::Error::msg)?;
        may(&cluster.client, &namespace).await?;
        annotate(&cluster.client, &seen, &wanted.to_string(), self.dry_run == DryRun::Server).await?;
        // For what is said below only: who may not read records may set an override all the same.
        let record = cluster.records.get(&namespace, &self.name).await.ok().flatten().map(|stored| stored.record);
        let before = seen.overridden(now).map(|(until, reason)| format!("until {}: {reason}", time(until)));
        let mut said = format!(
            "{}override of {namespace}/{} for {}, until {}: {}\n",
            if self.dry_run == DryRun::Server { "(server dry run) " } else { "" },
            seen.name,
            view::age(self.span),
            time(wanted.until),
            wanted.reason,
        );
        for (what, text) in follows(&seen, record.as_deref(), guard, before, now) {
            let _ = writeln!(said, "  {what:<12}{text}");
        }
        Ok(said)
    }
}

/// What it means, line by line.
fn follows(
    seen: &Seen,
    record: Option<&Record>,
    guard: Option<Guard>,
    before: Option<String>,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("until then", "what policies or the quarantine would refuse of it is let through with a warning".to_owned()),
        ("", "surefoot only observes its rollout: what fails is not reverted".to_owned()),
    ];
    lines.extend(before.map(|before| ("instead of", format!("the one {before}"))));
    if let Some(guard) = guard.filter(|guard| *guard != Guard::Enforce) {
        lines.push((
            "note",
            format!("the guard of {} is {guard}: nothing is refused or reverted there anyway", seen.namespace),
        ));
    }
    let quarantined = record.and_then(|record| record.reverts.iter().find(|revert| revert.is_quarantine(now)));
    if let Some(revert) = quarantined {
        let bad = revert.version.as_deref().unwrap_or("the reverted template");
        lines.push((
            "quarantine",
            format!("{bad} may be applied again; once it has settled it is quarantined no longer"),
        ));
    }
    let command = format!("kubectl annotate deploy {} -n {} {}-", seen.name, seen.namespace, keys::OVERRIDE);
    lines.push(("to end it", command));
    lines
}

/// The API server would say it, too, but not who grants the right, and not before everything else is right.
async fn may(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let rights = [
        Right::new("override", "surefoot.dev", "guards", namespace),
        Right::new("patch", "apps", "deployments", namespace),
    ];
    let missing = access::missing(client, &rights).await;
    let Some(first) = missing.first() else { return Ok(()) };
    let user = access::user(client).await;
    let who = user.as_deref().map_or_else(|| "you lack it".to_owned(), |user| format!("User \"{user}\" lacks it"));
    let role = if *first == rights[0] { "surefoot-override" } else { "edit" };
    let user = user.as_deref().unwrap_or("USER");
    bail!(
        "no right to {first}: {who}; an admin grants it: kubectl create rolebinding {role} -n {namespace} \
         --clusterrole={role} --user={user}"
    )
}

/// Of this very Deployment: of another one under the same name it is a conflict.
async fn annotate(client: &Client, seen: &Seen, text: &str, dry_run: bool) -> anyhow::Result<()> {
    let attempt = Attempt::new("patch", "deployments").within(&seen.namespace).named(&seen.name);
    let patch = json!({"metadata": {"uid": seen.uid, "annotations": {keys::OVERRIDE: text}}});
    let params = PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let request = Request::new(format!("/apis/apps/v1/namespaces/{}/deployments", seen.namespace));
    let request = request.patch(&seen.name, &params, &Patch::Merge(patch)).context("cannot be asked for")?;
    let answer = client.request::<Value>(request).await;
    answer.map(drop).map_err(|error| anyhow::anyhow!("{}", attempt.explain(&error)))
}

fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%F %T UTC").to_string()
}
