//! Whose the fields are after a revert, by whatever wrote them, and that the next write gives exactly the file. Without a
//! kubelet: pods are what the trial says they are.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    shared::metric,
    stage::{Stage, managers},
    support::{
        Answer, Kubectl, Look,
        kubectl::capture,
        run,
        tools::{self, tools},
    },
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    use Way::{Apply, Create, Edit, Helm, Patch, Replace, ServerSide};
    // How the good version is written, how the bad one, how the fix.
    let ways = [
        ("client_side_apply", [Apply, Apply, Apply]),
        ("server_side_apply", [ServerSide, ServerSide, ServerSide]),
        ("helm_4", [Helm, Helm, Helm]),
        ("edit_over_client_side_apply", [Apply, Edit, Apply]),
        ("edit_over_server_side_apply", [ServerSide, Edit, ServerSide]),
        ("edit_again", [Apply, Edit, Edit]),
        ("replace", [Create, Replace, Replace]),
        ("set_image_over_client_side_apply", [Apply, Patch, Apply]),
        ("set_image_over_server_side_apply", [ServerSide, Patch, ServerSide]),
    ];
    let mut trials: Vec<_> = ways
        .into_iter()
        .map(|(name, ways)| trial(&format!("ownership::{name}"), move || exactly_the_file(name, ways)))
        .collect();
    trials.push(trial("ownership::helm_3_after_the_rollback_that_is_advised", helm_3));
    trials.push(trial("ownership::two_who_apply_different_fields", two_managers));
    trials.push(trial("ownership::replicas_of_an_autoscaler_stay_its_own", autoscaled));
    trials.push(trial("ownership::evidence_is_the_same_in_record_event_and_log", evidence));
    trials
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Apply,
    ServerSide,
    Create,
    Replace,
    Edit,
    /// `kubectl set image`, then `kubectl patch` for the rest.
    Patch,
    Helm,
    /// Version 3, which compares with its own last release.
    Helm3,
}

struct Play {
    stage: Stage,
    user: Kubectl,
}

impl Play {
    fn new(name: &str) -> Result<Self> {
        let stage = Stage::new(&format!("own-{}", name.replace('_', "-")))?;
        let user = stage.plane().admin().in_namespace(&stage.name);
        stage.start()?;
        Ok(Self { stage, user })
    }

    fn write(&self, way: Way, file: &Value) -> Result<Answer> {
        let text = file.to_string();
        let with = |args: &[&str]| self.user.run_with_input(&[args, &["-f", "-"]].concat(), &text);
        match way {
            Way::Apply => with(&["apply"]),
            Way::ServerSide => with(&["apply", "--server-side"]),
            Way::Create => with(&["create"]),
            Way::Replace => with(&["replace"]),
            Way::Edit => self.edit(file),
            Way::Patch => {
                let image = format!("model={}", container(file)["image"].as_str().unwrap_or_default());
                self.user.run(&["set", "image", "deploy/digits", &image])?.success()?;
                let version = &file["metadata"]["labels"]["app.kubernetes.io/version"];
                let labels = json!({"labels": {"app.kubernetes.io/version": version}});
                let patch = json!({"metadata": labels, "spec": {"template": {"metadata": labels}}}).to_string();
                self.user.run(&["patch", "deploy/digits", "-p", &patch])
            }
            Way::Helm => self.helm(&tools::helm()?, &text),
            Way::Helm3 => self.helm(&tools::helm_3()?, &text),
        }?
        .success()
    }

    /// `kubectl edit`, in which somebody makes labels and spec those of `file`.
    fn edit(&self, wanted: &Value) -> Result<Answer> {
        let mut text = self.stage.deployment()?;
        text["kind"] = json!("Deployment");
        text["apiVersion"] = json!("apps/v1");
        text["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
        text["spec"] = wanted["spec"].clone();
        let file = run::subfolder("edit")?.join("edited.yaml");
        fs::write(&file, text.to_string())?;
        let mut command = Command::new(tools()?.path("kubectl"));
        command.env("KUBECONFIG", self.user.kubeconfig()).env("KUBE_EDITOR", format!("cp {}", file.display()));
        command.args(["edit", "deploy/digits", "-n", &self.stage.name]);
        capture(command, "kubectl edit", "")
    }

    fn helm(&self, program: &Path, text: &str) -> Result<Answer> {
        let chart = run::subfolder("chart")?;
        fs::create_dir_all(chart.join("templates"))?;
        fs::write(chart.join("Chart.yaml"), "{apiVersion: v2, name: digits, version: 0.1.0}")?;
        fs::write(chart.join("templates/deployment.yaml"), text)?;
        self.run_helm(program, &["upgrade", "--install", "digits", &chart.display().to_string()])
    }

    fn run_helm(&self, program: &Path, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.user.kubeconfig()).env("HOME", run::subfolder("helm-home")?);
        command.args(arguments).args(["-n", &self.stage.name]);
        capture(command, &format!("helm {}", arguments.join(" ")), "")
    }

