//! `surefoot status`.

use clap::Args;

use super::ClusterArgs;
use super::Outcome;

/// Show rollouts.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Deployment; all of the namespace when left out
    name: Option<String>,
    /// Namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// All guarded namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::bail!("not there yet")
    }
}
