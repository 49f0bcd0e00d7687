//! What was seen of one container: when it was ready and when not, its restarts, and what keeps it from running.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    history::Look,
    record::Signal,
    signals::{self, Cause},
    snapshot::{Container, ContainerStatus, Pod},
    time::{after, before, between},
};

/// Restarts that are taken from the count of a pod seen for the first time, at most.
const MOST_RESTARTS: u32 = 100;

/// Somebody looks at least this often at a container that spends: the longest pause of the controller is a minute. What
/// lies in a longer gap was seen by nobody (a clock was set, a process was frozen), and is not charged.
const UNSEEN: Duration = Duration::from_secs(150);

/// What was seen of one container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Track {
    restarts: u32,
    started: bool,
    /// When it first ran; before that an image is missing, or a node.
    pub(super) ran: Option<Timestamp>,
    /// When it was first restarted: from here on its being unready costs, not that of its neighbours.
    pub(super) restarted: Option<Timestamp>,
    /// It was ready once.
    was_ready: bool,
    /// When this run of it began, by the clock that looks: what others wrote down is used at first sight only.
    began: Option<Timestamp>,
    /// How long it took to be ready when it was first seen to become so.
    load: Option<Duration>,
    /// The next restart is that of its node.
    pardoned: bool,
    /// This run of it began with a restart that is not charged: it may take its time.
    excused: bool,
    /// What keeps it from running.
    pub(super) blocked: Option<Cause>,
    /// Restarts that are charged, oldest first.
    pub(super) charges: Vec<Charge>,
    /// When it became ready or unready, oldest first; never empty.
    pub(super) changes: Vec<(Timestamp, Phase)>,
}

/// What being as it is means for the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Attempts that succeed.
    Ready,
    /// Attempts that fail, once the pod has been ready or this container has restarted.
    Unready,
    /// Unready, and costs nothing until then: it loads once more after a restart, or something else than its own
    /// failing keeps it from running. `None`: for as long as this lasts.
    Free(Option<Timestamp>),
}

/// One restart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Charge {
    pub(super) at: Timestamp,
    pub(super) cost: u32,
    pub(super) signal: Signal,
    pub(super) message: String,
}

impl Track {
    /// A container that was not watched before. Of its restarts only the number is known and when the last one was;
    /// they are taken to lie evenly between the making of the pod and that one. `served`: its pod has been ready.
    pub(super) fn first_sight(
        container: &Container,
        pod: &Pod,
        status: Option<&ContainerStatus>,
        served: bool,
        look: Look<'_>,
    ) -> Self {
        let mut track = Self {
            restarts: 0,
            started: false,
            ran: None,
            restarted: None,
            was_ready: served,
            began: None,
            load: None,
            pardoned: false,
            excused: false,
            blocked: None,
            charges: Vec::new(),
            changes: vec![(pod.created, Phase::Unready)],
        };
        let Some(status) = status else { return track };
        let now = look.now;
        track.restarts = status.restarts;
        track.started = status.started;
        track.was_ready |= status.ready;
        track.charges = earlier_restarts(container, status, pod.created, before(now, look.window), now);
        track.restarted = track.charges.first().map(|charge| charge.at);
        track.ran = has_run(status).then(|| match status.restarts {
            0 => status.running_since.unwrap_or(pod.created).min(now),
            _ => pod.created,
        });
        track.blocked = signals::cause(&container.image, status.waiting.as_ref());
        track.excused = status.restarts > 0
            && !status.ready
            && signals::of_restart(container, true, None, status.last_exit.as_ref()).is_none();
        track.began = status.running_since.map(|ran| ran.min(now));
        let since_ready = pod.containers_ready.filter(|since| since.is == status.ready).map(|since| since.at);
        if status.ready {
            let loaded = status.running_since.zip(since_ready).map(|(ran, ready)| between(ran, ready));
            track.load = loaded.map(|load| load.min(look.deployment.progress_deadline));
        }
        // Unready since this run of it was ready, or because it loads, or because it ended.
        let fell = since_ready.filter(|at| status.running_since.is_none_or(|ran| *at > after(ran, BLINK)));
        let restarted = status.restarts > 0 && (fell.is_none() || !served || track.excused);
        let phase = track.phase(container, status, restarted, look);
        let ended = status.last_exit.as_ref().and_then(|exit| exit.at).filter(|_| status.restarts > 0);
        let at = match phase {
            Phase::Ready => since_ready.or(status.running_since),
            Phase::Unready if status.running_since.is_none() => since_ready.max(ended),
            Phase::Unready => since_ready,
            Phase::Free(_) => status.running_since,
        };
        track.changes = vec![(at.unwrap_or(now).min(now), phase)];
        track
    }