    /// Version 1 settles, 2 fails and is reverted; gives the Deployment then.
    fn reverted(&self, good: [Way; 2]) -> Result<Value> {
        self.write(good[0], &self.file("1", "ONLY_IN_GOOD"))?;
        self.stage.ready("1")?;
        self.settled("1")?;
        let before = self.stage.deployment()?["spec"]["template"].clone();
        self.write(good[1], &self.file("2", "ONLY_IN_BAD"))?;
        self.stage.crash("2")?;
        self.written()?;
        let after = self.stage.deployment()?;
        ensure!(after["spec"]["template"] == before, "not the good template: {}", after["spec"]["template"]);
        Ok(after)
    }

    fn settled(&self, version: &str) -> Result<()> {
        let settled = |record: &Value| record["settled"][0]["version"] == version && record.get("current").is_none();
        self.stage.record_when("it to settle", settled).map(drop)
    }

    fn written(&self) -> Result<Value> {
        self.stage.record_when("the revert", |record| record["reverts"][0]["outcome"] == "written")
    }

    /// What the API server makes of the file where there was nothing before is what there is.
    fn is_exactly(&self, file: &Value) -> Result<()> {
        let mut fresh = file.clone();
        fresh["metadata"]["name"] = json!("fresh");
        let args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let fresh = self.user.run_with_input(&args, &fresh.to_string())?.success()?.json()?;
        let now = self.stage.deployment()?;
        let (now, fresh) = (&now["spec"]["template"], &fresh["spec"]["template"]);
        ensure!(now == fresh, "not the file:\n{now}\nwanted:\n{fresh}");
        Ok(())
    }

    /// A file with a variable, and for the good version an annotation, that no other version has.
    fn file(&self, version: &str, variable: &str) -> Value {
        let labels = json!({"app": "digits", "app.kubernetes.io/version": version});
        let mut file = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "digits", "labels": {"surefoot.dev/model": "digits", "app.kubernetes.io/version": version}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "digits"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "nodeName": self.stage.name, "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "model", "image": format!("registry.local/digits:{version}"),
                        "ports": [{"containerPort": 8000}], "env": [{"name": variable, "value": "1"}],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 1}}]}}},
        });
        if version == "1" {
            file["spec"]["template"]["metadata"]["annotations"] = json!({"only-in-good": "yes"});
        }
        file
    }
}

fn container(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"][0]
}

fn exactly_the_file(name: &str, [good, bad, fix]: [Way; 3]) -> Result<()> {
    if good == Way::Helm {
        // Built before its node is there, which is taken for lost when it is not heard of for 40 s.
        tools::helm()?;
    }
    let play = Play::new(name)?;
    let after = play.reverted([good, bad])?;
    // Where nobody ever applied, nobody can be given what is ours, and no next write asks.
    let ours = managers(&after).contains("\"surefoot\"");
    ensure!(ours == (good == Way::Create), "whose the fields are: {}", managers(&after));
    let notes = play.stage.events("RolloutReverted")?;
    ensure!(notes.len() == 1 && !notes[0].contains("helm rollback"), "{notes:?}");
    let file = play.file("3", "FIXED");
    play.write(fix, &file)?;
    play.is_exactly(&file)?;
    play.stage.stop()
}

/// Its copy of the manifests is that of the bad release; the Event says what to do about it.
fn helm_3() -> Result<()> {
    let program = tools::helm_3()?;
    let play = Play::new("helm-3")?;
    play.reverted([Way::Helm3, Way::Helm3])?;
    let notes = play.stage.events("RolloutReverted")?;
    ensure!(notes.len() == 1 && notes[0].contains("Before the next helm upgrade: helm rollback."), "{notes:?}");
    let before = play.stage.deployment()?["spec"]["template"].clone();
    play.run_helm(&program, &["rollback", "digits"])?.success()?;
    let after = play.stage.deployment()?["spec"]["template"].clone();
    ensure!(before == after, "the rollback changed what runs:\n{before}\n{after}");
    let file = play.file("3", "FIXED");
    play.write(Way::Helm3, &file)?;
    play.is_exactly(&file)?;
    play.stage.stop()
}

