//! `surefoot status`: every rollout in a line, or one with what happened to it.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, sync::Arc};

mod watch;

use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{
    ClusterArgs, Outcome,
    isolation::{self, Gap},
    live::{self, Cluster},
    print, svg,
    values::deployment_name,
};
use crate::{
    cluster::{Namespace, records::RecordError, rollouts},
    config::Guard,
    controller::sight,
    rollout::{
        Record,
        picture::{Picture, picture},
        timeline::{Moment, timeline},
        view::{self, Row, Seen},
    },
};

/// Show the rollouts of a namespace, or one with what happened to it.
///
/// Needs the right to get and list deployments there, and configmaps in surefoot's own namespace. Below the rollouts of
/// whole namespaces it says which of them lack a ResourceQuota, a LimitRange or a NetworkPolicy that denies by default.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Deployment; all of the namespace when left out
    #[arg(value_parser = deployment_name, value_name = "NAME")]
    name: Option<String>,
    /// Namespace; default: that of the context
    #[arg(short, long)]
    namespace: Option<String>,
    /// All guarded namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// Go on: shown anew at each change on a terminal, else a line for each change, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Draw the rollout of NAME into this file instead: pods, probes, budget, decision (- for standard output)
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with_all = ["watch", "output"])]
    svg: Option<std::path::PathBuf>,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        if self.watch {
            return live::run(watch::run(&self));
        }
        let now = Timestamp::now();
        if let Some(file) = &self.svg {
            return self.draw(file, now);
        }
        let (found, gaps) = live::run(live::patiently(self.look(now)))?;
        let text = match (self.output.as_str(), &self.name) {
            ("json", _) => {
                let report = Report { version: 1, rollouts: &found, isolation: &gaps };
                format!("{}\n", serde_json::to_string_pretty(&report)?)
            }
            (_, Some(_)) => found.iter().map(|rollout| story(rollout, now)).collect(),
            _ if found.is_empty() => "no Deployments there\n".to_owned(),
            _ => table(&found, now),
        };
        let gaps = gaps.iter().filter(|_| self.output == "text").map(|gap| format!("{}\n", gap.line()));
        print(&(text + &gaps.collect::<String>()))?;
        Ok(Outcome::Fine)
    }

    fn draw(&self, file: &Path, now: Timestamp) -> anyhow::Result<Outcome> {
        let (picture, lacks) = live::run(live::patiently(self.picture(now)))?;
        if let Some(lacks) = lacks {
            anstream::eprintln!("drawn without the pods that are there: {lacks}");
        }
        let drawn = svg::render(&picture);
        match file.to_str() {
            Some("-") => print(&drawn)?,
            _ => std::fs::write(file, drawn).with_context(|| format!("cannot write {}", file.display()))?,
        }
        Ok(Outcome::Fine)
    }

    /// What is drawn, and why without pods.
    async fn picture(&self, now: Timestamp) -> anyhow::Result<(Picture, Option<String>)> {
        let cluster = Cluster::connect(&self.cluster).await?;
        let namespace = cluster.namespace(self.namespace.as_deref());
        cluster.guard(&namespace).await?;
        let name = self.name.as_deref().unwrap_or_default();
        let seen = rollouts::read(&cluster.client, &namespace, name).await.map_err(anyhow::Error::msg)?;
        let record = cluster.records.get(&namespace, name).await?.map(|stored| stored.record);
        let (pods, lacks) = match sight::read_with_pods(&cluster.client, &namespace, name).await {
            Ok(pods) => (Some(pods), None),
            Err(lacks) => (None, Some(lacks)),
        };
        Ok((picture(&seen, record.as_deref(), pods.as_ref(), now), lacks))
    }

    async fn look(&self, now: Timestamp) -> anyhow::Result<(Vec<Rollout>, Vec<Gap>)> {
        let cluster = Cluster::connect(&self.cluster).await?;
        if self.all_namespaces {
            let namespaces = cluster.guarded().await?;
            let rollouts = everywhere(&cluster, &namespaces, now).await?;
            return Ok((rollouts, isolation::gaps(&cluster, &namespaces, now).await?));
        }
        let namespace = cluster.namespace(self.namespace.as_deref());
        let found = cluster.read(&namespace).await?;
        let guard = found.as_ref().map(|found| found.guard);
        let Some(name) = &self.name else {
            let (seen, records) = (rollouts::list(&cluster.client, &namespace), records(&cluster, Some(&namespace)));
            let seen = seen.await.map_err(anyhow::Error::msg)?;
            let records = records.await?;
            let gaps = isolation::gaps(&cluster, found.as_slice(), now).await?;
            return Ok((rows(seen, &records, |_| guard, now), gaps));
        };
        let seen = rollouts::read(&cluster.client, &namespace, name).await.map_err(anyhow::Error::msg)?;
        let record = match cluster.records.get(&namespace, name).await {
            Err(error @ RecordError::Cluster(_)) => return Err(error.into()),
            Err(error) => Err(error.to_string()),
            Ok(stored) => Ok(stored.map(|stored| stored.record)),
        };
        let mut rollout = Rollout::new(&seen, record.as_ref().map(Option::as_deref), guard, now);
        rollout.timeline = Some(timeline(&seen, record.as_ref().ok().and_then(Option::as_deref)));
        Ok((vec![rollout], Vec::new()))
    }
}

