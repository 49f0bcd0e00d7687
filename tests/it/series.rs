//! How many series `/metrics` has: a number that does not depend on what is asked about.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response, header::CONTENT_TYPE},
};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use surefoot::{
    admission::PolicySet,
    cluster::ClusterFacts,
    config::{Config, Rollouts},
    controller,
    telemetry::ControllerMetrics,
    webhook::{App, MAX_BODY, Rules, State, router},
};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::{stage::LIMIT, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("series::ten_thousand_odd_reviews_add_none", reviews),
        trial("series::ten_thousand_odd_deployments_add_none", deployments),
    ]
}

const REVIEWS: usize = 10_000;

/// More than all values of all labels of the webhook make together with the policies that are shipped.
const MOST: usize = 150;

/// The webhook's router without a cluster: what it reads there fails, with an error that has the name in it.
fn webhook() -> Result<Arc<App>> {
    let set =
        PolicySet::load(PolicySet::built_in_sources(), &Config::default()).map_err(|errors| anyhow!("{errors}"))?;
    // Port 9 is discard: nobody listens.
    let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:9".parse()?))?;
    let facts = ClusterFacts::new(client, "surefoot-system").0;
    let app = Arc::new(App::new(Rules { set, config: Config::default() }, facts));
    app.enter(State::Ready);
    Ok(app)
}

/// A name that no other review has, and few would think of.
fn odd(number: usize) -> String {
    let kind =
        ["shop", "", "a\"} 1\nsurefoot_ready{x=\"", "..", "\u{202e}пруд", "\0\r\n\t", "{{ $labels.x }}"][number % 7];
    match number % 11 {
        0 => format!("{kind}{number}").repeat(40),
        _ => format!("{kind}-{number}"),
    }
}

/// Reviews of each hook and operation in turn, also such as are refused, with odd names wherever one may stand.
fn review(number: usize) -> (&'static str, Value) {
    let name = || odd(number);
    let container = json!({"name": name(), "image": format!("r/{}:latest", name()), "livenessProbe": {"httpGet": {"port": name()}}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name(), "namespace": name(),
            "labels": {"surefoot.dev/model": name(), "surefoot.dev/track": name(), "app.kubernetes.io/version": name()},
            "annotations": {"surefoot.dev/override": name()}},
        "spec": {"selector": {"matchLabels": {"app": name()}}, "template": {"metadata": {"labels": {"app": name()}},
            "spec": {"containers": [container]}}}});
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name()}, "spec": {"replicas": number}});
    let (path, object) = match number % 3 {
        0 => ("/validate", deployment),
        1 => ("/mutate", deployment),
        _ => ("/scale", scale),
    };
    let operation = ["CREATE", "UPDATE", "CREATE", "CONNECT", "CREATE", &name()][number % 6].to_owned();
    let kind = if number.is_multiple_of(13) { json!(name()) } else { object["kind"].clone() };
    let old = if operation == "UPDATE" { object.clone() } else { Value::Null };
    let request = json!({"uid": name(), "operation": operation, "name": name(), "namespace": name(),
        "kind": {"group": "apps", "version": "v1", "kind": kind},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "subResource": name(),
        "userInfo": {"username": name(), "groups": [name()]}, "object": object, "oldObject": old});
    (path, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}))
}

async fn ask(app: &Arc<App>, number: usize) -> Result<u16> {
    let (path, review) = review(number);
    // Long enough that what is answered does not depend on the machine.
    let request = Request::post(format!("{path}?timeout=30s")).header(CONTENT_TYPE, "application/json");
    let answer = router(Arc::clone(app)).oneshot(request.body(Body::from(review.to_string()))?).await?;
    Ok(answer.status().as_u16())
}

async fn metrics(app: &Arc<App>) -> Result<String> {
    let answer = router(Arc::clone(app)).oneshot(Request::get("/metrics").body(Body::empty())?).await?;
    Ok(String::from_utf8(to_bytes(answer.into_body(), MAX_BODY).await?.to_vec())?)
}

/// Name and labels of each, without its value.
fn series(metrics: &str) -> BTreeSet<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series)).collect()
}