    /// Whether it has restarted and that is not charged: it may load like a new one.
    pub(super) fn observe(
        &mut self,
        container: &Container,
        status: &ContainerStatus,
        served: Option<Timestamp>,
        look: Look<'_>,
    ) -> bool {
        let more = status.restarts.saturating_sub(self.restarts).min(MOST_RESTARTS);
        self.restarts = status.restarts;
        let (last, was) = self.changes.last().copied().unwrap_or((look.now, Phase::Unready));
        let now = look.now.max(last);
        self.leave_out_unseen(container, was, served, look);
        let pardoned = more > 0 && std::mem::take(&mut self.pardoned);
        let charge = if more > 0 && !pardoned {
            charge(container, self.started, Some(self.ran_for(look)), status, now)
        } else {
            None
        };
        let forgiven = more > 0 && charge.is_none();
        self.excused = (self.excused && more == 0) || forgiven;
        if let Some(charge) = charge {
            self.restarted.get_or_insert(now);
            self.charges.extend(std::iter::repeat_n(charge, more as usize));
        }
        // A container in back-off shows `started: false`; what counts is whether this run of it had come that far.
        self.started = if more > 0 { status.started } else { self.started || status.started };
        self.began = match (status.running_since, self.began) {
            (Some(_), Some(began)) if more == 0 => Some(began),
            (running, _) => running.map(|_| now),
        };
        let loads = more > 0 || self.excused || matches!(was, Phase::Free(_));
        let phase = self.phase(container, status, loads, look);
        if self.changes.last().is_none_or(|(_, was)| *was != phase) {
            self.changes.push((now, phase));
        }
        if self.ran.is_none() && has_run(status) {
            self.ran = Some(now);
        }
        if phase == Phase::Ready {
            (self.was_ready, self.excused) = (true, false);
            let loaded = || self.began.map(|began| between(began, now));
            self.load = self.load.or_else(loaded).map(|load| load.min(look.deployment.progress_deadline));
        }
        self.blocked = self.blocked_by(container, status);
        forgiven
    }

    /// How long its last run was at most: one that nobody saw lies between two looks.
    fn ran_for(&self, look: Look<'_>) -> Duration {
        between(self.began.unwrap_or(look.before), look.now)
    }

    /// What its being down follows from.
    pub(super) fn down(&self) -> Option<&Charge> {
        self.charges.last().filter(|_| self.began.is_none())
    }

    /// `loads`: this run of it began with a restart, and it has not been ready since.
    fn phase(&self, container: &Container, status: &ContainerStatus, loads: bool, look: Look<'_>) -> Phase {
        if status.ready {
            return Phase::Ready;
        }
        let Some(ran) = self.began else {
            let waits = status.waiting.as_ref().map_or("", |waiting| waiting.reason.as_str());
            return if matches!(waits, "" | "CrashLoopBackOff") { Phase::Unready } else { Phase::Free(None) };
        };
        if !loads || status.restarts == 0 {
            return Phase::Unready;
        }
        if self.excused {
            return Phase::Free(Some(after(ran, look.deployment.progress_deadline)));
        }
        if container.startup.is_some() {
            // The probe says when it has loaded, and the kubelet ends what takes too long.
            return if self.started { Phase::Unready } else { Phase::Free(None) };
        }
        Phase::Free(match self.load {
            // Others may load at the same time now.
            Some(load) => Some(after(after(ran, load.saturating_mul(2)), container.readiness_period())),
            None if self.was_ready => Some(after(ran, look.deployment.progress_deadline)),
            // The progress deadline decides, as for one that has never restarted.
            None => None,
        })
    }

