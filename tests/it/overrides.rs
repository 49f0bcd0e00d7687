//! The override on a real control plane, set by real users: who may, what counts, what it covers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    models::{
        Outcome::{Refused, Silent, Warned},
        apply, bad, create, digest, good, override_for, patch, remember, with,
    },
    shared,
    support::{ControlPlane, Kubectl, Look, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("overrides::only_who_has_the_verb_sets_one", only_who_has_the_verb_sets_one),
        trial("overrides::what_counts_for_nothing_is_said", what_counts_for_nothing_is_said),
        trial("overrides::one_covers_every_policy_and_scale", one_covers_every_policy_and_scale),
        trial("overrides::one_covers_the_quarantine", one_covers_the_quarantine),
        trial("overrides::undo_brings_back_an_old_one", undo_brings_back_an_old_one),
    ]
}

/// A guarded namespace in which `ana` may edit, and `olga` may set overrides as well.
pub(crate) fn namespace(plane: &ControlPlane, name: &str) -> Result<(Kubectl, Kubectl, Kubectl)> {
    namespace_of(plane, name, "olga")
}

/// The same with somebody else in olga's place.
pub(crate) fn namespace_of(plane: &ControlPlane, name: &str, who: &str) -> Result<(Kubectl, Kubectl, Kubectl)> {
    let (admin, ana) = shared::namespace(plane, name, "enforce")?;
    for role in ["edit", "surefoot-override"] {
        let role = format!("--clusterrole={role}");
        admin.run(&["create", "rolebinding", &format!("{who}{role}"), &role, &format!("--user={who}")])?.success()?;
    }
    let olga = plane.user(who).in_namespace(name);
    until("the rights", Duration::from_secs(30), || {
        let may = |verb: &str, group: &str, resource: &str| -> Result<bool> {
            let attributes = json!({"namespace": name, "verb": verb, "group": group, "resource": resource});
            let question = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes}});
            let answer =
                olga.run_with_input(&["create", "--validate=false", "-f", "-", "-o", "json"], &question.to_string())?;
            Ok(answer.success()?.json()?["status"]["allowed"] == true)
        };
        let may = may("override", "surefoot.dev", "guards")? && may("patch", "apps", "deployments")?;
        Ok(if may { Look::Done(()) } else { Look::Not("not yet".to_owned()) })
    })?;
    Ok((admin, ana, olga))
}

const NEEDS: &[&str] =
    &["takes the verb override on guards.surefoot.dev in namespace overrides-who", "and ana does not"];

fn only_who_has_the_verb_sets_one() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana, olga) = namespace(plane, "overrides-who")?;
    let (two, three) = (override_for(2, "INC-1"), override_for(3, "INC-1"));
    let annotate = |who: &Kubectl, what: &str| who.run(&["annotate", "--overwrite", "deploy", "m", what]);
    create(&ana, &good("m"))?.success()?;
    Refused(NEEDS).of(annotate(&ana, &two)?)?;
    // To administer a namespace is not enough, and the right in another one is none here.
    admin.run(&["create", "rolebinding", "ana-admin", "--clusterrole=admin", "--user=ana"])?.success()?;
    let (elsewhere, _) = shared::namespace(plane, "overrides-elsewhere", "enforce")?;
    elsewhere.run(&["create", "rolebinding", "ana-o", "--clusterrole=surefoot-override", "--user=ana"])?.success()?;
    Refused(NEEDS).of(annotate(&ana, &two)?)?;
    Silent.of(annotate(&olga, &two)?)?;
    // To change it takes the verb, to leave it or to remove it does not, to set the same again does.
    Refused(NEEDS).of(annotate(&ana, &three)?)?;
    Silent.of(annotate(&ana, &two)?)?;
    let (key, value) = two.split_once('=').context("key=value")?;
    let mut file = good("m");
    file["metadata"]["annotations"] = json!({key: value});
    file["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "b"}]);
    apply(&ana, &file)?.success()?;
    ana.run_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &file.to_string())?.success()?;
    ana.run(&["scale", "deploy", "m", "--replicas=3"])?.success()?;
    ana.run(&["annotate", "deploy", "m", "surefoot.dev/override-"])?.success()?;
    Refused(NEEDS).of(annotate(&ana, &two)?)?;
    // Whatever way it comes.
    Refused(NEEDS).of(apply(&ana, &file)?)?;
    Refused(NEEDS)
        .of(ana.run_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &file.to_string())?)?;
    Refused(NEEDS).of(ana.run_with_input(&["replace", "-f", "-"], &file.to_string())?)?;
    file["metadata"]["name"] = json!("new");
    Refused(NEEDS).of(create(&ana, &file)?)?;
    // An empty one says nothing and is nobody's business.
    Warned(&["annotation surefoot.dev/override counts for nothing"]).of(annotate(&ana, "surefoot.dev/override=")?)?;
    // To a group, too.
    ana.run(&["annotate", "deploy", "m", "surefoot.dev/override-"])?.success()?;
    let group = ["create", "rolebinding", "dev", "--clusterrole=surefoot-override", "--group=developers"];
    admin.run(&group)?.success()?;
    until("the right to count", Duration::from_secs(30), || {
        let answer = annotate(&ana, &two)?;
        Ok(if answer.ok() { Look::Done(()) } else { Look::Not(answer.to_string()) })
    })
}

