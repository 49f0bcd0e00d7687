//! What surefoot knows of the cluster, on a real control plane: Deployments that come in one file, dry runs of a whole
//! stage, a cache that is old, an API server that is slow, a record that cannot be read.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    models::{
        Outcome::{self, Refused, Silent, Warned},
        apply, bad, create, digest, good, guard, patch, remember, write_record,
    },
    relay::Held,
    shared::{self, metric},
    support::{Kubectl, Look, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("facts::stable_and_canary_come_in_one_file", stable_and_canary_come_in_one_file),
        trial("facts::a_stage_is_tried_by_dry_run_in_any_order", a_stage_is_tried_by_dry_run_in_any_order),
        trial("facts::a_denial_is_decided_again_on_what_is_there_now", a_denial_is_decided_again_on_what_is_there_now),
        trial("facts::what_cannot_be_confirmed_is_a_warning", what_cannot_be_confirmed_is_a_warning),
        trial("facts::a_record_that_cannot_be_read_is_said", a_record_that_cannot_be_read_is_said),
    ]
}

fn of_model(model: &str, name: &str, track: &str, version: &str, replicas: i64) -> Value {
    let mut object = good(name);
    object["metadata"]["labels"] =
        json!({"surefoot.dev/model": model, "surefoot.dev/track": track, "app.kubernetes.io/version": version});
    object["spec"]["replicas"] = json!(replicas);
    object["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] = json!(version);
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(format!("registry.local/model:{version}"));
    object
}

/// Stable and canary of one model.
fn stage(model: &str, stable: (&str, i64), canary: (&str, i64)) -> [Value; 2] {
    [
        of_model(model, model, "stable", stable.0, stable.1),
        of_model(model, &format!("{model}-canary"), "canary", canary.0, canary.1),
    ]
}

fn list<'a>(items: impl IntoIterator<Item = &'a Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items.into_iter().collect::<Vec<_>>()})
}

/// The watch may not have seen the stable one when the canary is asked about, a moment later: live reads decide.
fn stable_and_canary_come_in_one_file() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana) = shared::namespace(plane, "facts-file", "enforce")?;
    let stages = |stable, canary| -> Vec<Value> {
        (0..6).flat_map(|number| stage(&format!("m{number}"), stable, canary)).collect()
    };
    Silent.of(apply(&ana, &list(&stages(("1.0.0", 20), ("1.1.0", 2))))?)?;
    // Growth of both.
    Silent.of(apply(&ana, &list(&stages(("1.0.0", 40), ("1.1.0", 4))))?)?;
    // Promotion: the stable one takes the canary's version, the canary the next.
    Silent.of(apply(&ana, &list(&stages(("1.1.0", 40), ("1.2.0", 4))))?)?;
    let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let next = list(&stages(("1.2.0", 60), ("1.3.0", 6))).to_string();
    Silent.of(ana.run_with_input(&server_side, &next)?)?;
    // The canary first: all that it may have without a stable one.
    let mut swapped = stage("swapped", ("1.0.0", 20), ("1.1.0", 1));
    swapped.reverse();
    Warned(&["[canary-cap/no-stable]"]).of(apply(&ana, &list(&swapped))?)
}

