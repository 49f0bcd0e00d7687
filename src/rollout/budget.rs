//! What a rollout has spent of its probe failures. One currency, probe periods:
//!
//! - each restart costs the probe failures that lead to one (`failureThreshold` of the liveness probe, of the startup
//!   probe while not started, 3 without one; at most 3 where it ended by itself before it had started);
//! - once its pod has been ready, or it has restarted, each readiness period that a container is unready costs 1;
//! - before that, being unready costs nothing until the progress deadline, which decides on those that have run for as
//!   long as it allows: one that got its node later is loading still.
//!
//! Attempts are ready and unready time counted the same way. It is added up for each container of the template over all
//! pods, because the probes of two containers do not tick alike: one that fails is not outvoted by its neighbours.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    history::{History, PodTrack, Track},
    record::{Evidence, Signal},
    settings::Settings,
    snapshot::Container,
    time::{after, before, between},
};
use crate::config::Budget;

/// Names of pods and of nodes that evidence keeps.
const NAMES: usize = 10;

/// What was spent, by the container that is worst off.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// More was spent than some budget allows, or the deadline has passed.
    pub failing: bool,
    /// The figures; of a rollout without failures too.
    pub evidence: Evidence,
    /// When the figures get worse if nothing changes.
    pub worse_at: Option<Timestamp>,
}

/// Reads what the current rollout has spent. `deadline`: the progress deadline where it is exceeded, which makes pods
/// count that have run for that long and never were ready, and decides if there is one.
pub fn read(
    history: &History,
    containers: &[Container],
    settings: &Settings,
    deadline: Option<Duration>,
    now: Timestamp,
) -> Reading {
    let readings = settings.budgets.iter().flat_map(|budget| {
        containers.iter().map(move |container| {
            let spent = Spent::of(history, container, budget.window, deadline, now);
            spent.reading(container, budget, now)
        })
    });
    let worst = readings
        .reduce(|worst, other| if other.is_worse_than(&worst) { other.or_soon(&worst) } else { worst.or_soon(&other) });
    worst.unwrap_or_else(|| {
        Spent::default().reading(&nobody(), &Budget { failures: 0, percent: 0, window: Duration::ZERO }, now)
    })
}

/// Stands for the container where a template has none: Kubernetes refuses such a template.
fn nobody() -> Container {
    Container { name: String::new(), readiness: None, liveness: None, startup: None }
}

impl Reading {
    fn is_worse_than(&self, other: &Self) -> bool {
        let share =
            |reading: &Self| u64::from(reading.evidence.failures) * 1000 / u64::from(reading.evidence.budget.max(1));
        (self.failing, share(self)) > (other.failing, share(other))
    }

    fn or_soon(mut self, other: &Self) -> Self {
        self.worse_at = [self.worse_at, other.worse_at].into_iter().flatten().min();
        self
    }
}

/// What one container has spent, over all pods.
#[derive(Debug, Default)]
struct Spent {
    failures: u64,
    attempts: u64,
    since: Option<Timestamp>,
    by_signal: BTreeMap<u8, (u64, Option<Signal>, String)>,
    pods: Vec<String>,
    nodes: Vec<String>,
    worse_at: Option<Timestamp>,
    /// A pod that has run until the deadline was over was never ready.
    never_ready: bool,
}

impl Spent {
    fn of(
        history: &History,
        container: &Container,
        window: Duration,
        deadline: Option<Duration>,
        now: Timestamp,
    ) -> Self {
        let mut spent = Self::default();
        for pod in history.pods.values() {
            if let Some(track) = pod.containers.get(&container.name) {
                spent.add(pod, track, container.readiness_period(), before(now, window), deadline, now);
            }
        }
        spent
    }

