//! The integration tests: one binary, one table of trials, so that what is shared (binaries, a control plane, a node)
//! is started once and ends with the run.
//!
//! `cargo test --test it -- FILTER` runs a part; `--list` names all. A trial that needs what this machine lacks (root, a
//! Debian package) is listed as ignored, with what it needs in its name.

use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Failed, Trial};

mod actions;
mod adoption;
mod alerts;
mod bad_input;
mod bed;
mod certificates;
mod chart;
mod check;
mod check_author;
mod check_cluster;
mod check_folders;
mod check_output;
mod check_sources;
mod cluster;
mod commands;
mod crash;
mod defaulter;
mod defaults;
mod docs;
mod doctor;
mod facts;
mod faults;
mod fixes;
mod fuzz;
mod generated;
mod gitops;
mod hooks;
mod house;
mod http;
mod injector;
mod install;
mod lease;
mod levels;
mod loading;
mod manifests;
mod models;
mod node;
mod node_causes;
mod node_hands;
mod node_others;
mod node_status;
mod odd;
mod oracle;
mod overrides;
mod ownership;
mod policies;
mod prometheus;
mod ratchet;
mod relay;
mod revert;
mod rights;
mod rollouts;
mod schema;
mod series;
mod shared;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod workbench;

/// More of them, on two cores, take the time from what has to be answered within one second.
const THREADS: usize = 3;

/// Held by each trial while it runs; the one that is alone holds it exclusively.
static MACHINE: RwLock<()> = RwLock::new(());

fn main() {
    support::run::janitor_if_asked();
    bed::victim_if_asked();
    let mut arguments = Arguments::from_args();
    // Trials wait for a cluster more than they compute.
    arguments.test_threads.get_or_insert(THREADS);
    let mut trials = house::trials();
    trials.extend(check::trials());
    trials.extend(check_sources::trials());
    trials.extend(check_folders::trials());
    trials.extend(check_output::trials());
    trials.extend(check_author::trials());
    trials.extend(actions::trials());
    trials.extend(check_cluster::trials());
    trials.extend(policies::trials());
    trials.extend(fixes::trials());
    trials.extend(workbench::trials());
    trials.extend(oracle::trials());
    trials.extend(schema::trials());
    trials.extend(docs::trials());
    trials.extend(fuzz::trials());
    trials.extend(http::trials());
    trials.extend(series::trials());
    trials.extend(loading::trials());
    trials.extend(manifests::trials());
    trials.extend(hooks::trials());
    trials.extend(overrides::trials());
    trials.extend(facts::trials());
    trials.extend(defaults::trials());
    trials.extend(ratchet::trials());
    trials.extend(levels::trials());
    trials.extend(defaulter::trials());
    trials.extend(cluster::trials());
    trials.extend(commands::trials());
    trials.extend(bed::trials());
    trials.extend(rollouts::trials());
    trials.extend(revert::trials());
    trials.extend(ownership::trials());
    trials.extend(gitops::trials());
    trials.extend(certificates::trials());
    trials.extend(crash::trials());
    trials.extend(faults::trials());
    trials.extend(lease::trials());
    trials.extend(odd::trials());
    trials.extend(install::trials());
    trials.extend(adoption::trials());
    trials.extend(alerts::trials());
    trials.extend(prometheus::trials());
    trials.extend(chart::trials());
    trials.extend(rights::trials());
    trials.extend(doctor::trials());
    trials.extend(node_status::trials());
    trials.extend(node::trials(&arguments));
    install::prepare(&arguments);
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::run::end();
    conclusion.exit();
}

/// Whether the trial of this name is one of those that are to run.
fn is_asked(arguments: &Arguments, name: &str) -> bool {
    let fits = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter) };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}

/// A trial from a function that says what went wrong with an `anyhow` error.
fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        outcome(test())
    })
}

/// The same for a trial that no other runs beside: one that counts what is not answered in time.
fn lone_trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        outcome(test())
    })
}

fn outcome(end: anyhow::Result<()>) -> Result<(), Failed> {
    end.map_err(|error| Failed::from(format!("{error:#}")))
}

/// The same for a trial that needs a node. Where there cannot be one it is listed as ignored, and says why in its name.
fn node_trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    where_a_node_can_be(name, |name| trial(name, test))
}

/// Both.
fn lone_node_trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    where_a_node_can_be(name, |name| lone_trial(name, test))
}

fn where_a_node_can_be(name: &str, trial: impl FnOnce(&str) -> Trial) -> Trial {
    match support::Node::available() {
        Ok(()) => trial(name),
        Err(lack) => trial(&format!("{name} [{lack}]")).with_ignored_flag(true),
    }
}
