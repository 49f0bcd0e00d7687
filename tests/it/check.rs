//! `surefoot check` as a person or a pipeline runs it: the real binary, its output and its exact exit code.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("check::a_folder_with_one_unsafe_file", a_folder_with_one_unsafe_file),
        trial("check::defaults_count_unless_they_are_left_out", defaults_count_unless_they_are_left_out),
        trial("check::bad_files_are_named_and_the_others_judged", bad_files_are_named_and_the_others_judged),
        trial("check::bad_input_has_a_place_and_a_way_out", bad_input_has_a_place_and_a_way_out),
        trial("check::stdin_lists_json_and_folders", stdin_lists_json_and_folders),
        trial("check::policies_and_configuration_that_do_not_load", policies_and_configuration_that_do_not_load),
        trial("check::a_policy_that_breaks_refuses_and_says_so", a_policy_that_breaks_refuses_and_says_so),
        trial("check::an_endless_policy_costs_its_time_once", an_endless_policy_costs_its_time_once),
        trial("check::namespaces_are_of_a_cluster", namespaces_are_of_a_cluster),
        trial("check::peers_come_from_the_files", peers_come_from_the_files),
        trial("check::what_no_hook_is_asked_about", what_no_hook_is_asked_about),
        trial("check::given_again_is_an_update", given_again_is_an_update),
        trial("check::nothing_to_judge", nothing_to_judge),
        trial("check::colour_only_where_it_is_wanted", colour_only_where_it_is_wanted),
        trial("check::usage_errors_and_help", usage_errors_and_help),
    ]
}

/// What one run of the binary gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("no JSON on stdout: {}\n{}", self.stdout, self.stderr))
    }
}

pub(crate) fn surefoot(folder: &Path, arguments: &[&str], stdin: &str) -> anyhow::Result<Run> {
    run(Command::new(env!("CARGO_BIN_EXE_surefoot")).args(arguments).current_dir(folder), stdin)
}

pub(crate) fn run(command: &mut Command, stdin: &str) -> anyhow::Result<Run> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // A command that does not read its input has closed it, which is no failure of this test.
    let _ = child.stdin.take().context("stdin")?.write_all(stdin.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    Ok(Run { code: status.code(), stdout: String::from_utf8(stdout)?, stderr: String::from_utf8(stderr)? })
}

/// A Deployment that does not decode, for runs that need a denial and no policy.
const NO_DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn, namespace: shop}
spec:
  replicas: two
";

fn bad_files_are_named_and_the_others_judged() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("a.yaml"), "kind: Deployment\nkind: 2\n")?;
    fs::write(folder.path().join("b.yaml"), NO_DEPLOYMENT)?;
    fs::write(folder.path().join("c.yaml"), b"a: \xff\nkind: Deployment\n")?;

    let text = surefoot(folder.path(), &["check", "."], "")?;
    ensure!(text.code == Some(2), "exit code {:?}", text.code);
    for words in ["./a.yaml:2:1", "remove one of them", "./c.yaml:1:4: not UTF-8"] {
        ensure!(text.stderr.contains(words), "`{words}` is not in\n{}", text.stderr);
    }
    for words in
        ["error[kubernetes/invalid]", "--> ./b.yaml:5:13", "spec.replicas", "1 of 1 Deployment would be refused"]
    {
        ensure!(text.stdout.contains(words), "`{words}` is not in\n{}", text.stdout);
    }

    let json = surefoot(folder.path(), &["check", ".", "-o", "json"], "")?;
    ensure!(json.code == Some(2), "exit code {:?}", json.code);
    let report = json.json()?;
    ensure!(report["version"] == 1, "{report}");
    let object = &report["objects"][0];
    ensure!(object["verdict"] == "denied" && object["namespace"] == "shop" && object["line"] == 1, "{object}");
    let finding = &object["findings"][0];
    ensure!(finding["path"] == "/spec/replicas" && finding["line"] == 5 && finding["column"] == 13, "{finding}");
    let places: Vec<_> = report["failures"]
        .as_array()
        .context("failures")?
        .iter()
        .map(|it| (&it["file"], &it["line"], &it["column"]))
        .collect();
    ensure!(
        places == [(&Value::from("./a.yaml"), &2.into(), &1.into()), (&"./c.yaml".into(), &1.into(), &4.into())],
        "{places:?}"
    );
    Ok(())
}

