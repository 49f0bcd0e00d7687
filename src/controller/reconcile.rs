//! One Deployment: look, decide, record, carry out, and look again until there is nothing to do at this moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    revert::{Act, News},
    watches::{Key, Watches},
    writes::{Unwritten, Write, Writer},
};
use crate::{
    cluster::{
        guarded::Namespace,
        records::{RecordError, Stored},
    },
    config::{Guard, Rollouts},
    rollout::{
        Because, Decision, History, Rest, Settings, Snapshot, Watch, decide,
        record::{Evidence, Revert, StallReason},
    },
    telemetry::{ControllerMetrics, DecisionLabels, ReasonLabels},
    template::{
        Digest, keys,
        overriding::{self, Void},
    },
};

/// Decisions in a row on one Deployment: settling one template, reverting another, finishing that. More is a mistake of
/// ours that must not become a loop of writes.
const IN_A_ROW: usize = 6;
/// A stall is looked at again: the day in which reverts are counted passes without an event.
const STALLED: Duration = Duration::from_secs(60);
/// After an answer that may be another one later; doubled up to [`LATEST`].
const LATER: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(60);

/// What reconciling needs, the same for all Deployments.
pub(super) struct Reconciler {
    pub(super) watches: Watches,
    pub(super) writer: Writer,
    pub(super) rollouts: watch::Receiver<Rollouts>,
}

/// What is kept of one Deployment from one look to the next. Lost with the process, and nothing is lost by that.
#[derive(Default)]
pub(super) struct State {
    history: History,
    pub(super) stored: Option<Stored>,
    /// What kind of thing was logged last, so that it is logged once, whatever figures it comes with.
    said: String,
    /// What was wrong with the Deployment's annotations.
    complained: Vec<String>,
    /// The override of which an Event says that it counts for nothing.
    void: Option<String>,
    /// The revert that was refused, by digest and generation, and when to ask again whatever happens to its pods.
    refused: Option<(Digest, i64, Timestamp)>,
    /// Answers in a row that may be another one later, and the last of them.
    failures: u32,
    trouble: String,
    /// It is counted among the rollouts with this decision.
    counted: Option<Counted>,
}

/// One among the rollouts of a decision, for as long as it is kept.
struct Counted(Gauge);

