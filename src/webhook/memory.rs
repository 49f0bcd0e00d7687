//! Verdicts that were given, for when the same is asked again: GitOps asks for a dry run of every file, every few minutes.
//!
//! An answer is found by its [`Question`]. It counts only while all else that a verdict depends on is the same, which a
//! second one holds: every fact that the caches give for it now, the digest of policies and configuration, and the day, on
//! which exemptions end. Policies themselves have no clock and no chance: such built-in functions are not compiled in.
//!
//! Never kept, because it may be another moments later: see [`lasts`].

use std::{
    collections::{HashMap, VecDeque},
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    Rules,
    question::{Question, Sum},
};
use crate::{
    admission::{Facts, Failure, Request, answer::Answer},
    telemetry::{FindingLabels, VerdictLabel},
    template::{json, keys},
};

/// Answers that are kept at most. Those of a cluster with some thousand Deployments, for both hooks.
const MOST: usize = 8192;
/// Bytes that they may take together, and one of them.
const ROOM: usize = 6 << 20;
const LARGEST: usize = ROOM / 64;
/// What an entry takes beside its texts.
const ENTRY: usize = 512;

/// A sum of all that a verdict depends on beside the request.
pub(super) fn circumstances(rules: &Rules, facts: &Facts, now: Timestamp) -> Sum {
    struct Summing(Sha256);
    impl fmt::Write for Summing {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text);
            Ok(())
        }
    }
    let mut sum = Summing(Sha256::new());
    let day = now.as_second().div_euclid(86_400);
    // Whatever becomes a fact one day is in it: `Debug` is derived. Writing to a sum cannot fail.
    let _ = write!(sum, "{} {day} {facts:?}", rules.set.digest());
    sum.0.finalize().into()
}

/// May the answer to this be given again? Not where a policy failed, where an override is in force or is not (both have an
/// end), and where facts could not be read.
pub(super) fn lasts(request: &Request, facts: &Facts, failures: &[Failure]) -> bool {
    let overriding = json::at(request.object(), &["metadata", "annotations", keys::OVERRIDE]);
    failures.is_empty() && overriding.is_none() && facts.gaps.is_empty()
}

/// An answer with all that is said and counted when it is given.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// Without its objects.
    pub(super) request: Request,
    pub(super) answer: Answer,
    pub(super) label: VerdictLabel,
    pub(super) findings: Vec<FindingLabels>,
    /// What denied, for the log.
    pub(super) why: String,
}

/// What is kept of one question.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) circumstances: Sum,
    /// Label of the object by which its peers are found.
    pub(super) model: Option<String>,
    judged: Judged,
    bytes: usize,
}

impl Kept {
    /// The answer to the same question, asked this time.
    pub(super) fn again(&self, question: &Question) -> Judged {
        let mut judged = self.judged.clone();
        judged.request.uid.clone_from(&question.uid);
        judged.answer = judged.answer.to(&question.uid);
        judged
    }

    pub(super) fn request(&self) -> &Request {
        &self.judged.request
    }
}

/// Bounded: the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Sum, Arc<Kept>>,
    order: VecDeque<Sum>,
    bytes: usize,
}

impl Memory {
    pub(super) fn find(&self, question: &Question) -> Option<Arc<Kept>> {
        self.inner().kept.get(&question.sum).map(Arc::clone)
    }

    /// Keeps an answer, in place of an older one to the same question.
    pub(super) fn keep(&self, question: Question, circumstances: Sum, model: Option<String>, judged: Judged) {
        let Request { uid, kind, name, namespace, user, .. } = &judged.request;
        let head = [uid, kind, name, namespace, user].map(String::len).iter().sum::<usize>();
        let texts = judged.answer.to_bytes().len() + judged.why.len() + judged.findings.len() * 64 + head;
        let bytes = texts + model.as_ref().map_or(0, String::len) + ENTRY;
        let mut inner = self.inner();
        if bytes <= LARGEST {
            let kept = Kept { circumstances, model, judged, bytes };
            inner.bytes += bytes;
            match inner.kept.insert(question.sum, Arc::new(kept)) {
                Some(older) => inner.bytes -= older.bytes,
                None => inner.order.push_back(question.sum),
            }
        }
        while inner.bytes > ROOM || inner.order.len() > MOST {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.bytes -= inner.kept.remove(&oldest).map_or(0, |kept| kept.bytes);
        }
    }

