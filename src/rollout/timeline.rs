//! What happened to a Deployment's rollouts, moment by moment, as the record tells it.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    record::{Evidence, Outcome, Record, Revert},
    view::{Facts, Seen},
};

/// Something that happened in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// In a few words.
    pub what: String,
    /// What else there is to know; may be empty.
    pub detail: String,
}

impl Moment {
    fn new(at: Timestamp, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { at, what: what.into(), detail: detail.into() }
    }
}

/// What the record tells of this Deployment, oldest first.
pub fn timeline(seen: &Seen, record: Option<&Record>) -> Vec<Moment> {
    let Some(record) = record else { return Vec::new() };
    let facts = Facts::new(seen, Some(record));
    let mut moments = Vec::new();
    for settled in &record.settled {
        let what = format!("{} settled", settled.named());
        moments.push(Moment::new(settled.at, what, settled.replica_set.name.clone()));
    }
    for revert in &record.reverts {
        let set = revert.replica_set.as_ref().map(|set| set.name.clone()).unwrap_or_default();
        moments.extend(revert.began.map(|began| Moment::new(began, format!("rollout of {}", revert.bad()), set)));
        moments.extend(failure(&revert.evidence, revert.at));
        moments.push(reverted_moment(revert));
        if let Some(lifted) = revert.lifted.filter(|lifted| *lifted > revert.at) {
            let what = format!("{} no longer quarantined", revert.bad());
            moments.push(Moment::new(lifted, what, "it settled under an override"));
        }
    }
    if let Some(current) = facts.current {
        moments.push(Moment::new(current.since, format!("rollout of {}", seen.version()), ""));
        if let Some(completed) = current.completed {
            moments.push(Moment::new(completed, "complete", "baking from here on"));
        }
        if let (Some(spent), None) = (current.spent.as_ref().filter(|spent| spent.failures > 0), &current.stall) {
            moments.push(Moment::new(spent.since, "first failure", spent.what()));
            moments.push(Moment::new(spent.until, "spent so far", figures(spent)));
        }
        if let Some(stall) = &current.stall {
            moments.extend(failure(&stall.evidence, stall.at));
            moments.push(Moment::new(stall.at, "left as it is", stall.reason.sentence()));
        }
    }
    moments.sort_by_key(|moment| moment.at);
    moments.dedup();
    moments
}

/// From the first failing probe to the budget spent.
fn failure(evidence: &Evidence, decided: Timestamp) -> Vec<Moment> {
    if evidence.is_none() {
        return Vec::new();
    }
    if evidence.signal.is_decided_by_deadline() {
        return vec![Moment::new(decided, "progress deadline over", evidence.what())];
    }
    let first = Moment::new(evidence.since, "first failure", evidence.what());
    vec![first, Moment::new(evidence.until, "budget spent", figures(evidence))]
}

fn figures(evidence: &Evidence) -> String {
    format!("{} {}/{}", bar(evidence.failures, evidence.budget), evidence.failures, evidence.budget)
}

fn reverted_moment(revert: &Revert) -> Moment {
    let bad = revert.bad();
    let what = match (&revert.target, revert.outcome) {
        (Some(good), Outcome::Observed) => {
            format!("would be reverted to {}", good.named())
        }
        (Some(good), Outcome::Recorded) => {
            format!("being reverted to {}", good.named())
        }
        (Some(good), Outcome::Written) => format!("reverted to {}", good.named()),
        (None, Outcome::Observed) => format!("{bad} would be withdrawn"),
        (None, Outcome::Recorded) => format!("{bad} being withdrawn"),
        (None, Outcome::Written) => format!("{bad} withdrawn"),
    };
    Moment::new(revert.at, what, format!("{bad} {}", revert.why()))
}

/// `[######----]`, full at the budget.
pub fn bar(failed: u32, budget: u32) -> String {
    let full = if budget == 0 { 10 } else { (u64::from(failed) * 10 / u64::from(budget)).min(10) };
    (0..10).map(|step| if step < full { '#' } else { '-' }).fold(String::from("["), |mut bar, part| {
        bar.push(part);
        bar
    }) + "]"
}

#[cfg(test)]
mod tests {
    use super::{
        super::view::tests::{at, reverted, seen},
        *,
    };

    #[test]
    fn a_revert_is_told_from_the_first_failure_on() {
        let told: Vec<_> = timeline(&seen("1"), Some(&reverted()))
            .into_iter()
            .map(|moment| (moment.at.duration_since(at(0)).as_mins(), format!("{}: {}", moment.what, moment.detail)))
            .collect();
        let want = [
            (1, "1 settled: churn-1"),
            (19, "rollout of 2: churn-2"),
            (20, "first failure: readiness of container \"model\", HTTP 503"),
            (21, "budget spent: [##########] 12/10"),
            (21, "reverted to 1: 2 failed 12 of 30 probes in 60 s"),
        ];
        assert_eq!(told, want.map(|(minute, text)| (minute, text.to_owned())));
        assert_eq!(timeline(&seen("1"), None), []);
    }

    #[test]
    fn bars_are_full_at_the_budget() {
        for (failed, budget, want) in
            [(0, 10, "[----------]"), (6, 10, "[######----]"), (12, 10, "[##########]"), (1, 0, "[##########]")]
        {
            assert_eq!(bar(failed, budget), want);
        }
    }
}
