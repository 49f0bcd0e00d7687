//! The controller's own code, one request at a time. What it does depends on what it saw and on the answers it got: so a
//! controller in the middle of its work is kept as these, and run again from the start to hear what it asks next.

use std::{
    collections::{HashMap, VecDeque},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    super::{
        by_hand::Hand,
        lease::Leadership,
        reconcile::{Reconciler, Sight, State},
        sight,
        watches::{Key, Queue, Watches},
        writes::Writer,
    },
    cluster::{Answer, Cluster, Kept, NAME, NAMESPACE, OWN, Objects, Request},
};
use crate::{
    cluster::{
        Guarded,
        fake::{self, Asked},
        records::{RecordError, Records, Stored},
    },
    config::{Guard, Rollouts},
    rollout::{
        Record, Settings, Snapshot,
        record::{ByHand, Revert},
    },
};

/// What is remembered from one look to the next.
#[derive(Clone, Debug)]
pub(super) enum Remembered {
    /// By a controller: the record.
    Record(Stored),
    /// By a person: what is to be done.
    Plan(Box<Revert>),
}

impl Hash for Remembered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        format!("{self:?}").hash(state);
    }
}

/// One look at the Deployment, and what came of it so far.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(super) struct Task {
    /// As the watches showed it.
    pub(super) objects: Kept<Objects>,
    /// As its watch showed it.
    pub(super) record: Kept<Option<serde_json::Value>>,
    pub(super) remembered: Option<Kept<Remembered>>,
    /// When it began.
    pub(super) now: Timestamp,
    /// A person's `surefoot revert`, who sees what is there.
    pub(super) by_hand: bool,
    pub(super) answers: Vec<Kept<Answer>>,
}

/// What it does next.
#[derive(Clone, Debug)]
pub(super) enum Next {
    Asks(Kept<Request>),
    /// It is over, and this is what it remembers.
    Ends(Option<Kept<Remembered>>),
}

type Memory<T> = Mutex<HashMap<u64, T>>;

/// Runs tasks, and remembers what came of each.
#[derive(Default)]
pub(super) struct Mind {
    known: Memory<Next>,
    snapshots: Memory<Arc<Snapshot>>,
    told: Memory<Arc<Record>>,
    records: Memory<Option<Arc<Result<Stored, RecordError>>>>,
}

impl Mind {
    /// What `task` asks next. `leading`: this process leads still at the time of the last answer.
    pub(super) fn next(&self, task: &Task, leading: bool) -> Next {
        let key = Kept::new((task, leading)).hash;
        cached(&self.known, key, || self.run(task, leading))
    }

    /// Tasks that were run.
    pub(super) fn size(&self) -> usize {
        self.known.lock().unwrap().len()
    }

    fn run(&self, task: &Task, leading: bool) -> Next {
        let sight = Sight {
            snapshot: Snapshot::clone(&self.snapshot(&task.objects)),
            record: self.record(&task.record),
            settings: Settings::of(&Rollouts::default(), Guard::Enforce, &[].into(), None),
        };
        let asked: Arc<Mutex<Option<Request>>> = Arc::default();
        let heard = Arc::new(Notify::new());
        let (tell, slot) = (Arc::clone(&heard), Arc::clone(&asked));
        runtime().block_on(async {
            let term = |leads: bool| leads.then(|| Instant::now() + Duration::from_secs(3600));
            let (leads, until) = watch::channel(term(leading || !task.answers.is_empty()));
            let mut answers: VecDeque<_> = task.answers.iter().cloned().collect();
            let client = fake::client(move |Asked { line, body }| {
                let Some(answer) = answers.pop_front() else {
                    *slot.lock().unwrap() = Some(Request { line, body });
                    tell.notify_one();
                    return fake::Answer::Silence;
                };
                if answers.is_empty() {
                    leads.send_replace(term(leading));
                }
                fake::Answer::Json(answer.0, answer.1.clone())
            });
            let remembered = task.remembered.as_deref();
            let ends = async {
                if task.by_hand {
                    return by_hand(client, task.now, remembered).await.map(Remembered::Plan);
                }
                let watches = Watches::begin(&mut Guarded::new(client.clone(), OWN), OWN, &Queue::default());
                let writer = Writer::new(client, OWN, Some(Leadership::of(until)), Arc::default());
                let reconciler = Reconciler { watches, writer, rollouts: watch::channel(Rollouts::default()).1 };
                let mut state = State::default();
                if let Some(Remembered::Record(stored)) = remembered {
                    state.stored = Some(stored.clone());
                }
                let key = Key { namespace: NAMESPACE.to_owned(), name: NAME.to_owned() };
                reconciler.act_on(&key, &sight, &mut state, task.now).await;
                state.stored.map(Remembered::Record)
            };
            tokio::select! {
                biased;
                () = heard.notified() => Next::Asks(Kept::new(asked.lock().unwrap().take().unwrap())),
                remembered = ends => Next::Ends(remembered.map(Kept::new)),
            }
        })
    }

    /// As the controller would make it of these objects.
    fn snapshot(&self, objects: &Kept<Objects>) -> Arc<Snapshot> {
        cached(&self.snapshots, objects.hash, || {
            let cluster = Cluster { objects: objects.clone(), ..Cluster::new() };
            let read = async { sight::read_with_pods(&over(cluster), NAMESPACE, NAME).await };
            Arc::new(runtime().block_on(read).unwrap())
        })
    }

    /// The same of the record.
    fn record(&self, record: &Kept<Option<serde_json::Value>>) -> Option<Arc<Result<Stored, RecordError>>> {
        cached(&self.records, record.hash, || {
            let cluster = Cluster { record: record.clone(), ..Cluster::new() };
            let read = async { Records::new(over(cluster), OWN).get(NAMESPACE, NAME).await };
            runtime().block_on(read).transpose().map(Arc::new)
        })
    }

    /// What a record says.
    pub(super) fn told(&self, record: &Kept<Option<serde_json::Value>>) -> Arc<Record> {
        cached(&self.told, record.hash, || {
            let found = self.record(record).unwrap();
            Arc::new(Record::clone(&found.as_ref().as_ref().unwrap().record))
        })
    }
}

/// Plans, or does what is planned. Gives the plan while there is something left to do; why there is not is told to people.
async fn by_hand(client: kube::Client, now: Timestamp, remembered: Option<&Remembered>) -> Option<Box<Revert>> {
    let asked = ByHand { user: "jo".to_owned(), reason: String::new() };
    let hand = Hand::at(now, client, OWN, NAMESPACE, NAME, asked);
    match remembered {
        Some(Remembered::Plan(plan)) => (hand.try_once(plan).await == Ok(false)).then(|| plan.clone()),
        _ => hand.plan().await.ok().map(Box::new),
    }
}

/// Without holding the lock while it is made.
fn cached<T: Clone>(known: &Memory<T>, key: u64, make: impl FnOnce() -> T) -> T {
    if let Some(known) = known.lock().unwrap().get(&key) {
        return known.clone();
    }
    let made = make();
    known.lock().unwrap().entry(key).or_insert(made).clone()
}

/// A client of this cluster.
fn over(mut cluster: Cluster) -> kube::Client {
    fake::client(move |Asked { line, body }| {
        let (code, body) = cluster.answer(&Request { line, body });
        fake::Answer::Json(code, body)
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}
