//! How far a finding goes on a real control plane: the guard of the namespace, the action of the policy, an exemption.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    models::{
        Outcome::{Refused, Silent, Warned},
        bad, create,
    },
    shared::{self, metric},
    support::ControlPlane,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("levels::audit_is_silent_to_the_user", audit_is_silent_to_the_user),
        trial("levels::an_unknown_guard_counts_as_warn_and_says_so", an_unknown_guard_counts_as_warn_and_says_so),
        trial("levels::the_milder_of_action_and_guard_counts", the_milder_of_action_and_guard_counts),
        trial("levels::an_exemption_lasts_until_its_day_is_over", an_exemption_lasts_until_its_day_is_over),
    ]
}

/// An audit annotation of surefoot's last verdict on a Deployment, e.g. `denied`.
fn annotation(plane: &ControlPlane, namespace: &str, name: &str, key: &str) -> Result<String> {
    let events = plane.audited(namespace, name)?;
    let last = events.last().with_context(|| format!("nothing is audited of {namespace}/{name}"))?;
    let value = &last["annotations"][format!("validate.surefoot.dev/{key}")];
    Ok(value.as_str().unwrap_or_default().to_owned())
}

fn audit_is_silent_to_the_user() -> Result<()> {
    let plane = shared::plane()?;
    let audits = || -> Result<u64> {
        let answer = shared::surefoot()?.get("/metrics")?;
        Ok(metric(&answer, r#"surefoot_findings_total{policy="probes",level="audit"}"#))
    };
    let before = audits()?;
    let (admin, ana) = shared::namespace(plane, "levels-audit", "audit")?;
    Silent.of(create(&ana, &bad("m"))?)?;
    let stored = admin.json(&["deploy", "m"])?;
    ensure!(stored["spec"]["minReadySeconds"] == Value::Null, "nothing is added: {stored}");
    let audited = annotation(plane, "levels-audit", "m", "audited")?;
    for finding in ["probes/no-readiness", "probes/no-liveness", "images/latest", "version-labels/missing"] {
        ensure!(audited.contains(finding), "{finding} is in the audit log: {audited}");
    }
    for key in ["denied", "warned"] {
        ensure!(annotation(plane, "levels-audit", "m", key)?.is_empty(), "nothing was {key}");
    }
    // Others' reviews only make it more.
    ensure!(audits()? >= before + 2, "two findings of probes are counted: {before}, then {}", audits()?);
    Silent.of(ana.run(&["set", "image", "deploy/m", "model=registry.local/other:latest"])?)?;
    // Not even an override that counts for nothing is talked about.
    let admin_sets = admin.run(&["annotate", "deploy", "m", "surefoot.dev/override=soon"])?;
    Silent.of(admin_sets)?;
    Silent.of(ana.run(&["set", "env", "deploy/m", "A=b"])?)
}

fn an_unknown_guard_counts_as_warn_and_says_so() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    for (number, value) in ["'on'", "Enforce", "enforced", "''"].iter().enumerate() {
        let namespace = format!("levels-unknown-{number}");
        let (_, ana) = shared::namespace(plane, &namespace, value)?;
        let shown = value.trim_matches('\'');
        let answer = create(&ana, &bad("m"))?;
        let note = format!(
            "namespace label surefoot.dev/guard is `{shown}`; it takes audit, warn or enforce, and counts as warn"
        );
        ensure!(answer.stderr.contains(&note), "{note}: {answer}");
        Warned(&["[probes/no-readiness]", "[images/latest]"]).of(answer)?;
        let warned = annotation(plane, &namespace, "m", "warned")?;
        ensure!(warned.contains("probes/no-readiness"), "{warned}");
    }
    Ok(())
}

fn the_milder_of_action_and_guard_counts() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let rows = [
        // (guard, action of `images`, what comes of it, where the audit log has it)
        ("enforce", "deny", Refused(&["images/latest", "probes/no-readiness", "!Warning: [images/"]), "denied"),
        ("enforce", "warn", Refused(&["Warning: [images/latest]", "probes/no-readiness"]), "warned"),
        ("enforce", "audit", Refused(&["!images/", "probes/no-readiness"]), "audited"),
        ("warn", "deny", Warned(&["Warning: [images/latest]", "Warning: [probes/no-readiness]"]), "warned"),
        ("warn", "warn", Warned(&["Warning: [images/latest]", "Warning: [probes/no-readiness]"]), "warned"),
        ("warn", "audit", Warned(&["!images/", "Warning: [probes/no-readiness]"]), "audited"),
        ("audit", "deny", Silent, "audited"),
        ("audit", "warn", Silent, "audited"),
        ("audit", "audit", Silent, "audited"),
    ];
    for (guard, action, outcome, key) in rows {
        let namespace = format!("levels-{guard}-{action}");
        let labels = format!("surefoot.dev/guard: {guard}, images: {action}");
        let (_, ana) = shared::labelled_namespace(plane, &namespace, &labels)?;
        outcome.of(create(&ana, &bad("m"))?).with_context(|| namespace.clone())?;
        let annotated = annotation(plane, &namespace, "m", key)?;
        ensure!(annotated.contains("images/latest"), "{namespace} {key}: {annotated}");
    }
    Ok(())
}

fn an_exemption_lasts_until_its_day_is_over() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana) = shared::namespace(plane, "levels-exempt", "enforce")?;
    let exempt = Refused(&["resources/no-limit", "version-labels/missing", "!probes/", "!images/"]);
    exempt.of(create(&ana, &bad("now"))?)?;
    let audited = annotation(plane, "levels-exempt", "now", "audited")?;
    ensure!(audited.contains("probes/no-readiness") && audited.contains("images/latest"), "{audited}");
    for name in ["past", "another"] {
        Refused(&["probes/no-readiness", "images/latest"]).of(create(&ana, &bad(name))?).context(name)?;
    }
    Ok(())
}