    /// Other policies: nothing of it would be found again.
    pub(super) fn forget(&self) {
        *self.inner() = Inner::default();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::{
        super::tests::{Cluster, deployment, review},
        *,
    };
    use crate::{
        admission::{History, Level, PolicySet, Source},
        config::{Config, Guard},
        telemetry::HookLabels,
        template::Json,
    };

    impl Cluster {
        fn remembered(&self) -> u64 {
            let hooks = ["validate", "mutate", "scale"].into_iter();
            hooks.map(|hook| self.app.metrics.remembered.get_or_create(&HookLabels { hook }).get()).sum()
        }

        /// The answer, and whether it came from memory.
        async fn recall(&self, hook: &str, review: &Value) -> (Value, bool) {
            let before = self.remembered();
            let answer = self.ask(hook, review).await;
            (answer, self.remembered() > before)
        }
    }

    fn with(mut value: Value, pointer: &str, member: &str, new: Value) -> Value {
        value.pointer_mut(pointer).unwrap()[member] = new;
        value
    }

    fn bad() -> Value {
        with(deployment("churn", "stable", 4), "/spec/template/spec/containers/0", "image", json!("r/churn:latest"))
    }

    #[tokio::test]
    async fn the_same_again_gets_the_same_answer_with_its_own_uid() {
        let cluster = Cluster::start().await;
        for (hook, object) in
            [("/validate", deployment("churn", "stable", 4)), ("/validate", bad()), ("/mutate", bad())]
        {
            let (first, known) = cluster.recall(hook, &review("shop", &object)).await;
            assert!(!known, "{hook}");
            let later = with(review("shop", &object), "/request", "uid", json!("u-2"));
            let (second, known) = cluster.recall(hook, &later).await;
            assert!(known, "{hook}");
            assert_eq!((&first["uid"], &second["uid"]), (&json!("u-1"), &json!("u-2")));
            assert_eq!(with(first, "", "uid", json!("u-2")), second, "{hook}");
        }
        let metrics = cluster.app.metrics.render();
        assert!(metrics.contains(r#"surefoot_findings_total{policy="images",level="deny"} 2"#), "{metrics}");
        assert!(metrics.contains(r#"surefoot_remembered_reviews_total{hook="validate"} 2"#), "{metrics}");
        assert!(metrics.contains(r#"surefoot_remembered_reviews_total{hook="mutate"} 1"#), "{metrics}");
    }

    #[tokio::test]
    async fn whatever_else_is_asked_is_judged_anew() {
        let cluster = Cluster::start().await;
        let object = deployment("churn", "stable", 4);
        let update = with(review("shop", &object), "/request", "operation", json!("UPDATE"));
        let update = with(update, "/request", "oldObject", deployment("churn", "stable", 3));
        cluster.ask("/validate", &update).await;
        assert!(cluster.recall("/validate", &update).await.1);
        let rows = [
            ("/request", "operation", json!("CREATE")),
            ("/request", "dryRun", json!(true)),
            ("/request", "name", json!("churn-2")),
            ("/request", "options", json!({"fieldManager": "kubectl"})),
            ("/request/userInfo", "username", json!("bob")),
            ("/request/userInfo", "groups", json!(["a"])),
            ("/request/object/spec", "replicas", json!(6)),
            ("/request/object/metadata", "finalizers", json!(["a/b"])),
            ("/request/oldObject/spec", "replicas", json!(2)),
            ("/request/oldObject/metadata", "annotations", json!({"a": "b"})),
        ];
        for (pointer, member, value) in rows {
            let changed = with(update.clone(), pointer, member, value);
            assert!(!cluster.recall("/validate", &changed).await.1, "{pointer}/{member}");
            assert!(cluster.recall("/validate", &changed).await.1, "{pointer}/{member}");
        }
        assert!(!cluster.recall("/mutate", &update).await.1, "another hook");
        assert!(cluster.recall("/validate", &update).await.1);
        let config = Config::default();
        let set = PolicySet::load(PolicySet::built_in_sources(), &config).unwrap();
        cluster.app.swap(Rules { set, config });
        assert!(!cluster.recall("/validate", &update).await.1, "policies were loaded again");
    }

    /// `review` with everything that the API server makes anew each time.
    fn stamped(mut review: Value, stamp: usize) -> Value {
        review["request"]["uid"] = json!(format!("u-{stamp}"));
        for object in ["object", "oldObject"] {
            if let Some(metadata) = review["request"][object]["metadata"].as_object_mut() {
                metadata.insert("uid".to_owned(), json!(format!("{object}-{stamp}")));
                metadata.insert("resourceVersion".to_owned(), json!(format!("{stamp}")));
                metadata.insert("generation".to_owned(), json!(stamp));
                metadata.insert("creationTimestamp".to_owned(), json!(format!("2026-11-22T15:00:0{stamp}Z")));
                let time = format!("2026-11-22T15:00:0{stamp}Z");
                metadata.insert(
                    "managedFields".to_owned(),
                    json!([{"manager": "argocd", "time": time, "fieldsV1": {"f:a": {}}}]),
                );
            }
        }
        review
    }

    fn update(new: &Value, old: &Value) -> Value {
        let update = with(review("shop", new), "/request", "operation", json!("UPDATE"));
        with(update, "/request", "oldObject", old.clone())
    }

    #[tokio::test]
    async fn what_the_api_server_stamps_anew_each_time_makes_no_other_question() {
        let cluster = Cluster::start().await;
        for (hook, asked) in [
            ("/validate", review("shop", &bad())),
            ("/mutate", review("shop", &bad())),
            ("/validate", update(&bad(), &deployment("churn", "stable", 4))),
            ("/mutate", update(&bad(), &deployment("churn", "stable", 4))),
        ] {
            let (first, known) = cluster.recall(hook, &stamped(asked.clone(), 1)).await;
            assert!(!known, "{hook}");
            let (second, known) = cluster.recall(hook, &stamped(asked.clone(), 2)).await;
            assert!(known, "{hook}");
            assert_eq!(with(first, "", "uid", json!("u-2")), second);
            let other = with(stamped(asked.clone(), 3), "/request/object/metadata", "annotations", json!({"a": "b"}));
            assert!(!cluster.recall(hook, &other).await.1, "{hook}");
            let late =
                with(stamped(asked, 3), "/request/object/metadata", "deletionTimestamp", json!("2026-11-22T15:00:00Z"));
            assert!(!cluster.recall(hook, &late).await.1, "{hook}");
        }
    }

    #[tokio::test]
    async fn what_is_remembered_is_what_would_be_said_now() {
        let cluster = Cluster::start().await;
        let load = |body: &str| {
            let (path, text) = ("p/policy.rego".to_owned(), format!("package surefoot.p\n{body}\n"));
            let config = Config::default();
            let set = PolicySet::load(vec![Source { path, text }], &config).unwrap_or_else(|errors| panic!("{errors}"));
            cluster.app.swap(Rules { set, config });
        };
        let rows = [
            // (policy, does it see what is stamped)
            ("deny contains input.request.uid", true),
            ("deny contains x if x := input.request.object.metadata.uid", true),
            ("deny contains \"odd\" if input.request.object.metadata.generation % 2 == 1", true),
            ("deny contains x if x := input[\"request\"][\"oldObject\"][\"metadata\"][`resourceVersion`]", true),
            ("f(x) := x.creationTimestamp\ndeny contains f(input.request.object.metadata)", true),
            ("deny contains x if x := object.get(input, [\"request\", \"uid\"], \"none\")", true),
            ("deny contains sprintf(\"%v\", [input])", false),
            ("deny contains json.marshal(input.request)", false),
            ("deny contains sprintf(\"%v\", [x]) if some x in input.request", false),
            ("deny contains sprintf(\"%v\", [x]) if some x in input.request.object.metadata", false),
            ("deny contains x if x := input.request[concat(\"\", [\"u\", \"id\"])]", false),
            ("deny contains \"x\" if input.request.object == input.request.oldObject", false),
            ("deny contains {\"code\": \"c\", \"msg\": \"m\", \"path\": \"/metadata\"}", false),
            ("deny contains \"m\" if input.request.object.metadata.managedFields", false),
            ("defaults contains {\"path\": \"/metadata\", \"value\": {\"a\": \"b\"}, \"sticky\": false}", false),
            ("defaults contains {\"path\": \"/metadata/annotations/x\", \"value\": input.request.uid}", true),
            (
                "defaults contains {\"path\": \"/metadata/annotations/x\", \"value\": json.marshal(input.request)}",
                false,
            ),
        ];
        let (new, old) = (deployment("churn", "stable", 4), deployment("churn", "stable", 5));
        let new = with(new, "/spec/template/spec/containers/0", "image", json!("r/churn:1.0.1"));
        let mut recalled = BTreeSet::new();
        for (body, sees) in rows {
            for hook in ["/validate", "/mutate"] {
                for asked in [update(&new, &old), update(&new, &new), review("shop", &new)] {
                    load(body);
                    cluster.ask(hook, &stamped(asked.clone(), 1)).await;
                    // As told apart by each alone, and by all together.
                    for later in
                        [stamped(asked.clone(), 2), with(stamped(asked.clone(), 1), "/request", "uid", json!("x"))]
                    {
                        let (said, known) = cluster.recall(hook, &later).await;
                        load(body);
                        assert_eq!(said, cluster.ask(hook, &later).await, "{body}: {hook}");
                        let is_other = later["request"]["object"] != stamped(asked.clone(), 1)["request"]["object"];
                        assert!(!(known && sees && is_other), "{body}: {hook} from memory");
                        recalled.extend((known && is_other).then_some(body));
                        load(body);
                        cluster.ask(hook, &stamped(asked.clone(), 1)).await;
                    }
                }
            }
        }
        assert_eq!(recalled.len(), rows.iter().filter(|(_, sees)| !sees).count(), "{recalled:?}");
    }

    #[tokio::test]
    async fn what_may_be_another_moments_later_is_never_kept() {
        let cluster = Cluster::start().await;
        let rows = [
            ("rests on peers", deployment("churn-canary", "canary", 5)),
            (
                "a void override",
                with(
                    deployment("churn", "stable", 4),
                    "/metadata",
                    "annotations",
                    json!({"surefoot.dev/override": "x"}),
                ),
            ),
        ];
        for (what, object) in rows {
            for _ in 0..2 {
                assert!(!cluster.recall("/validate", &review("shop", &object)).await.1, "{what}");
            }
        }
        let scale = super::super::tests::scale("churn-canary", 1);
        for _ in 0..2 {
            assert!(!cluster.recall("/scale", &scale).await.1, "the Deployment may be another by now");
        }
    }

    #[test]
    fn each_circumstance_counts() {
        let load = |text: &str| {
            let config = Config::parse(&format!("apiVersion: surefoot.dev/v1\nkind: Config\n{text}"), "c").unwrap();
            Rules { set: PolicySet::load(PolicySet::built_in_sources(), &config).unwrap(), config }
        };
        let rules = load("");
        let json = |text: &str| Json::from_json_str(text).unwrap();
        let facts =
            Facts { guard: Some(Guard::Enforce), peers: Some(vec![json("{}")]), cached: true, ..Facts::default() };
        let now: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
        let base = circumstances(&rules, &facts, now);
        assert_eq!(base, circumstances(&rules, &facts.clone(), "2026-11-22T23:59:59Z".parse().unwrap()));
        let others = [
            Facts { guard: Some(Guard::Warn), ..facts.clone() },
            Facts { namespace: Some(json(r#"{"labels":{"a":"b"}}"#)), ..facts.clone() },
            Facts { namespace: Some(json(r#"{"annotations":{"a":"b"}}"#)), ..facts.clone() },
            Facts { peers: None, ..facts.clone() },
            Facts { peers: Some(vec![json(r#"{"spec":{"replicas":2}}"#)]), ..facts.clone() },
            Facts { history: Some(History::default()), ..facts.clone() },
            Facts { gaps: vec!["x".to_owned()], ..facts.clone() },
            Facts { cached: false, ..facts.clone() },
        ];
        let mut sums: Vec<Sum> = others.iter().map(|facts| circumstances(&rules, facts, now)).collect();
        sums.push(circumstances(&rules, &facts, "2026-11-23T00:00:00Z".parse().unwrap()));
        sums.push(circumstances(&load("policies: {images: {action: Warn}}"), &facts, now));
        sums.push(base);
        for (index, sum) in sums.iter().enumerate() {
            assert!(!sums[..index].contains(sum), "row {index} is as one before");
        }
    }

    #[test]
    fn a_failure_or_a_gap_does_not_last() {
        let object = Json::from_json_str(r#"{"metadata":{"annotations":{}}}"#).unwrap();
        let request = Request::create(object, "shop");
        let failure = Failure {
            policy: "p".into(),
            file: String::new(),
            line: 0,
            column: 0,
            message: String::new(),
            level: Level::Warn,
        };
        assert!(lasts(&request, &Facts::default(), &[]));
        assert!(!lasts(&request, &Facts::default(), &[failure]));
        assert!(!lasts(&request, &Facts { gaps: vec!["x".to_owned()], ..Facts::default() }, &[]));
    }

    #[test]
    fn memory_has_an_end() {
        let memory = Memory::default();
        let request = Request::create(Json::from_json_str("{}").unwrap(), "shop");
        let judged = |why: usize| Judged {
            request: request.head(),
            answer: Answer::allowed(&request),
            label: VerdictLabel::allowed,
            findings: Vec::new(),
            why: "x".repeat(why),
        };
        let question =
            |number: usize| Question { sum: Sha256::digest(number.to_be_bytes()).into(), uid: String::new() };
        let keep = |number, why| memory.keep(question(number), [0; 32], None, judged(why));
        let held = || {
            let inner = memory.inner();
            assert_eq!(inner.order.len(), inner.kept.len());
            assert_eq!(inner.bytes, inner.kept.values().map(|kept| kept.bytes).sum::<usize>());
            (inner.kept.len(), inner.bytes)
        };
        for number in 0..MOST + 100 {
            keep(number, 0);
        }
        assert_eq!(held().0, MOST);
        assert!(memory.find(&question(99)).is_none() && memory.find(&question(100)).is_some(), "the oldest went");
        for number in 0..2000 {
            keep(number % 1500, 20_000);
        }
        let (count, bytes) = held();
        assert!(bytes <= ROOM && count > 200, "{count} of {bytes} bytes");
        keep(0, LARGEST);
        assert_eq!(held(), (count, bytes), "one that is too large is not kept");
        for long in 0..3 {
            let (mut judged, text) = (judged(0), "x".repeat(LARGEST));
            let Request { user, name, namespace, .. } = &mut judged.request;
            *[user, name, namespace][long] = text;
            memory.keep(question(0), [0; 32], None, judged);
            assert_eq!(held(), (count, bytes), "nor one whose names are");
        }
        memory.forget();
        assert_eq!(held(), (0, 0));
    }
}
