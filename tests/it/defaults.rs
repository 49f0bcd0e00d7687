//! Defaults on a real control plane: added once, kept, and at peace with other webhooks that change Deployments.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    injector::{Injector, Seen},
    models::{
        Outcome::{Refused, Silent, Warned},
        apply, bad, create, digest, good, guard, patch, remember, replace,
    },
    shared,
    support::{ControlPlane, Kubectl, Look, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("defaults::what_was_added_stays", what_was_added_stays),
        trial("defaults::one_label_in_the_file_is_enough", one_label_in_the_file_is_enough),
        trial("defaults::a_settled_template_stays_as_it_is", a_settled_template_stays_as_it_is),
        trial("defaults::what_another_controller_owns_is_left_alone", what_another_controller_owns_is_left_alone),
        trial("defaults::with_another_webhook_in_play_it_ends", with_another_webhook_in_play_it_ends),
        trial("defaults::with_a_restless_webhook_in_play_it_ends", with_a_restless_webhook_in_play_it_ends),
    ]
}

/// A Triton server without the probes that can be added to it, nor `minReadySeconds`.
fn triton(name: &str) -> Result<Value> {
    let mut object = good(name);
    object["spec"].as_object_mut().context("spec")?.remove("minReadySeconds");
    let container = &mut object["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("nvcr.io/nvidia/tritonserver:24.05-py3");
    for probe in ["startupProbe", "readinessProbe"] {
        container.as_object_mut().context("container")?.remove(probe);
    }
    Ok(object)
}

const APPLY_SERVER_SIDE: [&str; 4] = ["apply", "--server-side", "-f", "-"];

fn what_was_added_stays() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "defaults-sticky", "enforce")?;
    let added = Warned(&[
        "[probes] added readinessProbe and startupProbe to container \"model\"",
        "[rollout-strategy] added spec.minReadySeconds 60",
        "put your own in the file to keep them in your hands",
    ]);
    for (name, server_side) in [("client", false), ("server", true)] {
        let apply = |file: &Value| match server_side {
            true => ana.run_with_input(&APPLY_SERVER_SIDE, &file.to_string()),
            false => apply(&ana, file),
        };
        let stored = || admin.json(&["deploy", name]);
        let file = triton(name)?;
        added.of(apply(&file)?)?;
        let first = stored()?;
        let model = |object: &Value| object["spec"]["template"]["spec"]["containers"][0].clone();
        ensure!(model(&first)["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready", "{first}");

        // The same file again, and what leaves the template alone: no patch, no rollout.
        Silent.of(apply(&file)?)?;
        Silent.of(ana.run(&["annotate", "deploy", name, "note=x"])?)?;
        Silent.of(ana.run(&["label", "deploy", name, "team=a"])?)?;
        Silent.of(ana.run(&["scale", "deploy", name, "--replicas=2"])?)?;
        Silent.of(patch(&ana, name, &json!({"spec": {"revisionHistoryLimit": 7}}))?)?;
        let same = stored()?;
        ensure!(same["spec"]["template"] == first["spec"]["template"], "{same}");
        ensure!(same["spec"]["minReadySeconds"] == first["spec"]["minReadySeconds"], "{same}");

        // Another template: what was added is what was there, not what a policy may think of today.
        let slower = json!([{"op": "replace", "value": 7,
            "path": "/spec/template/spec/containers/0/readinessProbe/periodSeconds"}]);
        Silent.of(ana.run(&["patch", "deploy", name, "--type=json", "-p", &slower.to_string()])?)?;
        let mut next = file.clone();
        next["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "b"}]);
        next["metadata"]["resourceVersion"] = Value::Null;
        // Whole, as a tool does that knows nothing of what was added.
        added.of(replace(&ana, &next)?)?;
        let kept = stored()?;
        ensure!(model(&kept)["readinessProbe"]["periodSeconds"] == 7, "{kept}");
        ensure!(kept["spec"]["minReadySeconds"] == first["spec"]["minReadySeconds"], "{kept}");

        // Your own in the file counts.
        let own = json!({"httpGet": {"path": "/mine", "port": 8000}});
        next["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = own;
        let replaced =
            ana.run_with_input(&[&APPLY_SERVER_SIDE[..], &["--force-conflicts"]].concat(), &next.to_string());
        replaced?.success()?;
        ensure!(model(&stored()?)["readinessProbe"]["httpGet"]["path"] == "/mine", "{}", stored()?);
    }
    Ok(())
}

/// A file that names the version once, on the Deployment or on its pod template: the other label follows with each version.
fn one_label_in_the_file_is_enough() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "defaults-one-label", "enforce")?;
    let flux = ["apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller", "-f", "-"];
    let ways: [(&str, &[&str]); 3] =
        [("client", &["apply", "-f", "-"]), ("server", &APPLY_SERVER_SIDE), ("flux", &flux)];
    let (on_deployment, on_template) = ("/metadata", "/spec/template/metadata");
    for (way, command) in ways {
        for (place, other) in [(on_deployment, on_template), (on_template, on_deployment)] {
            let name = format!("{way}-{}", if place == on_deployment { "deployment" } else { "template" });
            let file = |version: &str| -> Result<Value> {
                let mut file = good(&name);
                file["spec"]["template"]["spec"]["containers"][0]["image"] =
                    json!(format!("registry.local/m:{version}"));
                set_version(&mut file, place, Some(version))?;
                set_version(&mut file, other, None)?;
                Ok(file)
            };
            let apply = |file: &Value| ana.run_with_input(command, &file.to_string());
            for version in ["1.0.0", "2.0.0", "3.0.0"] {
                Warned(&["[version-labels] added "]).of(apply(&file(version)?)?)?;
                let stored = admin.json(&["deploy", &name])?;
                let label = format!("{other}/labels/app.kubernetes.io~1version");
                ensure!(stored.pointer(&label) == Some(&json!(version)), "{way} {place} {version}: {stored}");
                Silent.of(apply(&file(version)?)?)?;
            }
            // One who writes both has both in hand.
            let mut both = file("4.0.0")?;
            set_version(&mut both, other, Some("4.0.0"))?;
            Silent.of(apply(&both)?)?;
            set_version(&mut both, place, Some("5.0.0"))?;
            both["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.local/m:5.0.0");
            Refused(&["version-labels/differ"]).of(apply(&both)?)?;
        }
    }
    Ok(())
}

