//! Quarantine: a template that was reverted is not let in again by accident. Checked natively, before any policy.

use std::collections::BTreeMap;

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

use super::{
    Facts, Finding, History, Level, Request,
    facts::Quarantined,
    wire::{Operation, Via, tree},
};
use crate::template::{Digest, Json, json, keys};

/// The finding for a request that brings a quarantined template, or grows one; `most` is the most it may do.
pub(super) fn finding(request: &Request, facts: &Facts, now: Timestamp, most: Level) -> Option<Finding> {
    let history = facts.history.as_ref()?;
    if history.quarantine.is_empty() {
        return None;
    }
    let digest = digest_of(request.object())?;
    let is_held = |entry: &&Quarantined| entry.digest == digest && entry.until.is_none_or(|until| now < until);
    let entry = history.quarantine.iter().find(is_held)?;
    let concerns = match (request.operation, request.old_object()) {
        (Operation::Create, _) => true,
        (_, Some(old)) => digest_of(old).as_ref() != Some(&digest) || replicas(request.object()) > replicas(old),
        _ => false,
    };
    concerns.then(|| describe(request, history, entry, now, most))
}

fn describe(request: &Request, history: &History, entry: &Quarantined, now: Timestamp, most: Level) -> Finding {
    let mut details = vec![("why", entry.evidence.clone())];
    details.extend(running(request, history).map(|text| ("now", text)));
    if let Some(until) = entry.until {
        details.push(("ends", until.to_string()));
    }
    let way_out = match request.via {
        Via::Deployment => "change the pod template (a new image is enough), or take",
        Via::Scale => "apply another pod template first, or take",
    };
    let fix = format!("{way_out} the risk for a few hours, say why, and apply again:\n{}", override_line(request, now));
    Finding {
        policy: "quarantine".to_owned(),
        code: String::new(),
        level: most,
        path: "/spec/template".to_owned(),
        // No age: what keeps applying it would find another message each time, and tell of each.
        message: format!("this pod template was reverted at {:.0}", entry.at),
        fix,
        details,
    }
}

/// The line that sets an override for two to three hours: a command, or, for a Deployment that is not there yet, one for its file.
/// It ends with an hour, so that it is the same line for as long.
pub(super) fn override_line(request: &Request, now: Timestamp) -> String {
    let until = now
        .checked_add(SignedDuration::from_hours(2))
        .and_then(|until| until.round(TimestampRound::new().smallest(Unit::Hour).mode(RoundMode::Ceil)))
        .unwrap_or(now)
        .strftime("%Y-%m-%dT%H:%MZ");
    let Request { namespace, name, .. } = request;
    match request.operation {
        Operation::Create => format!("metadata: {{annotations: {{{}: \"{until} WHY\"}}}}", keys::OVERRIDE),
        _ => format!("kubectl annotate deploy {name} -n {namespace} {}=\"{until} WHY\" --overwrite", keys::OVERRIDE),
    }
}

/// What serves meanwhile, as far as the stored object says.
fn running(request: &Request, history: &History) -> Option<String> {
    let old = request.old_object()?;
    let version = json::str_at(old, &["spec", "template", "metadata", "labels", keys::VERSION])
        .or_else(|| history.last_good.as_ref()?.version.as_deref())?;
    let ready = json::int_at(old, &["status", "readyReplicas"]).unwrap_or(0);
    let all = json::int_at(old, &["status", "replicas"])?;
    Some(format!("version {version} is running, {ready} of {all} pods ready"))
}

fn digest_of(deployment: &Json) -> Option<Digest> {
    Some(Digest::of_template(json::at(deployment, &["spec", "template"])?))
}

fn replicas(deployment: &Json) -> i64 {
    json::int_at(deployment, &["spec", "replicas"]).unwrap_or(1)
}

/// `input.context.history`, for a review of `object`.
pub(super) fn context(history: &History, object: Option<&Json>) -> Json {
    let last_good = history.last_good.as_ref().map(|good| {
        tree([
            ("digest", Json::from(good.digest.as_str())),
            ("version", good.version.as_deref().map_or(Json::Null, Json::from)),
            ("at", Json::from(good.at.to_string())),
        ])
    });
    let quarantine: Vec<Json> = history
        .quarantine
        .iter()
        .map(|entry| {
            tree([
                ("digest", Json::from(entry.digest.as_str())),
                ("version", entry.version.as_deref().map_or(Json::Null, Json::from)),
                ("at", Json::from(entry.at.to_string())),
                ("until", entry.until.map_or(Json::Null, |until| Json::from(until.to_string()))),
                ("evidence", Json::from(entry.evidence.as_str())),
            ])
        })
        .collect();
    let mut members = BTreeMap::from([(Json::from("quarantine"), Json::from(quarantine))]);
    members.extend(last_good.map(|good| (Json::from("lastGood"), good)));
    let rollout = history.rollout.as_ref().map(|rollout| {
        tree([
            ("digest", Json::from(rollout.digest.as_str())),
            ("version", rollout.version.as_deref().map_or(Json::Null, Json::from)),
            ("since", Json::from(rollout.since.to_string())),
            ("failing", Json::Bool(rollout.failing)),
        ])
    });
    members.extend(rollout.map(|rollout| (Json::from("rollout"), rollout)));
    // A digest takes its time: only where there is something to compare it with.
    let is_compared = history.rollout.is_some() || !history.quarantine.is_empty();
    if let Some(digest) = object.filter(|_| is_compared).and_then(digest_of) {
        let settled = Json::Bool(history.settled.contains(&digest));
        let template = tree([("digest", Json::from(digest.as_str())), ("settled", settled)]);
        members.insert(Json::from("template"), template);
    }
    Json::from(members)
}
