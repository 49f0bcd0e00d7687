//! surefoot installed for real: its image on the node, its pods reached by the API server through its Service, from the first
//! `kubectl apply -k` to the last `kubectl delete -k`. One life in one trial: each step stands on the one before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    doctor, is_asked, lone_node_trial,
    node_causes::signal_container,
    rollouts::{image_of, model},
    support::{Answer, Inside, Look, Node, control_plane::Reader, image::digits, until},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![lone_node_trial(LIFE, life)]
}

const LIFE: &str = "install::a_whole_life_from_apply_to_delete";

/// Builds the image before anything else: a compiler beside them would take the time from the probes of other trials.
/// Should it fail, the trial says why.
pub(crate) fn prepare(arguments: &Arguments) {
    if !arguments.list && is_asked(arguments, LIFE) && Node::available().is_ok() {
        println!("building a static surefoot");
        let _tried_again = Inside::image();
    }
}

const LIMIT: Duration = Duration::from_secs(180);
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
const OWN: &str = "/apis/apps/v1/namespaces/surefoot-system/deployments";

/// Quick, so that a version settles within the trial.
const CONFIG: &str = "\
apiVersion: surefoot.dev/v1
kind: Config
rollouts:
  budget: {failures: 3, percent: 10, window: 10m}
  bake: 5s
";

/// A part of the life, with what came before it.
type Step = fn(&mut Cluster) -> Result<()>;

fn life() -> Result<()> {
    let mut cluster = Cluster { inside: Inside::start()?, begun: Instant::now() };
    let steps: [(&str, Step); 11] = [
        ("installed, and refusing", installed),
        ("a bad rollout is reverted", reverted),
        ("webhooks restarted under traffic", restarted),
        ("a webhook killed under traffic", killed),
        ("configurations reloaded under traffic", reloaded),
        ("the API server restarted under traffic", apiserver_restarted),
        ("the node restarted with everything on it", node_restarted),
        ("certificates rotated under traffic", rotated),
        ("the namespace deleted, and nothing wedged", deleted),
        ("installed again", installed_again),
        ("uninstalled, and nothing left", uninstalled),
    ];
    for (name, step) in steps {
        let begun = Instant::now();
        step(&mut cluster).with_context(|| format!("{name}\n{}", cluster.said()))?;
        println!("install: {name:<45} {:>5.1} s", begun.elapsed().as_secs_f32());
    }
    Ok(())
}

struct Cluster {
    inside: Inside,
    begun: Instant,
}

impl Cluster {
    fn kubectl(&self, args: &[&str]) -> Result<Answer> {
        self.inside.plane.admin().run(args)
    }

    fn get(&self, path: &str) -> Result<Option<Value>> {
        self.inside.plane.get(path)
    }

    /// What its pods say, for the message of a step that failed.
    fn said(&self) -> String {
        let said =
            |args: &[&str]| self.kubectl(args).map_or_else(|error| error.to_string(), |answer| answer.to_string());
        [
            said(&["get", "pods", "-A", "-o", "wide"]),
            said(&["get", "events", "-n", "surefoot-system", "--sort-by=.lastTimestamp"]),
            self.inside.node.tails(),
            said(&["logs", "-n", "surefoot-system", "-l", "app.kubernetes.io/name=surefoot", "--tail=15", "--prefix"]),
        ]
        .concat()
    }