fn set_version(file: &mut Value, place: &str, version: Option<&str>) -> Result<()> {
    let metadata = file.pointer_mut(place).context("metadata")?;
    match version {
        Some(version) => metadata["labels"]["app.kubernetes.io/version"] = json!(version),
        None => drop(metadata["labels"].as_object_mut().context("labels")?.remove("app.kubernetes.io/version")),
    }
    Ok(())
}

fn a_settled_template_stays_as_it_is() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "defaults-settled", "")?;
    let old = triton("m")?;
    apply(&ana, &old)?.success()?;
    let settled = digest(&admin.json(&["deploy", "m"])?);
    // What undo goes back to is kept by ReplicaSets.
    replica_sets(&admin, &admin.json(&["deploy", "m"])?, 1)?;
    ana.run(&["set", "env", "deploy/m", "A=b"])?.success()?;
    replica_sets(&admin, &admin.json(&["deploy", "m"])?, 2)?;
    remember(&admin, "m", std::slice::from_ref(&settled), None)?;
    guard(&admin)?;
    let back = Warned(&["this pod template has settled before: going back to it is never refused", "!added"]);
    until("the record to be known", Duration::from_secs(30), || {
        let dry = ana.run(&["set", "env", "deploy/m", "A-", "--dry-run=server"])?;
        Ok(match back.of(dry) {
            Ok(()) => Look::Done(()),
            Err(error) => Look::Not(error.to_string()),
        })
    })?;
    // Wrong as it is: back by undo, forward (with defaults), back by its file.
    back.of(ana.run(&["rollout", "undo", "deploy/m"])?)?;
    ensure!(digest(&admin.json(&["deploy", "m"])?) == settled, "{}", admin.json(&["deploy", "m"])?);
    Warned(&["[probes] added readinessProbe and startupProbe"]).of(ana.run(&["set", "env", "deploy/m", "A=c"])?)?;
    replica_sets(&admin, &admin.json(&["deploy", "m"])?, 3)?;
    back.of(ana.run(&["rollout", "undo", "deploy/m"])?)?;
    ensure!(digest(&admin.json(&["deploy", "m"])?) == settled, "{}", admin.json(&["deploy", "m"])?);
    Ok(())
}

