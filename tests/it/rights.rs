//! Who may do what: the identities that the manifests make, and people beside them, by `kubectl auth can-i` and by trying. What of a
//! Deployment the controller may change is in `hooks.rs`.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    models::{create, good},
    overrides, shared,
    support::{Answer, Kubectl},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rights::each_identity_can_what_it_needs_and_no_more", what_each_can),
        trial("rights::a_stolen_token_is_refused_elsewhere", stolen),
        trial("rights::tenants_reach_nothing_of_surefoots", tenants),
    ]
}

const OWN: &str = "surefoot-system";
const EVERYWHERE: &str = "-A";

/// What kubectl would otherwise take for the name of an object.
const SUBRESOURCES: [&str; 6] = ["status", "scale", "exec", "eviction", "log", "token"];

/// `kubectl auth can-i`: verb, resource with its name or subresource, namespace.
fn can(user: &Kubectl, (verb, resource, namespace): (&str, &str, &str)) -> Result<bool> {
    let part = resource.split_once('/').filter(|(_, part)| SUBRESOURCES.contains(part));
    let (resource, part) = part.map_or((resource, ""), |(resource, part)| (resource, part));
    let part = format!("--subresource={part}");
    let place = if namespace == EVERYWHERE { vec![EVERYWHERE] } else { vec!["-n", namespace] };
    let asked = user.run(&[&["auth", "can-i", verb, resource, &part], &place[..]].concat())?;
    match asked.stdout.trim() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => anyhow::bail!("{asked}"),
    }
}

fn holds(who: &str, user: &Kubectl, yes: &[(&str, &str, &str)], no: &[(&str, &str, &str)]) -> Result<()> {
    for (rights, wanted) in [(yes, true), (no, false)] {
        for right in rights {
            let (verb, resource, namespace) = right;
            ensure!(can(user, *right)? == wanted, "{who}: {verb} {resource} {namespace} should be {wanted}");
        }
    }
    Ok(())
}

fn what_each_can() -> Result<()> {
    let plane = shared::plane()?;
    let (webhook, controller) = {
        let surefoot = shared::surefoot()?;
        (Kubectl::new(surefoot.webhook_account()), Kubectl::new(surefoot.controller_account()))
    };
    let hooks = "validatingwebhookconfigurations";
    holds(
        "webhook",
        &webhook,
        &[("list", "namespaces", EVERYWHERE), ("watch", "deployments", EVERYWHERE), ("get", "configmaps", OWN)],
        &[
            ("patch", "deployments", EVERYWHERE),
            ("create", "deployments", EVERYWHERE),
            ("list", "pods", EVERYWHERE),
            ("list", "secrets", EVERYWHERE),
            ("get", "secrets", OWN),
            ("get", "secrets/surefoot-webhook-tls", OWN),
            ("list", "configmaps", "default"),
            ("create", "configmaps", OWN),
            ("patch", "configmaps", OWN),
            ("update", "leases", OWN),
            ("create", "events.events.k8s.io", EVERYWHERE),
            ("patch", "validatingwebhookconfigurations/surefoot", EVERYWHERE),
            ("impersonate", "users", EVERYWHERE),
        ],
    )?;
    holds(
        "controller",
        &controller,
        &[
            ("patch", "deployments", EVERYWHERE),
            ("list", "pods", EVERYWHERE),
            ("list", "nodes", EVERYWHERE),
            ("list", "replicasets", EVERYWHERE),
            ("create", "events.events.k8s.io", EVERYWHERE),
            ("create", "configmaps", OWN),
            ("update", "leases", OWN),
            ("update", "secrets/surefoot-webhook-tls", OWN),
            ("patch", "validatingwebhookconfigurations/surefoot", EVERYWHERE),
        ],
        &[
            ("create", "deployments", EVERYWHERE),
            ("update", "deployments", EVERYWHERE),
            ("delete", "deployments", EVERYWHERE),
            ("patch", "deployments/status", EVERYWHERE),
            ("patch", "deployments/scale", EVERYWHERE),
            ("patch", "replicasets", EVERYWHERE),
            ("create", "pods", EVERYWHERE),
            ("delete", "pods", EVERYWHERE),
            ("create", "pods/exec", EVERYWHERE),
            ("create", "pods/eviction", EVERYWHERE),
            ("get", "pods/log", EVERYWHERE),
            ("patch", "nodes", EVERYWHERE),
            ("patch", "namespaces", EVERYWHERE),
            ("delete", "namespaces", EVERYWHERE),
            ("list", "secrets", EVERYWHERE),
            ("list", "secrets", OWN),
            ("get", "secrets/another", OWN),
            ("delete", "secrets/surefoot-webhook-tls", OWN),
            ("get", "configmaps", "default"),
            ("delete", "configmaps", OWN),
            ("delete", "leases", OWN),
            ("update", "leases", "kube-system"),
            ("create", hooks, EVERYWHERE),
            ("delete", "validatingwebhookconfigurations/surefoot", EVERYWHERE),
            ("patch", "validatingwebhookconfigurations/another", EVERYWHERE),
            ("patch", "validatingadmissionpolicies", EVERYWHERE),
            ("delete", "validatingadmissionpolicybindings", EVERYWHERE),
            ("create", "serviceaccounts/token", EVERYWHERE),
            ("bind", "clusterroles", EVERYWHERE),
            ("escalate", "clusterroles", EVERYWHERE),
            ("create", "rolebindings", EVERYWHERE),
            ("impersonate", "users", EVERYWHERE),
            ("impersonate", "groups", EVERYWHERE),
        ],
    )?;
    // Not olga: other tests let her do more.
    let here = "rights-people";
    let (_, ana, rita) = overrides::namespace_of(plane, here, "rita")?;
    let (ana, rita) = (Kubectl::new(ana.kubeconfig()), Kubectl::new(rita.kubeconfig()));
    let nobodys = [
        ("get", "configmaps", OWN),
        ("create", "configmaps", OWN),
        ("get", "secrets", OWN),
        ("update", "leases", OWN),
        ("create", "serviceaccounts/token", OWN),
        ("patch", "validatingwebhookconfigurations/surefoot", EVERYWHERE),
        ("patch", "namespaces", here),
    ];
    holds("ana", &ana, &[("patch", "deployments", here)], &nobodys)?;
    holds("rita", &rita, &[("get", "deployments", here)], &nobodys)?;
    for (user, namespace, wanted) in [
        ("rita", here, true),
        ("rita", "default", false),
        ("ana", here, false),
        ("system:serviceaccount:surefoot-system:surefoot-webhook", here, false),
        ("system:serviceaccount:surefoot-system:surefoot-controller", here, false),
    ] {
        ensure!(overrides_allowed(user, namespace)? == wanted, "{user} in {namespace}: should be {wanted}");
    }
    Ok(())
}

