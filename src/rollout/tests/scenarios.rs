//! Scenarios, each with its decision, its evidence and its second.

use std::time::Duration;

use super::world::{World, at, digest, probe, template};
use crate::{
    config::{Budget, Guard},
    rollout::{
        Because, Decision, History, Rest,
        record::{Outcome, Record, Revert, Signal, StallReason},
        snapshot::{Pod, ProgressState, Since, Template},
    },
};

/// Something that is different in a case of a table.
type Change = fn(&mut World);

/// The revert that a decision is; anything else fails the test.
pub(super) fn revert((second, decision): (u32, Decision)) -> (u32, Revert) {
    match decision {
        Decision::Revert(revert) => (second, revert),
        other => panic!("no revert but {other:?}"),
    }
}

pub(super) fn stall((_, decision): (u32, Decision)) -> StallReason {
    match decision {
        Decision::Stall { reason, .. } => reason,
        other => panic!("no stall but {other:?}"),
    }
}

#[test]
fn a_healthy_version_settles_after_its_bake_in_two_writes() {
    let mut world = World::settled("1");
    world.apply(template("2"));
    let before = world.writes;
    assert_eq!(world.run(20), None);
    world.all_ready();
    assert_eq!(world.run(58), None);
    assert!(!world.record().has_settled(&digest("2")));
    assert_eq!(world.run(3), None);
    assert_eq!(world.record().settled[0].digest, digest("2"));
    assert_eq!(world.writes - before, 2);
    assert_eq!(world.decide(), Decision::Rest(Rest::Settled));
}

#[test]
fn ready_for_three_seconds_then_unready_is_reverted_although_kubernetes_says_complete() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    let (second, revert) = revert(
        world
            .play(60, |world, second| {
                if second == 3 {
                    unready(world);
                }
            })
            .unwrap(),
    );
    // Two pods, a period of 1 s: 2 failures a second, and 11 are needed.
    assert_eq!(second, 9);
    assert_eq!(revert.evidence.signal, Signal::Readiness);
    assert_eq!((revert.evidence.failures, revert.evidence.budget), (12, 10));
    assert_eq!(revert.evidence.pods.len(), 2);
    assert_eq!(revert.evidence.nodes, ["node-1"]);
    assert_eq!(world.running(), &digest("1"));
    assert_eq!(world.written(), 1);
    assert!(world.record().quarantined(&digest("2"), world.now).is_some());
    assert_eq!(world.run(200), None, "the old failures must not be charged to the good template");
}

#[test]
fn a_crash_loop_is_reverted_at_its_fourth_restart_at_the_latest() {
    let mut world = World::settled("1");
    let mut bad = template("2");
    bad.containers[0].liveness = None;
    bad.containers[0].readiness = None;
    world.apply(bad);
    // Measured: crash after 1 s, one surge pod, restarts at 2, 14, 37, 85 s.
    let (second, revert) = revert(
        world
            .play(100, |world, second| match second {
                1 | 3 | 15 | 38 => world.down(0, "CrashLoopBackOff"),
                2 | 14 | 37 | 85 => world.restart(0, 1, "Error"),
                _ => {}
            })
            .unwrap(),
    );
    assert_eq!(second, 37);
    assert_eq!(revert.evidence.signal, Signal::Crash);
    assert_eq!(revert.evidence.message, "exit code 1");
}

#[test]
fn liveness_failing_on_two_pods_is_reverted_at_the_second_kill() {
    let mut world = World::settled("1");
    let mut bad = template("2");
    bad.containers[0].liveness = probe(10, 3);
    bad.containers[0].readiness = None;
    world.apply(bad);
    world.all_ready();
    let happens = |world: &mut World, second| {
        if second == 30 || second == 60 {
            world.restart(0, 137, "Error");
            world.restart(1, 137, "Error");
        } else {
            world.ready(0, true);
            world.ready(1, true);
        }
    };
    let (second, revert) = revert(world.play(100, happens).unwrap());
    assert_eq!((second, revert.evidence.signal), (60, Signal::Liveness));
    assert_eq!(revert.evidence.failures, 12);
}