fn what_counts_for_nothing_is_said() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana, olga) = namespace(plane, "overrides-void")?;
    create(&ana, &good("m"))?.success()?;
    let latest =
        |version: &str| ana.run(&["set", "image", "deploy/m", &format!("model=registry.local/{version}:latest")]);
    let rows = [
        ("surefoot.dev/override=soon".to_owned(), "it is no time, one space and a reason"),
        ("surefoot.dev/override=2126-01-01 INC-1".to_owned(), "it is no time, one space and a reason"),
        (override_for(2, "INC-1").replace(' ', ""), "it is no time, one space and a reason"),
        (override_for(-1, "INC-1"), "it ended at 20"),
        (override_for(25, "INC-1"), "more than 24 hours ahead"),
        ("surefoot.dev/override=2126-01-01T00:00Z INC-1".to_owned(), "more than 24 hours ahead"),
    ];
    for (text, why) in rows {
        // Whoever has the verb is let through whatever it says: there is no clock in the API server's conditions.
        Silent.of(olga.run(&["annotate", "--overwrite", "deploy", "m", &text])?)?;
        let answer = latest("other")?;
        let note = "Warning: annotation surefoot.dev/override counts for nothing: ";
        ensure!(answer.stderr.contains(note) && answer.stderr.contains(why), "{text}: no {why:?} in {answer}");
        Refused(&["(images/latest"]).of(answer).context(text.clone())?;
        // Who set it is told by an Event, once. One that has ended did count in its time.
        if !why.contains("ended") {
            let value = text.split_once('=').context("key=value")?.1;
            let note = format!("annotation surefoot.dev/override \"{value}\" counts for nothing: it ");
            until("the Event", Duration::from_secs(30), || {
                let events = notes(&admin)?;
                let told = events.iter().filter(|found| found.starts_with(&note) && found.contains(why)).count();
                Ok(if told == 1 { Look::Done(()) } else { Look::Not(format!("{told} in {events:?}")) })
            })?;
        }
    }
    ensure!(notes(&admin)?.len() == 5, "{:?}", notes(&admin)?);
    Silent.of(olga.run(&["annotate", "--overwrite", "deploy", "m", &override_for(23, "INC-1")])?)?;
    Warned(&["[images/latest]", "(INC-1): nothing is refused"]).of(latest("other")?)
}

/// What Events say of overrides.
fn notes(admin: &Kubectl) -> Result<Vec<String>> {
    let events = admin.json(&["events", "--field-selector=reason=OverrideIgnored"])?;
    let notes = events["items"].as_array().context("items")?.iter().filter_map(|event| event["message"].as_str());
    Ok(notes.map(str::to_owned).collect())
}