    fn add(
        &mut self,
        pod: &PodTrack,
        track: &Track,
        period: Duration,
        from: Timestamp,
        deadline: Option<Duration>,
        now: Timestamp,
    ) {
        let unready_now = track.changes.last().is_some_and(|(_, ready)| !ready);
        let loading = track.ran.filter(|_| unready_now && pod.served.is_none());
        let due_at = deadline.zip(loading).map(|(deadline, ran)| after(ran, deadline));
        let due = due_at.is_some_and(|at| at <= now);
        let served = [pod.served, track.restarted].into_iter().flatten().min();
        let charged_from = served.or(loading.filter(|_| due));
        let (ready, unready) = track.times(charged_from, from, now);
        let missed = whole(unready, period);
        let mut failures = missed;
        if missed > 0 {
            let signal = if served.is_none() { Signal::Deadline } else { Signal::Readiness };
            self.charge(signal, missed, String::new());
        }
        for charge in track.charges.iter().filter(|charge| charge.at >= from) {
            failures += u64::from(charge.cost);
            self.charge(charge.signal, u64::from(charge.cost), charge.message.clone());
            self.begin(charge.at);
        }
        if unready > Duration::ZERO {
            self.begin(track.first_unready(charged_from, from).unwrap_or(now));
        }
        self.failures += failures;
        self.attempts += failures + whole(ready, period);
        self.never_ready |= due;
        let next = (unready_now && charged_from.is_some()).then(|| {
            let part = Duration::from_nanos((unready.as_nanos() % period.as_nanos()) as u64);
            after(now, period.saturating_sub(part))
        });
        self.worse_at = [self.worse_at, next, due_at.filter(|_| !due)].into_iter().flatten().min();
        if failures > 0 || due {
            self.name(pod);
        }
    }

    fn charge(&mut self, signal: Signal, cost: u64, message: String) {
        let sum = self.by_signal.entry(signal as u8).or_default();
        *sum = (sum.0 + cost, Some(signal), message);
    }

    fn begin(&mut self, at: Timestamp) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
    }

    fn name(&mut self, pod: &PodTrack) {
        if self.pods.len() < NAMES {
            self.pods.push(pod.name.clone());
        }
        if let Some(node) = &pod.node
            && self.nodes.len() < NAMES
            && !self.nodes.contains(node)
        {
            self.nodes.push(node.clone());
        }
    }

    fn reading(self, container: &Container, budget: &Budget, now: Timestamp) -> Reading {
        let share = self.attempts.saturating_mul(budget.percent.into()) / 100;
        let limit = u64::from(budget.failures).max(share);
        let decided = self.never_ready;
        let worst = self.by_signal.into_values().max_by_key(|(cost, ..)| *cost);
        let (_, signal, message) = worst.unwrap_or_default();
        Reading {
            failing: self.failures > limit || decided,
            evidence: Evidence {
                failures: narrow(self.failures),
                attempts: narrow(self.attempts),
                budget: narrow(limit),
                since: self.since.unwrap_or(now),
                until: now,
                container: container.name.clone(),
                signal: if decided { Signal::Deadline } else { signal.unwrap_or(Signal::Readiness) },
                message,
                pods: self.pods,
                nodes: self.nodes,
            },
            worse_at: self.worse_at,
        }
    }
}

impl Track {
    /// How long it was ready and unready since `from`; unready time before `charged_from` is neither.
    fn times(&self, charged_from: Option<Timestamp>, from: Timestamp, now: Timestamp) -> (Duration, Duration) {
        let (mut ready_for, mut unready_for) = (Duration::ZERO, Duration::ZERO);
        for (nth, (at, ready)) in self.changes.iter().enumerate() {
            let until = self.changes.get(nth + 1).map_or(now, |(next, _)| *next);
            let begin = (*at).max(from);
            match (ready, charged_from) {
                (true, _) => ready_for += between(begin, until),
                (false, Some(charged)) => unready_for += between(begin.max(charged), until),
                (false, None) => {}
            }
        }
        (ready_for, unready_for)
    }

    fn first_unready(&self, charged_from: Option<Timestamp>, from: Timestamp) -> Option<Timestamp> {
        let charged = charged_from?.max(from);
        let until = |nth: usize| self.changes.get(nth + 1).map_or(Timestamp::MAX, |(next, _)| *next);
        let stretch = self.changes.iter().enumerate().find(|(nth, (_, ready))| !ready && until(*nth) > charged)?;
        Some(stretch.1.0.max(charged))
    }
}

/// Whole periods in a time.
fn whole(time: Duration, period: Duration) -> u64 {
    u64::try_from(time.as_nanos() / period.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
