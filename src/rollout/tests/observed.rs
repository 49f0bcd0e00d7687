//! A guard below `enforce` gives, for the same history, the decision that `enforce` would have acted on. Asked at every
//! look of every scenario, property and simulated life.

use jiff::Timestamp;

use crate::{
    config::Guard,
    rollout::{Because, Decision, History, Record, Rest, Settings, Snapshot, decide},
};

/// Panics where a guard that only observes decides anything else than `enforced`, which was decided under `enforce`.
pub(super) fn alike(
    enforced: &Decision,
    snapshot: &Snapshot,
    record: Option<&Record>,
    history: &History,
    settings: &Settings,
    now: Timestamp,
) {
    if settings.guard != Guard::Enforce {
        return;
    }
    for guard in [Guard::Audit, Guard::Warn] {
        let settings = Settings { guard, ..settings.clone() };
        let wanted = match enforced {
            Decision::Revert(asked) if asked.by_hand.is_some() => Decision::Rest(Rest::ByHand),
            Decision::Revert(would) | Decision::Observe { would, .. } => {
                Decision::Observe { would: would.clone(), because: Because::Guard(guard) }
            }
            other => other.clone(),
        };
        assert_eq!(decide(snapshot, record, history, &settings, now), wanted, "with guard {guard:?}");
    }
}
