//! Whose fault it is: what keeps a container from running, nodes that fail, and how long a quarantine lasts.

use super::{
    scenarios::{complete, fail, revert, stall, unready},
    world::{World, digest, template},
};
use crate::rollout::{
    Decision, History, Rest,
    record::{Class, Outcome, Revert, Signal, StallReason},
    snapshot::{Exit, ProgressState, Waiting},
};

/// Version 2, of which no container has run: each waits for this.
fn waiting(reason: &str, message: &str) -> World {
    let mut world = World::settled("1");
    world.apply(template("2"));
    wait(&mut world, reason, message);
    world
}

fn wait(world: &mut World, reason: &str, message: &str) {
    for pod in world.pods() {
        pod.containers[0].running_since = None;
        pod.containers[0].waiting = Some(Waiting { reason: reason.into(), message: message.into() });
    }
}

#[test]
fn what_the_template_names_and_is_not_there_is_reverted_at_the_deadline() {
    for (reason, message, signal, told) in [
        ("InvalidImageName", "", Signal::Image, "image of container \"model\", `model:2` is no image name"),
        ("ErrImagePull", "model:2: not found", Signal::Image, "image of container \"model\", `model:2` not found"),
        (
            "CreateContainerConfigError",
            "configmap \"thresholds\" not found",
            Signal::Configuration,
            "configuration of container \"model\", configmap \"thresholds\" not found",
        ),
    ] {
        let mut world = waiting(reason, message);
        assert_eq!(world.run(599), None, "{reason}");
        world.progress(ProgressState::DeadlineExceeded);
        let (second, revert) = revert(world.run(10).unwrap());
        assert_eq!((second, revert.evidence.signal, revert.class), (1, signal, Class::Configuration));
        assert!(revert.sentence().ends_with(told), "{}", revert.sentence());
        assert!(revert.sentence().starts_with("version 2 was not ready 10 min after its start"));
        assert_eq!(revert.evidence.pods.len(), 2);
    }
}

#[test]
fn a_back_off_does_not_forget_that_the_image_was_not_found() {
    let mut world = waiting("ErrImagePull", "model:2: not found");
    world.run(5);
    wait(&mut world, "ImagePullBackOff", "Back-off pulling image");
    world.run(595);
    world.progress(ProgressState::DeadlineExceeded);
    assert_eq!(revert(world.run(5).unwrap()).1.evidence.signal, Signal::Image);
}

#[test]
fn an_init_container_that_fails_is_reverted_at_the_deadline() {
    let mut world = waiting("PodInitializing", "");
    for pod in world.pods() {
        let failure = Waiting { reason: "Error".into(), message: "exit code 1".into() };
        pod.init_failure = Some(("fetch".into(), failure));
    }
    assert_eq!(world.run(599), None);
    world.progress(ProgressState::DeadlineExceeded);
    let (_, revert) = revert(world.run(5).unwrap());
    assert!(revert.sentence().ends_with("init of container \"fetch\", exit code 1"), "{}", revert.sentence());
}

#[test]
fn a_registry_that_is_down_or_has_lost_what_ran_before_is_not_the_templates_fault() {
    for (image, message) in [
        ("model:2", "dial tcp: lookup registry: no such host"),
        ("model:2", "429 Too Many Requests"),
        ("model:1", "not found"),
    ] {
        let mut bad = template("2");
        bad.containers[0].image = image.into();
        let mut world = World::settled("1");
        world.apply(bad);
        wait(&mut world, "ErrImagePull", message);
        world.run(599);
        world.progress(ProgressState::DeadlineExceeded);
        assert_eq!(world.run(600), None, "{image} {message}");
    }
    // Nor is it when a container that ran must be started again.
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    world.run(20);
    world.restart(0, 1, "Error");
    world.down(0, "ErrImagePull");
    assert_eq!(world.run(600), None);
}

#[test]
fn without_a_good_version_the_cause_is_told_all_the_same() {
    let mut world = World::new("1");
    wait(&mut world, "CreateContainerConfigError", "secret \"token\" not found");
    world.run(599);
    world.progress(ProgressState::DeadlineExceeded);
    assert_eq!(stall(world.run(5).unwrap()), StallReason::NothingSettled);
    let stall = world.record().current.clone().unwrap().stall.unwrap();
    assert_eq!(stall.evidence.message, "secret \"token\" not found");
}

