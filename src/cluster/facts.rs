//! What the webhook knows of the cluster around one Deployment: [`Facts`], from watches or, where they do not know, live.
//!
//! ```text
//!   Namespaces with the guard label ──┐
//!   their Deployments, as small peers ┼─▶ cached() ──▶ Facts { cached: true }
//!   records of rollouts ──────────────┘
//!   API server, within a limit ──────────▶ live()   ──▶ Facts { cached: false }
//! ```
//!
//! Nothing here waits without a limit, and a read that fails is an answer too: [`Missed`].

use std::{collections::BTreeMap, time::Duration};

use futures::TryFutureExt;
use kube::{
    Api, Client, Resource,
    api::{GetParams, ListParams},
    core::ObjectMeta,
};
use serde::Deserialize;

use super::{
    client::Attempt,
    guarded::{Guarded, Namespace, Namespaces},
    records::{RecordError, RecordStore, Records, Stored},
    store::Store,
};
use crate::{
    admission::{Facts, History, LastGood, Quarantined, Unsettled},
    rollout::record::{Outcome, Record, Revert},
    template::{Json, keys},
};

/// How long a live read may take at most.
pub const LIVE: Duration = Duration::from_millis(500);

/// Which Deployment the facts are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name; empty where it has none yet (`generateName`).
    pub name: &'a str,
    /// Its label `surefoot.dev/model`.
    pub model: Option<&'a str>,
}

/// A live read did not come in time, or was refused. Says what was being read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missed(pub String);

/// The watches, and a client for what they do not know.
pub struct ClusterFacts {
    client: Client,
    own_namespace: String,
    namespaces: Namespaces,
    peers: Store<Option<Peer>>,
    records: RecordStore,
}

impl ClusterFacts {
    /// Registers the watches; the caller runs the [`Guarded`], and facts are complete once it is synced.
    pub fn new(client: Client, own_namespace: &str) -> (Self, Guarded) {
        let mut guarded = Guarded::new(client.clone(), own_namespace);
        let facts = Self {
            client,
            own_namespace: own_namespace.to_owned(),
            namespaces: guarded.namespaces(),
            peers: guarded.watch(Peer::of, |_| ()),
            records: RecordStore::watch(&mut guarded, own_namespace, |_| ()),
        };
        (facts, guarded)
    }

    /// What the watches know; `None`: they do not know this namespace, although the API server asked about it.
    pub fn cached(&self, about: About<'_>) -> Option<Facts> {
        if self.is_off_limits(about.namespace) {
            return Some(Facts::default());
        }
        let namespace = self.namespaces.get(about.namespace)?;
        if !self.peers.knows(about.namespace) {
            return None;
        }
        let peers = match about.model {
            Some(model) => self.peers.select(about.namespace, |kept| {
                kept.as_ref().is_some_and(|peer| peer.is_of(model) && *peer.name != *about.name)
            }),
            None => Vec::new(),
        };
        let peers = peers.iter().filter_map(|kept| kept.as_ref().as_ref()).map(|peer| peer.to_json(about.namespace));
        let record = self.records.get(about.namespace, about.name);
        let (history, gap) = history(record.as_deref());
        Some(Facts {
            guard: Some(namespace.guard),
            namespace: Some(seen(&namespace)),
            peers: Some(peers.collect()),
            history,
            isolation: None,
            gaps: gap.into_iter().collect(),
            cached: true,
        })
    }

