//! The one gate that every write passes, and the reads that go with one. What goes through it has a name, is made under the
//! lease, is answered in [`WRITE_LIMIT`], and can be cut off on either side by a test. Patches of Deployments are
//! guarded by uid and `metadata.generation`.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use hyper::{Method, Request as HttpRequest};
use kube::{
    Client,
    api::{GetParams, Patch, PatchParams},
    client::Body,
    core::Request,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    failpoint::{Edge, reach},
    lease::{Leadership, WRITE_LIMIT},
};
use crate::{
    cluster::{
        Attempt,
        records::{RecordError, Records, Revision},
    },
    rollout::{Decision, Record, Snapshot},
    telemetry::{ControllerMetrics, WriteLabels},
    template::keys,
};

/// Declares the kinds of writes and the list of them at once, so that the list has them all.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// A kind of write that the controller makes: there are no others. The tests end it before and after each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Write {
            $($(#[$doc])* $kind,)*
        }

        impl Write {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];
        }
    };
}

kinds! {
    /// The lease, from nobody or from one that is gone.
    TakeLease,
    /// The lease, which is held.
    RenewLease,
    /// The lease, at the end, to nobody.
    ReleaseLease,
    /// Record: a rollout is complete, or has spent more, or is hindered by something else.
    RecordProgress,
    /// Record: the template that was there before the first look has settled.
    RecordSeed,
    /// Record: the current template has settled.
    RecordSettled,
    /// Record: a revert is about to be made, and its template is quarantined.
    RecordRevert,
    /// Record: a revert is done.
    RecordDone,
    /// Record: what goes back is well again.
    RecordRecovered,
    /// Record: it fails and is left as it is.
    RecordStall,
    /// Record: it would be reverted.
    RecordObserved,
    /// Deployment: a revert that changes nothing, to hear whether it would be taken.
    DryRun,
    /// Deployment: the good template.
    PutBack,
    /// Deployment: a canary to 0.
    Withdraw,
    /// Deployment: the changed fields go to whoever applied it.
    GiveBack,
    /// Event: a revert was made.
    TellReverted,
    /// Event: a canary was withdrawn.
    TellWithdrawn,
    /// Event: it fails and is left as it is.
    TellStalled,
    /// Event: it would be reverted.
    TellObserved,
    /// Event: an override counts for nothing.
    TellOverride,
    /// Hooks: the CA that they trust, and the Namespace that they go with.
    Register,
    /// Secret: a new certificate of the webhook.
    StoreCertificate,
}

impl Write {
    /// What writing this decision to the record is.
    pub(super) fn of_record(decision: &Decision, snapshot: &Snapshot) -> Self {
        match decision {
            Decision::Rest(_) => Self::RecordRecovered,
            Decision::Watch(_) => Self::RecordProgress,
            Decision::Settle(settled) if settled.digest != snapshot.deployment.template.digest => Self::RecordSeed,
            Decision::Settle(_) => Self::RecordSettled,
            Decision::Revert(_) => Self::RecordRevert,
            Decision::Finish(_) => Self::RecordDone,
            Decision::Stall { .. } => Self::RecordStall,
            Decision::Observe { .. } => Self::RecordObserved,
        }
    }
}

/// Why a write was not made, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// Something has changed meanwhile: decide again from what is there.
    Changed,
    /// It is not said whether it was made, or it may work later: decide again in a while.
    Later(String),
    /// The API server will not have it.
    Refused(String),
    /// This process does not lead any more.
    NotLeading,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("it has changed meanwhile"),
            Self::Later(why) | Self::Refused(why) => f.write_str(why),
            Self::NotLeading => f.write_str("another controller may lead"),
        }
    }
}

/// The one writer: of Deployments, records and Events, and of what an installation needs.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    reads: Client,
    own_namespace: String,
    leadership: Option<Leadership>,
    metrics: Arc<ControllerMetrics>,
}

impl Writer {
    /// `leadership` is that of this process; `None` where a person writes, whose rights are their own and who needs no
    /// lease: the guards of each write hold against the controller, too.
    pub(super) fn new(
        client: Client,
        own_namespace: &str,
        leadership: Option<Leadership>,
        metrics: Arc<ControllerMetrics>,
    ) -> Self {
        let reads = only_reads(client.clone());
        Self { client, reads, own_namespace: own_namespace.to_owned(), leadership, metrics }
    }

