//! Watches → snapshots → decisions → guarded writes. The only writer of Deployments.
//!
//! ```text
//!   cluster::Guarded ──▶ objects ──▶ watches ──▶ Queue ──▶ run ──▶ reconcile ──▶ rollout::decide
//!   lease ──▶ Leadership ───────────────────────────────────────────┤
//!   cluster::records ◀── journal::next ◀── revert ──▶ writes ──▶ API server, guarded by uid and generation
//! ```
//!
//! What is decided is decided in [`crate::rollout`]; here are the watches, the clock and the writes. Absent on purpose: a
//! memory that must survive. Everything that a decision needs is in the cluster; what is lost with the process is found
//! again.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    future::Future,
    sync::Arc,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::Client;
use tokio::sync::{oneshot, watch};
use tracing::info;

use self::{
    lease::{Candidate, Leadership},
    reconcile::{Again, Reconciler, State},
    watches::{Key, Queue, Watches},
    writes::Writer,
};
use crate::{
    cluster::{self, Guarded, guarded::Ended},
    config::Rollouts,
    telemetry::ControllerMetrics,
    template::keys,
};

pub mod by_hand;
mod events;
mod failpoint;
mod installed;
pub mod lease;
mod objects;
mod ownership;
mod reconcile;
mod revert;
pub mod server;
pub mod sight;
mod watches;
mod writes;

pub use installed::{Certificate, Installed};
pub use writes::Write;

/// Runs until `shutdown` resolves: then ends the write that is under way, and gives the lease back. Each decision takes
/// `rollouts` as they are then; when they change, every Deployment is looked at again. Where it is `installed` inside the
/// cluster, it looks after that too. What is done is counted in `metrics`.
pub async fn run(
    client: Client,
    rollouts: watch::Receiver<Rollouts>,
    installed: Option<Installed>,
    metrics: Arc<ControllerMetrics>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Ended> {
    let own_namespace = cluster::own_namespace();
    let candidate =
        Candidate::new(client.clone(), &own_namespace, keys::LEASE, lease::identity(), Arc::clone(&metrics));
    let leadership = candidate.leadership();
    let writer = Writer::new(client, &own_namespace, Some(leadership.clone()), Arc::clone(&metrics));
    let installation = keep(installed, writer.clone(), leadership.clone());
    let mut guarded = Guarded::new(writer.reads().clone(), &own_namespace);
    guarded.count_restarts(metrics.watch_restarts.clone());
    let queue = Queue::default();
    let watches = Watches::begin(&mut guarded, &own_namespace, &queue);
    let synced = guarded.synced();
    let reconciler = Reconciler { watches, writer, rollouts };
    let (drained, ready_to_release) = oneshot::channel::<()>();
    let candidate = candidate.run(async {
        let _ = ready_to_release.await;
    });
    let worker = async {
        let mut synced = synced;
        tokio::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => {}
            _ = synced.wait_for(|synced| *synced) => {
                metrics.ready.set(1);
                work(&reconciler, &queue, leadership, &mut shutdown).await;
            }
        }
        let _ = drained.send(());
    };
    tokio::select! {
        ended = guarded.run() => ended.map(|never| match never {}),
        never = installation => match never {},
        ((), ()) = async { tokio::join!(candidate, worker) } => Ok(()),
    }
}

async fn keep(installed: Option<Installed>, writer: Writer, leadership: Leadership) -> Infallible {
    match installed {
        Some(installed) => installed::keep(&writer, leadership, &installed).await,
        None => std::future::pending().await,
    }
}

/// Leads whenever it may, until it is told to stop.
async fn work(
    reconciler: &Reconciler,
    queue: &Queue,
    mut leadership: Leadership,
    mut shutdown: impl Future<Output = ()> + Unpin,
) {
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            () = leadership.begins() => {}
        }
        let mut term = Term {
            reconciler,
            states: HashMap::new(),
            busy: BTreeMap::new(),
            timers: BTreeMap::new(),
            running: FuturesUnordered::new(),
        };
        // What others saw of the rollouts is not known here.
        term.look_at_all(queue);
        let stop = tokio::select! {
            () = term.lead(queue) => false,
            () = leadership.ends() => false,
            () = &mut shutdown => true,
        };
        term.drain().await;
        if stop {
            info!("shutting down");
            return;
        }
    }
}

/// One term of leading.
struct Term<'a> {
    reconciler: &'a Reconciler,
    /// Of the Deployments that nobody is working on.
    states: HashMap<Key, State>,
    /// Of those that somebody is: whether something has happened meanwhile.
    busy: BTreeMap<Key, bool>,
    /// When to look again.
    timers: BTreeMap<Key, Timestamp>,
    running: FuturesUnordered<BoxFuture<'a, (Key, State, Again)>>,
}

impl Term<'_> {
    /// Reconciles, as many Deployments at a time as there are, each by one at a time. Never ends.
    async fn lead(&mut self, queue: &Queue) {
        let mut rollouts = self.reconciler.rollouts.clone();
        loop {
            let next = self.timers.values().min().copied();
            tokio::select! {
                Ok(()) = rollouts.changed() => self.look_at_all(queue),
                keys = queue.take() => keys.into_iter().for_each(|key| self.begin(key)),
                Some((key, state, again)) = self.running.next() => self.end(key, state, again, queue),
                () = until(next) => self.ring(),
            }
        }
    }

    fn look_at_all(&self, queue: &Queue) {
        self.reconciler.watches.all().into_iter().for_each(|key| queue.add(key));
    }

    fn begin(&mut self, key: Key) {
        if let Some(again) = self.busy.get_mut(&key) {
            *again = true;
            return;
        }
        self.timers.remove(&key);
        self.busy.insert(key.clone(), false);
        let mut state = self.states.remove(&key).unwrap_or_default();
        let reconciler = self.reconciler;
        self.running.push(Box::pin(async move {
            let again = reconciler.reconcile(&key, &mut state).await;
            (key, state, again)
        }));
    }

    fn end(&mut self, key: Key, state: State, again: Again, queue: &Queue) {
        let happened = self.busy.remove(&key).unwrap_or_default();
        if let Again::At(at) = again {
            self.timers.insert(key.clone(), at);
        }
        if again != Again::Never {
            self.states.insert(key.clone(), state);
        }
        if happened {
            queue.add(key);
        }
    }

    fn ring(&mut self) {
        let now = Timestamp::now();
        let due: Vec<_> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        due.into_iter().for_each(|key| self.begin(key));
    }

    /// Ends what is under way. Each of its writes asks first whether it may still be made, and has a limit.
    async fn drain(mut self) {
        while self.running.next().await.is_some() {}
    }
}

/// Resolves at this time by the clock on the wall, which is what decisions are made by; never without one.
async fn until(at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep(at.duration_since(Timestamp::now()).try_into().unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}
