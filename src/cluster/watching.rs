//! One watch: list, events, errors that last, and what they do to a store.

use std::{collections::HashMap, error::Error as _, fmt, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use kube::{
    Api, Client, Resource,
    core::{ClusterResourceScope, NamespaceResourceScope},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use prometheus_client::metrics::counter::Counter;
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, time::Instant};
use tracing::debug;

use super::{
    client::{Attempt, WATCH_SECONDS},
    store::{Change, OnChange, Store},
    trouble::{Trouble, Troubles},
};

/// Longer than the longest pause between two tries: an error that has not come again in this time is over.
const QUIET: Duration = Duration::from_secs(45);

/// Objects of one answer of the first list. It is decoded whole: 100 Deployments of 10 KB are 1 MB, and little is kept.
const PAGE: u32 = 100;

/// What all watches use.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub(super) troubles: Troubles,
    /// Woken when a watch has completed a list.
    pub(super) listed: Arc<Notify>,
    /// How often a watch broke and was begun again.
    pub(super) restarts: Counter,
}

/// The events of one watch; its errors are logged here, and it tries again.
pub(super) struct Stream<K> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    attempt: Attempt,
    trouble: Trouble,
    quiet: Instant,
    restarts: Counter,
}

impl<K> Stream<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    /// `labels` is a label selector; `namespace` is for the sentence about an error.
    pub(super) fn new(api: Api<K>, labels: Option<&str>, namespace: Option<&str>, shared: &Shared) -> Self {
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        config.label_selector = labels.map(str::to_owned);
        let mut attempt = Attempt::new("list and watch", &K::plural(&()));
        if let Some(namespace) = namespace {
            attempt = attempt.within(namespace);
        }
        Self {
            events: watcher(api, config).default_backoff().boxed(),
            attempt,
            trouble: shared.troubles.of_one_watch(),
            quiet: Instant::now(),
            restarts: shared.restarts.clone(),
        }
    }

    /// The next event. May be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> Option<Event<K>> {
        loop {
            let next = if self.trouble.lasts() {
                match tokio::time::timeout_at(self.quiet, self.events.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.trouble.over();
                        continue;
                    }
                }
            } else {
                self.events.next().await
            };
            match next? {
                // Only says that a list is about to be asked for.
                Ok(Event::Init) => return Some(Event::Init),
                Ok(event) => {
                    self.trouble.over();
                    return Some(event);
                }
                Err(error) => self.meet(&error),
            }
        }
    }

    fn meet(&mut self, error: &watcher::Error) {
        self.quiet = Instant::now() + QUIET;
        self.restarts.inc();
        match error {
            // Every watch meets it when the server has forgotten where it was; a new list follows.
            watcher::Error::WatchError(status) if status.code == 410 => debug!("{}: listing again", self.attempt),
            watcher::Error::WatchError(status) => self.trouble.meet(self.attempt.refused(status.code, &status.message)),
            watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
                self.trouble.meet(self.attempt.explain(error));
            }
            watcher::Error::WatchFailed(error) => {
                let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                self.trouble.meet(format!("a watch was cut off: {cause}"));
            }
            watcher::Error::NoResourceVersion => self.trouble.meet(format!("cannot {}: {error}", self.attempt)),
        }
    }
}

/// The sentence for an error that no second try will cure: credentials, rights.
pub(super) fn refusal(attempt: &Attempt, error: &watcher::Error) -> Option<String> {
    let status = match error {
        watcher::Error::WatchError(status) => status,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status,
        _ => return None,
    };
    matches!(status.code, 401 | 403).then(|| attempt.refused(status.code, &status.message))
}

/// A kind that is watched in any number of namespaces, whatever its types.
pub(super) trait Watched: Send + Sync {
    /// The watch of one namespace; it ends only if the client's stream does, and then gives its name.
    fn begin(&self, client: &Client, namespace: &str, shared: &Shared) -> BoxFuture<'static, String>;
    /// The watch was dropped: forget what it saw.
    fn end(&self, namespace: &str);
    /// Its first list is complete.
    fn knows(&self, namespace: &str) -> bool;
}

/// The one kind of [`Watched`].
pub(super) struct Kind<K, T> {
    seen: Seen<K, T>,
    labels: Option<String>,
}

