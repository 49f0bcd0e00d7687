//! When a wait for one template is over, and with what.

use jiff::Timestamp;

use super::{
    record::{Outcome, Record, Revert, StallReason},
    view::{Facts, Seen, State, failed},
};
use crate::template::Digest;

/// How a wait for one template ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It is last good.
    Settled(String),
    /// It failed: reverted, withdrawn, or left as it is. The text says which.
    Failed(String),
    /// The Deployment has another template, and not by a revert.
    Replaced(String),
}

/// Whether the wait for the template `wanted` is over. `known` is the time of the newest revert that was over when the
/// wait began: a template that failed before and is tried again is judged by what happens to it now.
pub fn end(
    wanted: &Digest,
    seen: &Seen,
    record: Option<&Record>,
    known: Option<Timestamp>,
    now: Timestamp,
) -> Option<End> {
    let facts = Facts::new(seen, record);
    if seen.digest != *wanted {
        let of_wanted = |revert: &&Revert| {
            revert.digest == *wanted
                && revert.outcome != Outcome::Observed
                && known.is_none_or(|known| revert.at > known)
        };
        return Some(match facts.ours.and_then(|ours| ours.reverts.iter().find(of_wanted)) {
            Some(revert) => End::Failed(reverted_sentence(revert)),
            None => End::Replaced(format!("the Deployment has another template meanwhile, {}", seen.version())),
        });
    }
    if facts.reverted(now).or_else(|| facts.withdrawn()).is_some() {
        return facts.ours.and_then(|ours| ours.reverts.first()).map(|revert| End::Failed(reverted_sentence(revert)));
    }
    if let Some(stall) = facts.stall() {
        let state = if stall.reason == StallReason::Observed { State::Observed } else { State::Stalled };
        let (what, why) = (failed(&stall.evidence), stall.reason.sentence());
        return Some(End::Failed(format!("{state}: {} {what}; {why}", seen.version())));
    }
    facts.settled().map(|_| End::Settled(format!("settled: {}", seen.version())))
}

/// The time to hand to [`end`], from the record as it is when the wait begins.
pub fn known(record: Option<&Record>) -> Option<Timestamp> {
    record?.reverts.iter().find(|revert| revert.outcome == Outcome::Written).map(|revert| revert.at)
}

/// `reverted: 2.4.0 failed 12 of 30 probes in 41 s, 2.3.1 is back`
fn reverted_sentence(revert: &Revert) -> String {
    let bad = revert.bad();
    let what = revert.why();
    match &revert.target {
        Some(good) => format!("reverted: {bad} {what}, {} is back", good.named()),
        None => format!("withdrawn: {bad} {what}, scaled to 0: nothing to go back to"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::view::tests::{at, current, digest, record, revert, reverted, seen, settled, stall},
        *,
    };

    #[test]
    fn a_wait_ends_with_what_happened_to_its_template() {
        let (fresh, two) = (Some(record(json!([settled("1", 1)]), json!([]), json!(null))), digest("2"));
        let failed = |text: &str| Some(End::Failed(text.into()));
        let back = "reverted: 2 failed 12 of 30 probes in 60 s, 1 is back";
        let withdrawn = record(json!([]), json!([revert("2", None, "written", 21)]), json!(null));
        let stalled = |reason| Some(record(json!([]), json!([]), current("2", stall(reason))));
        let other = Some(End::Replaced("the Deployment has another template meanwhile, 3".into()));
        let rows = [
            (&two, seen("2"), None, None, None),
            (&two, seen("2"), fresh.clone(), None, None),
            (&digest("1"), seen("1"), fresh, None, Some(End::Settled("settled: 1".into()))),
            // `kubectl rollout restart` after it had settled, and after a revert.
            (&digest("1"), Seen { restarted: Some(at(28)), ..seen("1") }, Some(reverted()), None, None),
            (&two, seen("1"), Some(reverted()), None, failed(back)),
            // It began when the revert had been made already.
            (&digest("1"), seen("1"), Some(reverted()), Some(at(21)), failed(back)),
            // It was reverted before, and is tried again.
            (&two, seen("2"), Some(reverted()), Some(at(21)), None),
            (&two, seen("3"), Some(reverted()), Some(at(21)), other.clone()),
            (&two, seen("3"), None, None, other),
            (
                &two,
                Seen { replicas: 0, ..seen("2") },
                Some(withdrawn),
                None,
                failed("withdrawn: 2 failed 12 of 30 probes in 60 s, scaled to 0: nothing to go back to"),
            ),
            (
                &two,
                seen("2"),
                stalled("NothingSettled"),
                None,
                failed("stalled: 2 failed 12 of 30 probes in 60 s; nothing to go back to: no version has settled"),
            ),
            // Somebody mended what it depends on and restarted it, or resumed it: what failed was another rollout.
            (&two, Seen { restarted: Some(at(28)), ..seen("2") }, stalled("NothingSettled"), None, None),
            (&two, seen("2"), stalled("Paused"), None, None),
            (
                &two,
                seen("2"),
                stalled("Observed"),
                None,
                failed("observed: 2 failed 12 of 30 probes in 60 s; only observed"),
            ),
        ];
        for (wanted, seen, record, known, want) in rows {
            assert_eq!(end(wanted, &seen, record.as_ref(), known, at(31)), want);
        }
    }
}