/// A dry run makes nothing, so each of the stage is asked about alone.
fn a_stage_is_tried_by_dry_run_in_any_order() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana) = shared::namespace(plane, "facts-dry", "enforce")?;
    let dry =
        |objects: &[Value]| ana.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &list(objects).to_string());
    let told = Warned(&[
        "Warning: [canary-cap/above-cap]",
        "Warning: a dry run does not show what else is to be applied with this, so what rests on other Deployments only warns",
    ]);
    let in_both_orders = |mut stage: [Value; 2], outcome: Outcome| -> Result<()> {
        for _ in 0..2 {
            outcome.of(dry(&stage)?)?;
            stage.reverse();
        }
        Ok(())
    };
    in_both_orders(stage("churn", ("1.0.0", 20), ("1.1.0", 2)), told)?;
    let server_side = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    let canary_first = list(stage("churn", ("1.0.0", 20), ("1.1.0", 2)).iter().rev()).to_string();
    told.of(ana.run_with_input(&server_side, &canary_first)?)?;
    apply(&ana, &list(&stage("churn", ("1.0.0", 20), ("1.1.0", 2))))?.success()?;
    in_both_orders(stage("churn", ("1.0.0", 20), ("1.1.0", 2)), Silent)?;
    in_both_orders(stage("churn", ("1.0.0", 40), ("1.1.0", 4)), told)?;
    in_both_orders(stage("churn", ("1.1.0", 20), ("1.2.0", 2)), Silent)?;
    in_both_orders(stage("churn", ("0.9.0", 20), ("1.0.0", 2)), Warned(&["[canary-cap/same-version]"]))?;
    // What needs no other Deployment is refused in a dry run as ever, and so is scaling, which comes alone.
    let mut unsafe_one = stage("churn", ("1.0.0", 20), ("1.1.0", 9));
    unsafe_one[1]["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.local/model");
    Refused(&["1 problem (images/no-tag)", "Warning: [canary-cap/above-cap]"]).of(dry(&unsafe_one)?)?;
    // It only warns where the API server takes longer than the third of a second that there is for a live read.
    let scaled = || ana.run(&["scale", "deploy", "churn-canary", "--replicas=5", "--dry-run=server"]);
    until_it("scaling to be refused", scaled, Refused(&["canary-cap/above-cap"]))?;
    // And in earnest there is nothing to be said for it.
    Refused(&["1 problem (canary-cap/above-cap)"]).of(apply(&ana, &stage("churn", ("1.0.0", 20), ("1.1.0", 9))[1])?)
}

/// Waits until a dry run comes to this.
fn until_it(what: &str, mut dry: impl FnMut() -> Result<crate::support::Answer>, outcome: Outcome) -> Result<()> {
    until(what, Duration::from_secs(30), || {
        let answer = dry()?;
        Ok(match outcome.of(answer) {
            Ok(()) => Look::Done(()),
            Err(error) => Look::Not(error.to_string()),
        })
    })
}

