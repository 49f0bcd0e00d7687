//! The HTTPS server that the API server asks: router, TLS, deadline, readiness, drain.
//!
//! ```text
//!   server   accept, TLS, HTTP/1.1, drain
//!     └─ router   path → hook, content type, size, time; statuses for what gets no verdict
//!          └─ review   body → Request → Facts → Verdict → Answer, off the async threads
//! ```
//!
//! Owned by the process: the policy set and configuration (compiled before the port opens), and one latch, [`State`].
//! Absent on purpose: anything that writes to the cluster. The mutating path never denies, the validating path never patches.

mod review;
mod router;
pub mod server;
#[cfg(test)]
mod tests;
pub mod tls;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
    thread::available_parallelism,
};

use tokio::sync::Semaphore;

pub use router::{MAX_BODY, router};

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

/// What every request shares.
pub struct App {
    /// Read by every review, written when a folder or file has changed and what is in it has passed the gate.
    rules: RwLock<Arc<Rules>>,
    facts: ClusterFacts,
    metrics: WebhookMetrics,
    /// [`State`] as a number: written by whoever starts and stops the process, read by every request.
    state: AtomicU8,
    /// Evaluations at a time, as many as there are cores: more would only make each slower.
    slots: Arc<Semaphore>,
}

impl App {
    /// Starts in [`State::Starting`].
    pub fn new(rules: Rules, facts: ClusterFacts) -> Self {
        let metrics = WebhookMetrics::default();
        metrics.loaded(rules.set.digest());
        let slots = Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from)));
        let rules = RwLock::new(Arc::new(rules));
        Self { rules, facts, metrics, state: AtomicU8::new(State::Starting as u8), slots }
    }

    /// What counts for a review that begins now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these count.
    pub fn swap(&self, rules: Rules) {
        self.metrics.loaded(rules.set.digest());
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
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
        let facts = if self.state() == State::Starting { "being read" } else { "synced" };
        let Rules { set, .. } = &*self.rules();
        format!("policies     {} in set {}\nfacts        {facts}\n", set.policies().len(), set.digest())
    }
}
