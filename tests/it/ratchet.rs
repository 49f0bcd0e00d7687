//! The ratchet on a real control plane: what was there before the guard stays in nobody's way, what a request brings is
//! judged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    models::{
        Outcome::{self, Refused, Silent, Warned},
        apply, bad, create, good, guard, patch,
    },
    shared,
    support::{Answer, Kubectl, Look, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("ratchet::an_old_bad_object_can_be_worked_with", an_old_bad_object_can_be_worked_with),
        trial("ratchet::an_old_bad_object_can_go_back", an_old_bad_object_can_go_back),
        trial("ratchet::an_old_bad_object_can_be_deleted", an_old_bad_object_can_be_deleted),
        trial("ratchet::containers_are_known_by_name", containers_are_known_by_name),
        trial("ratchet::a_policy_may_refuse_what_was_there_before", a_policy_may_refuse_what_was_there_before),
    ]
}

/// All that is wrong with a bad Deployment from before the guard.
const OLD: Outcome = Warned(&[
    r#"Warning: [probes/no-readiness] container "model" has no readinessProbe"#,
    r#"Warning: [probes/no-liveness] container "model" has no livenessProbe"#,
    r#"Warning: [resources/no-limit] container "model" has no memory limit"#,
    r#"Warning: [resources/no-request] container "model" has no cpu request"#,
    "Warning: [images/latest] container \"model\" runs registry.local/model:latest",
    "Warning: [version-labels/missing] the pod template has no version label",
]);

/// Real commands on one old object, one after the other.
fn an_old_bad_object_can_be_worked_with() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "ratchet-old", "")?;
    apply(&ana, &bad("m"))?.success()?;
    guard(&admin)?;
    let rows: &[(&str, Outcome)] = &[
        // Never asked about.
        ("annotate deploy m note=x", Silent),
        ("annotate deploy m note-", Silent),
        ("scale deploy m --replicas=0", Silent),
        ("scale deploy m --replicas=1", Silent),
        ("patch deploy m -p {\"metadata\":{\"finalizers\":[\"example.com/stay\"]}}", Silent),
        ("patch deploy m --type=merge -p {\"metadata\":{\"finalizers\":null}}", Silent),
        ("rollout pause deploy m", Silent),
        ("rollout resume deploy m", Silent),
        // Judged, and excused.
        ("label deploy m team=a", OLD),
        ("label deploy m team-", OLD),
        ("patch deploy m -p {\"spec\":{\"replicas\":2}}", OLD),
        ("patch deploy m -p {\"spec\":{\"minReadySeconds\":5}}", OLD),
        ("set env deploy m A=b", OLD),
        ("rollout restart deploy m", OLD),
        // What is changed has to be right.
        (
            "set image deploy m model=registry.local/other:latest",
            Refused(&[
                "1 problem (images/latest); nothing was changed",
                "container \"model\" runs registry.local/other:latest",
                "Warning: [probes/no-readiness]",
                "!Warning: [images/",
            ]),
        ),
        ("set image deploy m model=registry.local/model:1.0.0", Warned(&["[probes/no-readiness]", "!images/"])),
        (
            "set image deploy m model=registry.local/model:latest",
            Refused(&["1 problem (images/latest); nothing was changed"]),
        ),
        (
            "set resources deploy m --requests=cpu=10m,memory=16Mi --limits=cpu=10m,memory=16Mi",
            Warned(&["[probes/no-readiness]", "!resources/"]),
        ),
        (
            "set resources deploy m --requests=cpu=0 --limits=cpu=0",
            Refused(&[
                "(resources/no-limit, resources/no-request); nothing was changed",
                "Warning: [probes/no-readiness]",
            ]),
        ),
    ];
    for (line, outcome) in rows {
        let words: Vec<&str> = line.split(' ').collect();
        outcome.of(ana.run(&words)?)?;
    }
    // Mended in full: not a word, and from here on it is judged like any other.
    Warned(&["[rollout-strategy] added spec.minReadySeconds 5", "!probes/", "!resources/"]).of(mend(&ana)?)?;
    let probe = json!([{"op": "remove", "path": "/spec/template/spec/containers/0/livenessProbe"}]).to_string();
    Refused(&["1 problem (probes/no-liveness)"]).of(ana.run(&["patch", "deploy", "m", "--type=json", "-p", &probe])?)
}

/// The probes, a version, and all that a good Deployment has.
fn mend(ana: &Kubectl) -> Result<Answer> {
    let good = good("m");
    let labels = json!({"app.kubernetes.io/version": "1.0.1"});
    let mut container = good["spec"]["template"]["spec"]["containers"][0].clone();
    container["image"] = json!("registry.local/model:1.0.1");
    let fix = json!({
        "metadata": {"labels": labels},
        "spec": {"minReadySeconds": null,
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    });
    ana.run(&["patch", "deploy", "m", "-p", &fix.to_string()])
}

/// `kubectl rollout undo` from one old template to another: wrong as it is, it is no worse than what runs.
fn an_old_bad_object_can_go_back() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "ratchet-undo", "")?;
    let image = |version: &str| format!("model=registry.local/model:{version}");
    for version in ["latest", "1.0.0", "2.0.0"] {
        match version {
            "latest" => apply(&ana, &bad("m"))?.success()?,
            version => ana.run(&["set", "image", "deploy/m", &image(version)])?.success()?,
        };
        revision_is(&admin, "m", version)?;
    }
    guard(&admin)?;
    Warned(&["[probes/no-readiness]", "!images/"]).of(ana.run(&["rollout", "undo", "deploy/m"])?)?;
    let stored = admin.json(&["deploy", "m"])?;
    let runs = &stored["spec"]["template"]["spec"]["containers"][0]["image"];
    ensure!(runs == "registry.local/model:1.0.0", "{runs}");
    // To what is worse than what runs, it does not go.
    Refused(&["1 problem (images/latest); nothing was changed"]).of(ana.run(&[
        "rollout",
        "undo",
        "deploy/m",
        "--to-revision=1",
    ])?)
}

