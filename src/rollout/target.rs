//! What a failing rollout goes back to.

use jiff::Timestamp;

use super::{
    record::{Record, Settled, StallReason},
    snapshot::Snapshot,
};

/// The last settled template, if its ReplicaSet is still there, controlled by the Deployment and unchanged; otherwise
/// why there is nothing to go back to.
pub fn target(snapshot: &Snapshot, record: Option<&Record>, now: Timestamp) -> Result<Settled, StallReason> {
    let record = record.filter(|record| record.uid == snapshot.deployment.uid).ok_or(StallReason::NothingSettled)?;
    let last = record.settled.first().ok_or(StallReason::NothingSettled)?;
    if last.digest == snapshot.deployment.template.digest {
        return Err(StallReason::SameTemplate);
    }
    let kept = |set: &super::snapshot::ReplicaSet| {
        set.object.uid == last.replica_set.uid && set.template.digest == last.digest
    };
    let there = snapshot.replica_sets.iter().any(kept);
    // Settling lifts a quarantine, so this holds already; a record edited by hand must not undo it.
    let good = record.quarantined(&last.digest, now).is_none();
    if there && good { Ok(last.clone()) } else { Err(StallReason::HistoryLost) }
}
