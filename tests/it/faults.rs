//! An API server that refuses, is busy, answers too late or not at all, and watches that break: the end is the same one
//! revert, and nobody is asked without end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use crate::{
    relay::{Asked, Fate, Held},
    stage::{Stage, version_of},
    support::Look,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    type Scenario = (&'static str, fn() -> Result<()>);
    let scenarios: [Scenario; 19] = [
        ("what_is_seen_no_more_is_not_reverted", blind),
        ("a_record_that_cannot_be_read_reverts_nothing_until_it_is_mended", unreadable),
        ("conflicts_409", conflicts),
        ("a_refusal_422_stalls_until_something_changes", refused),
        ("busy_429_with_retry_after_is_waited_for", busy),
        ("busy_429_for_longer_than_a_write_may_take", busy_for_long),
        ("errors_500", errors),
        ("storm_all_is_away", || storm("storm-away", |_| true, ERROR)),
        ("storm_no_connection_lasts", || storm("storm-cut", |_| true, Fate::Cut(Duration::ZERO))),
        ("storm_writes_conflict", || storm("storm-conflict", Asked::is_write, CONFLICT)),
        ("storm_answers_are_lost", || {
            storm("storm-lost", Asked::is_write, Fate::Late { by: Duration::ZERO, lost: true })
        }),
        ("storm_watches_are_gone_410", || storm("storm-gone", Asked::is_watch, Fate::Gone)),
        ("storm_watches_end_at_once", || storm("storm-ended", Asked::is_watch, Fate::Bookmarks)),
        ("writes_made_whose_answer_is_lost", lost),
        ("writes_made_whose_answer_is_too_late", late),
        ("watches_closed_again_and_again", closed),
        ("watches_that_are_gone_410", gone),
        ("watches_with_bookmarks_only", bookmarks),
        ("a_slow_list_after_a_watch_is_gone", slow_list),
    ];
    scenarios.map(|(name, test)| trial(&format!("faults::{name}"), test)).into()
}

const CONFLICT: Fate = Fate::Refused { code: 409, reason: "Conflict", retry_after: None };
const ERROR: Fate = Fate::Refused { code: 500, reason: "InternalError", retry_after: None };

/// The first so many of each kind that `wanted` picks.
fn first(
    count: usize,
    wanted: impl Fn(&Asked) -> bool + Send + 'static,
    fate: Fate,
) -> impl FnMut(&Asked) -> Fate + Send + 'static {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    move |asked| {
        if !wanted(asked) {
            return Fate::Pass;
        }
        let seen = seen.entry(asked.kind()).or_default();
        *seen += 1;
        if *seen <= count { fate.clone() } else { Fate::Pass }
    }
}

/// Version 1 has settled, then the API server behaves as `rule` says while version 2 fails and is reverted.
fn reverted(name: &str, rule: impl FnMut(&Asked) -> Fate + Send + 'static) -> Result<Stage> {
    let stage = Stage::new(name)?;
    stage.start()?;
    stage.settle()?;
    stage.relay.rule(rule);
    revert(stage)
}

/// The same from the start of the controller on.
fn reverted_from_the_start(name: &str, rule: impl FnMut(&Asked) -> Fate + Send + 'static) -> Result<Stage> {
    let stage = Stage::new(name)?;
    stage.relay.rule(rule);
    stage.start()?;
    stage.settle()?;
    revert(stage)
}

fn revert(stage: Stage) -> Result<Stage> {
    stage.apply("2")?;
    stage.crash("2")?;
    let begun = Instant::now();
    stage.reverted_once()?;
    let asked = stage.relay.asked();
    println!(
        "fault {:<18} {:>6.2} s from the failure to the end of its revert, {} requests in all",
        stage.name,
        begun.elapsed().as_secs_f32(),
        asked.len()
    );
    Ok(stage)
}

fn conflicts() -> Result<()> {
    reverted("fault-conflict", first(2, Asked::is_write, CONFLICT)).map(drop)
}