fn reviews() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let app = webhook()?;
        // Each shape once or more.
        let mut statuses = BTreeSet::new();
        for number in 0..200 {
            statuses.insert(ask(&app, number).await?);
        }
        ensure!(statuses == BTreeSet::from([200, 400]), "{statuses:?}");
        let before = metrics(&app).await?;
        for number in 200..REVIEWS {
            ask(&app, number).await?;
        }
        let after = metrics(&app).await?;
        let (before, after) = (series(&before), series(&after));
        println!("{} series after 200 reviews, {} after {REVIEWS}", before.len(), after.len());
        let new: Vec<_> = after.difference(&before).take(10).collect();
        ensure!(
            new.is_empty() && after.len() <= MOST,
            "{} series, {} before; new: {new:#?}",
            after.len(),
            before.len()
        );
        let denied = "surefoot_reviews_total{hook=\"validate\",operation=\"create\",verdict=\"denied\"}";
        after.get(denied).with_context(|| format!("nothing was judged: {after:#?}")).map(drop)
    })
}

/// More than what the controller does to anything makes together.
const MOST_OF_CONTROLLER: usize = 100;

/// A Deployment that is complete or has failed, or its ReplicaSet, with odd names and reasons in it.
fn of_kind(kind: &str, number: usize) -> Value {
    let name = odd(number);
    let template =
        json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": name, "image": name}]}});
    let progressing = match number % 2 {
        1 => json!({"type": "Progressing", "status": "True", "reason": name, "message": name}),
        _ => json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": name}),
    };
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": format!("u{number}"), "controller": true});
    match kind {
        "deployments" => {
            json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("u{number}"), "generation": 1},
            "spec": {"replicas": 1, "template": template},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": number % 2, "conditions": [progressing]}})
        }
        _ => {
            json!({"metadata": {"name": format!("{name}-1"), "namespace": "shop", "uid": format!("s{number}"), "ownerReferences": [owner]},
            "spec": {"replicas": 1, "template": template}})
        }
    }
}

fn listed(kind: &str) -> Value {
    let items = match kind {
        "namespaces" => vec![json!({"metadata": {"name": "shop", "labels": {"surefoot.dev/guard": "enforce"}}})],
        "deployments" | "replicasets" => (0..REVIEWS).map(|number| of_kind(kind, number)).collect(),
        _ => Vec::new(),
    };
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "7"}, "items": items})
}

/// An API server that has these, gives the lease to whoever asks, and refuses all other writes, each in words of its own.
fn api_server() -> kube::Client {
    let asked = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        async move {
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let last = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let is_lease = request.uri().path().contains("/leases");
            let is_read = *request.method() == Method::GET;
            let body = request.into_body().collect().await?.to_bytes();
            let words = json!({"kind": "Status", "status": "Failure", "message": odd(number), "reason": odd(number), "code": 500});
            let answer = match (is_read, is_lease) {
                (true, true) => {
                    (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}))
                }
                (true, false) => (200, listed(&last)),
                (false, true) => (200, serde_json::from_slice(&body)?),
                (false, false) => (500, words),
            };
            let (status, parts) = match watches {
                true => (200, stream::pending().boxed()),
                false => (answer.0, stream::iter([answer.1]).boxed()),
            };
            let frames = parts.map(|value| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{value}\n")))));
            Ok::<_, tower::BoxError>(Response::builder().status(status).body(StreamBody::new(frames))?)
        }
    });
    kube::Client::new(service, "default")
}

fn deployments() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let metrics = Arc::new(ControllerMetrics::default());
        let (_rollouts, follows) = watch::channel(Rollouts::default());
        let counted = || -> i64 {
            let text = metrics.render();
            let of = |line: &str| line.starts_with("surefoot_controller_rollouts{").then(|| line.rsplit(' ').next()?.parse::<i64>().ok());
            text.lines().filter_map(of).flatten().sum()
        };
        let all = async {
            while counted() < i64::try_from(REVIEWS).unwrap_or_default() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let watched = tokio::time::timeout(LIMIT * 2, all);
        tokio::select! {
            ended = controller::run(api_server(), follows, None, Arc::clone(&metrics), std::future::pending()) => ended?,
            watched = watched => watched.with_context(|| metrics.render())?,
        }
        let text = metrics.render();
        let all = series(&text);
        println!("{} series of {REVIEWS} Deployments", all.len());
        ensure!(all.len() <= MOST_OF_CONTROLLER, "{} series, such as {:#?}", all.len(), all.iter().take(20).collect::<Vec<_>>());
        ensure!(text.contains("result=\"failed\""), "nothing was written: {text}");
        Ok(())
    })
}
