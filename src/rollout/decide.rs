//! The decision: one pure and total function of what is seen, what is known, and the time.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    budget::{self, Reading},
    hindrance::{self, Hindrance},
    history::History,
    record::{ByHand, Class, Evidence, Outcome, Record, Revert, Settled, StallReason, VERSION},
    settings::Settings,
    settle, signals,
    snapshot::{Pod, ProgressState, ReplicaSet, Snapshot},
    target::target,
    time::after,
};
use crate::{
    config::Guard,
    template::overriding::{self, Void},
};

/// After so many reverts within [`REVERT_WINDOW`] surefoot leaves a Deployment alone: somebody or something keeps
/// putting failing templates there, and has to be told.
pub const MOST_REVERTS: usize = 3;
/// See [`MOST_REVERTS`].
pub const REVERT_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// A quarantine for what may be cured from outside ends after this.
pub const CURE: Duration = Duration::from_secs(3600);
/// So often it ends by itself; from then on it stays like any other.
pub const MOST_CURES: usize = 3;
/// No watch lags behind our own writes for longer than this. What still looks older than a revert then is what there is
/// (a record was edited, a cluster was restored).
const LAG: Duration = Duration::from_secs(60);

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing, until something changes.
    Rest(Rest),
    /// Go on watching.
    Watch(Watch),
    /// This template is last good from now on.
    Settle(Settled),
    /// Put the target back, or withdraw the canary where there is none: recorded first, then written. One that the
    /// record has already ([`Revert::is_same`]) is carried on: its entry is no second one.
    Revert(Revert),
    /// The newest revert is in place, though not yet marked as written: do what comes after.
    Finish(Revert),
    /// Failing, and left as it is.
    Stall {
        /// Why.
        reason: StallReason,
        /// What fails.
        evidence: Evidence,
    },
    /// What would be a revert, were it not for the reason.
    Observe {
        /// What would be done.
        would: Revert,
        /// Why it is not.
        because: Because,
    },
}

/// Why there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The Deployment is being deleted.
    Terminating,
    /// The record was written by a newer surefoot: only that one understands it.
    NewerRecord,
    /// The ReplicaSet of the template has not been made yet.
    NoReplicaSet,
    /// What is seen is older than the revert that was made.
    Stale,
    /// The last good template is back, by a revert of ours, and is watched until it has been complete for a bake: should it
    /// fail too, that is said.
    Reverted {
        /// When to look again if nothing changes.
        again_at: Option<Timestamp>,
        /// It has not failed within the window.
        quiet: bool,
    },
    /// The template has settled.
    Settled,
    /// The template is quarantined, and at 0 replicas.
    Withdrawn,
    /// A person is reverting it where surefoot only observes.
    ByHand,
}

/// A rollout under watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// What it has spent.
    pub reading: Reading,
    /// When it was first seen.
    pub began: Option<Timestamp>,
    /// When it was first complete: it is baking since.
    pub completed: Option<Timestamp>,
    /// When it settles if it stays quiet and complete.
    pub settles_at: Option<Timestamp>,
    /// What keeps its pods from running, if anything does.
    pub hindrance: Option<Hindrance>,
    /// When to decide again if nothing changes.
    pub again_at: Option<Timestamp>,
}

/// Why a revert is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The guard of the namespace is below `enforce`.
    Guard(Guard),
    /// An override is in force until then.
    Override(Timestamp),
    /// Somebody else's controller owns the Deployment and would put its own template back.
    Owner,
}

/// Decides. `history` has seen `snapshot` already ([`History::observe`]).
pub fn decide(
    snapshot: &Snapshot,
    record: Option<&Record>,
    history: &History,
    settings: &Settings,
    now: Timestamp,
) -> Decision {
    let case = Case { snapshot, record, history, settings, now };
    match (case.judge(), case.restraint()) {
        // Whoever asked carries it out.
        (Decision::Revert(asked), Some(_)) if asked.by_hand.is_some() => Decision::Rest(Rest::ByHand),
        (Decision::Revert(would), Some(because)) => Decision::Observe { would, because },
        (decision, _) => decision,
    }
}

/// Decides for a person who wants the rollout reverted, whether it fails or not: a revert to the same target, refused
/// for the same reasons. Guard and override do not count, for they are about what surefoot does by itself; an owner does,
/// as it would put its own template back.
pub fn by_hand(
    snapshot: &Snapshot,
    record: Option<&Record>,
    settings: &Settings,
    asked: &ByHand,
    now: Timestamp,
) -> Decision {
    let history = History::default();
    let case = Case { snapshot, record, history: &history, settings, now };
    match case.judge_by_hand(asked) {
        Decision::Revert(would) if snapshot.deployment.owner.is_some() => {
            Decision::Observe { would, because: Because::Owner }
        }
        decision => decision,
    }
}

