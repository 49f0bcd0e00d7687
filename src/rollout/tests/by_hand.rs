//! Reverts that a person asks for.

use super::{
    scenarios::stall,
    world::{World, digest, template},
};
use crate::{
    config::Guard,
    rollout::{
        Because, Decision, Rest, by_hand, journal,
        record::{ByHand, Revert, StallReason},
    },
};

fn olga() -> ByHand {
    ByHand { user: "olga".into(), reason: "INC-1234".into() }
}

fn ask(world: &World) -> Decision {
    by_hand(&world.snapshot, world.record.as_ref(), &world.settings, &olga(), world.now)
}

fn asked(world: &World) -> Revert {
    match ask(world) {
        Decision::Revert(revert) => revert,
        other => panic!("no revert but {other:?}"),
    }
}

fn record(world: &mut World, decision: &Decision) {
    world.record = journal::next(world.record.as_ref(), &world.snapshot, decision, world.now);
}

/// Version 2 is rolled out over the settled 1, and nothing is wrong with it.
fn fine() -> World {
    let mut world = World::settled("1");
    world.apply(template("2"));
    world.all_ready();
    assert_eq!(world.run(5), None);
    world
}

#[test]
fn what_does_not_fail_goes_back_and_is_quarantined() {
    let mut world = fine();
    let revert = asked(&world);
    assert_eq!(revert.by_hand, Some(olga()));
    assert_eq!(revert.note(), "2 reverted to 1 by hand by olga: INC-1234");
    assert_eq!(revert.sentence(), "version 2 was reverted by hand by olga: INC-1234");
    record(&mut world, &Decision::Revert(revert.clone()));
    world.carry_out(&Decision::Revert(revert));
    world.step();
    assert_eq!((world.running(), world.written()), (&digest("1"), 1));
    assert!(world.record().quarantined(&digest("2"), world.now).is_some());
    assert_eq!(world.run(200), None, "nothing follows");
    assert_eq!(stall((0, ask(&world))), StallReason::SameTemplate, "it is back already");
}

#[test]
fn it_is_refused_for_the_reasons_that_hold_for_the_controller() {
    assert_eq!(stall((0, ask(&World::new("1")))), StallReason::NothingSettled);
    let mut paused = fine();
    paused.snapshot.deployment.paused = true;
    assert_eq!(stall((0, ask(&paused))), StallReason::Paused);
    let mut lost = fine();
    lost.snapshot.replica_sets.retain(|set| set.template.digest == digest("2"));
    assert_eq!(stall((0, ask(&lost))), StallReason::HistoryLost);
    let mut owned = fine();
    owned.snapshot.deployment.owner = Some("InferenceService/churn".into());
    assert!(matches!(ask(&owned), Decision::Observe { because: Because::Owner, .. }));
    let mut going = fine();
    going.snapshot.deployment.terminating = true;
    assert_eq!(ask(&going), Decision::Rest(Rest::Terminating));
}

/// Recorded, and cut off before it was written: the controller carries it on, unless it only observes there.
#[test]
fn what_is_recorded_is_carried_on_only_where_surefoot_acts() {
    let mut world = fine();
    let revert = asked(&world);
    let recorded = Decision::Revert(revert.clone());
    record(&mut world, &recorded);
    assert_eq!(world.decide(), recorded);
    assert_eq!(ask(&world), recorded, "asked for again, it is the same one");
    world.settings.guard = Guard::Warn;
    assert_eq!(world.decide(), Decision::Rest(Rest::ByHand));
    assert_eq!(ask(&world), recorded);
    world.settings.guard = Guard::Enforce;
    world.snapshot.deployment.override_text = Some("2199-01-01T00:00Z x".into());
    assert!(!matches!(world.decide(), Decision::Observe { .. }));
}
