//! A rollout as people see it: one state, one line.
//!
//! `surefoot status` and `surefoot wait` need no more than the Deployment and its record: the right to read pods or
//! ReplicaSets is not asked for. What the controller alone knows is in the record.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    evidence::Took,
    record::{Current, Evidence, Outcome, Record, Revert, Settled, Stall, StallReason},
    time::between,
};
use crate::template::{Digest, overriding};

/// What is read of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
    /// Digest of the pod template.
    pub digest: Digest,
    /// Version label of the pod template, else of the Deployment.
    pub version: Option<String>,
    /// `kubectl rollout restart` was run then. The digest stays, the rollout is another one.
    pub restarted: Option<Timestamp>,
    /// Annotation `surefoot.dev/override`, as it is.
    pub override_text: Option<String>,
    /// spec.replicas
    pub replicas: u32,
    /// spec.paused
    pub paused: bool,
    /// The status is about this spec.
    pub observed: bool,
    /// status.replicas
    pub total: u32,
    /// status.updatedReplicas
    pub updated: u32,
    /// status.availableReplicas
    pub available: u32,
    /// Condition `Progressing` says `ProgressDeadlineExceeded`.
    pub late: bool,
    /// Condition `Progressing` changed last.
    pub progressed: Option<Timestamp>,
}

impl Seen {
    /// The rules of `kubectl rollout status`.
    fn complete(&self) -> bool {
        self.observed && self.updated >= self.replicas && self.total == self.updated && self.available >= self.updated
    }

    /// Until when an override is in force, and why.
    pub fn overridden(&self, now: Timestamp) -> Option<(Timestamp, &str)> {
        let text = self.override_text.as_deref()?;
        let (_, reason) = text.split_once(' ')?;
        overriding::read(text, now).ok().map(|found| (found.until, reason))
    }

    pub(super) fn version(&self) -> String {
        named(self.version.as_deref(), &self.digest)
    }
}

/// Where a rollout stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Pods are being replaced.
    Progressing,
    /// Complete, and watched until it has settled.
    Baking,
    /// This template is last good.
    Settled,
    /// It has spent budget.
    Failing,
    /// The last good template is back.
    Reverted,
    /// A failing canary was scaled to 0: there was nothing to go back to.
    Withdrawn,
    /// Failing, and left as it is: the note says why.
    Stalled,
    /// Failing, and would be reverted if the guard or an override did not say otherwise.
    Observed,
    /// Paused by a person.
    Paused,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Progressing => "progressing",
            Self::Baking => "baking",
            Self::Settled => "settled",
            Self::Failing => "failing",
            Self::Reverted => "reverted",
            Self::Withdrawn => "withdrawn",
            Self::Stalled => "stalled",
            Self::Observed => "observed",
            Self::Paused => "paused",
        })
    }
}

/// One line of `surefoot status`; as JSON its field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Of the Deployment.
    pub namespace: String,
    /// Of the Deployment.
    pub name: String,
    /// What runs, or is coming.
    pub version: Option<String>,
    /// In one word.
    pub state: State,
    /// Probe failures that were charged.
    pub failed: Option<u32>,
    /// Probe failures that were allowed.
    pub budget: Option<u32>,
    /// Since when it is in this state, where that is known.
    pub since: Option<Timestamp>,
    /// What else there is to know; may be empty.
    pub note: String,
}

/// Where the rollout of `seen` stands.
pub fn row(seen: &Seen, record: Option<&Record>, now: Timestamp) -> Row {
    let facts = Facts::new(seen, record);
    let told = facts
        .withdrawn()
        .or_else(|| facts.stalled())
        .or_else(|| facts.paused())
        .or_else(|| facts.reverted(now))
        .or_else(|| facts.settled())
        .or_else(|| facts.failing(now))
        .unwrap_or_else(|| facts.under_way(now));
    Row {
        namespace: seen.namespace.clone(),
        name: seen.name.clone(),
        version: seen.version.clone(),
        state: told.state,
        failed: told.failed,
        budget: told.budget,
        since: told.since,
        note: told.note,
    }
}

/// A row without the Deployment's names.
pub(super) struct Told {
    state: State,
    failed: Option<u32>,
    budget: Option<u32>,
    since: Option<Timestamp>,
    note: String,
}

impl Told {
    fn new(state: State, since: Option<Timestamp>, note: impl Into<String>) -> Self {
        Self { state, failed: None, budget: None, since, note: note.into() }
    }

    fn charged(self, evidence: &Evidence) -> Self {
        if evidence.is_none() {
            return self;
        }
        Self { failed: Some(evidence.failures), budget: Some(evidence.budget), ..self }
    }
}

