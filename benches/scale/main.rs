//! What the controller costs where there is much to watch: guarded Deployments of three pods each, on nodes that KWOK
//! simulates, in a real control plane. `make bench-scale`; other numbers of Deployments: `cargo bench --bench scale -- 100 500`.
//!
//! The bars: 100 MB resident with 10,000 Deployments, two writes for each healthy rollout, none when nothing happens (the lease
//! aside), 1 % of a core then, 10 s from the start to the first decision; and from a spent budget, as the API server shows it,
//! to the template being back 100 ms in the middle and 1 s at the 99th percentile, with 1,000 other rollouts going on.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use support::{ControlPlane, Look, Surefoot, http, run, simulated::SimulatedNodes, until};

mod soak;
#[path = "../../tests/support/mod.rs"]
mod support;

const SIZES: [usize; 2] = [1_000, 10_000];
const NODES: usize = 50;
/// Deployments of one namespace.
const EACH: usize = 1_000;
/// The API server takes so many writes at once without queueing.
const WRITERS: usize = 8;
/// Healthy rollouts whose writes are counted.
const HEALTHY: usize = 100;
/// Rollouts that go on while others fail.
const OTHERS: usize = 1_000;
/// Rollouts that fail, one after another.
const FAILING: usize = 100;
/// For how long nothing happens.
const IDLE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(1_200);

/// Where the pace is slow, rollouts go on for as long as all this takes.
const CONFIG: &str = "\
apiVersion: surefoot.dev/v1
kind: Config
rollouts:
  bake: 10s
  overrides:
    - namespaces: {matchLabels: {pace: slow}}
      bake: 10m
";

fn main() -> Result<()> {
    run::janitor_if_asked();
    let done = if env::args().any(|argument| argument == "soak") { soak::soak() } else { bench() };
    run::end();
    done
}

/// The numbers among the arguments.
fn numbers() -> Vec<usize> {
    env::args().filter_map(|number| number.parse().ok()).collect()
}

fn bench() -> Result<()> {
    let mut sizes = numbers();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let plane = ControlPlane::start()?;
    let mut bed = Bed::of(&plane)?;
    println!(
        "{:>11}{:>9}{:>10}{:>16}{:>13}{:>16}{:>15}{:>15}{:>19}",
        "Deployments",
        "pods",
        "at first",
        "first decision",
        "all decided",
        "writes at rest",
        "core at rest",
        "a rollout",
        "resident"
    );
    let mut rows = Vec::new();
    for size in sizes {
        rows.push(bed.grown_to(size)?);
    }
    if let [first, .., last] = rows.as_slice() {
        println!(
            "{} times as many: {:.1} times resident, {:.1} times the time to decide about all",
            last.size / first.size,
            last.resident / first.resident,
            last.all / first.all
        );
    }
    bed.latency()
}

/// A control plane with surefoot and simulated nodes.
struct Bed<'a> {
    plane: &'a ControlPlane,
    surefoot: Surefoot,
    nodes: SimulatedNodes,
    /// Of the controller.
    metrics: SocketAddr,
    made: usize,
    controller: u32,
}

/// What was measured with so many Deployments.
struct Row {
    size: usize,
    /// Seconds from the start to a decision about each of them.
    all: f64,
    /// MB.
    resident: f64,
}

impl<'a> Bed<'a> {
    /// With a webhook, and no controller yet.
    fn of(plane: &'a ControlPlane) -> Result<Self> {
        let nodes = SimulatedNodes::start(plane, NODES)?;
        let mut surefoot = Surefoot::install(plane, Path::new(env!("CARGO_BIN_EXE_surefoot")), CONFIG)?;
        surefoot.start_webhook()?;
        let metrics = SocketAddr::from(([127, 0, 0, 1], run::free_port()?));
        Ok(Self { surefoot, metrics, plane, nodes, made: 0, controller: 0 })
    }

    /// Makes Deployments until there are `size`, and measures.
    fn grown_to(&mut self, size: usize) -> Result<Row> {
        self.fill(size)?;
        let (_, at_first) = self.start()?;
        self.rested()?;
        // From now on it is as after every other restart: the records are there.
        self.surefoot.stop_controller()?;
        let (first, all) = self.start()?;
        self.rested()?;
        let (writes, core) = self.idle()?;
        let rollout = self.healthy()?;
        let resident = resident(self.controller)?;
        println!(
            "{size:>11}{:>9}{at_first:>8.1} s{:>16}{all:>11.1} s{:>16}{:>15}{:>15}{:>19}",
            size * 3,
            format!("{first:.1} s ({})", met(first <= 10.0)),
            format!("{writes} ({})", met(writes == 0)),
            format!("{core:.2} % ({})", met(core < 1.0)),
            format!("{rollout:.2} ({})", met(rollout <= 2.0)),
            format!("{resident:.1} MB ({})", met(resident <= 100.0)),
        );
        self.surefoot.stop_controller()?;
        Ok(Row { size, all, resident })
    }

