//! `surefoot check -o github|sarif|junit`, each read back as its reader does.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    check::{Run, SAFE, surefoot},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("check_output::github_annotations", github_annotations),
        trial("check_output::sarif", sarif),
        trial("check_output::sarif_fingerprints_stay", sarif_fingerprints_stay),
        trial("check_output::junit", junit),
        trial("check_output::names_give_no_commands", names_give_no_commands),
        trial("check_output::a_file_of_one_line", a_file_of_one_line),
        trial("check_output::exemptions_are_said", exemptions_are_said),
    ]
}

/// Two Deployments, one refused and one warned about, in a folder with an awkward name, and a file that is no manifest.
fn run(folder: &Path, format: &str) -> anyhow::Result<Run> {
    let k8s = folder.join("k8s, prod: 100%");
    fs::create_dir_all(&k8s)?;
    let readiness = "        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n";
    fs::write(k8s.join("a.yaml"), SAFE.replace(readiness, ""))?;
    let same = SAFE.replace("live, port: 8000}, failureThreshold: 6", "ready, port: 8000}, failureThreshold: 3");
    fs::write(k8s.join("b.yaml"), same.replace("name: churn\n", "name: other\n"))?;
    fs::write(k8s.join("c.yaml"), "kind: Deployment\nkind: Deployment\n")?;
    surefoot(folder, &["check", "k8s, prod: 100%", "-o", format], "")
}

fn github_annotations() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let run = run(folder.path(), "github")?;
    let lines: Vec<&str> = run.stdout.lines().collect();
    let expected = [
        "::error file=k8s%2C prod%3A 100%25/c.yaml,line=2,col=1,title=surefoot::`kind` is there twice",
        "::error file=k8s%2C prod%3A 100%25/a.yaml,line=18,col=9,title=probes/no-readiness::container \"model\" has no",
        "::warning file=k8s%2C prod%3A 100%25/b.yaml,line=22,col=24,title=probes/one-handler::container \"model\"",
        "1 of 2 Deployments would be refused",
    ];
    ensure!(lines.len() == expected.len(), "{}", run.stdout);
    for (line, expected) in lines.iter().zip(expected) {
        ensure!(line.starts_with(expected), "want {expected}\ngot  {line}");
    }
    ensure!(
        lines[1].contains("%0AAt ") || lines[1].contains("%0ADeployment shop/churn: spec.template.spec"),
        "{}",
        lines[1]
    );
    ensure!(run.code == Some(2), "exit code {:?}", run.code);
    Ok(())
}

fn sarif() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let log = run(folder.path(), "sarif")?.json()?;
    ensure!(log["version"] == "2.1.0" && log["$schema"].is_string(), "{log:#}");
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    ensure!(driver["name"] == "surefoot", "{driver:#}");
    let results = run["results"].as_array().context("results")?;
    ensure!(results.len() == 2, "{results:#?}");
    for result in results {
        let rule = &driver["rules"][result["ruleIndex"].as_u64().context("ruleIndex")? as usize];
        ensure!(rule["id"] == result["ruleId"] && rule["shortDescription"]["text"].is_string(), "{rule:#}");
        let tags = rule["properties"]["tags"].as_array().context("tags")?;
        ensure!(tags.iter().collect::<Vec<_>>().windows(2).all(|pair| pair[0] != pair[1]), "tags are unique: {rule:#}");
        ensure!(rule["fullDescription"]["text"].as_str().is_some_and(|text| text.len() > 20), "{rule:#}");
        let physical = &result["locations"][0]["physicalLocation"];
        let uri = physical["artifactLocation"]["uri"].as_str().context("uri")?;
        ensure!(uri.starts_with("k8s%2C%20prod%3A%20100%25/"), "{uri}");
        let (start, end) = (&physical["region"]["startColumn"], &physical["region"]["endColumn"]);
        ensure!(start.as_u64() < end.as_u64() && physical["region"]["startLine"].as_u64() > Some(1), "{physical:#}");
        ensure!(result["message"]["text"].is_string(), "{result:#}");
    }
    ensure!(results[0]["level"] == "error" && results[1]["level"] == "warning", "{results:#?}");
    let invocation = &run["invocations"][0];
    ensure!(invocation["executionSuccessful"] == false && invocation["exitCode"] == 2, "{invocation:#}");
    let told = &invocation["toolExecutionNotifications"][0];
    ensure!(told["locations"][0]["physicalLocation"]["region"]["startLine"] == 2, "{told:#}");
    // A single brace would begin a placeholder.
    let text = results[0]["message"]["text"].as_str().unwrap_or_default();
    ensure!(text.contains("fix: readinessProbe: {{httpGet: {{path: ") && text.contains("}}}}"), "{text}");
    let piped =
        surefoot(folder.path(), &["check", "-", "-o", "sarif"], "kind: Deployment\nspec: {}\n---\n- a\n")?.json()?;
    let run = &piped["runs"][0];
    for told in [&run["results"][0], &run["invocations"][0]["toolExecutionNotifications"][0]] {
        let physical = &told["locations"][0]["physicalLocation"];
        ensure!(physical["artifactLocation"] == serde_json::json!({"uri": "stdin"}), "{told:#}");
        ensure!(physical["region"]["startLine"].is_u64(), "{told:#}");
    }
    Ok(())
}

