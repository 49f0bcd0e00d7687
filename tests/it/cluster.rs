//! What surefoot reads of a cluster and writes into it, on a real control plane: watches that follow the guard label,
//! records, the lease, and what `status` and `wait` say. No controller runs here: the trials write its records.

use std::{
    future::Future,
    process::Command,
    sync::{OnceLock, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use surefoot::{
    cluster::{
        Guarded,
        client::connect,
        records::{RecordError, RecordStore, Records},
        rollouts,
    },
    controller::lease::Candidate,
    rollout::Record,
};

use crate::{
    node_trial, shared,
    support::{ControlPlane, Kubectl, image::digits, kubectl},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::watches_follow_the_label", watches_follow_the_label),
        trial("cluster::records_are_written_over_what_was_read", records_are_written_over_what_was_read),
        trial("cluster::of_two_contenders_one_leads", of_two_contenders_one_leads),
        trial("cluster::status_shows_rollouts", status_shows_rollouts),
        trial("cluster::status_names_the_missing_right", status_names_the_missing_right),
        trial("cluster::wait_ends_with_the_rollout", wait_ends_with_the_rollout),
        trial("cluster::wait_says_why_it_cannot", wait_says_why_it_cannot),
        node_trial("cluster::a_pipeline_waits_for_a_real_rollout", a_pipeline_waits_for_a_real_rollout),
    ]
}

const LIMIT: Duration = Duration::from_secs(60);

/// A control plane without surefoot.
pub(crate) fn plane() -> Result<&'static ControlPlane> {
    static PLANE: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    let plane = PLANE.get_or_init(|| {
        let start = || {
            let plane = ControlPlane::start()?;
            plane.admin().run(&["create", "namespace", "surefoot-system"])?.success()?;
            anyhow::Ok(plane)
        };
        start().map_err(|error| format!("{error:#}"))
    });
    plane.as_ref().map_err(|error| anyhow!("{error}"))
}

pub(crate) fn block_on<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(LIMIT, what).await.context("took too long")? })
}

pub(crate) async fn client(user: &Kubectl) -> Result<Client> {
    Ok(connect(Some(user.kubeconfig()), None).await?)
}

pub(crate) fn surefoot(user: &Kubectl, args: &[&str]) -> Result<kubectl::Answer> {
    let mut command = Command::new(shared::program());
    command.env("KUBECONFIG", user.kubeconfig()).env_remove("POD_NAMESPACE").args(args);
    kubectl::capture(command, &format!("surefoot {}", args.join(" ")), "")
}

pub(crate) fn deployment(name: &str, version: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app.kubernetes.io/version: {version}}}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, app.kubernetes.io/version: {version}}}}}
    spec: {{containers: [{{name: model, image: 'registry.local/{name}:{version}'}}]}}
"
    )
}

fn watches_follow_the_label() -> Result<()> {
    let plane = plane()?;
    let (one, _) = shared::namespace(plane, "watch-one", "enforce")?;
    let (two, _) = shared::namespace(plane, "watch-two", "")?;
    one.apply(&deployment("churn", "1.0.0"))?;
    two.apply(&deployment("fraud", "1.0.0"))?;
    plane.admin().run(&["label", "namespace", "kube-system", "surefoot.dev/guard=enforce"])?.success()?;
    block_on(async {
        let mut guarded = Guarded::new(client(plane.admin()).await?, "surefoot-system");
        let (changes, mut changed) = tokio::sync::mpsc::unbounded_channel();
        let store = guarded.watch(
            |found: Deployment| found.spec.and_then(|spec| spec.replicas),
            move |change| drop(changes.send(format!("{}/{} {:?}", change.namespace, change.name, change.after))),
        );
        let (namespaces, mut synced) = (guarded.namespaces(), guarded.synced());
        // Status changes of the Deployment come too: wait for the one that is meant.
        let mut comes = async |want: &str| -> Result<()> {
            while changed.recv().await.context("the watches ended")? != want {}
            Ok(())
        };
        let script = async {
            synced.wait_for(|synced| *synced).await?;
            ensure!(store.get("watch-one", "churn").as_deref() == Some(&Some(2)), "{store:?}");
            ensure!(namespaces.get("kube-system").is_none() && !store.knows("watch-two"), "{namespaces:?}");
            let admin = plane.admin();
            admin.run(&["label", "namespace", "watch-two", "surefoot.dev/guard=audit"])?.success()?;
            comes("watch-two/fraud Some(Some(2))").await?;
            one.run(&["scale", "deploy/churn", "--replicas=5"])?.success()?;
            comes("watch-one/churn Some(Some(5))").await?;
            admin.run(&["label", "namespace", "watch-one", "surefoot.dev/guard-"])?.success()?;
            comes("watch-one/churn None").await?;
            ensure!(!store.knows("watch-one") && namespaces.get("watch-one").is_none(), "{namespaces:?}");
            admin.run(&["delete", "namespace", "watch-two", "--wait=false"])?.success()?;
            comes("watch-two/fraud None").await
        };
        tokio::select! {
            ended = guarded.run() => Err(anyhow!("{ended:?}")),
            done = script => done,
        }
    })
}

