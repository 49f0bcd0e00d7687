//! What the policies may spend on one request, and how whoever waits for them knows which one keeps it waiting.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::engine::Broken;

/// What an evaluation may spend. A [`Duration`] is a limit that nobody watches.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The time of all policies together. The engine stops at the first chance after it, and has none inside of one call of
    /// a built-in function or one comparison.
    pub time: Duration,
    /// Told which policy is being asked, and asked which must not be.
    pub watch: Option<Arc<Watch>>,
}

impl From<Duration> for Limits {
    fn from(time: Duration) -> Self {
        Self { time, watch: None }
    }
}

/// One evaluation, seen from outside of its thread.
#[derive(Debug, Default)]
pub struct Watch {
    /// Packages of the policies that are not asked.
    barred: BTreeSet<String>,
    /// Written by the evaluation, read by whoever gives it up.
    asked: Mutex<String>,
}

impl Watch {
    /// Policies with these packages (as [`Watch::asked`] gives them) are not asked: each is a failure that says so.
    pub fn barring(barred: BTreeSet<String>) -> Self {
        Self { barred, asked: Mutex::default() }
    }

    /// The package of the policy that was asked last, e.g. `canary_cap`; empty while none was.
    pub fn asked(&self) -> String {
        self.lock().clone()
    }

    /// `rule` is about to be evaluated.
    pub(super) fn ask(&self, rule: &str) -> Result<(), Broken> {
        let package = rule.rsplit('.').nth(1).unwrap_or_default();
        if self.barred.contains(package) {
            let message = "it overran its time in a way that cannot be stopped, and is not asked while it does";
            return Err(Broken::unplaced(message.to_owned()));
        }
        let mut asked = self.lock();
        asked.clear();
        asked.push_str(package);
        Ok(())
    }

    /// Whether the policy with this package may be asked, which is noted.
    #[cfg(test)]
    pub(crate) fn ask_for_test(&self, package: &str) -> bool {
        self.ask(&format!("data.{package}.verdict")).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
