//! `surefoot check`.

use clap::Args;

use super::Outcome;
use std::path::PathBuf;

/// Judge manifests on disk.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Files, folders, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,
    /// Policies to use instead of the built-in set
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Judge the objects as they are given, without the defaults that policies would add
    #[arg(long)]
    no_defaults: bool,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::bail!("not there yet")
    }
}