#[test]
fn never_ready_costs_nothing_until_the_progress_deadline_decides() {
    let mut world = World::settled("1");
    world.apply(template("2"));
    assert_eq!(world.run(599), None);
    world.progress(ProgressState::DeadlineExceeded);
    let (second, revert) = revert(world.run(1).unwrap());
    assert_eq!((second, revert.evidence.signal), (1, Signal::Deadline));
    assert_eq!(revert.evidence.until.duration_since(revert.evidence.since).as_secs(), 600);
    assert!(revert.sentence().starts_with("version 2 was not ready 10 min after its start"), "{}", revert.sentence());
}

#[test]
fn a_deadline_that_is_about_another_replica_set_or_generation_counts_for_nothing() {
    let mut world = World::settled("1");
    world.apply(template("2"));
    world.progress(ProgressState::DeadlineExceeded);
    let about_two = world.snapshot.deployment.progress.clone();
    world.apply(template("3"));
    world.snapshot.deployment.progress = about_two;
    assert_eq!(world.run(5), None);
    world.progress(ProgressState::DeadlineExceeded);
    world.snapshot.deployment.observed_generation -= 1;
    assert_eq!(world.run(5), None);
}

#[test]
fn a_deadline_for_reasons_of_the_cluster_is_no_failure_of_the_template() {
    // Nothing ran: no node has room, or the registry is down.
    let mut world = World::settled("1");
    world.apply(template("2"));
    for pod in world.pods() {
        pod.containers[0].running_since = None;
    }
    world.progress(ProgressState::DeadlineExceeded);
    assert_eq!(world.run(5), None);
    // Going away, evicted, or on a lost node.
    let reasons: [fn(&mut Pod); 3] =
        [|pod| pod.terminating = true, |pod| pod.disrupted = true, |pod| pod.node_ready = Some(false)];
    for change in reasons {
        let mut world = World::settled("1");
        world.apply(template("2"));
        world.pods().into_iter().for_each(change);
        world.progress(ProgressState::DeadlineExceeded);
        assert_eq!(world.run(5), None);
    }
}

#[test]
fn a_container_that_is_not_in_the_template_is_never_charged() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    let injected = |world: &mut World, second| {
        for pod in world.pods() {
            pod.containers.truncate(1);
            let mut other = pod.containers[0].clone();
            (other.name, other.restarts, other.ready) = ("mesh".into(), second, false);
            pod.containers.push(other);
        }
    };
    assert_eq!(world.play(200, injected), None);
}

#[test]
fn a_node_that_rebooted_is_not_the_templates_fault() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    world.now = at(1000);
    for nth in [0, 1] {
        world.restart(nth, 255, "Unknown");
        world.ready(nth, true);
    }
    assert_eq!(world.run(61), None);
    assert!(world.record().has_settled(&digest("2")));
}

#[test]
fn one_bad_pod_of_fifty_is_not_reverted() {
    let mut world = World::settled("1");
    world.snapshot.deployment.replicas = 50;
    complete(&mut world, template("2"));
    world.run(30);
    world.ready(7, false);
    assert_eq!(world.run(600), None);
}

#[test]
fn the_failing_container_is_not_outvoted_by_its_neighbours() {
    let mut world = World::settled("1");
    let mut bad = template("2");
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        let mut neighbour = bad.containers[0].clone();
        neighbour.name = name.into();
        bad.containers.push(neighbour);
    }
    world.snapshot.deployment.replicas = 1;
    world.apply(bad);
    world.all_ready();
    world.run(1);
    let now = world.now;
    for pod in world.pods() {
        pod.containers[0].ready = false;
        pod.containers_ready = Some(Since { is: false, at: now });
    }
    world.step();
    let (second, revert) = revert(world.run(60).unwrap());
    assert_eq!((second, revert.evidence.container.as_str()), (11, "model"));
}

#[test]
fn the_first_version_failing_stalls_and_says_so_once() {
    let mut world = World::new("1");
    world.all_ready();
    world.run(1);
    let writes = world.writes;
    unready(&mut world);
    assert_eq!(stall(world.run(60).unwrap()), StallReason::NothingSettled);
    for _ in 0..30 {
        world.run(1);
    }
    assert!(world.writes - writes <= 11, "each tenth of the budget, and the stall once");
    let stalled = world.record().current.clone().unwrap().stall.unwrap();
    assert_eq!(stalled.reason, StallReason::NothingSettled);
    // It recovers: a bake of its own, from the last failing reading on.
    world.all_ready();
    world.run(59);
    assert!(!world.record().has_settled(&digest("1")));
}

