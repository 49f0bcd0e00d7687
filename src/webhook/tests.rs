//! Reviews through the router, against a stand-in for the API server that can be told to fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, header::CONTENT_TYPE},
};
use futures::channel::mpsc;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{App, MAX_BODY, Rules, State, router};
use crate::{
    admission::PolicySet,
    cluster::{
        ClusterFacts,
        fake::{self, Answer, Asked},
    },
    config::Config,
};

/// A cluster with namespace `shop` (guarded) and `plain` (not), whose single reads can be made to fail.
pub(super) struct Cluster {
    pub(super) app: Arc<App>,
    away: Arc<AtomicBool>,
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

pub(super) fn deployment(name: &str, track: &str, replicas: u32) -> Value {
    let version = if track == "canary" { "1.1.0" } else { "1.0.0" };
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "labels": {
            "surefoot.dev/model": "churn", "surefoot.dev/track": track, "app.kubernetes.io/version": version}},
        "spec": {"replicas": replicas, "minReadySeconds": 60, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name, "app.kubernetes.io/version": version}},
            "spec": {"containers": [{"name": "model", "image": format!("r/churn:{version}"),
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 10, "failureThreshold": 3},
                "livenessProbe": {"httpGet": {"path": "/live", "port": 8000}, "periodSeconds": 10, "failureThreshold": 6},
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}}]}}}})
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let away = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&away);
        let mut open = Vec::new();
        let guarded = namespace("shop", &json!({"surefoot.dev/guard": "enforce"}));
        let client = fake::client(move |Asked { line, .. }| {
            if stopped.load(Ordering::SeqCst) {
                return fake::refusal(500, "away");
            }
            match line.split('?').next().unwrap_or_default() {
                "GET /api/v1/namespaces" => fake::list(std::slice::from_ref(&guarded)),
                "GET /api/v1/namespaces/plain" => Answer::Json(200, namespace("plain", &json!({}))),
                "GET /api/v1/namespaces/shop" => Answer::Json(200, guarded.clone()),
                "GET /apis/apps/v1/namespaces/shop/deployments" => fake::list(&[deployment("churn", "stable", 20)]),
                "GET /apis/apps/v1/namespaces/shop/deployments/churn-canary" => {
                    Answer::Json(200, deployment("churn-canary", "canary", 1))
                }
                "GET /api/v1/namespaces/surefoot-system/configmaps" => fake::list(&[]),
                watch if watch.starts_with("WATCH") => {
                    let (sender, receiver) = mpsc::unbounded();
                    open.push(sender);
                    Answer::Watch(receiver)
                }
                _ => fake::refusal(404, "not found"),
            }
        });
        let (facts, guarded) = ClusterFacts::new(client, "surefoot-system");
        let mut synced = guarded.synced();
        tokio::select! {
            ended = guarded.run() => panic!("{ended:?}"),
            synced = synced.wait_for(|synced| *synced) => drop(synced.unwrap()),
        }
        let config = Config::default();
        let set = PolicySet::load(PolicySet::built_in_sources(), &config).unwrap();
        let app = Arc::new(App::new(Rules { set, config }, facts));
        app.enter(State::Ready);
        Self { app, away }
    }

    pub(super) async fn ask(&self, path: &str, review: &Value) -> Value {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(review.to_string())).unwrap();
        let answer = router(Arc::clone(&self.app)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = to_bytes(answer.into_body(), MAX_BODY).await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["response"].take()
    }
}

pub(super) fn review(namespace: &str, object: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": "CREATE", "name": object["metadata"]["name"], "namespace": namespace,
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "userInfo": {"username": "ana"}, "object": object, "oldObject": null}})
}

pub(super) fn scale(name: &str, replicas: u32) -> Value {
    let object =
        |replicas: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": replicas}});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-2", "operation": "UPDATE", "name": name, "namespace": "shop", "subResource": "scale",
        "kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "userInfo": {"username": "ana"}, "object": object(replicas), "oldObject": object(1)}})
}

