//! Watches → snapshots → decisions → guarded writes. The only writer of Deployments.

pub mod lease;
