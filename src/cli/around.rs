//! What stands around a Deployment that is judged: the other given manifests, and with `--cluster` what is there now.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    judge::tree,
    source::{Manifests, Object},
};
use crate::{
    admission::Facts,
    cluster::inventory::Held,
    config::Guard,
    template::{Json, json, keys},
};

/// Namespaces that no hook is asked about; surefoot's own under the name that its manifests give it.
const OFF_LIMITS: [&str; 2] = ["kube-system", "surefoot-system"];

/// The facts that files and cluster tell.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Given Deployments by namespace and model, in order.
    given: BTreeMap<(String, String), Vec<Given>>,
    /// Given Namespaces by name, as policies see them.
    namespaces: BTreeMap<String, Json>,
    files: Vec<PathBuf>,
    /// `None` without a cluster.
    live: Option<BTreeMap<String, Held>>,
}

/// A given Deployment as the policies of another one see it.
#[derive(Debug)]
struct Given {
    name: String,
    file: usize,
    peer: Json,
}

impl Around {
    pub(super) fn new(found: &Manifests, live: Option<Vec<Held>>) -> Self {
        let mut around = Self {
            files: found.files.iter().map(|file| PathBuf::from(&file.name)).collect(),
            live: live.map(|held| held.into_iter().map(|held| (held.name.clone(), held)).collect()),
            ..Self::default()
        };
        for object in &found.objects {
            if object.kind == "Namespace" {
                around.namespaces.insert(object.name().to_owned(), seen(&object.value));
            }
            if let Some((model, peer)) = peer(&object.value, object.namespace()).filter(|_| object.is_deployment()) {
                let given = Given { name: object.name().to_owned(), file: object.file, peer };
                around.given.entry((object.namespace().to_owned(), model)).or_default().push(given);
            }
        }
        around
    }

    /// What the policies may know when `object` is judged: as under `enforce`, because that is the question.
    pub(super) fn facts(&self, object: &Object) -> Facts {
        let (namespace, name) = (object.namespace(), object.name());
        let held = self.held(namespace);
        Facts {
            // Hooks never ask about these.
            guard: (!OFF_LIMITS.contains(&namespace)).then_some(Guard::Enforce),
            namespace: self.namespaces.get(namespace).cloned().or_else(|| held?.namespace.clone()),
            peers: Some(self.peers(object)),
            history: held.and_then(|held| held.history(name)),
            ..Facts::default()
        }
    }

    /// What the cluster holds, by namespace.
    pub(super) fn live(&self) -> impl Iterator<Item = &Held> {
        self.live.iter().flat_map(BTreeMap::values)
    }

    /// What the policies may know of a namespace as a whole.
    pub(super) fn facts_of_namespace(&self, name: &str) -> Facts {
        let held = self.held(name);
        Facts {
            guard: Some(Guard::Enforce),
            namespace: self.namespaces.get(name).cloned().or_else(|| held?.namespace.clone()),
            isolation: held.and_then(|held| held.isolation.clone().ok()),
            ..Facts::default()
        }
    }

    /// The Deployment as the cluster has it now.
    pub(super) fn stored(&self, namespace: &str, name: &str) -> Option<&Json> {
        self.held(namespace)?.deployments.iter().find(|found| name_of(found) == name)
    }

    fn held(&self, namespace: &str) -> Option<&Held> {
        self.live.as_ref()?.get(namespace)
    }

    /// The Deployments of the same namespace and model. What is given counts as applied, so it hides what the cluster
    /// has under that name; of several given under one name (environments, mostly) the one nearest in the folders counts.
    fn peers(&self, object: &Object) -> Vec<Json> {
        let model = json::str_at(&object.value, &["metadata", "labels", keys::MODEL]).unwrap_or_default();
        let given = self.given.get(&(object.namespace().to_owned(), model.to_owned())).map_or(&[][..], Vec::as_slice);
        let mut nearest = BTreeMap::<&str, &Given>::new();
        for candidate in given.iter().filter(|candidate| candidate.name != object.name()) {
            let chosen = nearest.entry(&candidate.name).or_insert(candidate);
            if self.nearness(object.file, candidate.file) >= self.nearness(object.file, chosen.file) {
                *chosen = candidate;
            }
        }
        let live = self.held(object.namespace()).map_or(&[][..], |held| held.deployments.as_slice());
        let live = live.iter().filter_map(|found| {
            let name = name_of(found);
            let (its_model, peer) = peer(found, object.namespace())?;
            (its_model == model && name != object.name() && !nearest.contains_key(name)).then_some(peer)
        });
        let mut peers: Vec<Json> = live.collect();
        peers.extend(nearest.values().map(|given| given.peer.clone()));
        peers
    }

    /// How many folders two files have in common; a file is nearest to itself.
    fn nearness(&self, one: usize, other: usize) -> usize {
        let folders = |file: usize| self.files.get(file).and_then(|file| file.parent()).unwrap_or(Path::new(""));
        let common = || folders(one).components().zip(folders(other).components()).take_while(|(a, b)| a == b).count();
        if one == other { usize::MAX } else { common() }
    }
}

/// Its model, and one entry of `input.context.peers`. `None`: it names no model, so it is nobody's peer.
fn peer(deployment: &Json, namespace: &str) -> Option<(String, Json)> {
    let labels = json::at(deployment, &["metadata", "labels"])?;
    let model = json::str_at(labels, &[keys::MODEL]).filter(|model| !model.is_empty())?;
    let metadata =
        tree([("name", name_of(deployment).into()), ("namespace", namespace.into()), ("labels", labels.clone())]);
    let replicas = json::int_at(deployment, &["spec", "replicas"]).unwrap_or(1);
    Some((model.to_owned(), tree([("metadata", metadata), ("spec", tree([("replicas", Json::from(replicas))]))])))
}

/// `input.context.namespace` of a Namespace.
fn seen(namespace: &Json) -> Json {
    let part = |key| json::at(namespace, &["metadata", key]).cloned().unwrap_or_else(Json::new_object);
    tree([("labels", part("labels")), ("annotations", part("annotations"))])
}

fn name_of(object: &Json) -> &str {
    json::str_at(object, &["metadata", "name"]).unwrap_or_default()
}
