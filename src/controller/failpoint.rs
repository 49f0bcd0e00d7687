//! Places where a test may end the process as if the power had gone. In a release build they are nothing.

/// A place between two steps of a revert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Nothing is written yet.
    BeforeRecord,
    /// Recorded and quarantined; the template is still the bad one.
    AfterRecord,
    /// The good template is back; its fields are ours.
    AfterPatch,
    /// Its fields belong to whoever applied it.
    AfterGiveBack,
    /// Told; the record does not say yet that it is done.
    AfterEvent,
}

/// Ends the process here if the environment variable `SUREFOOT_DIE_AT` names this place, e.g. `AfterRecord`.
#[cfg(debug_assertions)]
pub(super) fn reach(point: Point) {
    if std::env::var("SUREFOOT_DIE_AT").is_ok_and(|wanted| wanted == format!("{point:?}")) {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn reach(_: Point) {}