fn one_covers_every_policy_and_scale() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana, olga) = namespace(plane, "overrides-all")?;
    let covered = override_for(2, "INC-2");
    let (key, value) = covered.split_once('=').context("key=value")?;
    let mut worst = bad("worst");
    worst["metadata"]["annotations"] = json!({key: value});
    // She who sets it is not asked; what others then do is told.
    Silent.of(apply(&olga, &worst)?)?;
    worst["spec"]["strategy"] = json!({"type": "Recreate"});
    worst["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.local/another");
    Warned(&["[probes/", "[resources/", "[images/no-tag]", "[version-labels/", "(INC-2): nothing is refused"])
        .of(apply(&ana, &worst)?)?;

    let track = |name: &str, track: &str, version: &str| -> Result<Value> {
        let mut object = good(name);
        let labels = json!({"app": name, "app.kubernetes.io/version": version});
        object["metadata"]["labels"] =
            json!({"surefoot.dev/model": "churn", "surefoot.dev/track": track, "app.kubernetes.io/version": version});
        with(object, "/spec/template/metadata/labels", labels)
    };
    create(&ana, &track("churn", "stable", "1.0.0")?)?.success()?;
    create(&ana, &track("canary", "canary", "1.1.0")?)?.success()?;
    let scale = || ana.run(&["scale", "deploy", "canary", "--replicas=4"]);
    Refused(&["scale.surefoot.dev", "canary-cap/above-cap"]).of(scale()?)?;
    Silent.of(olga.run(&["annotate", "deploy", "canary", &covered])?)?;
    Warned(&["[canary-cap/above-cap]", "(INC-2): nothing is refused"]).of(scale()?)?;
    Warned(&["[canary-cap/above-cap]"]).of(patch(&ana, "canary", &json!({"spec": {"replicas": 9}}))?)
}

fn one_covers_the_quarantine() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana, olga) = namespace(plane, "overrides-quarantine")?;
    create(&ana, &good("m"))?.success()?;
    let two = json!({"metadata": {"labels": {"app.kubernetes.io/version": "2.0.0"}},
        "spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/version": "2.0.0"}},
            "spec": {"containers": [{"name": "model", "image": "registry.local/model:2.0.0"}]}}}})
    .to_string();
    let dry = ana.run(&["patch", "deploy", "m", "-p", &two, "--dry-run=server", "-o", "json"])?.success()?.json()?;
    remember(&admin, "m", &[], Some(&digest(&dry)))?;
    let says = &[
        "1 problem (quarantine); nothing was changed",
        "version 2.0.0 failed 12 of 30 probes in 41 s, the budget is 10",
        "kubectl annotate deploy m -n overrides-quarantine surefoot.dev/override=\"",
    ];
    until("the quarantine to be known", Duration::from_secs(30), || {
        let answer = ana.run(&["patch", "deploy", "m", "-p", &two, "--dry-run=server"])?;
        Ok(if answer.ok() { Look::Not(answer.to_string()) } else { Look::Done(()) })
    })?;
    Refused(says).of(ana.run(&["patch", "deploy", "m", "-p", &two])?)?;
    // The same by its file: a record outlives its Deployment.
    Silent.of(ana.run(&["delete", "deploy", "m"])?)?;
    let mut file = dry.clone();
    file["metadata"] = json!({"name": "m", "labels": dry["metadata"]["labels"]});
    Refused(&["1 problem (quarantine)", "metadata: {annotations: {surefoot.dev/override: \""])
        .of(create(&ana, &file)?)?;
    create(&ana, &good("m"))?.success()?;
    Silent.of(olga.run(&["annotate", "deploy", "m", &override_for(2, "INC-3")])?)?;
    Warned(&["[quarantine] this pod template was reverted", "(INC-3): nothing is refused"])
        .of(ana.run(&["patch", "deploy", "m", "-p", &two])?)?;
    // It is there now, and without the override it may stay and shrink, but not grow.
    ana.run(&["annotate", "deploy", "m", "surefoot.dev/override-"])?.success()?;
    Silent.of(ana.run(&["label", "deploy", "m", "team=a"])?)?;
    Silent.of(ana.run(&["scale", "deploy", "m", "--replicas=0"])?)?;
    Refused(&["scale.surefoot.dev", "1 problem (quarantine)", "fix  apply another pod template first"])
        .of(ana.run(&["scale", "deploy", "m", "--replicas=1"])?)?;
    Refused(&["validate.surefoot.dev", "1 problem (quarantine)"]).of(patch(
        &ana,
        "m",
        &json!({"spec": {"replicas": 1}}),
    )?)?;
    // With the override in the same file, by somebody who may.
    let covered = override_for(2, "INC-5");
    let (key, value) = covered.split_once('=').context("key=value")?;
    file["metadata"]["annotations"] = json!({key: value});
    apply(&olga, &file)?.success()?;
    Warned(&["[quarantine]", "(INC-5): nothing is refused"]).of(ana.run(&["scale", "deploy", "m", "--replicas=2"])?)
}

