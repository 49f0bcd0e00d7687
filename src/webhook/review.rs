//! One review: body → [`Request`] → [`Facts`] → verdict or defaults → answer, all before the request's deadline.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{body::Bytes, http::StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    App, Rules,
    body::SMALL,
    memory::{self, Judged},
    question::{Question, Sum},
    router::Refusal,
    workers::Late,
};
use crate::{
    admission::{
        self, Facts, Failure, Finding, Level, Limits, Verdict,
        answer::{self, Answer},
        defaults, message,
        wire::{Operation, Request, WireError},
    },
    cluster::facts::{About, LIVE, Missed},
    config::Guard,
    telemetry::{FindingLabels, HookLabels, LiveReadLabels, PolicyLabels, ReviewLabels, VerdictLabel},
    template::{Json, json, keys},
};

/// A dry run makes nothing: whoever tries a whole stage (stable and canary, both new) asks about each of them alone.
const ALONE: &str =
    "a dry run does not show what else is to be applied with this, so what rests on other Deployments only warns";

/// Which hook asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Validate,
    Mutate,
    Scale,
}

impl Hook {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Mutate => "mutate",
            Self::Scale => "scale",
        }
    }
}

/// Answers one review before `deadline`.
pub(super) async fn review(app: &Arc<App>, hook: Hook, body: Bytes, deadline: Instant) -> Result<Vec<u8>, Refusal> {
    let review = Review { app, rules: app.rules(), hook, deadline };
    let question = review.question(&body);
    if let Some(again) = question.as_ref().and_then(|question| review.again(question)) {
        return Ok(again);
    }
    let request = review.parse(body).await?;
    let expected = if hook == Hook::Scale { "Scale" } else { "Deployment" };
    if request.operation == Operation::Other || request.kind != expected {
        let message = format!("surefoot judges the {expected} here, this is a {}; allowed unseen", request.kind);
        return Ok(review.pass(&request, VerdictLabel::unknown, Some(message)));
    }
    let request = match hook {
        Hook::Scale => match review.scaled(&request).await {
            Ok(scaled) => scaled,
            Err(why) => return Ok(review.pass(&request, VerdictLabel::unknown, why)),
        },
        Hook::Validate | Hook::Mutate => request,
    };
    if hook != Hook::Scale && !is_asked_about(&request) {
        return Ok(review.pass(&request, VerdictLabel::allowed, None));
    }
    let facts = review.facts(&request).await;
    if facts.guard.is_none() {
        return Ok(review.pass(&request, VerdictLabel::unguarded, None));
    }
    match hook {
        Hook::Mutate => review.defaulted(request, facts, question).await,
        Hook::Validate | Hook::Scale => review.validated(request, facts, question).await,
    }
}

/// What must never be held up passes here as it does in the API server, by the same rule, should a hook have lost its
/// matchConditions.
fn is_asked_about(request: &Request) -> bool {
    request.old_object().is_none_or(|old| admission::is_asked_about(old, request.object()))
}

/// What the steps of one review share.
pub(super) struct Review<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) rules: Arc<Rules>,
    pub(super) hook: Hook,
    pub(super) deadline: Instant,
}

