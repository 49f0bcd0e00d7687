//! What holds whatever happens: random lives of a Deployment, played against the decision.

use proptest::prelude::*;

use super::world::{World, digest, template};
use crate::rollout::{Decision, History, decide::REVERT_WINDOW, record::Outcome};

/// Something that a cluster, a person or a clock does.
#[derive(Clone, Debug)]
enum Event {
    Apply(u8),
    Ready(usize, bool),
    AllReady,
    Restart(usize, i32),
    NewPods,
    Scale(u32),
    Deadline,
    Pause(bool),
    ControllerRestarts,
    Wait(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u8..4).prop_map(Event::Apply),
        (0_usize..3, any::<bool>()).prop_map(|(nth, ready)| Event::Ready(nth, ready)),
        Just(Event::AllReady),
        (0_usize..3, prop_oneof![Just(1), Just(137), Just(255)]).prop_map(|(nth, code)| Event::Restart(nth, code)),
        Just(Event::NewPods),
        (0_u32..4).prop_map(Event::Scale),
        Just(Event::Deadline),
        any::<bool>().prop_map(Event::Pause),
        Just(Event::ControllerRestarts),
        // Clocks are set, backwards too.
        prop_oneof![4 => 1_i64..30, 1 => 30_i64..4000, 1 => -100_i64..0].prop_map(Event::Wait),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let pods = world.pods().len();
    match event {
        Event::Apply(version) => world.apply(template(&version.to_string())),
        Event::Ready(nth, ready) if *nth < pods => world.ready(*nth, *ready),
        Event::Restart(nth, code) if *nth < pods => {
            world.restart(*nth, *code, if *code == 255 { "Unknown" } else { "Error" })
        }
        Event::Ready(..) | Event::Restart(..) => {}
        Event::AllReady => world.all_ready(),
        Event::NewPods => world.new_pods(),
        Event::Scale(replicas) => {
            world.snapshot.deployment.replicas = *replicas;
            world.snapshot.deployment.generation += 1;
            world.snapshot.deployment.observed_generation += 1;
            world.new_pods();
        }
        Event::Deadline => world.progress(crate::rollout::snapshot::ProgressState::DeadlineExceeded),
        Event::Pause(paused) => world.snapshot.deployment.paused = *paused,
        Event::ControllerRestarts => world.history = History::default(),
        Event::Wait(seconds) => world.now += jiff::SignedDuration::from_secs(*seconds),
    }
}

/// What must hold of a decision before it is carried out.
fn check(world: &World, decision: &Decision) -> Result<(), TestCaseError> {
    let Decision::Revert(revert) = decision else { return Ok(()) };
    let deployment = &world.snapshot.deployment;
    prop_assert!(!deployment.paused, "a paused Deployment is never reverted");
    prop_assert_eq!(&revert.digest, world.running());
    let record = world.record();
    prop_assert!(
        record
            .reverts
            .iter()
            .filter(|entry| entry.outcome == Outcome::Recorded
                && entry.digest == revert.digest
                && entry.at == revert.at)
            .count()
            == 1
    );
    match &revert.target {
        Some(target) => {
            prop_assert!(target.digest != revert.digest, "never to itself");
            prop_assert!(record.has_settled(&target.digest), "never to what has not settled");
            prop_assert!(record.quarantined(&target.digest, world.now).is_none(), "never to what is quarantined");
            let sets = &world.snapshot.replica_sets;
            prop_assert!(sets.iter().any(|set| target.is_of(set)), "only to what is there");
        }
        None => prop_assert!(deployment.canary && deployment.replicas > 0),
    }
    prop_assert!(record.reverts_within(REVERT_WINDOW, revert.at) < 3);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_life_of_a_deployment(canary: bool, seed in 0_u8..2, events in proptest::collection::vec(event(), 1..120)) {
        let mut world = if seed == 0 { World::new("0") } else { World::settled("0") };
        world.snapshot.deployment.canary = canary;
        for event in &events {
            happen(&mut world, event);
            for _ in 0..6 {
                let before = world.record.as_ref().map_or(0, |record| record.reverts.len());
                let decision = world.look();
                check(&world, &decision)?;
                // Deciding again on the same, with the record written, makes no second entry.
                let mut again = world.clone();
                let same = again.look();
                if matches!(decision, Decision::Revert(_)) {
                    prop_assert_eq!(&same, &decision);
                    let entries = again.record().reverts.len();
                    prop_assert!(entries <= before.min(9) + 1);
                }
                let scale = world.snapshot.deployment.replicas;
                world.carry_out(&decision);
                let withdrawn = matches!(&decision, Decision::Revert(revert) if revert.target.is_none());
                prop_assert!(withdrawn || world.snapshot.deployment.replicas == scale, "replicas are not ours");
                if matches!(decision, Decision::Rest(_) | Decision::Watch(_) | Decision::Stall { .. } | Decision::Observe { .. }) {
                    break;
                }
            }
        }
        for settled in &world.record.iter().flat_map(|record| record.settled.clone()).collect::<Vec<_>>() {
            prop_assert!(world.record().quarantined(&settled.digest, world.now).is_none(), "what settled once is never quarantined");
        }
    }

    #[test]
    fn more_failures_never_turn_a_revert_into_a_wait(events in proptest::collection::vec(event(), 1..60), more in 1_usize..20) {
        let mut world = World::settled("0");
        world.apply(template("1"));
        for event in events.iter().filter(|event| !matches!(event, Event::Apply(_) | Event::Pause(_) | Event::Scale(_))) {
            happen(&mut world, event);
            world.history = std::mem::take(&mut world.history).observe(&world.snapshot, world.settings.window(), world.now);
        }
        prop_assert_eq!(world.running(), &digest("1"));
        let reverts = |world: &World| matches!(world.decide(), Decision::Revert(_));
        if reverts(&world) {
            for nth in 0..more {
                world.restart(nth % 2, 1, "Error");
                world.history = std::mem::take(&mut world.history).observe(&world.snapshot, world.settings.window(), world.now);
                prop_assert!(reverts(&world));
            }
        }
    }
}