    /// The same from the API server, within `limit`.
    pub async fn live(&self, about: About<'_>, limit: Duration) -> Result<Facts, Missed> {
        if self.is_off_limits(about.namespace) {
            return Ok(Facts::default());
        }
        let namespace = Namespace::read(&self.client, about.namespace, &self.own_namespace)
            .map_err(|error| Missed(Attempt::new("get", "namespaces").named(about.namespace).explain(&error)));
        let records = Records::new(self.client.clone(), &self.own_namespace);
        let record = async {
            match records.get(about.namespace, about.name).await {
                Err(RecordError::Cluster(sentence)) => Err(Missed(sentence)),
                Ok(record) => Ok(record.map(Ok)),
                Err(unreadable) => Ok(Some(Err(unreadable))),
            }
        };
        let all = async { Ok(tokio::join!(namespace, self.live_peers(about), record)) };
        let (namespace, peers, record) = within(limit, all).await?;
        // What cannot be read in a namespace that is not guarded is of no concern.
        let Some(namespace) = namespace? else { return Ok(Facts::default()) };
        let (peers, record) = (peers?, record?);
        let (history, gap) = history(record.as_ref());
        Ok(Facts {
            guard: Some(namespace.guard),
            namespace: Some(seen(&namespace)),
            peers: Some(peers),
            history,
            isolation: None,
            gaps: gap.into_iter().collect(),
            cached: false,
        })
    }

    /// The Deployment as it is stored, whole, read within `limit`; `None`: there is none.
    pub async fn deployment(&self, namespace: &str, name: &str, limit: Duration) -> Result<Option<Json>, Missed> {
        let attempt = Attempt::new("get", "deployments").within(namespace).named(name);
        let missed = |error: &kube::Error| Missed(attempt.explain(error));
        let path = WireDeployment::url_path(&(), Some(namespace));
        let request = kube::core::Request::new(path).get(name, &GetParams::default());
        let request = request.map_err(|error| missed(&kube::Error::BuildRequest(error)))?;
        let read = async {
            match self.client.request::<Json>(request).await {
                Ok(deployment) => Ok(Some(deployment)),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(missed(&error)),
            }
        };
        within(limit, read).await
    }

    /// Hooks never ask about these; should one be edited to, the answer is the same.
    fn is_off_limits(&self, namespace: &str) -> bool {
        namespace == "kube-system" || namespace == self.own_namespace
    }

    async fn live_peers(&self, about: About<'_>) -> Result<Vec<Json>, Missed> {
        let Some(model) = about.model else { return Ok(Vec::new()) };
        let wanted = ListParams::default().labels(&format!("{}={model}", keys::MODEL));
        let found = Api::<WireDeployment>::namespaced(self.client.clone(), about.namespace).list(&wanted).await;
        let found = found
            .map_err(|error| Missed(Attempt::new("list", "deployments").within(about.namespace).explain(&error)))?;
        let peers = found.items.into_iter().filter_map(Peer::of);
        Ok(peers.filter(|peer| *peer.name != *about.name).map(|peer| peer.to_json(about.namespace)).collect())
    }
}

async fn within<T>(limit: Duration, read: impl Future<Output = Result<T, Missed>>) -> Result<T, Missed> {
    match tokio::time::timeout(limit, read).await {
        Ok(done) => done,
        Err(_) => Err(Missed(format!("the API server did not answer within {} ms", limit.as_millis()))),
    }
}

/// `input.context.namespace`.
pub(super) fn seen(namespace: &Namespace) -> Json {
    let texts = |members: &BTreeMap<String, String>| strings(members.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    object([("labels", texts(&namespace.labels)), ("annotations", texts(&namespace.annotations))])
}

/// What is kept of a Deployment that names a model. There may be ten thousand: nothing has room to grow.
#[derive(Debug)]
struct Peer {
    name: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
    replicas: i32,
}

/// What is decoded of a Deployment.
#[derive(Clone, Debug, Deserialize)]
struct WireDeployment {
    #[serde(default, deserialize_with = "super::wire::metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WireSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct WireSpec {
    replicas: Option<i32>,
}

crate::wire_kind!(WireDeployment, "apps", "v1", "Deployment", "deployments");

impl Peer {
    /// `None`: it names no model, so it is nobody's peer.
    fn of(deployment: WireDeployment) -> Option<Self> {
        let labels = deployment.metadata.labels?;
        labels.get(keys::MODEL).filter(|model| !model.is_empty())?;
        let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into()));
        Some(Self {
            name: deployment.metadata.name?.into(),
            labels: labels.collect(),
            // A Deployment without replicas has one: the API server's default.
            replicas: deployment.spec.replicas.unwrap_or(1),
        })
    }

    fn is_of(&self, model: &str) -> bool {
        self.labels.iter().any(|(key, value)| **key == *keys::MODEL && **value == *model)
    }

    /// One entry of `input.context.peers`.
    fn to_json(&self, namespace: &str) -> Json {
        let metadata = object([
            ("name", Json::from(&*self.name)),
            ("namespace", Json::from(namespace)),
            ("labels", strings(self.labels.iter().map(|(key, value)| (&**key, &**value)))),
        ]);
        object([("metadata", metadata), ("spec", object([("replicas", Json::from(i64::from(self.replicas)))]))])
    }
}

