//! What the controller sees: stores of reduced objects, snapshots made of them, and a queue of the Deployments that
//! something has happened to.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::objects::{Node, OwnedPod, OwnedSet, WireDeployment, WireNode, WirePod, WireReplicaSet};
use crate::{
    cluster::{Change, Guarded, Store, guarded::Namespaces, records::RecordStore},
    rollout::snapshot::{Deployment, Pod, Snapshot},
};

/// Namespace and name of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Deployments that are to be decided on, each once however much happens to it. The watches put in, the worker takes
/// out.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Arc<(Mutex<BTreeSet<Key>>, Notify)>);

impl Queue {
    pub(super) fn add(&self, key: Key) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.0.1.notify_one();
    }

    /// All that are in it; waits until there is one.
    pub(super) async fn take(&self) -> BTreeSet<Key> {
        loop {
            let taken = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.0.1.notified().await;
        }
    }
}

/// The stores, filled by [`Guarded::run`].
#[derive(Clone, Debug)]
pub(super) struct Watches {
    pub(super) namespaces: Namespaces,
    pub(super) records: RecordStore,
    deployments: Store<Deployment>,
    sets: Store<OwnedSet>,
    pods: Store<OwnedPod>,
    nodes: Store<Node>,
}

impl Watches {
    /// Registers the watches; each change puts the Deployment it concerns into `queue`.
    pub(super) fn begin(guarded: &mut Guarded, own_namespace: &str, queue: &Queue) -> Self {
        let on = queue.clone();
        let deployments = guarded.watch(WireDeployment::keep, move |change: Change<'_, Deployment>| {
            on.add(Key::new(change.namespace, change.name));
        });
        let on = queue.clone();
        let sets = guarded.watch(WireReplicaSet::keep, move |change: Change<'_, OwnedSet>| {
            if let Some(owner) = change.after.or(change.before).and_then(|set| set.owner.as_ref()) {
                on.add(Key::new(change.namespace, &owner.name));
            }
        });
        let (on, all) = (queue.clone(), sets.clone());
        let pods = guarded.watch(WirePod::keep, move |change: Change<'_, OwnedPod>| {
            // A pod whose ReplicaSet is not known yet is looked at when that comes.
            let set = change.after.or(change.before).and_then(|pod| pod.set.as_deref());
            let set = set.and_then(|set| all.get(change.namespace, set));
            if let Some(owner) = set.as_ref().and_then(|set| set.owner.as_ref()) {
                on.add(Key::new(change.namespace, &owner.name));
            }
        });
        let nodes = Self::begin_nodes(guarded, queue, &sets, &pods);
        let on = queue.clone();
        let records = RecordStore::watch(guarded, own_namespace, move |change| {
            if let Some(Ok(stored)) = change.after.or(change.before) {
                on.add(Key::new(&stored.record.namespace, &stored.record.name));
            }
        });
        let (on, all) = (queue.clone(), deployments.clone());
        guarded.on_namespace(move |change| {
            for deployment in all.select(change.name, |_| true) {
                on.add(Key::new(change.name, &deployment.name));
            }
        });
        Self { namespaces: guarded.namespaces(), records, deployments, sets, pods, nodes }
    }

    /// A node tells of itself every few minutes; what is news is that it is lost, back, or was rebooted.
    fn begin_nodes(
        guarded: &mut Guarded,
        queue: &Queue,
        sets: &Store<OwnedSet>,
        pods: &Store<OwnedPod>,
    ) -> Store<Node> {
        let (on, sets, pods, namespaces) = (queue.clone(), sets.clone(), pods.clone(), guarded.namespaces());
        guarded.watch_cluster(WireNode::keep, move |change: Change<'_, Node>| {
            if change.before == change.after {
                return;
            }
            for namespace in namespaces.all() {
                let there = pods.select(&namespace.name, |pod| pod.pod.node.as_deref() == Some(change.name));
                let sets = there.iter().filter_map(|pod| sets.get(&namespace.name, pod.set.as_deref()?));
                sets.filter_map(|set| Some(Key::new(&namespace.name, &set.owner.as_ref()?.name)))
                    .for_each(|key| on.add(key));
            }
        })
    }

    /// The pod beside its node. Of a node that is not known nothing is held against it or its pods.
    fn placed(&self, pod: &OwnedPod) -> Pod {
        let node = pod.pod.node.as_deref().and_then(|node| self.nodes.get("", node));
        Pod {
            node_ready: node.as_ref().map(|node| node.ready),
            boot: node.map(|node| node.boot.clone()).filter(|boot| !boot.is_empty()),
            ..pod.pod.clone()
        }
    }

    /// The Deployment as it was last seen, with what belongs to it. `None`: it is gone, or not guarded, or not all of
    /// its namespace has been listed yet.
    pub(super) fn snapshot(&self, key: &Key) -> Option<Snapshot> {
        let namespace = &key.namespace;
        if !(self.sets.knows(namespace) && self.pods.knows(namespace)) {
            return None;
        }
        let deployment = self.deployments.get(namespace, &key.name)?;
        let ours = |set: &OwnedSet| set.owner.as_ref().is_some_and(|owner| owner.uid == deployment.uid);
        let sets = self.sets.select(namespace, ours);
        let uids: BTreeSet<&str> = sets.iter().map(|set| set.set.object.uid.as_str()).collect();
        let pods = self.pods.select(namespace, |pod| uids.contains(pod.pod.owner.as_str()));
        Some(Snapshot {
            deployment: Deployment::clone(&deployment),
            replica_sets: sets.iter().map(|set| set.set.clone()).collect(),
            pods: pods.iter().map(|pod| self.placed(pod)).collect(),
        })
    }

    /// Every Deployment of every guarded namespace.
    pub(super) fn all(&self) -> Vec<Key> {
        let namespaces = self.namespaces.all();
        let of = |name: &str| self.deployments.select(name, |_| true);
        namespaces
            .iter()
            .flat_map(|namespace| of(&namespace.name).into_iter().map(|found| Key::new(&namespace.name, &found.name)))
            .collect()
    }
}