#[tokio::test]
async fn a_denial_on_cached_facts_counts_only_if_they_can_be_confirmed() {
    let cluster = Cluster::start().await;
    let too_many = review("shop", &deployment("churn-canary", "canary", 5));
    let denied = cluster.ask("/validate", &too_many).await;
    let message = denied["status"]["message"].as_str().unwrap_or_default();
    assert!(denied["allowed"] == false && message.starts_with("1 problem (canary-cap/above-cap)"), "{denied}");

    cluster.away.store(true, Ordering::SeqCst);
    let warned = cluster.ask("/validate", &too_many).await;
    let [note, warning] = [0, 1].map(|index| warned["warnings"][index].as_str().unwrap_or_default());
    assert!(warned["allowed"] == true && warning.starts_with("[canary-cap/above-cap]"), "{warned}");
    assert!(note.starts_with("the other Deployments could not be looked at again"), "{warned}");

    // What needs no facts is denied all the same.
    let mut worse = deployment("churn-canary", "canary", 5);
    worse["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r/churn:latest");
    let denied = cluster.ask("/validate", &review("shop", &worse)).await;
    let message = denied["status"]["message"].as_str().unwrap_or_default();
    assert!(denied["allowed"] == false && message.starts_with("1 problem (images/latest)"), "{denied}");
}

#[tokio::test]
async fn a_namespace_that_the_caches_do_not_know_is_read_and_counts_as_enforce_if_it_cannot_be() {
    let cluster = Cluster::start().await;
    let mut bad = deployment("churn", "stable", 1);
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r/churn:latest");
    let unguarded = cluster.ask("/validate", &review("plain", &bad)).await;
    assert_eq!(unguarded, json!({"uid": "u-1", "allowed": true}));
    assert_eq!(cluster.ask("/mutate", &review("plain", &bad)).await, unguarded);

    cluster.away.store(true, Ordering::SeqCst);
    assert_eq!(cluster.ask("/validate", &review("plain", &bad)).await["allowed"], false);
    assert_eq!(cluster.ask("/validate", &review("kube-system", &bad)).await["allowed"], true);
}

#[tokio::test]
async fn the_scale_of_what_cannot_be_seen_is_allowed() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.ask("/scale", &scale("churn-canary", 2)).await["allowed"], true);
    let denied = cluster.ask("/scale", &scale("churn-canary", 5)).await;
    assert!(denied["allowed"] == false && denied["status"]["reason"] == "Forbidden", "{denied}");
    assert_eq!(cluster.ask("/scale", &scale("nobody", 5)).await, json!({"uid": "u-2", "allowed": true}));

    cluster.away.store(true, Ordering::SeqCst);
    let unseen = cluster.ask("/scale", &scale("churn-canary", 5)).await;
    assert!(unseen["allowed"] == true && unseen["warnings"][0].is_string(), "{unseen}");
}

#[tokio::test]
async fn what_no_hook_would_ask_about_is_allowed_at_once() {
    let cluster = Cluster::start().await;
    let mut bad = deployment("churn", "stable", 4);
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r/churn:latest");
    let mut strange = bad.clone();
    strange["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r/churn");
    let changed = |pointer: &str, member: &str, value: Value| {
        let mut new = bad.clone();
        new.pointer_mut(pointer).unwrap()[member] = value;
        new
    };
    // (the object asked for, whether policies have a say)
    let rows = [
        (bad.clone(), false),
        (changed("/metadata", "annotations", json!({"a": "b"})), false),
        (changed("/metadata", "finalizers", json!([])), false),
        (changed("/spec", "replicas", json!(3)), false),
        (changed("/spec", "paused", json!(true)), false),
        (changed("/spec", "replicas", json!(5)), true),
        (changed("/metadata/labels", "team", json!("risk")), true),
        (changed("/metadata", "annotations", json!({"surefoot.dev/budget": "failures=3"})), true),
        (strange, true),
    ];
    for (object, judged) in rows {
        let mut asked = review("shop", &object);
        asked["request"]["operation"] = json!("UPDATE");
        asked["request"]["oldObject"] = bad.clone();
        let answer = cluster.ask("/validate", &asked).await;
        assert_eq!(answer != json!({"uid": "u-1", "allowed": true}), judged, "{object}: {answer}");
    }
}
