//! `surefoot check FOLDER`: a repository is given whole, and holds more than manifests; and the Lists in which a
//! Deployment may hide.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    bad_input,
    check::{SAFE, surefoot},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("check_folders::what_is_no_manifest_is_passed_over", what_is_no_manifest_is_passed_over),
        trial("check_folders::templates_are_told", templates_are_told),
        trial("check_folders::a_deployment_is_never_passed_over", a_deployment_is_never_passed_over),
        trial("check_folders::lists_in_lists_are_judged", lists_in_lists_are_judged),
        trial("check_folders::what_the_api_server_lists_is_judged", what_the_api_server_lists_is_judged),
        trial("check_folders::a_bad_item_hides_no_other", a_bad_item_hides_no_other),
        trial("check_folders::policies_that_cannot_be_used_are_told", policies_that_cannot_be_used_are_told),
        trial("check_folders::what_is_given_twice_is_read_once", what_is_given_twice_is_read_once),
    ]
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(fs::write(path, text)?)
}

/// Each says where and what is wrong, and nothing passes; `check` and `test` say the same.
fn policies_that_cannot_be_used_are_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    write(at, "m.yaml", SAFE)?;
    write(at, "good/x/policy.rego", bad_input::GOOD)?;
    write(at, "shape/x/policy.rego", "package surefoot.x\n\ndeny contains 7 if true\n")?;
    for policy in ["a", "b"] {
        let text = "package surefoot.a\n\ndeny contains \"x\" if false\n";
        write(at, &format!("twice/{policy}/policy.rego"), text)?;
    }
    write(at, "latin/x/policy.rego", b"package surefoot.x\n\xff\n")?;
    fs::create_dir(at.join("empty"))?;
    std::os::unix::fs::symlink("nowhere", at.join("dangling"))?;
    write(at, "link/x/policy.rego", "package surefoot.x\n")?;
    std::os::unix::fs::symlink("nowhere", at.join("link/other.rego"))?;
    fs::create_dir(at.join("loop"))?;
    std::os::unix::fs::symlink(".", at.join("loop/back"))?;
    let rows = [
        ("twice", "twice/b/policy.rego:1:1: package `surefoot.a` is already in twice/a/policy.rego"),
        ("latin", "latin/x/policy.rego:2:1: a byte that is no UTF-8; save the file as UTF-8"),
        ("empty", "no policies in empty: no file there or below ends in .rego"),
        ("dangling", "cannot read the policy folder dangling: No such file"),
        ("link", "link/other.rego: cannot read this policy: No such file"),
        ("m.yaml", "m.yaml is a file: give the folder that the policies lie in"),
        ("loop", "loop/back leads back to"),
    ];
    // Only an answer shows it, and nothing here asks for one but `check`.
    let run = surefoot(at, &["check", "m.yaml", "--policies", "shape"], "")?;
    let says = "shape/x/policy.rego:3:1: `deny`: it gave 7, which is no finding";
    ensure!(run.code == Some(2) && run.stderr.contains(says), "{:?} {}", run.code, run.stderr);
    for (policies, says) in rows {
        for arguments in [&["check", "m.yaml", "--policies", policies][..], &["test", policies]] {
            let run = surefoot(at, arguments, "")?;
            ensure!(run.code == Some(2) && run.stderr.contains(says), "{arguments:?}: {:?} {}", run.code, run.stderr);
        }
    }
    for (text, says) in bad_input::configurations() {
        write(at, "config.yaml", &text)?;
        for arguments in [
            &["check", "m.yaml", "--policies", "good", "--config", "config.yaml"][..],
            &["test", "good", "--config", "config.yaml"],
        ] {
            let run = surefoot(at, arguments, "")?;
            ensure!(run.code == Some(2) && run.stderr.contains(says), "{arguments:?}: {:?} {}", run.code, run.stderr);
        }
    }
    Ok(())
}