/// Whether the current rollout is failing, apart from what follows from it.
pub fn read(
    snapshot: &Snapshot,
    record: Option<&Record>,
    history: &History,
    settings: &Settings,
    now: Timestamp,
) -> Reading {
    let deadline = snapshot
        .current()
        .and_then(|set| snapshot.deployment.progress_of(set))
        .filter(|(state, _)| *state == ProgressState::DeadlineExceeded)
        .map(|_| snapshot.deployment.progress_deadline);
    let last = record.filter(|record| record.uid == snapshot.deployment.uid).and_then(|record| record.settled.first());
    let good = last.and_then(|last| snapshot.replica_sets.iter().find(|set| last.is_of(set)));
    let good = good.map(|set| &set.template);
    let rollout = budget::Rollout { template: &snapshot.deployment.template, good, deadline };
    budget::read(history, rollout, settings, now)
}

/// The arguments of [`decide`].
#[derive(Clone, Copy)]
struct Case<'a> {
    snapshot: &'a Snapshot,
    record: Option<&'a Record>,
    history: &'a History,
    settings: &'a Settings,
    now: Timestamp,
}

impl Case<'_> {
    /// What keeps surefoot from acting here.
    fn restraint(&self) -> Option<Because> {
        let deployment = &self.snapshot.deployment;
        if self.settings.guard != Guard::Enforce {
            return Some(Because::Guard(self.settings.guard));
        }
        if deployment.owner.is_some() {
            return Some(Because::Owner);
        }
        let text = deployment.override_text.as_deref()?;
        overriding::read(text, self.now).ok().map(|found| Because::Override(found.until))
    }

    /// What `enforce` would do.
    fn judge(&self) -> Decision {
        let deployment = &self.snapshot.deployment;
        if deployment.terminating {
            return Decision::Rest(Rest::Terminating);
        }
        if self.record.is_some_and(|record| record.version > VERSION) {
            return Decision::Rest(Rest::NewerRecord);
        }
        let ours = self.record.filter(|record| record.uid == deployment.uid);
        if let Some(decision) = ours.and_then(|record| self.carry_on(record)) {
            return decision;
        }
        if ours.is_some_and(|record| self.is_older(record)) {
            return Decision::Rest(Rest::Stale);
        }
        let Some(set) = self.snapshot.current() else { return Decision::Rest(Rest::NoReplicaSet) };
        if ours.and_then(|record| record.settled.first()).is_some_and(|last| last.is_of(set)) {
            return ours.and_then(|record| self.went_back(record)).unwrap_or(Decision::Rest(Rest::Settled));
        }
        if let Some(seed) = settle::seed(self.snapshot, self.record, self.settings, self.now) {
            return Decision::Settle(seed);
        }
        let reading = self.read();
        if reading.failing {
            let class = self.class(&reading.evidence);
            return self.act(reading.evidence, class);
        }
        match self.returned() {
            Some((due, entry)) if due <= self.now => self.act(entry.evidence.clone(), entry.class),
            back => self.watch(set, reading, back.map(|(due, _)| due)),
        }
    }

    /// The same for [`by_hand`].
    fn judge_by_hand(&self, asked: &ByHand) -> Decision {
        let deployment = &self.snapshot.deployment;
        if deployment.terminating {
            return Decision::Rest(Rest::Terminating);
        }
        if self.record.is_some_and(|record| record.version > VERSION) {
            return Decision::Rest(Rest::NewerRecord);
        }
        let ours = self.record.filter(|record| record.uid == deployment.uid);
        if let Some(decision) = ours.and_then(|record| self.carry_on(record)) {
            return decision;
        }
        let current = ours.and_then(|record| record.current.as_ref());
        let current = current.filter(|current| current.digest == deployment.template.digest);
        let stalled = current.and_then(|current| current.stall.as_ref()).map(|stall| &stall.evidence);
        let spent = stalled.or(current.and_then(|current| current.spent.as_ref()));
        match self.act(spent.cloned().unwrap_or_else(|| Evidence::none(self.now)), Class::Application) {
            Decision::Revert(revert) => Decision::Revert(Revert { by_hand: Some(asked.clone()), ..revert }),
            decision => decision,
        }
    }

    /// Who wanted the template out that is to be reverted again, where there is no other reason.
    fn asked_before(&self, evidence: &Evidence) -> Option<ByHand> {
        let record = self.record.filter(|_| evidence.is_none())?;
        record.quarantined(&self.snapshot.deployment.template.digest, self.now)?.by_hand.clone()
    }

    fn read(&self) -> Reading {
        read(self.snapshot, self.record, self.history, self.settings, self.now)
    }

    /// A revert that was recorded and whose end is not: it is decided again from what is there.
    fn carry_on(&self, record: &Record) -> Option<Decision> {
        let deployment = &self.snapshot.deployment;
        let revert = record.reverts.first().filter(|revert| revert.outcome == Outcome::Recorded)?;
        let digest = &deployment.template.digest;
        let stall = |reason| Decision::Stall { reason, evidence: revert.evidence.clone() };
        // What has changed since it was recorded may be that it was made, and undone: it is recorded once more then, so that
        // nothing is put back on the strength of an old sight of the record.
        let again = || Decision::Revert(Revert { generation: deployment.generation, ..revert.clone() });
        match &revert.target {
            // Overtaken: whoever goes back to the good template now does that by himself, and the failing one may be the
            // good one by now.
            _ if record.settled.first().is_some_and(|settled| settled.at > revert.at) => None,
            Some(good) if good.digest == *digest => Some(Decision::Finish(revert.clone())),
            None if revert.digest == *digest && deployment.replicas == 0 => Some(Decision::Finish(revert.clone())),
            // Something else was applied in between. The template stays quarantined: it did fail.
            _ if revert.digest != *digest || (revert.by_hand.is_none() && self.took_the_risk()) => None,
            _ if deployment.paused => Some(stall(StallReason::Paused)),
            // It may have become a stable one since: that is never scaled to 0.
            None => deployment.canary.then(again),
            Some(good) => match target(self.snapshot, Some(record), self.now) {
                Ok(target) if target.digest == good.digest => Some(again()),
                Ok(_) => None,
                Err(reason) => Some(stall(reason)),
            },
        }
    }

    /// The newest revert has been written, and this is the Deployment from before: a watch lags behind our own write.
    fn is_older(&self, record: &Record) -> bool {
        let deployment = &self.snapshot.deployment;
        let fresh = self.history.since.is_none_or(|since| self.now < after(since, LAG));
        record.reverts.first().is_some_and(|revert| {
            fresh
                && revert.outcome == Outcome::Written
                && revert.digest == deployment.template.digest
                && revert.generation >= deployment.generation
                && (revert.target.is_some() || deployment.replicas > 0)
        })
    }

    /// The last good template after a revert of ours: not reverted, whatever it does, but if it fails as well, it is the
    /// cluster that somebody has to look at.
    fn went_back(&self, record: &Record) -> Option<Decision> {
        let digest = &self.snapshot.deployment.template.digest;
        let revert = record.reverts.first().filter(|revert| revert.outcome == Outcome::Written)?;
        let to_this = revert.target.as_ref().is_some_and(|target| target.digest == *digest);
        let settled_since = record.settled.first().is_some_and(|settled| settled.at > revert.at);
        let current = record.current.as_ref().filter(|current| current.digest == *digest);
        let stalled = current.is_some_and(|current| current.stall.is_some());
        let ends = after(self.well_since(revert.at), self.settings.bake);
        if !to_this || settled_since || !(stalled || (revert.at..ends).contains(&self.now)) {
            return None;
        }
        let reading = self.read();
        if reading.failing {
            return Some(Decision::Stall { reason: StallReason::SameTemplate, evidence: reading.evidence });
        }
        let again_at = [reading.worse_at, Some(ends).filter(|ends| *ends > self.now)].into_iter().flatten().min();
        Some(Decision::Rest(Rest::Reverted { again_at, quiet: reading.evidence.failures == 0 }))
    }

    /// When what was gone back to was complete; until it is, the end of the time that Kubernetes gives it.
    fn well_since(&self, back: Timestamp) -> Timestamp {
        match self.history.completed_at {
            Some(completed) => completed.max(back),
            None if self.snapshot.deployment.is_complete() => back,
            None => after(back, self.snapshot.deployment.progress_deadline),
        }
    }

    /// Somebody who may has set an override for what runs now. One that never counted is no such thing.
    fn took_the_risk(&self) -> bool {
        let text = self.snapshot.deployment.override_text.as_deref();
        text.is_some_and(|text| matches!(overriding::read(text, self.now), Ok(_) | Err(Void::Ended(_))))
    }

    /// A quarantined template that is back (the webhook was away): when it is to be reverted, and what it did. The
    /// delay rises, so as not to fight whatever keeps putting it there. Where somebody took the risk with an override,
    /// its budget decides as for any other template, also when the override is over.
    fn returned(&self) -> Option<(Timestamp, &Revert)> {
        let deployment = &self.snapshot.deployment;
        let record = self.record.filter(|_| !self.took_the_risk())?;
        let entry = record.quarantined(&deployment.template.digest, self.now)?;
        let written = |revert: &&Revert| revert.digest == entry.digest && revert.outcome == Outcome::Written;
        let times = record.reverts.iter().filter(written).count().clamp(1, 4);
        let delay = Duration::from_secs(10) * 6_u32.pow(times as u32 - 1);
        Some((after(self.history.since.unwrap_or(self.now), delay), entry))
    }

    /// Whether what fails may be cured without another template: by its kind, or because it fails on one node only and
    /// is well on another.
    fn class(&self, evidence: &Evidence) -> Class {
        let well_elsewhere = |node: &String| {
            let well = |pod: &Pod| pod.containers_ready.is_some_and(|since| since.is) && signals::counts(pod);
            let elsewhere = |pod: &Pod| pod.node.as_ref().is_some_and(|other| other != node);
            self.snapshot.current().is_some_and(|set| self.snapshot.pods_of(set).any(|pod| well(pod) && elsewhere(pod)))
        };
        let one_bad_node = matches!(evidence.nodes.as_slice(), [node] if well_elsewhere(node));
        let digest = &self.snapshot.deployment.template.digest;
        let known = self.record.and_then(|record| record.quarantined(digest, self.now));
        match evidence.signal.is_configuration() || one_bad_node {
            // What it was found guilty of before is not taken back by failing in another way too.
            true if known.is_none_or(|known| known.class == Class::Configuration) => Class::Configuration,
            _ => Class::Application,
        }
    }

    /// When the quarantine ends by itself.
    fn until(&self, class: Class) -> Option<Timestamp> {
        let digest = &self.snapshot.deployment.template.digest;
        let same = |entry: &&Revert| {
            entry.digest == *digest && entry.class == Class::Configuration && entry.outcome != Outcome::Observed
        };
        let times = self.record.map_or(0, |record| record.reverts.iter().filter(same).count());
        (class == Class::Configuration && times < MOST_CURES).then(|| after(self.now, CURE))
    }

    /// The rollout fails: go back, or say why not.
    fn act(&self, evidence: Evidence, class: Class) -> Decision {
        let deployment = &self.snapshot.deployment;
        let template = &deployment.template;
        if deployment.paused {
            return Decision::Stall { reason: StallReason::Paused, evidence };
        }
        let target = match target(self.snapshot, self.record, self.now) {
            Ok(target) => Some(target),
            Err(StallReason::NothingSettled | StallReason::HistoryLost) if deployment.canary => None,
            Err(reason) => return Decision::Stall { reason, evidence },
        };
        if target.is_none() && deployment.replicas == 0 {
            return Decision::Rest(Rest::Withdrawn);
        }
        if self.record.is_some_and(|record| record.reverts_within(REVERT_WINDOW, self.now) >= MOST_REVERTS) {
            return Decision::Stall { reason: StallReason::TooManyReverts, evidence };
        }
        let settled_once = self.record.is_some_and(|record| record.has_settled(&template.digest));
        Decision::Revert(Revert {
            digest: template.digest.clone(),
            version: template.version.clone(),
            target,
            began: self.began(),
            replica_set: self.snapshot.current().map(|set| set.object.clone()),
            at: self.now,
            generation: deployment.generation,
            outcome: Outcome::Recorded,
            class,
            by_hand: self.asked_before(&evidence),
            evidence,
            until: self.until(class),
            // A template that once settled is never quarantined: it is what people go back to by hand.
            lifted: settled_once.then_some(self.now),
        })
    }

    fn watch(&self, set: &ReplicaSet, reading: Reading, revert_at: Option<Timestamp>) -> Decision {
        let Self { snapshot, record, history, settings, now } = *self;
        let completed = settle::completed(snapshot, set, record, history, now);
        let settles_at = completed.map(|at| settle::settles_at(snapshot, set, record, history, at, settings, now));
        let quiet = snapshot.deployment.is_complete() && !snapshot.deployment.paused && revert_at.is_none();
        if quiet && settles_at.is_some_and(|at| at <= now) {
            return Decision::Settle(settle::settled(set, now));
        }
        let settles_at = settles_at.filter(|_| quiet);
        let (hindrance, told_at) = hindrance::of(snapshot, now);
        let again_at = [reading.worse_at, settles_at, revert_at, told_at].into_iter().flatten().min();
        Decision::Watch(Watch { reading, began: self.began(), completed, settles_at, hindrance, again_at })
    }

    /// When this rollout was first seen, also if that was by another controller.
    fn began(&self) -> Option<Timestamp> {
        let record = self.record.filter(|record| record.uid == self.snapshot.deployment.uid);
        let ours = record
            .and_then(|record| record.current.as_ref())
            .filter(|current| current.digest == self.snapshot.deployment.template.digest);
        ours.map(|current| current.since).or(self.history.since)
    }
}
