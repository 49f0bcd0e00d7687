//! Watches of the namespaces that carry the guard label, and of what the caller wants to see in them.
//!
//! ```text
//!   Namespaces with surefoot.dev/guard ──▶ come: begin the watches of this namespace
//!                                          go, lose the label: end them, forget what they saw
//!   each watch ── keep(K) -> T ──▶ Store<T> ──▶ changed(Change)
//! ```
//!
//! Everything runs inside the one future of [`Guarded::run`]: no task is spawned, dropping it ends every watch, and it
//! ends with an error should one watch end. Nothing is watched in `kube-system` or surefoot's own namespace, whatever
//! their labels, and no namespace without the label is looked into.
//!
//! ```no_run
//! # use surefoot::cluster::{Guarded, Store, guarded::Ended};
//! # use k8s_openapi::api::apps::v1::Deployment;
//! # async fn example(client: kube::Client) -> Result<(), Ended> {
//! let mut guarded = Guarded::new(client, "surefoot-system");
//! let replicas: Store<i32> = guarded.watch(
//!     |deployment: Deployment| deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1),
//!     |change| println!("{}/{} changed", change.namespace, change.name),
//! );
//! let mut synced = guarded.synced();
//! tokio::select! {
//!     ended = guarded.run() => ended.map(|never| match never {}),
//!     _ = synced.wait_for(|synced| *synced) => Ok(println!("{:?}", replicas.get("shop", "churn"))),
//! }
//! # }
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    fmt,
    sync::Arc,
};

use futures::{
    StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use kube::{
    Api, Client, Resource,
    core::{ClusterResourceScope, NamespaceResourceScope, ObjectMeta},
    runtime::watcher::Event,
};
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    store::{Change, OnChange, Store},
    watching::{ClusterKind, Kind, Shared, Stream, Watched},
};
use crate::{
    config::{Guard, UnknownGuard},
    template::keys,
};

/// A guarded namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// metadata.name
    pub name: String,
    /// How far surefoot goes in it.
    pub guard: Guard,
    /// The label's value is none of the three; `guard` is then `warn`.
    pub unknown: Option<UnknownGuard>,
    /// metadata.labels
    pub labels: BTreeMap<String, String>,
    /// metadata.annotations, without what client-side apply writes.
    pub annotations: BTreeMap<String, String>,
}

impl Namespace {
    /// `None`: it is not guarded, by its labels or because surefoot keeps its hands off it.
    pub fn of(meta: ObjectMeta, own_namespace: &str) -> Option<Self> {
        let name = meta.name.unwrap_or_default();
        let labels = meta.labels.unwrap_or_default();
        if name == "kube-system" || name == own_namespace {
            return None;
        }
        let (guard, unknown) = match labels.get(keys::GUARD)?.parse() {
            Ok(guard) => (guard, None),
            Err(unknown) => (Guard::Warn, Some(unknown)),
        };
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.remove(keys::LAST_APPLIED);
        Some(Self { name, guard, unknown, labels, annotations })
    }

    /// Reads one from the API server. `Ok(None)`: not guarded; one that does not exist is an error (404).
    pub async fn read(client: &Client, name: &str, own_namespace: &str) -> kube::Result<Option<Self>> {
        let found = Api::<WireNamespace>::all(client.clone()).get(name).await?;
        Ok(Self::of(found.metadata, own_namespace))
    }

    /// All guarded namespaces, from the API server.
    pub async fn list(client: &Client, own_namespace: &str) -> kube::Result<Vec<Self>> {
        let wanted = kube::api::ListParams::default().labels(keys::GUARD);
        let found = Api::<WireNamespace>::all(client.clone()).list(&wanted).await?;
        Ok(found.items.into_iter().filter_map(|found| Self::of(found.metadata, own_namespace)).collect())
    }
}

/// A namespace as it is read.
#[derive(Clone, Debug, Deserialize)]
struct WireNamespace {
    #[serde(default, deserialize_with = "super::wire::metadata")]
    metadata: ObjectMeta,
}

crate::wire_kind!(WireNamespace, "", "v1", "Namespace", "namespaces", ClusterResourceScope);