/// Beside one good Deployment: what a repository has at its top.
const OTHERS: [(&str, &str); 10] = [
    ("list.json", "[1, 2]"),
    ("package.json", "{\"name\": \"x\"}"),
    ("tsconfig.json", "{ // kind of a comment\n \"a\": 1}"),
    ("compose.yaml", "services: {a: {image: x}}\n"),
    ("playbook.yml", "- hosts: all\n  tasks: [{kind: x}]\n"),
    ("cloud.yaml", "apiVersion: !Ref [B\n"),
    ("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n"),
    ("chart/values.yaml", "kind: Deployment\nreplicas: 2\n"),
    ("empty.yaml", ""),
    ("latin.yaml", "kind: caf\u{e9}\n"),
];

fn what_is_no_manifest_is_passed_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), "k8s/churn.yaml", SAFE)?;
    for (name, text) in OTHERS {
        let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
        write(folder.path(), name, latin)?;
    }
    let text = surefoot(folder.path(), &["check", "."], "")?;
    let expected = "passed over: 10 files that are no manifest (-o json says which)\n1 Deployment would be admitted\n";
    ensure!(text.stdout.ends_with(expected) && text.stderr.is_empty(), "{}{}", text.stdout, text.stderr);
    ensure!(text.code == Some(0), "exit code {:?}", text.code);
    let report = surefoot(folder.path(), &["check", ".", "-o", "json"], "")?.json()?;
    let passed = report["passed_over"].as_array().context("passed_over")?;
    let mut named: Vec<&str> = passed.iter().filter_map(|it| it["file"].as_str()?.strip_prefix("./")).collect();
    let mut expected = OTHERS.map(|(name, _)| name);
    named.sort_unstable();
    expected.sort_unstable();
    ensure!(named == expected && passed.iter().all(|it| it["why"].is_string()), "{report:#}");
    // Whoever names a file means it.
    for name in ["list.json", "tsconfig.json", "compose.yaml", "playbook.yml", "empty.yaml", "latin.yaml"] {
        let run = surefoot(folder.path(), &["check", name], "")?;
        ensure!(run.code == Some(2) && run.stderr.contains(name), "{name}: {:?}\n{}", run.code, run.stderr);
    }
    Ok(())
}

/// What they become is judged, so whoever has them is told how.
fn templates_are_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), "k8s/churn.yaml", SAFE)?;
    write(folder.path(), "charts/model/Chart.yaml", "apiVersion: v2\nname: model\n")?;
    write(folder.path(), "charts/model/templates/d.yaml", "kind: Deployment\nmetadata: {name: {{ .Values.x }}}\n")?;
    write(folder.path(), "charts/model/templates/quoted.yaml", "kind: Deployment\nmetadata: {name: \"{{ .x }}\"}\n")?;
    write(folder.path(), "charts/model/templates/fixed.yaml", SAFE.replace("name: churn\n", "name: fixed\n"))?;
    write(folder.path(), "other.yaml", "{{- if .x }}\nkind: Deployment\n{{- end }}\n")?;
    let run = surefoot(folder.path(), &["check", "."], "")?;
    for words in [
        "note: 2 templates of the Helm chart ./charts/model were passed over",
        "helm template ./charts/model | surefoot check -\n",
        "note: ./other.yaml is a template and no YAML yet",
    ] {
        ensure!(run.stderr.contains(words), "`{words}` is not in\n{}", run.stderr);
    }
    ensure!(run.code == Some(0) && run.stdout.contains("2 Deployments would be admitted"), "{}", run.stdout);
    let github = surefoot(folder.path(), &["check", ".", "-o", "github"], "")?;
    ensure!(github.stdout.contains("::notice title=surefoot::2 templates of the Helm chart"), "{}", github.stdout);
    let junit = surefoot(folder.path(), &["check", ".", "-o", "junit"], "")?;
    ensure!(junit.stdout.matches("a template that is not rendered").count() == 3, "{}", junit.stdout);
    let inside = surefoot(&folder.path().join("charts/model/templates"), &["check", "."], "")?;
    ensure!(inside.stderr.contains("2 templates of the Helm chart /"), "{}", inside.stderr);
    let named = surefoot(folder.path(), &["check", "other.yaml"], "")?;
    ensure!(named.code == Some(2) && named.stderr.contains("render it first"), "{}", named.stderr);
    Ok(())
}