/// A finding keeps its fingerprint when lines move and containers are put in another order, and loses it in another place.
fn sarif_fingerprints_stay() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let readiness = "        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n";
    let bad = SAFE.replace(readiness, "");
    let (head, container) = bad.split_once("      - name: model\n").context("a container")?;
    let sidecar = format!("      - name: sidecar\n{}", SAFE.split_once("      - name: model\n").context("one")?.1);
    let moved = format!("# moved\n\n{head}{sidecar}      - name: model\n{container}");
    let other = bad.replace("name: model", "name: scorer");
    let mut prints = Vec::new();
    for text in [&bad, &moved, &other] {
        fs::write(folder.path().join("a.yaml"), text)?;
        let log: Value = surefoot(folder.path(), &["check", "a.yaml", "-o", "sarif"], "")?.json()?;
        let results = log["runs"][0]["results"].as_array().context("results")?;
        let result = results.iter().find(|it| it["ruleId"] == "probes/no-readiness").context("the finding")?;
        prints.push(result["partialFingerprints"]["surefoot/v1"].as_str().context("a fingerprint")?.to_owned());
    }
    ensure!(prints[0] == prints[1] && prints[0] != prints[2], "{prints:?}");
    Ok(())
}

fn junit() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let run = run(folder.path(), "junit")?;
    let document = roxmltree::Document::parse(&run.stdout).with_context(|| run.stdout.clone())?;
    let root = document.root_element();
    let counts = ["failures", "errors"].map(|name| root.attribute(name).unwrap_or_default());
    ensure!(counts == ["1", "1"], "{}", run.stdout);
    let cases = document.descendants().filter(|node| node.has_tag_name("testcase"));
    let (skipped, cases): (Vec<_>, Vec<_>) = cases.partition(|case| case.attribute("classname") == Some("policies"));
    ensure!(root.attribute("skipped") == Some(skipped.len().to_string().as_str()), "{}", run.stdout);
    let [failed, warned, unread] = cases.as_slice() else { anyhow::bail!("{}", run.stdout) };
    ensure!(failed.attribute("file") == Some("k8s, prod: 100%/a.yaml"), "{}", run.stdout);
    let child = |case: &roxmltree::Node<'_, '_>, tag: &str| {
        case.children().find(|node| node.has_tag_name(tag)).map(|node| node.text().unwrap_or_default().to_owned())
    };
    ensure!(child(failed, "failure").is_some_and(|text| text.contains("a.yaml:18:9")), "{}", run.stdout);
    ensure!(child(warned, "system-out").is_some_and(|text| text.contains("probes/one-handler")), "{}", run.stdout);
    ensure!(child(warned, "failure").is_none() && child(unread, "error").is_some(), "{}", run.stdout);
    Ok(())
}

