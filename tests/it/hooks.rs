//! What Kubernetes decides about the manifests: the hooks' conditions, the bounds, and what people see in kubectl.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use crate::{
    models::{apply, bad, create, good, patch, refused, with},
    shared::{self, CONFIG, program},
    support::{ControlPlane, Kubectl, Surefoot},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("hooks::an_unsafe_deployment_is_refused", an_unsafe_deployment_is_refused),
        trial("hooks::defaults_are_added_once", defaults_are_added_once),
        trial("hooks::a_copied_version_follows_the_file", a_copied_version_follows_the_file),
        trial("hooks::below_enforce_nothing_is_refused", below_enforce_nothing_is_refused),
        trial("hooks::a_canary_stays_small", a_canary_stays_small),
        trial("hooks::an_override_takes_the_verb", an_override_takes_the_verb),
        trial("hooks::the_controller_is_bounded", the_controller_is_bounded),
        trial("hooks::with_the_webhook_away", with_the_webhook_away),
    ]
}

fn an_unsafe_deployment_is_refused() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "hooks-unsafe", "enforce")?;
    let says = [
        r#"admission webhook "validate.surefoot.dev" denied the request: "#,
        "nothing was changed",
        "probes/",
        "resources/",
        "images/",
        "spec.template.spec.containers[0]",
        "fix",
    ];
    refused(create(&ana, &bad("m"))?, &says)?;
    refused(apply(&ana, &bad("m"))?, &says)?;
    let server_side = ana.run_with_input(&["apply", "--server-side", "-f", "-"], &bad("m").to_string())?;
    refused(server_side, &says)?;
    let dry = ana.run_with_input(&["create", "--dry-run=server", "-f", "-"], &bad("m").to_string())?;
    refused(dry, &says)?;
    let mut nameless = bad("m");
    nameless["metadata"] = json!({"generateName": "m-"});
    refused(create(&ana, &nameless)?, &says)?;
    ensure!(admin.json(&["deploy"])?["items"] == json!([]), "something was made");

    create(&ana, &good("m"))?.success()?;
    // An unsafe change of a safe one, and a safe change of it.
    let probe = json!([{"op": "remove", "path": "/spec/template/spec/containers/0/readinessProbe"}]).to_string();
    refused(ana.run(&["patch", "deploy", "m", "--type=json", "-p", &probe])?, &["probes/"])?;
    ana.run(&["set", "env", "deploy/m", "A=b"])?.success()?;
    Ok(())
}

fn defaults_are_added_once() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "hooks-defaults", "enforce")?;
    let mut file = good("m");
    file["spec"].as_object_mut().context("spec")?.remove("minReadySeconds");
    let answer = apply(&ana, &file)?.success()?;
    ensure!(answer.stderr.contains("Warning: ") && answer.stderr.contains("minReadySeconds"), "not told: {answer}");
    let stored = admin.json(&["deploy", "m"])?;
    ensure!(stored["spec"]["minReadySeconds"].as_i64().is_some_and(|s| s > 0), "not added: {}", stored["spec"]);

    // The same file again, an annotation, a scale: nothing that starts a rollout.
    ensure!(apply(&ana, &file)?.success()?.stdout.contains("unchanged"), "the same file changed something");
    ana.run(&["annotate", "deploy", "m", "note=x"])?.success()?;
    ana.run(&["scale", "deploy", "m", "--replicas=2"])?.success()?;
    let after = admin.json(&["deploy", "m"])?;
    ensure!(after["spec"]["template"] == stored["spec"]["template"], "the template changed: {}", after["spec"]);
    ensure!(after["spec"]["minReadySeconds"] == stored["spec"]["minReadySeconds"], "{}", after["spec"]);
    Ok(())
}

