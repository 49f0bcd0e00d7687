//! What keeps pods of a rollout from running or from being seen, whoever's fault it is. It is told and charged to nobody;
//! what of it is the template's doing, the progress deadline decides on ([`super::signals`]).

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    signals,
    snapshot::{Deployment, Pod, Snapshot},
    time::after,
};

/// What is over sooner is told to nobody: a rollout has many such moments.
const LASTS: Duration = Duration::from_secs(30);
/// Characters kept of what Kubernetes says about it.
const LONGEST: usize = 256;

/// What keeps pods from running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hindrance {
    /// One word for machines.
    pub reason: Reason,
    /// What Kubernetes says about it; may be empty.
    #[serde(default)]
    pub message: String,
    /// When it was told first.
    pub since: Timestamp,
}

/// One word for what keeps pods from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Pods are not even made: a quota, a policy of the cluster.
    NotMade,
    /// No node takes them.
    Unschedulable,
    /// Their node is not ready.
    NodeNotReady,
    /// An init container fails.
    Init,
    /// A container cannot be made or started: its image, a ConfigMap, the registry.
    Waiting,
}

impl fmt::Display for Hindrance {
    /// `no node takes the pods: 0/3 nodes are available`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::NotMade => "pods cannot be made",
            Reason::Unschedulable => "no node takes the pods",
            Reason::NodeNotReady => "a node is not ready",
            Reason::Init => "an init container fails",
            Reason::Waiting => "a container cannot start",
        })?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// What keeps pods of the current ReplicaSet from running now; where it has not lasted long enough to be told, when it
/// will have.
pub fn of(snapshot: &Snapshot, now: Timestamp) -> (Option<Hindrance>, Option<Timestamp>) {
    let told = |reason, message: &str| Hindrance { reason, message: cut(message), since: now };
    if let Some(message) = &snapshot.deployment.replica_failure {
        return (Some(told(Reason::NotMade, message)), None);
    }
    let Some(set) = snapshot.current() else { return (None, None) };
    let unready = |pod: &&Pod| signals::counts(pod) && !pod.containers_ready.is_some_and(|since| since.is);
    let lost = snapshot.pods_of(set).find(|pod| pod.node_ready == Some(false));
    if let Some(pod) = lost {
        return (Some(told(Reason::NodeNotReady, pod.node.as_deref().unwrap_or_default())), None);
    }
    let hindered = snapshot.pods_of(set).filter(unready).filter_map(|pod| {
        let (reason, message, lasts) = by_pod(pod, &snapshot.deployment)?;
        let since = pod.scheduled.map_or(pod.created, |scheduled| scheduled.at);
        Some((after(since, lasts), reason, message))
    });
    match hindered.min_by_key(|(due, ..)| *due) {
        Some((due, reason, message)) if due <= now => (Some(told(reason, &message)), None),
        Some((due, ..)) => (None, Some(due)),
        None => (None, None),
    }
}

/// Why, in words, and how long that has to last until it is told.
fn by_pod(pod: &Pod, deployment: &Deployment) -> Option<(Reason, String, Duration)> {
    if let Some(message) = &pod.unschedulable {
        return Some((Reason::Unschedulable, message.clone(), LASTS));
    }
    if let Some((name, waiting)) = &pod.init_failure {
        return Some((Reason::Init, format!("\"{name}\", {}", said(&waiting.reason, &waiting.message)), LASTS));
    }
    pod.containers.iter().find_map(|status| {
        let waiting = status.waiting.as_ref()?;
        let told = || format!("\"{}\", {}", status.name, said(&waiting.reason, &waiting.message));
        match waiting.reason.as_str() {
            "" | "PodInitializing" | "CrashLoopBackOff" => None,
            // A large image that is being pulled, or a volume that is not there: the status does not tell which.
            "ContainerCreating" => {
                let told = format!("{}; why: kubectl describe pod {} -n {}", told(), pod.name, deployment.namespace);
                Some((Reason::Waiting, told, LASTS.max(deployment.progress_deadline)))
            }
            _ => Some((Reason::Waiting, told(), LASTS)),
        }
    })
}

fn said(reason: &str, message: &str) -> String {
    if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }
}

fn cut(message: &str) -> String {
    message.chars().map(|one| if one.is_control() { ' ' } else { one }).take(LONGEST).collect()
}
