//! What was seen of the pods of one rollout so far: when each container was ready and when not, and each restart.
//!
//! A value that the rim keeps in memory and hands back in. It is nothing that must survive: after a restart of the
//! controller it is made anew from what the pods' statuses say (restart counts, and when `ContainersReady` last changed),
//! which loses a flap or two and no more.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    record::Signal,
    signals,
    snapshot::{Container, ContainerStatus, Pod, ReplicaSet, Snapshot},
    time::{after, before, between},
};

/// Restarts that are taken from the count of a pod seen for the first time, at most.
const MOST_RESTARTS: u32 = 100;

/// What was seen of the current ReplicaSet's pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The ReplicaSet that all this is about, by uid. With another one everything starts anew.
    pub(super) replica_set: Option<String>,
    /// When it was first seen as the current one.
    pub(super) since: Option<Timestamp>,
    /// When it was last seen to fail.
    pub(super) failing: Option<Timestamp>,
    /// How long it has been at 0 replicas, without the stretch that is going on.
    pub(super) idle: Duration,
    idle_since: Option<Timestamp>,
    /// It was seen complete. Before that there is no bake whose clock could stand.
    completed: bool,
    pub(super) pods: BTreeMap<String, PodTrack>,
}

/// What was seen of one pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodTrack {
    pub(super) name: String,
    pub(super) node: Option<String>,
    /// When all of it was first ready: from here on being unready costs.
    pub(super) served: Option<Timestamp>,
    pub(super) containers: BTreeMap<String, Track>,
}

/// What was seen of one container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Track {
    restarts: u32,
    started: bool,
    /// When it first ran; before that an image is missing, or a node.
    pub(super) ran: Option<Timestamp>,
    /// When it was first restarted: from here on its being unready costs, not that of its neighbours.
    pub(super) restarted: Option<Timestamp>,
    /// Restarts that are charged, oldest first.
    pub(super) charges: Vec<Charge>,
    /// When it became ready or unready, oldest first; never empty.
    pub(super) changes: Vec<(Timestamp, bool)>,
}

/// One restart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Charge {
    pub(super) at: Timestamp,
    pub(super) cost: u32,
    pub(super) signal: Signal,
    pub(super) message: String,
}

impl History {
    /// What is known after this snapshot too. `window`: older failures need not be kept.
    pub fn observe(mut self, snapshot: &Snapshot, window: Duration, now: Timestamp) -> Self {
        let current = snapshot.current();
        let uid = current.map(|set| set.object.uid.clone());
        if self.replica_set != uid {
            self = Self { replica_set: uid, since: Some(now), ..Self::default() };
        }
        self.completed |= snapshot.deployment.is_complete();
        self.count_idle(self.completed && snapshot.deployment.replicas == 0, now);
        let Some(set) = current else { return self };
        let mut seen = std::mem::take(&mut self.pods);
        for pod in snapshot.pods_of(set).filter(|pod| signals::counts(pod)) {
            let track = match seen.remove(&pod.uid) {
                Some(track) => track.observe(pod, set, now),
                None => PodTrack::first_sight(pod, set, window, now),
            };
            self.pods.insert(pod.uid.clone(), track.forget_before(before(now, window)));
        }
        self
    }

    /// The same, knowing that the rollout was failing at `now`: its bake starts over.
    pub fn failing(mut self, now: Timestamp) -> Self {
        self.failing = Some(self.failing.map_or(now, |earlier| earlier.max(now)));
        self
    }

    fn count_idle(&mut self, idle: bool, now: Timestamp) {
        match (idle, self.idle_since) {
            (true, None) => self.idle_since = Some(now),
            (false, Some(since)) => {
                self.idle += between(since, now);
                self.idle_since = None;
            }
            _ => {}
        }
    }
}

impl PodTrack {
    fn first_sight(pod: &Pod, set: &ReplicaSet, window: Duration, now: Timestamp) -> Self {
        let containers = set.template.containers.iter();
        Self {
            name: pod.name.clone(),
            node: pod.node.clone(),
            served: served_before(pod, set),
            containers: containers
                .map(|container| (container.name.clone(), Track::first_sight(container, pod, window, now)))
                .collect(),
        }
    }

    fn observe(mut self, pod: &Pod, set: &ReplicaSet, now: Timestamp) -> Self {
        self.node.clone_from(&pod.node);
        let mut forgiven = false;
        for container in &set.template.containers {
            let (Some(status), Some(track)) = (status(pod, &container.name), self.containers.get_mut(&container.name))
            else {
                continue;
            };
            forgiven |= track.observe(container, status, now);
        }
        if forgiven {
            self.served = None;
            self.containers.values_mut().for_each(|track| track.begin_anew(now));
        }
        if all_ready(pod, set) {
            self.served.get_or_insert(now);
        }
        self
    }

    fn forget_before(mut self, limit: Timestamp) -> Self {
        for track in self.containers.values_mut() {
            track.charges.retain(|charge| charge.at >= limit);
            // The last change before the limit still says in what state the window began.
            let old = track.changes.iter().take_while(|(at, _)| *at < limit).count();
            track.changes.drain(..old.saturating_sub(1));
        }
        self
    }
}

