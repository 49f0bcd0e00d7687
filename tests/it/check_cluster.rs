//! `surefoot check --cluster` on a real control plane, as an admin and as somebody with rights in one namespace only. No
//! webhook runs here: what it would refuse is there already, which is what the command is for.

use std::{process::Command, sync::OnceLock};

use anyhow::{Context as _, Result, anyhow, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use surefoot::template::{Digest, Json};

use crate::{
    check::{Run, run},
    models::{bad, good, with},
    shared,
    support::{ControlPlane, Kubectl},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("check_cluster::what_enforce_would_refuse", what_enforce_would_refuse),
        trial("check_cluster::one_namespace_with_rights_in_it_alone", one_namespace_with_rights_in_it_alone),
        trial("check_cluster::files_over_what_the_cluster_has", files_over_what_the_cluster_has),
        trial(
            "check_cluster::what_the_api_server_refuses_is_found_offline",
            what_the_api_server_refuses_is_found_offline,
        ),
        trial("check_cluster::why_it_cannot", why_it_cannot),
    ]
}

/// A control plane of its own: `--cluster` looks at every guarded namespace.
fn plane() -> Result<&'static ControlPlane> {
    static PLANE: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    let plane = PLANE.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    plane.as_ref().map_err(|error| anyhow!("{error}"))
}

fn start() -> Result<ControlPlane> {
    let plane = ControlPlane::start()?;
    plane.admin().run(&["create", "namespace", "surefoot-system"])?.success()?;
    for (namespace, guard, models) in [
        ("audited", "audit", vec![bad("ranker"), good("churn")]),
        ("enforced", "enforce", vec![good("fraud")]),
        ("odd", "enfroce", vec![good("etl")]),
        ("free", "", vec![bad("scorer")]),
    ] {
        let (admin, _) = shared::namespace(&plane, namespace, guard)?;
        for model in models {
            admin.apply(&model.to_string())?.success()?;
        }
    }
    // Kept apart, so nothing is to be said of it as a whole.
    let apart = [
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": {"pods": "9",
            "requests.cpu": "9", "requests.memory": "9Gi", "limits.cpu": "9", "limits.memory": "9Gi"}}}),
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"},
            "spec": {"limits": [{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}),
    ];
    for object in apart {
        plane.admin().in_namespace("enforced").apply(&object.to_string())?.success()?;
    }
    Ok(plane)
}

fn check(user: &Kubectl, arguments: &[&str], stdin: &str) -> Result<Run> {
    let mut command = Command::new(shared::program());
    command.env("KUBECONFIG", user.kubeconfig()).env_remove("POD_NAMESPACE").env_remove("RUST_BACKTRACE");
    run(command.arg("check").args(arguments), stdin)
}

/// `namespace/name verdict guard` of each Deployment.
fn verdicts(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let objects = report["objects"].as_array().into_iter().flatten().filter(|object| object["kind"] == "Deployment");
    let line = |it: &Value| {
        format!("{}/{} {} {}", text(&it["namespace"]), text(&it["name"]), text(&it["verdict"]), text(&it["guard"]))
    };
    objects.map(line).collect()
}

fn what_enforce_would_refuse() -> Result<()> {
    let admin = plane()?.admin();
    let run = check(admin, &["--cluster", "-o", "json"], "")?;
    let report = run.json()?;
    let expected = [
        "audited/churn allowed audit",
        "audited/ranker denied audit",
        "enforced/fraud allowed enforce",
        "odd/etl allowed warn",
    ];
    ensure!(verdicts(&report) == expected && run.code == Some(1), "{report:#}");
    let objects = report["objects"].as_array().context("objects")?;
    ensure!(objects.iter().all(|object| object["file"] == "cluster" && object["line"] == 0), "{report:#}");
    let apart: Vec<_> = objects.iter().filter(|it| it["kind"] == "Namespace").map(|it| &it["name"]).collect();
    ensure!(apart == ["audited", "odd"], "isolation judges what is not kept apart: {report:#}");
    // Records and what keeps namespaces apart can be read, so every policy was asked.
    ensure!(report["skipped"] == json!([]) && report["failures"] == json!([]), "{report:#}");

    let text = check(admin, &["--cluster", "-A"], "")?;
    for words in [
        "namespace audited: guard audit, so nothing is refused yet and nobody is told\n",
        "= at: Deployment audited/ranker, spec.template.spec.containers[0].readinessProbe\n",
        "namespace label surefoot.dev/guard is `enfroce`",
        "1 of 4 Deployments would be refused under guard enforce",
    ] {
        ensure!(text.stdout.contains(words), "`{words}` is not in\n{}", text.stdout);
    }
    ensure!(!text.stdout.contains("namespace enforced"), "nothing is to be said of it:\n{}", text.stdout);
    for format in ["github", "sarif", "junit"] {
        let run = check(admin, &["--cluster", "-o", format], "")?;
        ensure!(run.code == Some(1) && run.stdout.contains("Deployment audited/ranker"), "{format}: {}", run.stdout);
        ensure!(!run.stdout.contains("file=") && !run.stdout.contains("\"uri\""), "{format}: {}", run.stdout);
    }
    Ok(())
}

