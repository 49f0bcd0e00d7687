//! Where policies are asked: threads beside the async ones, little more evaluations at a time than there are cores.
//!
//! ```text
//!   review ── slot ──▶ thread ── done in time ─────────────────────────────▶ verdict
//!                        └────── given up: its slot is free ── asked again without the policy that overran ──▶ verdict
//! ```
//!
//! The engine stops by itself when its time is over, but not inside of one call; no thread can be stopped from outside.
//! So one that overruns is left to itself, and its policy is a failure in the verdict of this request. When that has
//! happened a few times, and while those threads run, it is one in every verdict: no further thread is lost to it. One that
//! does stop, but overruns each time, is set aside too ([`Breaker`]): nobody waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::available_parallelism,
    time::Duration,
};

use prometheus_client::metrics::{family::Family, gauge::Gauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tracing::{error, info};

use super::breaker::Breaker;
use crate::{
    admission::{Fared, Limits, Watch, limits::STUCK},
    telemetry::PolicyLabels,
};

/// What all policies may take together, however long the request may: some hundred times what they take. It bounds the
/// memory that an endless one can fill.
const MOST: Duration = Duration::from_secs(1);

/// Evaluations beyond one for each core, so that a core which has ended one finds the next: with one core each had to wait for
/// the async thread in between, and a sixth fewer were answered.
const WAITING: usize = 2;

/// Evaluations of one policy that were given up and still run, from which on it is not asked.
const OF_ONE: usize = 4;

/// Why a policy is not asked that did stop.
const ASIDE: &str = "it overran its time again and again, and is not asked for 30 s; then it is tried once";

/// Those of all policies, beyond which each keeps its slot: so their number is bounded.
const STRAYS: usize = 8;

/// Why there is no verdict.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// No slot was free in time.
    Overloaded,
    /// The evaluation did not end in time, and so did not the one without the policy that overran first.
    Overran(String),
    /// It panicked, while it asked this policy (empty: before the first).
    Panicked(String),
}

/// See the module.
pub(super) struct Workers {
    slots: Arc<Semaphore>,
    strays: Strays,
    /// Written and read by every evaluation, for moments.
    breaker: Mutex<Breaker>,
    aside: Family<PolicyLabels, Gauge>,
}