fn errors() -> Result<()> {
    reverted("fault-error", first(2, Asked::is_write, ERROR)).map(drop)
}

fn lost() -> Result<()> {
    let fate = Fate::Late { by: Duration::ZERO, lost: true };
    reverted("fault-lost", first(1, Asked::is_write, fate)).map(drop)
}

fn late() -> Result<()> {
    let fate = Fate::Late { by: Duration::from_secs(6), lost: true };
    let wanted = |asked: &Asked| ["PUT configmaps", "PATCH deployments"].contains(&asked.kind().as_str());
    reverted("fault-late", first(1, wanted, fate)).map(drop)
}

fn closed() -> Result<()> {
    let cut = |asked: &Asked| if asked.is_watch() { Fate::Cut(Duration::from_millis(300)) } else { Fate::Pass };
    reverted_from_the_start("fault-closed", cut).map(drop)
}

fn gone() -> Result<()> {
    reverted_from_the_start("fault-gone", first(3, Asked::is_watch, Fate::Gone)).map(drop)
}

fn bookmarks() -> Result<()> {
    reverted_from_the_start("fault-bookmarks", first(3, Asked::is_watch, Fate::Bookmarks)).map(drop)
}

/// The watches break and are too old to go on, and the lists that follow take seconds: until they are there, what was
/// seen before stands.
fn slow_list() -> Result<()> {
    let stage = Stage::new("fault-slow-list")?;
    stage.start()?;
    stage.settle()?;
    stage.apply("2")?;
    stage.say("2", false, 0)?;
    let mut watches = first(1, Asked::is_watch, Fate::Gone);
    let slow = Fate::Late { by: Duration::from_secs(3), lost: false };
    stage.relay.rule(move |asked| if asked.path.contains("limit=") { slow.clone() } else { watches(asked) });
    stage.relay.cut();
    revert(stage).map(drop)
}

/// How long a storm lasts.
const STORM: Duration = Duration::from_secs(5);
/// A watch or a write that fails is tried again soon, and less and less often: a few of each kind in a storm.
const MOST: usize = 60;

/// What is picked gets no other answer for as long as it lasts. It begins while version 2 fails, and a watch that was
/// open is cut.
fn storm(name: &str, wanted: impl Fn(&Asked) -> bool + Send + 'static, fate: Fate) -> Result<()> {
    let stage = Stage::new(name)?;
    stage.start()?;
    stage.settle()?;
    stage.apply("2")?;
    stage.say("2", false, 0)?;
    let begun = Instant::now();
    stage.relay.rule(move |asked| if wanted(asked) && begun.elapsed() < STORM { fate.clone() } else { Fate::Pass });
    stage.relay.cut();
    let stage = revert(stage)?;
    let during = |asked: &&Asked| (begun..begun + STORM).contains(&asked.at);
    let all = stage.relay.asked();
    let asked = all.iter().filter(during).count();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    all.iter().filter(during).for_each(|asked| *kinds.entry(asked.kind()).or_default() += 1);
    println!("storm {name:<18} {asked} requests in {} s", STORM.as_secs());
    ensure!(asked <= MOST, "{asked} requests: {kinds:?}");
    Ok(())
}

/// All that is asked is refused once for a second.
fn busy() -> Result<()> {
    let fate = Fate::Refused { code: 429, reason: "TooManyRequests", retry_after: Some(1) };
    let stage = reverted("fault-busy", first(1, |_| true, fate))?;
    waited(&stage, Duration::from_secs(1))
}

fn busy_for_long() -> Result<()> {
    let fate = Fate::Refused { code: 429, reason: "TooManyRequests", retry_after: Some(8) };
    let wanted = |asked: &Asked| ["PUT configmaps", "PATCH deployments dry run"].contains(&asked.kind().as_str());
    let stage = reverted("fault-busy-long", first(1, wanted, fate))?;
    waited(&stage, Duration::from_secs(8))
}

