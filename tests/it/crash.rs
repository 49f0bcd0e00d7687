//! A controller that dies before or after any of its writes: another one takes over, and the end is the same as if
//! nothing had happened. The writes are listed by the controller itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use surefoot::controller::Write;

use crate::{
    certificates::Hooks,
    stage::{Stage, version_of},
    support::Look,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let points = Write::ALL.iter().flat_map(|&write| ["Before", "After"].map(|edge| (edge, write)));
    let mut trials: Vec<_> =
        points.map(|(edge, write)| trial(&format!("crash::{edge}{write:?}"), move || die(edge, write))).collect();
    let by_hand = BY_HAND.iter().flat_map(|&write| ["Before", "After"].map(|edge| format!("{edge}{write:?}")));
    trials.extend(by_hand.map(|point| trial(&format!("crash::by_hand_{point}"), move || die_by_hand(&point))));
    trials.push(trial("crash::what_came_back_while_nobody_looked_is_reverted_again", returned));
    trials
}

/// What leads to a write, and on to its end.
type Labels = &'static [(&'static str, &'static str)];
type Story = fn(&Stage, Write, &str) -> Result<()>;

/// A kind of write that is not listed here does not compile.
fn story(write: Write) -> (Labels, Story) {
    const ENFORCE: Labels = &[("surefoot.dev/guard", "enforce")];
    match write {
        Write::TakeLease | Write::RenewLease | Write::ReleaseLease => (ENFORCE, reverted),
        Write::RecordSettled | Write::RecordRevert | Write::RecordDone => (ENFORCE, reverted),
        // A status has whole seconds: after a bake of one it may have settled when it is first seen complete.
        Write::RecordProgress => (&[("surefoot.dev/guard", "enforce"), ("bake", "seen")], reverted),
        Write::DryRun | Write::PutBack | Write::GiveBack | Write::TellReverted => (ENFORCE, reverted),
        Write::RecordSeed => (ENFORCE, seeded),
        Write::RecordRecovered => (&[("surefoot.dev/guard", "enforce"), ("window", "short")], recovered),
        Write::Withdraw | Write::TellWithdrawn => (ENFORCE, withdrawn),
        Write::RecordStall | Write::TellStalled => (ENFORCE, stalled),
        Write::RecordObserved | Write::TellObserved => (&[("surefoot.dev/guard", "warn")], observed),
        Write::TellOverride => (ENFORCE, overridden),
        Write::Register | Write::StoreCertificate => (ENFORCE, installed),
    }
}

fn die(edge: &str, write: Write) -> Result<()> {
    let point = format!("{edge}{write:?}");
    let (labels, story) = story(write);
    let begun = Instant::now();
    let stage = Stage::with_labels(&format!("crash-{}", point.to_lowercase()), labels)?;
    story(&stage, write, &point).with_context(|| stage.logs())?;
    let died = stage.died().with_context(|| format!("it did not die\n{}", stage.logs()))?;
    let (after, whole) = (died.elapsed().as_secs_f32(), begun.elapsed().as_secs_f32());
    println!("crash {point:<22} {after:>5.2} s to the end without it, {whole:>5.2} s in all");
    Ok(())
}

/// What `surefoot revert` writes.
const BY_HAND: [Write; 6] =
    [Write::DryRun, Write::RecordRevert, Write::PutBack, Write::GiveBack, Write::TellReverted, Write::RecordDone];

/// A revert by hand is cut off. Once it is recorded the controller finishes it; before that the person asks again.
fn die_by_hand(point: &str) -> Result<()> {
    let stage = Stage::new(&format!("crash-hand-{}", point.to_lowercase()))?;
    stage.start()?;
    stage.settle()?;
    stage.apply("2")?;
    stage.ready("2")?;
    let cut = stage.revert_by_hand(Some(point))?;
    ensure!(!cut.ok() && cut.stdout.is_empty(), "it did not die: {cut}");
    if stage.record()?["reverts"].get(0).is_none() {
        stage.revert_by_hand(None)?.success()?;
    }
    stage.reverted_once()?;
    ensure!(stage.record()?["reverts"][0]["byHand"]["reason"] == "INC-1", "{}", stage.record()?);
    Ok(())
}

/// The mortal one has died, or does so now.
fn died(stage: &Stage) -> Result<()> {
    let dead = || Ok(stage.died().map_or_else(|| Look::Not("it lives".to_owned()), |_| Look::Done(())));
    stage.until("its death", dead)
}

fn reverted(stage: &Stage, write: Write, point: &str) -> Result<()> {
    stage.start_mortal(point)?;
    stage.settle()?;
    if write == Write::RenewLease {
        died(stage)?;
    }
    stage.apply("2")?;
    stage.crash("2")?;
    if write == Write::ReleaseLease {
        stage.end_mortal()?;
    }
    died(stage)?;
    stage.reverted_once()
}

