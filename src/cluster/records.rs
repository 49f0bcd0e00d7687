//! Records in the cluster: one ConfigMap for each Deployment, in surefoot's own namespace.
//!
//! Only the controller writes. A write names the revision it was made from; a conflict means that somebody else wrote
//! meanwhile: read and decide again. A record that was edited, cut short or written by a newer surefoot is an error
//! that names its ConfigMap, and is left alone.

use std::{collections::BTreeMap, sync::Arc};

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    core::ObjectMeta,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    client::Attempt,
    guarded::Guarded,
    store::{Change, Store},
    watching::refusal,
};
use crate::{
    rollout::record::{Record, VERSION},
    template::{Json, json, keys},
};

/// Key of the JSON in a record's ConfigMap.
const KEY: &str = "record.json";

/// The longest name that Kubernetes takes.
const LONGEST: usize = 253;

/// The ConfigMap that holds the record of a Deployment. No two Deployments share one: a namespace has no dots in its
/// name, and the two forms differ in their first label.
pub fn name_of(namespace: &str, deployment: &str) -> String {
    let plain = format!("record.{namespace}.{deployment}");
    if plain.len() <= LONGEST {
        return plain;
    }
    let digest: String = Sha256::digest(deployment).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("record-sha256.{namespace}.{digest}")
}

/// What a record was when it was read: a write over it fails if it has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

/// A record and its revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What is written.
    pub record: Arc<Record>,
    /// Hand it to [`Records::write`].
    pub revision: Revision,
}

/// Namespace and name of a Deployment, and its record.
pub type Listed = (String, String, Result<Stored, RecordError>);

/// A record in a file, as `kubectl get configmap -o yaml` gives it. `None`: this object is no record.
pub fn in_file(object: &Json) -> Option<Listed> {
    json::str_at(object, &["metadata", "labels", keys::RECORD])?;
    let name = json::str_at(object, &["metadata", "name"]).unwrap_or_default().to_owned();
    let found = object.to_json_str().and_then(|text| Ok(serde_json::from_str::<WireRecord>(&text)?));
    Some(match found {
        Ok(found) => found.listed(),
        Err(error) => {
            let (config_map, reason) = (name, error.to_string());
            (String::new(), String::new(), Err(RecordError::Unreadable { config_map, reason }))
        }
    })
}

/// Why a record could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Edited or cut short. The Deployment is only observed until somebody deletes it.
    #[error(
        "the record in configmap {config_map} cannot be read: {reason}; to begin a new one (quarantine and history are \
         lost), delete it"
    )]
    Unreadable {
        /// Its name, in surefoot's namespace.
        config_map: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer surefoot. The Deployment is only observed.
    #[error(
        "the record in configmap {config_map} has version {version}, this surefoot knows up to {VERSION}: update it"
    )]
    Newer {
        /// Its name, in surefoot's namespace.
        config_map: String,
        /// Of the record.
        version: u64,
    },
    /// It has changed since it was read: read and decide again.
    #[error("the record in configmap {0} has changed meanwhile")]
    Conflict(String),
    /// The API server did not do it.
    #[error("{0}")]
    Cluster(String),
}

/// Reads and writes records.
#[derive(Clone)]
pub struct Records {
    client: Client,
    own_namespace: String,
}

impl Records {
    /// `own_namespace` is surefoot's.
    pub fn new(client: Client, own_namespace: &str) -> Self {
        Self { client, own_namespace: own_namespace.to_owned() }
    }

    /// The record of a Deployment, if there is one.
    pub async fn get(&self, namespace: &str, deployment: &str) -> Result<Option<Stored>, RecordError> {
        let found = self.api::<WireRecord>().get_opt(&name_of(namespace, deployment)).await;
        found.map_err(|error| self.failed("get", &error))?.map(WireRecord::decode).transpose()
    }

    /// The record as it changes. Errors that may pass are tried again in silence.
    pub fn follow(
        &self,
        namespace: &str,
        deployment: &str,
    ) -> impl Stream<Item = Result<Option<Stored>, RecordError>> + use<> {
        let attempt = self.attempt("list and watch");
        watch_object(self.api::<WireRecord>(), &name_of(namespace, deployment)).default_backoff().filter_map(
            move |found| {
                future::ready(match found {
                    Ok(found) => Some(found.map(WireRecord::decode).transpose()),
                    Err(error) => refusal(&attempt, &error).map(|sentence| Err(home(&sentence))),
                })
            },
        )
    }

    /// Every record, or those of one namespace, with namespace and name of their Deployments; those that cannot be
    /// read among them.
    pub async fn list(&self, namespace: Option<&str>) -> Result<Vec<Listed>, RecordError> {
        let mut selector = SELECTOR.to_owned();
        if let Some(namespace) = namespace {
            selector = format!("{selector},{}={namespace}", keys::RECORD_NAMESPACE);
        }
        let found = self.api::<WireRecord>().list(&ListParams::default().labels(&selector)).await;
        let found = found.map_err(|error| self.failed("list", &error))?;
        Ok(found.items.into_iter().map(WireRecord::listed).collect())
    }

