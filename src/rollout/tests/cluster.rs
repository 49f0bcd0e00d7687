//! A small cluster in values, for the simulator: a Deployment controller, kubelets with back-off and reboots, and versions
//! of which it is known what they do. Times are whole seconds of a clock that is right.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::world::{at, digest, probe};
use crate::rollout::{
    record::ObjectRef,
    snapshot::{
        Container, ContainerStatus, Deployment, Exit, Pod, Probe, Progress, ProgressState, ReplicaSet, Since, Snapshot,
        Template, Waiting,
    },
};

pub(super) const DEADLINE: i64 = 600;

/// What a version does. The figures are seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Conduct {
    /// Ready after this, for ever.
    Good,
    /// Unready for two seconds every so often.
    Blinks(i64),
    /// The first pod ends once, this long after its start.
    CrashesOnce(i64),
    /// Every pod ends so long after each start.
    Crashes(i64),
    /// Liveness fails from then on, in each run.
    Hangs(i64),
    /// Unready from then on, in each run.
    Falls(i64),
    /// Runs, and is never ready.
    Never,
    /// The tag does not exist.
    NoImage,
    /// A ConfigMap does not exist.
    NoConfig,
    /// The init container fails.
    InitFails,
    /// The registry does not answer.
    NoRegistry,
}

impl Conduct {
    pub(super) fn is_guilty(self) -> bool {
        !matches!(self, Self::Good | Self::Blinks(_) | Self::CrashesOnce(_) | Self::NoRegistry)
    }

    /// A guilty one that nobody disturbs is found out after this.
    pub(super) fn found_out_after(self, load: i64) -> i64 {
        match self {
            Self::Crashes(_) | Self::Hangs(_) => 4 * load + 400,
            Self::Falls(after) => load + after + 60,
            _ => DEADLINE + load + 30,
        }
    }
}

/// A version that may be applied.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) name: String,
    pub(super) conduct: Conduct,
    pub(super) load: i64,
    pub(super) startup_probe: bool,
}