#[test]
fn a_quarantine_for_what_can_be_cured_ends_after_an_hour_three_times() {
    let mut world = World::settled("1");
    for time in 1..=4 {
        world.apply(template("2"));
        wait(&mut world, "CreateContainerConfigError", "configmap \"thresholds\" not found");
        world.run(599);
        world.progress(ProgressState::DeadlineExceeded);
        let (_, revert) = revert(world.run(5).unwrap());
        let minutes = revert.until.map(|until| until.duration_since(world.now).as_mins());
        assert_eq!(minutes, (time < 4).then_some(60), "time {time}");
        world.now += jiff::SignedDuration::from_hours(25);
        world.run(1);
        assert_eq!(world.record().quarantined(&digest("2"), world.now).is_some(), time == 4);
    }
}

#[test]
fn what_is_back_before_its_hour_is_over_is_no_new_hour_but_the_second() {
    let mut world = waiting("InvalidImageName", "");
    world.run(599);
    world.progress(ProgressState::DeadlineExceeded);
    revert(world.run(5).unwrap());
    world.apply(template("2"));
    wait(&mut world, "InvalidImageName", "");
    let (_, second) = revert(world.run(60).unwrap());
    assert_eq!((second.class, second.evidence.signal), (Class::Configuration, Signal::Image));
    assert!(second.until.is_some());
}

#[test]
fn one_bad_node_is_reverted_and_may_be_cured() {
    for (elsewhere, class) in [(true, Class::Configuration), (false, Class::Application)] {
        let mut world = World::settled("1");
        complete(&mut world, template("2"));
        if elsewhere {
            world.pods()[1].node = Some("node-2".into());
        }
        world.run(3);
        world.ready(0, false);
        let (_, revert) = revert(world.run(60).unwrap());
        assert_eq!((revert.class, revert.until.is_some()), (class, elsewhere));
    }
}

#[test]
fn a_node_that_is_not_ready_charges_nothing_and_what_is_back_from_it_begins_anew() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    world.run(3);
    for pod in world.pods() {
        pod.node_ready = Some(false);
    }
    unready(&mut world);
    assert_eq!(world.run(20), None);
    for nth in [0, 1] {
        world.restart(nth, 137, "Error");
    }
    for pod in world.pods() {
        pod.node_ready = Some(true);
    }
    assert_eq!(world.run(20), None, "they load once more");
    world.all_ready();
    world.run(2);
    unready(&mut world);
    assert_eq!(revert(world.run(30).unwrap()).0, 6, "and then they are charged as before");
}

#[test]
fn what_was_unready_when_its_node_was_lost_is_charged_no_more_until_the_node_is_back() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    unready(&mut world);
    assert_eq!(world.run(3), None);
    world.pods().into_iter().for_each(|pod| pod.node_ready = Some(false));
    assert_eq!(world.run(100), None);
    world.pods().into_iter().for_each(|pod| pod.node_ready = Some(true));
    assert_eq!(revert(world.run(30).unwrap()).0, 7);
}

#[test]
fn a_reboot_is_not_charged_whichever_is_seen_first_and_however_the_containers_ended() {
    for boot_first in [Some(true), Some(false), None] {
        let mut world = World::settled("1");
        complete(&mut world, template("2"));
        for pod in world.pods() {
            pod.boot = Some("first".into());
        }
        world.run(3);
        let boot = |world: &mut World| {
            for pod in world.pods() {
                pod.boot = Some("second".into());
            }
            world.step();
        };
        let restart = |world: &mut World| {
            for nth in [0, 1] {
                world.restart(nth, 137, "Error");
            }
            world.step();
        };
        if boot_first == Some(true) {
            boot(&mut world);
        }
        restart(&mut world);
        if boot_first == Some(false) {
            boot(&mut world);
        }
        // Twice three are below the budget: a third one tells whether the first two were charged.
        world.restart(0, 1, "Error");
        world.step();
        world.restart(1, 1, "Error");
        assert_eq!(world.run(2).is_some(), boot_first.is_none(), "{boot_first:?}");
    }
}

