//! The webhook's certificate and the hooks that trust it, kept by controllers on a real control plane; that reviews pass
//! while it is rotated is shown where the webhook runs in the cluster (`install.rs`).

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use surefoot::certificates::{self, Stored};

use crate::{stage::Stage, support::Look, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("certificates::made_once_by_two_controllers_and_repaired", made_and_repaired),
        trial("certificates::rotated_at_two_thirds_with_the_one_before_still_trusted", rotated),
        trial("certificates::hooks_go_with_the_namespace", gone_with_the_namespace),
        trial("certificates::of_somebody_else_are_left_alone", left_alone),
    ]
}

const SECRET: &str = "surefoot-webhook-tls";
const API: &str = "/apis/admissionregistration.k8s.io/v1";
const KINDS: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

/// Webhook configurations of a stage, named after it; one hook of each calls the stage's Service, and one somebody else's.
pub(crate) struct Hooks {
    name: String,
    own: String,
}

impl Hooks {
    /// Makes them, and lets the controllers of the stage look after them and their certificate.
    pub(crate) fn made(stage: &Stage, lifetime: &str) -> Result<Self> {
        stage.with_arguments(&["--certificate", SECRET, "--certificate-lifetime", lifetime]);
        Self::without_certificate(stage)
    }

    fn without_certificate(stage: &Stage) -> Result<Self> {
        let hooks = Self { name: stage.name.clone(), own: stage.own() };
        stage.with_arguments(&["--hooks", &hooks.name]);
        for kind in KINDS {
            let hook = |name: &str, namespace: &str| {
                json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
                    "clientConfig": {"service": {"namespace": namespace, "name": "surefoot-webhook"}}, "rules": []})
            };
            let object = json!({"metadata": {"name": hooks.name},
                "webhooks": [hook("other.example.com", "other"), hook("mine.example.com", &hooks.own)]});
            post(stage, &format!("{API}/{kind}"), &object)?;
        }
        // What the real role allows for the name `surefoot`.
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let rule = json!({"apiGroups": ["admissionregistration.k8s.io"], "resources": KINDS,
            "resourceNames": [hooks.name], "verbs": ["get", "list", "watch", "patch"]});
        post(stage, &format!("{rbac}/clusterroles"), &json!({"metadata": {"name": hooks.name}, "rules": [rule]}))?;
        let binding = json!({"metadata": {"name": hooks.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": hooks.name},
            "subjects": [{"kind": "ServiceAccount", "name": "surefoot-controller", "namespace": "surefoot-system"}]});
        post(stage, &format!("{rbac}/clusterrolebindings"), &binding)?;
        Ok(hooks)
    }

    fn path(&self, kind: &str) -> String {
        format!("{API}/{kind}/{}", self.name)
    }

    fn secret_path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{SECRET}", self.own)
    }

    /// The Secret's files, decoded; empty where there are none.
    fn secret(&self, stage: &Stage) -> Result<[Vec<u8>; 3]> {
        let secret = stage.plane().get(&self.secret_path())?.unwrap_or_default();
        let file = |name: &str| BASE64_STANDARD.decode(secret["data"][name].as_str().unwrap_or_default());
        Ok([file("ca.crt")?, file("tls.crt")?, file("tls.key")?])
    }

    /// What our hook of each kind trusts; somebody else's has to be as it was.
    fn trusted(&self, stage: &Stage) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for kind in KINDS {
            let object = stage.plane().get(&self.path(kind))?.context("no hooks")?;
            ensure!(object["webhooks"][0]["clientConfig"]["caBundle"].is_null(), "{object}");
            all.push(
                BASE64_STANDARD
                    .decode(object["webhooks"][1]["clientConfig"]["caBundle"].as_str().unwrap_or_default())?,
            );
        }
        Ok(all)
    }

    /// Waits until the hooks trust the certificate in the Secret; gives that.
    pub(crate) fn trusting(&self, stage: &Stage) -> Result<Vec<u8>> {
        let name = format!("surefoot-webhook.{}.svc", self.own);
        stage.until("hooks that trust the Secret's certificate", || {
            let [ca, cert, key] = self.secret(stage)?;
            let trusted = self.trusted(stage)?;
            let due = certificates::due(Stored { ca: &ca, cert: &cert, key: &key }, &name, Timestamp::now());
            Ok(match due {
                Ok(_) if trusted.iter().all(|bundle| *bundle == ca) => Look::Done(cert),
                due => Look::Not(format!("{due:?}, {} CAs", trusted.iter().filter(|bundle| **bundle == ca).count())),
            })
        })
    }
}

fn post(stage: &Stage, path: &str, object: &Value) -> Result<()> {
    let answer = stage.plane().post(path, &object.to_string())?;
    ensure!(answer.status == 201, "{path}: {} {}", answer.status, answer.body);
    Ok(())
}