/// No request is followed by another one of its kind before the time that was asked for; `time` has passed with it at
/// least once.
fn waited(stage: &Stage, time: Duration) -> Result<()> {
    let asked = stage.relay.asked();
    let refused = stage.relay.refused();
    ensure!(!refused.is_empty(), "nothing was refused");
    for one in refused {
        let next = asked.iter().find(|other| other.kind() == one.kind() && other.at > one.at);
        if let Some(next) = next {
            let waited = next.at - one.at;
            ensure!(waited >= time, "{}: asked again after {waited:?}", one.kind());
        }
    }
    Ok(())
}

/// A 422 for something that has not changed is a refusal: told, and tried again when the spec changes.
fn refused() -> Result<()> {
    let stage = Stage::new("fault-refused")?;
    stage.start()?;
    stage.settle()?;
    let fate = Fate::Refused { code: 422, reason: "Invalid", retry_after: None };
    stage.relay.rule(first(1, |asked| asked.kind() == "PATCH deployments", fate));
    stage.apply("2")?;
    stage.crash("2")?;
    stage.record_when("the refusal", |record| record["current"]["stall"]["reason"] == "RevertRefused")?;
    ensure!(stage.events("RolloutStalled")?.len() == 1, "{:?}", stage.events("RolloutStalled")?);
    ensure!(version_of(&stage.deployment()?) == "2", "{}", stage.deployment()?);
    stage.patch(&json!({"spec": {"minReadySeconds": 1}}))?;
    stage.reverted_once()
}

/// A pod is unready for a moment, and well again behind the back of a watch that has fallen silent.
fn blind() -> Result<()> {
    let stage = Stage::new("fault-blind")?;
    stage.start()?;
    stage.settle()?;
    stage.plane().admin().run(&["label", "namespace", &stage.name, "bake=long"])?.success()?;
    stage.apply("2")?;
    stage.ready("2")?;
    stage.record_when("version 2 to be complete", |record| record["current"].get("completed").is_some())?;
    stage.say("2", false, 0)?;
    stage.record_when("a failed probe", |record| record["current"]["spent"]["failures"].as_u64() > Some(0))?;
    stage.relay.hold(Held::Watches);
    stage.ready("2")?;
    // Twice as long as it takes to spend the budget.
    stage.pass(Duration::from_secs(8))?;
    let deployment = stage.deployment()?;
    stage.relay.hold(Held::Nothing);
    ensure!(version_of(&deployment) == "2" && stage.record()?["reverts"].get(0).is_none(), "{}", stage.logs());
    // It can see again, and does what is to be done.
    stage.crash("2")?;
    stage.reverted_once()
}

/// A record that was cut short, that is about another Deployment, or that a newer surefoot wrote: it is told, by log and by
/// status, and nothing is done.
fn unreadable() -> Result<()> {
    let stage = Stage::new("fault-record")?;
    stage.start()?;
    stage.settle()?;
    let path = format!("/api/v1/namespaces/{}/configmaps/record.{}.digits", stage.own(), stage.name);
    let write = |text: &str| stage.plane().patch(&path, &json!({"data": {"record.json": text}}));
    let good = stage.record()?.to_string();
    let rows = [
        (good[..good.len() / 2].to_owned(), "cannot be read"),
        (good.replace("\"digits\"", "\"other\""), "it is about"),
        (good.replace("\"version\":1", "\"version\":99"), "has version 99"),
    ];
    write(&rows[0].0)?;
    stage.apply("2")?;
    stage.crash("2")?;
    for (text, says) in rows {
        write(&text)?;
        stage.until(says, || {
            let (logs, status) = (stage.logs(), stage.status()?);
            Ok(if logs.contains(says) && status.stdout.contains(says) {
                Look::Done(())
            } else {
                Look::Not(format!("{logs}\n{status}"))
            })
        })?;
        let deployment = stage.deployment()?;
        ensure!(version_of(&deployment) == "2" && deployment["metadata"]["generation"] == 2, "{deployment}");
    }
    write(&good)?;
    stage.reverted_once()
}
