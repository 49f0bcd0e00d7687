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
    collections::{BTreeMap, HashMap, VecDeque},
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
#[cfg(test)]
mod model;
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
        let mut term = Term::new(reconciler);
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

/// Deployments that are worked on at the same time. At the start all of them have something to ask of the API server; ten
/// thousand requests at once, and it answers none in time, those for the lease included.
const AT_ONCE: usize = 64;

/// One term of leading.
struct Term<'a> {
    reconciler: &'a Reconciler,
    /// Of the Deployments that nobody is working on.
    states: HashMap<Key, Box<State>>,
    /// Those whose turn has not come yet.
    waiting: VecDeque<Key>,
    /// Those that wait or are worked on: whether something has happened since their turn came.
    busy: BTreeMap<Key, bool>,
    /// When to look again.
    timers: BTreeMap<Key, Timestamp>,
    running: FuturesUnordered<BoxFuture<'a, (Key, Box<State>, Again)>>,
}

impl<'a> Term<'a> {
    fn new(reconciler: &'a Reconciler) -> Self {
        Self {
            reconciler,
            states: HashMap::new(),
            waiting: VecDeque::new(),
            busy: BTreeMap::new(),
            timers: BTreeMap::new(),
            running: FuturesUnordered::new(),
        }
    }

    /// Reconciles, up to [`AT_ONCE`] Deployments at a time, each by one at a time, in the order in which something happened.
    /// Never ends.
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
        self.waiting.push_back(key);
        self.fill();
    }

    fn fill(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(key) = self.waiting.pop_front()
        {
            // What has happened until now is looked at now.
            self.busy.insert(key.clone(), false);
            let mut state = self.states.remove(&key).unwrap_or_default();
            let reconciler = self.reconciler;
            self.running.push(Box::pin(async move {
                let again = reconciler.reconcile(&key, &mut state).await;
                (key, state, again)
            }));
        }
    }

    fn end(&mut self, key: Key, state: Box<State>, again: Again, queue: &Queue) {
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
        self.fill();
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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use futures::channel::mpsc;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::cluster::fake::{self, Answer};

    const ALL: usize = 200;

    /// `ALL` Deployments that are complete, each with its ReplicaSet: of each there is something to record.
    fn objects(kind: &str) -> Vec<Value> {
        let template =
            json!({"metadata": {"labels": {"app": "m"}}, "spec": {"containers": [{"name": "m", "image": "m"}]}});
        let deployment = |at: usize| {
            json!({"metadata": {"name": format!("d{at}"), "namespace": "shop", "uid": format!("u{at}"), "generation": 1},
                "spec": {"replicas": 1, "template": template},
                "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}})
        };
        let set = |at: usize| {
            json!({"metadata": {"name": format!("d{at}-1"), "namespace": "shop", "uid": format!("s{at}"),
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("d{at}"),
                        "uid": format!("u{at}"), "controller": true}]},
                "spec": {"replicas": 1, "template": template}})
        };
        match kind {
            "namespaces" => vec![json!({"metadata": {"name": "shop", "labels": {keys::GUARD: "enforce"}}})],
            "deployments" => (0..ALL).map(deployment).collect(),
            "replicasets" => (0..ALL).map(set).collect(),
            _ => Vec::new(),
        }
    }

    type Writes = Arc<Mutex<Vec<(Instant, String)>>>;

    /// A server that lists and watches, and never answers a write. When each write came, and what it was about.
    fn server() -> (Client, Writes) {
        let writes = Writes::default();
        let (came, mut open) = (Arc::clone(&writes), Vec::new());
        let client = fake::client(move |asked| {
            let (method, path) = asked.line.split_once(' ').unwrap();
            match method {
                "GET" => fake::list(&objects(path.split('?').next().unwrap().rsplit('/').next().unwrap())),
                "WATCH" => {
                    let (sender, events) = mpsc::unbounded();
                    open.push(sender);
                    Answer::Watch(events)
                }
                _ => {
                    came.lock().unwrap().push((Instant::now(), asked.body["metadata"]["name"].to_string()));
                    Answer::Silence
                }
            }
        });
        (client, writes)
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_start_no_more_than_so_many_are_asked_about_at_once() {
        let (client, writes) = server();
        let mut guarded = Guarded::new(client.clone(), "own");
        let queue = Queue::default();
        let watches = Watches::begin(&mut guarded, "own", &queue);
        let mut synced = guarded.synced();
        let (_leads, until) = watch::channel(Some(Instant::now() + Duration::from_secs(3600)));
        let writer = Writer::new(client, "own", Some(Leadership::of(until)), Arc::default());
        let reconciler = Reconciler { watches, writer, rollouts: watch::channel(Rollouts::default()).1 };
        let everyone = async {
            synced.wait_for(|synced| *synced).await.unwrap();
            let mut term = Term::new(&reconciler);
            term.look_at_all(&queue);
            let done = async {
                let names = || writes.lock().unwrap().iter().map(|(_, name)| name.clone()).collect::<BTreeSet<_>>();
                while names().len() < ALL {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! {
                () = term.lead(&queue) => {}
                done = tokio::time::timeout(Duration::from_secs(600), done) => done.expect("every one gets its turn"),
            }
        };
        tokio::select! {
            ended = guarded.run() => panic!("{ended:?}"),
            () = everyone => {}
        }
        let writes = writes.lock().unwrap();
        // One without an answer is given up after the limit.
        let under_way =
            |at: Instant| writes.iter().filter(|(came, _)| *came <= at && at < *came + lease::WRITE_LIMIT).count();
        let most = writes.iter().map(|(came, _)| under_way(*came)).max();
        assert_eq!(most, Some(AT_ONCE));
    }
}
