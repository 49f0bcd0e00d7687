//! `surefoot schema`: what an editor needs to help with `config.yaml`.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, help, load};
use crate::config::{self, Config};

/// Print the JSON schema of config.yaml
///
/// With the policies and their parameters in it, so that an editor completes and checks both.
#[derive(Debug, Args)]
#[command(after_long_help = help::SCHEMA)]
pub(super) struct Schema {
    /// Policy folder; default: the policies that are compiled in
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let set = load::policies(self.policies.as_deref(), &Config::default())?;
        super::print(&format!("{:#}\n", config::schema(&set.config_schema())))?;
        Ok(Outcome::Fine)
    }
}