impl<K, T> Kind<K, T> {
    pub(super) fn new(
        store: Store<T>,
        labels: Option<String>,
        keep: impl Fn(K) -> T + Send + Sync + 'static,
        changed: impl Fn(Change<'_, T>) + Send + Sync + 'static,
    ) -> Self {
        Self { seen: Seen { store, keep: Arc::new(keep), changed: Arc::new(changed) }, labels }
    }
}

impl<K, T> Watched for Kind<K, T>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    T: Send + Sync + 'static,
{
    fn begin(&self, client: &Client, namespace: &str, shared: &Shared) -> BoxFuture<'static, String> {
        let api = Api::<K>::namespaced(client.clone(), namespace);
        let stream = Stream::new(api, self.labels.as_deref(), Some(namespace), shared);
        let what = format!("{} in namespace {namespace}", K::plural(&()));
        self.seen.clone().follow(stream, namespace, what, shared)
    }

    fn end(&self, namespace: &str) {
        for (name, before) in self.seen.store.end(namespace) {
            self.seen.tell(namespace, &name, Some(&before), None);
        }
    }

    fn knows(&self, namespace: &str) -> bool {
        self.seen.store.knows(namespace)
    }
}

/// A kind that is in no namespace; in the store it is under the empty name.
pub(super) struct ClusterKind<K, T> {
    seen: Seen<K, T>,
}

impl<K, T> ClusterKind<K, T> {
    pub(super) fn new(
        store: Store<T>,
        keep: impl Fn(K) -> T + Send + Sync + 'static,
        changed: impl Fn(Change<'_, T>) + Send + Sync + 'static,
    ) -> Self {
        Self { seen: Seen { store, keep: Arc::new(keep), changed: Arc::new(changed) } }
    }
}

impl<K, T> Watched for ClusterKind<K, T>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    K: Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    T: Send + Sync + 'static,
{
    fn begin(&self, client: &Client, namespace: &str, shared: &Shared) -> BoxFuture<'static, String> {
        let stream = Stream::new(Api::<K>::all(client.clone()), None, None, shared);
        self.seen.clone().follow(stream, namespace, K::plural(&()).into_owned(), shared)
    }

    fn end(&self, namespace: &str) {
        self.seen.store.end(namespace);
    }

    fn knows(&self, namespace: &str) -> bool {
        self.seen.store.knows(namespace)
    }
}

/// What events do to a store.
struct Seen<K, T> {
    store: Store<T>,
    keep: Arc<dyn Fn(K) -> T + Send + Sync>,
    changed: OnChange<T>,
}

impl<K, T> Clone for Seen<K, T> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), keep: Arc::clone(&self.keep), changed: Arc::clone(&self.changed) }
    }
}

impl<K, T> Seen<K, T>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    T: Send + Sync + 'static,
{
    /// Takes every event; resolves to `what` when there are no more.
    fn follow(
        self,
        mut stream: Stream<K>,
        namespace: &str,
        what: String,
        shared: &Shared,
    ) -> BoxFuture<'static, String> {
        let (namespace, listed) = (namespace.to_owned(), Arc::clone(&shared.listed));
        self.store.begin(&namespace);
        Box::pin(async move {
            let mut listing = HashMap::new();
            while let Some(event) = stream.next().await {
                if self.take(&namespace, event, &mut listing) {
                    listed.notify_one();
                }
            }
            what
        })
    }
}

impl<K: Resource, T> Seen<K, T> {
    /// `listing` is the list that is coming in: the store shows the old one until the new one is complete. Gives true
    /// when it is.
    fn take(&self, namespace: &str, event: Event<K>, listing: &mut HashMap<String, Arc<T>>) -> bool {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => {
                listing.insert(name_of(&object), Arc::new((self.keep)(object)));
            }
            Event::InitDone => {
                self.listed(namespace, std::mem::take(listing));
                return true;
            }
            Event::Apply(object) => {
                let name = name_of(&object);
                let after = Arc::new((self.keep)(object));
                let before = self.store.insert(namespace, &name, Arc::clone(&after));
                self.tell(namespace, &name, before.as_deref(), Some(&after));
            }
            Event::Delete(object) => {
                let name = name_of(&object);
                if let Some(before) = self.store.remove(namespace, &name) {
                    self.tell(namespace, &name, Some(&before), None);
                }
            }
        }
        false
    }

    fn listed(&self, namespace: &str, objects: HashMap<String, Arc<T>>) {
        let after: Vec<_> = objects.iter().map(|(name, object)| (name.clone(), Arc::clone(object))).collect();
        let mut before = self.store.replace(namespace, objects);
        for (name, object) in after {
            self.tell(namespace, &name, before.remove(&name).as_deref(), Some(&object));
        }
        for (name, object) in before {
            self.tell(namespace, &name, Some(&object), None);
        }
    }

    fn tell(&self, namespace: &str, name: &str, before: Option<&T>, after: Option<&T>) {
        (self.changed)(Change { namespace, name, before, after });
    }
}

fn name_of(object: &impl Resource) -> String {
    object.meta().name.clone().unwrap_or_default()
}
