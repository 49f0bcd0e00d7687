//! When a template counts as *last good*: complete, and quiet for the bake time since its first completion.

use jiff::Timestamp;

use super::{
    history::History,
    record::{Record, Settled},
    settings::Settings,
    snapshot::{ProgressState, ReplicaSet, Snapshot},
    time::after,
};

/// When the current template was first complete. What the record says comes first, then what was seen; otherwise what
/// Kubernetes says, but no earlier than its youngest pod became ready, so that a rollout first seen now has its bake like
/// any other.
pub fn completed(
    snapshot: &Snapshot,
    set: &ReplicaSet,
    record: Option<&Record>,
    history: &History,
    now: Timestamp,
) -> Option<Timestamp> {
    let deployment = &snapshot.deployment;
    if let Some(at) = record
        .filter(|record| record.uid == deployment.uid)
        .and_then(|record| record.current.as_ref())
        .filter(|current| current.digest == deployment.template.digest)
        .and_then(|current| current.completed)
        // One that lies ahead was written by a clock that was wrong, or by hand.
        .filter(|at| *at <= now)
    {
        return Some(at);
    }
    if !deployment.is_complete() || deployment.paused {
        return None;
    }
    if let Some(at) = history.completed_at {
        return Some(at);
    }
    let told = match deployment.progress_of(set) {
        Some((ProgressState::Complete, at)) => at,
        _ => now,
    };
    let ready =
        snapshot.pods_of(set).filter_map(|pod| pod.containers_ready).filter(|ready| ready.is).map(|ready| ready.at);
    Some(ready.fold(told, Timestamp::max).min(now))
}

/// When the current template, complete since `completed`, counts as settled if it stays quiet.
pub fn settles_at(
    snapshot: &Snapshot,
    set: &ReplicaSet,
    record: Option<&Record>,
    history: &History,
    completed: Timestamp,
    settings: &Settings,
    now: Timestamp,
) -> Timestamp {
    // The clock stands while there are no pods to be quiet.
    let mut from = after(completed, history.idle);
    // What went on between then and the start of this watch is not known; its pods can vouch for no more than their age.
    if history.since.is_none_or(|since| since > completed) {
        let oldest = snapshot.pods_of(set).filter(|pod| !pod.terminating).map(|pod| pod.created).min();
        from = oldest.map_or(from, |created| from.max(created));
    }
    let stalled = record
        .filter(|record| record.uid == snapshot.deployment.uid)
        .and_then(|record| record.current.as_ref())
        .filter(|current| current.digest == set.template.digest)
        .and_then(|current| current.stall.as_ref())
        .map(|stall| stall.at)
        .filter(|at| *at <= now);
    let from = [history.failing, stalled].into_iter().flatten().fold(from, Timestamp::max);
    after(from, settings.bake)
}

/// First sight of a Deployment in the middle of a rollout: the ReplicaSet that it comes from counts as settled if all
/// its pods have been ready for the bake time.
pub fn seed(snapshot: &Snapshot, record: Option<&Record>, settings: &Settings, now: Timestamp) -> Option<Settled> {
    let uid = &snapshot.deployment.uid;
    if record.is_some_and(|record| record.uid == *uid && !record.settled.is_empty()) {
        return None;
    }
    let current = snapshot.current().map(|set| &set.object.uid);
    let quiet = |set: &&ReplicaSet| {
        let mut pods = snapshot.pods_of(set).filter(|pod| !pod.terminating).peekable();
        let long = |ready: super::snapshot::Since| ready.is && after(ready.at, settings.bake) <= now;
        pods.peek().is_some() && pods.all(|pod| pod.containers_ready.is_some_and(long))
    };
    let allowed = |set: &&ReplicaSet| {
        Some(&set.object.uid) != current
            && set.template.digest != snapshot.deployment.template.digest
            && record.is_none_or(|record| record.quarantined(&set.template.digest, now).is_none())
    };
    let set = snapshot.replica_sets.iter().filter(allowed).filter(quiet).max_by_key(|set| set.created)?;
    Some(settled(set, now))
}

/// The entry for a template that has settled.
pub fn settled(set: &ReplicaSet, at: Timestamp) -> Settled {
    Settled {
        digest: set.template.digest.clone(),
        version: set.template.version.clone(),
        replica_set: set.object.clone(),
        at,
    }
}