/// kubectl cannot ask about a resource that does not exist.
fn overrides_allowed(user: &str, namespace: &str) -> Result<bool> {
    let review = json!({"spec": {"user": user, "resourceAttributes":
        {"verb": "override", "group": "surefoot.dev", "resource": "guards", "namespace": namespace}}});
    let answer = shared::plane()?.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review.to_string())?;
    Ok(serde_json::from_str::<Value>(&answer.body)?["status"]["allowed"] == true)
}

fn forbidden(answer: Answer) -> Result<()> {
    let answer = answer.failure()?;
    ensure!(answer.stderr.contains("orbidden"), "refused for another reason: {answer}");
    Ok(())
}

/// What somebody would try who has the token of a service account of ours.
fn stolen() -> Result<()> {
    let plane = shared::plane()?;
    let accounts = {
        let surefoot = shared::surefoot()?;
        [surefoot.webhook_account().to_owned(), surefoot.controller_account().to_owned()]
    };
    let (admin, _) = shared::namespace(plane, "rights-stolen", "enforce")?;
    admin.run(&["create", "secret", "generic", "password", "--from-literal=a=b"])?.success()?;
    create(&admin, &good("m"))?.success()?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let hook = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]).to_string();
    for account in accounts {
        let thief = Kubectl::new(account).in_namespace("rights-stolen");
        for command in [
            &["get", "secret", "password"][..],
            &["get", "secrets"],
            &["delete", "deploy", "m"],
            &["scale", "deploy", "m", "--replicas=9"],
            &["label", "namespace", "rights-stolen", "--overwrite", "surefoot.dev/guard=audit"],
            &["create", "configmap", "here", "--from-literal=a=b"],
            &["create", "token", "default"],
            &["create", "rolebinding", "mine", "--clusterrole=admin", "--user=mallory"],
            &["create", "deployment", "n", "--image=registry.local/n:1"],
            &["get", "deploy", "m", "--as=admin", "--as-group=system:masters"],
            &["patch", "validatingwebhookconfiguration", "another", "--type=json", "-p", &hook],
            &["delete", "validatingwebhookconfiguration", "surefoot"],
            &["delete", "validatingadmissionpolicybinding", "bounds.surefoot.dev"],
        ] {
            forbidden(thief.run(command)?)?;
        }
        forbidden(thief.run_with_input(&["create", "-f", "-"], &pod.to_string())?)?;
    }
    // What the webhook reads it may not write.
    let webhook = Kubectl::new(shared::surefoot()?.webhook_account()).in_namespace("rights-stolen");
    for command in [
        &["annotate", "deploy", "m", "a=b"][..],
        &["set", "image", "deploy/m", "*=registry.local/evil:1"],
        &["patch", "validatingwebhookconfiguration", "surefoot", "--type=json", "-p", &hook],
    ] {
        forbidden(webhook.run(command)?)?;
    }
    Ok(())
}

/// Somebody who may edit a guarded namespace: neither reads nor forges what surefoot goes by.
fn tenants() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana) = shared::namespace(plane, "rights-tenant", "enforce")?;
    create(&ana, &good("m"))?.success()?;
    let own = ana.in_namespace(OWN);
    for command in [
        &["get", "configmaps", "-l", "surefoot.dev/record=true"][..],
        &["create", "configmap", "record", "--from-literal=record.json={}"],
        &["delete", "configmaps", "--all"],
        &["get", "secret", "surefoot-webhook-tls"],
        &["create", "token", "surefoot-controller"],
        &["delete", "lease", "surefoot-controller"],
    ] {
        forbidden(own.run(command)?)?;
    }
    for command in [
        &["annotate", "deploy", "m", "surefoot.dev/override=2099-01-01T00:00:00Z why"][..],
        &["label", "namespace", "rights-tenant", "surefoot.dev/guard-"],
        &["get", "deploy", "m", "--as=system:serviceaccount:surefoot-system:surefoot-controller"],
        &["patch", "deploy", "m", "--subresource=status", "--type=merge", "-p", r#"{"status":{"readyReplicas":1}}"#],
    ] {
        forbidden(ana.run(command)?)?;
    }
    // A ConfigMap of their own that looks like a record is none.
    let forged = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "record",
        "labels": {"surefoot.dev/record": "true", "surefoot.dev/record-namespace": "rights-tenant"},
        "annotations": {"surefoot.dev/record-of": "rights-tenant/m"}}, "data": {"record.json": "{"}});
    ana.apply(&forged.to_string())?;
    ana.run(&["set", "env", "deploy/m", "A=b"])?.success()?;
    Ok(())
}
