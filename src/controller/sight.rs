//! One Deployment with what belongs to it, read once: for commands. The controller itself watches, and reads only whether
//! the pods that it is about to act on are still as its watch shows them.

use futures::future::try_join_all;
use kube::{Api, Client, api::ListParams};

use super::objects::{WireDeployment, WirePod, WireReplicaSet};
use crate::{
    cluster::Attempt,
    rollout::{Snapshot, snapshot::Pod},
};

/// The Deployment and its ReplicaSets, without pods.
///
/// # Errors
/// It is not there, or which right is missing.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Snapshot, String> {
    let attempt = Attempt::new("get", "deployments").within(namespace).named(name);
    let deployment = Api::<WireDeployment>::namespaced(client.clone(), namespace).get(name).await;
    let deployment = deployment.map_err(|error| attempt.explain(&error))?.keep();
    let attempt = Attempt::new("list", "replicasets").within(namespace);
    let sets = Api::<WireReplicaSet>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    let sets = sets.map_err(|error| attempt.explain(&error))?.items.into_iter().map(WireReplicaSet::keep);
    let ours = sets.filter(|set| set.owner.as_ref().is_some_and(|owner| owner.uid == deployment.uid));
    Ok(Snapshot { replica_sets: ours.map(|set| set.set).collect(), deployment, pods: Vec::new() })
}

/// The same with their pods.
///
/// # Errors
/// It is not there, or which right is missing.
pub async fn read_with_pods(client: &Client, namespace: &str, name: &str) -> Result<Snapshot, String> {
    let snapshot = read(client, namespace, name).await?;
    let attempt = Attempt::new("list", "pods").within(namespace);
    let pods = Api::<WirePod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    let pods = pods.map_err(|error| attempt.explain(&error))?.items.into_iter().map(|pod| pod.keep().pod);
    let is_ours = |owner: &str| snapshot.replica_sets.iter().any(|set| set.object.uid == owner);
    let ours = pods.filter(|pod| is_ours(&pod.owner)).collect();
    Ok(Snapshot { pods: ours, ..snapshot })
}

/// Whether these pods of the snapshot are as it shows them. A watch may have fallen silent, and nobody is told.
pub(super) async fn is_current(client: &Client, snapshot: &Snapshot, pods: &[String]) -> kube::Result<bool> {
    let api = Api::<WirePod>::namespaced(client.clone(), &snapshot.deployment.namespace);
    let shown: Vec<_> = snapshot.pods.iter().filter(|pod| pods.contains(&pod.name)).collect();
    let live = try_join_all(shown.iter().map(|pod| api.get_opt(&pod.name))).await?;
    let state =
        |pod: &Pod| (pod.uid.clone(), pod.containers_ready, pod.containers.clone(), pod.terminating, pod.disrupted);
    let same =
        |(shown, live): (&&Pod, Option<WirePod>)| live.is_some_and(|live| state(&live.keep().pod) == state(shown));
    Ok(shown.iter().zip(live).all(same))
}