    /// Makes them in namespaces that are guarded from then on, and waits for their pods.
    fn fill(&mut self, size: usize) -> Result<()> {
        let begun = Instant::now();
        let namespaces: Vec<usize> = (self.made.div_ceil(EACH)..size.div_ceil(EACH)).collect();
        for number in &namespaces {
            let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: many-{number}}}}}");
            self.plane.admin().apply(&namespace)?;
        }
        let (plane, nodes) = (self.plane, &self.nodes);
        in_parallel(self.made..size, |number| {
            let object = deployment(number, "1.0.0", nodes.name(number));
            let answer = plane.post(&format!("{}?fieldManager=kubectl", list(number / EACH)), &object.to_string())?;
            ensure!(answer.status == 201, "{} {}", answer.status, answer.body);
            Ok(())
        })?;
        for number in (self.made / EACH)..size.div_ceil(EACH) {
            self.available(number, (size - number * EACH).min(EACH))?;
            let label = ["label", "namespace", &format!("many-{number}"), "surefoot.dev/guard=enforce", "--overwrite"];
            self.plane.admin().run(&label)?.success()?;
        }
        eprintln!("{} Deployments made in {} s", size - self.made, begun.elapsed().as_secs());
        self.made = size;
        Ok(())
    }

    /// Until so many Deployments of a namespace are complete.
    fn available(&self, namespace: usize, wanted: usize) -> Result<()> {
        until(&format!("the pods of many-{namespace}"), LIMIT, || {
            let mut complete = 0;
            for page in pages(self.plane, &list(namespace))? {
                complete += page.iter().filter(|it| is_complete(it)).count();
            }
            let not = || {
                thread::sleep(Duration::from_secs(1));
                Look::Not(format!("{complete} of {wanted} are complete"))
            };
            Ok(if complete == wanted { Look::Done(()) } else { not() })
        })
    }

    /// Starts the controller; seconds until its first decision, and until there is one about each Deployment.
    fn start(&mut self) -> Result<(f64, f64)> {
        let begun = Instant::now();
        self.controller = self.surefoot.start_controller_listening(self.metrics)?;
        let seconds = |wanted: usize| {
            until(&format!("{wanted} decisions"), LIMIT, || {
                let decided = self.sum("surefoot_controller_rollouts").unwrap_or_default();
                let seconds = begun.elapsed().as_secs_f64();
                Ok(if decided >= wanted { Look::Done(seconds) } else { Look::Not(format!("{decided}")) })
            })
        };
        Ok((seconds(1)?, seconds(self.made)?))
    }

    /// Until it has nothing to do, and writes no more.
    fn rested(&self) -> Result<()> {
        let mut writes = self.writes()?;
        let mut since = Instant::now();
        until("the controller to rest", LIMIT, || {
            let now = self.writes()?;
            if std::mem::replace(&mut writes, now) != now {
                since = Instant::now();
            }
            Ok(if since.elapsed() > Duration::from_secs(5) {
                Look::Done(())
            } else {
                Look::Not(format!("{now} writes"))
            })
        })
    }

    /// Writes, and the share of a core in percent, while nothing happens.
    fn idle(&self) -> Result<(usize, f64)> {
        let (writes, ticks, begun) = (self.writes()?, ticks(self.controller)?, Instant::now());
        // Not for something to happen: this long is what is measured.
        thread::sleep(IDLE);
        let seconds = begun.elapsed().as_secs_f64();
        let used = (self::ticks(self.controller)? - ticks) as f64 / TICKS_PER_SECOND;
        Ok((self.writes()? - writes, 100.0 * used / seconds))
    }

    /// Writes for each healthy rollout, until it has settled.
    fn healthy(&self) -> Result<f64> {
        let numbers = self.made.saturating_sub(HEALTHY)..self.made;
        let (count, writes) = (numbers.len(), self.writes()?);
        let settled = self.write("RecordSettled")?;
        let version = format!("2.{}.0", self.made);
        self.roll_out(numbers, &version)?;
        until("the healthy rollouts to settle", LIMIT, || {
            let settled = self.write("RecordSettled")? - settled;
            Ok(if settled >= count { Look::Done(()) } else { Look::Not(format!("{settled} of {count}")) })
        })?;
        self.rested()?;
        Ok((self.writes()? - writes) as f64 / count as f64)
    }

    /// From a spent budget to the template being back, while other rollouts go on: when they have all begun, and while they
    /// begin as fast as the API server takes them.
    fn latency(&mut self) -> Result<()> {
        self.start()?;
        self.rested()?;
        let each = FAILING.min(self.made / 4);
        let (first, second) = (0..each, each..2 * each);
        let others = second.end..(second.end + OTHERS).min(self.made);
        for namespace in 0..others.end.div_ceil(EACH) {
            let label = ["label", "namespace", &format!("many-{namespace}"), "pace=slow", "--overwrite"];
            self.plane.admin().run(&label)?.success()?;
        }
        self.roll_out(first.start..second.end, "3.0.0")?;
        self.available(0, self.made.min(EACH))?;
        let pods = self.pods_of("3.0.0")?;
        thread::scope(|scope| {
            let rolling = scope.spawn(|| self.roll_out(others.clone(), "3.0.1"));
            let while_they_begin = self.failing(first, &pods)?;
            print_latency(while_they_begin, &format!("{} other rollouts begin", others.len()));
            rolling.join().unwrap_or_else(|_| bail!("a writer panicked"))
        })?;
        self.available(0, self.made.min(EACH))?;
        self.rested()?;
        let while_they_bake = self.failing(second, &pods)?;
        print_latency(while_they_bake, &format!("{} other rollouts go on", others.len()));
        self.surefoot.stop_controller()
    }

    /// Lets them fail one after another; milliseconds until each was reverted.
    fn failing(&self, numbers: std::ops::Range<usize>, pods: &BTreeMap<String, Value>) -> Result<Vec<f64>> {
        let before = self.sum("surefoot_controller_reverts")?;
        let mut spent: Vec<Timestamp> = Vec::new();
        for number in numbers.clone() {
            let pod = pods.get(&name(number)).with_context(|| format!("no pod of {}", name(number)))?;
            let path =
                format!("/api/v1/namespaces/many-0/pods/{}/status", pod["metadata"]["name"].as_str().unwrap_or(""));
            self.plane.patch(&path, &crashed(pod))?;
            spent.push(Timestamp::now());
            thread::sleep(Duration::from_millis(200));
        }
        let back = self.back(numbers, before)?;
        Ok(spent.iter().zip(&back).map(|(spent, back)| 1000.0 * back.duration_since(*spent).as_secs_f64()).collect())
    }

    /// Gives these Deployments another version.
    fn roll_out(&self, numbers: std::ops::Range<usize>, version: &str) -> Result<()> {
        let (plane, nodes) = (self.plane, &self.nodes);
        in_parallel(numbers, |number| {
            let object = deployment(number, version, nodes.name(number));
            let patch = json!({"metadata": {"labels": object["metadata"]["labels"]}, "spec": {"template": object["spec"]["template"]}});
            plane.patch(&format!("{}/{}", list(number / EACH), name(number)), &patch).map(drop)
        })
    }

    /// A pod of this version for each Deployment of the first namespace that has one.
    fn pods_of(&self, version: &str) -> Result<BTreeMap<String, Value>> {
        let path = format!("/api/v1/namespaces/many-0/pods?labelSelector=app.kubernetes.io/version={version}");
        let pods = pages(self.plane, &path)?.into_iter().flatten();
        Ok(pods.map(|pod| (pod["metadata"]["labels"]["app"].as_str().unwrap_or_default().to_owned(), pod)).collect())
    }

    /// When the API server had answered the controller's patch of each of these Deployments.
    fn back(&self, numbers: std::ops::Range<usize>, before: usize) -> Result<Vec<Timestamp>> {
        let answered = |event: &Value| {
            let by = event["user"]["username"] == "system:serviceaccount:surefoot-system:surefoot-controller";
            let text = event["stageTimestamp"].as_str().filter(|_| by && event["verb"] == "patch")?;
            text.parse::<Timestamp>().ok()
        };
        until("the templates to be back", Duration::from_secs(60), || {
            let reverts = self.sum("surefoot_controller_reverts")? - before;
            Ok(if reverts >= numbers.len() { Look::Done(()) } else { Look::Not(format!("{reverts} reverts")) })
        })?;
        let of_one = |number| {
            self.plane.audited("many-0", &name(number))?.iter().find_map(answered).with_context(|| name(number))
        };
        numbers.map(of_one).collect()
    }

    /// The sum of a metric over its labels.
    fn sum(&self, metric: &str) -> Result<usize> {
        let text = http::plain(self.metrics, "/metrics", None)?.body;
        let lines =
            text.lines().filter(|line| line.starts_with(metric) && line[metric.len()..].starts_with(['{', '_', ' ']));
        let lines = lines.filter(|line| !line.starts_with(&format!("{metric}_created")));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize)
    }

    /// All that it wrote and that the API server took, the lease aside.
    fn writes(&self) -> Result<usize> {
        let text = http::plain(self.metrics, "/metrics", None)?.body;
        let lines = text.lines().filter(|line| {
            line.starts_with("surefoot_controller_writes_total")
                && line.contains("\"made\"")
                && !line.contains("Lease\"")
        });
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize)
    }

    /// The same of one kind.
    fn write(&self, kind: &str) -> Result<usize> {
        let text = http::plain(self.metrics, "/metrics", None)?.body;
        let line = text.lines().find(|line| line.contains(&format!("write=\"{kind}\"")) && line.contains("\"made\""));
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default() as usize)
    }
}

