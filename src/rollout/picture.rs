//! One rollout as it is drawn: from when to when, what happened, what its pods did and what was spent. What is seen of
//! pods now is laid beside what the record keeps of those that are gone.

use jiff::{SignedDuration, Timestamp};

use super::{
    record::{Evidence, Record},
    snapshot::{Pod, Snapshot},
    time::between,
    timeline::{Moment, timeline},
    view::{Facts, Row, Seen, row},
};

/// Pods that are drawn; of more the rest is counted.
pub const MOST_PODS: usize = 24;

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The line of `surefoot status`.
    pub row: Row,
    /// Where the axis begins.
    pub from: Timestamp,
    /// Where it ends.
    pub to: Timestamp,
    /// What happened, oldest first: the timeline of this rollout.
    pub moments: Vec<Moment>,
    /// Failures and budget, where any were counted.
    pub spent: Option<Evidence>,
    /// Of the new template first.
    pub pods: Vec<Lane>,
    /// Pods beyond [`MOST_PODS`].
    pub more_pods: usize,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// Version of its template, where it is known.
    pub version: Option<String>,
    /// It is gone: what is known of it is that it failed.
    pub gone: bool,
    /// Restarts of its containers.
    pub restarts: u32,
    /// When a container ended last.
    pub ended: Option<Timestamp>,
    /// What its probes said, from when to when.
    pub spans: Vec<(Timestamp, Timestamp, Health)>,
}

/// What the probes of a pod said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not ready yet.
    Starting,
    /// All containers ready.
    Ready,
    /// Not ready any more, or charged for.
    Failing,
    /// Only how it is now is known, not how it was before.
    Unknown,
}

/// The rollout that was last. `pods`: what is seen of the Deployment's pods, if they may be read.
pub fn picture(seen: &Seen, record: Option<&Record>, pods: Option<&Snapshot>, now: Timestamp) -> Picture {
    let span = Span::of(seen, record, pods, now);
    let all = timeline(seen, record).into_iter();
    let moments = all.filter(|moment| (span.from..=span.to).contains(&moment.at)).collect();
    let mut lanes: Vec<_> = pods.map(|snapshot| live(snapshot, &span)).unwrap_or_default();
    lanes.extend(span.spent.iter().flat_map(|spent| gone(spent, &lanes, &span)).collect::<Vec<_>>());
    let more_pods = lanes.len().saturating_sub(MOST_PODS);
    lanes.truncate(MOST_PODS);
    let Span { from, to, spent, .. } = span;
    Picture { row: row(seen, record, now), from, to, moments, spent, pods: lanes, more_pods }
}

/// The time that is drawn.
struct Span {
    from: Timestamp,
    to: Timestamp,
    spent: Option<Evidence>,
    /// When a failing template was replaced.
    decided: Option<Timestamp>,
}

impl Span {
    fn of(seen: &Seen, record: Option<&Record>, pods: Option<&Snapshot>, now: Timestamp) -> Self {
        let facts = Facts::new(seen, record);
        let revert = record.and_then(|record| record.reverts.first());
        let settled = facts.ours.and_then(|ours| ours.settled.first());
        let newest = revert.filter(|revert| settled.is_none_or(|settled| settled.at <= revert.at));
        if let Some(current) = facts.current {
            let stalled = current.stall.as_ref().map(|stall| stall.evidence.clone());
            let spent = stalled.or_else(|| current.spent.clone()).filter(|spent| !spent.is_none());
            let to = current.settles_at.filter(|at| *at > now).unwrap_or(now);
            return Self::padded(current.since, to, spent, None);
        }
        if let Some(revert) = newest {
            let evidence = Some(revert.evidence.clone()).filter(|evidence| !evidence.is_none());
            let first = evidence.as_ref().map_or(revert.at, |evidence| evidence.since);
            return Self::padded(revert.began.unwrap_or(first).min(first), revert.at, evidence, Some(revert.at));
        }
        let oldest = pods.and_then(|snapshot| snapshot.pods.iter().map(|pod| pod.created).min());
        let settled = settled.map(|settled| settled.at);
        let from = oldest.into_iter().chain(settled).chain(seen.progressed).min().unwrap_or(now);
        Self::padded(from, now, None, None)
    }