impl Version {
    pub(super) fn template(&self) -> Template {
        let startup = Some(Probe { period: Duration::from_secs(1), failure_threshold: 500 });
        let container = Container {
            name: "model".into(),
            image: format!("model:{}", self.name),
            readiness: probe(1, 1),
            liveness: probe(1, 3),
            startup: startup.filter(|_| self.startup_probe),
        };
        Template {
            digest: digest(&self.name),
            restarted_at: None,
            version: Some(self.name.clone()),
            containers: vec![container],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Run {
    /// Not before then.
    Waits(i64),
    Runs(i64),
}

#[derive(Clone, Debug)]
struct Kubelet {
    /// The kubelet is silent, or the machine is off, until then; `None`: it is well.
    back: Option<i64>,
    /// It is off: what ran there has ended when it is back.
    rebooting: bool,
    /// How what ran there ended, if it was rebooted: most often nobody knows.
    exit: (i32, &'static str),
    silent_since: i64,
    boot: u32,
}

#[derive(Clone, Debug)]
struct SimPod {
    version: usize,
    node: usize,
    first: bool,
    evicted: bool,
    run: Run,
    ready: (bool, i64),
    exit: Option<(i32, &'static str, i64)>,
    /// What the kubelet wrote last.
    status: Pod,
    restarts: u32,
    crashes: u32,
}

/// The cluster.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) now: i64,
    pub(super) versions: Vec<Version>,
    /// The version of the Deployment's template.
    pub(super) current: usize,
    pub(super) replicas: u32,
    pub(super) paused: bool,
    generation: i64,
    sets: BTreeMap<usize, ReplicaSet>,
    pods: Vec<SimPod>,
    nodes: Vec<Kubelet>,
    progress: Progress,
    progressed: i64,
    most_ready: usize,
    made: u32,
}

impl Cluster {
    pub(super) fn new(versions: Vec<Version>) -> Self {
        let node = Kubelet { back: None, rebooting: false, exit: (255, "Unknown"), silent_since: 0, boot: 0 };
        let mut cluster = Self {
            now: 0,
            versions,
            current: 0,
            replicas: 2,
            paused: false,
            generation: 1,
            sets: BTreeMap::new(),
            pods: Vec::new(),
            nodes: vec![node; 3],
            progress: Progress { state: ProgressState::Other, message: String::new(), since: at(0) },
            progressed: 0,
            most_ready: 0,
            made: 0,
        };
        cluster.apply(0);
        cluster
    }

    /// Another template, by an apply, an undo or a revert.
    pub(super) fn apply(&mut self, version: usize) {
        self.current = version;
        self.generation += 1;
        let name = format!("churn-{version}");
        let object = ObjectRef { uid: format!("uid-{name}"), name };
        let template = self.versions[version].template();
        let set = ReplicaSet { object, created: at(self.now), template, replicas: self.replicas };
        self.sets.entry(version).or_insert(set);
        (self.progressed, self.most_ready) = (self.now, 0);
    }

    pub(super) fn scale(&mut self, replicas: u32) {
        self.replicas = replicas;
        self.generation += 1;
        (self.progressed, self.most_ready) = (self.now, 0);
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.generation += 1;
        self.progressed = self.now;
    }

    /// A node is off and comes back, or is only not heard of.
    pub(super) fn lose_node(&mut self, node: usize, seconds: i64, reboots: bool, politely: bool) {
        let node = &mut self.nodes[node];
        if node.back.is_none() {
            (node.back, node.rebooting, node.silent_since) = (Some(self.now + seconds), reboots, self.now);
            node.exit = if politely { (137, "Error") } else { (255, "Unknown") };
        }
    }

    pub(super) fn evict(&mut self, nth: usize) {
        if let Some(pod) = self.pods.get_mut(nth) {
            pod.evicted = true;
            pod.status.disrupted = true;
        }
    }

    /// One second.
    pub(super) fn tick(&mut self) {
        self.now += 1;
        for node in 0..self.nodes.len() {
            self.tick_node(node);
        }
        if !self.paused {
            self.roll_out();
        }
        self.tell_progress();
    }

    fn tick_node(&mut self, node: usize) {
        let now = self.now;
        let returns = self.nodes[node].back.is_some_and(|back| back <= now);
        let rebooted = (returns && self.nodes[node].rebooting).then_some(self.nodes[node].exit);
        if returns {
            self.nodes[node].back = None;
            self.nodes[node].boot += u32::from(rebooted.is_some());
        }
        let off = self.nodes[node].back.is_some() && self.nodes[node].rebooting;
        let silent = self.nodes[node].back.is_some();
        for pod in self.pods.iter_mut().filter(|pod| pod.node == node && !pod.evicted) {
            if let (Some((code, reason)), Run::Runs(_)) = (rebooted, pod.run) {
                pod.exit = Some((code, reason, now));
                pod.run = Run::Waits(now + 2);
            }
            if !off {
                pod.live(&self.versions[pod.version], now);
            }
            if !silent {
                pod.report(&self.versions[pod.version], now);
            }
        }
    }

    /// `maxUnavailable` 0 and room for all new ones at once.
    fn roll_out(&mut self) {
        let (current, replicas) = (self.current, self.replicas as usize);
        self.pods.retain(|pod| !pod.evicted);
        while self.pods.iter().filter(|pod| pod.version == current).count() < replicas {
            self.make_pod();
        }
        let mut kept = 0;
        self.pods.retain(|pod| {
            kept += usize::from(pod.version == current);
            pod.version != current || kept <= replicas
        });
        if self.ready() >= replicas {
            self.pods.retain(|pod| pod.version == current);
        }
    }

    fn make_pod(&mut self) {
        self.made += 1;
        let (version, now) = (self.current, self.now);
        let (name, node) = (format!("churn-{version}-{}", self.made), self.made as usize % self.nodes.len());
        let first = self.pods.iter().all(|pod| pod.version != version) && now - self.progressed < 5;
        let mut pod = SimPod {
            version,
            node,
            first,
            evicted: false,
            run: Run::Waits(now + 1),
            ready: (false, now),
            exit: None,
            status: blank(&name, &self.sets[&version].object.uid, now),
            restarts: 0,
            crashes: 0,
        };
        pod.status.node = Some(format!("node-{node}"));
        pod.report(&self.versions[version], now);
        self.pods.push(pod);
    }

    fn ready(&self) -> usize {
        let ready = |pod: &&SimPod| {
            let heard = self.nodes[pod.node].back.is_none();
            pod.version == self.current && heard && pod.status.containers_ready.is_some_and(|since| since.is)
        };
        self.pods.iter().filter(ready).count()
    }

    fn tell_progress(&mut self) {
        let ready = self.ready();
        if ready > self.most_ready {
            (self.most_ready, self.progressed) = (ready, self.now);
        }
        let message = format!("ReplicaSet \"{}\" says so", self.sets[&self.current].object.name);
        let same = self.progress.message == message;
        let was_complete = same && self.progress.state == ProgressState::Complete;
        let complete = ready >= self.replicas as usize && self.pods.iter().all(|pod| pod.version == self.current);
        let state = match () {
            () if complete || was_complete => ProgressState::Complete,
            () if !self.paused && self.now - self.progressed >= DEADLINE => ProgressState::DeadlineExceeded,
            () => ProgressState::Other,
        };
        if !same || self.progress.state != state {
            self.progress = Progress { state, message, since: at(self.now) };
        }
    }

    /// What the API server shows.
    pub(super) fn snapshot(&self) -> Snapshot {
        let of_current = self.pods.iter().filter(|pod| pod.version == self.current).count();
        let count = |count: usize| u32::try_from(count).unwrap();
        let deployment = Deployment {
            namespace: "shop".into(),
            name: "churn".into(),
            uid: "uid-churn".into(),
            generation: self.generation,
            observed_generation: self.generation,
            canary: false,
            override_text: None,
            budget_text: None,
            owner: None,
            terminating: false,
            replicas: self.replicas,
            paused: self.paused,
            progress_deadline: Duration::from_secs(DEADLINE.unsigned_abs()),
            template: self.versions[self.current].template(),
            total: count(self.pods.len()),
            updated: count(of_current),
            available: count(self.ready()),
            progress: Some(self.progress.clone()),
            replica_failure: None,
        };
        let placed = |pod: &SimPod| {
            let node = &self.nodes[pod.node];
            // The control plane waits for 40 s before it says so.
            let lost = node.back.is_some() && self.now - node.silent_since >= 40;
            Pod { node_ready: Some(!lost), boot: Some(node.boot.to_string()), ..pod.status.clone() }
        };
        Snapshot {
            deployment,
            replica_sets: self.sets.values().cloned().collect(),
            pods: self.pods.iter().map(placed).collect(),
        }
    }
}

impl SimPod {
    /// What happens in the container.
    fn live(&mut self, version: &Version, now: i64) {
        let stuck =
            matches!(version.conduct, Conduct::NoImage | Conduct::NoConfig | Conduct::InitFails | Conduct::NoRegistry);
        match self.run {
            Run::Waits(until) if until <= now && !stuck => {
                self.restarts += u32::from(self.exit.is_some());
                self.run = Run::Runs(now);
            }
            Run::Runs(since) => {
                if let Some((code, reason)) = self.ends(version, now - since) {
                    self.exit = Some((code, reason, now));
                    self.crashes += 1;
                    let back_off = if self.crashes == 1 { 1 } else { 10 << (self.crashes - 2).min(5) };
                    self.run = Run::Waits(now + i64::from(back_off).min(300));
                }
            }
            Run::Waits(_) => {}
        }
        let ready = match self.run {
            Run::Runs(since) => self.answers(version, now - since),
            Run::Waits(_) => false,
        };
        if ready != self.ready.0 {
            self.ready = (ready, now);
        }
    }

    fn ends(&self, version: &Version, age: i64) -> Option<(i32, &'static str)> {
        match version.conduct {
            Conduct::CrashesOnce(after) if self.first && self.crashes == 0 && age >= after => Some((1, "Error")),
            Conduct::Crashes(after) if age >= after => Some((1, "Error")),
            Conduct::Hangs(after) if age >= version.load + after + 3 => Some((137, "Error")),
            _ => None,
        }
    }

    fn answers(&self, version: &Version, age: i64) -> bool {
        let served = age - version.load;
        served >= 0
            && match version.conduct {
                Conduct::Blinks(every) => served % every < every - 2,
                Conduct::Falls(after) => served < after,
                Conduct::Never => false,
                _ => true,
            }
    }

    /// What the kubelet writes about it.
    fn report(&mut self, version: &Version, now: i64) {
        let waits = |reason: &str, message: &str| Waiting { reason: reason.into(), message: message.into() };
        let image = format!("model:{}", version.name);
        let (init, waiting) = match (version.conduct, self.run) {
            (_, Run::Runs(_)) => (None, None),
            (Conduct::NoImage, _) => (None, Some(waits("ImagePullBackOff", &format!("{image}: not found")))),
            (Conduct::NoRegistry, _) => (None, Some(waits("ErrImagePull", "dial tcp: i/o timeout"))),
            (Conduct::NoConfig, _) => (None, Some(waits("CreateContainerConfigError", "configmap \"a\" not found"))),
            (Conduct::InitFails, _) => {
                (Some(("fetch".to_owned(), waits("Error", "exit code 1"))), Some(waits("PodInitializing", "")))
            }
            (_, Run::Waits(_)) if self.crashes > 1 => (None, Some(waits("CrashLoopBackOff", "back-off"))),
            (_, Run::Waits(_)) => (None, Some(waits("ContainerCreating", "")).filter(|_| self.exit.is_none())),
        };
        let since = match self.run {
            Run::Runs(since) => Some(since),
            Run::Waits(_) => None,
        };
        self.status.init_failure = init;
        let ready = Since { is: self.ready.0, at: at(self.ready.1) };
        self.status.containers_ready = Some(ready);
        self.status.containers = vec![ContainerStatus {
            name: "model".into(),
            restarts: self.restarts,
            ready: self.ready.0,
            started: since.is_some_and(|since| !version.startup_probe || now - since >= version.load),
            running_since: since.map(at),
            waiting,
            last_exit: self.exit.map(|(code, reason, ended)| Exit { code, reason: reason.into(), at: Some(at(ended)) }),
        }];
    }
}

fn blank(name: &str, set: &str, now: i64) -> Pod {
    let created: Timestamp = at(now);
    Pod {
        uid: format!("uid-{name}"),
        name: name.to_owned(),
        owner: set.to_owned(),
        node: None,
        node_ready: None,
        boot: None,
        scheduled: Some(Since { is: true, at: created }),
        unschedulable: None,
        created,
        terminating: false,
        disrupted: false,
        containers_ready: None,
        initialized: Some(created),
        init_failure: None,
        containers: Vec::new(),
    }
}