fn print_latency(mut took: Vec<f64>, what: &str) {
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize];
    println!(
        "budget spent to template back, {} times, while {what}: p50 {:.0} ms (100: {}), p99 {:.0} ms (1000: {}), at most {:.0} ms",
        took.len(),
        at(0.5),
        met(at(0.5) <= 100.0),
        at(0.99),
        met(at(0.99) <= 1000.0),
        at(1.0)
    );
}

/// Does it for each number, [`WRITERS`] at a time.
fn in_parallel(numbers: std::ops::Range<usize>, done: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let make = |writer: usize| numbers.clone().skip(writer).step_by(WRITERS).try_for_each(&done);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || make(writer))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked")))
    })
}

/// A list, some hundred objects at a time.
fn pages(plane: &ControlPlane, path: &str) -> Result<Vec<Vec<Value>>> {
    let (mut pages, mut next) = (Vec::new(), String::new());
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let mut list = plane.get(&format!("{path}{mark}limit=250&continue={next}"))?.context("no list")?;
        next = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if let Value::Array(items) = list["items"].take() {
            pages.push(items);
        }
        if next.is_empty() {
            return Ok(pages);
        }
    }
}

fn is_complete(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|count| status[count] == spec["replicas"])
}

fn name(number: usize) -> String {
    format!("model-{number}")
}

