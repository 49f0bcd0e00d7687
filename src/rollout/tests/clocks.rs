//! Clocks that are wrong, are set, or stand still: nobody is reverted for that, and nothing waits until a wrong clock's
//! time has come.

use jiff::SignedDuration;

use super::{
    scenarios::{complete, fail, revert, unready},
    world::{World, digest, template},
};
use crate::rollout::{Decision, record::Record};

const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

#[test]
fn a_clock_that_is_set_back_changes_nothing_for_what_is_failing() {
    for back in [SignedDuration::from_secs(100), SignedDuration::from_hours(1), YEAR] {
        let mut world = World::settled("1");
        complete(&mut world, template("2"));
        unready(&mut world);
        assert_eq!(world.run(3), None);
        world.now -= back;
        // The second in which it was set is lost.
        assert_eq!(revert(world.run(60).unwrap()).0, 4, "set back by {back:?}");
    }
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_a_version_from_settling() {
    let mut world = World::settled("1");
    world.now += YEAR;
    complete(&mut world, template("2"));
    unready(&mut world);
    world.run(2);
    world.all_ready();
    world.run(5);
    world.now -= YEAR;
    // What the cluster says of its pods was written by another clock, which was right.
    for pod in world.pods() {
        pod.created -= YEAR;
        pod.containers_ready.as_mut().unwrap().at -= YEAR;
    }
    world.snapshot.deployment.progress.as_mut().unwrap().since -= YEAR;
    assert_eq!(world.run(65), None);
    assert!(world.record().has_settled(&digest("2")));
}

#[test]
fn reverts_of_a_clock_that_was_ahead_do_not_count_for_ever() {
    let mut world = World::settled("1");
    world.now += YEAR;
    for version in ["2", "3", "4"] {
        revert(fail(&mut world, version).unwrap());
    }
    world.now -= YEAR;
    revert(fail(&mut world, "5").unwrap());
}

#[test]
fn time_that_nobody_watched_is_not_charged() {
    for gap in [SignedDuration::from_mins(5), YEAR] {
        let mut world = World::settled("1");
        complete(&mut world, template("2"));
        world.run(3);
        // A blink of unreadiness, and the process is frozen, or its clock set.
        unready(&mut world);
        world.run(2);
        world.now += gap;
        let decision = world.step();
        assert!(matches!(decision, Decision::Watch(_)), "{gap:?}: {decision:?}");
        // It goes on being unready: that is charged from here on.
        assert!(revert(world.run(20).unwrap()).0 <= 6);
    }
}

#[test]
fn a_record_from_the_future_is_read_as_one_that_knows_nothing() {
    let mut world = World::settled("1");
    complete(&mut world, template("2"));
    world.run(3);
    let current = world.record.as_mut().unwrap().current.as_mut().unwrap();
    current.completed = Some(world.now + YEAR);
    assert_eq!(world.run(61), None);
    assert!(world.record().has_settled(&digest("2")));
}

#[test]
fn any_prefix_of_a_record_is_refused_or_harmless() {
    let mut world = World::settled("1");
    fail(&mut world, "2");
    let text = serde_json::to_string(world.record()).unwrap();
    for end in 0..text.len() {
        assert!(serde_json::from_str::<Record>(&text[..end]).is_err(), "{}", &text[..end]);
    }
}
