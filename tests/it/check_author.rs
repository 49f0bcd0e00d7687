//! What `surefoot check` has for somebody who writes policies: a baseline, what defaults add, the input of a policy.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    check::{SAFE, surefoot},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("check_author::what_an_edit_changes", what_an_edit_changes),
        trial("check_author::a_configuration_ahead_of_the_baseline", a_configuration_ahead_of_the_baseline),
        trial("check_author::what_defaults_add", what_defaults_add),
        trial("check_author::defaults_that_the_api_server_cannot_read", defaults_that_cannot_be_read),
        trial("check_author::the_input_of_a_policy", the_input_of_a_policy),
    ]
}

/// A policy about the number of replicas, with `rules` in it.
fn policy(folder: &Path, name: &str, rules: &str) -> Result<()> {
    let file = folder.join(name).join("size/policy.rego");
    fs::create_dir_all(file.parent().context("a folder")?)?;
    let text = format!(
        "# METADATA\n# title: Size\n# custom:\n#   action: Deny\n#   needs: [peers]\npackage surefoot.size\n\nreplicas := input.request.object.spec.replicas\n\n{rules}\n"
    );
    Ok(fs::write(file, text)?)
}

fn sized(name: &str, replicas: u32) -> String {
    SAFE.replace("name: churn\n", &format!("name: {name}\n")).replace("replicas: 20", &format!("replicas: {replicas}"))
}

fn above(level: &str, most: u32, msg: &str) -> String {
    format!(
        "{level} contains {{\"code\": \"large\", \"msg\": \"{msg}\", \"path\": \"/spec/replicas\"}} if replicas > {most}"
    )
}

fn what_an_edit_changes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(
        folder.path().join("all.yaml"),
        [sized("small", 2), sized("middle", 6), sized("large", 20)].join("---\n"),
    )?;
    policy(folder.path(), "old", &above("deny", 10, "more than ten"))?;
    let check = |rules: &str, more: &[&str]| {
        policy(folder.path(), "new", rules)?;
        surefoot(folder.path(), &[&["check", "all.yaml", "--policies", "new", "--baseline", "old"], more].concat(), "")
    };
    let rows = [
        (above("deny", 10, "more than ten"), 0, "3 Deployments, nothing changes\n"),
        (
            above("deny", 5, "more than ten"),
            1,
            "all.yaml    shop/middle    newly refused: size/large\n3 Deployments, 1 verdict changes",
        ),
        (
            above("deny", 30, "more than ten"),
            0,
            "all.yaml    shop/large    newly admitted: no longer size/large\n3 Deployments, 1 verdict changes\n",
        ),
        (
            above("deny", 10, "too many"),
            0,
            "changed: other words in size/large\n3 Deployments, no verdict changes, 1 in what is said\n",
        ),
        (
            above("deny", 10, "more than ten") + "\n\n" + &above("warn", 5, "more than ten"),
            0,
            "changed: warning size/large\n",
        ),
        (
            above("deny", 10, "more than ten")
                + "\n\ndefaults contains {\"path\": \"/metadata/labels/size\", \"value\": \"s\"}",
            0,
            "changed: other defaults\n",
        ),
        (above("warn", 10, "more than ten"), 0, "newly admitted: no longer size/large"),
    ];
    for (rules, code, text) in rows {
        let run = check(&rules, &[])?;
        ensure!(
            run.code == Some(code) && run.stdout.contains(text),
            "{rules}\n{:?}\n{}{}",
            run.code,
            run.stdout,
            run.stderr
        );
    }
    let stricter = above("deny", 1, "more than one");
    let report = check(&stricter, &["-o", "json"])?.json()?;
    let changes: Vec<_> = report["objects"]
        .as_array()
        .context("objects")?
        .iter()
        .map(|it| (&it["name"], &it["change"], &it["baseline"]["verdict"]))
        .collect();
    let expected =
        [("small", "newly-denied", "allowed"), ("middle", "newly-denied", "allowed"), ("large", "changed", "denied")];
    let expected = expected.map(|(name, change, was)| (Value::from(name), Value::from(change), Value::from(was)));
    ensure!(changes == expected.each_ref().map(|(a, b, c)| (a, b, c)), "{report:#}");
    ensure!(report["compared"] == 3, "{report:#}");
    let github = check(&above("deny", 5, "more than ten"), &["-o", "github"])?;
    ensure!(github.stdout.matches("::error").count() == 1 && github.code == Some(1), "{}", github.stdout);
    let broken = check("deny contains finding if {", &[])?;
    ensure!(broken.code == Some(2) && broken.stderr.contains("new/size/policy.rego:"), "{}", broken.stderr);
    Ok(())
}

/// A parameter that came with the edit is configured already; the baseline does not know it.
fn a_configuration_ahead_of_the_baseline() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("all.yaml"), sized("middle", 6))?;
    fs::create_dir_all(folder.path().join("new/lib"))?;
    policy(folder.path(), "old", &above("deny", 10, "more than ten"))?;
    let rules = "params := object.union({\"most\": 10}, object.get(input, \"parameters\", {}))\n\n\
                 deny contains {\"code\": \"large\", \"msg\": \"too many\", \"path\": \"/spec/replicas\"} if replicas > params.most";
    policy(folder.path(), "new", rules)?;
    let config = "apiVersion: surefoot.dev/v1\nkind: Config\npolicies:\n  size: {parameters: {most: 5}}\n";
    fs::write(folder.path().join("config.yaml"), config)?;
    let arguments = ["check", "all.yaml", "--policies", "new", "--baseline", "old", "--config", "config.yaml"];
    let run = surefoot(folder.path(), &arguments, "")?;
    ensure!(run.code == Some(1) && run.stdout.contains("newly refused: size/large"), "{}{}", run.stdout, run.stderr);
    Ok(())
}