impl Review<'_> {
    async fn parse(&self, body: Bytes) -> Result<Request, Refusal> {
        let parsed = match body.len() {
            // Some hundred microseconds at most.
            0..=SMALL => Request::parse(&body),
            _ => {
                let parsed = self.app.workers.compute(self.deadline, move || Request::parse(&body)).await;
                parsed.map_err(|late| self.refusal(late))?
            }
        };
        parsed.map_err(|WireError { status, message }| {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            Refusal::new(status, "malformed", message)
        })
    }

    /// The Scale as a request about its Deployment. `Err`: there is none, or it could not be read (and why).
    async fn scaled(&self, request: &Request) -> Result<Request, Option<String>> {
        let found = self.app.facts.deployment(&request.namespace, &request.name, self.reading()).await;
        self.count_read("deployment", found.as_ref().map(Option::is_some));
        match found {
            Ok(Some(deployment)) => Ok(request.clone().scaled(deployment)),
            Ok(None) => Err(None),
            Err(Missed(why)) => {
                warn!(namespace = request.namespace, name = request.name, "scaling is allowed unseen: {why}");
                Err(Some(format!("surefoot could not look at the Deployment, so the scaling is allowed unseen: {why}")))
            }
        }
    }

    /// From the caches. A namespace that they do not know is read live, and taken as `enforce` if that fails: the API
    /// server asks about guarded ones only.
    async fn facts(&self, request: &Request) -> Facts {
        match self.app.facts.cached(about(request)) {
            Some(facts) => facts,
            None => self.live(request).await.unwrap_or_else(|Missed(why)| {
                warn!(namespace = request.namespace, "taken as enforce: {why}");
                let namespace = Json::from_json_str(r#"{"labels": {}, "annotations": {}}"#).ok();
                let gap = format!("surefoot could not look at the namespace, and takes it as enforce: {why}");
                Facts { guard: Some(Guard::Enforce), namespace, gaps: vec![gap], ..Facts::default() }
            }),
        }
    }

    async fn live(&self, request: &Request) -> Result<Facts, Missed> {
        let live = self.app.facts.live(about(request), self.reading()).await;
        self.count_read("facts", live.as_ref().map(|facts| facts.guard.is_some()));
        live
    }

    /// How long a live read may take now: half of what is left at most, so that what it brings can be judged, and the
    /// scale hook, which may read twice in its one second, is answered in time.
    fn reading(&self) -> Duration {
        LIVE.min(self.deadline.saturating_duration_since(Instant::now()) / 2)
    }

    async fn validated(&self, request: Request, facts: Facts, question: Option<Question>) -> Result<Vec<u8>, Refusal> {
        if !facts.gaps.is_empty() {
            self.app.metrics.incomplete_facts.inc();
        }
        let remembered_as = question.map(|question| self.asked(question, &facts));
        let (request, facts, verdict) = self.validate(request, facts).await?;
        // What rests on facts is decided on a live read each time; and a quarantine says how long ago it was.
        let is_lasting = memory::lasts(&request, &facts, &verdict.failures)
            && !verdict.used_facts
            && verdict.findings.iter().all(|finding| finding.policy != "quarantine");
        let (request, facts, verdict) = match facts.cached && verdict.used_facts {
            true => self.confirmed(request, facts, verdict).await?,
            false => (request, facts, verdict),
        };
        let (request, verdict) = match request.dry_run && self.hook == Hook::Validate && verdict.used_facts {
            true => self.without_peers(request, facts, verdict, ALONE.to_owned()).await?,
            false => (request, verdict),
        };
        self.count_failures(&verdict.failures);
        let answer = answer::validated(&request, &verdict, Timestamp::now());
        let label = match &answer {
            answer if !answer.allowed => VerdictLabel::denied,
            answer if !answer.warnings.is_empty() => VerdictLabel::warned,
            _ => VerdictLabel::allowed,
        };
        let (findings, why) = (finding_labels(&verdict), codes(&verdict));
        Ok(self.judged(&request, answer, label, (findings, why), remembered_as.filter(|_| is_lasting)))
    }

    /// A denial that rests on cached facts is decided again on a live read.
    async fn confirmed(
        &self,
        request: Request,
        facts: Facts,
        first: Verdict,
    ) -> Result<(Request, Facts, Verdict), Refusal> {
        let Missed(why) = match self.live(&request).await {
            Ok(live) => return self.validate(request, live).await,
            Err(missed) => missed,
        };
        warn!(namespace = request.namespace, name = request.name, "a denial may become a warning: {why}");
        let note =
            format!("the other Deployments could not be looked at again, so what rests on them only warns: {why}");
        let fewer = Facts { peers: None, cached: false, ..facts };
        let (request, verdict) = self.without_peers(request, fewer.clone(), first, note).await?;
        Ok((request, fewer, verdict))
    }

    /// What a denial rests on peers for becomes a warning, and `note` says why; what stands without them stays. History
    /// stays too: only surefoot itself writes a record, so a cached quarantine is wrong for moments at most, and a slow API
    /// server must not open the door to what it holds.
    async fn without_peers(
        &self,
        request: Request,
        facts: Facts,
        first: Verdict,
        note: String,
    ) -> Result<(Request, Verdict), Refusal> {
        let (request, _, mut verdict) = self.validate(request, Facts { peers: None, cached: false, ..facts }).await?;
        let lost = first.findings.into_iter().filter(|finding| !verdict.findings.contains(finding));
        let lost: Vec<_> = lost.map(|finding| Finding { level: finding.level.min(Level::Warn), ..finding }).collect();
        if !lost.is_empty() {
            verdict.notes.push(note);
        }
        verdict.findings.extend(lost);
        Ok((request, verdict))
    }

    async fn validate(&self, request: Request, facts: Facts) -> Result<(Request, Facts, Verdict), Refusal> {
        let asked = Arc::new((request, facts));
        let (rules, shared) = (Arc::clone(&self.rules), Arc::clone(&asked));
        let work = move |limits: Limits| {
            admission::validate(&rules.set, &shared.0, &shared.1, &rules.config, Timestamp::now(), limits)
        };
        let subject = subject(&asked.0);
        let verdict = self.app.workers.judge(&subject, self.deadline, work).await.map_err(|late| self.refusal(late))?;
        let (request, facts) = Arc::unwrap_or_clone(asked);
        Ok((request, facts, verdict))
    }

    async fn defaulted(&self, request: Request, facts: Facts, question: Option<Question>) -> Result<Vec<u8>, Refusal> {
        let remembered_as = question.map(|question| self.asked(question, &facts));
        let asked = Arc::new((request, facts));
        let (rules, shared) = (Arc::clone(&self.rules), Arc::clone(&asked));
        let work = move |limits: Limits| {
            defaults::default(&rules.set, &shared.0, &shared.1, &rules.config, Timestamp::now(), limits)
        };
        let subject = subject(&asked.0);
        let defaulting = self.app.workers.judge(&subject, self.deadline, work).await;
        let defaulting = defaulting.map_err(|late| self.refusal(late))?;
        let (request, facts) = &*asked;
        self.count_failures(&defaulting.failures);
        let patches = !defaulting.patch.0.is_empty();
        let label = if patches { VerdictLabel::patched } else { VerdictLabel::allowed };
        let is_lasting = memory::lasts(request, facts, &defaulting.failures);
        let answer = answer::defaulted(request, &defaulting);
        Ok(self.judged(request, answer, label, Default::default(), remembered_as.filter(|_| is_lasting)))
    }

    /// What the API server shows instead of a verdict.
    fn refusal(&self, late: Late) -> Refusal {
        let late_by = |policy: String| if policy.is_empty() { policy } else { format!(" at policy {policy}") };
        let (status, reason, message) = match late {
            Late::Overloaded => {
                let message = "overloaded: no time was left to judge this request".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
            }
            Late::Overran(policy) => {
                let message = format!("judging this request took longer than it had{}", late_by(policy));
                (StatusCode::SERVICE_UNAVAILABLE, "deadline", message)
            }
            Late::Panicked(policy) => {
                let message = format!("an error inside surefoot{}; its log has the details", late_by(policy));
                (StatusCode::INTERNAL_SERVER_ERROR, "panic", message)
            }
        };
        Refusal::new(status, reason, message)
    }
}