/// The guarded namespaces as they were last seen. A clone is another handle on the same.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Store<Namespace>);

impl Namespaces {
    /// The namespace, if it is guarded.
    pub fn get(&self, name: &str) -> Option<Arc<Namespace>> {
        self.0.get(Self::ALL, name)
    }

    /// The first list is complete: a namespace that is not here was not guarded a moment ago.
    pub fn complete(&self) -> bool {
        self.0.knows(Self::ALL)
    }

    /// Every guarded namespace, in no order.
    pub fn all(&self) -> Vec<Arc<Namespace>> {
        self.0.select(Self::ALL, |_| true)
    }

    /// Namespaces are in none themselves.
    const ALL: &str = "";
}

/// What will be watched; [`Guarded::run`] does it.
pub struct Guarded {
    client: Client,
    own_namespace: String,
    namespaces: Namespaces,
    namespace_changed: OnChange<Namespace>,
    kinds: Vec<Box<dyn Watched>>,
    fixed: Vec<(String, Box<dyn Watched>)>,
    only_fixed: bool,
    synced: watch::Sender<bool>,
    restarts: Counter,
}

/// [`Guarded::run`] ended, which it does only when a watch does: the process cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch of {0} ended")]
pub struct Ended(pub(super) String);

impl Guarded {
    /// Nothing is sent before [`Guarded::run`].
    pub fn new(client: Client, own_namespace: &str) -> Self {
        Self {
            client,
            own_namespace: own_namespace.to_owned(),
            namespaces: Namespaces::default(),
            namespace_changed: Arc::new(|_| ()),
            kinds: Vec::new(),
            fixed: Vec::new(),
            only_fixed: false,
            synced: watch::Sender::new(false),
            restarts: Counter::default(),
        }
    }

    /// Counts in `restarts` how often a watch breaks and is begun again.
    pub fn count_restarts(&mut self, restarts: Counter) {
        self.restarts = restarts;
    }

    /// Watches nothing but what [`Guarded::watch_in`] names, so that it takes no right to see namespaces.
    #[must_use]
    pub fn without_namespaces(mut self) -> Self {
        self.only_fixed = true;
        self
    }