/// A record of `name` in `namespace`, of a Deployment with this uid.
pub(crate) fn record(namespace: &str, name: &str, uid: &str, more: &Value) -> Result<Record> {
    let mut record = json!({"version": 1, "namespace": namespace, "name": name, "uid": uid});
    let members = record.as_object_mut().context("an object")?;
    members.extend(more.as_object().cloned().unwrap_or_default());
    Ok(serde_json::from_value(record)?)
}

fn records_are_written_over_what_was_read() -> Result<()> {
    let plane = plane()?;
    let admin = plane.admin().in_namespace("surefoot-system");
    block_on(async {
        let client = client(plane.admin()).await?;
        let records = Records::new(client.clone(), "surefoot-system");
        let (namespace, long) = ("records", "m".repeat(250));
        ensure!(records.get(namespace, &long).await?.is_none(), "there is none yet");
        let mine = record(namespace, &long, "u", &json!({}))?;
        let first = records.write(&mine, None).await?;
        ensure!(matches!(records.write(&mine, None).await, Err(RecordError::Conflict(_))), "made twice");
        let changed = Record { uid: "v".to_owned(), ..mine.clone() };
        let second = records.write(&changed, Some(&first)).await?;
        ensure!(matches!(records.write(&mine, Some(&first)).await, Err(RecordError::Conflict(_))), "an old revision");
        let stored = records.get(namespace, &long).await?.context("it was written")?;
        ensure!(*stored.record == changed && stored.revision == second, "{stored:?}");
        ensure!(records.list(Some(namespace)).await?.len() == 1 && records.list(Some("other")).await?.is_empty());

        let mut guarded = Guarded::new(client, "surefoot-system");
        let (changes, mut changed) = tokio::sync::mpsc::unbounded_channel();
        let store = RecordStore::watch(&mut guarded, "surefoot-system", move |change| {
            drop(changes.send(change.name.to_owned()));
        });
        let script = async {
            changed.recv().await.context("the record is listed")?;
            let edit = r#"{"data": {"record.json": "{\"version\": 1, \"names"}}"#;
            let label = "surefoot.dev/record-namespace=records";
            let config_map = admin.json(&["configmap", "-l", label])?["items"][0]["metadata"]["name"].clone();
            let name = config_map.as_str().context("a name")?;
            admin.run(&["patch", "configmap", name, "--type=merge", "-p", edit])?.success()?;
            loop {
                let seen = store.get(namespace, &long).context("it is still there")?;
                if let Err(error) = seen.as_ref() {
                    ensure!(
                        matches!(error, RecordError::Unreadable { config_map, .. } if config_map == name),
                        "{error}"
                    );
                    break;
                }
                changed.recv().await.context("the edit comes")?;
            }
            admin.run(&["delete", "configmap", name])?.success()?;
            while store.get(namespace, &long).is_some() {
                changed.recv().await.context("the deletion comes")?;
            }
            ensure!(matches!(records.write(&mine, Some(&second)).await, Err(RecordError::Conflict(_))), "deleted");
            Ok(())
        };
        tokio::select! {
            ended = guarded.run() => Err(anyhow!("{ended:?}")),
            done = script => done,
        }
    })
}

