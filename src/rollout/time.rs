//! Arithmetic on times that cannot fail: what lies outside the calendar stays at its edge, and an interval that runs
//! backwards (a clock was set) is empty.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `at` and `by` later.
pub(super) fn after(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// `by` before `at`.
pub(super) fn before(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_sub(by).ok()).unwrap_or(Timestamp::MIN)
}

/// From `from` to `to`; nothing where `to` is earlier.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