pub(super) fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::from(members.into_iter().map(|(key, value)| (Json::from(key), value)).collect::<BTreeMap<_, _>>())
}

fn strings<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> Json {
    Json::from(members.map(|(key, value)| (Json::from(key), Json::from(value))).collect::<BTreeMap<_, _>>())
}

/// `None` where the record cannot be read, and why: what it says is then unknown, which is not the same as nothing.
pub(super) fn history(record: Option<&Result<Stored, RecordError>>) -> (Option<History>, Option<String>) {
    match record {
        None => (Some(History::default()), None),
        Some(Ok(stored)) => (Some(history_of(&stored.record)), None),
        Some(Err(error)) => {
            let gap = format!("what was reverted before is not known, so nothing is refused for it: {error}");
            (None, Some(gap))
        }
    }
}

/// What admission needs of a record.
fn history_of(record: &Record) -> History {
    let settled: Vec<_> = record.settled.iter().map(|settled| settled.digest.clone()).collect();
    let mut quarantine: Vec<Quarantined> = Vec::new();
    for revert in record.reverts.iter().filter(|revert| counts(revert)) {
        // Newest first: the newest entry of a template speaks for it. One that once settled is never quarantined.
        if !settled.contains(&revert.digest) && quarantine.iter().all(|known| known.digest != revert.digest) {
            quarantine.push(Quarantined {
                digest: revert.digest.clone(),
                version: revert.version.clone(),
                at: revert.at,
                until: revert.until,
                evidence: revert.sentence(),
            });
        }
    }
    let last_good = record.settled.first().map(|settled| LastGood {
        digest: settled.digest.clone(),
        version: settled.version.clone(),
        at: settled.at,
    });
    // The controller drops it once it has settled; a record that was read in between says so in one of two places.
    let rollout = record.current.as_ref().filter(|current| !settled.contains(&current.digest));
    let rollout = rollout.map(|current| Unsettled {
        digest: current.digest.clone(),
        version: current.version.clone(),
        since: current.since,
        failing: current.stall.is_some() || current.spent.as_ref().is_some_and(|spent| spent.failures > 0),
    });
    History { last_good, settled, quarantine, rollout }
}