fn made_and_repaired() -> Result<()> {
    let stage = Stage::new("certificates-made")?;
    let hooks = Hooks::made(&stage, "8760h")?;
    stage.start()?;
    stage.start()?;
    let first = hooks.trusting(&stage)?;
    let said = stage.logs();
    ensure!(said.matches("a new certificate for the webhook").count() == 1, "{said}");

    // As `kubectl replace` with the manifests does.
    for kind in KINDS {
        let wipe = json!([{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]);
        let begun = Instant::now();
        stage.plane().admin().run(&["patch", kind, &hooks.name, "--type=json", "-p", &wipe.to_string()])?.success()?;
        ensure!(hooks.trusting(&stage)? == first, "another certificate was made");
        println!("caBundle repaired within {:.2} s, kubectl's own time included", begun.elapsed().as_secs_f32());
    }

    // Half a pair, a pair of two halves, rubbish, nothing: each is made anew, and the hooks follow.
    let mut before = first;
    let other = certificates::Issued::new(&["x".to_owned()], Timestamp::now(), "2100-01-01T00:00:00Z".parse()?)?;
    for (file, text) in
        [("tls.key", ""), ("tls.key", other.key.as_str()), ("tls.crt", "rubbish"), ("ca.crt", &other.ca)]
    {
        stage.plane().patch(&hooks.secret_path(), &json!({"data": {file: BASE64_STANDARD.encode(text)}}))?;
        stage.until("another certificate", || {
            let [_, cert, _] = hooks.secret(&stage)?;
            Ok(if cert == before || cert == b"rubbish" { Look::Not(file.to_owned()) } else { Look::Done(()) })
        })?;
        before = hooks.trusting(&stage)?;
    }
    let deleted = stage.plane().delete(&hooks.secret_path())?;
    ensure!(deleted.status == 200, "{}", deleted.body);
    ensure!(hooks.trusting(&stage)? != before, "the deleted one is back");
    stage.stop()
}

fn rotated() -> Result<()> {
    let stage = Stage::new("certificates-rotated")?;
    let hooks = Hooks::made(&stage, "12s")?;
    stage.start()?;
    let mut before = hooks.trusting(&stage)?;
    let name = format!("surefoot-webhook.{}.svc", stage.own());
    for _ in 0..3 {
        // Whatever a webhook shows that has the pair of a moment ago is trusted, at every look.
        let [_, old, key] = hooks.secret(&stage)?;
        before = stage.until("the next certificate", || {
            let trusted = hooks.trusted(&stage)?;
            for ca in &trusted {
                certificates::due(Stored { ca, cert: &old, key: &key }, &name, Timestamp::now())
                    .map_err(|wrong| anyhow::anyhow!("the hooks do not trust it while it is replaced: {wrong}"))?;
            }
            let [_, cert, _] = hooks.secret(&stage)?;
            Ok(if cert == before { Look::Not("the same".to_owned()) } else { Look::Done(cert) })
        })?;
        ensure!(hooks.trusting(&stage)? == before, "another one already");
    }
    let [ca, ..] = hooks.secret(&stage)?;
    // Those that have ended are not trusted for ever.
    let many = String::from_utf8(ca)?.matches("BEGIN CERTIFICATE").count();
    ensure!((2..=3).contains(&many), "{many} CAs are trusted");
    stage.stop()
}

fn gone_with_the_namespace() -> Result<()> {
    let stage = Stage::new("certificates-gone")?;
    let hooks = Hooks::made(&stage, "8760h")?;
    // As an installation before this one left them, which the garbage collector is about to remove.
    stage.start()?;
    hooks.trusting(&stage)?;
    let own = stage.plane().get(&format!("/api/v1/namespaces/{}", stage.own()))?.context("no namespace")?;
    for kind in KINDS {
        let object = stage.plane().get(&hooks.path(kind))?.context("no hooks")?;
        let owners = &object["metadata"]["ownerReferences"];
        ensure!(owners.as_array().is_some_and(|all| all.len() == 1), "{owners}");
        ensure!(owners[0]["uid"] == own["metadata"]["uid"] && owners[0]["kind"] == "Namespace", "{owners}");
    }
    stage.plane().delete(&format!("/api/v1/namespaces/{}", stage.own()))?;
    stage.until("the hooks to be gone", || {
        let left: Vec<_> =
            KINDS.iter().filter(|kind| !matches!(stage.plane().get(&hooks.path(kind)), Ok(None))).collect();
        Ok(if left.is_empty() { Look::Done(()) } else { Look::Not(format!("{left:?}")) })
    })
}

/// As with cert-manager: the Secret and what the hooks trust are its matter, that they go with the Namespace is ours.
fn left_alone() -> Result<()> {
    let stage = Stage::new("certificates-alone")?;
    let hooks = Hooks::without_certificate(&stage)?;
    stage.start()?;
    stage.until("owners", || {
        let owned = KINDS.iter().map(|kind| stage.plane().get(&hooks.path(kind))).collect::<Result<Vec<_>>>()?;
        let owned = owned.iter().flatten().filter(|object| object["metadata"]["ownerReferences"].is_array()).count();
        Ok(if owned == KINDS.len() { Look::Done(()) } else { Look::Not(format!("{owned}")) })
    })?;
    ensure!(hooks.trusted(&stage)?.iter().all(Vec::is_empty), "a CA from nowhere");
    ensure!(stage.plane().get(&hooks.secret_path())?.is_none(), "a Secret from nowhere");
    stage.stop()
}