    /// A back-off says less than the error before it.
    fn blocked_by(&self, container: &Container, status: &ContainerStatus) -> Option<Cause> {
        let waiting = status.waiting.as_ref();
        let now = signals::cause(&container.image, waiting);
        let backs_off = waiting.is_some_and(|waiting| waiting.reason == "ImagePullBackOff");
        now.or_else(|| self.blocked.clone().filter(|_| backs_off))
    }

    fn leave_out_unseen(&mut self, container: &Container, was: Phase, served: Option<Timestamp>, look: Look<'_>) {
        let seldom = UNSEEN.max(container.readiness_period().saturating_mul(3));
        let spends = was == Phase::Unready && (served.is_some() || self.restarted.is_some());
        let last = self.changes.last().map_or(look.now, |(at, _)| *at);
        if spends && between(look.before, look.now) > seldom {
            self.changes.push((look.before.max(last), Phase::Free(None)));
        }
    }

    pub(super) fn forget_before(&mut self, limit: Timestamp) {
        self.charges.retain(|charge| charge.at >= limit);
        // The last change before the limit still says in what state the window began.
        let old = self.changes.iter().take_while(|(at, _)| *at < limit).count();
        self.changes.drain(..old.saturating_sub(1));
    }

    /// Its node came back: what it was before is over, the charges stay.
    pub(super) fn begin_anew(&mut self, now: Timestamp) {
        let phase = self.changes.last().map_or(Phase::Unready, |(_, phase)| *phase);
        self.changes = vec![(now, phase)];
        self.restarted = None;
        self.ran = self.ran.map(|_| now);
    }

    /// Restarts that were made while nobody could see them are nobody's.
    pub(super) fn forgive_restarts(&mut self, status: &ContainerStatus) {
        if status.restarts > self.restarts {
            (self.restarts, self.excused, self.began) = (status.restarts, true, None);
        }
    }

    /// One restart is that of the node, seen since `limit`, now, or still to come.
    pub(super) fn forgive_reboot(&mut self, status: &ContainerStatus, limit: Timestamp) {
        if status.restarts > self.restarts {
            self.forgive_restarts(status);
        } else if self.charges.last().is_some_and(|charge| charge.at >= limit) {
            self.charges.pop();
        } else {
            self.pardoned = true;
        }
    }

    pub(super) fn set_back(&mut self, by: Duration) {
        let times = self.changes.iter_mut().flat_map(|(at, phase)| match phase {
            Phase::Free(Some(until)) => [Some(at), Some(until)],
            _ => [Some(at), None],
        });
        let others = [self.ran.as_mut(), self.began.as_mut(), self.restarted.as_mut()];
        let charges = self.charges.iter_mut().map(|charge| &mut charge.at);
        times.chain(others).flatten().chain(charges).for_each(|at| *at = before(*at, by));
    }
}

/// Statuses have times of whole seconds.
const BLINK: Duration = Duration::from_secs(1);

fn earlier_restarts(
    container: &Container,
    status: &ContainerStatus,
    created: Timestamp,
    limit: Timestamp,
    now: Timestamp,
) -> Vec<Charge> {
    let last = status.last_exit.as_ref().and_then(|exit| exit.at).unwrap_or(now).min(now);
    let Some(charge) = charge(container, true, None, status, last) else { return Vec::new() };
    let apart = between(created, last) / status.restarts.max(1);
    (1..=status.restarts)
        .rev()
        .take(MOST_RESTARTS as usize)
        .map(|nth| Charge { at: after(created, apart.saturating_mul(nth)).min(last), ..charge.clone() })
        .take_while(|charge| charge.at >= limit)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}

fn charge(
    container: &Container,
    started: bool,
    ran: Option<Duration>,
    status: &ContainerStatus,
    at: Timestamp,
) -> Option<Charge> {
    let exit = status.last_exit.as_ref();
    let signal = signals::of_restart(container, started, ran, exit)?;
    let message = match (signal, exit) {
        (Signal::Crash, Some(exit)) => format!("exit code {}", exit.code),
        _ => String::new(),
    };
    let killed = matches!(signal, Signal::Startup | Signal::Liveness);
    Some(Charge { at, cost: container.restart_cost(started, killed), signal, message })
}

fn has_run(status: &ContainerStatus) -> bool {
    status.running_since.is_some() || status.restarts > 0 || status.last_exit.is_some()
}