fn list(namespace: usize) -> String {
    format!("/apis/apps/v1/namespaces/many-{namespace}/deployments")
}

/// With nothing to complain about. Its pods are bound to a node by their template: the scheduler is not what is measured.
fn deployment(number: usize, version: &str, node: &str) -> Value {
    let probe = |failures: u32| json!({"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 10, "failureThreshold": failures});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name(number), "labels": {"surefoot.dev/model": name(number), "app.kubernetes.io/version": version}},
        "spec": {
            "replicas": 3, "minReadySeconds": 1, "revisionHistoryLimit": 3, "selector": {"matchLabels": {"app": name(number)}},
            "template": {
                "metadata": {"labels": {"app": name(number), "app.kubernetes.io/version": version}},
                "spec": {"nodeName": node, "containers": [{
                    "name": "model", "image": format!("registry.local/model:{version}"), "ports": [{"containerPort": 8000}],
                    "startupProbe": probe(30), "readinessProbe": probe(3), "livenessProbe": probe(6),
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}},
                }]},
            },
        },
    })
}

/// The status of a pod whose container has crashed five times.
fn crashed(pod: &Value) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut status = pod["status"].clone();
    let container = &mut status["containerStatuses"][0];
    let begun = container["state"]["running"]["startedAt"].clone();
    container["restartCount"] = json!(5);
    container["ready"] = json!(false);
    container["started"] = json!(true);
    container["lastState"] =
        json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": begun, "finishedAt": now}});
    container["state"] = json!({"running": {"startedAt": now}});
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if condition["type"] != "Initialized" {
            condition["status"] = json!("False");
            condition["lastTransitionTime"] = json!(now);
        }
    }
    json!({"status": {"containerStatuses": status["containerStatuses"], "conditions": status["conditions"]}})
}

/// Of `/proc/PID/stat`; 100 on every architecture that Linux and Rust share (`sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process.
fn ticks(process: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    field(11).zip(field(12)).map(|(user, system)| user + system).with_context(|| stat.clone())
}

/// Resident memory of a process in MB.
fn resident(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}