fn of_two_contenders_one_leads() -> Result<()> {
    let plane = plane()?;
    block_on(async {
        let client = client(plane.admin()).await?;
        let mut running = Vec::new();
        for identity in ["one", "two"] {
            let candidate = Candidate::new(
                client.clone(),
                "surefoot-system",
                "race",
                identity.to_owned(),
                std::sync::Arc::default(),
            );
            let leadership = candidate.leadership();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let task = tokio::spawn(candidate.run(async { drop(stopped.await) }));
            running.push((leadership, stop, task));
        }
        let (mut one, mut two) = (running[0].0.clone(), running[1].0.clone());
        let first = tokio::select! {
            () = one.begins() => 0,
            () = two.begins() => 1,
        };
        let (mut other, other_stop, other_task) = running.remove(1 - first);
        let (leader, stop, task) = running.remove(0);
        ensure!(leader.still_leading() && !other.still_leading(), "both lead");
        let holder = plane.admin().json(&["lease", "race", "-n", "surefoot-system"])?;
        ensure!(holder["spec"]["holderIdentity"] == ["one", "two"][first], "{holder}");
        drop(stop);
        task.await?;
        ensure!(!leader.still_leading(), "it gave the lease back");
        other.begins().await;
        // A holder that ends without a word is followed only when the lease has not changed for its duration.
        drop(other_stop);
        other_task.abort();
        let third = Candidate::new(client, "surefoot-system", "race", "three".to_owned(), std::sync::Arc::default());
        let mut leadership = third.leadership();
        tokio::select! {
            () = third.run(std::future::pending()) => Err(anyhow!("ended")),
            () = leadership.begins() => Ok(()),
        }
    })
}

/// What a record says of a template that settled, and of one that was reverted to it.
fn settled(digest: &str, version: &str) -> Value {
    let set = json!({"name": format!("set-{version}"), "uid": version});
    json!({"digest": digest, "version": version, "replicaSet": set, "at": "2026-11-22T10:00:00Z"})
}

fn reverted(digest: &str, version: &str, target: &Value) -> Value {
    json!({"digest": digest, "version": version, "target": target, "at": "2026-11-22T14:21:48Z",
        "outcome": "written", "class": "application",
        "evidence": {"failures": 12, "attempts": 30, "budget": 10, "since": "2026-11-22T14:21:07Z",
            "until": "2026-11-22T14:21:48Z", "container": "model", "signal": "readiness", "message": "HTTP 503"}})
}

/// A Deployment in a namespace of its own, its uid and its digest.
struct Model {
    admin: Kubectl,
    namespace: &'static str,
    uid: String,
    digest: String,
}

impl Model {
    fn apply(plane: &ControlPlane, namespace: &'static str, guard: &str, version: &str) -> Result<Self> {
        let (admin, _) = shared::namespace(plane, namespace, guard)?;
        let mut model = Self { admin, namespace, uid: String::new(), digest: String::new() };
        model.update(version)?;
        Ok(model)
    }

    fn update(&mut self, version: &str) -> Result<()> {
        self.admin.apply(&deployment("churn", version))?;
        let seen = block_on(async {
            let client = client(&self.admin).await?;
            rollouts::read(&client, self.namespace, "churn").await.map_err(anyhow::Error::msg)
        })?;
        (self.uid, self.digest) = (seen.uid, seen.digest.to_string());
        Ok(())
    }

    /// Writes the record, over whatever is there.
    fn record(&self, more: &Value) -> Result<()> {
        let record = record(self.namespace, "churn", &self.uid, more)?;
        block_on(async {
            let records = Records::new(client(&self.admin).await?, "surefoot-system");
            let over = records.get(self.namespace, "churn").await?.map(|stored| stored.revision);
            records.write(&record, over.as_ref()).await?;
            Ok(())
        })
    }
}