    /// surefoot's.
    pub(super) fn own_namespace(&self) -> &str {
        &self.own_namespace
    }

    /// What is done is counted here.
    pub(super) fn metrics(&self) -> &ControllerMetrics {
        &self.metrics
    }

    /// A client that makes no writes: those go through [`Writer::write`].
    pub(super) fn reads(&self) -> &Client {
        &self.reads
    }

    /// The records, to read them.
    pub(super) fn records(&self) -> Records {
        Records::new(self.reads.clone(), &self.own_namespace)
    }

    /// Makes a write with the client that `request` is given. It goes no further from the moment on at which this process
    /// no longer leads, be that while a connection is made: the process may have been frozen anywhere.
    pub(super) async fn write<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        what: Write,
        request: impl FnOnce(Client) -> F,
    ) -> Result<Result<T, E>, Unwritten> {
        reach(Edge::Before, what);
        let mut request = pin!(request(self.client.clone()));
        let led = poll_fn(|context| match self.leadership.as_ref().is_none_or(Leadership::still_leading) {
            true => request.as_mut().poll(context).map(Ok),
            false => Poll::Ready(Err(Unwritten::NotLeading)),
        });
        let answer = self.limited(led).await.flatten();
        let result = match &answer {
            Ok(Ok(_)) => "made",
            Ok(Err(_)) => "failed",
            Err(Unwritten::NotLeading) => "withheld",
            Err(_) => "unanswered",
        };
        count(&self.metrics, what, result);
        if answer.is_ok() {
            reach(Edge::After, what);
        }
        answer
    }

    /// The same with the records.
    pub(super) async fn write_record(
        &self,
        what: Write,
        record: &Record,
        over: Option<&Revision>,
    ) -> Result<Result<Revision, RecordError>, Unwritten> {
        self.write(what, async |client| Records::new(client, &self.own_namespace).write(record, over).await).await
    }

    /// An object, whole; `None`: it is not there.
    pub(super) async fn read(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, Unwritten> {
        let attempt = Attempt::new("get", plural).within(namespace).named(name);
        let request = Request::new(path(plural, namespace)).get(name, &GetParams::default());
        let request = request.map_err(|error| Unwritten::Later(error.to_string()))?;
        match self.limited(self.reads.request::<Value>(request)).await? {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(Unwritten::Later(attempt.explain(&error))),
        }
    }

    /// Patches a Deployment; gives it as it is afterwards.
    pub(super) async fn patch(
        &self,
        what: Write,
        namespace: &str,
        name: &str,
        operations: Vec<Value>,
    ) -> Result<Value, Unwritten> {
        let attempt = Attempt::new("patch", "deployments").within(namespace).named(name);
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations))
            .map_err(|error| Unwritten::Refused(format!("no JSON patch: {error}")))?;
        let params = PatchParams {
            dry_run: what == Write::DryRun,
            field_manager: Some(keys::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let request = Request::new(path("deployments", namespace)).patch(name, &params, &Patch::Json::<()>(patch));
        let request = request.map_err(|error| Unwritten::Later(error.to_string()))?;
        let answer = self.write(what, async |client| client.request(request).await).await?;
        answer.map_err(|error| unwritten(&attempt, &error))
    }

    /// Waits for an answer no longer than a write may take.
    pub(super) async fn limited<T>(&self, answer: impl Future<Output = T>) -> Result<T, Unwritten> {
        timeout(WRITE_LIMIT, answer).await.map_err(|_| Unwritten::Later("the API server does not answer".to_owned()))
    }
}

/// Counts a write by what came of it.
pub(super) fn count(metrics: &ControllerMetrics, what: Write, result: &'static str) {
    metrics.writes.get_or_create(&WriteLabels { write: format!("{what:?}"), result }).inc();
}