#[test]
fn a_canary_with_nothing_to_go_back_to_is_withdrawn_and_stays_so() {
    let mut world = World::new("1");
    world.snapshot.deployment.canary = true;
    world.all_ready();
    world.run(1);
    unready(&mut world);
    let (_, revert) = revert(world.run(60).unwrap());
    assert_eq!(revert.target, None);
    assert_eq!(world.snapshot.deployment.replicas, 0);
    assert_eq!(world.written(), 1);
    assert!(world.record().quarantined(&digest("1"), world.now).is_some());
    assert_eq!(world.run(3600), None);
    assert_eq!(world.reverts, 1);
    assert!(!world.record().has_settled(&digest("1")));
}

#[test]
fn a_canary_that_has_settled_once_goes_back_like_any_other() {
    let mut world = World::settled("1");
    world.snapshot.deployment.canary = true;
    fail(&mut world, "2");
    assert_eq!((world.running(), world.snapshot.deployment.replicas), (&digest("1"), 2));
}

/// Applies `version`, which is ready and then is not; gives what came of it.
pub(super) fn fail(world: &mut World, version: &str) -> Option<(u32, Decision)> {
    complete(world, template(version));
    unready(world);
    world.run(60)
}

/// Applies a template, and it is complete at once.
pub(super) fn complete(world: &mut World, template: Template) {
    world.apply(template);
    world.step();
    world.all_ready();
    world.step();
}

/// No pod is ready any more, and that is seen at once.
pub(super) fn unready(world: &mut World) {
    for nth in 0..world.pods().len() {
        world.ready(nth, false);
    }
    world.step();
}

#[test]
fn why_nothing_is_done() {
    let cases: [(StallReason, Change); 3] = [
        (StallReason::HistoryLost, |world| {
            world.snapshot.replica_sets.retain(|set| set.template.digest != digest("1"))
        }),
        (StallReason::HistoryLost, |world| world.snapshot.replica_sets[0].template.digest = digest("edited")),
        (StallReason::Paused, |world| world.snapshot.deployment.paused = true),
    ];
    for (reason, change) in cases {
        let mut world = World::settled("1");
        complete(&mut world, template("2"));
        change(&mut world);
        unready(&mut world);
        assert_eq!(stall(world.run(60).unwrap()), reason);
        assert_eq!(world.reverts, 0);
    }
}

#[test]
fn the_settled_template_failing_after_a_restart_is_not_reverted_to_itself() {
    let mut world = World::settled("1");
    let mut again = template("1");
    again.restarted_at = Some("2026-11-22T15:00:00Z".into());
    complete(&mut world, again);
    unready(&mut world);
    assert_eq!(stall(world.run(60).unwrap()), StallReason::SameTemplate);
}

#[test]
fn once_settled_surefoot_acts_no_more() {
    let mut world = World::settled("1");
    unready(&mut world);
    assert_eq!(world.run(600), None);
    assert_eq!(world.decide(), Decision::Rest(Rest::Settled));
}

#[test]
fn what_only_observes() {
    let cases: [(Change, Because); 4] = [
        (|world| world.settings.guard = Guard::Warn, Because::Guard(Guard::Warn)),
        (|world| world.settings.guard = Guard::Audit, Because::Guard(Guard::Audit)),
        (|world| world.snapshot.deployment.owner = Some("InferenceService/churn".into()), Because::Owner),
        (
            |world| {
                let until = world.now + jiff::SignedDuration::from_hours(2);
                world.snapshot.deployment.override_text = Some(format!("{until} INC-1234"));
            },
            Because::Override(at(0)),
        ),
    ];
    for (change, wanted) in cases {
        let mut world = World::settled("1");
        change(&mut world);
        let (_, decision) = fail(&mut world, "2").unwrap();
        let Decision::Observe { would, because } = decision else { panic!("not observed but {decision:?}") };
        assert_eq!(std::mem::discriminant(&because), std::mem::discriminant(&wanted));
        assert_eq!(would.target.unwrap().digest, digest("1"));
        assert_eq!((world.running(), world.reverts), (&digest("2"), 0));
        assert_eq!(world.record().quarantined(&digest("2"), world.now), None);
        let written = world.writes;
        for _ in 0..30 {
            world.run(1);
        }
        assert_eq!(world.writes, written, "said once");
    }
}

