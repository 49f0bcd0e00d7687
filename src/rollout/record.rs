//! The record of one Deployment's rollouts: what settled, what was reverted and on what evidence.
//!
//! Kept as JSON in a ConfigMap of surefoot's own namespace, so that tenants can neither read nor forge it. It holds no
//! pod template: the target of a revert is read from the ReplicaSet and checked by digest and uid.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    hindrance::Hindrance,
    time::{after, before},
};
use crate::template::Digest;

/// Entries kept of each kind, newest first.
pub const KEPT: usize = 10;

/// The form written today; a record of a higher version is left alone and the Deployment only observed.
pub const VERSION: u32 = 1;

/// One Deployment's record. Field names on disk are camelCase and stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Namespace of the Deployment.
    pub namespace: String,
    /// Name of the Deployment.
    pub name: String,
    /// Its uid when last written; a Deployment made again keeps the quarantine but not the targets.
    pub uid: String,
    /// Templates that settled, newest first: the first is *last good*.
    #[serde(default)]
    pub settled: Vec<Settled>,
    /// Reverts (and withdrawals), newest first. Those not lifted are the quarantine.
    #[serde(default)]
    pub reverts: Vec<Revert>,
    /// The rollout that is being watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Current>,
}

impl Record {
    /// The revert for which this template is quarantined now.
    pub fn quarantined(&self, digest: &Digest, now: Timestamp) -> Option<&Revert> {
        self.reverts.iter().find(|revert| revert.digest == *digest && revert.is_quarantine(now))
    }

    /// Whether this template has settled once.
    pub fn has_settled(&self, digest: &Digest) -> bool {
        self.settled.iter().any(|settled| settled.digest == *digest)
    }

    /// How many reverts were made in so long a time before `now`. One that lies further ahead than that was made by a
    /// clock that was wrong, and is no reason to leave this Deployment alone until the clock gets there.
    pub fn reverts_within(&self, span: std::time::Duration, now: Timestamp) -> usize {
        let span = before(now, span)..=after(now, span);
        self.reverts.iter().filter(|revert| revert.outcome == Outcome::Written && span.contains(&revert.at)).count()
    }
}

/// A template that was complete and quiet for the bake time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// Digest of the pod template.
    pub digest: Digest,
    /// Version label of the pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The ReplicaSet that carries it.
    pub replica_set: ObjectRef,
    /// When it settled.
    pub at: Timestamp,
}

impl Settled {
    /// Whether it is this ReplicaSet's template that settled, and on this ReplicaSet.
    pub fn is_of(&self, set: &super::snapshot::ReplicaSet) -> bool {
        self.replica_set.uid == set.object.uid && self.digest == set.template.digest
    }
}

/// Name and uid of an object in the Deployment's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
}

/// A template that was found failing, and what was done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revert {
    /// Digest of the failing template.
    pub digest: Digest,
    /// Its version label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What was put back; `None` for a canary that was withdrawn (scaled to 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Settled>,
    /// When its rollout was first seen. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// The ReplicaSet that failed. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_set: Option<ObjectRef>,
    /// When it was decided and recorded.
    pub at: Timestamp,
    /// metadata.generation that it was decided on, and once it is written, that it led to: an older Deployment in a
    /// watch cache is no second cause.
    #[serde(default)]
    pub generation: i64,
    /// How far it got.
    pub outcome: Outcome,
    /// Whose fault it looks like.
    pub class: Class,
    /// Why.
    pub evidence: Evidence,
    /// A person asked for it, whatever the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHand>,
    /// When the quarantine ends by itself: for what can be cured from outside, after an hour, the first three times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Set when an admitted override of this template settled: no longer quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted: Option<Timestamp>,
}

impl Revert {
    /// Whether it is the same revert, how far ever it got and on whatever generation.
    pub fn is_same(&self, other: &Self) -> bool {
        self.at == other.at && self.digest == other.digest
    }

    /// Whether it keeps its template out now.
    pub fn is_quarantine(&self, now: Timestamp) -> bool {
        self.outcome != Outcome::Observed && self.lifted.is_none() && self.until.is_none_or(|until| now < until)
    }
}

