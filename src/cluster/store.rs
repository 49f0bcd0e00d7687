//! What watches have seen, by namespace and name: small structs, read by many, written by the one task that watches.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// The objects of one kind, as they were last seen. A clone is another handle on the same store.
pub struct Store<T> {
    namespaces: Arc<RwLock<HashMap<String, Listing<T>>>>,
}

struct Listing<T> {
    /// The first list is complete.
    complete: bool,
    objects: HashMap<String, Arc<T>>,
}

/// One object came, changed or went.
#[derive(Debug)]
pub struct Change<'a, T> {
    /// metadata.namespace
    pub namespace: &'a str,
    /// metadata.name
    pub name: &'a str,
    /// As it was; `None`: it is new.
    pub before: Option<&'a T>,
    /// As it is; `None`: it is gone, or its namespace is no longer guarded.
    pub after: Option<&'a T>,
}

/// Called after a store has changed.
pub(super) type OnChange<T> = Arc<dyn Fn(Change<'_, T>) + Send + Sync>;

impl<T> Store<T> {
    /// The object, if it is there and its namespace is watched.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.read().get(namespace)?.objects.get(name).cloned()
    }

    /// The objects of a namespace that `wanted` says yes to, in no order. `wanted` runs under the store's lock: keep it
    /// to a comparison.
    pub fn select(&self, namespace: &str, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let namespaces = self.read();
        let objects = namespaces.get(namespace).into_iter().flat_map(|listing| listing.objects.values());
        objects.filter(|object| wanted(object)).cloned().collect()
    }

    /// The namespace is watched and its first list is complete: what is not in the store is not there.
    pub fn knows(&self, namespace: &str) -> bool {
        self.read().get(namespace).is_some_and(|listing| listing.complete)
    }

    /// Number of objects in all namespaces.
    pub fn len(&self) -> usize {
        self.read().values().map(|listing| listing.objects.len()).sum()
    }

    /// Nothing seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The namespace is watched from now on.
    pub(super) fn begin(&self, namespace: &str) {
        self.write().insert(namespace.to_owned(), Listing { complete: false, objects: HashMap::new() });
    }

    /// It is no longer watched; gives what was known.
    pub(super) fn end(&self, namespace: &str) -> HashMap<String, Arc<T>> {
        self.write().remove(namespace).map(|listing| listing.objects).unwrap_or_default()
    }

    /// A list is complete: what is not in it is gone. Gives what was known before.
    pub(super) fn replace(&self, namespace: &str, objects: HashMap<String, Arc<T>>) -> HashMap<String, Arc<T>> {
        let listing = Listing { complete: true, objects };
        self.write().insert(namespace.to_owned(), listing).map(|before| before.objects).unwrap_or_default()
    }

    /// The first list is complete, and its objects have been inserted one by one.
    pub(super) fn complete(&self, namespace: &str) {
        if let Some(listing) = self.write().get_mut(namespace) {
            listing.complete = true;
        }
    }

    /// One object came or changed; gives it as it was.
    pub(super) fn insert(&self, namespace: &str, name: &str, object: Arc<T>) -> Option<Arc<T>> {
        self.write().get_mut(namespace)?.objects.insert(name.to_owned(), object)
    }

    /// One object went; gives it as it was.
    pub(super) fn remove(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.write().get_mut(namespace)?.objects.remove(name)
    }

    // No caller's code that could panic runs under the lock but `wanted`, which only reads: what is inside is whole.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Listing<T>>> {
        self.namespaces.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Listing<T>>> {
        self.namespaces.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { namespaces: Arc::default() }
    }
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self { namespaces: Arc::clone(&self.namespaces) }
    }
}

impl<T> fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} objects)", self.len())
    }
}
