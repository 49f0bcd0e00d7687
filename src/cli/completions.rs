//! `surefoot completions`: what a shell needs to complete commands and options.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Outcome, help};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = help::COMPLETIONS)]
pub(super) struct Completions {
    /// The shell that is to complete
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "surefoot", &mut script);
        super::print(&String::from_utf8(script)?)?;
        Ok(Outcome::Fine)
    }
}
