//! Of several controllers one writes: handed over, frozen, raced for.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    relay::{Asked, Fate, Relay},
    stage::{LIMIT, Stage},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("lease::it_is_handed_over_at_once", handed_over),
        trial("lease::a_frozen_leader_writes_nothing_when_it_wakes", frozen),
        trial("lease::a_write_on_its_way_when_its_leader_froze_changes_nothing", || {
            frozen_at("lease-frozen-write", "PATCH deployments", Fate::Stuck(LONG))
        }),
        trial("lease::an_answer_that_wakes_a_frozen_leader_leads_to_no_write", || {
            frozen_at("lease-frozen-answer", "GET replicasets", Fate::Late { by: LONG, lost: false })
        }),
        trial("lease::of_three_that_race_one_writes", raced),
        trial("lease::a_lease_from_the_future_is_taken_after_its_duration", from_the_future),
    ]
}

/// Writes to anything but the lease.
fn writes(relay: &Relay, since: Option<Instant>) -> Vec<Asked> {
    let wanted = |asked: &Asked| asked.is_write() && !asked.kind().ends_with(" leases");
    relay.asked().into_iter().filter(|asked| wanted(asked) && since.is_none_or(|since| asked.at > since)).collect()
}

/// The second one decides on what the first one saw begin.
fn handed_over() -> Result<()> {
    let stage = Stage::new("lease-handed-over")?;
    let first = stage.start_apart()?;
    stage.settle()?;
    let leader = stage.led_after("")?;
    let second = stage.start_apart()?;
    stage.apply("2")?;
    stage.say("2", false, 0)?;
    stage.signal(0, Signal::TERM)?;
    let stopped = Instant::now();
    stage.led_after(&leader)?;
    let led = stopped.elapsed();
    stage.crash("2")?;
    stage.reverted_once()?;
    println!("lease handed over in {:.2} s", led.as_secs_f32());
    ensure!(led < Duration::from_secs(4), "{led:?}");
    let late = writes(&first, Some(stopped + led));
    ensure!(late.is_empty() && !writes(&second, None).is_empty(), "{late:?}");
    Ok(())
}

fn frozen() -> Result<()> {
    let stage = Stage::new("lease-frozen")?;
    let first = stage.start_apart()?;
    stage.settle()?;
    let leader = stage.led_after("")?;
    let second = stage.start_apart()?;
    stage.signal(0, Signal::STOP)?;
    let frozen = Instant::now();
    stage.apply("2")?;
    stage.crash("2")?;
    stage.led_after(&leader)?;
    println!("lease of a frozen leader taken after {:.2} s", frozen.elapsed().as_secs_f32());
    stage.signal(0, Signal::CONT)?;
    stage.pass(Duration::from_secs(1))?;
    stage.reverted_once()?;
    let late = writes(&first, Some(frozen));
    ensure!(late.is_empty() && !writes(&second, None).is_empty(), "{late:?}");
    Ok(())
}

/// So long that another leads meanwhile.
const LONG: Duration = Duration::from_secs(20);

/// The first one freezes when it has sent a request of this kind, and what it sent comes to the API server, or the answer
/// to it, when the second one has reverted long since.
fn frozen_at(name: &str, kind: &'static str, fate: Fate) -> Result<()> {
    let stage = Stage::new(name)?;
    let first = stage.start_apart()?;
    stage.settle()?;
    let leader = stage.led_after("")?;
    let second = stage.start_apart()?;
    let (send, sent) = mpsc::channel();
    first.rule(move |asked| match asked.kind() == kind && !asked.path.contains("limit=") {
        true if send.send(Instant::now()).is_ok() => fate.clone(),
        _ => Fate::Pass,
    });
    stage.apply("2")?;
    stage.crash("2")?;
    let sent = sent.recv_timeout(LIMIT)?;
    stage.signal(0, Signal::STOP)?;
    let frozen = Instant::now();
    stage.led_after(&leader)?;
    stage.record_when("the revert", |record| record["reverts"][0]["outcome"] == "written")?;
    stage.pass((LONG + Duration::from_secs(1)).saturating_sub(sent.elapsed()))?;
    stage.signal(0, Signal::CONT)?;
    stage.pass(Duration::from_secs(1))?;
    stage.reverted_once()?;
    let late = writes(&first, Some(frozen));
    ensure!(late.is_empty() && !writes(&second, None).is_empty(), "{late:?}");
    Ok(())
}

fn raced() -> Result<()> {
    let stage = Stage::new("lease-raced")?;
    race(&stage)
}

/// Whoever held it had a clock that is years ahead.
fn from_the_future() -> Result<()> {
    let stage = Stage::new("lease-future")?;
    stage.leave_lease(&json!({"holderIdentity": "gone", "leaseDurationSeconds": 2, "leaseTransitions": 7,
        "acquireTime": "2199-01-01T00:00:00.000000Z", "renewTime": "2199-01-01T00:00:00.000000Z"}))?;
    race(&stage)
}

fn race(stage: &Stage) -> Result<()> {
    let relays = [stage.start_apart()?, stage.start_apart()?, stage.start_apart()?];
    stage.settle()?;
    stage.apply("2")?;
    stage.crash("2")?;
    stage.reverted_once()?;
    let writers = relays.iter().filter(|relay| !writes(relay, None).is_empty()).count();
    ensure!(writers == 1, "{writers} writers");
    Ok(())
}