    /// Writes over the record that was read as `over`, or a new one.
    pub async fn write(&self, record: &Record, over: Option<&Revision>) -> Result<Revision, RecordError> {
        let object = encode(record, over)?;
        let name = name_of(&record.namespace, &record.name);
        let params = PostParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let api = self.api::<ConfigMap>();
        let written = match over {
            Some(_) => api.replace(&name, &params, &object).await,
            None => api.create(&params, &object).await,
        };
        match written {
            Ok(written) => Ok(Revision(written.metadata.resource_version.unwrap_or_default())),
            Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && over.is_some()) => {
                Err(RecordError::Conflict(name))
            }
            Err(error) => Err(self.failed(if over.is_some() { "update" } else { "create" }, &error)),
        }
    }

    fn api<K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.own_namespace)
    }

    fn attempt(&self, verb: &'static str) -> Attempt {
        Attempt::new(verb, "configmaps").within(&self.own_namespace)
    }

    fn failed(&self, verb: &'static str, error: &kube::Error) -> RecordError {
        home(&self.attempt(verb).explain(error))
    }
}

fn home(sentence: &str) -> RecordError {
    RecordError::Cluster(format!("{sentence} (surefoot keeps its records there)"))
}

/// The records as they were last seen. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct RecordStore {
    store: Store<Result<Stored, RecordError>>,
    own_namespace: Arc<str>,
}

impl RecordStore {
    /// Watches all records together with what else `guarded` watches. `changed` is told of each change; it must not
    /// block.
    pub fn watch(
        guarded: &mut Guarded,
        own_namespace: &str,
        changed: impl Fn(Change<'_, Result<Stored, RecordError>>) + Send + Sync + 'static,
    ) -> Self {
        let store = guarded.watch_in(own_namespace, SELECTOR, WireRecord::decode, changed);
        Self { store, own_namespace: own_namespace.into() }
    }

    /// The record of a Deployment, if there is one.
    pub fn get(&self, namespace: &str, deployment: &str) -> Option<Arc<Result<Stored, RecordError>>> {
        self.store.get(&self.own_namespace, &name_of(namespace, deployment))
    }
}

/// Finds every record.
const SELECTOR: &str = "surefoot.dev/record=true";

/// A record's ConfigMap as it is read.
#[derive(Clone, Debug, Deserialize)]
struct WireRecord {
    #[serde(default, deserialize_with = "super::wire::metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

crate::wire_kind!(WireRecord, "", "v1", "ConfigMap", "configmaps");

impl WireRecord {
    /// A record that cannot be read still has the annotation that names its Deployment, most likely.
    fn listed(self) -> Listed {
        let of = self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(keys::RECORD_OF));
        let (namespace, name) = of.and_then(|of| of.split_once('/')).unwrap_or_default();
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match self.decode() {
            Ok(stored) => (stored.record.namespace.clone(), stored.record.name.clone(), Ok(stored)),
            Err(error) => (namespace, name, Err(error)),
        }
    }