/// The Deployment and what the record says of its present template.
pub(super) struct Facts<'a> {
    seen: &'a Seen,
    record: Option<&'a Record>,
    /// `record`, unless it is about a Deployment of the same name that is gone.
    pub(super) ours: Option<&'a Record>,
    /// The entry of the rollout under watch, if it is this template's.
    pub(super) current: Option<&'a Current>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(seen: &'a Seen, record: Option<&'a Record>) -> Self {
        let ours = record.filter(|record| record.uid == seen.uid);
        let current = ours.and_then(|ours| ours.current.as_ref()).filter(|current| current.digest == seen.digest);
        Self { seen, record, ours, current }
    }

    pub(super) fn withdrawn(&self) -> Option<Told> {
        let revert = self.ours?.reverts.first()?;
        let withdrawn = revert.target.is_none() && revert.outcome != Outcome::Observed;
        (withdrawn && revert.digest == self.seen.digest && self.seen.replicas == 0).then(|| {
            let note = format!("{} quarantined, scaled to 0: nothing to go back to", revert.bad());
            Told::new(State::Withdrawn, Some(revert.at), note).charged(&revert.evidence)
        })
    }

    /// Why nothing is done, unless somebody has done something since.
    pub(super) fn stall(&self) -> Option<&'a Stall> {
        let stall = self.current?.stall.as_ref()?;
        let resumed = stall.reason == StallReason::Paused && !self.seen.paused;
        (!resumed && !self.restarted_since(stall.at)).then_some(stall)
    }

    fn stalled(&self) -> Option<Told> {
        let stall = self.stall()?;
        let state = match stall.reason {
            StallReason::Observed => State::Observed,
            StallReason::Paused => State::Paused,
            _ => State::Stalled,
        };
        Some(Told::new(state, Some(stall.at), stall.reason.sentence()).charged(&stall.evidence))
    }

    fn paused(&self) -> Option<Told> {
        let since = self.current.map(|current| current.since);
        self.seen.paused.then(|| Told::new(State::Paused, since, "surefoot acts when it is resumed"))
    }

    /// The newest revert put this template back, and nothing has settled since.
    pub(super) fn reverted(&self, now: Timestamp) -> Option<Told> {
        let ours = self.ours?;
        let revert = ours.reverts.first()?;
        let back = revert.target.as_ref()?.digest == self.seen.digest && revert.outcome != Outcome::Observed;
        let newer = ours.settled.first().is_some_and(|settled| settled.at > revert.at);
        (back && !newer && !self.restarted_since(revert.at)).then(|| {
            let bad = revert.bad();
            let note = if revert.is_quarantine(now) { format!("{bad} quarantined") } else { format!("{bad} failed") };
            Told::new(State::Reverted, Some(revert.at), note).charged(&revert.evidence)
        })
    }

    pub(super) fn settled(&self) -> Option<Told> {
        let seen = self.seen;
        let settled = self.ours?.settled.first().filter(|settled| settled.digest == seen.digest)?;
        let note = match seen.available >= seen.replicas {
            true => String::new(),
            false => format!("{} of {} pods available", seen.available, seen.replicas),
        };
        (!self.restarted_since(settled.at)).then(|| Told::new(State::Settled, Some(settled.at), note))
    }

    /// The same template, and yet another rollout.
    fn restarted_since(&self, at: Timestamp) -> bool {
        self.seen.restarted.is_some_and(|restarted| restarted > at)
    }

    /// About to be reverted, or known to be bad, or late.
    fn failing(&self, now: Timestamp) -> Option<Told> {
        let known = |revert: &&Revert| revert.digest == self.seen.digest && revert.is_quarantine(now);
        if let Some(revert) = self.record.and_then(|record| record.reverts.iter().find(known)) {
            let note = match (&revert.outcome, &revert.target) {
                (Outcome::Recorded, Some(good)) => {
                    format!("being reverted to {}", good.named())
                }
                (Outcome::Recorded, None) => "being withdrawn".to_owned(),
                _ => "this template was reverted before and is back".to_owned(),
            };
            return Some(Told::new(State::Failing, Some(revert.at), note).charged(&revert.evidence));
        }
        (self.seen.observed && self.seen.late)
            .then(|| Told::new(State::Failing, self.seen.progressed, self.hindered("progress deadline exceeded")))
    }

    /// A note, and what keeps the pods from running.
    fn hindered(&self, note: impl Into<String>) -> String {
        let mut note = note.into();
        if let Some(hindrance) = self.current.and_then(|current| current.hindrance.as_ref()) {
            note += &format!("; {hindrance}");
        }
        note
    }

    fn under_way(&self, now: Timestamp) -> Told {
        let told = self.progress(now);
        let spent = self.current.and_then(|current| current.spent.as_ref());
        match spent {
            Some(spent) if spent.failures > 0 => {
                let note = spent.what();
                Told::new(State::Failing, Some(spent.since), note).charged(spent)
            }
            Some(spent) => told.charged(spent),
            None => told,
        }
    }

    fn progress(&self, now: Timestamp) -> Told {
        let seen = self.seen;
        let since = self.current.map(|current| current.since).or(seen.progressed);
        if seen.replicas == 0 {
            return Told::new(State::Progressing, since, "at 0 replicas there is nothing to watch");
        }
        if !seen.complete() {
            let note = format!("{} of {} pods are new, {} available", seen.updated, seen.replicas, seen.available);
            return Told::new(State::Progressing, since, self.hindered(note));
        }
        let completed = self.current.and_then(|current| current.completed).or(seen.progressed);
        let note = match self.current.and_then(|current| current.settles_at) {
            Some(at) if at > now => format!("settles in {}", age(between(now, at))),
            Some(_) => "settles any moment".to_owned(),
            None => "the controller has not seen it complete yet".to_owned(),
        };
        Told::new(State::Baking, completed, note)
    }
}

