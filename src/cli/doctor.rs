//! `surefoot doctor`: whether what is installed is whole, and does what it should.
//!
//! ```text
//!   seen: what the cluster says ──▶ hooks, parts, names (pure) ──▶ rows ──▶ text or JSON, exit code
//!   tried: a bad Deployment, as a dry run ────────────────────────▲
//! ```

use anstyle::{AnsiColor, Style};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    ClusterArgs, Outcome,
    live::{self, Cluster},
    manifests, print,
};

mod hooks;
mod names;
mod parts;
mod rights;
mod seen;
mod tried;

/// Say whether surefoot is installed whole, and what to do where it is not
///
/// Looks at the hooks and what they trust, webhook and controller, their rights, the configuration, the guarded namespaces and
/// other webhooks for the same objects; then sends a bad Deployment to a guarded namespace as a dry run. It changes nothing.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let rows = live::run(live::patiently(self.look(Timestamp::now())))?;
        let text = match self.output.as_str() {
            "json" => format!("{}\n", serde_json::to_string_pretty(&Report { version: 1, checks: &rows })?),
            _ => rows.iter().map(Row::line).collect(),
        };
        print(&text)?;
        Ok(outcome(&rows))
    }

    async fn look(&self, now: Timestamp) -> anyhow::Result<Vec<Row>> {
        let base = manifests::objects()?;
        let cluster = Cluster::connect(&self.cluster).await?;
        // A server that is away, or takes nobody for what they say they are, is one sentence and not twenty.
        cluster.guarded().await?;
        let seen = seen::Seen::read(&cluster.client, &crate::cluster::own_namespace(), now).await;
        if let Some(rows) = names::absent(&seen) {
            return Ok(rows);
        }
        let mut rows = hooks::rows(&seen, &base);
        rows.extend(parts::rows(&seen));
        rows.push(rights::row(&cluster.client, &seen.own, &base).await);
        rows.extend(names::rows(&seen));
        rows.extend(names::records(&cluster.records).await);
        rows.push(tried::row(&cluster.client, &seen).await);
        Ok(rows)
    }
}

/// What `-o json` prints. Stable: fields may be added.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    checks: &'a [Row],
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, and no mistake.
    Note,
    /// Could not be looked at.
    Skip,
    /// It works, and somebody should look at it.
    Warn,
    /// Something that surefoot promises does not hold.
    Fail,
}

/// One line: something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    level: Level,
    area: &'static str,
    message: String,
    /// What to do, mostly a command; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

impl Row {
    fn new(level: Level, area: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level, area, message: message.into().replace(char::is_control, " "), fix: fix.into() }
    }

    fn ok(area: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, area, message, "")
    }

    fn line(&self) -> String {
        let (word, style) = match self.level {
            Level::Ok => ("ok", AnsiColor::Green.on_default()),
            Level::Note => ("note", Style::new()),
            Level::Skip => ("skip", AnsiColor::Yellow.on_default()),
            Level::Warn => ("warn", AnsiColor::Yellow.on_default().bold()),
            Level::Fail => ("fail", AnsiColor::Red.on_default().bold()),
        };
        let Self { area, message, fix, .. } = self;
        let fix = if fix.is_empty() { String::new() } else { format!(": {fix}") };
        format!("{style}{word:<4}{style:#}  {area:<13}  {message}{fix}\n")
    }
}

/// 1 where something is wrong; 2 where nothing is, as far as could be looked.
fn outcome(rows: &[Row]) -> Outcome {
    let any = |levels: &[Level]| rows.iter().any(|row| levels.contains(&row.level));
    if any(&[Level::Warn, Level::Fail]) {
        Outcome::Findings
    } else if any(&[Level::Skip]) {
        Outcome::Failed
    } else {
        Outcome::Fine
    }
}

/// How whoever installed it puts it right.
fn apply_again(seen: &seen::Seen) -> String {
    match seen.url() {
        Some(url) => format!("surefoot manifests --url {url} --ca FILE | kubectl apply -f -"),
        None => "apply the manifests again (kubectl apply -k manifests)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_row_decides_and_a_fix_stands_behind_its_finding() {
        let row = |level| Row::new(level, "guard", "none", "do");
        let rows = [Level::Ok, Level::Note, Level::Skip, Level::Warn, Level::Fail].map(row);
        assert_eq!(outcome(&rows[..2]), Outcome::Fine);
        assert_eq!(outcome(&rows[..3]), Outcome::Failed);
        assert_eq!(outcome(&rows[..4]), Outcome::Findings);
        assert_eq!(outcome(&rows[4..]), Outcome::Findings);
        assert!(rows[3].line().contains("guard          none: do\n"), "{}", rows[3].line());
        assert!(Row::ok("guard", "a\nb").line().ends_with("a b\n"));
    }
}
