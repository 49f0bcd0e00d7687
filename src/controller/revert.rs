//! A revert, step by step. Whatever ends it between two steps, deciding again from what is there carries it on:
//!
//! ```text
//!   pods still fail? server dry run ─▶ record and quarantine ─▶ patch ─▶ give the fields back ─▶ Event ─▶ record: written
//!                                      │ crash: Recorded, bad   │ crash: Recorded, good template: Finish
//!                                      ▼ template: carried on   ▼
//! ```

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    events::{self, Told},
    ownership, sight,
    writes::{Unwritten, Write, Writer},
};
use crate::{
    cluster::{
        Attempt,
        records::{RecordError, Stored},
    },
    rollout::{
        Decision, Record, Snapshot, journal,
        record::{Evidence, Revert, Settled},
    },
    telemetry::RevertLabels,
    template::{Digest, Json, keys},
};

/// How long a revert waits to hear what the probes said. The API server has no index of Events: where there are many, it takes
/// seconds to look through them.
const WORDS: Duration = Duration::from_millis(500);

/// How often giving the fields back is tried again at once: the status entries of the same list change often.
const TRIES: usize = 5;

/// One Deployment that is acted on, and its record as it was written last.
pub(super) struct Act<'a> {
    pub(super) writer: &'a Writer,
    pub(super) snapshot: &'a Snapshot,
    pub(super) stored: &'a mut Option<Stored>,
    /// When it was decided.
    pub(super) now: Timestamp,
}

/// What people are told of a Deployment that is left as it is.
pub(super) struct News {
    pub(super) what: Write,
    pub(super) reason: &'static str,
    pub(super) note: String,
    /// Told with this already, it is not told again.
    pub(super) once: String,
}