fn status_shows_rollouts() -> Result<()> {
    let plane = plane()?;
    let model = Model::apply(plane, "status-all", "warn", "2.3.1")?;
    let admin = plane.admin();
    let bare = surefoot(admin, &["status", "-n", "status-all"])?.success()?;
    ensure!(bare.stdout.contains("churn") && bare.stdout.contains("progressing"), "{bare}");
    isolation_is_told(admin)?;

    let good = settled(&model.digest, "2.3.1");
    model.record(&json!({"settled": [good], "reverts": [reverted("v1:bad", "2.4.0", &good)]}))?;
    let all = surefoot(admin, &["status", "-A"])?.success()?;
    let line = all.stdout.lines().find(|line| line.starts_with("status-all")).context("a line")?.to_owned();
    let words: Vec<_> = line.split_whitespace().collect();
    ensure!(words[..6] == ["status-all", "churn", "2.3.1", "reverted", "12", "10"], "{all}");
    ensure!(line.ends_with("2.4.0 quarantined") && all.stdout.starts_with("NAMESPACE"), "{all}");

    let one = surefoot(admin, &["status", "churn", "-n", "status-all"])?.success()?;
    for want in ["2.3.1 settled", "first failure", "[##########] 12/10", "reverted to 2.3.1", "HTTP 503"] {
        ensure!(one.stdout.contains(want), "no {want:?} in {one}");
    }
    let json = surefoot(admin, &["status", "churn", "-n", "status-all", "-o", "json"])?.success()?.json()?;
    ensure!(json["version"] == 1 && json["rollouts"][0]["state"] == "reverted", "{json}");
    ensure!(json["rollouts"][0]["guard"] == "warn" && json["rollouts"][0]["failed"] == 12, "{json}");
    ensure!(json["rollouts"][0]["since"] == "2026-11-22T14:21:48Z", "{json}");

    let name = "record.status-all.churn";
    let edit = r#"{"data": {"record.json": "{"}}"#;
    admin.run(&["patch", "configmap", name, "-n", "surefoot-system", "--type=merge", "-p", edit])?.success()?;
    let edited = surefoot(admin, &["status", "-n", "status-all"])?.success()?;
    ensure!(edited.stdout.contains(name) && edited.stdout.contains("cannot be read"), "{edited}");
    Ok(())
}

/// Until a namespace has all three.
fn isolation_is_told(admin: &Kubectl) -> Result<()> {
    let status = || surefoot(admin, &["status", "-n", "status-all"])?.success();
    let line = "isolation: status-all no-default-deny, no-limit-range, no-quota; what to do: \
                surefoot check --cluster -n status-all";
    ensure!(status()?.stdout.lines().any(|told| told == line), "{}", status()?);
    let json = surefoot(admin, &["status", "-n", "status-all", "-o", "json"])?.success()?.json()?;
    ensure!(json["isolation"][0]["findings"].as_array().is_some_and(|all| all.len() == 3), "{json}");
    let made = |kind: &str, api: &str, spec: Value| {
        let metadata = json!({"name": "models", "namespace": "status-all"});
        let object = json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec});
        admin.apply(&object.to_string())?.success()
    };
    let container = json!({"type": "Container", "default": {"memory": "1Gi"}});
    made("ResourceQuota", "v1", json!({"hard": {"count/deployments.apps": "99"}}))?;
    made("LimitRange", "v1", json!({"limits": [container]}))?;
    let line = "isolation: status-all no-default-deny; what to do: surefoot check --cluster -n status-all";
    ensure!(status()?.stdout.lines().any(|told| told == line), "{}", status()?);
    made("NetworkPolicy", "networking.k8s.io/v1", json!({"podSelector": {}}))?;
    ensure!(!status()?.stdout.contains("isolation"), "{}", status()?);
    Ok(())
}

/// The command has to fail with exit code 2 and one line that contains `want`.
pub(crate) fn refused(user: &Kubectl, args: &[&str], want: &str) -> Result<()> {
    let answer = surefoot(user, args)?;
    let said = answer.stderr.trim_end();
    ensure!(answer.code == 2 && said.contains(want) && said.lines().count() == 1, "want {want:?}: {answer}");
    Ok(())
}

fn status_names_the_missing_right() -> Result<()> {
    let plane = plane()?;
    let (admin, ana) = shared::namespace(plane, "status-rights", "audit")?;
    admin.apply(&deployment("churn", "1.0.0"))?;
    refused(&ana, &["status", "-A"], "no right to list namespaces: User \"ana\" lacks it")?;
    refused(&ana, &["status", "-n", "default"], "no right to list deployments in namespace default")?;
    let records = "no right to list configmaps in namespace surefoot-system: User \"ana\" lacks it";
    refused(&ana, &["status", "-n", "status-rights"], records)?;
    refused(&ana, &["status", "churn", "-n", "status-rights"], "no right to get configmaps in namespace surefoot-sy")?;
    refused(plane.admin(), &["status", "none", "-n", "status-rights"], "deployments/none not found in namespace")?;
    refused(plane.admin(), &["status", "-n", "nowhere"], "namespace nowhere does not exist")?;
    refused(plane.admin(), &["status", "-n", "default"], "namespace default is not guarded")?;
    refused(plane.admin(), &["status", "--context", "elsewhere"], "has no context `elsewhere`; it has: ")?;
    let nobody = Kubectl::new("/nowhere/kubeconfig");
    refused(&nobody, &["status"], "kubeconfig /nowhere/kubeconfig cannot be read: No such file")
}