fn bad_input_has_a_place_and_a_way_out() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cases = [
        ("", "<stdin>: empty"),
        ("# nothing\n", "<stdin>: empty"),
        ("- a\n", "<stdin>:1:1"),
        ("just text\n", "<stdin>:1:1"),
        ("apiVersion: v1\n", "it has no `kind`"),
        ("kind: Deployment\n\tapiVersion: apps/v1\n", "indent with spaces"),
        ("kind: [Deployment\n", "<stdin>:"),
        ("{\"kind\": \"Deployment\"", "<stdin>:1:"),
        ("metadata: {{ .Values.meta }}\n", "helm template"),
        ("a: &a [*a]\n", "<stdin>:1:8"),
    ];
    for (input, words) in cases {
        let run = surefoot(folder.path(), &["check", "-"], input)?;
        ensure!(run.code == Some(2), "{input:?}: exit code {:?}\n{}", run.code, run.stderr);
        ensure!(run.stderr.contains(words), "{input:?}: `{words}` is not in\n{}", run.stderr);
        ensure!(!run.stderr.contains("panicked"), "{input:?}\n{}", run.stderr);
    }
    Ok(())
}

fn stdin_lists_json_and_folders() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let list =
        format!("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n{}", as_item(NO_DEPLOYMENT));
    let json =
        r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replicas": true}}"#;
    fs::create_dir_all(folder.path().join("deep/er"))?;
    fs::write(folder.path().join("deep/er/list.yml"), &list)?;
    fs::write(folder.path().join("deep/x.json"), json)?;
    fs::write(folder.path().join("deep/.hidden.yaml"), "a: [\n")?;

    let report = surefoot(folder.path(), &["check", "deep", "-", "-o", "json"], NO_DEPLOYMENT)?.json()?;
    let seen: Vec<_> = report["objects"]
        .as_array()
        .context("objects")?
        .iter()
        .map(|object| {
            format!(
                "{}#{} {}/{} {}",
                object["file"], object["index"], object["namespace"], object["name"], object["findings"][0]["line"]
            )
            .replace('"', "")
        })
        .collect();
    let expected = ["deep/er/list.yml#1 shop/churn 10", "deep/x.json#0 default/x 1", "<stdin>#0 shop/churn 5"];
    ensure!(seen == expected, "{seen:?}");
    ensure!(report["failures"] == Value::Array(Vec::new()), "{report}");
    Ok(())
}

/// A document as an item of a block list.
fn as_item(document: &str) -> String {
    document
        .lines()
        .enumerate()
        .map(|(number, line)| format!("{} {line}\n", if number == 0 { "-" } else { " " }))
        .collect()
}

/// A policy of one file, the rest of its text given.
fn policy(folder: &Path, rest: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("mine/owner"))?;
    let text = format!("# METADATA\n# title: Owner\n# custom:\n#   action: Deny\npackage surefoot.owner\n\n{rest}\n");
    Ok(fs::write(folder.join("mine/owner/policy.rego"), text)?)
}

