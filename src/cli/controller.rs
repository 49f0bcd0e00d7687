//! `surefoot controller`.

use clap::Args;

use super::Outcome;
use std::path::PathBuf;

use super::ClusterArgs;

/// Run the controller.
#[derive(Debug, Args)]
pub(super) struct Controller {
    /// Configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Controller {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::bail!("not there yet")
    }
}