#[test]
fn a_quarantined_template_that_comes_back_is_reverted_until_that_has_happened_three_times() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    let mut waits = Vec::new();
    for _ in 0..2 {
        world.apply(template("2"));
        let (second, revert) = revert(world.run(600).unwrap());
        assert_eq!(revert.target.unwrap().digest, digest("1"));
        waits.push(second);
    }
    assert_eq!(waits, [11, 61], "with a growing delay");
    assert_eq!(world.written(), 3);
    world.apply(template("2"));
    assert_eq!(stall(world.run(600).unwrap()), StallReason::TooManyReverts);
    assert_eq!(world.reverts, 3);
    // A day later it is reverted again.
    world.now += jiff::SignedDuration::from_hours(25);
    revert(world.run(1).unwrap());
}

#[test]
fn an_override_that_settles_lifts_the_quarantine() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    let until = world.now + jiff::SignedDuration::from_hours(2);
    world.snapshot.deployment.override_text = Some(format!("{until} INC-1234"));
    complete(&mut world, template("2"));
    assert_eq!(world.run(62), None);
    assert_eq!(world.record().settled[0].digest, digest("2"));
    assert_eq!(world.record().quarantined(&digest("2"), world.now), None);
}

#[test]
fn a_quarantine_outlives_a_deployment_that_is_made_again_and_its_targets_do_not() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    world.snapshot.deployment.uid = "uid-other".into();
    world.snapshot.replica_sets.clear();
    world.history = History::default();
    world.apply(template("3"));
    world.all_ready();
    world.step();
    assert!(world.record().quarantined(&digest("2"), world.now).is_some());
    assert!(world.record().settled.is_empty());
    unready(&mut world);
    assert_eq!(stall(world.run(60).unwrap()), StallReason::NothingSettled);
}

#[test]
fn a_crash_between_record_and_patch_and_after_it_is_carried_on() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    unready(&mut world);
    world.now += jiff::SignedDuration::from_secs(30);
    let Decision::Revert(first) = world.look() else { panic!("no revert") };
    assert_eq!(world.record().reverts, std::slice::from_ref(&first));
    // Another controller: no history, the same record, the bad template still there, somebody scaled.
    world.history = History::default();
    world.snapshot.deployment.generation += 1;
    world.snapshot.deployment.observed_generation += 1;
    world.now += jiff::SignedDuration::from_secs(20);
    let carried_on = world.look();
    let again = Revert { generation: first.generation + 1, ..first };
    assert_eq!(carried_on, Decision::Revert(again.clone()));
    assert_eq!(world.record().reverts, std::slice::from_ref(&again), "recorded again, and no second one");
    // It makes the patch and dies; the third finds the good template.
    let before = world.snapshot.clone();
    world.carry_out(&carried_on);
    world.history = History::default();
    assert_eq!(world.look(), Decision::Finish(again));
    assert_eq!((world.written(), world.record().reverts.len()), (1, 1));
    assert!(matches!(world.look(), Decision::Rest(Rest::Reverted { quiet: true, .. })));
    // The watch shows the Deployment of before once more.
    world.snapshot = before;
    assert_eq!(world.look(), Decision::Rest(Rest::Stale));
}

#[test]
fn a_template_applied_between_record_and_patch_is_left_alone() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    unready(&mut world);
    world.now += jiff::SignedDuration::from_secs(30);
    assert!(matches!(world.look(), Decision::Revert(_)));
    world.apply(template("3"));
    world.all_ready();
    assert_eq!(world.run(62), None);
    assert!(world.record().has_settled(&digest("3")));
    assert!(world.record().quarantined(&digest("2"), world.now).is_some());
    assert_eq!(world.reverts, 0);
}

