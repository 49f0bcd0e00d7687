//! Records that somebody has edited: they are refused as a whole, or decided on without a panic and without a revert to
//! anything that is not there.

use proptest::prelude::*;
use serde_json::Value;

use super::world::{World, template};
use crate::rollout::{Decision, Record, Rest, record::StallReason};

/// A rollout that has failed, with a record that knows of it.
fn failing() -> World {
    let mut world = World::settled("1");
    world.apply(template("2"));
    world.new_pods();
    world.all_ready();
    world.run(2);
    let pods = world.pods().len();
    (0..pods).for_each(|nth| world.ready(nth, false));
    world
}

/// How many values there are in it.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.values().map(size).sum(),
        _ => 0,
    }
}

/// Puts `other` in the place of the value at this place, counted depth first.
fn edit(value: &mut Value, place: &mut usize, other: &Value) {
    if *place == 0 {
        *value = other.clone();
    }
    let Some(left) = place.checked_sub(1) else { return *place = usize::MAX };
    *place = left;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| edit_unless_done(item, place, other)),
        Value::Object(members) => members.values_mut().for_each(|item| edit_unless_done(item, place, other)),
        _ => {}
    }
}

fn edit_unless_done(value: &mut Value, place: &mut usize, other: &Value) {
    if *place != usize::MAX {
        edit(value, place, other);
    }
}

fn other() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        Just(Value::from("")),
        Just(Value::from("v1:1")),
        Just(Value::from("v1:2")),
        Just(Value::from("recorded")),
        Just(Value::from("9999-12-30T00:00:00Z")),
        Just(Value::from("-009999-01-02T01:59:59Z")),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn an_edited_record_breaks_nothing(
        reverted: bool,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), other()), 1..4),
    ) {
        let mut world = failing();
        if reverted {
            world.run(30);
        }
        let mut text = serde_json::to_value(world.record()).unwrap();
        for (place, other) in edits {
            let mut place = place.index(size(&text));
            edit(&mut text, &mut place, &other);
        }
        let Ok(record) = serde_json::from_value::<Record>(text) else { return Ok(()) };
        world.record = Some(record);
        for _ in 0..30 {
            world.now += jiff::SignedDuration::from_secs(1);
            let decision = world.look();
            if let Decision::Revert(revert) = &decision
                && let Some(good) = &revert.target
            {
                prop_assert_eq!(&revert.digest, world.running());
                prop_assert!(good.digest != revert.digest);
                prop_assert!(world.record().has_settled(&good.digest));
                prop_assert!(world.snapshot.replica_sets.iter().any(|set| good.is_of(set)), "only to what is there");
                break;
            }
        }
    }
}

#[test]
fn a_record_of_a_newer_version_or_of_another_deployment_reverts_nothing() {
    let mut newer = failing();
    let mut record = newer.record().clone();
    record.version += 1;
    newer.record = Some(record);
    let writes = newer.writes;
    let mut again = failing();
    again.snapshot.deployment.uid = "made again".into();
    // The ReplicaSets of the one that was deleted are not its own.
    let running = again.running().clone();
    again.snapshot.replica_sets.retain(|set| set.template.digest == running);
    for second in 0..60 {
        for world in [&mut newer, &mut again] {
            world.now += jiff::SignedDuration::from_secs(1);
            let decision = world.look();
            assert!(!matches!(decision, Decision::Revert(_)), "after {second} s: {decision:?}");
        }
        assert_eq!(newer.decide(), Decision::Rest(Rest::NewerRecord));
    }
    assert_eq!(newer.writes, writes, "what a newer surefoot wrote is left as it is");
    let stalled = again.record().current.as_ref().and_then(|current| current.stall.as_ref());
    assert_eq!(stalled.map(|stall| stall.reason), Some(StallReason::NothingSettled));
}