/// Somebody's variable is what failed: after the revert it is theirs again, and an apply of the rest leaves it.
fn two_managers() -> Result<()> {
    let play = Play::new("two-managers")?;
    let bit = |value: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "digits"},
            "spec": {"template": {"metadata": {"annotations": {"platform": value}},
                "spec": {"containers": [{"name": "model", "env": [{"name": "PLATFORM", "value": value}]}]}}}})
        .to_string()
    };
    let platform = ["apply", "--server-side", "--field-manager=platform", "-f", "-"];
    play.write(Way::ServerSide, &play.file("0", "FIRST"))?;
    play.user.run_with_input(&platform, &bit("good"))?.success()?;
    play.write(Way::ServerSide, &play.file("1", "ONLY_IN_GOOD"))?;
    play.stage.ready("1")?;
    play.settled("1")?;
    play.user.run_with_input(&platform, &bit("bad"))?.success()?;
    play.write(Way::ServerSide, &play.file("2", "ONLY_IN_BAD"))?;
    play.stage.crash("2")?;
    play.written()?;
    let file = play.file("3", "FIXED");
    play.write(Way::ServerSide, &file)?;
    let now = play.stage.deployment()?;
    let env = json!([{"name": "FIXED", "value": "1"}, {"name": "PLATFORM", "value": "good"}]);
    let mut found = container(&now)["env"].as_array().cloned().context("no env")?;
    found.sort_by_key(|one| one["name"].to_string());
    ensure!(Value::Array(found.clone()) == env, "{found:?}");
    ensure!(now["spec"]["template"]["metadata"]["annotations"] == json!({"platform": "good"}), "{now}");
    // And they change it, and nobody objects.
    play.user.run_with_input(&platform, &bit("better"))?.success()?;
    ensure!(!managers(&play.stage.deployment()?).contains("\"surefoot\""), "ours");
    play.stage.stop()
}

fn owners_of_replicas(deployment: &Value) -> Vec<String> {
    let entries = deployment["metadata"]["managedFields"].as_array().into_iter().flatten();
    let own = entries.filter(|entry| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some());
    own.map(|entry| entry["manager"].to_string()).collect()
}