#[test]
fn the_good_version_failing_after_a_revert_is_told_and_not_reverted() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    assert_eq!(world.running(), &digest("1"));
    world.run(5);
    unready(&mut world);
    assert_eq!(stall(world.run(30).unwrap()), StallReason::SameTemplate);
    let (writes, reverts) = (world.writes, world.reverts);
    for _ in 0..300 {
        world.run(1);
    }
    assert_eq!((world.writes - writes, world.reverts), (0, reverts), "told once, also when the bake is over");
    world.all_ready();
    for _ in 0..700 {
        world.run(1);
    }
    assert_eq!(world.record().current, None, "it is well again");
    assert_eq!(world.decide(), Decision::Rest(Rest::Settled));
}

#[test]
fn the_good_version_is_watched_until_it_was_complete_for_a_bake() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    // Its pods had all gone; nobody has looked since.
    world.history = History::default();
    world.new_pods();
    assert_eq!(world.run(90), None, "longer than a bake: it loads");
    let mut late = world.clone();
    let crashes = late.play(60, |world, second| {
        if second.is_multiple_of(5) {
            world.restart(0, 1, "Error");
        }
    });
    assert_eq!(stall(crashes.unwrap()), StallReason::SameTemplate);

    world.all_ready();
    assert_eq!(world.run(61), None);
    assert_eq!(world.decide(), Decision::Rest(Rest::Settled));
    unready(&mut world);
    assert_eq!(world.run(60), None, "it was well for a bake: whatever it does now is not the revert's");
}

#[test]
fn an_override_that_never_counted_is_no_risk_that_somebody_took() {
    for (text, reverted) in
        [("soon INC-1", true), ("2099-01-01T00:00Z INC-1", true), ("2025-11-01T00:00Z INC-1", false)]
    {
        let mut world = World::settled("1");
        fail(&mut world, "2");
        world.apply(template("2"));
        world.snapshot.deployment.override_text = Some(text.into());
        assert_eq!(world.run(55).is_some(), reverted, "{text}");
    }
}

#[test]
fn a_template_that_was_to_be_reverted_and_settled_instead_is_left_alone() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    unready(&mut world);
    world.now += jiff::SignedDuration::from_secs(30);
    assert!(matches!(world.look(), Decision::Revert(_)), "recorded, and not carried out");
    let until = world.now + jiff::SignedDuration::from_hours(2);
    world.snapshot.deployment.override_text = Some(format!("{until} INC-1234"));
    complete(&mut world, template("2"));
    assert_eq!(world.run(62), None);
    assert!(world.record().has_settled(&digest("2")));
    world.snapshot.deployment.override_text = None;
    assert_eq!(world.run(62), None);
    assert_eq!(world.decide(), Decision::Rest(Rest::Settled));
}

/// An edited record, or a cluster restored from a backup: it must not keep a failing template for ever.
#[test]
fn what_looks_older_than_the_revert_for_longer_than_a_watch_lags_is_what_there_is() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    world.record.as_mut().unwrap().reverts[0].generation = 1_000_000;
    world.apply(template("2"));
    let (second, again) = revert(world.run(120).unwrap());
    assert_eq!(second, 61);
    assert_eq!(again.outcome, Outcome::Recorded);
    assert_eq!(again.evidence, world.record().reverts[1].evidence, "it has not failed since");
    let note = again.note();
    assert!(note.starts_with("2 reverted to 1 once more, for what it did before: "), "{note}");
}

#[test]
fn a_record_about_another_deployment_of_the_same_name_lends_nothing_but_its_quarantine() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    let before = world.record().clone();
    let mut other = World::new("1");
    other.snapshot.deployment.uid = "uid-made-again".into();
    other.record = Some(before);
    // Its ReplicaSet has the same uid in this world: the Deployment's own uid decides.
    other.all_ready();
    other.run(1);
    assert!(!other.record().has_settled(&digest("1")), "a bake of its own");
    unready(&mut other);
    assert_eq!(stall(other.run(60).unwrap()), StallReason::NothingSettled);
    other.apply(template("2"));
    assert_eq!(
        stall(other.run(60).unwrap()),
        StallReason::NothingSettled,
        "known to be bad, and nothing to go back to"
    );
    let bad: Vec<&Revert> = other.record().reverts.iter().collect();
    assert_eq!(bad.len(), 1);
}