fn what_defaults_add() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bare: String =
        SAFE.lines().filter(|line| !line.contains("minReadySeconds")).map(|line| format!("{line}\n")).collect();
    fs::write(folder.path().join("churn.yaml"), bare)?;
    let run = surefoot(folder.path(), &["check", "churn.yaml", "--diff"], "")?;
    let expected = "--- churn.yaml (Deployment shop/churn)\n+++ churn.yaml (Deployment shop/churn) with defaults\n@@ ";
    ensure!(run.stdout.starts_with(expected) && run.code == Some(0), "{}{}", run.stdout, run.stderr);
    let added: Vec<_> = run.stdout.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++")).collect();
    let removed = run.stdout.lines().any(|line| line.starts_with('-') && !line.starts_with("---"));
    ensure!(
        matches!(added.as_slice(), [line] if line.starts_with("+  minReadySeconds: ")) && !removed,
        "{}",
        run.stdout
    );
    let quiet = surefoot(folder.path(), &["check", "-", "--diff", "-o", "json"], SAFE)?;
    ensure!(quiet.code == Some(2) && quiet.stderr.contains("--diff is text"), "{}", quiet.stderr);
    let none = surefoot(folder.path(), &["check", "-", "--diff"], SAFE)?;
    ensure!(!none.stdout.contains("+++"), "{}", none.stdout);
    Ok(())
}

/// The file is right, what is added to it is not. The policy's file begins with the mark of its encoding.
fn defaults_that_cannot_be_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (default, code, says) in [
        (r#"{"path": "/metadata/labels/added", "value": 3}"#, 1, "error[kubernetes/invalid]: "),
        (r#"{"path": "/spec/paused", "value": "x"}"#, 1, "error[kubernetes/invalid]: "),
        (r#"{"path": "/spec/repicas", "value": 3}"#, 0, "warning[kubernetes/unknown-field]: "),
        (r#"{"path": "/metadata/labels/added", "value": "3"}"#, 0, "1 default would be added"),
    ] {
        policy(folder.path(), "p", &format!("defaults contains {default}"))?;
        let file = folder.path().join("p/size/policy.rego");
        fs::write(&file, format!("\u{feff}{}", fs::read_to_string(&file)?))?;
        let run = surefoot(folder.path(), &["check", "-", "--policies", "p"], SAFE)?;
        ensure!(run.code == Some(code) && run.stdout.contains(says), "{default}: {}{}", run.stdout, run.stderr);
        let blamed =
            run.stdout.contains("policy size adds it") && run.stdout.contains("mend `defaults` of policy size");
        ensure!(blamed == says.contains("kubernetes"), "{default}: {}", run.stdout);
    }
    Ok(())
}

fn the_input_of_a_policy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("churn.yaml"), SAFE)?;
    policy(folder.path(), "mine", &above("deny", 10, "more than ten"))?;
    // What is printed is what the policy sees: it repeats its input as a message.
    let echo = "# METADATA\n# title: Echo\n# custom:\n#   action: Deny\npackage surefoot.echo\n\ndeny contains {\"msg\": json.marshal(input)}\n";
    fs::create_dir_all(folder.path().join("echo/echo"))?;
    fs::write(folder.path().join("echo/echo/policy.rego"), echo)?;
    let shown = surefoot(folder.path(), &["check", "churn.yaml", "--policies", "echo", "--show-input"], "")?;
    let told = surefoot(folder.path(), &["check", "churn.yaml", "--policies", "echo", "-o", "json"], "")?.json()?;
    let message = told["objects"][0]["findings"][0]["message"].as_str().context("a message")?;
    ensure!(shown.json()? == serde_json::from_str::<Value>(message)?, "{}\n{message}", shown.stdout);
    ensure!(shown.json()?["request"]["object"]["spec"]["replicas"] == 20 && shown.code == Some(0), "{}", shown.stdout);

    let one = surefoot(folder.path(), &["check", "churn.yaml", "--show-input=probes"], "")?.json()?;
    ensure!(one["context"]["via"] == "deployment" && one["context"]["peers"].is_null(), "{one}");
    let many = surefoot(folder.path(), &["check", "churn.yaml", "--show-input"], "")?;
    let stream: Vec<Value> = serde_saphyr::from_multiple(&many.stdout)?;
    ensure!(stream.len() > 3 && stream.iter().all(|it| it["request"]["name"] == "churn"), "{}", many.stdout);
    ensure!(many.stdout.contains("---\n# canary-cap, Deployment shop/churn, churn.yaml\n"), "{}", many.stdout);
    let typo = surefoot(folder.path(), &["check", "churn.yaml", "--show-input=prbes"], "")?;
    ensure!(typo.code == Some(2) && typo.stderr.contains("did you mean `probes`?"), "{}", typo.stderr);
    let none = surefoot(folder.path(), &["check", "-", "--show-input"], "apiVersion: v1\nkind: Service\n")?;
    ensure!(none.code == Some(2) && none.stderr.contains("no policy is asked"), "{}", none.stderr);
    Ok(())
}
