//! The unit tests of the shipped policies, through the engine that judges, and every case below `tests/cases` through the
//! real binary.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use surefoot::admission::{PolicySet, run_tests};

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("policies::their_unit_tests_pass", their_unit_tests_pass),
        trial("policies::each_has_cases_that_deny_and_that_allow", each_has_cases_that_deny_and_that_allow),
        trial("policies::a_model_server_of_ones_own", a_model_server_of_ones_own),
        trial("policies::a_model_server_that_is_none", a_model_server_that_is_none),
        trial("policies::five_hundred_containers", five_hundred_containers),
    ];
    trials.extend(cases_of_files().into_iter().map(|case| {
        let name = format!("policies::case::{}", shown(&case));
        trial(&name, move || holds(&case))
    }));
    trials
}

fn their_unit_tests_pass() -> anyhow::Result<()> {
    let started = Instant::now();
    let sources = PolicySet::built_in_sources();
    let outcomes = run_tests(&sources)?;
    let mut counts = BTreeMap::<&str, usize>::new();
    for outcome in &outcomes {
        *counts.entry(outcome.file.split('/').next().unwrap_or_default()).or_default() += 1;
    }
    for (folder, count) in &counts {
        println!("{folder:18} {count:3} tests");
    }
    println!("{:18} {:3} tests in {} ms", "all policies", outcomes.len(), started.elapsed().as_millis());
    let failed: Vec<_> = outcomes
        .iter()
        .filter_map(|it| Some(format!("policies/{}:{}: {}: {}", it.file, it.line, it.name, it.failed.as_ref()?)))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    let folders: BTreeSet<_> = sources.iter().filter_map(|source| source.path.split('/').next()).collect();
    for folder in folders {
        ensure!(counts.contains_key(folder), "policies/{folder} has no tests");
    }
    Ok(())
}

/// `check` of files does not ask these. `surefoot test` does, which takes records and walls from the case:
/// `workbench::the_shipped_set_passes_and_is_covered`.
const NEED_A_CLUSTER: [&str; 2] = ["isolation", "one-at-a-time"];

/// A policy that denies shows it on a whole manifest, and each shows one that it lets through.
fn each_has_cases_that_deny_and_that_allow() -> anyhow::Result<()> {
    let sources = PolicySet::built_in_sources();
    let wants =
        cases().into_iter().map(|case| Ok((policy_of(&case), Want::of(&case)?))).collect::<anyhow::Result<Vec<_>>>()?;
    for source in sources.iter().filter(|source| source.path.ends_with("/policy.rego")) {
        let folder = source.path.trim_end_matches("/policy.rego");
        let own = || wants.iter().filter(|(policy, _)| policy == folder);
        let denies = source.text.lines().any(|line| line.starts_with("deny contains"));
        ensure!(
            !denies || own().any(|(_, want)| !want.deny.is_empty()),
            "tests/cases/{folder} has no case that denies"
        );
        ensure!(own().any(|(_, want)| want.deny.is_empty()), "tests/cases/{folder} has no case that allows");
    }
    Ok(())
}

/// The configuration knows a server that the catalogue does not: its probes are added like those of the others.
fn a_model_server_of_ones_own() -> anyhow::Result<()> {
    const CONFIG: &str = "apiVersion: surefoot.dev/v1
kind: Config
policies:
  probes:
    parameters:
      servers:
      - {name: Scorer, image: acme/scorer-*, port: 9000, ready: /up, live: /alive, startup: 120}
";
    const DEPLOYMENT: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "churn"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
        {"name": "model", "image": "registry.local/acme/scorer-churn:2", "ports": [{"containerPort": 9000}]}]}}}}"#;
    let folder = tempfile::tempdir()?;
    let (config, manifest) = (folder.path().join("config.yaml"), folder.path().join("churn.json"));
    fs::write(&config, CONFIG)?;
    fs::write(&manifest, DEPLOYMENT)?;
    let run = Command::new(env!("CARGO_BIN_EXE_surefoot"))
        .args(["check", "-o", "json", "--config"])
        .args([&config, &manifest])
        .output()?;
    let report: Value = serde_json::from_slice(&run.stdout).with_context(|| format!("{run:?}"))?;
    let of_probes = |key: &str| -> Vec<&Value> {
        let all = report["objects"][0][key].as_array().into_iter().flatten();
        all.filter(|one| one["policy"] == "probes").collect()
    };
    let added: Vec<_> = of_probes("defaults").iter().map(|one| &one["value"]["httpGet"]["path"]).collect();
    ensure!(added == ["/up", "/up"], "{report}");
    let findings = of_probes("findings");
    ensure!(findings.len() == 1 && findings[0]["code"] == "no-liveness", "{report}");
    let fix = "livenessProbe: {httpGet: {path: /alive, port: 9000}, failureThreshold: 6}";
    ensure!(findings[0]["fix"] == fix, "{report}");
    Ok(())
}

/// A server that the policy would pass over without a word is an error of the configuration, where it stands.
fn a_model_server_that_is_none() -> anyhow::Result<()> {
    const CONFIG: &str = "apiVersion: surefoot.dev/v1
kind: Config
policies:
  probes:
    parameters:
      servers:
      - {name: Scorer, image: acme/scorer-*, port: 9000, ready: /up}
      - name: Tagger
        imagez: acme/tagger
        port: \"8080\"
        ready: /up
    overrides:
    - namespaces: {matchLabels: {tier: research}}
      parameters:
        servers:
        - {image: acme/scorer, port: 70000}
        - acme/scorer
";
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.yaml");
    fs::write(&config, CONFIG)?;
    let run =
        Command::new(env!("CARGO_BIN_EXE_surefoot")).args(["check", "--config"]).args([&config, &config]).output()?;
    let told = String::from_utf8_lossy(&run.stderr);
    let told: Vec<_> = told.lines().filter_map(|line| Some(line.split_once("config.yaml:")?.1)).collect();
    let wanted = [
        "9:9: `servers[1]` has no member `imagez`; did you mean `image`?",
        "10:9: `servers[1].port` must be a number, not text",
        "16:11: `servers[0]` must have `ready`",
        "16:32: `servers[0].port` must be at most 65535",
        "17:11: `servers[1]` must be a mapping, not text",
    ];
    ensure!(run.status.code() == Some(2) && told == wanted, "{run:?}");
    Ok(())
}

