//! `surefoot check`: the verdicts of the cluster, on files.

use std::{io, path::PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    Outcome, help,
    judge::Judge,
    load::{self, Unusable},
    report::{self, Report},
    source,
};

/// Judge manifests on disk: the same verdicts as in the cluster
///
/// Reads YAML and JSON, several documents to a file, and the items of a List; of a folder, every *.yaml, *.yml and *.json
/// in it and below. Deployments are judged, other kinds are passed over. Each is taken as if created under
/// surefoot.dev/guard=enforce, after the defaults that the policies add; one that is given again is an
/// update of what it was before. The Deployments of one namespace and model are each other's peers; policies that need
/// what files cannot tell are reported as skipped.
#[derive(Debug, Args)]
#[command(after_long_help = help::CHECK)]
pub(super) struct Check {
    /// Files, folders, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,
    /// Policies to use instead of the built-in set
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Configuration: parameters, actions, exemptions
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Judge the objects as they are given, without the defaults that policies would add
    #[arg(long)]
    no_defaults: bool,
    /// How to show what was found
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For scripts; stable, version 1
    Json,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let report = match self.judge() {
            Ok(judge) => judge.all(source::read(&self.paths, &mut io::stdin().lock())),
            Err(Unusable::Wrong(errors)) => Report::of_load_errors(errors),
            Err(Unusable::Unread(error)) => return Err(error),
        };
        match self.output {
            Format::Text => {
                anstream::eprint!("{}", report::text::render_problems(&report));
                super::print(&report::text::render(&report))?;
            }
            Format::Json => super::print(&(report::json::render(&report)? + "\n"))?,
        }
        Ok(report.outcome())
    }

    fn judge(&self) -> Result<Judge, Unusable> {
        let config = load::config(self.config.as_deref())?;
        let policies = self.policies.clone();
        let set = load::policies(policies.as_deref(), &config)?;
        Ok(Judge { set, policies, config, with_defaults: !self.no_defaults, now: Timestamp::now() })
    }
}
