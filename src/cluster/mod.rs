//! What both rims share of the cluster: a client, watches of guarded namespaces, and records.
//!
//! ```text
//!   kubeconfig, service account ── client ──▶ kube::Client
//!   Namespaces with the guard label ── guarded ──▶ Store<T> of small structs, a callback for each change
//!   ConfigMaps of surefoot's own namespace ── records ──▶ rollout::Record
//! ```
//!
//! Nothing here decides anything, and nothing here writes a Deployment.

pub mod access;
pub mod client;
pub mod facts;
pub mod guarded;
pub mod inventory;
pub mod isolation;
pub mod records;
pub mod rollouts;
pub mod store;
pub mod wire;

#[cfg(test)]
pub(crate) mod fake;
mod patience;
mod trouble;
mod watching;

pub use client::{Attempt, connect};
pub use facts::ClusterFacts;
pub use guarded::{Guarded, Namespace};
pub use store::{Change, Store};

use crate::template::keys;

/// surefoot's own namespace: `POD_NAMESPACE`, else `surefoot-system`.
pub fn own_namespace() -> String {
    std::env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| keys::NAMESPACE.to_owned())
}
