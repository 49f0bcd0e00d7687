//! A review and facts in, a verdict out.
//!
//! ```text
//!   bytes ── wire ──▶ Request ─┐
//!   policies/ ── policy_set ──▶ PolicySet ─┤
//!   watches, files ──▶ Facts ──┼─▶ validate ──▶ Verdict ── message ──▶ what a person reads
//!   config.yaml ──▶ Config ────┤   default  ──▶ Defaulting (one patch, one warning each)
//!   now ───────────────────────┘
//! ```
//!
//! Pure: a verdict depends on these arguments and on nothing else. Evaluation cannot fail; it contains failures: a
//! policy that breaks is a [`Failure`] beside the findings of the others.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod facts;
pub mod finding;
pub mod wire;

pub use facts::{Facts, History, LastGood, Quarantined};
pub use finding::{DefaultValue, Failure, Finding, Level, Skipped, Verdict};
