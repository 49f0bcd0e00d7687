//! What is not the template's fault, or no longer so: nothing is reverted for it, and nothing kept for ever.

use std::time::Duration;

use super::{
    scenarios::{complete, revert, stall, unready},
    world::{World, digest, template},
};
use crate::rollout::{
    Decision, History,
    record::{Signal, StallReason},
    snapshot::{Exit, Probe, ProgressState},
};

#[test]
fn a_pod_that_loads_again_after_its_node_rebooted_costs_nothing() {
    for controller_restarts in [false, true] {
        let mut world = World::settled("1");
        complete(&mut world, template("2"));
        world.run(20);
        for nth in [0, 1] {
            world.restart(nth, 255, "Unknown");
        }
        if controller_restarts {
            world.history = History::default();
        }
        assert_eq!(world.run(300), None, "controller restarts: {controller_restarts}");
        world.all_ready();
        assert_eq!(world.run(300), None);
        assert!(world.record().has_settled(&digest("2")));
    }
}

#[test]
fn a_pod_that_got_its_node_late_has_the_deadlines_time_to_load() {
    let mut world = World::settled("1");
    world.apply(template("2"));
    world.pods().into_iter().for_each(|pod| pod.containers[0].running_since = None);
    assert_eq!(world.run(600), None);
    world.progress(ProgressState::DeadlineExceeded);
    assert_eq!(world.run(60), None, "there is no room");
    let now = world.now;
    world.pods().into_iter().for_each(|pod| pod.containers[0].running_since = Some(now));
    let Decision::Watch(watch) = world.step() else { panic!("{:?}", world.decide()) };
    assert_eq!(watch.again_at.map(|at| at.duration_since(now).as_secs()), Some(600), "nothing else would wake us");
    let (second, revert) = revert(world.run(700).unwrap());
    assert_eq!((second, revert.evidence.signal), (600, Signal::Deadline));
}

#[test]
fn a_neighbour_that_restarts_does_not_make_loading_cost() {
    for controller_restarts in [false, true] {
        let mut world = World::settled("1");
        let mut slow = template("2");
        let mut agent = slow.containers[0].clone();
        agent.name = "agent".into();
        slow.containers.push(agent);
        world.apply(slow);
        let happens = |world: &mut World, second| {
            let now = world.now;
            for pod in world.pods() {
                if second == 5 {
                    pod.containers[1].restarts = 1;
                    pod.containers[1].last_exit = Some(Exit { code: 1, reason: "Error".into(), at: Some(now) });
                }
                pod.containers[1].ready = second > 6;
            }
            if controller_restarts && second == 10 {
                world.history = History::default();
            }
        };
        assert_eq!(world.play(400, happens), None, "controller restarts: {controller_restarts}");
    }
}

#[test]
fn time_at_zero_replicas_before_the_first_completion_does_not_lengthen_the_bake() {
    let mut world = World::settled("1");
    world.snapshot.deployment.replicas = 0;
    world.apply(template("2"));
    world.run(3600);
    world.snapshot.deployment.replicas = 2;
    world.new_pods();
    world.run(5);
    world.all_ready();
    assert_eq!(world.run(62), None);
    assert!(world.record().has_settled(&digest("2")));
}

#[test]
fn a_stall_that_is_over_is_forgotten_and_another_is_told_anew() {
    let mut world = World::new("1");
    world.all_ready();
    world.run(1);
    unready(&mut world);
    assert_eq!(stall(world.run(60).unwrap()), StallReason::NothingSettled);
    let first = world.record().current.clone().unwrap().stall.unwrap();
    // Somebody mends the ConfigMap: the same template, another ReplicaSet.
    let mut again = template("1");
    again.restarted_at = Some("2026-11-22T15:00:00Z".into());
    complete(&mut world, again.clone());
    assert_eq!(world.run(5), None);
    assert_eq!(world.record().current.clone().unwrap().stall, None);
    // Not well enough.
    unready(&mut world);
    stall(world.run(60).unwrap());
    assert!(world.record().current.clone().unwrap().stall.unwrap().at > first.at);
    // At last it is well, without another rollout: a bake from the last failing reading on, and no word of a stall.
    world.all_ready();
    let settled = (1..600).find(|_| {
        world.run(1);
        world.record().has_settled(&digest("1"))
    });
    assert!(settled.is_some_and(|second| second > 60), "{settled:?}");
    assert_eq!(world.record().current, None);
}

