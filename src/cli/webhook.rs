//! `surefoot webhook`.

use clap::Args;

use super::Outcome;
use std::path::PathBuf;

use super::ClusterArgs;

/// Run the admission webhook.
#[derive(Debug, Args)]
pub(super) struct Webhook {
    /// Address and port to serve on
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: std::net::SocketAddr,
    /// Serving certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// Policies to use instead of the built-in set
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Webhook {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::bail!("not there yet")
    }
}