/// Waits until the Deployment controller has made the ReplicaSet of this image.
fn revision_is(admin: &Kubectl, name: &str, version: &str) -> Result<()> {
    let image = format!("registry.local/model:{version}");
    until(&format!("the ReplicaSet of {image}"), Duration::from_secs(30), || {
        let sets = admin.json(&["rs", "-l", &format!("app={name}")])?;
        let found = sets["items"].as_array().is_some_and(|sets| {
            sets.iter().any(|set| set["spec"]["template"]["spec"]["containers"][0]["image"] == image.as_str())
        });
        Ok(if found { Look::Done(()) } else { Look::Not(sets.to_string()) })
    })
}

fn an_old_bad_object_can_be_deleted() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "ratchet-delete", "")?;
    for name in ["m", "held"] {
        apply(&ana, &bad(name))?.success()?;
    }
    let hold = json!({"metadata": {"finalizers": ["example.com/stay"]}});
    patch(&ana, "held", &hold)?.success()?;
    guard(&admin)?;
    Silent.of(ana.run(&["delete", "deploy", "m", "--cascade=foreground", "--timeout=60s"])?)?;
    Silent.of(ana.run(&["delete", "deploy", "held", "--wait=false"])?)?;
    // On its way out: nothing about it is judged any more.
    Silent.of(ana.run(&["label", "deploy", "held", "team=a"])?)?;
    Silent.of(ana.run(&["set", "image", "deploy/held", "model=registry.local/other:latest"])?)?;
    Silent.of(patch(&ana, "held", &json!({"metadata": {"finalizers": null}}))?)?;
    let gone = ana.run(&["wait", "--for=delete", "deploy/held", "--timeout=30s"])?;
    ensure!(gone.ok(), "{gone}");
    Ok(())
}

/// By name, not by index: what was there is excused wherever it has moved, and nothing else is.
fn containers_are_known_by_name() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, "ratchet-names", "")?;
    let container = |name: &str| -> Result<Value> {
        let mut container = good("m")["spec"]["template"]["spec"]["containers"][0].clone();
        container["name"] = json!(name);
        Ok(container)
    };
    let without_readiness = |name: &str| -> Result<Value> {
        let mut container = container(name)?;
        container.as_object_mut().context("container")?.remove("readinessProbe");
        Ok(container)
    };
    let of = |containers: &[Value]| {
        let mut object = good("m");
        object["spec"]["template"]["spec"]["containers"] = json!(containers);
        object
    };
    create(&ana, &of(&[without_readiness("a")?]))?.success()?;
    guard(&admin)?;
    let excused = Warned(&[r#"[probes/no-readiness] container "a""#]);
    let rows = [
        ("another in front", vec![container("b")?, without_readiness("a")?], excused),
        ("and behind", vec![container("b")?, without_readiness("a")?, container("c")?], excused),
        ("the other way round", vec![container("c")?, without_readiness("a")?, container("b")?], excused),
        ("another name", vec![without_readiness("d")?], Refused(&["1 problem (probes/", r#"container "d" has no"#])),
        (
            "a second one like it",
            vec![without_readiness("a")?, without_readiness("b")?],
            Refused(&[
                "1 problem (probes/",
                r#"container "b" has no"#,
                r#"Warning: [probes/no-readiness] container "a""#,
            ]),
        ),
        ("mended", vec![container("a")?], Silent),
        ("and broken again", vec![without_readiness("a")?], Refused(&["1 problem (probes/"])),
    ];
    for (what, containers, outcome) in rows {
        let replaced = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        outcome.of(patch(&ana, "m", &replaced)?).context(what)?;
    }
    Ok(())
}

/// `existing: Deny`, for `images` alone.
fn a_policy_may_refuse_what_was_there_before() -> Result<()> {
    let second = shared::second()?;
    let (admin, ana) = shared::namespace(&second.plane, "ratchet-existing", "")?;
    apply(&ana, &bad("m"))?.success()?;
    guard(&admin)?;
    let images_only = Refused(&["1 problem (images/latest); nothing was changed", "Warning: [probes/no-readiness]"]);
    images_only.of(ana.run(&["label", "deploy", "m", "team=a"])?)?;
    images_only.of(ana.run(&["set", "env", "deploy/m", "A=b"])?)?;
    // What is never asked about stays free.
    Silent.of(ana.run(&["annotate", "deploy", "m", "note=x"])?)?;
    Silent.of(ana.run(&["scale", "deploy", "m", "--replicas=0"])?)?;
    Warned(&["[probes/no-readiness]"]).of(ana.run(&[
        "set",
        "image",
        "deploy/m",
        "model=registry.local/model:1.0.0",
    ])?)?;
    Silent.of(ana.run(&["delete", "deploy", "m"])?)
}
