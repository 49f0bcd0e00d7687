//! Which of several controllers acts: a `coordination.k8s.io/v1` Lease, as client-go's leader election keeps it.
//!
//! ```text
//!   t     renewal is sent                leading until t + 10 s, whatever happens
//!   t+5   the next renewal               (a third of the duration)
//!   t+10  none has succeeded: not leading any more, nothing is written
//!   t+15  another may take the lease     (its own clock since it last saw the lease change)
//! ```
//!
//! Clocks of two machines are never compared: a candidate judges by how long the lease has not changed before its own
//! eyes. The five seconds between ceasing and being replaced are for a write that is on its way: a write may take no
//! longer ([`WRITE_LIMIT`]). Every write to the lease names the revision it was made from, so of two that try one fails.

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{info, warn};

use super::{
    Write,
    failpoint::{Edge, reach},
    writes::count,
};
use crate::{cluster::Attempt, telemetry::ControllerMetrics, template::keys};

/// After this long without a change another candidate may take the lease.
const DURATION: Duration = Duration::from_secs(15);
/// A holder renews this often.
const RENEW: Duration = Duration::from_secs(5);
/// A holder that could not renew for this long does not lead any more.
const LEADS: Duration = Duration::from_secs(10);
/// How long a holder waits for the answer to a renewal before it asks again.
const ANSWER: Duration = Duration::from_secs(3);
/// Between two tries of one that does not hold the lease, or could not renew it: how long a lease that was given back
/// lies there.
const RETRY: Duration = Duration::from_secs(1);
/// How long one that shuts down waits for the answer when it gives the lease back.
const RELEASE: Duration = Duration::from_secs(2);
/// What a write under the lease may take at most: what lies between [`Leadership::still_leading`] turning false and
/// another controller beginning to lead.
pub const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Whether this process leads. A clone sees the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    /// For tests of those who ask.
    #[cfg(test)]
    pub(super) fn of(until: watch::Receiver<Option<Instant>>) -> Self {
        Self { until }
    }

    /// Ask this right before each write: time passes, and so does leadership.
    pub fn still_leading(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Resolves when this process leads; never, when the candidate is gone.
    pub async fn begins(&mut self) {
        if self.until.wait_for(|until| until.is_some_and(|until| Instant::now() < until)).await.is_err() {
            std::future::pending().await
        }
    }

    /// Resolves when this process does not lead (any more), also when the candidate is gone.
    pub async fn ends(&mut self) {
        let _ = self.until.wait_for(Option::is_none).await;
    }
}

/// One that wants to lead.
pub struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    until: watch::Sender<Option<Instant>>,
    /// The lease as this candidate wrote it last, while it holds it.
    held: Option<Lease>,
    /// Of another's lease: its revision, and since when it is before our eyes.
    seen: Option<(String, Instant)>,
    /// The last error or the last holder that was told.
    told: Option<String>,
    metrics: Arc<ControllerMetrics>,
}

/// A name that no other process has: pod or host, process, time.
pub fn identity() -> String {
    let host =
        std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "surefoot".to_owned());
    format!("{host}_{}-{:x}", std::process::id(), Timestamp::now().as_nanosecond())
}

