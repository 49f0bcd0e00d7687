//! Arguments, and a file for each command.
//!
//! Exit codes, the same for all: 0 fine, 1 findings (denied, reverted), 2 could not do it.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod certs;
mod check;
mod controller;
mod manifests;
mod report;
mod source;
mod status;
mod wait;
mod webhook;

/// Keeps model Deployments inside safe-rollout policies, and puts the last good pod template back when probes fail.
#[derive(Debug, Parser)]
#[command(name = "surefoot", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge manifests on disk: the same verdicts as in the cluster
    Check(check::Check),
    /// Show every rollout, or one with its timeline
    Status(status::Status),
    /// Wait until a rollout has settled: exit 0; reverted: 1; timed out: 2
    Wait(wait::Wait),
    /// Print what is needed to register surefoot in a cluster
    Manifests(manifests::Manifests),
    /// Make a development CA and a serving certificate
    Certs(certs::Certs),
    /// Run the admission webhook
    Webhook(webhook::Webhook),
    /// Run the controller
    Controller(controller::Controller),
}

/// Which cluster, as kubectl.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Kubeconfig file; default: $KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: findings, denied, reverted.
    Findings,
    /// Exit code 2: something could not be done, and it has been said what.
    Failed,
}

impl Outcome {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Findings => 1,
            Self::Failed => 2,
        }
    }
}

/// Runs the command and turns its end into an exit code; an error is printed once, here.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Check(args) => args.run(),
        Command::Status(args) => args.run(),
        Command::Wait(args) => args.run(),
        Command::Manifests(args) => args.run(),
        Command::Certs(args) => args.run(),
        Command::Webhook(args) => args.run(),
        Command::Controller(args) => args.run(),
    };
    match done {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::from(Outcome::Failed.code())
        }
    }
}