#[test]
fn a_controller_that_starts_in_the_middle_sees_what_the_statuses_tell() {
    // Unready after it had been ready.
    let mut world = World::settled("1");
    world.apply(template("2"));
    world.run(5);
    world.all_ready();
    world.run(5);
    unready(&mut world);
    world.now += jiff::SignedDuration::from_secs(4);
    world.history = History::default();
    world.step();
    assert_eq!(revert(world.run(60).unwrap()).0, 2, "11 of two pods: at the 6th second of being unready");
    // Restarts.
    let mut world = World::settled("1");
    world.apply(template("2"));
    for second in [2, 14, 37, 85] {
        world.now += jiff::SignedDuration::from_secs(second);
        world.restart(0, 1, "Error");
    }
    world.history = History::default();
    assert!(matches!(world.look(), Decision::Revert(_)));
}

#[test]
fn first_sight_in_the_middle_of_a_rollout_seeds_from_the_pods_of_the_old_one() {
    let mut world = World::settled("1");
    world.record = None;
    world.history = History::default();
    complete(&mut world, template("2"));
    world.snapshot.deployment.available = 1;
    world.step();
    assert_eq!(world.record().settled[0].digest, digest("1"));
    unready(&mut world);
    revert(world.run(60).unwrap());
    assert_eq!(world.running(), &digest("1"));
}

#[test]
fn first_sight_of_what_has_long_been_quiet_settles_at_once_and_of_what_is_young_does_not() {
    let mut world = World::settled("1");
    world.record = None;
    world.history = History::default();
    assert!(matches!(world.look(), Decision::Settle(_)));
    let mut world = World::settled("1");
    world.record = None;
    world.history = History::default();
    world.run(5);
    world.record = None;
    world.history = History::default();
    world.ready(1, false);
    world.ready(1, true);
    assert!(matches!(world.look(), Decision::Watch(_)));
}

#[test]
fn the_clock_of_the_bake_stands_at_zero_replicas() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    world.run(30);
    world.snapshot.deployment.replicas = 0;
    world.new_pods();
    assert_eq!(world.run(600), None);
    assert!(!world.record().has_settled(&digest("2")));
    world.snapshot.deployment.replicas = 2;
    world.new_pods();
    world.all_ready();
    world.run(28);
    assert!(!world.record().has_settled(&digest("2")));
    world.run(3);
    assert!(world.record().has_settled(&digest("2")));
}

#[test]
fn scaling_does_not_restart_the_bake() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    world.run(30);
    world.snapshot.deployment.replicas = 4;
    world.snapshot.deployment.generation += 1;
    world.snapshot.deployment.observed_generation += 1;
    world.new_pods();
    world.run(5);
    world.all_ready();
    world.run(27);
    assert!(world.record().has_settled(&digest("2")));
}

#[test]
fn an_older_settled_template_put_back_by_hand_that_fails_is_not_quarantined() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    world.run(62);
    let (_, decision) = fail(&mut world, "1").unwrap();
    let Decision::Revert(revert) = decision else { panic!("{decision:?}") };
    assert_eq!(revert.target.unwrap().digest, digest("2"));
    assert_eq!(world.record().quarantined(&digest("1"), world.now), None);
}

#[test]
fn a_budget_of_its_own_only_tightens() {
    for (failures, second) in [(3, 2), (500, 6)] {
        let mut world = World::settled("1");
        let base = world.settings.budgets[0];
        world.settings.budgets.push(Budget { failures, window: Duration::from_secs(300), ..base });
        assert_eq!(fail(&mut world, "2").unwrap().0, second);
    }
}

#[test]
fn a_record_of_a_newer_version_is_left_alone() {
    let mut world = World::settled("1");
    let newer = Record { version: 99, ..world.record().clone() };
    world.record = Some(newer.clone());
    fail(&mut world, "2");
    assert_eq!((world.record(), world.reverts), (&newer, 0));
}

#[test]
fn an_observed_revert_does_not_count_as_one() {
    let mut world = World::settled("1");
    world.settings.guard = Guard::Warn;
    fail(&mut world, "2");
    assert_eq!(world.record().reverts[0].outcome, Outcome::Observed);
    world.settings.guard = Guard::Enforce;
    revert(world.run(1).unwrap());
    assert_eq!(world.running(), &digest("1"));
}