    /// Until all pods of both Deployments are ready and of the newest template.
    fn ready(&self) -> Result<()> {
        for name in ["surefoot-webhook", "surefoot-controller"] {
            until(&format!("{name} to be ready"), LIMIT, || {
                let object = self.get(&format!("{OWN}/{name}"))?.unwrap_or_default();
                let (wanted, status) = (&object["spec"]["replicas"], &object["status"]);
                let current = status["observedGeneration"] == object["metadata"]["generation"];
                let ready =
                    ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|count| status[count] == *wanted);
                Ok(if current && ready { Look::Done(()) } else { Look::Not(status.to_string()) })
            })?;
        }
        Ok(())
    }

    /// Until a bad Deployment is refused by the webhook.
    fn refusing(&self) -> Result<String> {
        let reader = self.inside.plane.reader();
        until("a refusal", LIMIT, || {
            Ok(match asked(&reader) {
                Ok(Some(text)) => Look::Done(text),
                other => Look::Not(format!("{other:?}")),
            })
        })
    }

    fn apply(&self, object: &Value) -> Result<Answer> {
        self.inside.plane.admin().in_namespace("shop").run_with_input(&["apply", "-f", "-"], &object.to_string())
    }

    fn settled(&self, version: &str) -> Result<()> {
        let record = "/api/v1/namespaces/surefoot-system/configmaps?labelSelector=surefoot.dev/record=true";
        until(&format!("{version} to settle"), LIMIT, || {
            let records = self.get(record)?.unwrap_or_default().to_string();
            let settled = records.split("settled").nth(1).unwrap_or_default();
            Ok(if settled.contains(version) { Look::Done(()) } else { Look::Not(records) })
        })
    }

    fn webhooks(&self) -> Result<Vec<Value>> {
        let path = "/api/v1/namespaces/surefoot-system/pods?labelSelector=app.kubernetes.io/component=webhook";
        Ok(self.get(path)?.unwrap_or_default()["items"].as_array().cloned().unwrap_or_default())
    }

    /// How often the running webhooks have said this.
    fn told_by_webhooks(&self, what: &str) -> Result<usize> {
        let webhooks = "app.kubernetes.io/component=webhook";
        let logs = self.kubectl(&["logs", "-n", "surefoot-system", "-l", webhooks, "--tail=-1"])?;
        Ok(logs.stdout.matches(what).count())
    }

    fn deployment(&self) -> Result<Value> {
        self.get("/apis/apps/v1/namespaces/shop/deployments/digits")?.context("no Deployment")
    }
}

/// Sends a Deployment that nobody should be able to make, as a dry run. The text of its refusal; `None`: it was admitted;
/// an error: nobody judged it.
fn asked(reader: &Reader) -> Result<Option<String>> {
    let mut bad = model("good", &[]);
    bad["metadata"]["name"] = json!("bad");
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.local/digits:latest");
    let answer = reader.post("/apis/apps/v1/namespaces/shop/deployments?dryRun=All", &bad.to_string())?;
    match answer.status {
        403 if answer.body.contains("denied the request") => Ok(Some(answer.body)),
        201 => Ok(None),
        status => bail!("{status} {}", answer.body),
    }
}

fn installed(cluster: &mut Cluster) -> Result<()> {
    let namespace = json!({"metadata": {"name": "shop", "labels": {"surefoot.dev/guard": "enforce"}}});
    ensure!(cluster.inside.plane.post("/api/v1/namespaces", &namespace.to_string())?.status == 201, "no namespace");
    let begun = Instant::now();
    let applied = cluster.kubectl(&["apply", "-k", MANIFESTS])?.success()?;
    ensure!(!applied.stderr.contains("Warning"), "{applied}");
    let refused = cluster.refusing()?;
    println!("install: from `kubectl apply -k` to the first refusal {:.1} s", begun.elapsed().as_secs_f32());
    ensure!(refused.contains("images/latest"), "{refused}");
    cluster.ready()?;
    println!("install: all pods ready after {:.1} s", begun.elapsed().as_secs_f32());
    let found = doctor::checks(&cluster.inside.plane)?;
    ensure!(doctor::wrong(&found).is_empty(), "{found:#?}");
    let webhook = found.iter().find(|check| check["area"] == "webhook").map(|check| check["message"].to_string());
    ensure!(webhook.is_some_and(|said| said.contains("3 of 3 ready, one policy set (")), "{found:#?}");
    // Read by the running pods.
    let config = json!({"data": {"config.yaml": CONFIG}});
    cluster.inside.plane.patch("/api/v1/namespaces/surefoot-system/configmaps/surefoot-config", &config)?;
    until("the new configuration in force", LIMIT, || {
        let logs = cluster.kubectl(&[
            "logs",
            "-n",
            "surefoot-system",
            "-l",
            "app.kubernetes.io/component=controller",
            "--tail=-1",
        ])?;
        let reloaded = logs.stdout.matches("the configuration is reloaded").count();
        Ok(if reloaded == 2 { Look::Done(()) } else { Look::Not(format!("{reloaded} controllers have it")) })
    })
}