/// A Deployment that decodes.
const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn, namespace: shop, labels: {surefoot.dev/model: churn}}
spec:
  replicas: 3
  selector: {matchLabels: {app: churn}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      containers:
      - name: model
        image: registry.local/churn:2.4.0
";

/// As a whole, as a person sees it: the block with the caret, the table, the verdict.
fn a_folder_with_one_unsafe_file() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let k8s = folder.path().join("k8s");
    fs::create_dir(&k8s)?;
    let canary = SAFE
        .replace("name: churn\n", "name: churn-canary\n")
        .replace("2.4.0", "2.5.0")
        .replace("replicas: 20", "replicas: 2");
    fs::write(
        k8s.join("canary.yaml"),
        canary.replace("model: churn\n", "model: churn\n    surefoot.dev/track: canary\n"),
    )?;
    let readiness = "        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n";
    fs::write(k8s.join("churn.yaml"), SAFE.replace(readiness, ""))?;
    let run = surefoot(folder.path(), &["check", "k8s"], "")?;
    let expected = "\
error[probes/no-readiness]: container \"model\" has no readinessProbe, so it gets traffic before the model has loaded
  --> k8s/churn.yaml:18:9
   |
18 |       - name: model
   |         ^^^^^^^^^^^ spec.template.spec.containers[0].readinessProbe
   |
   = fix: readinessProbe: ";
    ensure!(run.stdout.starts_with(expected), "want\n{expected}\ngot\n{}", run.stdout);
    let end = "

k8s/canary.yaml    Deployment shop/churn-canary   ok
k8s/churn.yaml     Deployment shop/churn          1 error
skipped: isolation needs a live namespace (--cluster)
skipped: one-at-a-time needs history (--cluster)
1 of 2 Deployments would be refused                                            exit code 1
";
    ensure!(run.stdout.ends_with(end), "want\n{end}\ngot\n{}", run.stdout);
    ensure!(run.code == Some(1) && run.stderr.is_empty(), "exit code {:?}\n{}", run.code, run.stderr);
    Ok(())
}

/// A recognised server without probes of its own: what the policies add makes the difference.
fn defaults_count_unless_they_are_left_out() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let own: Vec<_> =
        SAFE.lines().filter(|line| !line.contains("readinessProbe") && !line.contains("startupProbe")).collect();
    let triton = own.join("\n").replace("registry.local/churn:2.4.0", "nvcr.io/nvidia/tritonserver:24.08-py3");
    let with = surefoot(folder.path(), &["check", "-", "-o", "json"], &triton)?;
    let report = with.json()?;
    let object = &report["objects"][0];
    ensure!(with.code == Some(0) && object["verdict"] == "allowed", "{object:#}");
    let added: Vec<_> =
        object["defaults"].as_array().context("defaults")?.iter().filter_map(|it| it["path"].as_str()).collect();
    let readiness = "/spec/template/spec/containers/0/readinessProbe";
    ensure!(added.contains(&readiness), "{added:?}");
    let text = surefoot(folder.path(), &["check", "-"], &triton)?.stdout;
    ensure!(text.contains("would be added") && text.ends_with("1 Deployment would be admitted\n"), "{text}");

    let without = surefoot(folder.path(), &["check", "-", "-o", "json", "--no-defaults"], &triton)?;
    let object = &without.json()?["objects"][0];
    ensure!(without.code == Some(1) && object["findings"][0]["path"] == readiness, "{object:#}");
    ensure!(object["defaults"] == Value::Array(Vec::new()), "{object:#}");
    Ok(())
}

/// Nothing is to be said of it.
pub(crate) const SAFE: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: churn
  namespace: shop
  labels:
    app.kubernetes.io/version: 2.4.0
    surefoot.dev/model: churn
spec:
  replicas: 20
  minReadySeconds: 30
  selector: {matchLabels: {app: churn}}
  template:
    metadata:
      labels: {app: churn, app.kubernetes.io/version: 2.4.0}
    spec:
      containers:
      - name: model
        image: registry.local/churn:2.4.0
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}
        livenessProbe: {httpGet: {path: /v2/health/live, port: 8000}, failureThreshold: 6}
        startupProbe: {httpGet: {path: /v2/health/ready, port: 8000}, failureThreshold: 30}
        resources:
          requests: {cpu: 500m, memory: 1Gi}
          limits: {cpu: 2, memory: 2Gi}
";

