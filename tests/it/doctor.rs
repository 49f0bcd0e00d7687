//! `surefoot doctor`: each of its findings is provoked, found, and gone once it is mended. With webhook and controller in the
//! cluster it is asked in `install.rs`, too.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use regex::Regex;
use serde_json::{Value, json};
use surefoot::certificates::{self, Issued};

use crate::{
    docs::{blocks, run_block},
    schema::top,
    shared::{self, CONFIG},
    support::{Answer, ControlPlane, Look, Surefoot, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("doctor::beside_the_cluster", beside),
        trial("doctor::inside_the_cluster", inside),
        trial("doctor::before_and_after", before_and_after),
    ]
}

const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const OWN: &str = "/api/v1/namespaces/surefoot-system";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/surefoot-system/endpointslices";
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

fn doctor(plane: &ControlPlane, user: &str, args: &[&str]) -> Result<Answer> {
    Surefoot::run_program(shared::program(), plane.user(user).kubeconfig(), &[&["doctor"], args].concat())
}

/// The checks of `doctor -o json`, which has to end with the exit code that belongs to them.
pub(crate) fn checks(plane: &ControlPlane) -> Result<Vec<Value>> {
    let answer = doctor(plane, "admin", &["-o", "json"])?;
    let found = answer.json()?;
    let checks = found["checks"].as_array().context("no checks")?.clone();
    let any = |levels: &[&str]| checks.iter().any(|check| levels.iter().any(|level| check["level"] == *level));
    let code = if any(&["warn", "fail"]) { 1 } else { 2 * i32::from(any(&["skip"])) };
    ensure!(answer.code == code, "exit code {code} was expected: {answer}");
    Ok(checks)
}

/// Those that are not `ok`, a line each.
pub(crate) fn wrong(checks: &[Value]) -> Vec<String> {
    let line = |check: &Value| format!("{} {}: {}", check["level"], check["area"], check["message"]).replace('"', "");
    checks.iter().filter(|check| check["level"] != "ok").map(line).collect()
}

/// Waits until what is wrong is exactly this: the beginnings of the lines, in their order.
fn finds(plane: &ControlPlane, wanted: &[&str]) -> Result<()> {
    until(&format!("{wanted:?}"), LIMIT, || {
        let found = wrong(&checks(plane)?);
        let same =
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| found.contains(wanted));
        Ok(if same { Look::Done(()) } else { Look::Not(format!("{found:#?}")) })
    })
}

/// Changes something, looks for what is wrong then, and changes it back.
fn provoked(plane: &ControlPlane, path: &str, change: &Value, back: &Value, wanted: &[&str]) -> Result<()> {
    plane.patch(path, change)?;
    finds(plane, wanted)?;
    plane.patch(path, back)?;
    Ok(())
}

fn label(value: Option<&str>) -> Value {
    json!({"metadata": {"labels": {"surefoot.dev/guard": value}}})
}

fn beside() -> Result<()> {
    let plane = ControlPlane::start()?;
    let mut surefoot = Surefoot::install(&plane, shared::program(), CONFIG)?;
    surefoot.start_webhook()?;
    surefoot.start_controller()?;
    let fine = |what: &str| finds(&plane, &[]).with_context(|| what.to_owned());
    let unguarded = ["warn guard: no namespace is guarded", "note end to end: not tried"];
    finds(&plane, &unguarded)?;
    let (shop, kube_system) = ("/api/v1/namespaces/shop", "/api/v1/namespaces/kube-system");
    shared::namespace(&plane, "shop", "enforce")?;
    fine("at first")?;
    let text = doctor(&plane, "admin", &[])?;
    ensure!(
        text.code == 0 && text.stdout.contains("a bad Deployment sent as dry run to shop was refused in"),
        "{text}"
    );

    documented(&plane)?;

    provoked(&plane, shop, &label(Some("audit")), &label(Some("enforce")), &["note end to end: not tried"])?;
    provoked(&plane, shop, &label(Some("warn")), &label(Some("enforce")), &[])?;
    let unknown = ["warn guard: shop has the unknown guard \\enforced\\, which counts as warn", "note end to end"];
    provoked(&plane, shop, &label(Some("enforced")), &label(Some("enforce")), &unknown)?;
    provoked(&plane, kube_system, &label(Some("audit")), &label(None), &["warn guard: kube-system has the label"])?;
    fine("after guards")?;

    edited(&plane)?;
    fine("after edits")?;
    rights(&plane)?;
    fine("after rights")?;

    // A hook that nobody answers, then a certificate of somebody else.
    surefoot.stop_webhook()?;
    finds(&plane, &["fail end to end: a bad Deployment sent as dry run to shop: "])?;
    surefoot.start_webhook()?;
    let other = Issued::new(&["x".to_owned()], Timestamp::now(), "2100-01-01T00:00:00Z".parse()?)?;
    trusting(&plane, &other.ca)?;
    finds(&plane, &["fail end to end"])?;
    surefoot.stop_controller()?;
    finds(&plane, &["fail controller: nobody leads, so nothing is reverted", "fail end to end"])?;

    // Who may look at nothing is told so.
    let ana = doctor(&plane, "ana", &[])?;
    ensure!(ana.code == 2 && ana.stderr.contains("no right to list namespaces: User \"ana\" lacks it"), "{ana}");
    Ok(())
}

