//! Places where a test may end the process as if the power had gone: before and after each write, so that a new kind of
//! write has them from the start. In a release build they are nothing.

use super::Write;

/// Which side of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// It is about to be sent.
    Before,
    /// It was answered, whatever the answer is.
    After,
}

/// Ends the process here if the environment variable `SUREFOOT_DIE_AT` names this place, e.g. `AfterRecordRevert`.
#[cfg(debug_assertions)]
pub(super) fn reach(edge: Edge, write: Write) {
    if std::env::var("SUREFOOT_DIE_AT").is_ok_and(|wanted| wanted == format!("{edge:?}{write:?}")) {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn reach(_: Edge, _: Write) {}
