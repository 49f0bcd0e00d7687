//! What is seen of a rollout, its history and the time in; a decision out.
//!
//! Pure: no clock, no client. `controller/` takes the snapshots and carries the decisions out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod record;