impl Revert {
    /// What it did, or who wanted it so: `failed 12 of 30 probes in 41 s`, `by hand by olga: INC-1234`.
    pub(super) fn why(&self) -> String {
        self.by_hand.as_ref().map_or_else(|| failed(&self.evidence), ToString::to_string)
    }

    /// What failed, in one word or two.
    pub(super) fn bad(&self) -> String {
        named(self.version.as_deref(), &self.digest)
    }
}

impl Settled {
    /// What settled, in one word or two.
    pub(super) fn named(&self) -> String {
        named(self.version.as_deref(), &self.digest)
    }
}

/// `failed 12 of 30 probes in 41 s`
pub(super) fn failed(evidence: &Evidence) -> String {
    let took = Took(between(evidence.since, evidence.until));
    match evidence.signal {
        signal if signal.is_decided_by_deadline() => format!("was not ready {took} after its start"),
        _ => format!("failed {} of {} probes in {}", evidence.failures, evidence.attempts, took),
    }
}

/// Its version; without a label the beginning of its digest.
fn named(version: Option<&str>, digest: &Digest) -> String {
    let short = || digest.as_str().rsplit(':').next().unwrap_or_default().chars().take(8).collect::<String>();
    version.map_or_else(|| format!("template {}", short()), str::to_owned)
}