impl Counted {
    fn new(metrics: &ControllerMetrics, decision: &Decision) -> Self {
        let decision = match decision {
            Decision::Rest(_) => "rest",
            Decision::Watch(_) => "watch",
            Decision::Settle(_) => "settle",
            Decision::Revert(_) => "revert",
            Decision::Finish(_) => "finish",
            Decision::Stall { .. } => "stall",
            Decision::Observe { .. } => "observe",
        };
        let gauge = metrics.rollouts.get_or_create_owned(&DecisionLabels { decision });
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a decision is made on.
pub(super) struct Sight {
    /// The Deployment with what belongs to it, as the watches show it.
    pub(super) snapshot: Snapshot,
    /// Its record, as the watch shows it.
    pub(super) record: Option<Arc<Result<Stored, RecordError>>>,
    /// What holds for it.
    pub(super) settings: Settings,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Again {
    /// When something happens.
    OnChange,
    /// At this time, or when something happens.
    At(Timestamp),
    /// The Deployment is gone: forget it.
    Never,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: &Key, state: &mut State) -> Again {
        let begun = Instant::now();
        let again = self.look(key, state).await;
        self.writer.metrics().look_seconds.observe(begun.elapsed().as_secs_f64());
        again
    }

    async fn look(&self, key: &Key, state: &mut State) -> Again {
        for _ in 0..IN_A_ROW {
            let seen = self.watches.snapshot(key).zip(self.watches.namespaces.get(&key.namespace));
            let Some((snapshot, namespace)) = seen else { return Again::Never };
            let settings = settings(&self.rollouts.borrow(), &namespace, &snapshot);
            let record = self.watches.records.get(&key.namespace, &key.name);
            let sight = Sight { snapshot, record, settings };
            // Where something was written, or has changed: decide again, on what the watch shows by then.
            if let Some(again) = self.act_on(key, &sight, state, Timestamp::now()).await {
                return again;
            }
        }
        warn!(deployment = %key, "decided {IN_A_ROW} times in a row; looking again in a minute");
        Again::At(Timestamp::now() + LATEST)
    }

    /// Decides once, and carries that out. `None`: look again at once.
    pub(super) async fn act_on(&self, key: &Key, sight: &Sight, state: &mut State, now: Timestamp) -> Option<Again> {
        let Sight { snapshot, settings, .. } = sight;
        if let Err(error) = self.read_record(key, sight, state).await {
            state.say(key, &error, &error);
            return Some(Again::At(now + LATER));
        }
        state.complain(key, &settings.complaints);
        if let Err(error) = self.tell_void(snapshot, settings, state, now).await {
            return Some(Again::At(now + state.later(key, &error)));
        }
        let decision = state.decide(snapshot, settings, now);
        state.counted = Some(Counted::new(self.writer.metrics(), &decision));
        if let Some(at) = state.held_back(&decision, snapshot, now) {
            return Some(Again::At(at));
        }
        match self.carry_out(key, snapshot, &decision, state, now).await {
            Ok(again) => {
                if again.is_some() {
                    state.failures = 0;
                }
                again
            }
            Err(Unwritten::Changed) => Some(Again::At(now + state.pause(SOON))),
            Err(Unwritten::NotLeading) => Some(Again::OnChange),
            Err(error) => Some(Again::At(now + state.later(key, &error))),
        }
    }

    /// The record as it is: ours, unless the watch shows another one.
    async fn read_record(&self, key: &Key, sight: &Sight, state: &mut State) -> Result<(), String> {
        let known = state.stored.as_ref().map(|stored| &stored.revision);
        let same = match sight.record.as_deref() {
            // The watch's copy is kept instead of a second one. At first sight, too: should it be old, what is written over it
            // is refused, and nothing is done that was not written first.
            Some(Ok(shown)) if known.is_none_or(|known| *known == shown.revision) => {
                state.stored = Some(shown.clone());
                true
            }
            Some(Ok(_)) => false,
            Some(Err(error)) => return Err(error.to_string()),
            None => known.is_none(),
        };
        if !same {
            let read = self.writer.limited(self.writer.records().get(&key.namespace, &key.name)).await;
            state.stored = read.map_err(|error| error.to_string())?.map_err(|error: RecordError| error.to_string())?;
        }
        Ok(())
    }

    /// An override that counts for nothing is told once: whoever set it was let through, because the API server's
    /// conditions have no clock. One that has ended did count.
    async fn tell_void(
        &self,
        snapshot: &Snapshot,
        settings: &Settings,
        state: &mut State,
        now: Timestamp,
    ) -> Result<(), Unwritten> {
        let text = snapshot.deployment.override_text.as_deref().filter(|_| settings.guard != Guard::Audit);
        let void = text.and_then(|text| match overriding::read(text, now) {
            Err(why @ (Void::Malformed | Void::TooFar(_))) => Some((text, why)),
            _ => None,
        });
        let news = void.as_ref().filter(|(text, _)| state.void.as_deref() != Some(*text));
        if let Some((text, why)) = news {
            let act = Act { writer: &self.writer, snapshot, stored: &mut state.stored, now };
            let once = (*text).to_owned();
            let note = format!("annotation {} \"{text}\" counts for nothing: {why}", keys::OVERRIDE);
            act.tell(News { what: Write::TellOverride, reason: keys::REASON_OVERRIDE, note, once }).await?;
        }
        state.void = void.map(|(text, _)| text.to_owned());
        Ok(())
    }

    /// `Ok(None)`: look again at once.
    async fn carry_out(
        &self,
        key: &Key,
        snapshot: &Snapshot,
        decision: &Decision,
        state: &mut State,
        now: Timestamp,
    ) -> Result<Option<Again>, Unwritten> {
        state.say(key, &kind(decision), &sentence(decision));
        let mut act = Act { writer: &self.writer, snapshot, stored: &mut state.stored, now };
        match decision {
            Decision::Rest(rest) => {
                act.record(decision).await?;
                Ok(Some(again_after(rest, now)))
            }
            Decision::Watch(watch) => {
                act.record(decision).await?;
                Ok(Some(watch.again_at.map_or(Again::OnChange, Again::At)))
            }
            Decision::Settle(_) => act.record(decision).await.map(|()| None),
            Decision::Revert(revert) => match act.revert(revert).await {
                Err(Unwritten::Refused(why)) => {
                    let at = now + STALLED;
                    state.refused = Some((revert.digest.clone(), snapshot.deployment.generation, at));
                    self.refused(&mut act, revert, &why).await.map(|()| Some(Again::At(at)))
                }
                // The watch tells when the good template is there; until then there is nothing to decide.
                done => done.map(|()| Some(Again::OnChange)),
            },
            Decision::Finish(revert) => act.finish(revert).await.map(|()| None),
            Decision::Stall { reason, evidence } => {
                self.count_stall(&act, decision, *reason);
                act.tell_and_record(decision, stalled(snapshot, *reason, evidence)).await?;
                Ok(Some(Again::At(now + STALLED)))
            }
            Decision::Observe { would, because } => {
                if act.is_news(decision) {
                    let reason = observes(*because).to_owned();
                    self.writer.metrics().observed.get_or_create(&ReasonLabels { reason }).inc();
                }
                match because {
                    // The people of the namespace are told nothing.
                    Because::Guard(Guard::Audit) => act.record(decision).await?,
                    _ => act.tell_and_record(decision, only_observed(snapshot, would, *because)).await?,
                }
                Ok(Some(Again::At(now + STALLED)))
            }
        }
    }

    /// The API server will not have the revert (a policy of the cluster, a quota, a template that is no longer valid).
    async fn refused(&self, act: &mut Act<'_>, revert: &Revert, why: &str) -> Result<(), Unwritten> {
        let (reason, evidence) = (StallReason::RevertRefused, revert.evidence.clone());
        let news = stalled(act.snapshot, reason, &evidence);
        let decision = Decision::Stall { reason, evidence };
        if act.is_news(&decision) {
            let deployment = &act.snapshot.deployment;
            warn!(namespace = deployment.namespace, deployment = deployment.name, "the revert was refused: {why}");
        }
        self.count_stall(act, &decision, reason);
        act.tell_and_record(&decision, News { note: format!("{}; {why}", news.note), ..news }).await
    }

    fn count_stall(&self, act: &Act<'_>, decision: &Decision, reason: StallReason) {
        if act.is_news(decision) {
            let reason = format!("{reason:?}");
            self.writer.metrics().stalls.get_or_create(&ReasonLabels { reason }).inc();
        }
    }
}

impl State {
    fn decide(&mut self, snapshot: &Snapshot, settings: &Settings, now: Timestamp) -> Decision {
        self.history = std::mem::take(&mut self.history).observe(snapshot, settings.window(), now);
        let record = self.stored.as_ref().map(|stored| &*stored.record);
        let decision = decide(snapshot, record, &self.history, settings, now);
        if matches!(decision, Decision::Revert(_) | Decision::Stall { .. } | Decision::Observe { .. }) {
            self.history = std::mem::take(&mut self.history).failing(now);
        }
        if decision == Decision::Rest(Rest::Settled) {
            self.history = std::mem::take(&mut self.history).settled();
        }
        decision
    }

    /// When to ask again for a revert that was refused, if that is not now.
    fn held_back(&self, decision: &Decision, snapshot: &Snapshot, now: Timestamp) -> Option<Timestamp> {
        let Decision::Revert(revert) = decision else { return None };
        let (digest, generation, at) = self.refused.as_ref()?;
        let same = *digest == revert.digest && *generation == snapshot.deployment.generation;
        (same && now < *at).then_some(*at)
    }

    /// Says it, unless the last thing said was of the same kind.
    fn say(&mut self, key: &Key, kind: &str, text: &str) {
        if self.is_news(kind) {
            info!(namespace = key.namespace, deployment = key.name, "{text}");
        }
    }

    fn is_news(&mut self, kind: &str) -> bool {
        let news = !kind.is_empty() && self.said != kind;
        if news {
            kind.clone_into(&mut self.said);
        }
        news
    }

    fn complain(&mut self, key: &Key, complaints: &[String]) {
        if self.complained != complaints {
            for complaint in complaints {
                warn!(namespace = key.namespace, deployment = key.name, "{complaint}");
            }
            self.complained = complaints.to_vec();
        }
    }

    /// Doubled each time in a row.
    fn pause(&mut self, first: Duration) -> Duration {
        let pause = first.saturating_mul(1 << self.failures.min(9)).min(LATEST);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    fn later(&mut self, key: &Key, error: &Unwritten) -> Duration {
        // Another trouble than the last: what that kept from being done is done.
        if std::mem::replace(&mut self.trouble, error.to_string()) != self.trouble {
            self.failures = 0;
        }
        let pause = self.pause(LATER);
        warn!(namespace = key.namespace, deployment = key.name, "{error}; trying again in {} s", pause.as_secs());
        pause
    }
}

/// When to look again at what needs nothing now.
fn again_after(rest: &Rest, now: Timestamp) -> Again {
    match rest {
        // That its failures are older than the window is told by nobody.
        Rest::Reverted { again_at, quiet: false } => {
            Again::At(again_at.map_or(now + STALLED, |at| at.min(now + STALLED)))
        }
        Rest::Reverted { again_at: Some(at), quiet: true } => Again::At(*at),
        Rest::Stale => Again::At(now + STALLED),
        _ => Again::OnChange,
    }
}

fn settings(rollouts: &Rollouts, namespace: &Namespace, snapshot: &Snapshot) -> Settings {
    Settings::of(rollouts, namespace.guard, &namespace.labels, snapshot.deployment.budget_text.as_deref())
}

/// The same for as long as the log has nothing new to tell: figures rise with every look.
fn kind(decision: &Decision) -> String {
    match decision {
        Decision::Revert(revert) => format!("reverting {}", revert.digest),
        Decision::Stall { reason, .. } => reason.sentence().to_owned(),
        Decision::Observe { would, because } => format!("observing {}: {because:?}", would.digest),
        Decision::Watch(Watch { hindrance: Some(hindrance), settles_at: None, .. }) => {
            format!("hindered: {:?}", hindrance.reason)
        }
        other => sentence(other),
    }
}

/// The decision as a line of the log.
fn sentence(decision: &Decision) -> String {
    match decision {
        Decision::Rest(_) | Decision::Finish(_) => String::new(),
        Decision::Watch(watch) if watch.reading.evidence.failures > 0 => "it fails, within its budget".to_owned(),
        Decision::Watch(watch) => match watch.settles_at {
            Some(at) => format!("complete; settles at {at:.0} if it stays quiet"),
            None => match &watch.hindrance {
                Some(hindrance) => format!("watching the rollout; {hindrance}"),
                None => "watching the rollout".to_owned(),
            },
        },
        Decision::Settle(settled) => {
            format!("{} has settled", settled.version.as_deref().unwrap_or("a version without a label"))
        }
        Decision::Revert(revert) => format!("reverting: {}", revert.sentence()),
        Decision::Stall { reason, evidence } => format!("{}: {}", reason.sentence(), evidence.note()),
        Decision::Observe { would, because } => observed(would, *because),
    }
}

fn stalled(snapshot: &Snapshot, reason: StallReason, evidence: &Evidence) -> News {
    let deployment = &snapshot.deployment;
    let version = deployment.template.version.as_deref().unwrap_or("the rollout");
    News {
        what: Write::TellStalled,
        reason: keys::REASON_STALLED,
        note: format!("{version} fails and is left as it is, {}: {}", reason.sentence(), evidence.note()),
        once: format!("{} {}", deployment.generation, reason.sentence()),
    }
}

fn only_observed(snapshot: &Snapshot, would: &Revert, because: Because) -> News {
    News {
        what: Write::TellObserved,
        reason: keys::REASON_OBSERVED,
        note: observed(would, because),
        once: format!("{} {because:?}", snapshot.deployment.generation),
    }
}

/// The same in one word.
fn observes(because: Because) -> &'static str {
    match because {
        Because::Guard(_) => "guard",
        Because::Override(_) => "override",
        Because::Owner => "owner",
    }
}

fn observed(would: &Revert, because: Because) -> String {
    let why = match because {
        Because::Guard(guard) => format!("the namespace's guard is `{guard}`"),
        Because::Override(until) => format!("an override is in force until {until:.0}"),
        Because::Owner => "another controller owns the Deployment".to_owned(),
    };
    format!("only observed, because {why}; otherwise: {}", would.note())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(failures: u32) -> Evidence {
        Evidence {
            failures,
            attempts: 30,
            budget: 10,
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            container: "model".into(),
            signal: crate::rollout::record::Signal::Readiness,
            message: String::new(),
            pods: Vec::new(),
            nodes: Vec::new(),
        }
    }

    #[test]
    fn a_stall_is_logged_once_however_its_figures_rise() {
        let mut state = State::default();
        let stall = |failures, reason| Decision::Stall { reason, evidence: evidence(failures) };
        let news = [
            (stall(11, StallReason::NothingSettled), true),
            (stall(12, StallReason::NothingSettled), false),
            (stall(13, StallReason::TooManyReverts), true),
        ];
        for (decision, news) in news {
            assert_eq!(state.is_news(&kind(&decision)), news, "{decision:?}");
        }
    }

    #[test]
    fn what_has_failed_of_late_is_looked_at_until_it_is_quiet() {
        let now = Timestamp::UNIX_EPOCH;
        let (soon, late) = (now + Duration::from_secs(5), now + Duration::from_secs(600));
        let reverted = |again_at, quiet| Rest::Reverted { again_at, quiet };
        for (rest, wanted) in [
            (reverted(None, true), Again::OnChange),
            (reverted(Some(late), true), Again::At(late)),
            (reverted(None, false), Again::At(now + STALLED)),
            (reverted(Some(soon), false), Again::At(soon)),
            (reverted(Some(late), false), Again::At(now + STALLED)),
            (Rest::Stale, Again::At(now + STALLED)),
            (Rest::Settled, Again::OnChange),
        ] {
            assert_eq!(again_after(&rest, now), wanted, "{rest:?}");
        }
    }

    #[test]
    fn another_trouble_begins_with_a_short_pause() {
        let (mut state, key) = (State::default(), Key { namespace: "shop".into(), name: "churn".into() });
        let mut later = |why: &str| state.later(&key, &Unwritten::Later(why.into())).as_secs();
        assert_eq!(
            [later("patch"), later("patch"), later("record"), later("record"), later("record")],
            [1, 2, 1, 2, 4]
        );
    }

    #[test]
    fn what_keeps_changing_is_asked_for_less_and_less() {
        let mut state = State::default();
        let pauses: Vec<_> = (0..12).map(|_| state.pause(SOON).as_millis()).collect();
        assert_eq!(pauses[..4], [200, 400, 800, 1600]);
        assert_eq!(pauses[11], 60_000);
    }
}
