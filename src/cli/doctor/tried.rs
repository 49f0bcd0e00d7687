//! A bad Deployment, sent as a dry run: what the API server says of it is what everybody gets.

use std::time::Instant;

use http_body_util::BodyExt;
use hyper::{HeaderMap, Request};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::{
    Level, Row,
    hooks::logs,
    seen::{Seen, items, text},
};
use crate::{config::Guard, template::keys};

const AREA: &str = "end to end";

pub(super) async fn row(client: &Client, seen: &Seen) -> Row {
    let guarded = |wanted: Guard| {
        items(&seen.namespaces)
            .filter(|namespace| namespace["metadata"]["deletionTimestamp"].is_null())
            .filter(|namespace| {
                namespace["metadata"]["labels"][keys::GUARD].as_str().and_then(|label| label.parse().ok())
                    == Some(wanted)
            })
            .map(|namespace| text(&namespace["metadata"]["name"]))
            .find(|name| name != "kube-system" && *name != seen.own)
    };
    let Some(namespace) = guarded(Guard::Enforce).or_else(|| guarded(Guard::Warn)) else {
        return Row::new(
            Level::Note,
            AREA,
            "not tried: no namespace is guarded by warn or enforce, where it would be seen",
            "",
        );
    };
    let path =
        format!("/apis/apps/v1/namespaces/{namespace}/deployments?dryRun=All&fieldManager={}", keys::FIELD_MANAGER);
    let request =
        Request::post(path).header("content-type", "application/json").body(Body::from(bad().to_string().into_bytes()));
    let begun = Instant::now();
    let answered = match request {
        Ok(request) => client.send(request).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let (status, warned, body) = match answered {
        Err(error) => return Row::new(Level::Skip, AREA, format!("not tried: {error}"), ""),
        Ok(answer) => {
            let (status, warned) = (answer.status().as_u16(), warnings(answer.headers()));
            let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            (status, warned, serde_json::from_slice::<Value>(&body).unwrap_or_default())
        }
    };
    judged(&namespace, status, &warned, &text(&body["message"]), begun.elapsed().as_millis(), &seen.own)
}

/// What no shipped policy lets pass.
fn bad() -> Value {
    let labels = json!({"app": "surefoot-doctor"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "surefoot-doctor", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "model", "image": "surefoot.invalid/doctor:latest"}]}}},
    })
}

fn warnings(headers: &HeaderMap) -> Vec<String> {
    headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

fn judged(namespace: &str, status: u16, warned: &[String], message: &str, took: u128, own: &str) -> Row {
    let sent = "a bad Deployment sent as dry run";
    let ours = |text: &str| {
        ["images", "probes", "resources", "version-labels", "rollout-strategy"]
            .iter()
            .any(|policy| text.contains(&format!("{policy}/")))
    };
    match status {
        403 if message.contains(".surefoot.dev\" denied the request") => {
            Row::ok(AREA, format!("{sent} to {namespace} was refused in {took} ms"))
        }
        201 if warned.iter().any(|warning| ours(warning)) => {
            Row::ok(AREA, format!("{sent} to {namespace} was warned about in {took} ms"))
        }
        201 => Row::new(
            Level::Fail,
            AREA,
            format!("{sent} to {namespace} was admitted without a word: nobody judges it, or no policy in force minds"),
            logs(own, "webhook"),
        ),
        500..=599 if message.contains("failed calling webhook") || message.contains("failed to call webhook") => {
            let why = message.split_once(": ").map_or(message, |(_, why)| why);
            Row::new(Level::Fail, AREA, format!("{sent} to {namespace}: {why}"), logs(own, "webhook"))
        }
        _ => Row::new(
            Level::Skip,
            AREA,
            format!("not tried, {namespace} takes no Deployment of yours ({status}): {message}"),
            "",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_answer_means() {
        let denied = r#"admission webhook "validate.surefoot.dev" denied the request: 2 problems"#;
        let away =
            r#"Internal error occurred: failed calling webhook "validate.surefoot.dev": x509: unknown authority"#;
        let warning = ["299 - \"images/latest: …\"".to_owned()];
        for (status, warned, message, level) in [
            (403, &[][..], denied, Level::Ok),
            (201, &warning[..], "", Level::Ok),
            (201, &["299 - \"of somebody else\"".to_owned()], "", Level::Fail),
            (201, &[], "", Level::Fail),
            (500, &[], away, Level::Fail),
            (403, &[], "deployments.apps is forbidden: User \"ana\" cannot create", Level::Skip),
            (403, &[], r#"admission webhook "policy.example.com" denied the request: no"#, Level::Skip),
        ] {
            let row = judged("shop", status, warned, message, 3, "own");
            assert_eq!(row.level, level, "{row:?}");
            assert!(row.message.contains("shop"), "{row:?}");
        }
    }
}