/// A `surefoot wait` in the background; its answer comes when it ends.
fn waiting(model: &Model, timeout: &str) -> Result<mpsc::Receiver<Result<kubectl::Answer>>> {
    let (send, answer) = mpsc::channel();
    let (user, namespace, timeout) = (model.admin.clone(), model.namespace, timeout.to_owned());
    std::thread::spawn(move || {
        let args = ["wait", "deploy/churn", "-n", namespace, "--for", "settled", "--timeout", &timeout];
        drop(send.send(surefoot(&user, &args)));
    });
    Ok(answer)
}

fn ends(answer: &mpsc::Receiver<Result<kubectl::Answer>>, code: i32, want: &str) -> Result<()> {
    let answer = answer.recv_timeout(LIMIT).context("surefoot wait did not end")??;
    let said = if code == 2 { &answer.stderr } else { &answer.stdout };
    ensure!(answer.code == code && said.trim_end().ends_with(want), "want {want:?}: {answer}");
    Ok(())
}

fn wait_ends_with_the_rollout() -> Result<()> {
    let plane = plane()?;
    let mut model = Model::apply(plane, "wait", "enforce", "2.3.1")?;
    let first = model.digest.clone();
    ends(
        &waiting(&model, "1s")?,
        2,
        "timed out after 1s: churn 2.3.1 is progressing, 0 of 2 pods are new, 0 available",
    )
    .or_else(|_| ends(&waiting(&model, "1s")?, 2, "2 of 2 pods are new, 0 available"))?;

    let slow = waiting(&model, "60s")?;
    let good = settled(&first, "2.3.1");
    model.record(&json!({"settled": [good]}))?;
    ends(&slow, 0, "settled: 2.3.1")?;
    ends(&waiting(&model, "0s")?, 0, "settled: 2.3.1")?;

    // Reverted while somebody waits: recorded first, then the good template is back.
    model.update("2.4.0")?;
    let bad = reverted(&model.digest, "2.4.0", &good);
    let watching = waiting(&model, "60s")?;
    ensure!(watching.recv_timeout(Duration::from_secs(1)).is_err(), "nothing has happened yet");
    model.record(&json!({"settled": [good], "reverts": [bad]}))?;
    model.update("2.3.1")?;
    let back = "reverted: 2.4.0 failed 12 of 30 probes in 41 s, 2.3.1 is back";
    ends(&watching, 1, back)?;
    // Started too late, it says the same.
    ends(&waiting(&model, "60s")?, 1, back)?;

    // The same template again is judged anew; another one meanwhile ends the wait.
    model.update("2.4.0")?;
    let again = waiting(&model, "60s")?;
    ensure!(again.recv_timeout(Duration::from_secs(1)).is_err(), "what was before is not its matter");
    model.update("2.5.0")?;
    ends(&again, 2, "the Deployment has another template meanwhile, 2.5.0; its wait is another one")?;

    let stalled = waiting(&model, "60s")?;
    let evidence = &bad["evidence"];
    model.record(&json!({"current": {"digest": model.digest, "version": "2.5.0", "since": "2026-11-22T14:30:00Z",
        "stall": {"reason": "NothingSettled", "at": "2026-11-22T14:31:00Z", "evidence": evidence}}}))?;
    ends(&stalled, 1, "stalled: 2.5.0 failed 12 of 30 probes in 41 s; nothing to go back to: no version has settled")?;

    model.record(&json!({}))?;
    let gone = waiting(&model, "60s")?;
    ensure!(gone.recv_timeout(Duration::from_secs(1)).is_err(), "nothing has happened yet");
    model.admin.run(&["delete", "deployment", "churn"])?.success()?;
    ends(&gone, 2, "the Deployment was deleted")
}

