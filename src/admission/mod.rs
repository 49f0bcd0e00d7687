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

pub mod answer;
mod asked;
pub mod bounds;
mod builtins;
pub mod defaults;
mod describe;
mod engine;
pub mod facts;
pub mod finding;
#[cfg(test)]
mod fixtures;
mod gate;
mod inputs;
pub mod limits;
mod managed;
pub mod message;
pub mod metadata;
mod pointer;
pub mod policy_set;
mod quarantine;
mod raw;
mod settings;
mod stamps;
pub mod testing;
mod validate;
mod whole;
pub mod wire;

pub use answer::Answer;
pub use asked::is_asked_about;
pub use defaults::{Defaulting, default};
pub use describe::NATIVE;
pub use facts::{Facts, History, Isolation, LastGood, Quarantined, Unsettled};
pub use finding::{DefaultValue, Failure, Finding, Level, Skipped, Verdict};
pub use inputs::inputs;
pub use limits::{Fared, Limits, Watch};
pub use pointer::notation;
pub use policy_set::{LoadError, LoadErrors, Policy, PolicySet, Source};
pub use testing::{Test, TestOutcome, Tests, run_tests};
pub use validate::validate;
pub use wire::{Operation, Request, Via, WireError};