impl Workers {
    /// `overrun` shows the evaluations that were given up and still run, by policy; `aside` the policies that are not asked.
    pub(super) fn new(overrun: Family<PolicyLabels, Gauge>, aside: Family<PolicyLabels, Gauge>) -> Self {
        let slots = Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from) + WAITING));
        Self { slots, strays: Strays { running: Arc::default(), overrun }, breaker: Mutex::default(), aside }
    }

    /// Work that is bounded by its input and asks no policy.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Late> {
        let slot = self.slot(deadline).await?;
        let worker = spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        match timeout_at(deadline, worker).await {
            Ok(done) => done.map_err(|_| Late::Panicked(String::new())),
            Err(_) => Err(Late::Overran(String::new())),
        }
    }

    /// Asks policies about `subject`. What overruns is asked once more, without the policy that did, in the time that is left.
    pub(super) async fn judge<T: Send + 'static>(
        &self,
        subject: &str,
        deadline: Instant,
        work: impl Fn(Limits) -> T + Send + Sync + 'static,
    ) -> Result<T, Late> {
        let work = Arc::new(work);
        let slot = self.slot(deadline).await?;
        let until = Instant::now() + left(deadline) * 3 / 5;
        let (aside, trials) = self.breaker().begin(Instant::now());
        let mut barred: BTreeMap<_, _> = aside.into_iter().map(|package| (package, ASIDE)).collect();
        barred.extend(self.strays.barred().into_iter().map(|package| (package, STUCK)));
        let (ended, fared) = self.attempt(slot, until, barred.clone(), &work).await;
        self.learn(subject, &fared, trials);
        match ended {
            Err(Late::Overran(package)) => {
                barred.insert(package, STUCK);
                let (ended, fared) = self.attempt(self.slot(deadline).await?, deadline, barred, &work).await;
                self.learn(subject, &fared, BTreeSet::new());
                ended
            }
            ended => ended,
        }
    }

    /// Those that are set aside, and for how long still.
    pub(super) fn aside(&self) -> Vec<(String, Duration)> {
        self.breaker().aside().map(|(package, until)| (name(package), left(until))).collect()
    }

    /// Other policies: nothing is known of them.
    pub(super) fn forget(&self) {
        *self.breaker() = Breaker::default();
        self.aside.clear();
    }

    /// `trials` are those that only this review might ask.
    fn learn(&self, subject: &str, fared: &Fared, trials: BTreeSet<String>) {
        let (mut breaker, now) = (self.breaker(), Instant::now());
        let gauge = |package: &str| self.aside.get_or_create_owned(&PolicyLabels { policy: name(package) });
        for package in &fared.overran {
            if breaker.overran(package, subject, now) {
                gauge(package).set(1);
                error!(policy = name(package), "overran its time again and again; it is not asked for a while");
            }
        }
        for package in &fared.ended {
            if breaker.ended(package) {
                gauge(package).set(0);
                info!(policy = name(package), "ended in time when it was tried, and is asked again");
            }
        }
        for package in trials.iter().filter(|trial| !fared.overran.contains(*trial) && !fared.ended.contains(*trial)) {
            breaker.untried(package, now);
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn slot(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Late> {
        match timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(Late::Overloaded),
        }
    }

    async fn attempt<T: Send + 'static>(
        &self,
        slot: OwnedSemaphorePermit,
        until: Instant,
        barred: BTreeMap<String, &'static str>,
        work: &Arc<impl Fn(Limits) -> T + Send + Sync + 'static>,
    ) -> (Result<T, Late>, Fared) {
        let watch = Arc::new(Watch::barring(barred));
        let limits = Limits { time: (left(until) * 4 / 5).min(MOST), watch: Some(Arc::clone(&watch)) };
        let (work, strays, seen) = (Arc::clone(work), self.strays.clone(), Arc::clone(&watch));
        let mut worker = spawn_blocking(move || work(limits));
        // A task of its own: when the client hangs up, nobody waits here, and the slot must be kept all the same.
        let waiting = tokio::spawn(async move {
            match timeout_at(until, &mut worker).await {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(_)) => Err(Late::Panicked(watch.asked())),
                Err(_) => {
                    let package = watch.asked();
                    // Beyond the bound the slot is kept until the end.
                    let kept = (strays.begin(&package) > STRAYS).then_some(slot);
                    let given_up = package.clone();
                    tokio::spawn(async move {
                        let _ended = worker.await;
                        strays.end(&package);
                        drop(kept);
                    });
                    Err(Late::Overran(given_up))
                }
            }
        });
        let ended = waiting.await.unwrap_or(Err(Late::Panicked(String::new())));
        (ended, seen.fared())
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Evaluations that were given up and still run, by the package of the policy that they were asking.
#[derive(Clone)]
struct Strays {
    running: Arc<Mutex<BTreeMap<String, usize>>>,
    overrun: Family<PolicyLabels, Gauge>,
}

impl Strays {
    /// The packages that are not asked.
    fn barred(&self) -> BTreeSet<String> {
        self.lock().iter().filter(|(_, running)| **running >= OF_ONE).map(|(package, _)| package.clone()).collect()
    }

    /// How many there are by now.
    fn begin(&self, package: &str) -> usize {
        let mut running = self.lock();
        let of_this = running.entry(package.to_owned()).or_default();
        *of_this += 1;
        self.gauge(package).set(i64::try_from(*of_this).unwrap_or(i64::MAX));
        error!(
            policy = name(package),
            "overran its time in a way that cannot be stopped; its thread is left to itself"
        );
        running.values().sum()
    }

    fn end(&self, package: &str) {
        let mut running = self.lock();
        let Some(of_this) = running.get_mut(package) else { return };
        *of_this -= 1;
        self.gauge(package).set(i64::try_from(*of_this).unwrap_or(i64::MAX));
        if *of_this == 0 {
            running.remove(package);
            info!(policy = name(package), "all that overran has ended");
        }
    }

    fn gauge(&self, package: &str) -> Gauge {
        self.overrun.get_or_create_owned(&PolicyLabels { policy: name(package) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A policy's name has dashes where its package has underscores.
fn name(package: &str) -> String {
    package.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn soon(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    fn policy(limits: &Limits, package: &str) -> bool {
        limits.watch.as_ref().is_none_or(|watch| watch.ask_for_test(package))
    }

    fn wait(end: &Mutex<mpsc::Receiver<()>>) {
        let _ended = end.lock().unwrap_or_else(PoisonError::into_inner).recv();
    }

    /// Asks two policies; the first hangs until `end` is dropped.
    fn hangs(end: &Arc<Mutex<mpsc::Receiver<()>>>) -> impl Fn(Limits) -> Vec<&'static str> + Send + Sync + 'static {
        let end = Arc::clone(end);
        move |limits| {
            let mut judged = Vec::new();
            if policy(&limits, "hangs") {
                wait(&end);
                judged.push("hangs");
            }
            if policy(&limits, "fine") {
                judged.push("fine");
            }
            judged
        }
    }

    #[tokio::test]
    async fn a_policy_that_cannot_be_stopped_costs_itself_until_it_ends() {
        let overrun = Family::default();
        let workers = Workers::new(overrun.clone(), Family::default());
        let gauge = || overrun.get_or_create_owned(&PolicyLabels { policy: "hangs".to_owned() }).get();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        // The verdict of the others comes in time, and others ask it: it may hang on some requests only.
        for lost in 1..=4 {
            assert_eq!(workers.judge("shop/m", soon(500), hangs(&ended)).await, Ok(vec!["fine"]));
            assert_eq!(gauge(), lost);
        }
        // From then on nobody waits for it, and no further thread is lost.
        for _ in 0..20 {
            let begun = Instant::now();
            assert_eq!(workers.judge("shop/m", soon(20_000), hangs(&ended)).await, Ok(vec!["fine"]));
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(gauge(), 4);
        drop(end);
        while gauge() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(workers.judge("shop/m", soon(20_000), hangs(&ended)).await, Ok(vec!["hangs", "fine"]));
    }

    #[tokio::test]
    async fn those_that_hang_are_bounded_and_whoever_comes_then_is_told() {
        let workers = Workers::new(Family::default(), Family::default());
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let slots = available_parallelism().unwrap().get() + WAITING;
        let mut hung = 0;
        let told = loop {
            let ended = Arc::clone(&ended);
            let told = workers.judge("shop/m", soon(20), move |_| wait(&ended)).await;
            match told {
                Err(Late::Overran(_)) => hung += 1,
                told => break told,
            }
        };
        assert_eq!(told, Err(Late::Overloaded));
        assert!(hung <= STRAYS + slots, "{hung}");
        drop(end);
        assert_eq!(workers.judge("shop/m", soon(20_000), |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_costs_one_request() {
        let workers = Workers::new(Family::default(), Family::default());
        for _ in 0..20 {
            let told = workers.judge("shop/m", soon(20_000), |limits| {
                policy(&limits, "breaks");
                panic!("as a bug of ours might")
            });
            assert_eq!(told.await, Err::<(), _>(Late::Panicked("breaks".to_owned())));
        }
        assert_eq!(workers.judge("shop/m", soon(20_000), |_| 7).await, Ok(7));
        assert_eq!(workers.compute(soon(20_000), || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn work_whose_client_has_gone_keeps_its_slot_until_it_ends() {
        let workers = Workers::new(Family::default(), Family::default());
        let slots = available_parallelism().unwrap().get() + WAITING;
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        for _ in 0..slots {
            let ended = Arc::clone(&ended);
            let gone = workers.judge("shop/m", soon(20_000), move |_| wait(&ended));
            let gave_up = tokio::time::timeout(Duration::from_millis(20), gone).await;
            assert!(gave_up.is_err());
        }
        assert_eq!(workers.judge("shop/m", soon(50), |_| 7).await, Err(Late::Overloaded));
        drop(end);
        assert_eq!(workers.judge("shop/m", soon(20_000), |_| 7).await, Ok(7));
    }
}