/// What `docs/operating.md` shows is what is printed, but for numbers and the leader's name.
fn documented(plane: &ControlPlane) -> Result<()> {
    let document = std::fs::read_to_string(top("docs/operating.md"))?;
    let number = Regex::new(r"leader \S+|\d+")?;
    let environment = [("KUBECONFIG", plane.admin().kubeconfig().into())];
    let mut commands = 0;
    for (_, block) in blocks(&document).into_iter().filter(|(language, _)| *language == "console doctor") {
        commands += run_block(block, Path::new("."), &environment, |text| number.replace_all(text, "N").into_owned())?;
    }
    ensure!(commands == 1, "{commands} commands");
    Ok(())
}

/// Makes every hook trust this CA.
fn trusting(plane: &ControlPlane, ca: &str) -> Result<()> {
    for (kind, count) in [("mutatingwebhookconfigurations", 1), ("validatingwebhookconfigurations", 2)] {
        let bundle = BASE64_STANDARD.encode(ca);
        let operation =
            |index| json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle});
        let patch: Vec<_> = (0..count).map(operation).collect();
        json_patch(plane, kind, &json!(patch))?;
    }
    Ok(())
}

fn json_patch(plane: &ControlPlane, kind: &str, patch: &Value) -> Result<()> {
    plane.admin().run(&["patch", kind, "surefoot", "--type=json", "-p", &patch.to_string()])?.success().map(drop)
}

/// The hooks, what stands beside them, and those of others.
fn edited(plane: &ControlPlane) -> Result<()> {
    let before = plane.get(&format!("{VALIDATING}/surefoot"))?.context("no hooks")?;
    let back = json!([{"op": "replace", "path": "/webhooks", "value": before["webhooks"]}]);
    let replaced = |path: &str, value: Value| json!([{"op": "replace", "path": path, "value": value}]);
    let lost = "fail end to end: a bad Deployment sent as dry run to shop was admitted without a word";
    for (patch, wanted) in [
        (
            replaced("/webhooks/0/failurePolicy", json!("Ignore")),
            vec!["fail hooks: validate.surefoot.dev has failurePolicy Ignore, not Fail"],
        ),
        (
            replaced("/webhooks/1/failurePolicy", json!("Fail")),
            vec!["fail hooks: scale.surefoot.dev has failurePolicy Fail, not Ignore"],
        ),
        (
            replaced("/webhooks/0/namespaceSelector", json!({})),
            vec!["fail hooks: validate.surefoot.dev has namespaceSelector unlike"],
        ),
        (
            replaced("/webhooks/0/matchConditions", json!([])),
            vec!["fail hooks: validate.surefoot.dev has matchConditions unlike"],
        ),
        (
            replaced("/webhooks/0/timeoutSeconds", json!(10)),
            vec!["warn hooks: validate.surefoot.dev has timeoutSeconds 10, not 3"],
        ),
        (json!([{"op": "remove", "path": "/webhooks/0"}]), vec!["fail hooks: validate.surefoot.dev is missing", lost]),
        (
            replaced("/webhooks/1/name", json!("old.surefoot.dev")),
            vec!["fail hooks: scale.surefoot.dev is missing", "old.surefoot.dev\\ is none of this version's"],
        ),
    ] {
        json_patch(plane, "validatingwebhookconfigurations", &patch)?;
        finds(plane, &wanted)?;
        json_patch(plane, "validatingwebhookconfigurations", &back)?;
    }
    let hook = |name: &str| {
        json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 1,
            "clientConfig": {"service": {"namespace": "none", "name": "none"}},
            "namespaceSelector": {"matchLabels": {"nobody": "has"}},
            "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}]})
    };
    for (name, wanted) in [
        ("policy.example.com", "note others: asked about Deployments, too: validatingwebhookconfigurations/another"),
        ("validate.surefoot.dev", "fail others: validatingwebhookconfigurations/another is a second surefoot"),
    ] {
        let object = json!({"metadata": {"name": "another"}, "webhooks": [hook(name)]});
        ensure!(plane.post(VALIDATING, &object.to_string())?.status == 201, "no other webhook");
        finds(plane, &[wanted])?;
        plane.delete(&format!("{VALIDATING}/another"))?;
    }
    let binding = format!("{HOOKS}/validatingadmissionpolicybindings/bounds.surefoot.dev");
    let audit = json!({"spec": {"validationActions": ["Audit"]}});
    let wanted = ["fail hooks: ValidatingAdmissionPolicyBinding bounds.surefoot.dev is not as in the manifests"];
    provoked(plane, &binding, &audit, &json!({"spec": {"validationActions": ["Deny"]}}), &wanted)
}