/// What `-o json` prints. Stable: fields may be added.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    rollouts: &'a [Rollout],
    /// Namespaces that lack something; empty where one Deployment was asked for.
    isolation: &'a [Gap],
}

#[derive(Debug, Serialize)]
struct Rollout {
    #[serde(flatten)]
    row: Row,
    /// Of its namespace; `null` where it cannot be read.
    guard: Option<Guard>,
    /// `{"until", "reason"}` of an override in force.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    overridden: Option<Override>,
    /// Only where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Vec<Moment>>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Override {
    until: Timestamp,
    reason: String,
}

impl Rollout {
    /// A record that cannot be read is told in the note: what the Deployment says is still worth seeing.
    fn new(seen: &Seen, record: Result<Option<&Record>, &String>, guard: Option<Guard>, now: Timestamp) -> Self {
        let mut row = view::row(seen, record.ok().flatten(), now);
        if let Err(error) = record {
            row.note.clone_from(error);
        }
        let overridden = seen.overridden(now).map(|(until, reason)| Override { until, reason: reason.to_owned() });
        Self { row, guard, overridden, timeline: None }
    }
}

type Records = BTreeMap<(String, String), Result<Arc<Record>, String>>;

async fn everywhere(cluster: &Cluster, namespaces: &[Namespace], now: Timestamp) -> anyhow::Result<Vec<Rollout>> {
    let records = records(cluster, None).await?;
    let lists = namespaces.iter().map(|namespace| rollouts::list(&cluster.client, &namespace.name));
    let seen: Vec<_> = futures::stream::iter(lists.collect::<Vec<_>>())
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await
        .map_err(anyhow::Error::msg)?;
    let guards: BTreeMap<_, _> = namespaces.iter().map(|found| (found.name.as_str(), found.guard)).collect();
    Ok(rows(seen.into_iter().flatten().collect(), &records, |namespace| guards.get(namespace).copied(), now))
}

/// By namespace and name of the Deployment; one that cannot be read by those of its ConfigMap's annotation.
async fn records(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<Records> {
    let listed = cluster.records.list(namespace).await?;
    Ok(listed
        .into_iter()
        .map(|(namespace, name, found)| {
            ((namespace, name), found.map(|stored| stored.record).map_err(|error| error.to_string()))
        })
        .collect())
}

fn rows(mut seen: Vec<Seen>, records: &Records, guard: impl Fn(&str) -> Option<Guard>, now: Timestamp) -> Vec<Rollout> {
    seen.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let rollout = |seen: &Seen| {
        let record = records.get(&(seen.namespace.clone(), seen.name.clone()));
        let record = record.map(Result::as_deref).transpose();
        Rollout::new(seen, record, guard(&seen.namespace), now)
    };
    seen.iter().map(rollout).collect()
}

/// Columns as wide as what stands in them; figures to the right.
fn table(rollouts: &[Rollout], now: Timestamp) -> String {
    let titles = ["NAMESPACE", "DEPLOYMENT", "VERSION", "STATE", "FAILED", "BUDGET", "SINCE", "NOTE"];
    let mut lines = vec![titles.map(str::to_owned)];
    lines.extend(rollouts.iter().map(|rollout| cells(&rollout.row, now)));
    let widths: [usize; 8] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default());
    let mut text = String::new();
    for line in lines {
        let padded = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| match titles[column] {
            "FAILED" | "BUDGET" => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text += padded.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    for rollout in rollouts {
        if let Some(Override { until, reason }) = &rollout.overridden {
            let Row { namespace, name, .. } = &rollout.row;
            let _ = writeln!(text, "override: {namespace}/{name} until {} UTC \"{reason}\"", clock(*until, now));
        }
    }
    text
}

fn cells(row: &Row, now: Timestamp) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        row.namespace.clone(),
        row.name.clone(),
        or_dash(row.version.clone()),
        row.state.to_string(),
        or_dash(row.failed.map(|count| count.to_string())),
        or_dash(row.budget.map(|count| count.to_string())),
        or_dash(row.since.map(|since| since_then(since, now))),
        row.note.clone(),
    ]
}

/// One rollout with its timeline.
fn story(rollout: &Rollout, now: Timestamp) -> String {
    let mut text = table(std::slice::from_ref(rollout), now);
    let moments = rollout.timeline.as_deref().unwrap_or_default();
    if !moments.is_empty() {
        text.push('\n');
    }
    let width = moments.iter().map(|moment| moment.what.chars().count()).max().unwrap_or_default();
    for Moment { at, what, detail } in moments {
        let line = format!("{} UTC  {what:<width$}  {detail}", clock(*at, now));
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The time of day, with the day where it is not within 24 hours.
fn clock(at: Timestamp, now: Timestamp) -> String {
    let far = at.duration_since(now).unsigned_abs().as_secs() >= 24 * 3600;
    at.to_zoned(TimeZone::UTC).strftime(if far { "%F %T" } else { "%T" }).to_string()
}

fn since_then(since: Timestamp, now: Timestamp) -> String {
    view::age(now.duration_since(since).try_into().unwrap_or_default())
}