/// Names that move a cursor, or begin a line that a runner obeys.
fn names_give_no_commands() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let odd = r#"name: "x\n::error::owned \e[31mred\a ##[add-mask]y \u202e""#;
    let text = SAFE
        .replace("name: churn\n", &format!("{odd}\n"))
        .replace("namespace: shop", r#"namespace: "shop\n::warning::x""#)
        .replace("name: model", odd)
        .replace("        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n", "");
    fs::write(folder.path().join("n\n::error::b\u{1b}[2J##[group]c.yaml"), format!("{text}# ##[group]\n"))?;
    fs::write(folder.path().join("b\n::error::b.yaml"), "kind: Deployment\nkind: Deployment\n")?;
    let config = "apiVersion: surefoot.dev/v1\nkind: Config\nexemptions:\n- {policies: [probes], namespace: \"shop\\n::warning::x\", \
                  name: \"*\", reason: \"x\\n::error::y\", until: 2099-01-31}\n";
    fs::create_dir(folder.path().join(".c"))?;
    fs::write(folder.path().join(".c/config.yaml"), config)?;
    for arguments in
        [&["check", "."][..], &["check", ".", "-o", "github"], &["check", ".", "--config", ".c/config.yaml"]]
    {
        let run = surefoot(folder.path(), arguments, "")?;
        let all = format!("{}{}", run.stdout, run.stderr);
        ensure!(run.code == Some(2), "{arguments:?}: {all}");
        let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        // In a command nothing looks for another one.
        let old = all.lines().any(|line| !line.starts_with("::") && line.contains("##["));
        ensure!(!all.contains(odd) && !old, "{arguments:?}: {all:?}");
        let commands = all.lines().filter(|line| line.trim_start().starts_with("::"));
        let forged = commands.filter(|line| !line.starts_with("::error file=") && !line.starts_with("::warning file="));
        ensure!(forged.count() == 0, "{arguments:?}: {all}");
        ensure!(all.contains(r"\n::error::owned \u{1b}[31mred\u{7}"), "{arguments:?}: {all}");
    }
    Ok(())
}

/// What `kubectl get -o json` gives when it is piped through `jq -c`: no longer to show than the same on many lines.
fn a_file_of_one_line() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let containers: Vec<Value> =
        (0..200).map(|number| serde_json::json!({"name": format!("m{number}"), "image": "x"})).collect();
    let mut object: Value = serde_saphyr::from_str(SAFE)?;
    object["spec"]["template"]["spec"]["containers"] = containers.into();
    let timed = |text: String| -> anyhow::Result<(String, std::time::Duration)> {
        let started = std::time::Instant::now();
        let run = surefoot(folder.path(), &["check", "-"], &text)?;
        ensure!(run.code == Some(1), "{}", run.stderr);
        Ok((run.stdout, started.elapsed()))
    };
    let (text, one) = timed(object.to_string())?;
    let (_, many) = timed(format!("{object:#}"))?;
    ensure!(one < many * 4 + std::time::Duration::from_secs(2), "one line {one:?}, many {many:?}");
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    ensure!(widest < 260, "a line of {widest} characters");
    let excerpt = text.lines().find(|line| line.starts_with("1 | …")).context("no excerpt")?;
    let caret = text.lines().find(|line| line.starts_with("  | ") && line.contains('^')).context("no caret")?;
    let (at, length) = (caret.find('^').context("a caret")?, caret.matches('^').count());
    let under: String = excerpt.chars().skip(at).take(length).collect();
    ensure!(under.starts_with('{') || under.starts_with('"'), "{excerpt}\n{caret}");
    Ok(())
}

fn exemptions_are_said() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let readiness = "        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n";
    fs::write(folder.path().join("a.yaml"), SAFE.replace(readiness, ""))?;
    let config = "apiVersion: surefoot.dev/v1\nkind: Config\nexemptions:\n- {policies: [probes], namespace: shop, name: churn, \
                  reason: \"speaks only TCP, OPS-311\", until: 2099-01-31}\n";
    fs::write(folder.path().join("config.yaml"), config)?;
    let text = surefoot(folder.path(), &["check", "a.yaml", "--config", "config.yaml"], "")?;
    for line in [
        "a.yaml    Deployment shop/churn   ok   1 exempted\n",
        "exempted: 1 finding of probes on shop/churn until 2099-01-31 (speaks only TCP, OPS-311)\n",
        "1 Deployment would be admitted\n",
    ] {
        ensure!(text.stdout.contains(line) && text.code == Some(0), "{}", text.stdout);
    }
    ensure!(!text.stdout.contains("no readinessProbe"), "{}", text.stdout);
    let json = surefoot(folder.path(), &["check", "a.yaml", "--config", "config.yaml", "-o", "json"], "")?.json()?;
    let object = &json["objects"][0];
    ensure!(object["findings"] == Value::Array(Vec::new()) && object["verdict"] == "allowed", "{object:#}");
    let silenced = &object["silenced"][0];
    ensure!(silenced["code"] == "no-readiness" && silenced["exemption"]["until"] == "2099-01-31", "{silenced:#}");
    Ok(())
}