/// Who asked for a revert, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByHand {
    /// As the API server knows them.
    pub user: String,
    /// In their words; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// How far a revert got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Recorded, and about to be written. A controller that finds this decides again from what is there.
    Recorded,
    /// The good template is back (or the canary withdrawn).
    Written,
    /// Below `enforce`, or only observed for another reason: nothing was changed, nothing is quarantined.
    Observed,
}

/// Whose fault a failure looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// The template's: quarantined until an override of it settles.
    Application,
    /// Curable from outside (a missing ConfigMap, an image that is not there, one bad node): quarantined for an hour,
    /// from the fourth time on like the others.
    Configuration,
}

/// Why a rollout counts as failing. Record, Event, log and denial all say this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Probe failures spent.
    pub failures: u32,
    /// Probe attempts in the same window.
    pub attempts: u32,
    /// What was allowed: max(failures, percent of attempts).
    pub budget: u32,
    /// Time of the first failure.
    pub since: Timestamp,
    /// Time of the decision.
    pub until: Timestamp,
    /// The container that spent most.
    pub container: String,
    /// What failed.
    pub signal: Signal,
    /// The last message of the probe or the container, e.g. `HTTP 503` or `exit code 1`; may be empty.
    #[serde(default)]
    pub message: String,
    /// Pods that spent budget, at most 10 names.
    #[serde(default)]
    pub pods: Vec<String>,
    /// Nodes they ran on.
    #[serde(default)]
    pub nodes: Vec<String>,
}

impl Evidence {
    /// Of a revert by hand of what has not failed, as far as is known.
    pub fn none(now: Timestamp) -> Self {
        Self {
            failures: 0,
            attempts: 0,
            budget: 0,
            since: now,
            until: now,
            container: String::new(),
            signal: Signal::Readiness,
            message: String::new(),
            pods: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// There is nothing to show: see [`Evidence::none`].
    pub fn is_none(&self) -> bool {
        self.attempts == 0 && self.container.is_empty()
    }
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signal {
    /// Unready after it had been ready, or after a restart.
    Readiness,
    /// Killed by its liveness probe.
    Liveness,
    /// Killed by its startup probe.
    Startup,
    /// Ended by itself.
    Crash,
    /// Out of memory.
    OutOfMemory,
    /// `ProgressDeadlineExceeded`.
    Deadline,
    /// Its image is not there, or has no valid name; decided at the deadline.
    Image,
    /// What it is made with is not there (a ConfigMap, a Secret); decided at the deadline.
    Configuration,
    /// An init container fails; decided at the deadline.
    Init,
}

impl Signal {
    /// It counts when the progress deadline is over, and not before.
    pub fn is_decided_by_deadline(self) -> bool {
        self == Self::Deadline || self.is_configuration()
    }

    /// What may be cured from outside, without another template.
    pub fn is_configuration(self) -> bool {
        matches!(self, Self::Image | Self::Configuration | Self::Init)
    }
}

/// The rollout that is being watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Current {
    /// Digest of the Deployment's template.
    pub digest: Digest,
    /// Its version label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it was first seen.
    pub since: Timestamp,
    /// First completion: the bake runs from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
    /// When it settles if it stays quiet, as of the last writing. For people: decisions do not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles_at: Option<Timestamp>,
    /// What it had spent at the last writing: one for each further tenth of the budget. For people, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Evidence>,
    /// What keeps its pods from running, and is charged to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<Hindrance>,
    /// Why nothing is done although it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
}

/// Why a failing rollout is left as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stall {
    /// One word for machines.
    pub reason: StallReason,
    /// When it was first seen.
    pub at: Timestamp,
    /// What is failing.
    pub evidence: Evidence,
}

/// One word for why a failing rollout is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StallReason {
    /// No template of this Deployment has ever settled.
    NothingSettled,
    /// The ReplicaSet of the last good template is gone.
    HistoryLost,
    /// The last good template is the failing one (a ConfigMap, a Secret).
    SameTemplate,
    /// Three reverts in 24 hours.
    TooManyReverts,
    /// The API server refused the revert.
    RevertRefused,
    /// The Deployment is paused.
    Paused,
    /// Guard below `enforce`, an override in force, or an owner that would put its own template back.
    Observed,
}
