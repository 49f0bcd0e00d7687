//! The test bed itself: what every other trial stands on.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    node_trial, shared,
    support::{
        ControlPlane, Look, Node, http,
        image::digits,
        run::{self, Process},
        until,
    },
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("bed::control_planes_stand_side_by_side", control_planes_stand_side_by_side),
        node_trial("bed::a_model_server_answers_on_the_node", a_model_server_answers_on_the_node),
        node_trial("bed::nodes_stand_side_by_side", nodes_stand_side_by_side),
    ];
    for (name, signal) in [("an_interrupt", Signal::INT), ("a_kill", Signal::KILL)] {
        trials.push(node_trial(&format!("bed::nothing_is_left_after_{name}"), move || nothing_is_left_after(signal)));
    }
    trials
}

/// Set in a child run: do nothing but start a control plane and a node, and tell the file when both are there.
const VICTIM: &str = "SUREFOOT_BED_VICTIM";

/// To be called early in `main`: the run that is killed by [`nothing_is_left_after`].
pub(crate) fn victim_if_asked() {
    let Some(file) = std::env::var_os(VICTIM) else { return };
    let start = || {
        let plane = ControlPlane::start()?;
        let node = Node::start(&plane)?;
        digits_deployment(&plane, "default")?;
        fs::write(&file, format!("{}\n{}", run::folder()?.display(), node.bridge()))?;
        loop {
            std::thread::park();
        }
    };
    let end: Result<()> = start();
    eprintln!("{end:?}");
    run::end();
    std::process::exit(1);
}

fn control_planes_stand_side_by_side() -> Result<()> {
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(ControlPlane::start);
        (ControlPlane::start(), other.join())
    });
    let (one, two) = (one?, two.map_err(|_| anyhow::anyhow!("the second control plane panicked"))??);
    ensure!(one.url() != two.url(), "both listen on {}", one.url());
    one.admin().run(&["create", "namespace", "only-in-one"])?.success()?;
    one.admin().run(&["get", "namespace", "only-in-one"])?.success()?;
    two.admin().run(&["get", "namespace", "only-in-one"])?.failure()?;

    let version = one.admin().run(&["version", "-o", "json"])?.success()?.json()?;
    ensure!(version["serverVersion"]["gitVersion"] == "v1.35.4", "unexpected version: {version}");

    // A plain user has the rights that are given, and no others.
    let (admin, ana) = shared::namespace(&one, "plain", "")?;
    ana.run(&["get", "pods"])?.success()?;
    ana.run(&["get", "nodes"])?.failure()?;
    admin.run(&["delete", "rolebinding", "ana"])?.success()?;
    ana.run(&["get", "pods"])?.failure()?;
    Ok(())
}

fn a_model_server_answers_on_the_node() -> Result<()> {
    let plane = shared::node()?;
    shared::namespace(plane, "bed-digits", "")?;
    let address = digits_deployment(plane, "bed-digits")?;
    let samples = include_str!("../../demo/digits/samples.txt");
    let seven: Vec<&str> = samples.lines().nth(7).context("no sample of a 7")?.split(' ').skip(1).collect();
    let body = format!(
        r#"{{"inputs": [{{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [{}]}}]}}"#,
        seven.join(",")
    );
    let answer = http::plain(format!("{address}:8000").parse()?, "/v2/models/digits/infer", Some(&body))?;
    ensure!(answer.status == 200 && answer.body.contains(r#""data":[7]"#), "{} {}", answer.status, answer.body);
    let logs = plane.admin().run(&["logs", "deploy/digits", "-n", "bed-digits"])?.success()?;
    ensure!(logs.stdout.contains("digits good is ready"), "{logs}");
    Ok(())
}

fn nodes_stand_side_by_side() -> Result<()> {
    shared::node()?;
    let plane = ControlPlane::start()?;
    let _node = Node::start(&plane)?;
    digits_deployment(&plane, "default").map(drop)
}

fn nothing_is_left_after(signal: Signal) -> Result<()> {
    let folder = run::subfolder("victim")?;
    let told = folder.join("told");
    // What runs in the background of a script ignores interrupts, and hands that on.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(std::env::current_exe()?).env(VICTIM, &told);
    let mut victim = Process::start("victim", &folder, command)?;
    let text = until("the run that will be killed", Duration::from_secs(120), || {
        victim.check()?;
        let text = fs::read_to_string(&told).unwrap_or_default();
        Ok(if text.contains('\n') { Look::Done(text) } else { Look::Not("it is starting".to_owned()) })
    })?;
    let (its_folder, bridge) = text.split_once('\n').context("no bridge")?;
    let its_folder = Path::new(its_folder);
    ensure!(run::processes_of(its_folder).len() > 6, "fewer processes than parts");

    let pid = i32::try_from(victim.id()).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal)?;
    until("the end of all that the run started", Duration::from_secs(30), || {
        let left = left_of(its_folder, bridge)?;
        Ok(if left.is_empty() { Look::Done(()) } else { Look::Not(left.join(", ")) })
    })
}

/// What is still there of a run.
fn left_of(folder: &Path, bridge: &str) -> Result<Vec<String>> {
    let mut left: Vec<String> = run::processes_of(folder).iter().map(|pid| format!("process {pid}")).collect();
    if folder.exists() {
        left.push(folder.display().to_string());
    }
    if Path::new("/sys/class/net").join(bridge).exists() {
        left.push(bridge.to_owned());
    }
    let mounts = fs::read_to_string("/proc/mounts")?;
    left.extend(mounts.lines().filter(|line| line.contains(&folder.display().to_string())).map(str::to_owned));
    Ok(left)
}

/// Two model servers; gives the address of one when both are ready.
fn digits_deployment(plane: &ControlPlane, namespace: &str) -> Result<String> {
    let admin = plane.admin().in_namespace(namespace);
    admin.apply(&format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: digits}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: digits}}}}
  template:
    metadata: {{labels: {{app: digits}}}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 2
      containers:
      - name: model
        image: {}
        ports: [{{containerPort: 8000}}]
        readinessProbe: {{httpGet: {{path: /v2/health/ready, port: 8000}}, periodSeconds: 1}}
        resources: {{limits: {{memory: 64Mi, cpu: 100m}}}}
",
        digits("good")
    ))?;
    let status = admin.run(&["rollout", "status", "deploy/digits", "--timeout=60s"])?;
    if !status.ok() {
        anyhow::bail!("{status}\n{}", admin.run(&["describe", "pods"])?);
    }
    let pods = plane.get(&format!("/api/v1/namespaces/{namespace}/pods"))?.unwrap_or_default();
    Ok(pods["items"][0]["status"]["podIP"].as_str().context("no address")?.to_owned())
}
