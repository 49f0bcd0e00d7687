//! What is seen of a rollout, its history and the time in; a decision out.
//!
//! ```text
//!   watches ──▶ Snapshot ──▶ History::observe ──▶ History ─┐
//!   ConfigMap ──▶ Record ──────────────────────────────────┼─▶ decide ──▶ Decision ──▶ journal::next ──▶ Record
//!   config.yaml, annotations ──▶ Settings ─────────────────┤
//!   now ───────────────────────────────────────────────────┘
//! ```
//!
//! Pure: no clock, no client. `controller/` takes the snapshots and carries the decisions out; a decision is made again
//! whenever something changes, and gives the same until it is carried out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod budget;
pub mod decide;
pub mod ending;
pub mod evidence;
pub mod hindrance;
pub mod history;
pub mod journal;
pub mod picture;
pub mod record;
pub mod settings;
pub mod settle;
pub mod signals;
pub mod snapshot;
pub mod target;
#[cfg(test)]
mod tests;
mod time;
pub mod timeline;
mod track;
pub mod view;

pub use budget::Reading;
pub use decide::{Because, Decision, Rest, Watch, by_hand, decide};
pub use history::History;
pub use record::Record;
pub use settings::Settings;
pub use snapshot::Snapshot;
