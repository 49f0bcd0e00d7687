//! What people may see of rollouts: Deployments, read or followed, as [`Seen`].

use futures::{Stream, StreamExt, future};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client,
    api::ListParams,
    core::ObjectMeta,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde::Deserialize;

use super::{
    client::Attempt,
    guarded::Guarded,
    store::{Change, Store},
    watching::refusal,
};
use crate::{
    rollout::view::Seen,
    template::{Digest, Json, json, keys},
};

/// The Deployment; an error says which right is missing, or that it is not there.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Seen, String> {
    let found = Api::<WireDeployment>::namespaced(client.clone(), namespace).get(name).await;
    let attempt = Attempt::new("get", "deployments").within(namespace).named(name);
    found.map(WireDeployment::seen).map_err(|error| attempt.explain(&error))
}

/// All Deployments of a namespace.
pub async fn list(client: &Client, namespace: &str) -> Result<Vec<Seen>, String> {
    let found = Api::<WireDeployment>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    let attempt = Attempt::new("list", "deployments").within(namespace);
    let found = found.map_err(|error| attempt.explain(&error))?;
    Ok(found.items.into_iter().map(WireDeployment::seen).collect())
}

/// The Deployment as it changes; `None`: it is not there. Errors that may pass are tried again in silence, a missing
/// right is given as a sentence.
pub fn follow(
    client: &Client,
    namespace: &str,
    name: &str,
) -> impl Stream<Item = Result<Option<Seen>, String>> + use<> {
    let attempt = Attempt::new("list and watch", "deployments").within(namespace);
    let api = Api::<WireDeployment>::namespaced(client.clone(), namespace);
    watch_object(api, name).default_backoff().filter_map(move |found| {
        future::ready(match found {
            Ok(found) => Some(Ok(found.map(WireDeployment::seen))),
            Err(error) => refusal(&attempt, &error).map(Err),
        })
    })
}

/// All Deployments of one namespace, or of every guarded one, together with what else `guarded` watches. `changed` must
/// not block.
pub fn watch(
    guarded: &mut Guarded,
    namespace: Option<&str>,
    changed: impl Fn(Change<'_, Seen>) + Send + Sync + 'static,
) -> Store<Seen> {
    match namespace {
        Some(namespace) => guarded.watch_in(namespace, "", WireDeployment::seen, changed),
        None => guarded.watch(WireDeployment::seen, changed),
    }
}

/// A Deployment as it is read here: its template is needed for the digest only.
#[derive(Clone, Debug, Deserialize)]
struct WireDeployment {
    #[serde(default, deserialize_with = "super::wire::metadata")]
    metadata: ObjectMeta,
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

crate::wire_kind!(WireDeployment, "apps", "v1", "Deployment", "deployments");

#[derive(Clone, Debug, Deserialize)]
struct WireSpec {
    replicas: Option<u32>,
    #[serde(default)]
    paused: bool,
    template: Json,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    observed_generation: i64,
    replicas: u32,
    updated_replicas: u32,
    available_replicas: u32,
    conditions: Vec<WireCondition>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCondition {
    r#type: String,
    #[serde(default)]
    reason: String,
    last_update_time: Option<Time>,
}

impl WireDeployment {
    fn seen(self) -> Seen {
        let Self { metadata, spec, status } = self;
        let progressing = status.conditions.iter().find(|condition| condition.r#type == "Progressing");
        let label = json::str_at(&spec.template, &["metadata", "labels", keys::VERSION]).map(str::to_owned);
        let labels = metadata.labels.unwrap_or_default();
        Seen {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            digest: Digest::of_template(&spec.template),
            version: label.or_else(|| labels.get(keys::VERSION).cloned()),
            restarted: json::str_at(&spec.template, &["metadata", "annotations", keys::RESTARTED_AT])
                .and_then(|at| at.parse().ok()),
            override_text: metadata.annotations.and_then(|mut annotations| annotations.remove(keys::OVERRIDE)),
            replicas: spec.replicas.unwrap_or(1),
            paused: spec.paused,
            observed: status.observed_generation >= metadata.generation.unwrap_or_default(),
            total: status.replicas,
            updated: status.updated_replicas,
            available: status.available_replicas,
            late: progressing.is_some_and(|condition| condition.reason == "ProgressDeadlineExceeded"),
            progressed: progressing.and_then(|condition| Some(condition.last_update_time.as_ref()?.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_read_with_whatever_is_missing() {
        let object = json!({"metadata": {"name": "churn", "namespace": "shop", "uid": "u", "generation": 3,
                "annotations": {"surefoot.dev/override": "2026-11-22T17:16Z INC-1"}},
            "spec": {"replicas": 4, "template": {"metadata": {"labels": {"app.kubernetes.io/version": "2.4.0"}}}},
            "status": {"observedGeneration": 2, "replicas": 4, "conditions": [{"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
                 "lastUpdateTime": "2026-11-22T14:21:07Z"}]}});
        let seen = serde_json::from_value::<WireDeployment>(object).unwrap().seen();
        assert_eq!((seen.version.as_deref(), seen.replicas, seen.observed), (Some("2.4.0"), 4, false));
        assert_eq!((seen.late, seen.progressed), (true, "2026-11-22T14:21:07Z".parse().ok()));
        assert_eq!(seen.override_text.as_deref(), Some("2026-11-22T17:16Z INC-1"));
        let bare = json!({"metadata": {"name": "churn"}, "spec": {"template": {}}});
        assert_eq!(serde_json::from_value::<WireDeployment>(bare).unwrap().seen().replicas, 1);
    }
}
