//! Work that may never end, on a thread of its own. No thread can be stopped from outside, so one that is given up runs on;
//! how many do is bounded.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};

use crate::admission::Watch;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Policies may nest deep, and a debug build's frames are large; untouched stack costs nothing.
pub(super) const STACK: usize = 8 << 20;

/// Threads that were given up and still run, at most.
const MOST: usize = 2;

/// What was given up and still runs, by what it was doing.
static GIVEN_UP: Mutex<Vec<Arc<String>>> = Mutex::new(Vec::new());

/// What `work` gives.
///
/// # Errors
///
/// It asked something that is not answered within `limit`: what. Or so did others before it, which still run.
pub(super) fn unless_stuck<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&Arc<Watch>) -> T + Send + 'static,
) -> anyhow::Result<T> {
    let before: Vec<Arc<String>> = running().clone();
    if before.len() >= MOST {
        let what: Vec<&str> = before.iter().map(|what| what.as_str()).collect();
        bail!("what was given up before still runs ({}); start anew to get rid of it", what.join(", "));
    }
    let watch = Arc::new(Watch::default());
    let (seen, (sender, done)) = (Arc::clone(&watch), channel());
    let thread = thread::Builder::new().name("loading".to_owned()).stack_size(STACK);
    let worker = thread.spawn(move || sender.send(work(&watch)).is_ok()).context("cannot start a thread")?;
    let (mut last, mut since) = (seen.progress(), Instant::now());
    loop {
        match done.recv_timeout(LOOK) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Disconnected) => bail!("an error inside surefoot: loading panicked"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = seen.progress();
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= limit {
            let what = Arc::new(name(&last.1));
            running().push(Arc::clone(&what));
            let error = anyhow!("{what} does not end, and nothing stops it: given up after {} s", limit.as_secs());
            thread::spawn(move || {
                drop(worker.join());
                running().retain(|other| !Arc::ptr_eq(other, &what));
            });
            return Err(error);
        }
    }
}

/// As a person knows it; a package is one word, what is not asked of a policy is told by whoever asks.
fn name(asked: &str) -> String {
    match asked {
        "" => "compiling the policies".to_owned(),
        told if told.contains(' ') => told.to_owned(),
        package => format!("policy {}", package.replace('_', "-")),
    }
}

fn running() -> std::sync::MutexGuard<'static, Vec<Arc<String>>> {
    GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_given_up_and_bounded() {
        let limit = Duration::from_millis(200);
        assert_eq!(unless_stuck(limit, |_| 7).unwrap(), 7);
        assert!(
            unless_stuck(limit, |_| panic!("as a bug of ours might")).unwrap_err().to_string().contains("panicked")
        );
        let (end, ended) = channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let stuck = || {
            let ended = Arc::clone(&ended);
            unless_stuck(limit, move |_| ended.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok())
        };
        for _ in 0..MOST {
            let told = stuck().unwrap_err().to_string();
            assert_eq!(told, "compiling the policies does not end, and nothing stops it: given up after 0 s");
        }
        let told = stuck().unwrap_err().to_string();
        assert!(told.starts_with("what was given up before still runs (compiling the policies, "), "{told}");
        drop(end);
        let begun = Instant::now();
        while unless_stuck(limit, |_| 7).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::yield_now();
        }
    }

    #[test]
    fn names() {
        for (asked, told) in [
            ("", "compiling the policies"),
            ("canary_cap", "policy canary-cap"),
            ("p_test.rego:1:1: test data.p_test.test_x", "p_test.rego:1:1: test data.p_test.test_x"),
        ] {
            assert_eq!(name(asked), told);
        }
    }
}