fn below_enforce_nothing_is_refused() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    for (guard, told) in [("warn", true), ("audit", false), ("Enforce", true)] {
        let (admin, ana) = shared::namespace(plane, &format!("hooks-{}", guard.to_lowercase()), guard)?;
        let answer = create(&ana, &bad("m"))?.success()?;
        ensure!(answer.stderr.contains("Warning: ") == told, "{guard}: {answer}");
        ensure!(!told || answer.stderr.contains("probes/"), "{guard}: {answer}");
        let stored = admin.json(&["deploy", "m"])?;
        ensure!(stored["spec"].get("minReadySeconds").is_none(), "{guard}: changed something: {}", stored["spec"]);
    }
    let (_, ana) = shared::namespace(plane, "hooks-unguarded", "")?;
    let answer = create(&ana, &bad("m"))?.success()?;
    ensure!(answer.stderr.is_empty(), "{answer}");
    Ok(())
}

fn a_canary_stays_small() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana) = shared::namespace(plane, "hooks-canary", "enforce")?;
    let labelled = |name: &str, track: &str, version: &str, replicas: i64| {
        let mut object = good(name);
        object["metadata"]["labels"] =
            json!({"surefoot.dev/model": "churn", "surefoot.dev/track": track, "app.kubernetes.io/version": version});
        object["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] = json!(version);
        object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(format!("registry.local/model:{version}"));
        object["spec"]["replicas"] = json!(replicas);
        object
    };
    // Both in one file: the webhook's watch may not have seen the stable one when it is asked about the canary.
    let both = json!({"apiVersion": "v1", "kind": "List",
        "items": [labelled("churn", "stable", "1.0.0", 20), labelled("churn-canary", "canary", "1.1.0", 2)]});
    apply(&ana, &both)?.success()?;
    let scale = |replicas: &str| ana.run(&["scale", "deploy", "churn-canary", &format!("--replicas={replicas}")]);
    refused(scale("5")?, &[r#"admission webhook "scale.surefoot.dev" denied the request: 1 problem (canary-cap/"#])?;
    scale("0")?.success()?;
    scale("2")?.success()?;
    refused(
        patch(&ana, "churn-canary", &json!({"spec": {"replicas": 3}}))?,
        &[r#"webhook "validate.surefoot.dev""#, "canary-cap/"],
    )?;
    refused(apply(&ana, &labelled("churn-too", "canary", "1.2.0", 1))?, &["canary-cap/"])?;
    ana.run(&["scale", "deploy", "churn", "--replicas=40"])?.success()?;
    scale("4")?.success()?;
    Ok(())
}

/// A file that says the version in one place is applied again and again, and needs no second one.
fn a_copied_version_follows_the_file() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana) = shared::namespace(plane, "hooks-version", "enforce")?;
    let key = "app.kubernetes.io/version";
    let file = |name: &str, version: &str, on_template: &str| {
        let mut object = good(name);
        object["metadata"]["labels"][key] = json!(version);
        let template = &mut object["spec"]["template"];
        template["spec"]["containers"][0]["image"] = json!(format!("registry.local/model:{version}"));
        let labels = template["metadata"]["labels"].as_object_mut().context("labels")?;
        labels.remove(key);
        if !on_template.is_empty() {
            labels.insert(key.to_owned(), json!(on_template));
        }
        anyhow::Ok(object)
    };
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        apply(&ana, &file("m", version, "")?)?.success()?;
        let stored = ana.json(&["deploy", "m"])?;
        ensure!(stored["spec"]["template"]["metadata"]["labels"][key] == version, "{version}: {stored}");
    }
    // One that says it in both places has to change it in both.
    apply(&ana, &file("n", "1.0.0", "1.0.0")?)?.success()?;
    refused(apply(&ana, &file("n", "1.1.0", "1.0.0")?)?, &["version-labels/differ"])?;
    apply(&ana, &file("n", "1.1.0", "1.1.0")?)?.success()?;
    Ok(())
}