fn policies_and_configuration_that_do_not_load() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("x.yaml"), DEPLOYMENT)?;
    fs::create_dir(folder.path().join("empty"))?;
    policy(folder.path(), "deny contains finding if {")?;
    fs::write(folder.path().join("bad.yaml"), "apiVersion: surefoot.dev/v1\nkind: Config\npolicies:\n  probs: {}\n")?;
    fs::write(folder.path().join("typo.yaml"), "apiVersion: surefoot.dev/v1\nkind: Config\npolices: {}\n")?;
    let cases = [
        (["--policies", "mine"], "error: mine/owner/policy.rego:"),
        (["--policies", "empty"], "no policies in empty"),
        (["--policies", "nowhere"], "nowhere"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot read this configuration"),
        (["--config", "bad.yaml"], "error: bad.yaml:4:3: "),
        (["--config", "bad.yaml"], "\n  4 |   probs: {}\n    |   ^\n"),
        (["--config", "typo.yaml"], "error: typo.yaml:3:1: "),
    ];
    for (arguments, words) in cases {
        let run = surefoot(folder.path(), &[&["check", "x.yaml"][..], &arguments].concat(), "")?;
        ensure!(run.code == Some(2), "{arguments:?}: exit code {:?}\n{}", run.code, run.stderr);
        ensure!(run.stderr.contains(words), "{arguments:?}: `{words}` is not in\n{}", run.stderr);
        ensure!(run.stdout.is_empty(), "{arguments:?}: a verdict without policies:\n{}", run.stdout);
    }
    let json = surefoot(folder.path(), &["check", "x.yaml", "-o", "json", "--config", "bad.yaml"], "")?;
    let failure = &json.json()?["failures"][0];
    ensure!(json.code == Some(2) && failure["line"] == 4 && failure["file"] == "bad.yaml", "{failure}");
    Ok(())
}

fn a_policy_that_breaks_refuses_and_says_so() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("x.yaml"), DEPLOYMENT)?;
    policy(folder.path(), "deny contains {\"msg\": \"x\"} if 1 / (input.request.object.spec.replicas - 3) == 1")?;
    let text = surefoot(folder.path(), &["check", "x.yaml", "--policies", "mine"], "")?;
    ensure!(text.code == Some(2), "exit code {:?}\n{}", text.code, text.stdout);
    ensure!(text.stderr.contains("policy owner is broken: mine/owner/policy.rego:7:"), "{}", text.stderr);
    ensure!(text.stdout.contains("1 of 1 Deployment would be refused"), "{}", text.stdout);
    let json = surefoot(folder.path(), &["check", "x.yaml", "--policies", "mine", "-o", "json"], "")?.json()?;
    ensure!(json["failures"][0]["policy"] == "owner" && json["failures"][0]["line"] == 7, "{}", json["failures"]);
    ensure!(json["objects"][0]["verdict"] == "denied", "{json}");
    Ok(())
}

/// Five seconds for one, not for each of the Deployments; all of them are refused, because a verdict is missing.
fn an_endless_policy_costs_its_time_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Made once: a range for each round would spend what an evaluation may make before its time is over.
    let endless = "many := numbers.range(1, 30000)\n\ndeny contains {\"msg\": \"x\"} if {\n\tsome a in many\n\tsome b in many\n\ta * b < 0\n}";
    policy(folder.path(), endless)?;
    const COUNT: usize = 20;
    let all: Vec<String> =
        (0..COUNT).map(|number| DEPLOYMENT.replace("name: churn,", &format!("name: churn-{number},"))).collect();
    let started = std::time::Instant::now();
    let run = surefoot(folder.path(), &["check", "-", "--policies", "mine", "-o", "json"], &all.join("---\n"))?;
    ensure!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
    let report = run.json()?;
    let failures = report["failures"].as_array().context("failures")?;
    let told = failures[0]["message"].as_str().unwrap_or_default();
    ensure!(failures.len() == 1 && told.ends_with("it is not asked again in this run"), "{failures:#?}");
    let denied = report["objects"].as_array().into_iter().flatten().filter(|it| it["verdict"] == "denied").count();
    ensure!(run.code == Some(2) && denied == COUNT, "{:?}, {denied} denied", run.code);
    Ok(())
}

