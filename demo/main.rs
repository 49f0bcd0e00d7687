//! `make demo`: the whole loop on a real cluster, as one would type it. Every expectation is checked: a missed one ends
//! the demo with an error, so the demo is a test.
//!
//! The acts stand in [`acts`], in the order in which they are played; [`stage`] is what they play on, [`traffic`] the
//! clients that ask the model for digits all the while, [`watch`] what is seen of a rollout.

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

mod acts;
mod stage;
#[path = "../tests/support/mod.rs"]
mod support;
mod traffic;
mod watch;

fn main() -> ExitCode {
    support::run::janitor_if_asked();
    let start = Instant::now();
    let played = play();
    let code = match played {
        Ok(()) => {
            println!("\nThat took {} s.", start.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    };
    support::run::end();
    code
}

fn play() -> Result<()> {
    let mut stage = stage::Stage::set()?;
    let acts = acts::ALL.iter().filter(|act| stage.has_node() || !act.needs_node).collect::<Vec<_>>();
    let played = acts.into_iter().try_for_each(|act| {
        println!("\n== {}\n", act.title);
        (act.play)(&mut stage)
    });
    if played.is_err() {
        println!("\n{}", stage.tails());
    }
    played?;
    stage.keep_if_asked();
    Ok(())
}
