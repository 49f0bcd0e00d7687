//! Arguments, and a file for each command.
//!
//! Exit codes, the same for all: 0 fine, 1 findings (denied, reverted), 2 could not do it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod around;
mod baseline;
mod bundle;
mod certs;
mod check;
mod completions;
mod controller;
mod doctor;
mod explain;
mod follow;
mod given_up;
mod help;
mod isolation;
mod judge;
mod live;
mod load;
mod manifests;
mod new;
mod overriding;
mod report;
mod revert;
mod said;
mod schema;
mod source;
mod status;
mod svg;
mod test;
mod values;
mod wait;
mod webhook;

pub use said::{Said, said};

/// Keeps model Deployments inside safe-rollout policies, and puts the last good pod template back when probes fail.
#[derive(Debug, Parser)]
#[command(name = "surefoot", version, arg_required_else_help = true, max_term_width = 100, after_help = help::ALL)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// The arguments of this process; ends it where they are wrong or ask for help. As a plugin of kubectl (a file
    /// `kubectl-surefoot` in the PATH) it goes by the name that one types: `kubectl surefoot`.
    pub fn of_this_process() -> Self {
        let called = std::env::args_os().next().map(std::path::PathBuf::from);
        let name = called.as_deref().and_then(std::path::Path::file_stem).unwrap_or_default();
        let command = Self::command();
        let command = if name == "kubectl-surefoot" { command.bin_name("kubectl surefoot") } else { command };
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

/// One line for the list of commands; the long text stands with the arguments, in a file of its own.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(about = "Judge manifests, recorded reviews or a live cluster: the same verdicts as at kubectl apply")]
    Check(check::Check),
    #[command(about = "Run the unit tests and cases of policies, with coverage")]
    Test(test::Test),
    #[command(about = "Explain a policy, or a code such as probes/no-readiness")]
    Explain(explain::Explain),
    #[command(about = "Begin a policy: Rego, unit tests and cases that pass")]
    New(new::New),
    #[command(about = "Print a policy folder as one ConfigMap, for kubectl apply")]
    Bundle(bundle::Bundle),
    #[command(about = "Print the JSON schema of config.yaml, for editors")]
    Schema(schema::Schema),
    #[command(about = "Show every rollout, or one with its timeline", after_long_help = help::STATUS)]
    Status(status::Status),
    #[command(about = "Wait until a rollout has settled, or say that it was reverted", after_long_help = help::WAIT)]
    Wait(wait::Wait),
    #[command(about = "Take the risk of what would be refused or reverted, for some hours", after_long_help = help::OVERRIDE)]
    Override(overriding::Override),
    #[command(about = "Put the last good version back by hand, as the controller would", after_long_help = help::REVERT)]
    Revert(revert::Revert),
    #[command(about = "Say whether surefoot is installed whole, and what to do where it is not", after_long_help = help::DOCTOR)]
    Doctor(doctor::Doctor),
    #[command(about = "Print what installs surefoot in a cluster, or registers what runs beside it")]
    Manifests(manifests::Manifests),
    #[command(about = "Make a development CA and a serving certificate")]
    Certs(certs::Certs),
    #[command(about = "Print a completion script for a shell")]
    Completions(completions::Completions),
    #[command(about = "Run the admission webhook", after_long_help = help::WEBHOOK)]
    Webhook(webhook::Webhook),
    #[command(about = "Run the controller", after_long_help = help::CONTROLLER)]
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
        Command::Test(args) => args.run(),
        Command::Explain(args) => args.run(),
        Command::New(args) => args.run(),
        Command::Bundle(args) => args.run(),
        Command::Schema(args) => args.run(),
        Command::Status(args) => args.run(),
        Command::Wait(args) => args.run(),
        Command::Override(args) => args.run(),
        Command::Revert(args) => args.run(),
        Command::Doctor(args) => args.run(),
        Command::Manifests(args) => args.run(),
        Command::Certs(args) => args.run(),
        Command::Completions(args) => args.run(),
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

/// `1 test`, `2 tests`
fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Prints to stdout, without colours where they are not wanted. Whoever reads it may stop at any line (`| head`).
fn print(text: &str) -> anyhow::Result<()> {
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to stdout"),
    }
}