impl Track {
    /// A container that was not watched before. Of its restarts only the number is known and when the last one was;
    /// they are taken to lie evenly between the making of the pod and that one.
    fn first_sight(container: &Container, pod: &Pod, window: Duration, now: Timestamp) -> Self {
        let Some(status) = status(pod, &container.name) else {
            return Self {
                restarts: 0,
                started: false,
                ran: None,
                restarted: None,
                charges: Vec::new(),
                changes: vec![(pod.created, false)],
            };
        };
        let changed = match pod.containers_ready {
            Some(ready) if ready.is == status.ready => ready.at,
            _ if status.ready => status.running_since.unwrap_or(now),
            _ => now,
        };
        let charges = earlier_restarts(container, status, pod.created, before(now, window), now);
        Self {
            restarts: status.restarts,
            started: status.started,
            ran: has_run(status).then(|| match status.restarts {
                0 => status.running_since.unwrap_or(pod.created).min(now),
                _ => pod.created,
            }),
            restarted: charges.first().map(|charge| charge.at),
            charges,
            changes: vec![(changed.min(now), status.ready)],
        }
    }

    /// Whether it has restarted and that is not charged: it may load like a new one.
    fn observe(&mut self, container: &Container, status: &ContainerStatus, now: Timestamp) -> bool {
        let more = status.restarts.saturating_sub(self.restarts).min(MOST_RESTARTS);
        self.restarts = status.restarts;
        let (last, was_ready) = self.changes.last().copied().unwrap_or((now, false));
        let now = now.max(last);
        let charge = if more > 0 { charge(container, self.started, status, now) } else { None };
        let forgiven = more > 0 && charge.is_none();
        if let Some(charge) = charge {
            self.restarted.get_or_insert(now);
            self.charges.extend(std::iter::repeat_n(charge, more as usize));
        }
        if was_ready != status.ready {
            self.changes.push((now, status.ready));
        }
        // A container in back-off shows `started: false`; what counts is whether this run of it had come that far.
        self.started = if more > 0 { status.started } else { self.started || status.started };
        if self.ran.is_none() && has_run(status) {
            self.ran = Some(status.running_since.unwrap_or(now).min(now));
        }
        forgiven
    }

    /// Its node came back, and it loads once more: what it was before is over, the charges stay.
    fn begin_anew(&mut self, now: Timestamp) {
        let ready = self.changes.last().is_some_and(|(_, ready)| *ready);
        self.changes = vec![(now, ready)];
        self.restarted = None;
        self.ran = self.ran.map(|_| now);
    }
}

fn earlier_restarts(
    container: &Container,
    status: &ContainerStatus,
    created: Timestamp,
    limit: Timestamp,
    now: Timestamp,
) -> Vec<Charge> {
    let last = status.last_exit.as_ref().and_then(|exit| exit.at).unwrap_or(now).min(now);
    let Some(charge) = charge(container, true, status, last) else { return Vec::new() };
    let apart = between(created, last) / status.restarts.max(1);
    (1..=status.restarts)
        .rev()
        .take(MOST_RESTARTS as usize)
        .map(|nth| Charge { at: after(created, apart.saturating_mul(nth)).min(last), ..charge.clone() })
        .take_while(|charge| charge.at >= limit)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}

fn charge(container: &Container, started: bool, status: &ContainerStatus, at: Timestamp) -> Option<Charge> {
    let exit = status.last_exit.as_ref();
    let signal = signals::of_restart(container, started, exit)?;
    let message = match (signal, exit) {
        (Signal::Crash, Some(exit)) => format!("exit code {}", exit.code),
        _ => String::new(),
    };
    let killed = matches!(signal, Signal::Startup | Signal::Liveness);
    Some(Charge { at, cost: container.restart_cost(started, killed), signal, message })
}

/// When a pod that was not watched before was ready, as far as its status tells: `ContainersReady` is false from the
/// start and changes only with readiness, so one that turned false well after the init containers had been ready.
fn served_before(pod: &Pod, set: &ReplicaSet) -> Option<Timestamp> {
    let ready = pod.containers_ready?;
    if !ready.is && rebooted(pod, set) {
        return None;
    }
    let fell = !ready.is && pod.initialized.is_some_and(|at| ready.at > after(at, Duration::from_secs(1)));
    (ready.is || fell || all_ready(pod, set)).then_some(ready.at)
}

fn all_ready(pod: &Pod, set: &ReplicaSet) -> bool {
    set.template.containers.iter().all(|container| status(pod, &container.name).is_some_and(|status| status.ready))
}

/// A container of the template was last ended by the reboot of its node.
fn rebooted(pod: &Pod, set: &ReplicaSet) -> bool {
    let ended = |container: &Container| {
        let status = status(pod, &container.name).filter(|status| status.restarts > 0);
        status.is_some_and(|status| signals::of_restart(container, true, status.last_exit.as_ref()).is_none())
    };
    set.template.containers.iter().any(ended)
}

fn has_run(status: &ContainerStatus) -> bool {
    status.running_since.is_some() || status.restarts > 0 || status.last_exit.is_some()
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    pod.containers.iter().find(|status| status.name == container)
}