fn wait_says_why_it_cannot() -> Result<()> {
    let plane = plane()?;
    let (admin, ana) = shared::namespace(plane, "wait-rights", "enforce")?;
    admin.apply(&deployment("churn", "1.0.0"))?;
    let wait = |target, namespace| ["wait", target, "-n", namespace, "--timeout", "20s"];
    refused(plane.admin(), &wait("deploy/churn", "default"), "namespace default is not guarded")?;
    refused(plane.admin(), &wait("deploy/churn", "nowhere"), "namespace nowhere does not exist")?;
    refused(plane.admin(), &wait("deploy/none", "wait-rights"), "deployments/none not found in namespace wait-rights")?;
    refused(&ana, &wait("deploy/churn", "wait-rights"), "no right to get configmaps in namespace surefoot-system")?;
    let pod = surefoot(plane.admin(), &wait("pod/churn", "wait-rights"))?;
    ensure!(pod.code == 2 && pod.stderr.contains("surefoot watches Deployments"), "{pod}");
    let away = Kubectl::new(plane.folder().join("away.kubeconfig"));
    let text = std::fs::read_to_string(plane.admin().kubeconfig())?.replace(plane.url(), "https://127.0.0.1:1");
    std::fs::write(away.kubeconfig(), text)?;
    refused(&away, &wait("deploy/churn", "wait-rights"), "the API server at https://127.0.0.1:1 cannot be reached: ")
}

/// A model server on the node, of an image with or without a fault.
fn real_model(version: &str, tag: &str) -> String {
    let image = digits(tag);
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: digits, labels: {{app.kubernetes.io/version: '{version}'}}}}
spec:
  replicas: 2
  minReadySeconds: 1
  strategy: {{rollingUpdate: {{maxSurge: 100%, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: digits}}}}
  template:
    metadata: {{labels: {{app: digits, app.kubernetes.io/version: '{version}'}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: model
        image: {image}
        ports: [{{containerPort: 8000}}]
        readinessProbe: {{httpGet: {{path: /v2/health/ready, port: 8000}}, periodSeconds: 1, failureThreshold: 1}}
        livenessProbe: {{httpGet: {{path: /v2/health/live, port: 8000}}, periodSeconds: 1, failureThreshold: 3}}
        resources: {{requests: {{memory: 64Mi, cpu: 10m}}, limits: {{memory: 64Mi, cpu: 200m}}}}
"
    )
}

/// With the rights of someone on call: `view`, in the namespace and in surefoot's own.
fn a_pipeline_waits_for_a_real_rollout() -> Result<()> {
    let plane = shared::node()?;
    drop(shared::surefoot_on_node()?);
    let (admin, _) = shared::namespace(plane, "pipeline", "enforce")?;
    let olga = plane.user("olga");
    for namespace in ["pipeline", "surefoot-system"] {
        let bind = ["create", "rolebinding", "olga", "--clusterrole=view", "--user=olga", "-n", namespace];
        plane.admin().run(&bind)?.success()?;
    }
    let wait = ["wait", "deploy/digits", "-n", "pipeline", "--for", "settled", "--timeout", "110s"];
    admin.apply(&real_model("1.0.0", "good"))?;
    let good = surefoot(&olga, &wait)?.success()?;
    ensure!(good.stdout == "settled: 1.0.0\n", "{good}");

    admin.apply(&real_model("2.0.0", "crash"))?;
    let bad = surefoot(&olga, &wait)?;
    let said = bad.stdout.starts_with("reverted: 2.0.0 failed ") && bad.stdout.ends_with(", 1.0.0 is back\n");
    ensure!(bad.code == 1 && said, "{bad}");

    let status = surefoot(&olga, &["status", "-n", "pipeline"])?.success()?;
    ensure!(status.stdout.contains("reverted") && status.stdout.contains("2.0.0 quarantined"), "{status}");
    let story = surefoot(&olga, &["status", "digits", "-n", "pipeline"])?.success()?;
    for want in ["1.0.0 settled", "rollout of 2.0.0", "crash of container \"model\"", "reverted to 1.0.0"] {
        ensure!(story.stdout.contains(want), "no {want:?} in {story}");
    }
    Ok(())
}