/// Each of them is judged, in time, and the one that is wrong is named.
fn five_hundred_containers() -> anyhow::Result<()> {
    let container = |index: usize| {
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http"}});
        json!({
            "name": format!("model-{index}"), "image": format!("registry.local/churn:{index}"),
            "ports": [{"name": "http", "containerPort": 8000 + index}],
            "readinessProbe": probe("/ready"), "livenessProbe": probe("/live"),
            "resources": {"requests": {"cpu": "1", "memory": "1.5Gi"}, "limits": {"cpu": "1e3", "memory": "2e9"}},
        })
    };
    let mut containers: Vec<Value> = (0..500).map(container).collect();
    containers[499].as_object_mut().context("a container")?.remove("readinessProbe");
    containers[499]["resources"]["limits"]["memory"] = json!("1.4Gi");
    let labels = json!({"app.kubernetes.io/name": "churn", "app.kubernetes.io/version": "1"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "churn", "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": "churn"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    });
    let folder = tempfile::tempdir()?;
    let manifest = folder.path().join("churn.json");
    fs::write(&manifest, deployment.to_string())?;
    let run = Command::new(env!("CARGO_BIN_EXE_surefoot")).args(["check", "-o", "json"]).arg(&manifest).output()?;
    let report: Value = serde_json::from_slice(&run.stdout).with_context(|| format!("{run:?}"))?;
    ensure!(report["failures"] == json!([]), "{}", report["failures"]);
    let found = report["objects"][0]["findings"].as_array().context("findings")?;
    let found: BTreeSet<_> = found.iter().filter_map(|finding| finding["path"].as_str()).collect();
    let last = "/spec/template/spec/containers/499";
    let wanted = [format!("{last}/readinessProbe"), format!("{last}/resources/requests/memory")];
    ensure!(found == wanted.iter().map(String::as_str).collect(), "{found:?}");
    Ok(())
}

/// What the first line of a case asks for: `# want: deny CODE…`, `# want: warn CODE…`, `# want: allow`.
#[derive(Debug, Default, PartialEq)]
struct Want {
    deny: BTreeSet<String>,
    warn: BTreeSet<String>,
}

impl Want {
    fn of(case: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(case)?;
        let first = text.lines().next().unwrap_or_default();
        let wanted =
            first.strip_prefix("# want:").with_context(|| format!("{} does not begin with `# want:`", shown(case)))?;
        let mut want = Self::default();
        let mut codes: Option<&mut BTreeSet<String>> = None;
        for word in wanted.split([' ', ',', ';']).filter(|word| !word.is_empty()) {
            match (word, &mut codes) {
                ("deny", _) => codes = Some(&mut want.deny),
                ("warn", _) => codes = Some(&mut want.warn),
                ("allow", _) => codes = None,
                (code, Some(codes)) => drop(codes.insert(code.to_owned())),
                (word, None) => anyhow::bail!("{}: `{word}` is no word of a want line", shown(case)),
            }
        }
        Ok(want)
    }
}

/// All documents but the last are the cluster, the last is applied: its findings of this policy are what is wanted.
fn holds(case: &Path) -> anyhow::Result<()> {
    let want = Want::of(case)?;
    let run = Command::new(env!("CARGO_BIN_EXE_surefoot")).args(["check", "-o", "json"]).arg(case).output()?;
    let report: Value = serde_json::from_slice(&run.stdout)
        .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&run.stderr)))?;
    ensure!(report["failures"] == Value::Array(Vec::new()), "{}", report["failures"]);
    let applied = report["objects"].as_array().and_then(|objects| objects.last()).context("no Deployment in it")?;
    let policy = policy_of(case);
    let found = |level: &str| -> BTreeSet<String> {
        let findings = applied["findings"].as_array().into_iter().flatten();
        findings
            .filter(|finding| finding["policy"] == *policy && finding["level"] == level)
            .filter_map(|finding| Some(finding["code"].as_str()?.to_owned()))
            .collect()
    };
    let (denied, warned) = (found("deny"), found("warn"));
    ensure!(denied == want.deny, "want deny {:?}, got {denied:?}", want.deny);
    ensure!(warned == want.warn, "want warn {:?}, got {warned:?}", want.warn);
    let refused = report["objects"].as_array().into_iter().flatten().any(|object| object["verdict"] == "denied");
    ensure!(run.status.code() == Some(i32::from(refused)), "exit code {:?}", run.status.code());
    Ok(())
}

/// Those of policies that `check` of files asks.
pub(crate) fn cases_of_files() -> Vec<PathBuf> {
    cases().into_iter().filter(|case| !NEED_A_CLUSTER.contains(&policy_of(case).as_str())).collect()
}

fn cases() -> Vec<PathBuf> {
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut cases: Vec<_> = below(top().join("tests/cases")).flat_map(below).collect();
    cases.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    cases.sort();
    cases
}

/// The folder that a case lies in is the policy that it is about.
fn policy_of(case: &Path) -> String {
    case.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn shown(case: &Path) -> String {
    case.strip_prefix(top().join("tests/cases")).unwrap_or(case).display().to_string()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
