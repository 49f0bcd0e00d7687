//! What a rollout has spent of its probe failures. One currency, probe periods:
//!
//! - each restart costs the probe failures that lead to one (`failureThreshold` of the liveness probe, of the startup
//!   probe while not started, 3 without one; at most 3 where it ended before it had started, and not by that probe);
//! - once its pod has been ready, or it has restarted, each readiness period that a container is unready costs 1;
//! - a container that has restarted loads once more, which costs nothing: with a startup probe until that has passed,
//!   without one for twice as long as it took the first time, and before it was ever ready as in the next line;
//! - before that, being unready costs nothing until the progress deadline, which decides on those that have run for as
//!   long as it allows: one that got its node later is loading still. It decides on those too that cannot run for what
//!   the template names: an image that is not there, a ConfigMap, an init container that fails.
//!
//! Attempts are ready and unready time counted the same way. It is added up for each container of the template over all
//! pods, because the probes of two containers do not tick alike: one that fails is not outvoted by its neighbours.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    history::{History, PodTrack},
    record::{Evidence, Signal},
    settings::Settings,
    signals::Cause,
    snapshot::{Container, Template},
    time::{after, before, between},
    track::{Phase, Track},
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

/// The rollout that is read.
#[derive(Clone, Copy, Debug)]
pub struct Rollout<'a> {
    /// The template under watch.
    pub template: &'a Template,
    /// The last good one, where it is there.
    pub good: Option<&'a Template>,
    /// The progress deadline where it is exceeded, which makes pods count that have run for that long and never were
    /// ready, or could not run, and decides if there is one.
    pub deadline: Option<Duration>,
}

impl Rollout<'_> {
    /// An image that the good version has too is not there for no fault of this template.
    fn blames(&self, cause: &Cause) -> bool {
        let good = self.good.map_or(&[][..], |good| &good.containers);
        cause.image.as_ref().is_none_or(|image| good.iter().all(|container| container.image != *image))
    }
}

