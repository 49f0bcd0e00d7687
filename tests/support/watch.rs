//! Waiting: look often, give up after a limit, say what was seen last.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// What one look found.
pub(crate) enum Look<T> {
    /// It is there.
    Done(T),
    /// Not yet; what is there instead, for the message if it never comes.
    Not(String),
}

/// Looks every 50 ms until `look` finds it. An error of `look` ends the wait: return [`Look::Not`] for what may pass.
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match look()? {
            Look::Done(found) => return Ok(found),
            Look::Not(seen) => seen,
        };
        if start.elapsed() > limit {
            bail!("waited {} s for {what}; last seen: {seen}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
