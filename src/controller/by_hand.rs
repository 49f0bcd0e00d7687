//! A revert that a person asks for: the decision, the steps and the guards of the controller, with the rights of the
//! caller. Should the controller come in between, either of the two finishes what the other began.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;

use super::{
    ownership,
    revert::Act,
    sight,
    writes::{Unwritten, Writer},
};
use crate::{
    cluster::records::Stored,
    config::{Guard, Rollouts},
    rollout::{
        self, Because, Decision, Rest, Settings, Snapshot,
        record::{ByHand, Outcome, Revert, StallReason},
    },
};

/// How often it is decided again while things change.
const TRIES: usize = 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Why there is no revert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReverted {
    /// The controller would not make it either.
    #[error("{}", .0.sentence())]
    Stalled(StallReason),
    /// Kind and name of an owner that would put its own template back.
    #[error("{0} owns the Deployment and would put its own template back: go back there")]
    Owned(String),
    /// There is nothing to revert.
    #[error("{0}")]
    Nothing(&'static str),
    /// The API server, or who it asks, will not have it.
    #[error("the API server refused the revert: {0}")]
    Refused(String),
    /// Another template than the one that was meant came in between.
    #[error("the Deployment has another template meanwhile")]
    Overtaken,
    /// It could not be done, or it is not known whether it was. Doing it again is safe.
    #[error("{0}")]
    Failed(String),
}

/// Makes reverts of one Deployment for a person.
pub struct Hand {
    writer: Writer,
    namespace: String,
    name: String,
    asked: ByHand,
    /// When that was.
    at: Timestamp,
}

impl Hand {
    /// For the Deployment `name` in `namespace`; the records are in surefoot's own namespace.
    pub fn new(client: Client, own_namespace: &str, namespace: &str, name: &str, asked: ByHand) -> Self {
        Self::at(Timestamp::now(), client, own_namespace, namespace, name, asked)
    }

    pub(super) fn at(
        at: Timestamp,
        client: Client,
        own_namespace: &str,
        namespace: &str,
        name: &str,
        asked: ByHand,
    ) -> Self {
        let writer = Writer::new(client, own_namespace, None, Arc::default());
        Self { writer, namespace: namespace.to_owned(), name: name.to_owned(), asked, at }
    }

    /// The revert that would be made now. Changes nothing.
    ///
    /// # Errors
    /// There is none to make, or the cluster could not be asked.
    pub async fn plan(&self) -> Result<Revert, NotReverted> {
        let (snapshot, stored) = self.look().await?;
        match self.decide(&snapshot, stored.as_ref()) {
            Decision::Revert(revert) | Decision::Finish(revert) => Ok(revert),
            other => Err(why_not(&snapshot, &other)),
        }
    }

    /// Has the API server say whether it would take `planned`. Changes nothing.
    ///
    /// # Errors
    /// It would not, or could not be asked.
    pub async fn try_out(&self, planned: &Revert) -> Result<(), NotReverted> {
        let (snapshot, mut stored) = self.look().await?;
        let act = self.act(&snapshot, &mut stored);
        act.try_out(planned).await.map(drop).map_err(not_reverted)
    }

    /// Makes the revert `planned`, or finishes it. Ends when the record says that it is done, by whomever.
    ///
    /// # Errors
    /// Before it is recorded nothing has been changed. After that the controller carries it on, where it acts.
    pub async fn carry_out(&self, planned: &Revert) -> Result<(), NotReverted> {
        for _ in 0..TRIES {
            if self.try_once(planned).await? {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(NotReverted::Failed("it keeps changing: see surefoot status, and try again".to_owned()))
    }

    /// Whether it is done; `false`: something has changed meanwhile.
    pub(super) async fn try_once(&self, planned: &Revert) -> Result<bool, NotReverted> {
        let (snapshot, mut stored) = self.look().await?;
        let deployment = &snapshot.deployment;
        let now = &deployment.template.digest;
        let back = planned.target.as_ref().is_some_and(|good| good.digest == *now);
        if *now != planned.digest && !back {
            return Err(NotReverted::Overtaken);
        }
        let newest = stored.as_ref().and_then(|stored| stored.record.reverts.first());
        let written = newest.is_some_and(|one| one.digest == planned.digest && one.outcome == Outcome::Written);
        if written && (back || planned.target.is_none() && deployment.replicas == 0) {
            return Ok(true);
        }
        // The time of the plan makes it one revert, however often it is tried.
        let planned = Revert { generation: deployment.generation, ..planned.clone() };
        let newest = newest.cloned();
        let decision = self.decide(&snapshot, stored.as_ref());
        let mut act = self.act(&snapshot, &mut stored);
        let done = match &decision {
            // Begun already, by this or by the controller, which may have been quicker.
            Decision::Revert(revert) if newest.as_ref().is_some_and(|newest| newest.is_same(revert)) => {
                act.revert(revert).await
            }
            Decision::Revert(_) => act.revert(&planned).await,
            Decision::Finish(revert) => act.finish(revert).await,
            other => return Err(why_not(&snapshot, other)),
        };
        match done {
            Ok(()) => Ok(true),
            Err(Unwritten::Changed) => Ok(false),
            Err(error) => Err(not_reverted(error)),
        }
    }

    /// Whether the Deployment is a release of Helm 3, whose copy of the manifests a revert cannot reach.
    ///
    /// # Errors
    /// The cluster could not be asked.
    pub async fn is_helm_3(&self) -> Result<bool, NotReverted> {
        let live = self.writer.read("deployments", &self.namespace, &self.name).await.map_err(not_reverted)?;
        Ok(live.is_some_and(|live| ownership::is_helm_3(&live)))
    }

    fn act<'a>(&'a self, snapshot: &'a Snapshot, stored: &'a mut Option<Stored>) -> Act<'a> {
        Act { writer: &self.writer, snapshot, stored, now: self.at }
    }

    fn decide(&self, snapshot: &Snapshot, stored: Option<&Stored>) -> Decision {
        // Budget and bake are not asked: whether it fails is not the question.
        let settings = Settings::of(&Rollouts::default(), Guard::Enforce, &[].into(), None);
        rollout::by_hand(snapshot, stored.map(|stored| &*stored.record), &settings, &self.asked, self.at)
    }

    async fn look(&self) -> Result<(Snapshot, Option<Stored>), NotReverted> {
        let look = async {
            let snapshot =
                sight::read(self.writer.reads(), &self.namespace, &self.name).await.map_err(NotReverted::Failed)?;
            let stored = self.writer.records().get(&self.namespace, &self.name).await;
            Ok((snapshot, stored.map_err(|error| NotReverted::Failed(error.to_string()))?))
        };
        self.writer.limited(look).await.map_err(not_reverted)?
    }
}

fn why_not(snapshot: &Snapshot, decision: &Decision) -> NotReverted {
    match decision {
        Decision::Stall { reason, .. } => NotReverted::Stalled(*reason),
        Decision::Observe { because: Because::Owner, .. } => {
            NotReverted::Owned(snapshot.deployment.owner.clone().unwrap_or_default())
        }
        Decision::Rest(Rest::Terminating) => NotReverted::Nothing("the Deployment is being deleted"),
        Decision::Rest(Rest::Withdrawn) => {
            NotReverted::Nothing("it is withdrawn already: quarantined, and at 0 replicas")
        }
        Decision::Rest(Rest::NewerRecord) => {
            NotReverted::Nothing("its record was written by a newer surefoot: update this")
        }
        _ => NotReverted::Nothing("there is nothing to revert now"),
    }
}

fn not_reverted(error: Unwritten) -> NotReverted {
    match error {
        Unwritten::Refused(why) => NotReverted::Refused(why),
        error => NotReverted::Failed(error.to_string()),
    }
}