fn reverted(cluster: &mut Cluster) -> Result<()> {
    cluster.apply(&model("good", &[]))?.success()?;
    cluster.settled("good")?;
    let begun = Instant::now();
    cluster.apply(&model("crash", &[]))?.success()?;
    until("the good version to be back", LIMIT, || {
        let deployment = cluster.deployment()?;
        let back = image_of(&deployment) == digits("good") && deployment["metadata"]["generation"].as_i64() > Some(2);
        Ok(if back { Look::Done(()) } else { Look::Not(deployment["status"].to_string()) })
    })?;
    println!("install: reverted {:.1} s after it was applied", begun.elapsed().as_secs_f32());
    until("an Event", LIMIT, || {
        let events = cluster.kubectl(&[
            "get",
            "events",
            "-n",
            "shop",
            "-o",
            "name",
            "--field-selector=reason=RolloutReverted",
        ])?;
        Ok(if events.stdout.is_empty() { Look::Not(events.to_string()) } else { Look::Done(()) })
    })?;
    let again = cluster.apply(&model("crash", &[]))?.failure()?;
    ensure!(again.stderr.contains("quarantine"), "{again}");
    Ok(())
}

/// Asks all the while, on several threads.
struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Tally>>,
}

/// What came of it.
#[derive(Default)]
struct Tally {
    refused: usize,
    admitted: usize,
    /// Those that the API server gave no verdict on: when, and in which words.
    failed: Vec<(Instant, String)>,
}

impl Traffic {
    fn begin(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = || {
            let (reader, stop) = (cluster.inside.plane.reader(), stop.clone());
            thread::spawn(move || {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    match asked(&reader) {
                        Ok(Some(_)) => tally.refused += 1,
                        Ok(None) => tally.admitted += 1,
                        Err(error) => tally.failed.push((Instant::now(), format!("{error:#}"))),
                    }
                }
                tally
            })
        };
        Self { threads: (0..2).map(|_| one()).collect(), stop }
    }

    /// An error where one was admitted, whatever else happened.
    fn end(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.threads {
            let Tally { refused, admitted, failed } = thread.join().map_err(|_| anyhow!("traffic panicked"))?;
            all.refused += refused;
            all.admitted += admitted;
            all.failed.extend(failed);
        }
        ensure!(all.admitted == 0, "{} were admitted, {} refused", all.admitted, all.refused);
        Ok(all)
    }
}

impl Tally {
    /// How many were refused, which must be all.
    fn all_refused(&self) -> Result<usize> {
        match self.failed.first() {
            Some((_, text)) => {
                bail!("{} were refused, {} got no verdict, the first: {text}", self.refused, self.failed.len())
            }
            None => Ok(self.refused),
        }
    }
}

fn restarted(cluster: &mut Cluster) -> Result<()> {
    let traffic = Traffic::begin(cluster);
    cluster.kubectl(&["rollout", "restart", "deploy/surefoot-webhook", "-n", "surefoot-system"])?.success()?;
    cluster.ready()?;
    until("the old pods to be gone", LIMIT, || {
        let count = cluster.webhooks()?.len();
        Ok(if count == 3 { Look::Done(()) } else { Look::Not(format!("{count} pods")) })
    })?;
    println!("install: {} reviews while three webhooks were replaced, all refused", traffic.end()?.all_refused()?);
    Ok(())
}

