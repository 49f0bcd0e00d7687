//! A Deployment with its ReplicaSets and pods, and a controller beside it, in values: what a test moves, second by
//! second, to see what is decided.

use std::time::Duration;

use jiff::Timestamp;

use super::observed;
use crate::{
    config::{Guard, Rollouts},
    rollout::{
        Decision, History, Record, Settings, Snapshot, decide, journal,
        record::{ObjectRef, Outcome},
        snapshot::{
            Container, ContainerStatus, Deployment, Exit, Pod, Probe, Progress, ProgressState, ReplicaSet, Since,
            Template, Waiting,
        },
    },
    template::Digest,
};

pub(super) const NODE: &str = "node-1";

/// The cluster and the controller.
#[derive(Clone)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) snapshot: Snapshot,
    pub(super) record: Option<Record>,
    pub(super) history: History,
    pub(super) settings: Settings,
    /// How often the record was written.
    pub(super) writes: u32,
    /// Reverts and withdrawals that were written.
    pub(super) reverts: u32,
}

pub(super) fn digest(name: &str) -> Digest {
    serde_json::from_value(serde_json::Value::String(format!("v1:{name}"))).unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_763_800_000 + second).unwrap()
}

pub(super) fn probe(period: u64, failure_threshold: u32) -> Option<Probe> {
    Some(Probe { period: Duration::from_secs(period), failure_threshold })
}

pub(super) fn template(version: &str) -> Template {
    let (readiness, liveness) = (probe(1, 2), probe(1, 3));
    let image = format!("model:{version}");
    let container = Container { name: "model".into(), image, readiness, liveness, startup: None };
    Template {
        digest: digest(version),
        restarted_at: None,
        version: Some(version.to_owned()),
        containers: vec![container],
    }
}

impl World {
    /// An empty Deployment at 2 replicas, with a guard of `enforce`, and a bake of 60 s.
    pub(super) fn new(version: &str) -> Self {
        let deployment = Deployment {
            namespace: "shop".into(),
            name: "churn".into(),
            uid: "uid-churn".into(),
            generation: 0,
            observed_generation: 0,
            canary: false,
            override_text: None,
            budget_text: None,
            owner: None,
            terminating: false,
            replicas: 2,
            paused: false,
            progress_deadline: Duration::from_secs(600),
            template: template(version),
            total: 0,
            updated: 0,
            available: 0,
            progress: None,
            replica_failure: None,
        };
        let rollouts = Rollouts { bake: Duration::from_secs(60), ..Rollouts::default() };
        let mut world = Self {
            now: at(0),
            snapshot: Snapshot { deployment, replica_sets: Vec::new(), pods: Vec::new() },
            record: None,
            history: History::default(),
            settings: Settings::of(&rollouts, Guard::Enforce, &std::collections::BTreeMap::new(), None),
            writes: 0,
            reverts: 0,
        };
        world.apply(template(version));
        world
    }

    /// `version` settled some time ago, and all is quiet.
    pub(super) fn settled(version: &str) -> Self {
        let mut world = Self::new(version);
        world.all_ready();
        world.run(61);
        assert!(world.record.as_ref().unwrap().has_settled(&digest(version)), "{:?}", world.decide());
        world
    }

    /// Another template, with a ReplicaSet and pods that are not ready, while the old pods stay.
    pub(super) fn apply(&mut self, template: Template) {
        self.snapshot.deployment.template = template.clone();
        self.snapshot.deployment.generation += 1;
        self.snapshot.deployment.observed_generation += 1;
        if self.snapshot.current().is_none() {
            let name = format!("churn-{}", self.snapshot.replica_sets.len());
            let object = ObjectRef { uid: format!("uid-{name}"), name };
            let set = ReplicaSet { object, created: self.now, template, replicas: 2 };
            self.snapshot.replica_sets.push(set);
        }
        self.progress(ProgressState::Other);
        self.snapshot.pods.retain(|pod| !pod.terminating);
        self.new_pods();
    }

    /// New pods of the current ReplicaSet, as many as there are replicas.
    pub(super) fn new_pods(&mut self) {
        let set = self.snapshot.current().unwrap().clone();
        self.snapshot.pods.retain(|pod| pod.owner != set.object.uid);
        for nth in 0..self.snapshot.deployment.replicas {
            self.snapshot.pods.push(self.pod(&set, &format!("{}-{nth}-{}", set.object.name, self.now.as_second())));
        }
        self.counts();
    }

    fn pod(&self, set: &ReplicaSet, name: &str) -> Pod {
        let status = |container: &Container| ContainerStatus {
            name: container.name.clone(),
            started: true,
            running_since: Some(self.now),
            ..ContainerStatus::default()
        };
        Pod {
            uid: format!("uid-{name}"),
            name: name.to_owned(),
            owner: set.object.uid.clone(),
            node: Some(NODE.into()),
            node_ready: None,
            boot: None,
            scheduled: Some(Since { is: true, at: self.now }),
            unschedulable: None,
            init_failure: None,
            created: self.now,
            terminating: false,
            disrupted: false,
            containers_ready: Some(Since { is: false, at: self.now }),
            initialized: Some(self.now),
            containers: set.template.containers.iter().map(status).collect(),
        }
    }

    /// The pods of the current ReplicaSet.
    pub(super) fn pods(&mut self) -> Vec<&mut Pod> {
        let uid = self.snapshot.current().unwrap().object.uid.clone();
        self.snapshot.pods.iter_mut().filter(|pod| pod.owner == uid).collect()
    }