/// `set image` to version 2, with all the labels.
fn second_version(ana: &Kubectl, name: &str, more: &[&str]) -> Result<crate::support::Answer> {
    let labels = json!({"app.kubernetes.io/version": "2.0.0"});
    let change = json!({"metadata": {"labels": labels}, "spec": {"template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "model", "image": "registry.local/model:2.0.0"}]}}}})
    .to_string();
    ana.run(&[&["patch", "deploy", name, "-p", &change], more].concat())
}

fn a_denial_is_decided_again_on_what_is_there_now() -> Result<()> {
    let second = shared::second()?;
    let (admin, ana) = shared::namespace(&second.plane, "facts-stale", "")?;
    guard(&admin)?;
    create(&ana, &good("m"))?.success()?;
    let dry = second_version(&ana, "m", &["--dry-run=server", "-o", "json"])?.success()?.json()?;
    remember(&admin, "m", &[], Some(&digest(&dry)))?;
    let quarantined = Refused(&["1 problem (quarantine)"]);
    until_it("the quarantine", || second_version(&ana, "m", &["--dry-run=server"]), quarantined)?;

    let reads = || -> Result<u64> {
        let answer = second.surefoot.get("/metrics")?;
        Ok(metric(&answer, r#"surefoot_live_reads_total{what="facts",outcome="found"}"#))
    };
    let before = reads()?;
    let _back = second.hold(Held::Watches);
    let [stable, canary] = stage("churn", ("1.0.0", 20), ("1.1.0", 2));
    Silent.of(apply(&ana, &stable)?)?;
    Silent.of(apply(&ana, &canary)?)?;
    ensure!(reads()? == before + 1, "one live read for the canary");
    // A denial that is right is one on the live read as well, with its numbers.
    Refused(&["10 canary replicas against 20 stable, the cap is 2"]).of(patch(
        &ana,
        "churn-canary",
        &json!({"spec": {"replicas": 10}}),
    )?)?;
    let scaled = ana.run(&["scale", "deploy", "churn-canary", "--replicas=3"])?;
    Refused(&["3 canary replicas against 20 stable, the cap is 2"]).of(scaled)?;
    // A quarantine that was lifted a moment ago.
    quarantined.of(second_version(&ana, "m", &[])?)?;
    admin.in_namespace("surefoot-system").run(&["delete", "configmap", "record.facts-stale.m"])?.success()?;
    Silent.of(second_version(&ana, "m", &[])?)
}

fn what_cannot_be_confirmed_is_a_warning() -> Result<()> {
    let second = shared::second()?;
    let (admin, ana) = shared::namespace(&second.plane, "facts-away", "")?;
    guard(&admin)?;
    create(&ana, &good("m"))?.success()?;
    let dry = second_version(&ana, "m", &["--dry-run=server", "-o", "json"])?.success()?.json()?;
    remember(&admin, "m", &[], Some(&digest(&dry)))?;
    apply(&ana, &list(&stage("churn", ("1.0.0", 20), ("1.1.0", 2))))?.success()?;
    let quarantined = Refused(&["1 problem (quarantine)"]);
    until_it("the quarantine", || second_version(&ana, "m", &["--dry-run=server"]), quarantined)?;
    let grow = json!({"spec": {"replicas": 9}});
    let stable_is_known = Refused(&["9 canary replicas against 20 stable"]);
    until_it("the peers", || patch(&ana, "churn-canary", &grow), stable_is_known)?;

    let _back = second.hold(Held::All);
    // The API server gives the hook three seconds, and would refuse the request after them.
    Warned(&[
        "Warning: [canary-cap/above-cap] 9 canary replicas against 20 stable, the cap is 2",
        "Warning: the other Deployments could not be looked at again, so what rests on them only warns: the API server did not answer within",
    ])
    .of(patch(&ana, "churn-canary", &grow)?)?;
    // The scale hook has one second in all, and is answered in it: else the API server would let it through in silence.
    Warned(&["surefoot could not look at the Deployment, so the scaling is allowed unseen"]).of(ana.run(&[
        "scale",
        "deploy",
        "churn-canary",
        "--replicas=11",
    ])?)?;
    // What rests on nothing but the request is refused, and what surefoot itself put into quarantine stays there.
    let latest = ana.run(&["set", "image", "deploy/churn", "model=registry.local/model:latest"])?;
    Refused(&["(images/latest"]).of(latest)?;
    quarantined.of(second_version(&ana, "m", &[])?)?;
    // A namespace that it has never heard of: guarded, or it would not be asked; the rest cannot be known.
    let (_, ana) = shared::namespace(&second.plane, "facts-unheard", "enforce")?;
    until_it(
        "the API server to know the namespace",
        || ana.run_with_input(&["create", "--dry-run=server", "-f", "-"], &bad("m").to_string()),
        Refused(&["images/latest"]),
    )?;
    Warned(&["surefoot could not look at the namespace, and takes it as enforce: the API server did not answer within"])
        .of(create(&ana, &of_model("churn", "churn-canary", "canary", "1.1.0", 5))?)
}

fn a_record_that_cannot_be_read_is_said() -> Result<()> {
    let plane = shared::plane()?;
    let unknown = || -> Result<u64> {
        let answer = shared::surefoot()?.get("/metrics")?;
        Ok(metric(&answer, "surefoot_incomplete_facts_total"))
    };
    let (admin, ana) = shared::namespace(plane, "facts-record", "enforce")?;
    create(&ana, &good("m"))?.success()?;
    let before = unknown()?;
    write_record(&admin, "m", r#"{"version": 1, "names"#)?;
    let says = Warned(&[
        "Warning: what was reverted before is not known, so nothing is refused for it: the record in configmap \
         record.facts-record.m cannot be read",
    ]);
    until_it("the record", || ana.run(&["set", "env", "deploy/m", "A=b", "--dry-run=server"]), says)?;
    says.of(ana.run(&["set", "env", "deploy/m", "A=b"])?)?;
    ensure!(unknown()? > before, "it is counted");
    // What nobody judges says nothing either.
    Silent.of(ana.run(&["scale", "deploy", "m", "--replicas=0"])?)?;
    admin.run(&["label", "--overwrite", "namespace", "facts-record", "surefoot.dev/guard=audit"])?.success()?;
    let silent = || ana.run(&["set", "env", "deploy/m", "A=c", "--dry-run=server"]);
    until_it("the guard to be audit", silent, Silent)
}
