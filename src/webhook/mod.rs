//! The HTTPS server that the API server asks: router, TLS, deadline, readiness, drain.
//!
//! ```text
//!   server   accept, TLS, HTTP/1.1, drain
//!     └─ router   path → hook, time; statuses for what gets no verdict
//!          ├─ body     content type, size, room in memory
//!          └─ review   body → Request → Facts → Verdict → Answer
//!               └─ workers   policies are asked off the async threads, and given up when they overrun
//! ```
//!
//! Owned by the process: policies and configuration ([`Rules`]: compiled before the port opens, replaced whole), the
//! certificate that is shown ([`tls::Served`]), and one latch, [`State`]. Who reads files is `cli`; it hands in what has changed.
//! Absent on purpose: anything that writes to the cluster. The mutating path never denies, the validating path never patches.

mod body;
mod breaker;
mod memory;
mod question;
mod review;
mod router;
pub mod server;
#[cfg(test)]
mod tests;
pub mod tls;
mod workers;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use jiff::Timestamp;

use self::workers::Workers;
pub use body::MAX_BODY;
pub use router::router;

use crate::{admission::PolicySet, cluster::ClusterFacts, config::Config, telemetry::WebhookMetrics};

/// Where the process is in its life. It moves forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Policies or facts are not complete: hooks get 503.
    Starting,
    /// Everything is served.
    Ready,
    /// Told to stop: `/readyz` says so, hooks are still answered.
    Stopping,
}

/// What verdicts are made by. Replaced whole: a review keeps the one it began with.
#[derive(Debug)]
pub struct Rules {
    /// The policies, compiled with this configuration.
    pub set: PolicySet,
    /// Exemptions.
    pub config: Config,
}

/// What can change while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Policies and configuration, which are compiled together.
    Policies,
    /// The serving certificate and its key.
    Certificate,
}

impl Part {
    /// As in metrics and `/readyz?verbose`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Certificate => "certificate",
        }
    }
}

/// See [`App::files`].
#[derive(Default)]
struct Files {
    /// Why what is there now does not count, and since when. What counted before does.
    refused: BTreeMap<Part, (Timestamp, String)>,
    /// The end of the certificate that is shown.
    certificate: Option<Timestamp>,
}

/// What every request shares.
pub struct App {
    /// Read by every review, written when a folder or file has changed and what is in it has passed the gate.
    rules: RwLock<Arc<Rules>>,
    facts: ClusterFacts,
    metrics: WebhookMetrics,
    /// How what it was started with stands by now: written when a file has changed, read by `/readyz?verbose`.
    files: Mutex<Files>,
    /// [`State`] as a number: written by whoever starts and stops the process, read by every request.
    state: AtomicU8,
    workers: Workers,
    /// Answers that may be given again: read and written by every review, emptied when the rules change.
    memory: memory::Memory,
    /// For the bodies that are being read or judged.
    room: body::Room,
}

impl App {
    /// Starts in [`State::Starting`].
    pub fn new(rules: Rules, facts: ClusterFacts) -> Self {
        let metrics = WebhookMetrics::default();
        metrics.loaded(rules.set.digest());
        let workers = Workers::new(metrics.overrun.clone(), metrics.set_aside.clone());
        let rules = RwLock::new(Arc::new(rules));
        Self {
            rules,
            facts,
            metrics,
            files: Mutex::default(),
            state: AtomicU8::new(State::Starting as u8),
            workers,
            memory: memory::Memory::default(),
            room: body::Room::default(),
        }
    }

    /// What counts for a review that begins now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these count.
    pub fn swap(&self, rules: Rules) {
        self.metrics.loaded(rules.set.digest());
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.memory.forget();
        self.workers.forget();
        self.accept(Part::Policies);
    }

    /// The certificate that is shown to new connections ends then.
    pub fn certificate(&self, until: Timestamp) {
        self.metrics.certificate_end.set(until.as_second());
        self.files().certificate = Some(until);
        self.accept(Part::Certificate);
    }

    /// What the files hold now cannot be used: what counted before does, and everybody can see why.
    pub fn refuse(&self, part: Part, why: String) {
        self.metrics.reload(part.as_str(), false);
        self.files().refused.insert(part, (Timestamp::now(), why));
    }

    /// What the files hold now counts, or is what counted anyway.
    pub fn accept(&self, part: Part) {
        self.metrics.reload(part.as_str(), true);
        self.files().refused.remove(&part);
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves forward to `state`; nothing happens if the process is beyond it.
    pub fn enter(&self, state: State) {
        self.state.fetch_max(state as u8, Ordering::Relaxed);
        self.metrics.ready.set(i64::from(self.state() == State::Ready));
    }

    /// Where the process is.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Stopping,
        }
    }

    /// `/readyz?verbose`.
    fn details(&self) -> String {
        let synced = if self.state() == State::Starting { "being read" } else { "synced" };
        let Rules { set, .. } = &*self.rules();
        let mut text =
            format!("policies     {} in set {}\nfacts        {synced}\n", set.policies().len(), set.digest());
        let files = self.files();
        if let Some(until) = files.certificate {
            let days = until.duration_since(Timestamp::now()).as_hours() / 24;
            text.push_str(&format!("certificate  until {until}, {days} days left\n"));
        }
        for (policy, left) in self.workers.aside() {
            let seconds = left.as_secs() + 1;
            text.push_str(&format!("set aside    policy {policy}, {seconds} s more: it always overran its time\n"));
        }
        for (part, (since, why)) in &files.refused {
            let part = part.as_str();
            text.push_str(&format!("refused      {part}, since {since:.0}; what was there before counts:\n"));
            text.extend(why.lines().map(|line| format!("             {line}\n")));
        }
        text
    }
}