fn a_deployment_is_never_passed_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wide: Vec<u8> = SAFE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let rows: [(&[u8], &str); 6] = [
        (b"kind: Deployment\nspec:\n\treplicas: 1\n", "a.yaml:3:2: "),
        (b"kind: \"Deployment\" # \xff\n", "a.yaml:1:22: not UTF-8"),
        (&[&[0xff, 0xfe][..], &wide].concat(), "this is UTF-16"),
        (b"apiVersion: apps/v1\nspec: {replicas: 1}\n", "it has no `kind`"),
        (b"- apiVersion: apps/v1\n  kind: Deployment\n", "a bare list of objects"),
        (b"a: 1\n---\napiVersion: v1\nkind: Service\n", "a.yaml:1:1: not a Kubernetes object"),
    ];
    for (text, words) in rows {
        write(folder.path(), "a.yaml", text)?;
        let run = surefoot(folder.path(), &["check", ".", "-o", "json"], "")?;
        let failure = &run.json()?["failures"][0];
        let told = format!("a.yaml:{}:{}: {}", failure["line"], failure["column"], failure["message"]);
        ensure!(run.code == Some(2) && told.replace('"', "").contains(words), "`{words}` is not in {told}");
    }
    Ok(())
}

/// A container without probes, as JSON.
fn unsafe_one(name: &str) -> Result<Value> {
    let mut object: Value = serde_saphyr::from_str(SAFE)?;
    object["metadata"]["name"] = name.into();
    object["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = Value::Null;
    Ok(object)
}

fn list(items: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn lists_in_lists_are_judged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let one = list(json!([list(json!([list(json!([])), unsafe_one("b")?])), unsafe_one("a")?]));
    let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &format!("{one:#}"))?;
    let report = run.json()?;
    ensure!(run.code == Some(1) && report["objects"].as_array().map(Vec::len) == Some(2), "{report:#}");
    let inner = &report["objects"][0];
    let line = inner["findings"][0]["line"].as_u64().context("a line")? as usize;
    ensure!(inner["name"] == "b" && inner["findings"][0]["code"] == "no-readiness", "{inner:#}");
    ensure!(inner["line"].as_u64() < Some(line as u64) && format!("{one:#}").lines().count() > line, "{inner:#}");
    let odd = surefoot(folder.path(), &["check", "-"], "kind: List\nitems: {a: 1}\n")?;
    ensure!(odd.code == Some(2) && odd.stderr.contains("items of a List are no list"), "{}", odd.stderr);
    Ok(())
}

/// `kubectl get --raw /apis/apps/v1/deployments`: only the list says what its items are.
fn what_the_api_server_lists_is_judged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut item = unsafe_one("a")?;
    let members = item.as_object_mut().context("an object")?;
    members.retain(|key, _| key != "apiVersion" && key != "kind");
    let raw = json!({"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [item]});
    let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &raw.to_string())?;
    let findings = &run.json()?["objects"][0]["findings"];
    ensure!(run.code == Some(1) && findings[0]["code"] == "no-readiness", "{findings:#}");
    ensure!(findings.as_array().map(Vec::len) == Some(1), "{findings:#}");
    Ok(())
}

fn a_bad_item_hides_no_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let all = list(json!([null, unsafe_one("a")?, 5, {"kind": ""}, unsafe_one("b")?]));
    let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &all.to_string())?;
    let report = run.json()?;
    let count = |what: &str| report[what].as_array().map(Vec::len);
    ensure!(run.code == Some(2), "exit code {:?}", run.code);
    ensure!((count("objects"), count("failures")) == (Some(2), Some(3)), "{report:#}");
    Ok(())
}

fn what_is_given_twice_is_read_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), "a.yaml", SAFE)?;
    for arguments in [["check", "-", "-"], ["check", "a.yaml", "a.yaml"]] {
        let run = surefoot(folder.path(), &arguments, SAFE)?;
        ensure!(run.code == Some(0) && run.stderr.is_empty(), "{arguments:?}: {}{}", run.stdout, run.stderr);
        ensure!(run.stdout.ends_with("1 Deployment would be admitted\n"), "{arguments:?}: {}", run.stdout);
    }
    Ok(())
}