/// `41s`, `14m`, `2h`, `6d`: for columns, as kubectl has it.
pub fn age(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::rollout) fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_795_356_000 + minute * 60).unwrap()
    }

    pub(in crate::rollout) fn digest(name: &str) -> Digest {
        serde_json::from_value(json!(format!("v1:{name}{name}{name}{name}"))).unwrap()
    }

    /// `shop/churn` with four pods of this version, all well.
    pub(in crate::rollout) fn seen(version: &str) -> Seen {
        Seen {
            namespace: "shop".into(),
            name: "churn".into(),
            uid: "u".into(),
            digest: digest(version),
            version: Some(version.into()),
            restarted: None,
            override_text: None,
            replicas: 4,
            paused: false,
            observed: true,
            total: 4,
            updated: 4,
            available: 4,
            late: false,
            progressed: Some(at(30)),
        }
    }

    fn evidence(minute: i64) -> serde_json::Value {
        json!({"failures": 12, "attempts": 30, "budget": 10, "since": at(minute - 1), "until": at(minute),
            "container": "model", "signal": "readiness", "message": "HTTP 503"})
    }

    pub(in crate::rollout) fn settled(version: &str, minute: i64) -> serde_json::Value {
        let set = json!({"name": format!("churn-{version}"), "uid": version});
        json!({"digest": digest(version), "version": version, "replicaSet": set, "at": at(minute)})
    }

    pub(in crate::rollout) fn revert(
        version: &str,
        target: Option<&str>,
        outcome: &str,
        minute: i64,
    ) -> serde_json::Value {
        json!({"digest": digest(version), "version": version, "target": target.map(|target| settled(target, 1)),
            "began": at(minute - 2), "replicaSet": {"name": format!("churn-{version}"), "uid": version},
            "at": at(minute), "outcome": outcome, "class": "application", "evidence": evidence(minute)})
    }

    pub(in crate::rollout) fn current(version: &str, more: serde_json::Value) -> serde_json::Value {
        let mut current = json!({"digest": digest(version), "version": version, "since": at(20)});
        current.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        current
    }

    pub(in crate::rollout) fn stall(reason: &str) -> serde_json::Value {
        json!({"stall": {"reason": reason, "at": at(25), "evidence": evidence(25)}})
    }

    pub(in crate::rollout) fn record(
        settled: serde_json::Value,
        reverts: serde_json::Value,
        current: serde_json::Value,
    ) -> Record {
        let record = json!({"version": 1, "namespace": "shop", "name": "churn", "uid": "u",
            "settled": settled, "reverts": reverts, "current": current});
        serde_json::from_value(record).unwrap()
    }

    pub(in crate::rollout) fn reverted() -> Record {
        record(json!([settled("1", 1)]), json!([revert("2", Some("1"), "written", 21)]), json!(null))
    }

    fn told(seen: &Seen, record: Option<&Record>) -> String {
        let row = row(seen, record, at(31));
        let figures = row.failed.zip(row.budget).map_or_else(|| "-".to_owned(), |(f, b)| format!("{f}/{b}"));
        let since = row.since.map_or(-1, |since| since.duration_since(at(0)).as_mins());
        format!("{} {figures} {since} {}", row.state, row.note)
    }

    #[test]
    fn every_state_is_told() {
        let none = json!([]);
        let watched = |more| record(json!([settled("1", 1)]), json!([]), current("2", more));
        let spent = |failures: u32| {
            let mut spent = evidence(25);
            spent["failures"] = failures.into();
            json!({"completed": at(22), "settlesAt": at(33), "spent": spent})
        };
        let two = || seen("2");
        let rows = [
            (seen("1"), Some(record(json!([settled("1", 1)]), none.clone(), json!(null))), "settled - 1 "),
            (
                Seen { available: 3, ..seen("1") },
                Some(record(json!([settled("1", 1)]), json!([]), json!(null))),
                "settled - 1 3 of 4 pods available",
            ),
            (
                Seen { restarted: Some(at(28)), updated: 1, ..seen("1") },
                Some(record(json!([settled("1", 1)]), json!([]), json!(null))),
                "progressing - 30 1 of 4 pods are new, 4 available",
            ),
            (two(), None, "baking - 30 the controller has not seen it complete yet"),
            (two(), Some(watched(json!({}))), "baking - 30 the controller has not seen it complete yet"),
            (two(), Some(watched(spent(0))), "baking 0/10 22 settles in 2m"),
            (two(), Some(watched(spent(3))), "failing 3/10 24 readiness of container \"model\", HTTP 503"),
            (
                Seen { updated: 2, available: 3, ..two() },
                Some(watched(json!({}))),
                "progressing - 20 2 of 4 pods are new, 3 available",
            ),
            (Seen { observed: false, late: true, ..two() }, None, "progressing - 30 4 of 4 pods are new, 4 available"),
            (Seen { late: true, updated: 2, ..two() }, None, "failing - 30 progress deadline exceeded"),
            (
                Seen { late: true, updated: 2, ..two() },
                Some(watched(
                    json!({"hindrance": {"reason": "unschedulable", "message": "0/3 nodes are available", "since": at(21)}}),
                )),
                "failing - 30 progress deadline exceeded; no node takes the pods: 0/3 nodes are available",
            ),
            (Seen { paused: true, ..two() }, None, "paused - -1 surefoot acts when it is resumed"),
            (
                Seen { paused: true, ..two() },
                Some(watched(stall("Paused"))),
                "paused 12/10 25 the Deployment is paused",
            ),
            (
                two(),
                Some(watched(stall("NothingSettled"))),
                "stalled 12/10 25 nothing to go back to: no version has settled",
            ),
            (two(), Some(watched(stall("Observed"))), "observed 12/10 25 only observed"),
            (seen("1"), Some(reverted()), "reverted 12/10 21 2 quarantined"),
            (two(), Some(reverted()), "failing 12/10 21 this template was reverted before and is back"),
            (
                two(),
                Some(record(json!([settled("1", 1)]), json!([revert("2", Some("1"), "recorded", 21)]), json!(null))),
                "failing 12/10 21 being reverted to 1",
            ),
            (
                seen("1"),
                Some(record(json!([settled("1", 25)]), json!([revert("2", Some("1"), "written", 21)]), json!(null))),
                "settled - 25 ",
            ),
            (
                Seen { replicas: 0, ..two() },
                Some(record(none.clone(), json!([revert("2", None, "written", 21)]), json!(null))),
                "withdrawn 12/10 21 2 quarantined, scaled to 0: nothing to go back to",
            ),
            (
                Seen { uid: "made again".into(), ..seen("1") },
                Some(reverted()),
                "baking - 30 the controller has not seen it complete yet",
            ),
        ];
        for (seen, record, want) in rows {
            assert_eq!(told(&seen, record.as_ref()), want);
        }
    }

    #[test]
    fn without_a_label_the_digest_names_a_version() {
        assert_eq!(Seen { version: None, ..seen("abc") }.version(), "template abcabcab");
        assert_eq!((age(Duration::from_secs(119)), age(Duration::from_secs(840))), ("119s".into(), "14m".into()));
        assert_eq!((age(Duration::from_secs(7200)), age(Duration::from_secs(520_000))), ("2h".into(), "6d".into()));
    }
}