fn one_namespace_with_rights_in_it_alone() -> Result<()> {
    let ana = plane()?.user("ana");
    let run = check(&ana, &["--cluster", "-n", "free", "-o", "json"], "")?;
    let report = run.json()?;
    ensure!(verdicts(&report) == ["free/scorer denied none"] && run.code == Some(1), "{report:#}");
    let notices = report["notices"].to_string();
    ensure!(notices.contains("no right to list configmaps in namespace surefoot-system"), "{notices}");
    ensure!(report["skipped"].to_string().contains("history"), "{report:#}");
    let admin = check(plane()?.admin(), &["--cluster", "-n", "free"], "")?;
    ensure!(admin.stdout.contains("namespace free: not guarded"), "{}", admin.stdout);
    Ok(())
}

/// A file is judged as what it would change: over the Deployment that is there, beside its peers, with its history.
fn files_over_what_the_cluster_has() -> Result<()> {
    let plane = plane()?;
    let (admin, _) = shared::namespace(plane, "rolling", "")?;
    admin.apply(&with(good("churn"), "/spec/replicas", json!(20))?.to_string())?.success()?;
    let mut canary = with(good("churn-canary"), "/spec/replicas", json!(2))?;
    canary["metadata"]["labels"] =
        json!({"surefoot.dev/model": "churn", "surefoot.dev/track": "canary", "app.kubernetes.io/version": "2.0.0"});
    canary["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] = "2.0.0".into();
    canary["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.local/model:2.0.0".into();
    let too_many = with(canary.clone(), "/spec/replicas", json!(3))?;
    let arguments = ["--cluster", "-n", "rolling", "-", "-o", "json"];
    for (what, text, verdict) in [
        ("two of twenty", canary.to_string(), "allowed"),
        ("three of twenty", too_many.to_string(), "denied"),
        (
            "three of thirty",
            format!("{too_many}\n---\n{}", with(good("churn"), "/spec/replicas", json!(30))?),
            "allowed",
        ),
    ] {
        let report = check(plane.admin(), &arguments, &text)?.json()?;
        ensure!(verdicts(&report)[0] == format!("rolling/churn-canary {verdict} none"), "{what}: {report:#}");
    }
    // What is wrong already is a warning as long as it stays as it is.
    let scorer = with(bad("scorer"), "/spec/replicas", json!(4))?;
    let report = check(plane.admin(), &["--cluster", "-n", "free", "-", "-o", "json"], &scorer.to_string())?.json()?;
    ensure!(verdicts(&report) == ["free/scorer allowed none"], "{report:#}");

    // A template that was reverted is refused by its record.
    let stored = admin.json(&["deploy", "churn"])?;
    let template = Json::from_json_str(&stored["spec"]["template"].to_string())?;
    let record = json!({"version": 1, "namespace": "rolling", "name": "churn", "uid": "u", "reverts": [{
        "digest": Digest::of_template(&template).as_str(), "version": "1.0.0", "at": "2026-11-22T14:21:48Z",
        "outcome": "written", "class": "application",
        "evidence": {"failures": 12, "attempts": 30, "budget": 10, "since": "2026-11-22T14:21:07Z",
            "until": "2026-11-22T14:21:48Z", "container": "model", "signal": "readiness", "message": "HTTP 503"}}]});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"record.json": record.to_string()},
        "metadata": {"name": "record.rolling.churn", "labels": {
            "surefoot.dev/record": "true", "surefoot.dev/record-namespace": "rolling"}}});
    plane.admin().in_namespace("surefoot-system").apply(&map.to_string())?.success()?;
    let report = check(plane.admin(), &["--cluster", "-n", "rolling", "-o", "json"], "")?.json()?;
    let finding = &report["objects"][0]["findings"][0];
    ensure!(finding["policy"] == "quarantine" && finding["level"] == "deny", "{report:#}");
    plane.admin().run(&["delete", "namespace", "rolling", "--wait=false"])?.success()?;
    Ok(())
}