fn an_override_takes_the_verb() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "hooks-override", "enforce")?;
    let olga = plane.user("olga").in_namespace("hooks-override");
    admin.run(&["create", "rolebinding", "olga-edit", "--clusterrole=edit", "--user=olga"])?.success()?;
    admin.run(&["create", "rolebinding", "olga", "--clusterrole=surefoot-override", "--user=olga"])?.success()?;
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let value = format!("{} INC-1234", until.strftime("%Y-%m-%dT%H:%MZ"));
    let set = format!("surefoot.dev/override={value}");
    create(&ana, &good("m"))?.success()?;

    let says = ["bounds.surefoot.dev", "takes the verb override on guards.surefoot.dev in namespace hooks-override"];
    refused(ana.run(&["annotate", "deploy", "m", &set])?, &says)?;
    let annotated = with(good("born"), "/metadata/annotations", json!({"surefoot.dev/override": value}))?;
    refused(create(&ana, &annotated)?, &says)?;
    // Through the status, which may change annotations too.
    admin.apply(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: status}, rules: \
         [{apiGroups: [apps], resources: [deployments/status], verbs: [patch]}]}",
    )?;
    admin.run(&["create", "rolebinding", "status", "--role=status", "--user=ana"])?.success()?;
    let merge = json!({"metadata": {"annotations": {"surefoot.dev/override": value}}});
    let by_status =
        ana.run(&["patch", "deploy", "m", "--subresource=status", "--type=merge", "-p", &merge.to_string()])?;
    refused(by_status, &says)?;

    // A bad change together with the override, by whoever may; then the override covers ana's as well.
    let mut risky = good("m");
    risky["metadata"]["annotations"] = json!({"surefoot.dev/override": value});
    risky["spec"]["template"]["spec"]["containers"][0].as_object_mut().context("c")?.remove("readinessProbe");
    apply(&olga, &risky)?.success()?;
    ana.run(&["set", "image", "deploy/m", "model=registry.local/model:latest"])?.success()?;
    // Changing it takes the verb as setting it does; removing it is free, and then the policies are back.
    refused(ana.run(&["annotate", "--overwrite", "deploy", "m", &format!("{set}x")])?, &says)?;
    ana.run(&["annotate", "deploy", "m", "surefoot.dev/override-"])?.success()?;
    refused(ana.run(&["set", "image", "deploy/m", "model=registry.local/other:latest"])?, &["images/"])?;
    Ok(())
}

fn the_controller_is_bounded() -> Result<()> {
    let plane = shared::plane()?;
    let account = shared::surefoot()?.controller_account().to_owned();
    let (admin, ana) = shared::namespace(plane, "hooks-bounds", "enforce")?;
    let controller = Kubectl::new(account).in_namespace("hooks-bounds");
    create(&ana, &good("m"))?.success()?;
    create(
        &ana,
        &with(
            good("c"),
            "/metadata/labels",
            json!({"surefoot.dev/track": "canary", "app.kubernetes.io/version": "1.0.0"}),
        )?,
    )?
    .success()?;

    // What a revert is made of. The template is one that no policy would let through.
    let revert = json!({
        "metadata": {"labels": {"app.kubernetes.io/version": "0.9.0"}, "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{}", "surefoot.dev/reverted": "x"}},
        "spec": {"template": {"spec": {"containers": [{"name": "model", "image": "registry.local/model:latest"}]}}},
    });
    patch(&controller, "m", &revert)?.success()?;
    patch(&controller, "c", &json!({"spec": {"replicas": 0}}))?.success()?;

    let says = ["bounds.surefoot.dev", "surefoot's controller "];
    for beyond in [
        json!({"spec": {"replicas": 0}}),
        json!({"spec": {"replicas": 7}}),
        json!({"spec": {"minReadySeconds": 1}}),
        json!({"spec": {"minReadySeconds": null}}),
        json!({"spec": {"paused": true}}),
        json!({"metadata": {"labels": {"surefoot.dev/track": "canary"}}}),
        json!({"metadata": {"labels": {"surefoot.dev/model": null}}}),
        json!({"metadata": {"annotations": {"note": "x"}}}),
        json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": null}}}),
        json!({"metadata": {"finalizers": ["example.com/stay"]}}),
    ] {
        refused(patch(&controller, "m", &beyond)?, &says).with_context(|| beyond.to_string())?;
    }
    refused(patch(&controller, "c", &json!({"spec": {"replicas": 3}}))?, &says)?;
    let own = json!({"metadata": {"annotations": {"surefoot.dev/override": "2100-01-01T00:00Z me"}}});
    refused(patch(&controller, "m", &own)?, &["takes the verb override"])?;
    for verb in [["delete", "deploy/m"], ["get", "secrets"], ["get", "configmaps"]] {
        refused(controller.run(&verb)?, &["is forbidden"])?;
    }
    // In a namespace below enforce it only watches.
    admin.run(&["label", "--overwrite", "namespace", "hooks-bounds", "surefoot.dev/guard=warn"])?.success()?;
    let again = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
    refused(patch(&controller, "m", &again)?, &["only in namespaces labelled surefoot.dev/guard=enforce"])?;
    Ok(())
}