    /// Watches all objects of kind `K` in guarded namespaces. `keep` makes them small; `changed` is called after the
    /// store has changed, on the task that runs the watches: it must not block.
    pub fn watch<K, T>(
        &mut self,
        keep: impl Fn(K) -> T + Send + Sync + 'static,
        changed: impl Fn(Change<'_, T>) + Send + Sync + 'static,
    ) -> Store<T>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + fmt::Debug + Send + 'static,
        T: Send + Sync + 'static,
    {
        let store = Store::default();
        self.kinds.push(Box::new(Kind::new(store.clone(), None, keep, changed)));
        store
    }

    /// Watches objects of kind `K` in one namespace, whether it is guarded or not; `labels` is a label selector.
    pub fn watch_in<K, T>(
        &mut self,
        namespace: &str,
        labels: &str,
        keep: impl Fn(K) -> T + Send + Sync + 'static,
        changed: impl Fn(Change<'_, T>) + Send + Sync + 'static,
    ) -> Store<T>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + fmt::Debug + Send + 'static,
        T: Send + Sync + 'static,
    {
        let store = Store::default();
        let kind = Kind::new(store.clone(), Some(labels.to_owned()), keep, changed);
        self.fixed.push((namespace.to_owned(), Box::new(kind)));
        store
    }

    /// Watches all objects of a kind that is in no namespace; in the store, and in changes, their namespace is empty.
    pub fn watch_cluster<K, T>(
        &mut self,
        keep: impl Fn(K) -> T + Send + Sync + 'static,
        changed: impl Fn(Change<'_, T>) + Send + Sync + 'static,
    ) -> Store<T>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
        K: Clone + DeserializeOwned + fmt::Debug + Send + 'static,
        T: Send + Sync + 'static,
    {
        let store = Store::default();
        self.fixed.push((String::new(), Box::new(ClusterKind::new(store.clone(), keep, changed))));
        store
    }

    /// Called when a guarded namespace comes, goes, or changes its labels or annotations. Must not block.
    pub fn on_namespace(&mut self, changed: impl Fn(Change<'_, Namespace>) + Send + Sync + 'static) {
        self.namespace_changed = Arc::new(changed);
    }

    /// The guarded namespaces.
    pub fn namespaces(&self) -> Namespaces {
        self.namespaces.clone()
    }

    /// Turns true once, when everything that was there at the start has been listed, and stays true.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Watches until it is dropped.
    pub async fn run(self) -> Result<Infallible, Ended> {
        let shared = Shared { restarts: self.restarts.clone(), ..Shared::default() };
        let mut events = Stream::new(Api::<WireNamespace>::all(self.client.clone()), Some(keys::GUARD), None, &shared);
        let mut run = Running { guarded: self, shared, watches: FuturesUnordered::new(), handles: HashMap::new() };
        run.guarded.namespaces.0.begin(Namespaces::ALL);
        for (namespace, kind) in &run.guarded.fixed {
            let (watch, _) = endable(kind.begin(&run.guarded.client, namespace, &run.shared));
            run.watches.push(watch);
        }
        if run.guarded.only_fixed {
            run.guarded.namespaces.0.complete(Namespaces::ALL);
        }
        let mut relisted = None;
        loop {
            let listed = Arc::clone(&run.shared.listed);
            tokio::select! {
                event = events.next(), if !run.guarded.only_fixed => match event {
                    Some(event) => run.take(event, &mut relisted),
                    None => return Err(Ended("namespaces".to_owned())),
                },
                Some(ended) = run.watches.next() => if let Ok(what) = ended {
                    return Err(Ended(what));
                },
                () = listed.notified() => {}
            }
            run.tell_synced();
        }
    }
}

/// Everything that [`Guarded::run`] holds while it runs.
struct Running {
    guarded: Guarded,
    shared: Shared,
    /// One for each guarded namespace and kind, and the fixed ones. They resolve to what they watched.
    watches: FuturesUnordered<Abortable<BoxFuture<'static, String>>>,
    /// By namespace.
    handles: HashMap<String, Vec<AbortHandle>>,
}

impl Running {
    /// `relisted` holds the names seen while a list is coming in.
    fn take(&mut self, event: Event<WireNamespace>, relisted: &mut Option<BTreeSet<String>>) {
        match event {
            Event::Init => *relisted = Some(BTreeSet::new()),
            Event::InitApply(found) => {
                if let Some(seen) = relisted {
                    seen.extend(found.metadata.name.clone());
                }
                self.found(found);
            }
            Event::InitDone => {
                let seen = relisted.take().unwrap_or_default();
                let known = self.guarded.namespaces.all();
                for namespace in known.iter().filter(|known| !seen.contains(&known.name)) {
                    self.lost(&namespace.name);
                }
                self.guarded.namespaces.0.complete(Namespaces::ALL);
            }
            Event::Apply(found) => self.found(found),
            Event::Delete(found) => self.lost(&found.metadata.name.unwrap_or_default()),
        }
    }

    fn found(&mut self, found: WireNamespace) {
        let Some(namespace) = Namespace::of(found.metadata, &self.guarded.own_namespace).map(Arc::new) else {
            return;
        };
        let before = self.guarded.namespaces.0.insert(Namespaces::ALL, &namespace.name, Arc::clone(&namespace));
        if before.as_ref() == Some(&namespace) {
            return;
        }
        if let Some(unknown) = &namespace.unknown {
            warn!(namespace = namespace.name, "{unknown}");
        }
        if before.is_none() {
            info!(namespace = namespace.name, guard = %namespace.guard, "watching");
            self.begin(&namespace.name);
        }
        self.tell(&namespace.name, before.as_deref(), Some(&namespace));
    }

    fn begin(&mut self, namespace: &str) {
        let handles = self.handles.entry(namespace.to_owned()).or_default();
        for kind in &self.guarded.kinds {
            let (watch, handle) = endable(kind.begin(&self.guarded.client, namespace, &self.shared));
            self.watches.push(watch);
            handles.push(handle);
        }
    }

    fn lost(&mut self, name: &str) {
        let Some(before) = self.guarded.namespaces.0.remove(Namespaces::ALL, name) else { return };
        info!(namespace = name, "no longer watching");
        // The watches run on this very task, so none of them can write to a store between this and the next line.
        self.handles.remove(name).into_iter().flatten().for_each(|handle| handle.abort());
        self.guarded.kinds.iter().for_each(|kind| kind.end(name));
        self.tell(name, Some(&before), None);
    }

    fn tell(&self, name: &str, before: Option<&Namespace>, after: Option<&Namespace>) {
        (self.guarded.namespace_changed)(Change { namespace: name, name, before, after });
    }

    fn tell_synced(&self) {
        if *self.guarded.synced.borrow() || !self.guarded.namespaces.complete() {
            return;
        }
        let fixed = self.guarded.fixed.iter().all(|(namespace, kind)| kind.knows(namespace));
        let all = self.guarded.namespaces.all();
        if fixed && all.iter().all(|namespace| self.guarded.kinds.iter().all(|kind| kind.knows(&namespace.name))) {
            info!(namespaces = all.len(), "caches are filled");
            self.guarded.synced.send_replace(true);
        }
    }
}

fn endable<T>(watch: BoxFuture<'static, T>) -> (Abortable<BoxFuture<'static, T>>, AbortHandle) {
    let (handle, registration) = AbortHandle::new_pair();
    (Abortable::new(watch, registration), handle)
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use futures::channel::mpsc;
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::{self, Answer};

    fn namespace(name: &str, guard: &str) -> Value {
        json!({"metadata": {"name": name, "resourceVersion": "8", "labels": {"surefoot.dev/guard": guard}}})
    }

    fn deployment(name: &str, replicas: i32) -> Value {
        json!({"metadata": {"name": name, "resourceVersion": "8"},
            "spec": {"replicas": replicas, "selector": {}, "template": {}}})
    }

    /// The cluster of a test: lists by path, and the open watches by path.
    #[derive(Default)]
    struct Cluster {
        lists: HashMap<&'static str, Vec<Value>>,
        watches: HashMap<String, mpsc::UnboundedSender<Value>>,
        asked: Vec<String>,
    }

    impl Cluster {
        fn client(this: &Arc<Mutex<Self>>) -> Client {
            let this = Arc::clone(this);
            fake::client(move |asked| {
                let mut cluster = this.lock().unwrap();
                let (method, rest) = asked.line.split_once(' ').unwrap();
                let path = rest.split('?').next().unwrap();
                cluster.asked.push(asked.line.clone());
                if method == "WATCH" {
                    let (sender, events) = mpsc::unbounded();
                    cluster.watches.insert(path.to_owned(), sender);
                    return Answer::Watch(events);
                }
                match cluster.lists.get(path) {
                    Some(items) => fake::list(items),
                    None => fake::refusal(403, "no"),
                }
            })
        }

        /// Waits for the watch to be open.
        async fn send(this: &Arc<Mutex<Self>>, path: &str, kind: &str, object: Value) {
            let event = json!({"type": kind, "object": object});
            loop {
                let watch = this.lock().unwrap().watches.get(path).filter(|watch| !watch.is_closed()).cloned();
                match watch {
                    Some(watch) => return watch.unbounded_send(event).unwrap(),
                    None => tokio::task::yield_now().await,
                }
            }
        }
    }

    const NAMESPACES: &str = "/api/v1/namespaces";
    const SHOP: &str = "/apis/apps/v1/namespaces/shop/deployments";
    const RISK: &str = "/apis/apps/v1/namespaces/risk/deployments";

    #[tokio::test(start_paused = true)]
    async fn watches_come_and_go_with_the_label() {
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        cluster.lock().unwrap().lists = HashMap::from([
            (
                NAMESPACES,
                vec![namespace("shop", "enforce"), namespace("kube-system", "enforce"), namespace("own", "warn")],
            ),
            (SHOP, vec![deployment("churn", 4)]),
            (RISK, vec![deployment("fraud", 2)]),
        ]);
        let mut guarded = Guarded::new(Cluster::client(&cluster), "own");
        let (changes, mut changed) = mpsc::unbounded();
        let store = guarded.watch(
            |found: Deployment| found.spec.and_then(|spec| spec.replicas).unwrap_or(1),
            move |change| {
                let said = format!("{}/{} {:?} {:?}", change.namespace, change.name, change.before, change.after);
                changes.unbounded_send(said).unwrap();
            },
        );
        let (namespaces, mut synced) = (guarded.namespaces(), guarded.synced());
        let script = async {
            synced.wait_for(|synced| *synced).await.unwrap();
            assert_eq!(store.get("shop", "churn").as_deref(), Some(&4));
            assert!(store.knows("shop") && !store.knows("risk"));
            assert_eq!(namespaces.all().len(), 1, "kube-system and surefoot's own namespace are left alone");
            assert_eq!(changed.next().await.unwrap(), "shop/churn None Some(4)");

            Cluster::send(&cluster, SHOP, "MODIFIED", deployment("churn", 5)).await;
            assert_eq!(changed.next().await.unwrap(), "shop/churn Some(4) Some(5)");
            Cluster::send(&cluster, SHOP, "ADDED", deployment("etl", 1)).await;
            assert_eq!(changed.next().await.unwrap(), "shop/etl None Some(1)");
            Cluster::send(&cluster, SHOP, "DELETED", deployment("etl", 1)).await;
            assert_eq!(changed.next().await.unwrap(), "shop/etl Some(1) None");

            Cluster::send(&cluster, NAMESPACES, "ADDED", namespace("risk", "Enforce")).await;
            assert_eq!(changed.next().await.unwrap(), "risk/fraud None Some(2)");
            let risk = namespaces.get("risk").unwrap();
            assert_eq!((risk.guard, risk.unknown.is_some()), (Guard::Warn, true));

            // What went while the watch was broken off is gone after the new list.
            cluster.lock().unwrap().lists.insert(RISK, vec![deployment("ranker", 3)]);
            let gone = serde_json::to_value(kube::core::Status::failure("too old", "Expired").with_code(410)).unwrap();
            Cluster::send(&cluster, RISK, "ERROR", gone).await;
            assert_eq!(changed.next().await.unwrap(), "risk/ranker None Some(3)");
            assert_eq!(changed.next().await.unwrap(), "risk/fraud Some(2) None");

            Cluster::send(&cluster, NAMESPACES, "DELETED", namespace("shop", "enforce")).await;
            assert_eq!(changed.next().await.unwrap(), "shop/churn Some(5) None");
            assert!(!store.knows("shop") && store.get("shop", "churn").is_none() && namespaces.get("shop").is_none());
            let shop = cluster.lock().unwrap().watches[SHOP].clone();
            assert!(shop.is_closed(), "the watch of a namespace that lost the label is ended");
            Cluster::send(&cluster, NAMESPACES, "ADDED", namespace("shop", "audit")).await;
            assert_eq!(changed.next().await.unwrap(), "shop/churn None Some(4)");
        };
        tokio::select! {
            ended = guarded.run() => panic!("{ended:?}"),
            () = script => {}
        }
        let asked = cluster.lock().unwrap().asked.join("\n");
        assert!(asked.contains("labelSelector=surefoot.dev%2Fguard"), "{asked}");
        assert!(!asked.contains("kube-system") && !asked.contains("/own/"), "{asked}");
        assert!(cluster.lock().unwrap().watches.values().all(mpsc::UnboundedSender::is_closed), "dropping ends all");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_listed_keeps_it_from_being_synced() {
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        cluster.lock().unwrap().lists.insert(NAMESPACES, vec![namespace("shop", "enforce")]);
        let mut guarded = Guarded::new(Cluster::client(&cluster), "own");
        let store = guarded.watch(|_: Deployment| (), |_| ());
        let mut synced = guarded.synced();
        let script = async {
            let waited = tokio::time::timeout(Duration::from_secs(60), synced.wait_for(|synced| *synced)).await.is_ok();
            assert!(!waited && !store.knows("shop"));
            cluster.lock().unwrap().lists.insert(SHOP, Vec::new());
            synced.wait_for(|synced| *synced).await.unwrap();
            assert!(store.knows("shop"));
        };
        tokio::select! {
            ended = guarded.run() => panic!("{ended:?}"),
            () = script => {}
        }
    }
}
