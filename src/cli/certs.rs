//! `surefoot certs`.

use clap::Args;

use super::Outcome;
use std::path::PathBuf;

/// Make development certificates.
#[derive(Debug, Args)]
pub(super) struct Certs {
    /// Folder for ca.crt, tls.crt and tls.key
    dir: PathBuf,
}

impl Certs {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::bail!("not there yet")
    }
}
