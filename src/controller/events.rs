//! What is told in the cluster, and what the kubelet told: Events on the Deployment, and the last words of a probe.
//!
//! The kubelet's Events are evidence only, listed once when a rollout is found failing. They are no measure: its
//! recorder drops most of them.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Event as CoreEvent, ObjectReference},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    core::ObjectMeta,
};
use sha2::{Digest as _, Sha256};

use crate::{
    rollout::{
        record::{Evidence, Signal},
        snapshot::Deployment,
    },
    template::keys,
};

/// The API server takes a note of at most 1024 bytes.
const LONGEST_NOTE: usize = 1024;
/// Of what a probe said.
const LONGEST_MESSAGE: usize = 160;

/// Something that is told about a Deployment.
pub(super) struct Told<'a> {
    /// What it is about.
    pub(super) deployment: &'a Deployment,
    /// One word for machines.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) note: String,
    /// When it happened. The same reason at the same time is the same Event, however often it is published.
    pub(super) at: Timestamp,
    /// What makes it the same Event at any time.
    pub(super) once: Option<&'a str>,
}

/// Publishes it; one that is there already is not published again.
pub(super) async fn publish(client: &Client, told: &Told<'_>) -> kube::Result<()> {
    let api: Api<Event> = Api::namespaced(client.clone(), &told.deployment.namespace);
    match api.create(&PostParams::default(), &event(told)).await {
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Ok(()),
        done => done.map(drop),
    }
}