fn what_another_controller_owns_is_left_alone() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "defaults-owned", "enforce")?;
    admin.run(&["create", "configmap", "churn"])?.success()?;
    let owner = admin.json(&["configmap", "churn"])?["metadata"]["uid"].clone();
    let owned = |mut object: Value| {
        object["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "churn", "uid": owner, "controller": true}]);
        object
    };
    let warned = Warned(&[
        "[probes/no-readiness]",
        "[images/latest]",
        "ConfigMap churn manages this Deployment, so surefoot only warns",
        "!added",
    ]);
    warned.of(create(&admin, &owned(bad("m")))?)?;
    warned.of(admin.run(&["set", "env", "deploy/m", "A=b"])?)?;
    Warned(&["!added", "[probes/no-readiness]"]).of(create(&admin, &owned(triton("t")?))?)?;
    let stored = admin.json(&["deploy", "t"])?;
    ensure!(stored["spec"]["minReadySeconds"] == Value::Null, "{stored}");
    let container = &stored["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["readinessProbe"] == Value::Null, "{stored}");
    // A mere ownerReference, without `controller`, changes nothing.
    let mut referred = owned(bad("r"));
    referred["metadata"]["ownerReferences"][0]["controller"] = json!(false);
    Refused(&["probes/no-readiness"]).of(create(&ana, &referred)?)
}

/// The injector of all trials here.
fn injector() -> Result<&'static Injector> {
    static INJECTOR: std::sync::OnceLock<Result<Injector, String>> = std::sync::OnceLock::new();
    shared::once(&INJECTOR, || Injector::start(shared::plane()?))
}

/// A guarded namespace in which the injector's hooks are known to be asked.
fn namespace(plane: &ControlPlane, name: &str, label: &str) -> Result<(Kubectl, Kubectl)> {
    let labels = format!("surefoot.dev/guard: enforce, {label}: 'yes', looked-at: 'yes'");
    let (admin, ana) = shared::labelled_namespace(plane, name, &labels)?;
    let wanted = if label == "injected" { ["proxy", "server", "look"].as_slice() } else { &["stamp", "look"] };
    until("the injector to be asked", Duration::from_secs(30), || {
        injector()?.take(name);
        ana.run_with_input(&["create", "--dry-run=server", "-f", "-"], &good("probe").to_string())?;
        let asked: Vec<String> = injector()?.take(name).into_iter().map(|seen| seen.hook).collect();
        let all = wanted.iter().all(|hook| asked.iter().any(|asked| asked == hook));
        Ok(if all { Look::Done(()) } else { Look::Not(format!("{asked:?}")) })
    })?;
    Ok((admin, ana))
}

/// What was stored is what the validating hooks saw, and no hook was asked more than twice for it.
fn ended(admin: &Kubectl, seen: Vec<Seen>) -> Result<Value> {
    let seen = last_review(seen);
    let times = |hook: &str| seen.iter().filter(|one| one.hook == hook).count();
    for hook in ["proxy", "server", "stamp"] {
        ensure!(times(hook) <= 2, "{hook} was asked {} times", times(hook));
    }
    let stored = admin.json(&["deploy", "m"])?;
    let looked = seen.iter().rfind(|one| one.hook == "look").context("validated")?;
    ensure!(digest(&looked.object) == digest(&stored), "validated:\n{}\nstored:\n{stored}", looked.object);
    Ok(stored)
}