/// A binding that is gone, and a record that nobody can read.
fn rights(plane: &ControlPlane) -> Result<()> {
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let before = plane.get(&format!("{path}/surefoot-controller"))?.context("no binding")?;
    plane.delete(&format!("{path}/surefoot-controller"))?;
    finds(plane, &["fail rights: surefoot-controller may not get namespaces, and "])?;
    let mut again = before;
    if let Some(metadata) = again["metadata"].as_object_mut() {
        metadata.retain(|key, _| ["name", "labels"].contains(&key.as_str()));
    }
    ensure!(plane.post(path, &again.to_string())?.status == 201, "the binding is not back");

    let record = json!({"metadata": {"name": "broken", "labels": {"surefoot.dev/record": "true"},
        "annotations": {"surefoot.dev/record-of": "shop/m"}}, "data": {"record.json": "{"}});
    ensure!(plane.post(&format!("{OWN}/configmaps"), &record.to_string())?.status == 201, "no record");
    finds(plane, &["fail records: "])?;
    plane.delete(&format!("{OWN}/configmaps/broken"))?;
    Ok(())
}

/// With pods that say they are ready: what they cannot be asked is skipped.
fn inside() -> Result<()> {
    let plane = ControlPlane::start()?;
    plane.admin().run(&["apply", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/manifests")])?.success()?;
    finds(
        &plane,
        &[
            "warn hooks: mutatingwebhookconfigurations/surefoot does not belong to the namespace",
            "warn hooks: validatingwebhookconfigurations/surefoot does not belong",
            "fail certificate: the Secret surefoot-webhook-tls is missing",
            "fail certificate: the caBundle of default.surefoot.dev is empty",
            "fail certificate: the caBundle of validate.surefoot.dev is empty",
            "fail certificate: the caBundle of scale.surefoot.dev is empty",
            "fail webhook: 0 of 3 ready: changes in guarded namespaces are refused",
            "fail controller: 0 of 2 ready",
            "fail controller: nobody leads",
            "warn guard: no namespace is guarded",
            "note end to end",
        ],
    )?;
    shared::namespace(&plane, "shop", "audit")?;
    standing(&plane)?;
    let asked = "skip webhook: surefoot-webhook-";
    let usual = [asked, asked, asked, "note end to end"];
    finds(&plane, &usual)?;
    let with = |first: &[&'static str], last: &[&'static str]| [first, &usual[..3], last, &usual[3..]].concat();
    secrets(&plane, &with)?;
    configurations(&plane, &with)?;

    // The Service leads nowhere; half of an upgrade; a leader that has died.
    let served = |ready: bool| json!({"endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}}]});
    let nowhere = [&["fail webhook: the Service surefoot-webhook leads to no pod"], &usual[..]].concat();
    provoked(&plane, &format!("{SLICES}/by-hand"), &served(false), &served(true), &nowhere)?;
    let pods =
        plane.get(&format!("{OWN}/pods?labelSelector=app.kubernetes.io/component=webhook"))?.context("no pods")?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("no name")?;
    let own = plane.admin().in_namespace("surefoot-system");
    let image = |image: &str| own.run(&["set", "image", &format!("pod/{pod}"), &format!("webhook={image}")])?.success();
    image("localhost/surefoot:0.0.9")?;
    finds(
        &plane,
        &with(&[], &["warn webhook: two versions at once: localhost/surefoot:0.0.9, localhost/surefoot:0.1.0"]),
    )?;
    image("localhost/surefoot:0.1.0")?;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/surefoot-system/leases/surefoot-controller";
    let long_ago = json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
    plane.patch(lease, &long_ago)?;
    finds(&plane, &with(&[], &["fail controller: surefoot-controller-x has not renewed its lease for "]))
}

/// Everything as it is when it runs, but that nobody answers.
fn standing(plane: &ControlPlane) -> Result<()> {
    let status = json!({"status": {"phase": "Running", "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}]}});
    until("five ready pods", LIMIT, || {
        let pods = plane.get(&format!("{OWN}/pods"))?.unwrap_or_default();
        let names: Vec<_> =
            pods["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        for name in &names {
            plane.patch(&format!("{OWN}/pods/{name}/status"), &status)?;
        }
        Ok(if names.len() == 5 { Look::Done(()) } else { Look::Not(format!("{names:?}")) })
    })?;
    let lease = json!({"metadata": {"name": "surefoot-controller"}, "spec": {"holderIdentity": "surefoot-controller-x",
        "leaseDurationSeconds": 3600, "renewTime": format!("{:.6}", Timestamp::now())}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/surefoot-system/leases";
    ensure!(plane.post(leases, &lease.to_string())?.status == 201, "no lease");
    let issued = for_service(SignedDuration::from_hours(24 * 365), Timestamp::now())?;
    let secret =
        json!({"metadata": {"name": "surefoot-webhook-tls"}, "type": "kubernetes.io/tls", "data": files(&issued)});
    let answer = plane.post(&format!("{OWN}/secrets"), &secret.to_string())?;
    ensure!(answer.status == 201, "{}", answer.body);
    trusting(plane, &issued.ca)?;
    // Pods without a node are in no slice that a controller makes.
    let slice = json!({"metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "surefoot-webhook"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": []});
    let answer = plane.post(SLICES, &slice.to_string())?;
    ensure!(answer.status == 201, "{}", answer.body);
    let uid = plane.get(OWN)?.context("no namespace")?["metadata"]["uid"].clone();
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "surefoot-system", "uid": uid}]}});
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        plane.patch(&format!("{HOOKS}/{kind}/surefoot"), &owner)?;
    }
    Ok(())
}

fn for_service(lifetime: SignedDuration, from: Timestamp) -> Result<Issued> {
    Ok(Issued::for_service("surefoot-system", "surefoot-webhook", lifetime, from)?)
}

fn files(issued: &Issued) -> Value {
    let text = |text: &str| BASE64_STANDARD.encode(text);
    json!({"ca.crt": text(&issued.ca), "tls.crt": text(&issued.cert), "tls.key": text(&issued.key)})
}

type With<'a> = &'a dyn Fn(&[&'static str], &[&'static str]) -> Vec<&'static str>;

/// Half a pair, one that is over, one that is due, one that nobody trusts, a wiped bundle.
fn secrets(plane: &ControlPlane, with: With<'_>) -> Result<()> {
    let path = format!("{OWN}/secrets/surefoot-webhook-tls");
    let now = Timestamp::now();
    let good = plane.get(&path)?.context("no Secret")?["data"].clone();
    let useless = "fail certificate: the Secret surefoot-webhook-tls is of no use: ";
    let over = for_service(SignedDuration::from_hours(1), now - SignedDuration::from_hours(3))?;
    let due = for_service(SignedDuration::from_hours(3), now - SignedDuration::from_mins(150))?;
    ensure!(certificates::until(over.cert.as_bytes()).is_some_and(|until| until < now), "it is not over");
    let other = for_service(SignedDuration::from_hours(3), now)?;
    let stale = ["default", "validate", "scale"]
        .map(|hook| format!("fail certificate: the caBundle of {hook}.surefoot.dev is stale").leak() as &'static str);
    let half = json!({"tls.key": ""});
    let mixed = json!({"tls.key": BASE64_STANDARD.encode(&other.key)});
    let rubbish = json!({"tls.crt": BASE64_STANDARD.encode("rubbish")});
    let due_now = [&["warn certificate: two thirds of its life are over"], &stale[..]].concat();
    for (data, wanted) in [
        (half, vec![useless]),
        (mixed, vec!["tls.key is not the key of tls.crt"]),
        (rubbish, vec!["tls.crt holds no certificate"]),
        (files(&over), vec!["is not valid: "]),
        (files(&due), due_now),
        (files(&other), stale.to_vec()),
    ] {
        provoked(plane, &path, &json!({"data": data}), &json!({"data": good}), &with(&wanted, &[]))?;
    }
    let wiped = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    json_patch(plane, "validatingwebhookconfigurations", &wiped)?;
    finds(plane, &with(&["fail certificate: the caBundle of validate.surefoot.dev is empty"], &[]))?;
    let ca = BASE64_STANDARD.decode(good["ca.crt"].as_str().unwrap_or_default())?;
    trusting(plane, &String::from_utf8(ca)?)?;
    finds(plane, &with(&[], &[]))
}

fn configurations(plane: &ControlPlane, with: With<'_>) -> Result<()> {
    let path = format!("{OWN}/configmaps/surefoot-config");
    let config =
        |text: &str| json!({"data": {"config.yaml": format!("apiVersion: surefoot.dev/v1\nkind: Config\n{text}")}});
    let past = "exemptions:\n  - {policies: [probes], namespace: shop, name: old, reason: 'TCP', until: 2024-08-31}\n";
    for (text, wanted) in [
        ("rolouts: {}\n", "fail configuration: ConfigMap surefoot-config, config.yaml:3:1: "),
        (
            "policies: {resources: {parameters: {request: {}}}}\n",
            "fail configuration: ConfigMap surefoot-config, config.yaml:3:",
        ),
        ("a: [\n", "fail configuration: ConfigMap surefoot-config, config.yaml:"),
        (past, "warn configuration: "),
    ] {
        provoked(plane, &path, &config(text), &config(""), &with(&[], &[wanted]))?;
    }
    plane.patch(&path, &json!({"data": {"config.yaml": null}}))?;
    finds(plane, &with(&[], &["fail configuration: ConfigMap surefoot-config, it has no key config.yaml"]))?;
    plane.delete(&path)?;
    finds(plane, &with(&[], &["fail configuration: ConfigMap surefoot-config is missing"]))?;
    let again = json!({"metadata": {"name": "surefoot-config"}, "data": config("")["data"]});
    ensure!(plane.post(&format!("{OWN}/configmaps"), &again.to_string())?.status == 201, "no ConfigMap");
    finds(plane, &with(&[], &[]))
}

fn before_and_after() -> Result<()> {
    let plane = ControlPlane::start()?;
    let none = "fail install: not installed: there is no namespace surefoot-system";
    finds(&plane, &[none])?;
    let text = doctor(&plane, "admin", &[])?;
    ensure!(text.stdout.ends_with(": surefoot manifests | kubectl apply -f -\n") && text.code == 1, "{text}");

    plane.admin().run(&["apply", "-k", concat!(env!("CARGO_MANIFEST_DIR"), "/manifests")])?.success()?;
    plane.admin().run(&["delete", "namespace", "surefoot-system"])?.success()?;
    finds(&plane, &["fail install: hooks without the namespace surefoot-system", "warn install: "])?;
    // What it says to do is all there is to do.
    for _ in 0..2 {
        for check in checks(&plane)?
            .iter()
            .filter_map(|check| check["fix"].as_str())
            .filter_map(|fix| fix.strip_prefix("kubectl "))
        {
            plane.admin().run(&check.split(' ').collect::<Vec<_>>())?;
        }
    }
    finds(&plane, &[none])
}