/// The first look finds a rollout in the middle.
fn seeded(stage: &Stage, _: Write, point: &str) -> Result<()> {
    stage.apply("1")?;
    stage.ready("1")?;
    stage.apply("2")?;
    stage.say("2", false, 0)?;
    // The bake, to the whole second that a status has.
    stage.pass(Duration::from_millis(2100))?;
    stage.start_mortal(point)?;
    died(stage)?;
    stage.record_when("the seed", |record| record["settled"][0]["version"] == "1")?;
    stage.crash("2")?;
    stage.reverted_once()
}

/// The good template fails after the revert, too, and gets well again.
fn recovered(stage: &Stage, _: Write, point: &str) -> Result<()> {
    stage.start_mortal(point)?;
    stage.settle()?;
    stage.apply("2")?;
    stage.crash("2")?;
    stage.record_when("the revert", |record| record["reverts"][0]["outcome"] == "written")?;
    stage.crash("1")?;
    stage.record_when("the stall", |record| record["current"]["stall"]["reason"] == "SameTemplate")?;
    stage.ready("1")?;
    // The window; then something that makes it look.
    stage.pass(Duration::from_secs(6))?;
    stage.touch()?;
    died(stage)?;
    stage.record_when("the end of the stall", |record| record.get("current").is_none())?;
    ensure!(stage.events("RolloutStalled")?.len() == 1, "{:?}", stage.events("RolloutStalled")?);
    stage.reverted_once()
}

fn withdrawn(stage: &Stage, _: Write, point: &str) -> Result<()> {
    stage.start_mortal(point)?;
    stage.apply_with("2", "canary")?;
    stage.crash("2")?;
    died(stage)?;
    let record = stage.record_when("the withdrawal", |record| record["reverts"][0]["outcome"] == "written")?;
    stage.stop()?;
    let deployment = stage.deployment()?;
    let events = stage.events("RolloutWithdrawn")?;
    ensure!(deployment["spec"]["replicas"] == 0 && version_of(&deployment) == "2", "{deployment}");
    ensure!(deployment["metadata"]["generation"] == 2, "written more than once: {deployment}");
    ensure!(record["reverts"].as_array().is_some_and(|all| all.len() == 1) && events.len() == 1, "{record} {events:?}");
    Ok(())
}

fn stalled(stage: &Stage, _: Write, point: &str) -> Result<()> {
    stage.start_mortal(point)?;
    stage.apply("2")?;
    stage.crash("2")?;
    died(stage)?;
    left_alone(stage, "RolloutStalled", |record| record["current"]["stall"]["reason"] == "NothingSettled")
}

fn observed(stage: &Stage, _: Write, point: &str) -> Result<()> {
    stage.start_mortal(point)?;
    stage.settle()?;
    stage.apply("2")?;
    stage.crash("2")?;
    died(stage)?;
    left_alone(stage, "RolloutFailing", |record| record["reverts"][0]["outcome"] == "observed")
}

/// Version 2 stays, and that was told once.
fn left_alone(stage: &Stage, reason: &str, recorded: impl Fn(&Value) -> bool) -> Result<()> {
    stage.record_when("it to be recorded", recorded)?;
    stage.until("an Event", || {
        let events = stage.events(reason)?;
        Ok(if events.is_empty() { Look::Not("none".to_owned()) } else { Look::Done(()) })
    })?;
    stage.stop()?;
    let (deployment, events) = (stage.deployment()?, stage.events(reason)?);
    ensure!(events.len() == 1, "{events:?}");
    ensure!(version_of(&deployment) == "2" && stage.events("RolloutReverted")?.is_empty(), "{deployment}");
    Ok(())
}

/// An override that goes too far counts for nothing, and is no obstacle.
fn overridden(stage: &Stage, _: Write, point: &str) -> Result<()> {
    stage.start_mortal(point)?;
    stage.settle()?;
    stage.patch(&json!({"metadata": {"annotations": {"surefoot.dev/override": "2199-01-01T00:00:00Z INC-1"}}}))?;
    died(stage)?;
    stage.apply("2")?;
    stage.crash("2")?;
    stage.reverted_once()?;
    let told = stage.events("OverrideIgnored")?;
    ensure!(told.len() == 1, "{told:?}");
    Ok(())
}

/// The hooks trust what the Secret holds in the end, wherever it was cut off.
fn installed(stage: &Stage, _: Write, point: &str) -> Result<()> {
    let hooks = Hooks::made(stage, "8760h")?;
    stage.start_mortal(point)?;
    died(stage)?;
    hooks.trusting(stage)?;
    stage.stop()
}

/// The quarantined template comes back while there is no webhook to refuse it, and no controller to see it come.
fn returned() -> Result<()> {
    let stage = Stage::new("crash-returned")?;
    stage.start()?;
    stage.settle()?;
    stage.apply("2")?;
    stage.crash("2")?;
    stage.reverted_once()?;
    stage.apply("2")?;
    stage.crash("2")?;
    stage.start()?;
    let twice = |record: &Value| {
        let reverts = record["reverts"].as_array().map_or(&[][..], Vec::as_slice);
        reverts.len() == 2 && reverts.iter().all(|revert| revert["outcome"] == "written")
    };
    stage.record_when("a second revert", twice)?;
    stage.stop()?;
    ensure!(version_of(&stage.deployment()?) == "1", "{}", stage.deployment()?);
    Ok(())
}