/// What was asked the last time: `replace` may be given twice, and the API server itself begins a patch anew when
/// somebody else (the Deployment's status is written just then) was first.
fn last_review(mut seen: Vec<Seen>) -> Vec<Seen> {
    let looks: Vec<usize> = seen.iter().enumerate().filter(|(_, one)| one.hook == "look").map(|(at, _)| at).collect();
    match looks.as_slice() {
        [.., before, _] => seen.split_off(before + 1),
        _ => seen,
    }
}

/// The ReplicaSet of this template has its digest as well, and there are so many in all.
fn replica_sets(admin: &Kubectl, stored: &Value, count: usize) -> Result<()> {
    until(&format!("{count} ReplicaSets"), Duration::from_secs(30), || {
        let sets = admin.json(&["rs", "-l", "app=m"])?;
        let sets = sets["items"].as_array().context("items")?;
        let found = sets.len() == count && sets.iter().any(|set| digest(set) == digest(stored));
        Ok(if found { Look::Done(()) } else { Look::Not(json!(sets).to_string()) })
    })
}

fn with_another_webhook_in_play_it_ends() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = namespace(plane, "defaults-injected", "injected")?;
    let take = || Ok::<_, anyhow::Error>(injector()?.take("defaults-injected"));
    let file = triton("m")?;
    // surefoot is asked again after `server` has come, and adds to it what it adds to any other.
    Warned(&[
        "[probes] added readinessProbe and startupProbe to container \"model\"",
        "[probes] added readinessProbe and startupProbe to container \"server\"",
    ])
    .of(apply(&ana, &file)?)?;
    let first = ended(&admin, take()?)?;
    let containers = first["spec"]["template"]["spec"]["containers"].as_array().context("containers")?.clone();
    let names: Vec<&str> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
    ensure!(names == ["server", "model", "proxy"], "{names:?}");
    ensure!(containers[0]["startupProbe"]["httpGet"]["path"] == "/v2/health/ready", "{first}");
    replica_sets(&admin, &first, 1)?;

    // Again and again, by every road: the same template, no rollout.
    Silent.of(apply(&ana, &file)?)?;
    take()?;
    replace(&ana, &file)?.success()?;
    ensure!(digest(&ended(&admin, take()?)?) == digest(&first), "replaced");
    ana.run_with_input(&[&APPLY_SERVER_SIDE[..], &["--force-conflicts"]].concat(), &file.to_string())?.success()?;
    ensure!(digest(&ended(&admin, take()?)?) == digest(&first), "applied by the server");
    replica_sets(&admin, &first, 1)?;

    // And a change is one rollout.
    ana.run(&["set", "env", "deploy/m", "-c", "model", "A=b"])?.success()?;
    let next = ended(&admin, take()?)?;
    ensure!(digest(&next) != digest(&first), "{next}");
    replica_sets(&admin, &next, 2)
}

/// One that changes the template each time it is asked.
fn with_a_restless_webhook_in_play_it_ends() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = namespace(plane, "defaults-stamped", "stamped")?;
    let take = || Ok::<_, anyhow::Error>(injector()?.take("defaults-stamped"));
    apply(&ana, &triton("m")?)?.success()?;
    let first = ended(&admin, take()?)?;
    replica_sets(&admin, &first, 1)?;
    // To annotate is a rollout here, and that is not surefoot's doing; it adds what the new template lacks, and no more.
    Silent.of(ana.run(&["annotate", "deploy", "m", "note=x"])?)?;
    let next = ended(&admin, take()?)?;
    ensure!(next["spec"]["template"]["spec"] == first["spec"]["template"]["spec"], "{next}");
    replica_sets(&admin, &next, 2)
}