    fn decode(self) -> Result<Stored, RecordError> {
        let config_map = self.metadata.name.unwrap_or_default();
        let unreadable = |reason: String| RecordError::Unreadable { config_map: config_map.clone(), reason };
        let text = self.data.get(KEY).ok_or_else(|| unreadable(format!("it has no {KEY}")))?;
        let form: Form = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if form.version > u64::from(VERSION) {
            return Err(RecordError::Newer { config_map, version: form.version });
        }
        let mut record: Record = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        // There is one for each Deployment, and most have a single entry in room for four.
        record.settled.shrink_to_fit();
        if name_of(&record.namespace, &record.name) != config_map {
            return Err(unreadable(format!("it is about {}/{}", record.namespace, record.name)));
        }
        Ok(Stored { record: Arc::new(record), revision: Revision(self.metadata.resource_version.unwrap_or_default()) })
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Form {
    version: u64,
}

fn encode(record: &Record, over: Option<&Revision>) -> Result<ConfigMap, RecordError> {
    let name = name_of(&record.namespace, &record.name);
    let text = serde_json::to_string_pretty(record)
        .map_err(|error| RecordError::Unreadable { config_map: name.clone(), reason: error.to_string() })?;
    let labels = [(keys::RECORD, "true"), (keys::RECORD_NAMESPACE, &record.namespace)];
    let of = format!("{}/{}", record.namespace, record.name);
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name),
            resource_version: over.map(|revision| revision.0.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some([(keys::RECORD_OF.to_owned(), of)].into()),
            ..ObjectMeta::default()
        },
        data: Some([(KEY.to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::{self, Answer};

    fn record() -> Record {
        let evidence = json!({"failures": 12, "attempts": 30, "budget": 10, "container": "model", "signal": "readiness",
            "since": "2026-11-22T14:21:07Z", "until": "2026-11-22T14:21:48Z", "message": "HTTP 503"});
        serde_json::from_value(json!({"version": 1, "namespace": "shop", "name": "churn", "uid": "u-1",
            "settled": [{"digest": "v1:aa", "version": "2.3.1", "at": "2026-11-22T10:00:00Z",
                "replicaSet": {"name": "churn-5b", "uid": "rs-1"}}],
            "reverts": [{"digest": "v1:bb", "version": "2.4.0", "at": "2026-11-22T14:21:48Z", "outcome": "written",
                "class": "application", "evidence": evidence}]}))
        .unwrap()
    }

    #[test]
    fn names_fit_and_never_meet() {
        let (namespace, long) = ("n".repeat(63), "d".repeat(253));
        assert_eq!(name_of("shop", "churn"), "record.shop.churn");
        let rows = [
            name_of("shop", "churn"),
            name_of("shop", "a.b"),
            name_of("shop-a", "b"),
            name_of(&namespace, &long),
            name_of(&namespace, &format!("{}e", "d".repeat(252))),
            name_of("shop", &name_of("shop", &long)),
            name_of("shop", &long),
        ];
        assert!(rows.iter().all(|name| name.len() <= LONGEST), "{rows:?}");
        assert_eq!(rows.iter().collect::<std::collections::BTreeSet<_>>().len(), rows.len(), "{rows:?}");
    }

    /// One ConfigMap, as the API server keeps it.
    fn server() -> (Client, Arc<Mutex<Option<Value>>>) {
        let kept: Arc<Mutex<Option<Value>>> = Arc::default();
        let mut revisions = 0;
        let there = Arc::clone(&kept);
        let client = fake::client(move |asked| {
            let mut kept = there.lock().unwrap();
            revisions += 1;
            let path = "/api/v1/namespaces/surefoot-system/configmaps";
            match asked.line.split('?').next().unwrap().strip_suffix("/record.shop.churn").unwrap_or(&asked.line) {
                get if get == format!("GET {path}") => match &*kept {
                    Some(object) => Answer::Json(200, object.clone()),
                    None => fake::refusal(404, "not found"),
                },
                put if put == format!("PUT {path}") => {
                    let given = asked.body["metadata"]["resourceVersion"].clone();
                    match &mut *kept {
                        Some(object) if object["metadata"]["resourceVersion"] == given => {
                            *object = asked.body;
                            object["metadata"]["resourceVersion"] = revisions.to_string().into();
                            Answer::Json(200, object.clone())
                        }
                        Some(_) => fake::refusal(409, "conflict"),
                        None => fake::refusal(404, "not found"),
                    }
                }
                post if post.starts_with(&format!("POST {path}")) => match &*kept {
                    Some(_) => fake::refusal(409, "already exists"),
                    None => {
                        let mut object = asked.body;
                        object["metadata"]["resourceVersion"] = revisions.to_string().into();
                        *kept = Some(object.clone());
                        Answer::Json(201, object)
                    }
                },
                other => panic!("{other}"),
            }
        });
        (client, kept)
    }

    #[tokio::test]
    async fn a_write_over_what_has_changed_is_a_conflict() {
        let (client, kept) = server();
        let records = Records::new(client, "surefoot-system");
        let conflict = Err(RecordError::Conflict("record.shop.churn".into()));
        assert_eq!(records.get("shop", "churn").await, Ok(None));
        let first = records.write(&record(), None).await.unwrap();
        assert_eq!(records.write(&record(), None).await, conflict);
        let stored = records.get("shop", "churn").await.unwrap().unwrap();
        assert_eq!((&*stored.record, &stored.revision), (&record(), &first));
        let second = records.write(&record(), Some(&first)).await.unwrap();
        assert_eq!(records.write(&record(), Some(&first)).await, conflict);
        let labels = kept.lock().unwrap().as_ref().unwrap()["metadata"]["labels"].clone();
        assert_eq!(labels, json!({"surefoot.dev/record": "true", "surefoot.dev/record-namespace": "shop"}));
        *kept.lock().unwrap() = None;
        assert_eq!(records.write(&record(), Some(&second)).await, conflict, "deleted meanwhile");
    }

    #[test]
    fn what_is_no_record_is_an_error_that_names_it() {
        let good = serde_json::to_string(&record()).unwrap();
        let rows = [
            (json!({}), "it has no record.json"),
            (json!({"record.json": &good[..good.len() / 2]}), "EOF while parsing"),
            (json!({"record.json": "[]"}), "cannot be read"),
            (json!({"record.json": good.replace("\"churn\"", "\"other\"")}), "it is about shop/other"),
            (json!({"record.json": r#"{"version": 99, "anything": "else"}"#}), "has version 99"),
            (json!({"record.json": good.replace("2026-11-22T14:21:48Z", "yesterday")}), "year"),
        ];
        for (data, want) in rows {
            let object = json!({"metadata": {"name": "record.shop.churn"}, "data": data});
            let decoded = serde_json::from_value::<WireRecord>(object).unwrap().decode();
            let error = decoded.unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("record.shop.churn"), "{error}");
        }
    }
}