impl Candidate {
    /// For the lease `name` in surefoot's own namespace; see [`identity`].
    pub fn new(
        client: Client,
        own_namespace: &str,
        name: &str,
        identity: String,
        metrics: Arc<ControllerMetrics>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, own_namespace),
            namespace: own_namespace.to_owned(),
            name: name.to_owned(),
            identity,
            until: watch::Sender::new(None),
            held: None,
            seen: None,
            told: None,
            metrics,
        }
    }

    /// What the writers ask.
    pub fn leadership(&self) -> Leadership {
        Leadership { until: self.until.subscribe() }
    }

    /// Competes until `shutdown` resolves, then gives the lease back at once: let `shutdown` resolve when the last
    /// write is done. Errors are logged and tried again; dropping this future ends leadership without giving it back.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = self.compete() => {}
            () = shutdown => {}
        }
        self.cease();
        self.release().await;
    }

    async fn compete(&mut self) {
        loop {
            let sent = Instant::now();
            // One that leads must know by its deadline, and have time for a second try; any other can take its time.
            let limit = self.until.borrow().map_or(sent + LEADS, |until| until.min(sent + ANSWER));
            let next = match timeout_at(limit, self.attempt(sent)).await {
                Ok(Ok(true)) => {
                    self.lead(sent + LEADS);
                    sent + RENEW
                }
                Ok(Ok(false)) => {
                    self.cease();
                    sent + RETRY
                }
                Ok(Err(error)) => {
                    self.tell(Attempt::new("get or update", "leases").within(&self.namespace).explain(&error));
                    sent + RETRY
                }
                Err(_) => {
                    self.tell("the API server does not answer".to_owned());
                    sent + RETRY
                }
            };
            self.sleep(next).await;
        }
    }

    /// Until `next`; should leadership end before that, it is told at that moment.
    async fn sleep(&self, next: Instant) {
        let until = *self.until.borrow();
        if let Some(until) = until.filter(|until| *until <= next.max(Instant::now())) {
            sleep_until(until).await;
            self.cease();
        }
        sleep_until(next).await;
    }

    fn lead(&mut self, until: Instant) {
        if self.until.send_replace(Some(until)).is_none() {
            self.metrics.leader.set(1);
            info!(identity = self.identity, lease = self.name, "leading");
        }
        self.told = None;
    }

    fn cease(&self) {
        if self.until.send_replace(None).is_some() {
            self.metrics.leader.set(0);
            warn!(identity = self.identity, lease = self.name, "not leading any more");
        }
    }

    /// Says it once.
    fn tell(&mut self, text: String) {
        if self.told.as_ref() != Some(&text) {
            warn!("cannot keep the lease {}: {text}; trying again", self.name);
            self.told = Some(text);
        }
    }

    /// True: the lease is ours, as of `now`.
    async fn attempt(&mut self, now: Instant) -> kube::Result<bool> {
        let lease = match &self.held {
            Some(held) => held.clone(),
            None => match self.api.get_opt(&self.name).await? {
                Some(lease) if !self.may_take(&lease, now) => return Ok(false),
                Some(lease) => lease,
                None => self.fresh(),
            },
        };
        let what = if self.held.is_some() { Write::RenewLease } else { Write::TakeLease };
        match self.write(what, &self.mark(lease)).await {
            Ok(lease) => {
                self.held = Some(lease);
                self.seen = None;
                Ok(true)
            }
            // Somebody else wrote it: look at it anew, at once, and go on leading only if it is still ours.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && self.held.take().is_some() => {
                Box::pin(self.attempt(now)).await
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Over the revision that `lease` names, or a new one.
    async fn write(&self, what: Write, lease: &Lease) -> kube::Result<Lease> {
        reach(Edge::Before, what);
        let params = PostParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match lease.metadata.resource_version {
            Some(_) => self.api.replace(&self.name, &params, lease).await,
            None => self.api.create(&params, lease).await,
        };
        reach(Edge::After, what);
        count(&self.metrics, what, if written.is_ok() { "made" } else { "failed" });
        written
    }

    /// The lease is nobody's, ours, or has not changed before our eyes for as long as it says.
    fn may_take(&mut self, lease: &Lease, now: Instant) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let revision = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == revision => *since,
            _ => {
                self.seen = Some((revision, now));
                now
            }
        };
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        if now < since + duration.map_or(DURATION, Duration::from_secs) {
            if self.told.as_ref() != Some(&holder) {
                info!(holder, lease = self.name, "another leads");
                self.told = Some(holder);
            }
            return false;
        }
        true
    }

    fn fresh(&self) -> Lease {
        Lease { metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }, spec: None }
    }

    /// The lease as it is to be written by us now.
    fn mark(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.identity.clone());
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }

    /// So that the next one need not wait.
    async fn release(&mut self) {
        let Some(mut lease) = self.held.take() else { return };
        if let Some(spec) = &mut lease.spec {
            *spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..spec.clone()
            };
        }
        match timeout_at(Instant::now() + RELEASE, self.write(Write::ReleaseLease, &lease)).await {
            Ok(Ok(_)) => info!(lease = self.name, "gave the lease back"),
            Ok(Err(error)) => warn!(lease = self.name, "could not give the lease back: {error}"),
            Err(_) => warn!(lease = self.name, "could not give the lease back: no answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tokio::{sync::oneshot, time::sleep};

    use super::*;
    use crate::cluster::fake::{self, Answer};

    /// How the API server of a test behaves.
    #[derive(Clone, Copy, Default, PartialEq)]
    enum Mood {
        #[default]
        Well,
        Errors,
        Silent,
    }

    #[derive(Default)]
    struct Server {
        lease: Option<Value>,
        revision: u64,
        mood: Mood,
    }

    impl Server {
        fn client(this: &Arc<Mutex<Self>>) -> Client {
            let this = Arc::clone(this);
            fake::client(move |asked| this.lock().unwrap().answer(asked))
        }

        fn answer(&mut self, asked: fake::Asked) -> Answer {
            match self.mood {
                Mood::Well => {}
                Mood::Errors => return fake::refusal(500, "etcd is gone"),
                Mood::Silent => return Answer::Silence,
            }
            let method = asked.line.split(' ').next().unwrap();
            match (method, &self.lease) {
                ("GET", Some(lease)) => Answer::Json(200, lease.clone()),
                ("GET" | "PUT", None) => fake::refusal(404, "not found"),
                ("POST", None) => self.store(asked.body),
                ("PUT", Some(lease))
                    if lease["metadata"]["resourceVersion"] == asked.body["metadata"]["resourceVersion"] =>
                {
                    self.store(asked.body)
                }
                _ => fake::refusal(409, "conflict"),
            }
        }

        fn store(&mut self, mut lease: Value) -> Answer {
            self.revision += 1;
            lease["metadata"]["resourceVersion"] = self.revision.to_string().into();
            self.lease = Some(lease.clone());
            Answer::Json(200, lease)
        }

        fn holder(this: &Arc<Mutex<Self>>) -> String {
            let lease = this.lock().unwrap().lease.clone().unwrap_or_default();
            lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
        }
    }

    /// A running candidate; sending on `stop` shuts it down, aborting `task` is a crash.
    struct Running {
        leadership: Leadership,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(server: &Arc<Mutex<Server>>, identity: &str) -> Running {
        let candidate =
            Candidate::new(Server::client(server), "own", "surefoot-controller", identity.to_owned(), Arc::default());
        let leadership = candidate.leadership();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(candidate.run(async {
            let _ = stopped.await;
        }));
        Running { leadership, stop, task }
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_the_other_follows_a_crash_only_after_the_duration() {
        let server = Arc::<Mutex<Server>>::default();
        let mut first = start(&server, "first");
        first.leadership.begins().await;
        let mut second = start(&server, "second");
        sleep(Duration::from_secs(60)).await;
        assert!(first.leadership.still_leading() && !second.leadership.still_leading());
        assert_eq!(Server::holder(&server), "first");

        first.task.abort();
        let crashed = Instant::now();
        second.leadership.begins().await;
        assert!(!first.leadership.still_leading());
        let waited = crashed.elapsed();
        assert!((Duration::from_secs(10)..Duration::from_secs(18)).contains(&waited), "{waited:?}");
        let lease = server.lock().unwrap().lease.clone().unwrap();
        assert_eq!(
            (&lease["spec"]["leaseTransitions"], &lease["spec"]["holderIdentity"]),
            (&json!(1), &json!("second"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn shutting_down_hands_over_at_once() {
        let server = Arc::<Mutex<Server>>::default();
        let mut first = start(&server, "first");
        first.leadership.begins().await;
        let mut second = start(&server, "second");
        sleep(Duration::from_secs(7)).await;
        let stopped = Instant::now();
        first.stop.send(()).unwrap();
        first.leadership.ends().await;
        first.task.await.unwrap();
        second.leadership.begins().await;
        assert!(stopped.elapsed() <= RETRY, "{:?}", stopped.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_before_another_could_begin() {
        for mood in [Mood::Errors, Mood::Silent] {
            let server = Arc::<Mutex<Server>>::default();
            let mut first = start(&server, "first");
            first.leadership.begins().await;
            sleep(Duration::from_secs(12)).await;
            server.lock().unwrap().mood = mood;
            let broke = Instant::now();
            first.leadership.ends().await;
            assert!(broke.elapsed() <= LEADS && broke.elapsed() >= LEADS - RENEW, "{:?}", broke.elapsed());
            assert!(!first.leadership.still_leading());
            server.lock().unwrap().mood = Mood::Well;
            first.leadership.begins().await;
            assert!(first.leadership.still_leading(), "the lease was still ours");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_taken_is_lost_at_the_next_renewal() {
        let server = Arc::<Mutex<Server>>::default();
        let mut first = start(&server, "first");
        first.leadership.begins().await;
        {
            let mut server = server.lock().unwrap();
            let mut lease = server.lease.clone().unwrap();
            lease["spec"]["holderIdentity"] = "thief".into();
            server.store(lease);
        }
        let stolen = Instant::now();
        first.leadership.ends().await;
        assert!(stolen.elapsed() <= RENEW);
        // A lease that somebody deleted is made anew.
        server.lock().unwrap().lease = None;
        first.leadership.begins().await;
        assert_eq!(Server::holder(&server), "first");
    }

    /// The clock of whoever wrote the lease is not asked: only how long it has not changed before our eyes.
    #[tokio::test]
    async fn what_the_holders_clock_says_changes_nothing() {
        let now = Instant::now();
        let times = ["1970-01-01T00:00:00.000000Z", "2026-11-22T14:21:07.000000Z", "2199-01-01T00:00:00.000000Z"];
        for (renewed, acquired) in times.iter().flat_map(|one| times.iter().map(move |other| (one, other))) {
            for (duration, taken_after) in
                [(json!(15), 15), (json!(2), 2), (json!(3600), 3600), (json!(0), 0), (json!(-7), 15), (json!(null), 15)]
            {
                let client = Server::client(&Arc::default());
                let mut candidate =
                    Candidate::new(client, "own", "surefoot-controller", "us".to_owned(), Arc::default());
                let lease = |revision: &str| -> Lease {
                    serde_json::from_value(
                        json!({"metadata": {"resourceVersion": revision}, "spec": {"holderIdentity": "them",
                        "leaseDurationSeconds": duration, "renewTime": renewed, "acquireTime": acquired}}),
                    )
                    .unwrap()
                };
                let after = |seconds: u64| now + Duration::from_secs(seconds);
                let what = format!("renewed {renewed}, acquired {acquired}, for {duration} s");
                assert_eq!(candidate.may_take(&lease("1"), now), taken_after == 0, "{what}: at first sight");
                if let Some(almost) = u64::checked_sub(taken_after, 1) {
                    assert!(!candidate.may_take(&lease("1"), after(almost)), "{what}: too early");
                    assert!(!candidate.may_take(&lease("2"), after(almost)), "{what}: it is renewed");
                    assert!(
                        !candidate.may_take(&lease("2"), after(taken_after)),
                        "{what}: counted from the last change"
                    );
                    assert!(candidate.may_take(&lease("2"), after(almost + taken_after)), "{what}: it is over");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_lease_of_nobody_and_our_own_are_taken_at_once() {
        let mut candidate =
            Candidate::new(Server::client(&Arc::default()), "own", "lease", "us".to_owned(), Arc::default());
        for holder in [json!(null), json!(""), json!("us")] {
            let lease = json!({"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": holder,
                "leaseDurationSeconds": 15, "renewTime": "2199-01-01T00:00:00.000000Z"}});
            assert!(candidate.may_take(&serde_json::from_value(lease).unwrap(), Instant::now()), "{holder}");
        }
    }
}