impl Review<'_> {
    /// Allowed without being judged; `warning` says why where that is news.
    fn pass(&self, request: &Request, label: VerdictLabel, warning: Option<String>) -> Vec<u8> {
        let mut answer = Answer::allowed(request);
        answer.warnings.extend(warning.as_deref().map(message::note));
        self.send(request, answer, label)
    }

    /// What policies decided names their set, so that the audit log tells by which rules. Where
    /// it says by what, it is remembered.
    fn judged(
        &self,
        request: &Request,
        mut answer: Answer,
        label: VerdictLabel,
        (findings, why): (Vec<FindingLabels>, String),
        remembered_as: Option<(Question, Sum)>,
    ) -> Vec<u8> {
        answer.audit_annotations.insert("policy-set".to_owned(), self.rules.set.digest().to_owned());
        let judged = Judged { request: request.head(), answer, label, findings, why };
        if let Some((question, circumstances)) = remembered_as {
            let model = about(request).model.map(str::to_owned);
            self.app.memory.keep(question, circumstances, model, judged.clone());
        }
        self.tell(judged)
    }

    /// Counts, logs and writes what was decided, now or before.
    fn tell(&self, judged: Judged) -> Vec<u8> {
        let Judged { request, answer, label, findings, why } = judged;
        for labels in &findings {
            self.app.metrics.findings.get_or_create(labels).inc();
        }
        if label == VerdictLabel::denied {
            let Request { uid, namespace, name, user, dry_run, .. } = &request;
            info!(hook = self.hook.name(), namespace, name, user, dry_run, uid, why, "denied");
        }
        self.send(&request, answer, label)
    }

    /// What the answer can be remembered by. A scale says nothing of its Deployment, and what is large is not read twice.
    fn question(&self, body: &[u8]) -> Option<Question> {
        let is_whole = self.hook != Hook::Scale && body.len() <= SMALL;
        is_whole.then(|| Question::of(self.hook, body, self.rules.set.unseen())).flatten()
    }

    fn asked(&self, question: Question, facts: &Facts) -> (Question, Sum) {
        (question, memory::circumstances(&self.rules, facts, Timestamp::now()))
    }

    /// The answer that was given to the same question under the same circumstances.
    fn again(&self, question: &Question) -> Option<Vec<u8>> {
        let kept = self.app.memory.find(question)?;
        let Request { namespace, name, .. } = kept.request();
        let facts = self.app.facts.cached(About { namespace, name, model: kept.model.as_deref() })?;
        if memory::circumstances(&self.rules, &facts, Timestamp::now()) != kept.circumstances {
            return None;
        }
        self.app.metrics.remembered.get_or_create(&HookLabels { hook: self.hook.name() }).inc();
        Some(self.tell(kept.again(question)))
    }

    /// Counts and writes the answer.
    fn send(&self, request: &Request, answer: Answer, verdict: VerdictLabel) -> Vec<u8> {
        let operation = match request.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Other => "other",
        };
        let (hook, Request { uid, namespace, name, .. }) = (self.hook.name(), request);
        self.app.metrics.reviews.get_or_create(&ReviewLabels { hook, operation, verdict }).inc();
        debug!(hook, operation, namespace, name, uid, ?verdict, "answered");
        answer.to_bytes()
    }

    fn count_failures(&self, failures: &[Failure]) {
        for Failure { policy, file, line, column, message, .. } in failures {
            warn!(policy, "{file}:{line}:{column}: {message}");
            self.app.metrics.failures.get_or_create(&PolicyLabels { policy: policy.clone() }).inc();
        }
    }

    fn count_read(&self, what: &'static str, read: Result<bool, &Missed>) {
        let outcome = match read {
            Ok(true) => "found",
            Ok(false) => "absent",
            Err(_) => "failed",
        };
        self.app.metrics.live_reads.get_or_create(&LiveReadLabels { what, outcome }).inc();
    }
}

fn finding_labels(verdict: &Verdict) -> Vec<FindingLabels> {
    let labels = |Finding { policy, level, .. }: &Finding| {
        let level = match level {
            Level::Deny => "deny",
            Level::Warn => "warn",
            Level::Audit => "audit",
        };
        FindingLabels { policy: policy.clone(), level }
    };
    verdict.findings.iter().map(labels).collect()
}

/// What denied, each once, for the log.
fn codes(verdict: &Verdict) -> String {
    let findings = verdict.findings.iter().filter(|finding| finding.level == Level::Deny).map(Finding::name);
    let broken = verdict.failures.iter().filter(|failure| failure.level == Level::Deny);
    let codes: BTreeSet<String> = findings.chain(broken.map(|failure| format!("{}/broken", failure.policy))).collect();
    codes.into_iter().collect::<Vec<_>>().join(", ")
}

/// Tells Deployments apart.
fn subject(Request { namespace, name, .. }: &Request) -> String {
    format!("{namespace}/{name}")
}

fn about(request: &Request) -> About<'_> {
    let model = json::str_at(request.object(), &["metadata", "labels", keys::MODEL]).filter(|model| !model.is_empty());
    About { namespace: &request.namespace, name: &request.name, model }
}