/// Of three webhooks one is gone without a word. What it was asked fails, and what is sent to it until its endpoint is
/// taken away; nothing is admitted for that. It comes back by itself.
fn killed(cluster: &mut Cluster) -> Result<()> {
    let traffic = Traffic::begin(cluster);
    let victim = cluster.webhooks()?.swap_remove(0)["metadata"]["name"].as_str().context("no name")?.to_owned();
    signal_container(&victim, Signal::KILL)?;
    let path = format!("/api/v1/namespaces/surefoot-system/pods/{victim}");
    until("the killed one to be back", LIMIT, || {
        let status = cluster.get(&path)?.unwrap_or_default()["status"]["containerStatuses"][0].clone();
        let back = status["restartCount"] == 1 && status["ready"] == true;
        Ok(if back { Look::Done(()) } else { Look::Not(status.to_string()) })
    })?;
    cluster.ready()?;
    let tally = traffic.end()?;
    let spread = match (tally.failed.first(), tally.failed.iter().map(|(at, _)| at).max()) {
        (Some((first, _)), Some(last)) => last.duration_since(*first),
        _ => Duration::ZERO,
    };
    let (refused, failed) = (tally.refused, tally.failed.len());
    println!("install: {refused} reviews while one was killed, {failed} of them failed, within {spread:.1?}");
    ensure!(failed <= 20 && refused > 10 * failed, "{refused} were refused: {:?}", tally.failed);
    Ok(())
}

/// A configuration that is none leaves the one in force; a good one takes its place.
fn reloaded(cluster: &mut Cluster) -> Result<()> {
    let path = "/api/v1/namespaces/surefoot-system/configmaps/surefoot-config";
    let traffic = Traffic::begin(cluster);
    let misspelt = CONFIG.replace("rollouts", "rollout");
    let other = format!("{CONFIG}policies: {{canary-cap: {{action: Warn}}}}\n");
    for (text, told) in [(misspelt, "did you mean `rollouts`?"), (other, "policies are reloaded")] {
        let before = cluster.told_by_webhooks(told)?;
        cluster.inside.plane.patch(path, &json!({"data": {"config.yaml": text}}))?;
        until(told, LIMIT, || {
            let count = cluster.told_by_webhooks(told)? - before;
            Ok(if count >= 3 { Look::Done(()) } else { Look::Not(format!("told {count} times")) })
        })?;
    }
    println!("install: {} reviews while configurations were reloaded, all refused", traffic.end()?.all_refused()?);
    Ok(())
}

/// While it is away nobody is answered; from its first answer on nothing is admitted, and no webhook fails it.
fn apiserver_restarted(cluster: &mut Cluster) -> Result<()> {
    let traffic = Traffic::begin(cluster);
    cluster.inside.plane.restart_apiserver()?;
    cluster.refusing()?;
    cluster.ready()?;
    let tally = traffic.end()?;
    let ours = tally.failed.iter().find(|(_, text)| text.contains("failed calling webhook"));
    ensure!(ours.is_none(), "{ours:?}");
    println!("install: {} reviews while the API server restarted, all refused that it answered", tally.refused);
    Ok(())
}

/// With every webhook gone nothing is admitted; what ran is there again by itself, and no version is blamed for it.
fn node_restarted(cluster: &mut Cluster) -> Result<()> {
    let pods = |cluster: &Cluster| -> Result<BTreeMap<String, Value>> {
        let pods = cluster.get("/api/v1/pods")?.unwrap_or_default();
        let of = |pod: &Value| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            (name, pod["status"]["containerStatuses"][0].clone())
        };
        Ok(pods["items"].as_array().into_iter().flatten().map(of).collect())
    };
    let (before, deployment, traffic) = (pods(cluster)?, cluster.deployment()?, Traffic::begin(cluster));
    let begun = Instant::now();
    cluster.inside.node.restart()?;
    until("all pods to run again", LIMIT, || {
        let now = pods(cluster)?;
        let runs_again = |(name, old): (&String, &Value)| {
            now.get(name).is_some_and(|new| new["ready"] == true && new["containerID"] != old["containerID"])
        };
        let again = before.iter().filter(|pod| runs_again(*pod)).count();
        Ok(if again == before.len() { Look::Done(()) } else { Look::Not(format!("{again} of {}", before.len())) })
    })?;
    let back = begun.elapsed();
    cluster.refusing()?;
    let (Tally { refused, failed, .. }, count) = (traffic.end()?, before.len());
    println!(
        "install: {count} pods ran again {back:.1?} after the node lost its power; {refused} reviews refused, {} without a verdict",
        failed.len()
    );
    let (old, new) = (&deployment["spec"]["template"], &cluster.deployment()?["spec"]["template"]);
    ensure!(old == new, "the template was changed: {old} {new}");
    Ok(())
}

