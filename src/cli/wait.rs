//! `surefoot wait`.

use clap::Args;

use super::ClusterArgs;
use super::Outcome;

/// Wait for a rollout.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// deploy/NAME
    target: String,
    /// Namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// What to wait for
    #[arg(long = "for", default_value = "settled", value_parser = ["settled"])]
    state: String,
    /// Give up after this long
    #[arg(long, default_value = "15m")]
    timeout: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Wait {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::bail!("not there yet")
    }
}