    /// With a little room at both ends, so that nothing sticks to the edge.
    fn padded(from: Timestamp, to: Timestamp, spent: Option<Evidence>, decided: Option<Timestamp>) -> Self {
        // Two clocks may disagree.
        let from = from.min(to);
        let room = SignedDuration::try_from(between(from, to) / 12).unwrap_or_default();
        let room = room.max(SignedDuration::from_secs(2));
        let from_padded = from.checked_sub(room / 2).unwrap_or(from);
        Self { from: from_padded, to: to.checked_add(room).unwrap_or(to), spent, decided }
    }
}

/// The pods that are there, of the newest template first, oldest first.
fn live(snapshot: &Snapshot, span: &Span) -> Vec<Lane> {
    let mut pods: Vec<&Pod> = snapshot.pods.iter().filter(|pod| pod.created < span.to).collect();
    let set_of = |pod: &Pod| snapshot.replica_sets.iter().find(|set| set.object.uid == pod.owner);
    pods.sort_by_key(|pod| (std::cmp::Reverse(set_of(pod).map(|set| set.created)), pod.created, pod.name.clone()));
    pods.into_iter()
        .map(|pod| Lane {
            name: pod.name.clone(),
            version: set_of(pod).and_then(|set| set.template.version.clone()),
            gone: false,
            restarts: pod.containers.iter().map(|container| container.restarts).sum(),
            ended: pod.containers.iter().filter_map(|container| container.last_exit.as_ref()?.at).max(),
            spans: spans(pod, span),
        })
        .collect()
}

/// Only the last change of `ContainersReady` is known of a pod.
fn spans(pod: &Pod, span: &Span) -> Vec<(Timestamp, Timestamp, Health)> {
    let created = pod.created.max(span.from);
    let Some(ready) = pod.containers_ready else { return vec![(created, span.to, Health::Starting)] };
    let restarted = pod.containers.iter().any(|container| container.restarts > 0);
    let at = ready.at.clamp(created, span.to);
    // A pod is unready from the second on in which it is made.
    let never = !ready.is && between(pod.created, ready.at).as_secs() <= 2;
    let (before, after) = match (ready.is, never) {
        (true, _) if restarted => (Health::Unknown, Health::Ready),
        (true, _) => (Health::Starting, Health::Ready),
        (false, true) if restarted => (Health::Failing, Health::Failing),
        (false, true) => (Health::Starting, Health::Starting),
        (false, false) => (Health::Unknown, Health::Failing),
    };
    [(created, at, before), (at, span.to, after)].into_iter().filter(|(from, to, _)| from < to).collect()
}

/// The pods that failed and are gone.
fn gone(spent: &Evidence, live: &[Lane], span: &Span) -> Vec<Lane> {
    let end = span.decided.unwrap_or(spent.until).max(spent.since);
    let absent = spent.pods.iter().filter(|name| !live.iter().any(|lane| lane.name == **name));
    absent
        .map(|name| Lane {
            name: name.clone(),
            version: None,
            gone: true,
            restarts: 0,
            ended: None,
            spans: vec![(spent.since, end, Health::Failing)],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::view::tests::{at, current, record, reverted, seen},
        *,
    };

    #[test]
    fn a_revert_is_drawn_from_its_rollout_to_the_decision() {
        let mut record = reverted();
        record.reverts[0].evidence.pods = vec!["churn-2-a".into(), "churn-2-b".into()];
        let drawn = picture(&seen("1"), Some(&record), None, at(300));
        assert!(drawn.from < at(19) && drawn.to > at(21) && drawn.to < at(30), "{drawn:?}");
        let told: Vec<_> = drawn.moments.iter().map(|moment| moment.what.as_str()).collect();
        assert_eq!(told, ["rollout of 2", "first failure", "budget spent", "reverted to 1"]);
        assert_eq!(drawn.spent.as_ref().map(|spent| (spent.failures, spent.budget)), Some((12, 10)));
        assert_eq!(drawn.pods.len(), 2);
        assert_eq!(drawn.pods[0].spans, [(at(20), at(21), Health::Failing)]);
    }

    #[test]
    fn a_rollout_under_way_is_drawn_to_when_it_settles() {
        let record = record(json!([]), json!([]), current("2", json!({"completed": at(22), "settlesAt": at(33)})));
        let drawn = picture(&seen("2"), Some(&record), None, at(25));
        assert!(drawn.from < at(20) && drawn.to > at(33), "{drawn:?}");
        assert_eq!((drawn.spent, drawn.pods.len()), (None, 0));
        let nothing = picture(&seen("2"), None, None, at(25));
        assert!(nothing.from < nothing.to && nothing.moments.is_empty(), "{nothing:?}");
    }
}