#[test]
fn a_revert_that_was_overtaken_is_not_finished_by_going_back_much_later() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    unready(&mut world);
    world.now += jiff::SignedDuration::from_secs(30);
    assert!(matches!(world.look(), Decision::Revert(_)), "recorded, and not carried out");
    complete(&mut world, template("3"));
    assert_eq!(world.run(62), None);
    assert!(world.record().has_settled(&digest("3")));
    world.apply(template("1"));
    let decision = world.look();
    assert!(matches!(decision, Decision::Watch(_)), "nobody reverted anything: {decision:?}");
}

#[test]
fn one_exit_at_boot_is_one_failure_however_patient_the_startup_probe() {
    for (code, reason, after, reverted) in [
        (1, "Error", 2, false),
        (137, "OOMKilled", 2, false),
        // By whomever: a probe that may fail for half an hour has not.
        (137, "Error", 2, false),
        (137, "Error", 1795, true),
    ] {
        let mut world = World::settled("1");
        let mut patient = template("2");
        patient.containers[0].startup = Some(Probe { period: Duration::from_secs(10), failure_threshold: 180 });
        world.apply(patient);
        world.pods().into_iter().for_each(|pod| pod.containers[0].started = false);
        assert_eq!(world.run(after), None);
        world.restart(0, code, reason);
        world.pods().into_iter().for_each(|pod| pod.containers[0].started = false);
        // Killed by the startup probe itself: its whole threshold has failed.
        assert_eq!(world.run(5).is_some(), reverted, "{reason} after {after} s");
    }
}

#[test]
fn one_that_was_killed_between_two_looks_was_not_ended_by_its_patient_startup_probe() {
    let mut world = World::settled("1");
    let mut patient = template("2");
    patient.containers[0].startup = Some(Probe { period: Duration::from_secs(1), failure_threshold: 60 });
    complete(&mut world, patient);
    let happens = |world: &mut World, second| match second {
        1 => {
            world.restart(0, 1, "Error");
            world.pods()[0].containers[0].started = false;
        }
        2 => world.down(0, "CrashLoopBackOff"),
        5 => {
            world.restart(0, 137, "Error");
            world.down(0, "CrashLoopBackOff");
        }
        _ => {}
    };
    assert_eq!(world.play(5, happens), None, "3 for each restart, 3 in back-off");
}

/// Loads for two minutes, has no startup probe, and its database was not there at first.
#[test]
fn a_slow_loader_that_crashed_once_may_load_again() {
    for controller_restarts in [false, true] {
        let mut world = World::settled("1");
        world.apply(template("2"));
        let happens = |world: &mut World, second| {
            if second == 5 {
                world.down(0, "");
            } else if second == 6 {
                world.restart(0, 1, "Error");
            } else if second == 125 {
                world.ready(1, true);
            } else if second == 60 && controller_restarts {
                world.history = History::default();
            }
        };
        assert_eq!(world.play(300, happens), None, "controller restarts: {controller_restarts}");
        world.all_ready();
        assert_eq!(world.run(62), None);
        assert!(world.record().has_settled(&digest("2")));
    }
}

#[test]
fn one_that_served_and_crashed_once_may_load_twice_as_long_as_before_and_no_longer() {
    let mut world = World::settled("1");
    world.apply(template("2"));
    world.run(50);
    world.all_ready();
    world.run(10);
    world.restart(0, 1, "Error");
    assert_eq!(world.run(100), None, "others load at the same time, or not");
    let (second, revert) = revert(world.run(100).unwrap());
    assert_eq!((second, revert.evidence.signal), (17, Signal::Readiness), "a tenth of what the other pod answered");
}

#[test]
fn a_crash_after_minutes_of_loading_is_reverted_when_it_goes_on() {
    let mut world = World::settled("1");
    world.apply(template("2"));
    let happens = |world: &mut World, second| match second {
        100 | 200 | 310 => world.down(0, "CrashLoopBackOff"),
        101 | 210 => world.restart(0, 1, "Error"),
        _ => {}
    };
    let (second, revert) = revert(world.play(600, happens).unwrap());
    assert_eq!((second, revert.evidence.signal), (208, Signal::Crash), "3 for a crash, 8 in back-off");
}

#[test]
fn with_a_startup_probe_that_probe_says_when_it_has_loaded() {
    let mut world = World::settled("1");
    let mut patient = template("2");
    patient.containers[0].startup = Some(Probe { period: Duration::from_secs(1), failure_threshold: 300 });
    complete(&mut world, patient);
    world.run(5);
    world.restart(0, 1, "Error");
    world.pods()[0].containers[0].started = false;
    assert_eq!(world.run(200), None);
    world.pods()[0].containers[0].started = true;
    assert!(world.run(40).is_some(), "started, and not ready");
}