    pub(super) fn all_ready(&mut self) {
        for nth in 0..self.pods().len() {
            self.ready(nth, true);
        }
        self.progress(ProgressState::Complete);
    }

    pub(super) fn ready(&mut self, nth: usize, ready: bool) {
        let now = self.now;
        let pod = self.pods().into_iter().nth(nth).unwrap();
        if pod.containers_ready.is_none_or(|since| since.is != ready) {
            pod.containers_ready = Some(Since { is: ready, at: now });
        }
        for container in &mut pod.containers {
            container.ready = ready;
        }
        self.counts();
    }

    /// The container ended and was started again; it is not ready yet.
    pub(super) fn restart(&mut self, nth: usize, code: i32, reason: &str) {
        let now = self.now;
        self.ready(nth, false);
        let pod = self.pods().into_iter().nth(nth).unwrap();
        pod.containers[0].restarts += 1;
        pod.containers[0].running_since = Some(now);
        pod.containers[0].waiting = None;
        pod.containers[0].last_exit = Some(Exit { code, reason: reason.into(), at: Some(now) });
    }

    /// The container does not run, and waits for this.
    pub(super) fn down(&mut self, nth: usize, reason: &str) {
        self.ready(nth, false);
        let pod = self.pods().into_iter().nth(nth).unwrap();
        pod.containers[0].running_since = None;
        pod.containers[0].waiting = Some(Waiting { reason: reason.into(), message: String::new() });
    }

    pub(super) fn progress(&mut self, state: ProgressState) {
        let set = self.snapshot.current().unwrap();
        let message = format!("ReplicaSet \"{}\" has something", set.object.name);
        let progress = &mut self.snapshot.deployment.progress;
        if progress.as_ref().is_none_or(|known| known.state != state || known.message != message) {
            *progress = Some(Progress { state, message, since: self.now });
        }
    }

    fn counts(&mut self) {
        let replicas = self.snapshot.deployment.replicas;
        let ready = |pod: &Pod| pod.containers_ready.is_some_and(|since| since.is);
        let available = u32::try_from(self.pods().iter().filter(|pod| ready(pod)).count()).unwrap();
        let deployment = &mut self.snapshot.deployment;
        (deployment.total, deployment.updated, deployment.available) = (replicas, replicas, available.min(replicas));
    }

    /// What is decided now; nothing is carried out.
    pub(super) fn decide(&self) -> Decision {
        let history = self.history.clone().observe(&self.snapshot, self.settings.window(), self.now);
        decide(&self.snapshot, self.record.as_ref(), &history, &self.settings, self.now)
    }

    /// Decides, records and carries out, until nothing more is to be done at this moment.
    pub(super) fn step(&mut self) -> Decision {
        let first = self.look();
        let mut last = first.clone();
        for _ in 0..5 {
            if !matches!(last, Decision::Settle(_) | Decision::Revert(_) | Decision::Finish(_)) {
                break;
            }
            self.carry_out(&last);
            last = self.look();
        }
        first
    }

    /// Decides and records.
    pub(super) fn look(&mut self) -> Decision {
        self.history = std::mem::take(&mut self.history).observe(&self.snapshot, self.settings.window(), self.now);
        let (record, history) = (self.record.as_ref(), &self.history);
        let decision = decide(&self.snapshot, record, history, &self.settings, self.now);
        observed::alike(&decision, &self.snapshot, record, history, &self.settings, self.now);
        if matches!(decision, Decision::Revert(_) | Decision::Stall { .. } | Decision::Observe { .. }) {
            self.history = std::mem::take(&mut self.history).failing(self.now);
        }
        if let Some(next) = journal::next(self.record.as_ref(), &self.snapshot, &decision, self.now) {
            self.record = Some(next);
            self.writes += 1;
        }
        decision
    }

    /// What the API server and Kubernetes do with a revert.
    pub(super) fn carry_out(&mut self, decision: &Decision) {
        let Decision::Revert(revert) = decision else { return };
        self.reverts += 1;
        match &revert.target {
            Some(good) => {
                let set = self.snapshot.replica_sets.iter().find(|set| set.object.uid == good.replica_set.uid).unwrap();
                let good = set.template.clone();
                self.apply(good);
                self.all_ready();
            }
            None => {
                self.snapshot.deployment.replicas = 0;
                self.snapshot.deployment.generation += 1;
                self.snapshot.deployment.observed_generation += 1;
                self.new_pods();
            }
        }
    }

    /// Lets time pass, deciding each second; gives the second in which a revert, stall or observation came first.
    pub(super) fn run(&mut self, seconds: u32) -> Option<(u32, Decision)> {
        self.play(seconds, |_, _| {})
    }

    /// The same, with something that happens each second (from 1).
    pub(super) fn play(&mut self, seconds: u32, mut happens: impl FnMut(&mut Self, u32)) -> Option<(u32, Decision)> {
        for second in 1..=seconds {
            self.now += jiff::SignedDuration::from_secs(1);
            happens(self, second);
            let decision = self.step();
            if matches!(decision, Decision::Revert(_) | Decision::Stall { .. } | Decision::Observe { .. }) {
                return Some((second, decision));
            }
        }
        None
    }

    pub(super) fn running(&self) -> &Digest {
        &self.snapshot.deployment.template.digest
    }

    pub(super) fn record(&self) -> &Record {
        self.record.as_ref().unwrap()
    }

    pub(super) fn written(&self) -> usize {
        self.record
            .as_ref()
            .map_or(0, |record| record.reverts.iter().filter(|revert| revert.outcome == Outcome::Written).count())
    }
}