fn event(told: &Told<'_>) -> Event {
    let Told { deployment, reason, note, at, once } = told;
    let this = once.map_or_else(|| at.to_string(), str::to_owned);
    let identity = Sha256::digest(format!("{} {reason} {this}", deployment.uid));
    let suffix: String = identity[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    // The name of an Event may have 253 characters, like that of the Deployment.
    let name: String = deployment.name.chars().take(253 - 17).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{suffix}")),
            namespace: Some(deployment.namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some("Rollout".to_owned()),
        event_time: Some(MicroTime(*at)),
        note: Some(cut(note, LONGEST_NOTE)),
        reason: Some((*reason).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some("Deployment".to_owned()),
            namespace: Some(deployment.namespace.clone()),
            name: Some(deployment.name.clone()),
            uid: Some(deployment.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(keys::REPORTER.to_owned()),
        reporting_instance: Some(keys::REPORTER.to_owned()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// What the probe of the failing container said last, from the kubelet's Events on the failing pods.
pub(super) async fn last_words(client: &Client, namespace: &str, evidence: &Evidence) -> kube::Result<Option<String>> {
    let Some(probes) = probes(evidence.signal) else { return Ok(None) };
    let api: Api<CoreEvent> = Api::namespaced(client.clone(), namespace);
    let unhealthy = ListParams::default().fields("reason=Unhealthy,involvedObject.kind=Pod").limit(500);
    Ok(pick(&api.list(&unhealthy).await?.items, probes, evidence))
}

/// How the kubelet's message about a probe that counts here begins.
fn probes(signal: Signal) -> Option<&'static [&'static str]> {
    match signal {
        Signal::Readiness => Some(&["readiness"]),
        // Readiness is not asked before the startup probe has passed.
        Signal::Deadline => Some(&["readiness", "startup"]),
        Signal::Liveness => Some(&["liveness"]),
        Signal::Startup => Some(&["startup"]),
        // A container that ended by itself has said so with its exit code, and one that cannot run in its status.
        Signal::Crash | Signal::OutOfMemory | Signal::Image | Signal::Configuration | Signal::Init => None,
    }
}

fn pick(events: &[CoreEvent], probes: &[&str], evidence: &Evidence) -> Option<String> {
    let field = format!("{{{}}}", evidence.container);
    let fits = |event: &&CoreEvent| {
        let object = &event.involved_object;
        object.name.as_ref().is_some_and(|name| evidence.pods.contains(name))
            && object.field_path.as_ref().is_none_or(|path| path.ends_with(&field))
            && event.message.as_ref().is_some_and(|text| {
                let text = text.to_ascii_lowercase();
                probes.iter().any(|probe| text.starts_with(probe))
            })
    };
    let time = |event: &&CoreEvent| {
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        series.max(last).max(event.event_time.as_ref().map(|time| time.0))
    };
    let last = events.iter().filter(fits).max_by_key(time)?;
    last.message.as_deref().map(words)
}

/// `Readiness probe failed: HTTP probe failed with statuscode: 503` → `HTTP 503`. The kubelet's wording is in motion, so
/// what is not known is taken as it is.
fn words(message: &str) -> String {
    let told = message.split_once(" failed: ").map_or(message, |(_, told)| told);
    if let Some((_, code)) = told.split_once("statuscode: ") {
        let code: String = code.chars().take_while(char::is_ascii_digit).collect();
        return format!("HTTP {code}");
    }
    let line: String = told.lines().next().unwrap_or_default().chars().filter(|one| !one.is_control()).collect();
    cut(line.trim(), LONGEST_MESSAGE)
}

/// At most so many bytes, at a character's edge.
fn cut(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_probe_said() {
        for (message, wanted) in [
            ("Readiness probe failed: HTTP probe failed with statuscode: 503", "HTTP 503"),
            (
                "Readiness probe failed: Get \"http://10.0.0.7:8000/ready\": dial tcp 10.0.0.7:8000: connect: connection refused",
                "Get \"http://10.0.0.7:8000/ready\": dial tcp 10.0.0.7:8000: connect: connection refused",
            ),
            ("Liveness probe failed: cat: /run/live: No such file\nsecond line", "cat: /run/live: No such file"),
            (
                "Readiness probe errored and resulted in unknown state: x",
                "Readiness probe errored and resulted in unknown state: x",
            ),
            ("", ""),
        ] {
            assert_eq!(words(message), wanted);
        }
    }

    #[test]
    fn the_newest_of_the_failing_container_on_a_failing_pod() {
        let event = |pod: &str, container: &str, at: &str, message: &str| -> CoreEvent {
            serde_json::from_value(json!({"metadata": {}, "reason": "Unhealthy", "message": message, "lastTimestamp": at,
                "involvedObject": {"kind": "Pod", "name": pod, "fieldPath": format!("spec.containers{{{container}}}")}}))
            .unwrap()
        };
        let events = [
            event(
                "a",
                "model",
                "2026-11-22T14:21:07Z",
                "Readiness probe failed: HTTP probe failed with statuscode: 500",
            ),
            event(
                "a",
                "model",
                "2026-11-22T14:21:09Z",
                "Readiness probe failed: HTTP probe failed with statuscode: 503",
            ),
            event(
                "a",
                "model",
                "2026-11-22T14:21:11Z",
                "Liveness probe failed: HTTP probe failed with statuscode: 504",
            ),
            event(
                "a",
                "mesh",
                "2026-11-22T14:21:12Z",
                "Readiness probe failed: HTTP probe failed with statuscode: 505",
            ),
            event(
                "old",
                "model",
                "2026-11-22T14:21:13Z",
                "Readiness probe failed: HTTP probe failed with statuscode: 506",
            ),
        ];
        let evidence = |signal| Evidence {
            failures: 12,
            attempts: 30,
            budget: 10,
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            container: "model".into(),
            signal,
            message: String::new(),
            pods: vec!["a".into()],
            nodes: Vec::new(),
        };
        assert_eq!(
            pick(&events, probes(Signal::Readiness).unwrap(), &evidence(Signal::Readiness)).as_deref(),
            Some("HTTP 503")
        );
        assert_eq!(
            pick(&events, probes(Signal::Liveness).unwrap(), &evidence(Signal::Liveness)).as_deref(),
            Some("HTTP 504")
        );
        assert_eq!(pick(&events, probes(Signal::Startup).unwrap(), &evidence(Signal::Startup)), None);
        let starting = [event(
            "a",
            "model",
            "2026-11-22T14:21:14Z",
            "Startup probe failed: HTTP probe failed with statuscode: 507",
        )];
        assert_eq!(
            pick(&starting, probes(Signal::Deadline).unwrap(), &evidence(Signal::Deadline)).as_deref(),
            Some("HTTP 507")
        );
        assert_eq!(probes(Signal::Crash), None);
    }
}