/// Reads what the current rollout has spent.
pub fn read(history: &History, rollout: Rollout<'_>, settings: &Settings, now: Timestamp) -> Reading {
    let readings = settings.budgets.iter().flat_map(|budget| {
        rollout.template.containers.iter().map(move |container| {
            let spent = Spent::of(history, container, budget.window, rollout, now);
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
    Container { name: String::new(), image: String::new(), readiness: None, liveness: None, startup: None }
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
    /// A container that could not run until the deadline was over, and why.
    blocked: Option<(String, Cause)>,
}

impl Spent {
    fn of(history: &History, container: &Container, window: Duration, rollout: Rollout<'_>, now: Timestamp) -> Self {
        let mut spent = Self::default();
        for pod in history.pods.values().filter(|pod| !pod.away) {
            if let Some(track) = pod.containers.get(&container.name) {
                let at_deadline = spent.decide_at_deadline(pod, track, container, rollout, now);
                spent.add(pod, track, container.readiness_period(), before(now, window), at_deadline, now);
            }
        }
        spent
    }

    /// Since when it was given time that is over now, and never was ready.
    fn decide_at_deadline(
        &mut self,
        pod: &PodTrack,
        track: &Track,
        container: &Container,
        rollout: Rollout<'_>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let deadline = rollout.deadline.filter(|_| pod.served.is_none())?;
        let unready = track.changes.last().is_some_and(|(_, phase)| *phase != Phase::Ready);
        let init = pod.init.as_ref().map(|(name, cause)| (name, cause));
        let blocked = init.or(track.blocked.as_ref().map(|cause| (&container.name, cause)));
        let blocked = blocked.filter(|(_, cause)| track.ran.is_none() && rollout.blames(cause));
        let since = track.ran.filter(|_| unready).or(blocked.map(|_| pod.placed))?;
        let due = after(since, deadline);
        if due > now {
            self.worse_at = [self.worse_at, Some(due)].into_iter().flatten().min();
            return None;
        }
        match blocked {
            Some((name, cause)) => self.blocked = self.blocked.take().or_else(|| Some((name.clone(), cause.clone()))),
            None => self.never_ready = true,
        }
        Some(since)
    }

    /// `at_deadline`: the deadline has decided on it, and its time counts from here.
    fn add(
        &mut self,
        pod: &PodTrack,
        track: &Track,
        period: Duration,
        from: Timestamp,
        at_deadline: Option<Timestamp>,
        now: Timestamp,
    ) {
        let served = [pod.served, track.restarted].into_iter().flatten().min();
        let charged_from = served.or(at_deadline.filter(|_| track.ran.is_some()));
        let (ready, unready) = track.times(charged_from, from, now);
        let missed = whole(unready, period);
        let mut failures = missed;
        if missed > 0 {
            let (signal, message) = match track.down() {
                Some(charge) => (charge.signal, charge.message.clone()),
                None if served.is_none() => (Signal::Deadline, String::new()),
                None => (Signal::Readiness, String::new()),
            };
            self.charge(signal, missed, message);
        }
        for charge in track.charges.iter().filter(|charge| charge.at >= from) {
            failures += u64::from(charge.cost);
            self.charge(charge.signal, u64::from(charge.cost), charge.message.clone());
            self.begin(charge.at);
        }
        if unready > Duration::ZERO {
            self.begin(track.first_unready(charged_from, from).unwrap_or(now));
        } else if let Some(since) = at_deadline {
            self.begin(since);
        }
        self.failures += failures;
        self.attempts += failures + whole(ready, period);
        let next = track.next_failure(charged_from, unready, period, now);
        self.worse_at = [self.worse_at, next].into_iter().flatten().min();
        if failures > 0 || at_deadline.is_some() {
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
        let spent_most = self.by_signal.into_values().max_by_key(|(cost, ..)| *cost);
        let (_, signal, message) = spent_most.unwrap_or_default();
        let name = container.name.clone();
        let (name, signal, message) = match self.blocked {
            _ if self.never_ready => (name, Signal::Deadline, message),
            Some((blocked, cause)) if self.failures <= limit => (blocked, cause.signal, cause.message),
            _ => (name, signal.unwrap_or(Signal::Readiness), message),
        };
        Reading {
            failing: self.failures > limit || signal.is_decided_by_deadline(),
            evidence: Evidence {
                failures: narrow(self.failures),
                attempts: narrow(self.attempts),
                budget: narrow(limit),
                since: self.since.unwrap_or(now),
                until: now,
                container: name,
                signal,
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
        for (begin, until, phase) in self.stretches(now) {
            let begin = begin.max(from);
            match charged(phase, charged_from) {
                Some(charged) => unready_for += between(begin.max(charged), until),
                None if phase == Phase::Ready => ready_for += between(begin, until),
                None => {}
            }
        }
        (ready_for, unready_for)
    }

    fn first_unready(&self, charged_from: Option<Timestamp>, from: Timestamp) -> Option<Timestamp> {
        self.stretches(Timestamp::MAX).find_map(|(begin, until, phase)| {
            let begin = begin.max(from).max(charged(phase, charged_from)?);
            (begin < until).then_some(begin)
        })
    }

    /// When the next whole period of being unready is over if nothing changes.
    fn next_failure(
        &self,
        charged_from: Option<Timestamp>,
        unready: Duration,
        period: Duration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let charged = self.changes.last().and_then(|(_, phase)| charged(*phase, charged_from))?;
        let part = Duration::from_nanos(u64::try_from(unready.as_nanos() % period.as_nanos()).unwrap_or_default());
        Some(after(charged.max(now), period.saturating_sub(part)))
    }

    /// From when to when it was how; the last one until `now`.
    fn stretches(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp, Phase)> {
        let ends = self.changes.iter().skip(1).map(|(at, _)| *at).chain([now]);
        self.changes.iter().zip(ends).map(|((at, phase), end)| (*at, end, *phase))
    }
}

/// From when on a stretch of this kind costs; `None`: never.
fn charged(phase: Phase, from: Option<Timestamp>) -> Option<Timestamp> {
    match phase {
        Phase::Ready | Phase::Free(None) => None,
        Phase::Unready => from,
        Phase::Free(Some(until)) => from.map(|from| from.max(until)),
    }
}

/// Whole periods in a time.
fn whole(time: Duration, period: Duration) -> u64 {
    u64::try_from(time.as_nanos() / period.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