/// The same client, which refuses what is no read.
fn only_reads(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: HttpRequest<Body>| {
        let client = client.clone();
        async move {
            match *request.method() {
                Method::GET => client.send(request).await,
                _ => Err(kube::Error::Service("a write that does not go through `Writer::write`".into())),
            }
        }
    });
    Client::new(service, namespace)
}

fn path(plural: &str, namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/{plural}")
}

/// 422 is what a failing `test` gives, and also what an invalid object gives: whoever asks again finds out which.
pub(super) fn unwritten(attempt: &Attempt, error: &kube::Error) -> Unwritten {
    match error {
        kube::Error::Api(status) => match status.code {
            404 | 409 => Unwritten::Changed,
            401 | 408 | 429 | 500.. => Unwritten::Later(attempt.explain(error)),
            _ => Unwritten::Refused(attempt.explain(error)),
        },
        _ => Unwritten::Later(attempt.explain(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use serde_json::json;
    use tokio::{
        sync::{oneshot, watch},
        time::Instant,
    };

    use super::*;
    use crate::cluster::fake::{self, Answer};

    type Lines = Arc<Mutex<Vec<String>>>;

    /// A writer that leads for ten seconds, and what was asked of its server.
    fn writer() -> (Writer, Lines, watch::Sender<Option<Instant>>) {
        let asked = Lines::default();
        let seen = Arc::clone(&asked);
        let client = fake::client(move |asked| {
            seen.lock().unwrap().push(asked.line);
            Answer::Json(200, json!({}))
        });
        let (leads, until) = watch::channel(Some(Instant::now() + Duration::from_secs(10)));
        (Writer::new(client, "own", Some(Leadership::of(until)), Arc::default()), asked, leads)
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_that_leads_writes() {
        let (writer, asked, leads) = writer();
        assert_eq!(writer.patch(Write::PutBack, "shop", "churn", Vec::new()).await, Ok(json!({})));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(writer.patch(Write::PutBack, "shop", "churn", Vec::new()).await, Err(Unwritten::NotLeading));
        leads.send_replace(None);
        assert_eq!(writer.patch(Write::PutBack, "shop", "churn", Vec::new()).await, Err(Unwritten::NotLeading));
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    /// The process may be frozen at any step of a write, e.g. while it connects.
    #[tokio::test(start_paused = true)]
    async fn a_write_under_way_goes_no_further_without_leading() {
        let (writer, asked, leads) = writer();
        let (connected, connecting) = oneshot::channel::<()>();
        let write = writer.write(Write::PutBack, async |client| {
            let _ = connecting.await;
            client.request_text(HttpRequest::post("/x").body(Vec::new()).unwrap()).await
        });
        let freeze = async {
            tokio::task::yield_now().await;
            leads.send_replace(None);
            connected.send(()).unwrap();
        };
        let (written, ()) = tokio::join!(write, freeze);
        assert_eq!(written.map(|_| ()), Err(Unwritten::NotLeading));
        assert!(asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_client_for_reading_makes_no_writes() {
        let (writer, asked, _leads) = writer();
        for (method, allowed) in [("GET", true), ("POST", false), ("PUT", false), ("PATCH", false), ("DELETE", false)] {
            let request = HttpRequest::builder().method(method).uri("/x").body(Vec::new()).unwrap();
            assert_eq!(writer.reads().request_text(request).await.is_ok(), allowed, "{method}");
        }
        assert_eq!(*asked.lock().unwrap(), ["GET /x"]);
    }

    #[test]
    fn what_an_answer_means_for_the_next_try() {
        let meaning = |code: u16| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            match unwritten(&Attempt::new("patch", "deployments"), &kube::Error::Api(Box::new(status))) {
                Unwritten::Changed => "changed",
                Unwritten::Later(_) => "later",
                Unwritten::Refused(_) => "refused",
                Unwritten::NotLeading => "not leading",
            }
        };
        for (code, wanted) in [
            (400, "refused"),
            // A token that has run out is the controller's matter, not the template's.
            (401, "later"),
            (403, "refused"),
            (404, "changed"),
            (409, "changed"),
            (422, "refused"),
            (429, "later"),
            (500, "later"),
            (503, "later"),
        ] {
            assert_eq!(meaning(code), wanted, "{code}");
        }
    }
}
