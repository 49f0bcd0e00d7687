//! What a decision makes of the record. Pure, so that "recorded before it is made" and "said once" can be tested: what
//! leaves the record as it is, has been said.

use jiff::Timestamp;

use super::{
    decide::{Decision, Rest, Watch},
    hindrance::Hindrance,
    record::{Current, Evidence, KEPT, Outcome, Record, Revert, Settled, Stall, StallReason, VERSION},
    snapshot::{Deployment, Snapshot},
};

/// The record after this decision; `None` where it stays as it is. A healthy rollout changes it twice: when it is first
/// complete, and when it has settled; a failing one for each further tenth of its budget.
pub fn next(record: Option<&Record>, snapshot: &Snapshot, decision: &Decision, now: Timestamp) -> Option<Record> {
    let deployment = &snapshot.deployment;
    let mut next = start(record, deployment);
    match decision {
        // The good template failed after a revert, too, and is well again.
        Decision::Rest(Rest::Reverted { quiet: true, .. }) if next.is_stalled(deployment) => next.current = None,
        Decision::Rest(_) => return None,
        Decision::Watch(watch)
            if watch.completed.is_none()
                && tenths(&watch.reading.evidence) == 0
                && watch.hindrance.is_none()
                && !next.is_under_watch(deployment) =>
        {
            return None;
        }
        Decision::Watch(watch) => next.current(deployment, watch.began.unwrap_or(now)).watched(watch),
        Decision::Settle(settled) => next.settle(settled, deployment, now),
        Decision::Revert(revert) => next.begin(revert),
        Decision::Finish(revert) => next.finish(revert, deployment.generation),
        Decision::Stall { reason, evidence } => next.stall(*reason, evidence, deployment, now),
        Decision::Observe { would, .. } => {
            next.stall(StallReason::Observed, &would.evidence, deployment, now);
            next.observed(would);
        }
    }
    (record != Some(&next)).then_some(next)
}

/// The record, or a new one. Of a Deployment that was made again under the same name only the quarantine goes on: its
/// ReplicaSets are others.
fn start(record: Option<&Record>, deployment: &Deployment) -> Record {
    let mut start = record.cloned().unwrap_or_else(|| Record {
        version: VERSION,
        namespace: deployment.namespace.clone(),
        name: deployment.name.clone(),
        uid: deployment.uid.clone(),
        settled: Vec::new(),
        reverts: Vec::new(),
        current: None,
    });
    if start.uid != deployment.uid {
        start.uid.clone_from(&deployment.uid);
        start.settled.clear();
        start.current = None;
        for revert in &mut start.reverts {
            // Generations are counted anew.
            revert.generation = 0;
            if revert.outcome == Outcome::Recorded {
                revert.outcome = Outcome::Written;
            }
        }
    }
    start
}

impl Record {
    /// The entry of the rollout that is being watched; made anew when the template is another one.
    fn current(&mut self, deployment: &Deployment, since: Timestamp) -> &mut Current {
        let template = &deployment.template;
        if self.current.as_ref().is_some_and(|current| current.digest != template.digest) {
            self.current = None;
        }
        self.current.get_or_insert_with(|| Current {
            digest: template.digest.clone(),
            version: template.version.clone(),
            since,
            completed: None,
            settles_at: None,
            spent: None,
            hindrance: None,
            stall: None,
        })
    }

    fn is_stalled(&self, deployment: &Deployment) -> bool {
        let current = self.current.as_ref().filter(|current| current.digest == deployment.template.digest);
        current.is_some_and(|current| current.stall.is_some())
    }

    /// There is something of this rollout that may have to be taken back.
    fn is_under_watch(&self, deployment: &Deployment) -> bool {
        let current = self.current.as_ref().filter(|current| current.digest == deployment.template.digest);
        current.is_some_and(|current| current.stall.is_some() || current.hindrance.is_some())
    }

    fn settle(&mut self, settled: &Settled, deployment: &Deployment, now: Timestamp) {
        self.settled.retain(|other| other.digest != settled.digest);
        self.settled.insert(0, settled.clone());
        self.settled.truncate(KEPT);
        for revert in self.reverts.iter_mut().filter(|revert| revert.digest == settled.digest) {
            revert.lifted.get_or_insert(now);
        }
        if settled.digest == deployment.template.digest {
            self.current = None;
        }
    }

    fn begin(&mut self, revert: &Revert) {
        match self.reverts.first_mut().filter(|newest| newest.is_same(revert) && newest.outcome == revert.outcome) {
            Some(newest) => newest.clone_from(revert),
            None => self.reverts.insert(0, revert.clone()),
        }
        self.reverts.truncate(KEPT);
    }

    fn finish(&mut self, revert: &Revert, generation: i64) {
        for entry in self.reverts.iter_mut().filter(|entry| entry.is_same(revert)) {
            entry.outcome = Outcome::Written;
            entry.generation = generation;
        }
        self.current = None;
    }

    fn stall(&mut self, reason: StallReason, evidence: &Evidence, deployment: &Deployment, now: Timestamp) {
        let current = self.current(deployment, now);
        if current.stall.as_ref().is_none_or(|stall| stall.reason != reason) {
            current.stall = Some(Stall { reason, at: now, evidence: evidence.clone() });
        }
    }

    fn observed(&mut self, would: &Revert) {
        let known = |entry: &Revert| entry.digest == would.digest && entry.outcome == Outcome::Observed;
        if !self.reverts.iter().any(known) {
            self.begin(&Revert { outcome: Outcome::Observed, ..would.clone() });
        }
    }
}

impl Current {
    /// Changed only where there is something to tell people: first completion, each further tenth of the budget, what
    /// hinders it, and that a stall is over: nothing has failed for a whole window. The bake begins anew then.
    fn watched(&mut self, watch: &Watch) {
        let evidence = &watch.reading.evidence;
        let reason = |hindrance: &Option<Hindrance>| hindrance.as_ref().map(|hindrance| hindrance.reason);
        if reason(&self.hindrance) != reason(&watch.hindrance) {
            self.hindrance.clone_from(&watch.hindrance);
        }
        if self.stall.is_some() && evidence.failures == 0 {
            self.stall = None;
            self.completed = watch.settles_at.map(|_| evidence.until);
            self.settles_at = watch.settles_at;
            self.spent = Some(evidence.clone());
            return;
        }
        let first = self.completed.is_none() && watch.completed.is_some();
        if first || tenths(evidence) > self.spent.as_ref().map_or(0, tenths) {
            self.completed = self.completed.or(watch.completed);
            self.settles_at = watch.settles_at;
            self.spent = Some(evidence.clone());
        }
    }
}

/// How many tenths of the budget are spent; the first failure counts as one.
fn tenths(evidence: &Evidence) -> u64 {
    let begun = u64::from(evidence.failures > 0);
    (u64::from(evidence.failures) * 10 / u64::from(evidence.budget.max(1))).max(begun)
}