impl Act<'_> {
    /// Carries a revert out. Of one that the record has already, only what is left to do.
    pub(super) async fn revert(&mut self, revert: &Revert) -> Result<(), Unwritten> {
        let newest = self.stored.as_ref().and_then(|stored| stored.record.reverts.first());
        let (begun, recorded) = (newest.is_some_and(|newest| newest.is_same(revert)), newest == Some(revert));
        if !begun {
            self.confirm(revert).await?;
        }
        let (live, patch) = self.try_out(revert).await?;
        let mut revert = revert.clone();
        if !begun {
            self.last_words(&mut revert).await;
        }
        if !recorded {
            self.record(&Decision::Revert(revert.clone())).await?;
        }
        let deployment = &self.snapshot.deployment;
        let what = if revert.target.is_some() { Write::PutBack } else { Write::Withdraw };
        let after = match self.writer.patch(what, &deployment.namespace, &deployment.name, patch).await {
            Ok(after) => after,
            Err(error) => return Err(self.changed_or(error, &live).await),
        };
        let generation = after["metadata"]["generation"].as_i64().unwrap_or_default();
        self.finish_on(after, Some(&live), &revert, generation).await
    }

    /// What fails does so still, and not only in the eyes of a watch that has fallen silent.
    async fn confirm(&self, revert: &Revert) -> Result<(), Unwritten> {
        let current = sight::is_current(self.writer.reads(), self.snapshot, &revert.evidence.pods);
        match self.writer.limited(current).await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unwritten::Changed),
            Err(error) => {
                let attempt = Attempt::new("get", "pods").within(&self.snapshot.deployment.namespace);
                Err(Unwritten::Later(attempt.explain(&error)))
            }
        }
    }

    /// The Deployment as it is and the patch of the revert, which the API server would take: a server dry run has shown it.
    pub(super) async fn try_out(&self, revert: &Revert) -> Result<(Value, Vec<Value>), Unwritten> {
        let deployment = &self.snapshot.deployment;
        let live = self.live(&revert.digest).await?;
        let patch = match &revert.target {
            Some(target) => ownership::revert(&live, &self.good_template(target).await?),
            None => ownership::withdraw(&live),
        };
        match self.writer.patch(Write::DryRun, &deployment.namespace, &deployment.name, patch.clone()).await {
            Ok(_) => Ok((live, patch)),
            Err(error) => Err(self.changed_or(error, &live).await),
        }
    }

    /// What comes after the patch: of a revert that is in place.
    pub(super) async fn finish(&mut self, revert: &Revert) -> Result<(), Unwritten> {
        let deployment = &self.snapshot.deployment;
        let live = self.writer.read("deployments", &deployment.namespace, &deployment.name).await?;
        let live = live.filter(|live| live["metadata"]["uid"] == deployment.uid.as_str()).ok_or(Unwritten::Changed)?;
        // The good template from before: it was replaced by the failing one, and that by nothing yet.
        if deployment.generation < revert.generation && live["metadata"]["generation"] != deployment.generation {
            return Err(Unwritten::Changed);
        }
        // The generation of what was decided on: should the bad template be back by now, it is no older sight of it.
        self.finish_on(live, None, revert, deployment.generation).await
    }

    /// `before`: the Deployment as it was before the patch, if that is known.
    async fn finish_on(
        &mut self,
        live: Value,
        before: Option<&Value>,
        revert: &Revert,
        generation: i64,
    ) -> Result<(), Unwritten> {
        let helm = ownership::is_helm_3(&live);
        self.give_back(live, before).await?;
        let deployment = &self.snapshot.deployment;
        let evidence = &revert.evidence;
        info!(
            namespace = deployment.namespace,
            deployment = deployment.name,
            version = revert.version,
            digest = %revert.digest,
            container = evidence.container,
            since = %evidence.since,
            nodes = evidence.nodes.join(","),
            "{}",
            revert.note()
        );
        self.publish(revert, helm).await?;
        self.count(revert);
        let mut after = self.snapshot.clone();
        after.deployment.generation = generation;
        self.record_for(&after, &Decision::Finish(revert.clone())).await
    }

    /// Writes what the decision makes of the record, if that is anything.
    pub(super) async fn record(&mut self, decision: &Decision) -> Result<(), Unwritten> {
        self.record_for(self.snapshot, decision).await
    }

    /// The same. What is news to the record is told first: what the record has was told, whatever comes between.
    pub(super) async fn tell_and_record(&mut self, decision: &Decision, news: News) -> Result<(), Unwritten> {
        if self.is_news(decision) {
            self.tell(news).await?;
        }
        self.record(decision).await
    }

    /// The record does not have it yet.
    pub(super) fn is_news(&self, decision: &Decision) -> bool {
        self.next(self.snapshot, decision).is_some()
    }

    fn next(&self, snapshot: &Snapshot, decision: &Decision) -> Option<Record> {
        let known = self.stored.as_ref().map(|stored| &*stored.record);
        journal::next(known, snapshot, decision, self.now)
    }

    async fn record_for(&mut self, snapshot: &Snapshot, decision: &Decision) -> Result<(), Unwritten> {
        match self.next(snapshot, decision) {
            Some(record) => self.write(Write::of_record(decision, snapshot), record).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, what: Write, record: Record) -> Result<(), Unwritten> {
        let over = self.stored.as_ref().map(|stored| &stored.revision);
        match self.writer.write_record(what, &record, over).await? {
            Ok(revision) => {
                *self.stored = Some(Stored { record: Arc::new(record), revision });
                Ok(())
            }
            Err(RecordError::Conflict(_)) => {
                let deployment = &self.snapshot.deployment;
                let read =
                    self.writer.limited(self.writer.records().get(&deployment.namespace, &deployment.name)).await?;
                *self.stored = read.map_err(|error| Unwritten::Later(error.to_string()))?;
                Err(Unwritten::Changed)
            }
            Err(error) => Err(Unwritten::Later(error.to_string())),
        }
    }

    /// The Deployment as it is, if it is what was decided on.
    async fn live(&self, bad: &Digest) -> Result<Value, Unwritten> {
        let deployment = &self.snapshot.deployment;
        let live = self.writer.read("deployments", &deployment.namespace, &deployment.name).await?;
        let same = |live: &Value| {
            live["metadata"]["uid"] == deployment.uid.as_str()
                && live["metadata"]["generation"] == deployment.generation
                && digest(&live["spec"]["template"]).as_ref() == Some(bad)
        };
        live.filter(same).ok_or(Unwritten::Changed)
    }

    /// The template of the ReplicaSet that is gone back to, checked by digest, uid and owner.
    async fn good_template(&self, target: &Settled) -> Result<Value, Unwritten> {
        let deployment = &self.snapshot.deployment;
        let set = self.writer.read("replicasets", &deployment.namespace, &target.replica_set.name).await?;
        let controlled = |owner: &Value| owner["controller"] == true && owner["uid"] == deployment.uid.as_str();
        let same = |set: &Value| {
            set["metadata"]["uid"] == target.replica_set.uid.as_str()
                && set["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.iter().any(controlled))
                && digest(&set["spec"]["template"]).as_ref() == Some(&target.digest)
        };
        // The watch will tell that it is gone or another one; the decision is then HistoryLost.
        set.filter(same).map(|set| set["spec"]["template"].clone()).ok_or(Unwritten::Changed)
    }

    /// A refusal of something that is no longer there is none.
    async fn changed_or(&self, error: Unwritten, before: &Value) -> Unwritten {
        if !matches!(error, Unwritten::Refused(_)) {
            return error;
        }
        let deployment = &self.snapshot.deployment;
        let identity = |live: &Value| (live["metadata"]["uid"].clone(), live["metadata"]["generation"].clone());
        match self.writer.read("deployments", &deployment.namespace, &deployment.name).await {
            Ok(Some(live)) if identity(&live) == identity(before) => error,
            Ok(_) => Unwritten::Changed,
            Err(later) => later,
        }
    }

    /// The second patch; see [`ownership`].
    async fn give_back(&self, mut live: Value, before: Option<&Value>) -> Result<(), Unwritten> {
        let deployment = &self.snapshot.deployment;
        let (namespace, name) = (&deployment.namespace, &deployment.name);
        for _ in 0..TRIES {
            let Some(patch) = ownership::give_back(&live, before) else { return Ok(()) };
            match self.writer.patch(Write::GiveBack, namespace, name, patch).await {
                Ok(_) => return Ok(()),
                // Somebody wrote to the same list.
                Err(Unwritten::Refused(_) | Unwritten::Changed) => {}
                Err(error) => return Err(error),
            }
            let again = self.writer.read("deployments", namespace, name).await?;
            live = again.filter(|live| live["metadata"]["uid"] == deployment.uid.as_str()).ok_or(Unwritten::Changed)?;
        }
        Err(Unwritten::Later("the fields of the revert cannot be given back: they keep changing".to_owned()))
    }

    async fn last_words(&self, revert: &mut Revert) {
        let namespace = &self.snapshot.deployment.namespace;
        let asked = events::last_words(self.writer.reads(), namespace, &revert.evidence);
        match timeout(WORDS, asked).await {
            Ok(Ok(Some(words))) => revert.evidence.message = words,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => warn!(namespace, "what the probes said is not known: {error}"),
            Err(_) => warn!(namespace, "what the probes said is not known: no answer within {} ms", WORDS.as_millis()),
        }
    }

    async fn publish(&self, revert: &Revert, helm: bool) -> Result<(), Unwritten> {
        let deployment = &self.snapshot.deployment;
        let details = format!("Details: surefoot status {} -n {}", deployment.name, deployment.namespace);
        let told =
            format!("Template {}, failing since {:.0}{}", revert.digest, revert.evidence.since, on(&revert.evidence));
        let first = if helm { " Before the next helm upgrade: helm rollback." } else { "" };
        let (what, reason) = match revert.target {
            Some(_) => (Write::TellReverted, keys::REASON_REVERTED),
            None => (Write::TellWithdrawn, keys::REASON_WITHDRAWN),
        };
        let note = format!("{}.{first} {details}. {told}", revert.note());
        self.send(what, Told { deployment, reason, note, at: revert.at, once: None }).await
    }

    /// The figures of the Event, for what is drawn and alerted on.
    fn count(&self, revert: &Revert) {
        let (metrics, evidence) = (self.writer.metrics(), &revert.evidence);
        let action = if revert.target.is_some() { "reverted" } else { "withdrawn" };
        let labels = RevertLabels { action, signal: evidence.word() };
        metrics.reverts.get_or_create(&labels).inc();
        metrics.revert_failures.get_or_create(&labels).inc_by(evidence.failures.into());
        metrics.revert_attempts.get_or_create(&labels).inc_by(evidence.attempts.into());
        metrics.revert_budget.get_or_create(&labels).inc_by(evidence.budget.into());
        metrics.last_revert.get_or_create(&labels).set(revert.at.as_second());
        metrics.last_revert_since.get_or_create(&labels).set(evidence.since.as_second());
    }

    /// Publishes it as an Event on the Deployment, if it is not there yet.
    pub(super) async fn tell(&self, News { what, reason, note, once }: News) -> Result<(), Unwritten> {
        let (deployment, at) = (&self.snapshot.deployment, self.now);
        self.send(what, Told { deployment, reason, note, at, once: Some(&once) }).await
    }

    async fn send(&self, what: Write, told: Told<'_>) -> Result<(), Unwritten> {
        match self.writer.write(what, async |client| events::publish(&client, &told).await).await? {
            Ok(()) => Ok(()),
            // A namespace that is going away takes no more Events, and nobody would read them.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                warn!(namespace = told.deployment.namespace, "cannot publish an Event: {}", status.message);
                Ok(())
            }
            Err(error) => Err(Unwritten::Later(error.to_string())),
        }
    }
}

/// ` on nodes a, b`; nothing where no node is known.
fn on(evidence: &Evidence) -> String {
    match evidence.nodes.as_slice() {
        [] => String::new(),
        [node] => format!(" on node {node}"),
        nodes => format!(" on nodes {}", nodes.join(", ")),
    }
}

fn digest(template: &Value) -> Option<Digest> {
    serde_json::from_value::<Json>(template.clone()).ok().map(|template| Digest::of_template(&template))
}