/// Each object differs from a good one in one place; kubectl asks the API server, as it does by default, for strict fields.
fn what_the_api_server_refuses_is_found_offline() -> Result<()> {
    let plane = plane()?;
    let (admin, _) = shared::namespace(plane, "strict", "")?;
    let container = "/spec/template/spec/containers/0";
    let at = |path: &str| format!("{container}/{path}");
    let rows = [
        ("/metadata/labels/note".to_owned(), json!("fine")),
        ("/metadata/annotation".to_owned(), json!({})),
        ("/metadata/name".to_owned(), json!("Churn_1")),
        ("/metadata/labels/release".to_owned(), json!("1.0.0+a")),
        ("/spec/replicas".to_owned(), json!(-1)),
        ("/spec/replica".to_owned(), json!(1)),
        ("/spec/minReadySeconds".to_owned(), json!(-1)),
        ("/spec/minReadySeconds".to_owned(), json!(600)),
        ("/spec/revisionHistoryLimit".to_owned(), json!(-1)),
        ("/spec/selector".to_owned(), json!({"matchLabels": {"app": "other"}})),
        ("/spec/selector".to_owned(), json!({})),
        ("/spec/selector".to_owned(), Value::Null),
        (
            "/spec/selector".to_owned(),
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["churn"]}]}),
        ),
        (
            "/spec/selector".to_owned(),
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["churn"]}]}),
        ),
        ("/spec/strategy".to_owned(), json!({"type": "Rolling"})),
        ("/spec/strategy".to_owned(), json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}})),
        ("/spec/template/spec/restartPolicy".to_owned(), json!("OnFailure")),
        ("/spec/template/spec/restartPolicy".to_owned(), json!("Always")),
        ("/spec/template/metadata/labels/tier".to_owned(), json!("-x")),
        (at("readinesProbe"), json!({"tcpSocket": {"port": 1}})),
        (at("Image"), json!("x")),
        (at("image"), json!("")),
        (at("name"), json!("a_b")),
        (at("env"), json!([{"name": "A", "valeu": "x"}])),
        ("/spec/template/spec/initContainers".to_owned(), json!([{"name": "model", "image": "x"}])),
        // A blank is taken in a template; the pod would be refused.
        (at("image"), json!(" ")),
        (at("image"), json!(" x:1 ")),
        (at("readinessProbe/terminationGracePeriodSeconds"), json!(5)),
        (at("livenessProbe/terminationGracePeriodSeconds"), json!(5)),
        (at("livenessProbe/terminationGracePeriodSeconds"), json!(0)),
        (at("livenessProbe/terminationGracePeriodSeconds"), json!(-5)),
        (at("livenessProbe/successThreshold"), json!(2)),
        (at("readinessProbe/successThreshold"), json!(2)),
        (at("readinessProbe/successThreshold"), json!(0)),
        (at("readinessProbe/periodSeconds"), json!(-1)),
        (at("readinessProbe/initialDelaySeconds"), json!(-1)),
        (at("readinessProbe"), json!({})),
        (at("readinessProbe"), json!({"periodSeconds": 3})),
        (at("readinessProbe"), json!({"httpGet": {}})),
        (at("readinessProbe"), json!({"httpGet": {"path": "/"}})),
        (at("readinessProbe"), json!({"httpGet": {"port": 0}})),
        (at("readinessProbe"), json!({"httpGet": {"port": 65536}})),
        (at("readinessProbe"), json!({"httpGet": {"port": "8080"}})),
        (at("readinessProbe"), json!({"httpGet": {"port": "Http_1"}})),
        (at("readinessProbe"), json!({"httpGet": {"port": "a--b"}})),
        (at("readinessProbe"), json!({"httpGet": {"port": "more-than-fifteen"}})),
        (at("readinessProbe"), json!({"httpGet": {"port": "http", "scheme": "http"}})),
        (at("readinessProbe"), json!({"httpGet": {"port": "http"}, "tcpSocket": {"port": 80}})),
        (at("readinessProbe"), json!({"tcpSocket": {}})),
        (at("readinessProbe"), json!({"grpc": {"port": 0}})),
        (at("readinessProbe"), json!({"grpc": {"port": 80}, "exec": null})),
        (at("readinessProbe"), json!({"exec": {}})),
        (at("readinessProbe"), json!({"exec": {"command": ["true"]}})),
        (at("startupProbe"), json!({"tcpSocket": {"port": 80}, "successThreshold": 2})),
        (
            "/spec/template/spec/initContainers".to_owned(),
            json!([{"name": "init", "image": "x", "readinessProbe": {"tcpSocket": {"port": 80}}}]),
        ),
        (
            "/spec/template/spec/initContainers".to_owned(),
            json!([{"name": "init", "image": "x", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 80}}}]),
        ),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": "101%"}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": "100%"}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": -1}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": "1"}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": "50 %"}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": "-5%"}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": 0}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": 0, "maxSurge": 0}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxUnavailable": "0%", "maxSurge": 0}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxSurge": "200%"}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxSurge": "1"}))),
        ("/spec/strategy".to_owned(), rolling(json!({"maxSurge": -1}))),
        ("/spec/strategy".to_owned(), json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})),
        ("/spec/template/spec/hostPid".to_owned(), json!(true)),
        ("/spec/template/spec/hostPID".to_owned(), json!(true)),
    ];
    let amounts = [
        "1e400",
        "1e-400",
        "1e4294967296",
        "1e99999999999999999999",
        "0.0000000001",
        "-1",
        "-0",
        ".",
        "",
        "m",
        "1 Gi",
        " 1Gi",
        "1gi",
        "0x1",
        "1_000",
        "99999999999999999999Ei",
        "1e18",
        "9223372036854775808",
    ];
    let both = |text: &str| json!({"limits": {"memory": text}, "requests": {"memory": text}});
    let pod_level = |value: Value| ("/spec/template/spec/resources".to_owned(), value);
    let more = [
        pod_level(json!({"limits": {"memory": "1Mi"}})),
        pod_level(json!({"limits": {"memory": "1Mi"}, "requests": {"memory": "2Mi"}})),
        pod_level(json!({"requests": {"memory": "1Mi"}})),
        pod_level(json!({"limits": {"memory": "64Gi", "cpu": "64"}})),
        pod_level(json!({"limits": {"memory": "64Gb"}})),
        pod_level(json!({"limits": {"example.com/gpu": "1"}})),
        (
            at("resources"),
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1001m", "memory": "1Gi"}}),
        ),
        (at("resources"), json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "1025Mi"}})),
        (at("resources"), json!({"limits": {"gpu": "1"}})),
        (at("resources"), json!({"limits": {"nvidia.com/gpu": "1.5"}})),
        (at("resources"), json!({"requests": {"nvidia.com/gpu": "1"}})),
        (at("resources"), json!({"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "1"}})),
        (at("resources"), json!({"limits": {"memory": 1073741824_u64, "cpu": 1.5}})),
        (at("resources"), json!({"limits": {"memory": true}})),
    ];
    let rows = rows.into_iter().chain(amounts.map(|text| (at("resources"), both(text)))).chain(more);
    let mut differences = Vec::new();
    for (path, value) in rows {
        let object = with(good("churn"), &path, value.clone())?.to_string();
        let asked = admin.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &object)?;
        let run = check(&admin, &["-", "-n", "strict", "-o", "json"], &object)?;
        let findings = run.json()?["objects"][0]["findings"].clone();
        // Where the policy `resources` has the same rule, it tells.
        let knows =
            |it: &Value| it["policy"] == "kubernetes" || it["code"] == "above-limit" || it["code"] == "gpu-differs";
        let refused = findings.as_array().into_iter().flatten().any(|it| knows(it) && it["level"] == "deny");
        differences.extend((refused == asked.ok()).then(|| format!("{path} = {value}: {asked}\n{findings:#}")));
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

fn rolling(update: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": update})
}

fn why_it_cannot() -> Result<()> {
    let (plane, ana) = (plane()?, plane()?.user("ana"));
    let rows = [
        (&ana, &["--cluster"][..], "no right to list namespaces: User \"ana\" lacks it; one namespace can be judged"),
        (&ana, &["--cluster", "-n", "surefoot-system"], "surefoot keeps its hands off namespace surefoot-system"),
        (&ana, &["--cluster", "-n", "default"], "no right to list deployments in namespace default"),
        (plane.admin(), &["--cluster", "-n", "nowhere"], "namespace nowhere does not exist"),
        (plane.admin(), &["--cluster", "--context", "nowhere"], "has no context `nowhere`"),
        (plane.admin(), &["--context", "nowhere", "-"], "only asked with --cluster"),
        (plane.admin(), &["-A"], "--cluster"),
    ];
    for (user, arguments, words) in rows {
        let run = check(user, arguments, "")?;
        ensure!(run.code == Some(2) && run.stderr.contains(words), "{arguments:?}: {:?}\n{}", run.code, run.stderr);
        ensure!(run.stdout.is_empty(), "{arguments:?}: {}", run.stdout);
    }
    Ok(())
}