fn what_no_hook_is_asked_about() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    policy(folder.path(), "deny contains {\"msg\": \"no\"}")?;
    let arguments = ["check", "-", "--policies", "mine"];
    for (namespace, code, told) in [
        ("shop", 1, "no"),
        ("kube-system", 0, "never judged: surefoot leaves kube-system alone"),
        ("surefoot-system", 0, "never judged: surefoot leaves surefoot-system alone"),
    ] {
        let text = DEPLOYMENT.replace("namespace: shop", &format!("namespace: {namespace}"));
        let run = surefoot(folder.path(), &arguments, &text)?;
        ensure!(run.code == Some(code) && run.stdout.contains(told), "{namespace}: {run:?}");
    }
    let run = surefoot(folder.path(), &arguments, &DEPLOYMENT.replace("kind: Deployment", "kind: Deploymnt"))?;
    let told = format!("{}{}", run.stdout, run.stderr);
    ensure!(run.code == Some(2) && told.contains("apps/v1 has no kind `Deploymnt`; did you mean"), "{run:?}");
    ensure!(told.contains(":2:"), "not where the kind is: {told}");
    Ok(())
}

/// What the usage offers is taken, and only that.
fn namespaces_are_of_a_cluster() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let usage = "Usage: surefoot check [OPTIONS] FILE|DIR|-...\n       surefoot check [OPTIONS] --cluster [-n NAMESPACE | -A]\n       surefoot check [OPTIONS] --cluster [-n NAMESPACE] FILE|DIR|-...";
    for (arguments, told) in [
        (&["check", "-A", "m.yaml"][..], "'--all-namespaces' cannot be used with '[FILE|DIR|-]...'"),
        (&["check", "--cluster", "-A", "m.yaml"], "'--all-namespaces' cannot be used with '[FILE|DIR|-]...'"),
        (
            &["check", "--cluster", "-A", "-n", "shop"],
            "'--all-namespaces' cannot be used with '--namespace <NAMESPACE>'",
        ),
        (&["check", "-A"], "required arguments were not provided:\n  --cluster\n\n"),
        (&["check"], "required arguments were not provided:\n  <FILE|DIR|->...\n\n"),
    ] {
        let run = surefoot(folder.path(), arguments, "")?;
        ensure!(
            run.code == Some(2) && run.stderr.contains(told) && run.stderr.contains(usage),
            "{arguments:?}: {run:?}"
        );
    }
    Ok(())
}

fn peers_come_from_the_files() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "deny contains {\"msg\": sprintf(\"%v\", [[p.metadata.name | some p in input.context.peers]])}\n\
                warn contains {\"msg\": \"history\"} if input.context.history";
    policy(folder.path(), text)?;
    let file = folder.path().join("mine/owner/policy.rego");
    let needs = |needs: &str| -> anyhow::Result<()> {
        let text =
            fs::read_to_string(&file)?.replace("action: Deny\n", &format!("action: Deny\n#   needs: [{needs}]\n"));
        Ok(fs::write(&file, text)?)
    };
    needs("peers")?;
    let others = [("b", "shop", "churn"), ("c", "shop", "other"), ("d", "risk", "churn")];
    let others = others.map(|(name, namespace, model)| {
        let text = DEPLOYMENT.replace("name: churn, namespace: shop", &format!("name: {name}, namespace: {namespace}"));
        text.replace("model: churn", &format!("model: {model}"))
    });
    let all = [DEPLOYMENT, &others[0], &others[1], &others[2]].join("---\n");
    let arguments = ["check", "-", "--policies", "mine", "-o", "json"];
    let report = surefoot(folder.path(), &arguments, &all)?.json()?;
    let told: Vec<_> =
        report["objects"].as_array().context("objects")?.iter().map(|it| &it["findings"][0]["message"]).collect();
    ensure!(told == ["[\"b\"]", "[\"churn\"]", "[]", "[]"], "{told:?}");

    policy(folder.path(), text)?;
    needs("peers, history")?;
    let report = surefoot(folder.path(), &arguments, DEPLOYMENT)?.json()?;
    ensure!(report["skipped"][0]["policy"] == "owner", "{report}");
    ensure!(report["skipped"][0]["needs"] == Value::from(vec!["history"]), "{report}");
    ensure!(report["objects"][0]["verdict"] == "allowed", "{report}");
    let text = surefoot(folder.path(), &["check", "-", "--policies", "mine"], DEPLOYMENT)?;
    ensure!(text.stdout.contains("skipped: owner needs history") && text.code == Some(0), "{}", text.stdout);
    Ok(())
}