/// An observed one changed nothing, so it refuses nothing.
fn counts(revert: &Revert) -> bool {
    revert.lifted.is_none() && revert.outcome != Outcome::Observed
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cluster::fake::{self, Answer, Asked},
        config::Guard,
    };

    const OWN: &str = "surefoot-system";

    fn about(namespace: &'static str, name: &'static str) -> About<'static> {
        About { namespace, name, model: Some("churn") }
    }

    fn deployment(name: &str, model: &str, replicas: i64) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop", "labels": {keys::MODEL: model}},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": []}}}})
    }

    fn namespace(guard: &str) -> Value {
        json!({"metadata": {"name": "shop", "labels": {keys::GUARD: guard}}})
    }

    fn record(reverts: &Value) -> Value {
        let record = json!({"version": 1, "namespace": "shop", "name": "churn", "uid": "u",
            "settled": [{"digest": "v1:aa", "version": "2.3.1", "at": "2026-11-22T10:00:00Z", "replicaSet": {"name": "r", "uid": "r"}}],
            "reverts": reverts});
        json!({"metadata": {"name": "record.shop.churn", "namespace": OWN}, "data": {"record.json": record.to_string()}})
    }

    fn revert(digest: &str, hour: u8, more: &Value) -> Value {
        let mut revert = json!({"digest": digest, "version": "2.4.0", "at": format!("2026-11-22T{hour:02}:00:00Z"),
            "outcome": "written", "class": "application",
            "evidence": {"failures": 12, "attempts": 30, "budget": 10, "since": "2026-11-22T14:21:07Z",
                "until": "2026-11-22T14:21:48Z", "container": "model", "signal": "readiness", "message": "HTTP 503"}});
        for (key, value) in more.as_object().unwrap() {
            revert[key] = value.clone();
        }
        revert
    }

    /// Answers lists and single reads; watches never say anything.
    fn client(guard: &'static str, stuck: bool) -> Client {
        let mut open = Vec::new();
        fake::client(move |Asked { line, .. }| match line.split('?').next().unwrap_or_default() {
            "GET /api/v1/namespaces" => fake::list(&[namespace(guard)]),
            "GET /api/v1/namespaces/shop" if stuck => {
                fake::refusal(403, "namespaces is forbidden: User \"x\" cannot get")
            }
            "GET /api/v1/namespaces/shop" => Answer::Json(200, namespace(guard)),
            "GET /apis/apps/v1/namespaces/shop/deployments" => fake::list(&[
                deployment("churn", "churn", 20),
                deployment("churn-canary", "churn", 1),
                deployment("ranker", "ranker", 7),
                json!({"metadata": {"name": "plain"}, "spec": {}}),
            ]),
            "GET /apis/apps/v1/namespaces/shop/deployments/churn" => {
                Answer::Json(200, deployment("churn", "churn", 20))
            }
            "GET /api/v1/namespaces/surefoot-system/configmaps" => {
                fake::list(&[record(&json!([revert("v1:bb", 14, &json!({}))]))])
            }
            "GET /api/v1/namespaces/surefoot-system/configmaps/record.shop.churn" => {
                Answer::Json(200, record(&json!([])))
            }
            watch if watch.starts_with("WATCH") => {
                let (sender, receiver) = mpsc::unbounded();
                open.push(sender);
                Answer::Watch(receiver)
            }
            _ => fake::refusal(404, "not found"),
        })
    }

    fn names(facts: &Facts) -> Vec<String> {
        let peers = facts.peers.as_deref().unwrap_or_default();
        let mut names: Vec<_> = peers
            .iter()
            .map(|peer| {
                format!(
                    "{}={}",
                    crate::template::json::str_at(peer, &["metadata", "name"]).unwrap(),
                    crate::template::json::int_at(peer, &["spec", "replicas"]).unwrap()
                )
            })
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn caches_know_the_guard_the_other_peers_and_the_record() {
        let (facts, guarded) = ClusterFacts::new(client("enforce", false), OWN);
        assert!(facts.cached(about("shop", "churn")).is_none(), "nothing is known before the first list");
        let mut synced = guarded.synced();
        tokio::select! {
            ended = guarded.run() => panic!("{ended:?}"),
            synced = synced.wait_for(|synced| *synced) => drop(synced.unwrap()),
        }
        let known = facts.cached(about("shop", "churn")).unwrap();
        assert_eq!(
            (known.guard, known.cached, names(&known)),
            (Some(Guard::Enforce), true, vec!["churn-canary=1".to_owned()])
        );
        let history = known.history.unwrap();
        assert_eq!(history.last_good.unwrap().version.as_deref(), Some("2.3.1"));
        assert_eq!(
            history.quarantine[0].evidence,
            "version 2.4.0 failed 12 of 30 probes in 41 s, the budget is 10: readiness of container \"model\", HTTP 503"
        );
        assert_eq!(names(&facts.cached(About { model: None, ..about("shop", "churn") }).unwrap()), [""; 0]);
        assert_eq!(facts.cached(about("shop", "new")).unwrap().history, Some(History::default()));
        assert!(facts.cached(about("elsewhere", "churn")).is_none());
        assert_eq!(facts.cached(about("kube-system", "churn")).unwrap().guard, None);
        assert_eq!(facts.cached(about(OWN, "churn")).unwrap().guard, None);
    }

    #[tokio::test]
    async fn live_reads_say_the_same_or_what_was_missed() {
        let (facts, _) = ClusterFacts::new(client("no-such-word", false), OWN);
        let live = facts.live(about("shop", "churn"), LIVE).await.unwrap();
        assert_eq!((live.guard, live.cached), (Some(Guard::Warn), false));
        // The label selector is the server's to apply, and this one does not.
        assert_eq!(names(&live), ["churn-canary=1", "ranker=7"]);
        assert_eq!(live.history.unwrap().quarantine, []);
        assert!(facts.deployment("shop", "churn", LIVE).await.unwrap().is_some());
        assert_eq!(facts.deployment("shop", "none", LIVE).await, Ok(None));

        let (facts, _) = ClusterFacts::new(client("enforce", true), OWN);
        let Missed(why) = facts.live(about("shop", "churn"), LIVE).await.unwrap_err();
        assert!(why.contains("no right to get namespaces"), "{why}");
    }

    #[test]
    fn which_reverts_are_a_quarantine_and_until_when() {
        let configuration = json!({"class": "configuration", "until": "2026-11-22T15:00:00Z"});
        let rows = [
            (
                "newest first",
                vec![revert("v1:bb", 14, &json!({})), revert("v1:bb", 13, &json!({}))],
                vec!["v1:bb 14 -"],
            ),
            ("lifted", vec![revert("v1:bb", 14, &json!({"lifted": "2026-11-22T15:00:00Z"}))], vec![]),
            ("observed", vec![revert("v1:bb", 14, &json!({"outcome": "observed"}))], vec![]),
            ("recorded counts", vec![revert("v1:bb", 14, &json!({"outcome": "recorded"}))], vec!["v1:bb 14 -"]),
            ("settled once", vec![revert("v1:aa", 14, &json!({}))], vec![]),
            ("an hour", vec![revert("v1:bb", 14, &configuration)], vec!["v1:bb 14 15"]),
        ];
        for (what, reverts, expected) in rows {
            let text = record(&Value::from(reverts))["data"]["record.json"].as_str().unwrap().to_owned();
            let history = history_of(&serde_json::from_str(&text).unwrap());
            let hour = |at: jiff::Timestamp| at.to_zoned(jiff::tz::TimeZone::UTC).hour();
            let found: Vec<_> = history
                .quarantine
                .iter()
                .map(|q| {
                    format!("{} {} {}", q.digest, hour(q.at), q.until.map_or("-".to_owned(), |at| hour(at).to_string()))
                })
                .collect();
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn a_rollout_under_watch_is_told_until_it_has_settled() {
        let current = |digest: &str, more: Value| {
            let mut current = json!({"digest": digest, "version": "2.4.0", "since": "2026-11-22T14:00:00Z"});
            current.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let mut text: Value =
                serde_json::from_str(record(&json!([]))["data"]["record.json"].as_str().unwrap()).unwrap();
            text["current"] = current;
            let found = history_of(&serde_json::from_value(text).unwrap());
            found.rollout.map(|rollout| (rollout.digest.to_string(), rollout.failing))
        };
        let evidence = |failures: u32| {
            json!({"failures": failures, "attempts": 30, "budget": 10, "since": "2026-11-22T14:21:07Z",
                "until": "2026-11-22T14:21:48Z", "container": "model", "signal": "readiness"})
        };
        let stalled = json!({"stall": {"reason": "Paused", "at": "2026-11-22T14:30:00Z", "evidence": evidence(12)}});
        assert_eq!(current("v1:bb", json!({})), Some(("v1:bb".to_owned(), false)));
        assert_eq!(current("v1:bb", json!({"spent": evidence(0)})), Some(("v1:bb".to_owned(), false)));
        assert_eq!(current("v1:bb", json!({"spent": evidence(1)})), Some(("v1:bb".to_owned(), true)));
        assert_eq!(current("v1:bb", stalled), Some(("v1:bb".to_owned(), true)));
        assert_eq!(current("v1:aa", json!({})), None, "it has settled");
    }
}
