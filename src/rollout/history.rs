//! What was seen of the pods of one rollout so far: when each container was ready and when not, and each restart.
//!
//! A value that the rim keeps in memory and hands back in. It is nothing that must survive: after a restart of the
//! controller it is made anew from what the pods' statuses say (restart counts, and when `ContainersReady` last changed),
//! which loses a flap or two and no more.

use std::time::Duration;

use jiff::Timestamp;
use litemap::LiteMap;

use super::{
    signals::{self, Cause},
    snapshot::{ContainerStatus, Deployment, Pod, ReplicaSet, Snapshot},
    time::{after, before, between},
    track::Track,
};

/// A restart that is seen so short a time before its node shows another bootID was made by that reboot.
const REBOOT: Duration = Duration::from_secs(120);

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
    /// When that was, unless it was so at the first look of all.
    pub(super) completed_at: Option<Timestamp>,
    /// When it was last looked at, by the clock that all times here are of.
    looked: Option<Timestamp>,
    /// By uid. A BTreeMap has room for eleven from the first one on: with 10,000 Deployments that was half of all that was
    /// resident.
    pub(super) pods: LiteMap<String, PodTrack>,
}

/// What was seen of one pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodTrack {
    pub(super) name: String,
    pub(super) node: Option<String>,
    /// bootID of its node.
    boot: Option<String>,
    /// Its node is not ready: whatever is seen of it now is not charged, and what was seen before waits.
    pub(super) away: bool,
    /// When it got its node; its making until then.
    pub(super) placed: Timestamp,
    has_node: bool,
    /// When all of it was first ready: from here on being unready costs.
    pub(super) served: Option<Timestamp>,
    /// The init container that fails, and how.
    pub(super) init: Option<(String, Cause)>,
    pub(super) containers: LiteMap<String, Track>,
}

impl History {
    /// What is known after this snapshot too. `window`: older failures need not be kept.
    pub fn observe(mut self, snapshot: &Snapshot, window: Duration, now: Timestamp) -> Self {
        let current = snapshot.current();
        let uid = current.map(|set| set.object.uid.clone());
        let looked = self.looked.replace(now);
        if let Some(looked) = looked.filter(|looked| now < *looked) {
            self.set_back(between(now, looked));
        }
        if self.replica_set != uid {
            self = Self { replica_set: uid, since: Some(now), looked: Some(now), ..Self::default() };
        }
        if !self.completed && snapshot.deployment.is_complete() {
            self.completed = true;
            // Whatever was complete before the first look, this rollout was not at the last one.
            self.completed_at = looked.map(|_| now);
        }
        self.count_idle(self.completed && snapshot.deployment.replicas == 0, now);
        let Some(set) = current else { return self };
        let look = Look {
            deployment: &snapshot.deployment,
            set,
            before: looked.map_or(now, |looked| looked.min(now)),
            window,
            now,
        };
        let mut seen = std::mem::take(&mut self.pods);
        for pod in snapshot.pods_of(set).filter(|pod| signals::counts(pod)) {
            let track = match seen.remove(&pod.uid) {
                Some(track) if pod.node_ready == Some(false) => PodTrack { away: true, ..track },
                Some(track) => track.observe(pod, look),
                None if pod.node_ready == Some(false) => continue,
                None => PodTrack::first_sight(pod, look),
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

    /// The same without what was seen of its pods: nobody asks for that once the template has settled, and with 10,000
    /// Deployments it is a quarter of all that is resident. Where it is asked for after all, it is read from their statuses as
    /// it is after a restart of the controller.
    pub fn settled(self) -> Self {
        Self { pods: LiteMap::new(), ..self }
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

    /// The clock was set back: everything happened as long ago as it did before.
    fn set_back(&mut self, by: Duration) {
        let own = [&mut self.since, &mut self.failing, &mut self.idle_since, &mut self.completed_at];
        own.into_iter().flatten().for_each(|at| *at = before(*at, by));
        for (_, pod) in self.pods.iter_mut() {
            pod.placed = before(pod.placed, by);
            pod.served = pod.served.map(|at| before(at, by));
            pod.containers.iter_mut().for_each(|(_, track)| track.set_back(by));
        }
    }
}

/// One look at a rollout.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) set: &'a ReplicaSet,
    /// The look before this one.
    pub(super) before: Timestamp,
    pub(super) window: Duration,
    pub(super) now: Timestamp,
}

impl PodTrack {
    fn first_sight(pod: &Pod, look: Look<'_>) -> Self {
        let containers = look.set.template.containers.iter();
        let served = served_before(pod, look.set);
        Self {
            name: pod.name.clone(),
            node: pod.node.clone(),
            boot: pod.boot.clone(),
            away: false,
            placed: pod.scheduled.filter(|since| since.is).map_or(pod.created, |since| since.at).min(look.now),
            has_node: has_node(pod),
            served,
            init: signals::init_cause(pod),
            containers: containers
                .map(|container| {
                    let status = status(pod, &container.name);
                    (container.name.clone(), Track::first_sight(container, pod, status, served.is_some(), look))
                })
                .collect(),
        }
    }

    fn observe(mut self, pod: &Pod, look: Look<'_>) -> Self {
        let returned = std::mem::take(&mut self.away);
        let rebooted = self.boot.is_some() && pod.boot.is_some() && self.boot != pod.boot;
        self.node.clone_from(&pod.node);
        self.boot = pod.boot.clone().or(self.boot);
        if has_node(pod) && !std::mem::replace(&mut self.has_node, true) {
            self.placed = look.now;
        }
        self.init = signals::init_cause(pod);
        let mut forgiven = returned || rebooted;
        for container in &look.set.template.containers {
            let (Some(status), Some(track)) = (status(pod, &container.name), self.containers.get_mut(&container.name))
            else {
                continue;
            };
            if rebooted {
                track.forgive_reboot(status, before(look.now, REBOOT));
            } else if returned {
                track.forgive_restarts(status);
            }
            forgiven |= track.observe(container, status, self.served, look);
        }
        if forgiven {
            self.containers.iter_mut().for_each(|(_, track)| track.begin_anew(look.now));
        }
        // It may have been ready between two looks.
        if all_ready(pod, look.set) || served_before(pod, look.set).is_some() {
            self.served.get_or_insert(look.now);
        }
        self
    }

    fn forget_before(mut self, limit: Timestamp) -> Self {
        self.containers.iter_mut().for_each(|(_, track)| track.forget_before(limit));
        self
    }
}

fn has_node(pod: &Pod) -> bool {
    pod.scheduled.is_some_and(|scheduled| scheduled.is)
}

/// When a pod that was not watched before was ready, as far as its status tells: `ContainersReady` is false from the
/// start and changes only with readiness, so one that turned false well after the init containers had been ready.
fn served_before(pod: &Pod, set: &ReplicaSet) -> Option<Timestamp> {
    let ready = pod.containers_ready?;
    let fell = !ready.is && pod.initialized.is_some_and(|at| ready.at > after(at, Duration::from_secs(1)));
    (ready.is || fell || all_ready(pod, set)).then_some(ready.at)
}

fn all_ready(pod: &Pod, set: &ReplicaSet) -> bool {
    set.template.containers.iter().all(|container| status(pod, &container.name).is_some_and(|status| status.ready))
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    pod.containers.iter().find(|status| status.name == container)
}
