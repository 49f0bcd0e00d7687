//! `surefoot manifests`.

use clap::Args;

use super::Outcome;
use std::path::PathBuf;

/// Print manifests.
#[derive(Debug, Args)]
pub(super) struct Manifests {
    /// Register processes that run outside the cluster under this URL, e.g. https://127.0.0.1:8443
    #[arg(long, requires = "ca")]
    url: Option<String>,
    /// CA certificate (PEM) that signed the serving certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Manifests {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::bail!("not there yet")
    }
}