fn rotated(cluster: &mut Cluster) -> Result<()> {
    let argument = json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--certificate-lifetime=36s"}]);
    let patch = argument.to_string();
    cluster
        .kubectl(&["patch", "deploy/surefoot-controller", "-n", "surefoot-system", "--type=json", "-p", &patch])?
        .success()?;
    cluster.ready()?;
    let path = "/api/v1/namespaces/surefoot-system/secrets/surefoot-webhook-tls";
    let certificate = || anyhow::Ok(cluster.get(path)?.unwrap_or_default()["data"]["tls.crt"].clone());
    let traffic = Traffic::begin(cluster);
    // Away by mistake; then twice because it is due.
    cluster.inside.plane.delete(path)?;
    let mut before = json!(null);
    for what in ["a certificate", "the next one", "the one after that"] {
        before = until(what, LIMIT, || {
            let now = certificate()?;
            Ok(if now.is_null() || now == before { Look::Not("none".to_owned()) } else { Look::Done(now) })
        })?;
    }
    // The last of them is shown to somebody, too.
    let reloaded = until("the last one to be read by a webhook", LIMIT, || {
        let count = cluster.told_by_webhooks("the certificate is reloaded")?;
        Ok(if count >= 9 { Look::Done(count) } else { Look::Not(format!("{count} times")) })
    })?;
    println!(
        "install: {} reviews while certificates were replaced, {reloaded} times read, all refused",
        traffic.end()?.all_refused()?
    );
    Ok(())
}

const KINDS: &str = "mutatingwebhookconfigurations,validatingwebhookconfigurations";

fn deleted(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "namespace", "surefoot-system", "--timeout=120s"])?.success()?;
    let begun = Instant::now();
    until("the hooks to be gone", LIMIT, || {
        let left = cluster.kubectl(&["get", KINDS, "-o", "name"])?;
        Ok(if left.stdout.is_empty() { Look::Done(()) } else { Look::Not(left.to_string()) })
    })?;
    println!("install: hooks gone {:.1} s after the namespace", begun.elapsed().as_secs_f32());
    cluster.apply(&model("better", &[]))?.success()?;
    Ok(())
}

fn installed_again(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl(&["apply", "-k", MANIFESTS])?.success()?;
    cluster.refusing()?;
    cluster.ready()
}

fn uninstalled(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "-k", MANIFESTS, "--timeout=120s"])?.success()?;
    let all = cluster.kubectl(&["api-resources", "--verbs=list,delete", "-o", "name"])?.success()?;
    let kinds: Vec<&str> =
        all.stdout.lines().filter(|kind| *kind != "events" && *kind != "events.events.k8s.io").collect();
    until("nothing to be left", LIMIT, || {
        let left = cluster.kubectl(&["get", &kinds.join(","), "-A", "-o", "name"])?;
        let left: Vec<_> = left.stdout.lines().filter(|name| name.contains("surefoot")).map(str::to_owned).collect();
        Ok(if left.is_empty() { Look::Done(()) } else { Look::Not(left.join(" ")) })
    })?;
    // What was guarded runs on.
    let pods = cluster.deployment()?["status"]["readyReplicas"].clone();
    ensure!(pods.as_i64() > Some(0), "no pod of the model is ready: {pods}");
    println!("install: a whole life took {:.0} s", cluster.begun.elapsed().as_secs_f32());
    Ok(())
}