#[test]
fn a_sidecar_of_the_template_is_charged_like_its_neighbours() {
    let mut world = World::settled("1");
    let mut bad = template("2");
    let mut sidecar = bad.containers[0].clone();
    sidecar.name = "proxy".into();
    bad.containers.push(sidecar);
    complete(&mut world, bad);
    let happens = |world: &mut World, second| {
        let now = world.now;
        for pod in world.pods() {
            if second % 5 == 0 {
                pod.containers[1].restarts += 1;
                pod.containers[1].last_exit = Some(Exit { code: 2, reason: "Error".into(), at: Some(now) });
            }
        }
    };
    let (second, revert) = revert(world.play(60, happens).unwrap());
    assert_eq!((second, revert.evidence.container.as_str()), (10, "proxy"));
}

/// Whoever's fault it is: said once when it has lasted, taken back when it is over, and never charged.
#[test]
fn what_keeps_pods_from_running_is_told() {
    type Hinder = fn(&mut World);
    let cases: [(Hinder, &str, u32); 6] = [
        (
            |world| world.snapshot.deployment.replica_failure = Some("exceeded quota: gpus".into()),
            "pods cannot be made: exceeded quota: gpus",
            1,
        ),
        (
            |world| {
                for pod in world.pods() {
                    pod.scheduled.as_mut().unwrap().is = false;
                    pod.unschedulable = Some("0/3 nodes are available".into());
                }
            },
            "no node takes the pods: 0/3 nodes are available",
            30,
        ),
        (|world| world.pods()[0].node_ready = Some(false), "a node is not ready: node-1", 1),
        (
            |world| wait(world, "ErrImagePull", "dial tcp: i/o timeout"),
            "a container cannot start: \"model\", ErrImagePull: dial tcp: i/o timeout",
            30,
        ),
        (
            |world| {
                world.pods()[0].init_failure =
                    Some(("fetch".into(), Waiting { reason: "Error".into(), message: "exit code 1".into() }))
            },
            "an init container fails: \"fetch\", Error: exit code 1",
            30,
        ),
        // An image of gigabytes, or a volume that is not there: only Events tell them apart.
        (
            |world| wait(world, "ContainerCreating", ""),
            "a container cannot start: \"model\", ContainerCreating; why: kubectl describe pod churn-1-0-1763800061 -n shop",
            600,
        ),
    ];
    for (hinder, wanted, second) in cases {
        let mut world = World::settled("1");
        world.apply(template("2"));
        world.pods().into_iter().for_each(|pod| pod.containers[0].running_since = None);
        hinder(&mut world);
        let told = |world: &World| {
            let current = world.record().current.as_ref()?;
            current.hindrance.as_ref().map(ToString::to_string)
        };
        let before = world.writes;
        assert_eq!(world.run(second - 1), None);
        assert_eq!(told(&world), None, "{wanted}");
        assert_eq!(world.run(300), None);
        assert_eq!((told(&world).as_deref(), world.writes - before), (Some(wanted), 1));
        let now = world.now;
        world.snapshot.deployment.replica_failure = None;
        for pod in world.pods() {
            (pod.node_ready, pod.unschedulable, pod.init_failure) = (None, None, None);
            pod.containers[0].waiting = None;
            pod.containers[0].running_since = Some(now);
        }
        assert_eq!(world.run(1), None);
        assert_eq!(told(&world), None, "{wanted}");
    }
}

#[test]
fn a_canary_that_became_a_stable_one_before_it_was_withdrawn_is_not() {
    let mut world = World::new("1");
    world.snapshot.deployment.canary = true;
    world.all_ready();
    world.run(1);
    unready(&mut world);
    world.now += jiff::SignedDuration::from_secs(30);
    assert!(matches!(world.look(), Decision::Revert(_)), "recorded, and not carried out");
    world.snapshot.deployment.canary = false;
    assert_eq!(stall(world.run(60).unwrap()), StallReason::NothingSettled);
    assert_eq!(world.snapshot.deployment.replicas, 2);
}

/// What is down because it crashed is no readiness that failed.
#[test]
fn the_wait_before_the_next_restart_is_told_as_what_led_to_it() {
    let mut world = World::settled("1");
    world.apply(template("2"));
    let (second, revert) = revert(
        world
            .play(30, |world, second| match second {
                2 => world.restart(0, 1, "Error"),
                3.. => world.down(0, "CrashLoopBackOff"),
                _ => {}
            })
            .unwrap(),
    );
    assert!(second < 15, "{second}");
    assert_eq!((revert.evidence.signal, revert.evidence.message.as_str()), (Signal::Crash, "exit code 1"));
}