/// What is promised "never blocked" holds with the webhook gone, and what is refused is refused.
fn with_the_webhook_away() -> Result<()> {
    let plane = ControlPlane::start()?;
    let mut surefoot = Surefoot::install(&plane, program(), CONFIG)?;
    let (admin, ana) = shared::namespace(&plane, "away", "enforce")?;
    surefoot.start_webhook()?;
    create(&ana, &good("m"))?.success()?;
    create(&ana, &good("gone"))?.success()?;
    surefoot.stop_webhook()?;
    let controller = Kubectl::new(surefoot.controller_account()).in_namespace("away");

    let away = [r#"failed calling webhook "validate.surefoot.dev""#];
    refused(ana.run(&["set", "image", "deploy/m", "model=registry.local/model:2"])?, &away)?;
    refused(create(&ana, &good("new"))?, &away)?;
    for judged in [
        json!({"spec": {"minReadySeconds": 5}}),
        json!({"spec": {"replicas": 9}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"metadata": {"annotations": {"surefoot.dev/budget": "failures=5"}}}),
        json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": "1"}}}),
    ] {
        refused(patch(&ana, "m", &judged)?, &away).with_context(|| judged.to_string())?;
    }
    // With and without metadata that a condition looks at.
    for labels in [json!(null), json!({"a": "b"})] {
        patch(&controller, "m", &json!({"metadata": {"labels": {"app.kubernetes.io/version": "3"}}}))?.success()?;
        refused(patch(&ana, "m", &json!({"metadata": {"labels": labels, "annotations": null}}))?, &away)?;
    }
    patch(&ana, "m", &json!({"metadata": {"annotations": null}}))?.success()?;
    for free in [
        json!({"metadata": {"annotations": {"note": "x"}}}),
        json!({"metadata": {"annotations": {"note": null}}}),
        json!({"spec": {"paused": true}}),
        json!({"spec": {"paused": null}}),
        json!({"spec": {"replicas": 0}}),
        json!({"metadata": {"finalizers": ["example.com/stay"]}}),
        json!({"metadata": {"finalizers": null}}),
    ] {
        patch(&ana, "m", &free)?.success().with_context(|| free.to_string())?;
    }
    // Growth by deployments/scale is Ignore: an autoscaler goes on. To 0 arrives as `spec: {}`.
    ana.run(&["scale", "deploy", "m", "--replicas=4"])?.success()?;
    ana.run(&["scale", "deploy", "m", "--replicas=0"])?.success()?;
    // The controller can still put back what was good, and somebody who may can override.
    patch(&controller, "m", &json!({"spec": {"template": {"metadata": {"labels": {"reverted": "yes"}}}}}))?
        .success()?;
    admin.run(&["annotate", "deploy", "m", "surefoot.dev/override=2100-01-01T00:00Z INC-1"])?.success()?;

    // Surefoot keeps out of these, whatever their labels say.
    for namespace in ["kube-system", "surefoot-system"] {
        plane.admin().run(&["label", "namespace", namespace, "surefoot.dev/guard=enforce"])?.success()?;
        create(&plane.admin().in_namespace(namespace), &bad("m"))?.success()?;
    }

    ana.run(&["delete", "deploy", "gone", "--cascade=foreground", "--timeout=30s"])?.success()?;
    plane.admin().run(&["delete", "namespace", "away", "--timeout=60s"])?.success()?;
    Ok(())
}