/// The Deployment controller copies an override to the ReplicaSet that it makes, and `kubectl rollout undo` brings it
/// back. One that is over is in nobody's way, one that is not takes the verb as ever.
fn undo_brings_back_an_old_one() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana, olga) = namespace(plane, "overrides-undo")?;
    create(&ana, &good("m"))?.success()?;
    // What it goes back to is kept by ReplicaSets, which the Deployment controller makes and numbers in its own time.
    let undo = || {
        until("a rollout history", Duration::from_secs(30), || {
            let answer = ana.run(&["rollout", "undo", "deploy/m"])?;
            let is_early = answer.stderr.contains("no rollout history found");
            Ok(if is_early { Look::Not(answer.to_string()) } else { Look::Done(answer) })
        })
    };
    let overriding = |hours: i64| -> Result<()> {
        let text = override_for(hours, "INC-4");
        let (key, value) = text.split_once('=').context("key=value")?;
        Silent.of(olga.run(&["annotate", "--overwrite", "deploy", "m", &text])?)?;
        ana.run(&["set", "env", "deploy/m", &format!("HOURS={hours}")])?.success()?;
        until("the copy", Duration::from_secs(30), || {
            let sets = admin.json(&["rs", "-l", "app=m"])?;
            let has = |set: &Value| set["metadata"]["annotations"][key] == value;
            let copied = sets["items"].as_array().is_some_and(|sets| sets.iter().any(has));
            Ok(if copied { Look::Done(()) } else { Look::Not(sets.to_string()) })
        })?;
        ana.run(&["annotate", "deploy", "m", &format!("{key}-")])?.success()?;
        ana.run(&["set", "env", "deploy/m", "HOURS-"])?.success()?;
        until("the next ReplicaSet", Duration::from_secs(30), || {
            let deploy = admin.json(&["deploy", "m"])?;
            let seen = deploy["status"]["observedGeneration"] == deploy["metadata"]["generation"];
            Ok(if seen { Look::Done(()) } else { Look::Not(deploy.to_string()) })
        })
    };
    overriding(-1)?;
    Warned(&["annotation surefoot.dev/override counts for nothing: it ended at 20"]).of(undo()?)?;
    let by_hand = ana.run(&["annotate", "--overwrite", "deploy", "m", &override_for(1, "INC-4")])?;
    Refused(&["takes the verb override"]).of(by_hand)?;
    overriding(2)?;
    let way_out = "kubectl annotate rs --all -n overrides-undo surefoot.dev/override-";
    let answer = undo()?;
    ensure!(answer.stderr.contains(way_out), "{answer}");
    Refused(&["takes the verb override", "this one comes back with an old ReplicaSet"]).of(answer)?;
    ana.run(&way_out.split(' ').skip(1).collect::<Vec<_>>())?.success()?;
    Silent.of(undo()?)
}