fn autoscaled() -> Result<()> {
    let play = Play::new("autoscaled")?;
    let file = |version: &str, variable: &str| {
        let mut file = play.file(version, variable);
        file["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
        file
    };
    play.write(Way::ServerSide, &file("1", "ONLY_IN_GOOD"))?;
    play.stage.ready("1")?;
    play.settled("1")?;
    play.write(Way::ServerSide, &file("2", "ONLY_IN_BAD"))?;
    play.user.run(&["scale", "deploy/digits", "--replicas=2"])?.success()?;
    let scaled = owners_of_replicas(&play.stage.deployment()?);
    play.stage.crash("2")?;
    play.written()?;
    let reverted = owners_of_replicas(&play.stage.deployment()?);
    let fixed = file("3", "FIXED");
    play.write(Way::ServerSide, &fixed)?;
    play.is_exactly(&fixed)?;
    let now = play.stage.deployment()?;
    ensure!(now["spec"]["replicas"] == 2, "{}", now["spec"]["replicas"]);
    let owners = owners_of_replicas(&now);
    ensure!(scaled == reverted && reverted == owners, "{scaled:?}, {reverted:?}, {owners:?}");
    ensure!(!managers(&now).contains("\"surefoot\""), "{}", managers(&now));
    play.stage.stop()
}

/// Version, digest, container, figures, since when, nodes and the last words: the same wherever they are told, and still
/// there when the bad pods are gone.
fn evidence() -> Result<()> {
    let play = Play::new("evidence")?;
    play.reverted([Way::Apply, Way::Apply])?;
    let pods = format!("/api/v1/namespaces/{}/pods?labelSelector=app.kubernetes.io/version=2", play.stage.name);
    play.stage.until("the bad pods to be gone", || {
        let pods = play.stage.plane().get(&pods)?.unwrap_or_default();
        let gone = pods["items"].as_array().is_some_and(Vec::is_empty);
        Ok(if gone { Look::Done(()) } else { Look::Not(pods.to_string()) })
    })?;
    let revert = play.written()?["reverts"][0].clone();
    let evidence = &revert["evidence"];
    let figures = format!("{} of {} probes failed", evidence["failures"], evidence["attempts"]);
    let budget = format!("the budget is {}", evidence["budget"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (container, message) = (text(&evidence["container"]), text(&evidence["message"]));
    ensure!(evidence["nodes"] == json!([play.stage.name]) && evidence["signal"] == "crash", "{revert}");
    ensure!(message == "exit code 1" && container == "model", "{revert}");
    let labels = "{action=\"reverted\",signal=\"crash\"}";
    let seconds = |value: &Value| {
        Ok::<_, jiff::Error>(value.as_str().unwrap_or_default().parse::<jiff::Timestamp>()?.as_second().unsigned_abs())
    };
    let rows = [
        (format!("reverts_total{labels}"), 1),
        (format!("revert_failures_total{labels}"), evidence["failures"].as_u64().context("failures")?),
        (format!("revert_attempts_total{labels}"), evidence["attempts"].as_u64().context("attempts")?),
        (format!("revert_budget_total{labels}"), evidence["budget"].as_u64().context("budget")?),
        (format!("last_revert_seconds{labels}"), seconds(&revert["at"])?),
        (format!("last_revert_since_seconds{labels}"), seconds(&evidence["since"])?),
        ("writes_total{write=\"PutBack\",result=\"made\"}".to_owned(), 1),
        ("writes_total{write=\"RecordRevert\",result=\"made\"}".to_owned(), 1),
        ("writes_total{write=\"TellReverted\",result=\"made\"}".to_owned(), 1),
        ("rollouts{decision=\"rest\"}".to_owned(), 1),
        ("leader".to_owned(), 1),
        ("ready".to_owned(), 1),
    ];
    // It rests once it has told of it and has seen what it wrote.
    let metrics = play.stage.until("the metrics of the revert", || {
        let metrics = play.stage.ask("/metrics")?;
        let found = |name: &str| metric(&metrics, &format!("surefoot_controller_{name} "));
        let odd = rows.iter().find(|(name, value)| found(name) != *value);
        let odd = odd.map(|(name, value)| format!("{name} is {}, not {value}:\n{}", found(name), metrics.body));
        Ok(odd.map_or(Look::Done(metrics), Look::Not))
    })?;
    // Which version of which Deployment it was is not the metrics' matter.
    for name in [play.stage.name.as_str(), "digits", "v1:"] {
        ensure!(!metrics.body.contains(name), "{name} in {}", metrics.body);
    }
    for path in ["/healthz", "/readyz"] {
        let answer = play.stage.ask(path)?;
        ensure!(answer.status == 200 && answer.body == "ok\n", "{path}: {} {}", answer.status, answer.body);
    }
    let said = ["2 reverted to 1: ", &figures, &budget, "crash of \"model\"", &message];
    let notes = play.stage.events("RolloutReverted")?;
    let logs = play.stage.logs();
    let Some(line) = logs.lines().find(|line| line.contains("2 reverted to 1")) else { bail!("not logged: {logs}") };
    let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    for said in said {
        ensure!(notes.len() == 1 && notes[0].contains(said), "{said}: {notes:?}");
        ensure!(line.to_string().contains(&said.replace('"', "\\\"")), "{said}: {line}");
    }
    let since = seconds(&evidence["since"]).map(|second| jiff::Timestamp::from_second(second.cast_signed()))??;
    let more = format!("Template {}, failing since {since:.0} on node {}", text(&revert["digest"]), play.stage.name);
    ensure!(notes[0].ends_with(&more), "not {more}: {notes:?}");
    for (key, value) in [
        ("version", text(&revert["version"])),
        ("digest", text(&revert["digest"])),
        ("container", container),
        ("since", text(&evidence["since"])),
        ("nodes", play.stage.name.clone()),
    ] {
        let found = line.get(key).or_else(|| line["fields"].get(key));
        ensure!(found.and_then(Value::as_str) == Some(&*value), "{key} is not {value}: {line}");
    }
    play.stage.stop()
}