/// What was wrong before and is not touched does not refuse an update; what this one makes wrong does.
fn given_again_is_an_update() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let readiness = "        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n";
    let before = SAFE.replace(readiness, "");
    let cases = [
        (before.replace("replicas: 20", "replicas: 21"), "allowed", "warn"),
        (
            before.lines().filter(|line| !line.contains("livenessProbe")).map(|line| format!("{line}\n")).collect(),
            "denied",
            "deny",
        ),
    ];
    for (after, verdict, level) in cases {
        let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &format!("{before}---\n{after}"))?;
        let object = &run.json()?["objects"][1];
        ensure!(object["verdict"] == verdict && object["findings"][0]["level"] == level, "{object:#}");
    }
    Ok(())
}

fn nothing_to_judge() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let service = surefoot(folder.path(), &["check", "-"], "apiVersion: v1\nkind: Service\n")?;
    ensure!(service.code == Some(0) && service.stdout == "no Deployment found\n", "{}", service.stdout);
    ensure!(service.stderr.is_empty(), "{}", service.stderr);
    let builds = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [base]\n";
    let builds = surefoot(folder.path(), &["check", "-"], builds)?;
    let told = "<stdin> only names what it is made of: kustomize build DIR | surefoot check -";
    ensure!(builds.code == Some(0) && builds.stderr.contains(told), "{}{}", builds.stdout, builds.stderr);
    for (path, words) in [(".", "no *.yaml, *.yml or *.json"), ("nowhere.yaml", "there is no such file or folder")] {
        let run = surefoot(folder.path(), &["check", path], "")?;
        ensure!(run.code == Some(2) && run.stderr.contains(words), "{path}: {:?}\n{}", run.code, run.stderr);
        ensure!(run.stderr.lines().count() == 1, "told more than once:\n{}", run.stderr);
    }
    Ok(())
}

fn colour_only_where_it_is_wanted() -> anyhow::Result<()> {
    let coloured = |key: &str, value: &str| -> anyhow::Result<bool> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_surefoot"));
        command.args(["check", "-"]).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env(key, value);
        Ok(run(&mut command, NO_DEPLOYMENT)?.stdout.contains('\u{1b}'))
    };
    ensure!(!coloured("CLICOLOR", "1")?, "colours in a pipe");
    ensure!(coloured("CLICOLOR_FORCE", "1")?, "CLICOLOR_FORCE is not heeded");
    ensure!(!coloured("NO_COLOR", "1")?, "NO_COLOR is not heeded");
    Ok(())
}

fn usage_errors_and_help() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for arguments in [&["check"][..], &["check", "-o", "xml", "-"], &["chek"], &[]] {
        let run = surefoot(folder.path(), arguments, "")?;
        ensure!(run.code == Some(2), "{arguments:?}: exit code {:?}", run.code);
    }
    for command in ["check", "status", "wait", "manifests", "certs", "webhook", "controller"] {
        let help = surefoot(folder.path(), &[command, "--help"], "")?;
        ensure!(help.code == Some(0), "{command} --help: exit code {:?}", help.code);
        ensure!(help.stdout.contains("Example"), "{command} --help has no example:\n{}", help.stdout);
    }
    Ok(())
}
