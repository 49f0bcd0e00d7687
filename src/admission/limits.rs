//! What the policies may spend on one request, and how whoever waits for them knows which one keeps it waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Why a policy is not asked that did not even stop.
pub const STUCK: &str = "it overran its time in a way that cannot be stopped, and is not asked while it does";

/// What a policy must be given at least, so that overrunning it says something of the policy: some hundred times what one
/// takes.
const FAIR: Duration = Duration::from_millis(100);

/// One evaluation, seen from outside of its thread.
#[derive(Debug, Default)]
pub struct Watch {
    /// Packages of the policies that are not asked, and why.
    barred: BTreeMap<String, &'static str>,
    /// Written by the evaluation, read by whoever waits for it or gives it up.
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    last: String,
    count: usize,
    fared: Fared,
}

impl Asked {
    fn begin(&mut self, what: &str) {
        self.count += 1;
        self.last.clear();
        self.last.push_str(what);
    }
}

/// How policies fared in one evaluation, by package. One that was given little time and overran it is in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fared {
    /// Ended in time, each time.
    pub ended: BTreeSet<String>,
    /// Did not, at least once.
    pub overran: BTreeSet<String>,
}

impl Watch {
    /// Policies with these packages (as [`Watch::asked`] gives them) are not asked: each is a failure that says why.
    pub fn barring(barred: BTreeMap<String, &'static str>) -> Self {
        Self { barred, asked: Mutex::default() }
    }

    /// How those that were asked fared.
    pub fn fared(&self) -> Fared {
        self.lock().fared.clone()
    }

    /// The package of the policy that was asked last, e.g. `canary_cap`; empty while none was.
    pub fn asked(&self) -> String {
        self.lock().last.clone()
    }

    /// `rule` is about to be evaluated.
    pub(super) fn ask(&self, rule: &str) -> Result<(), Broken> {
        let package = package(rule);
        if let Some(why) = self.barred.get(package) {
            return Err(Broken::unplaced((*why).to_owned()));
        }
        let mut asked = self.lock();
        asked.begin(package);
        Ok(())
    }

    /// Something other than the rule of a policy is about to be evaluated; `told` in words, of which it has several.
    pub fn begin(&self, told: &str) {
        self.lock().begin(told);
    }

    /// How many questions were asked, and what the last one was: the package of a policy, or the words of
    /// [`Watch::begin`]. As long as they stay the same, that one is being answered.
    pub fn progress(&self) -> (usize, String) {
        let asked = self.lock();
        (asked.count, asked.last.clone())
    }

    /// `rule` was evaluated, and might have taken `limit`.
    pub(super) fn answered(&self, rule: &str, took: Duration, limit: Duration) {
        let (package, fared) = (package(rule), &mut self.lock().fared);
        if took >= limit && limit >= FAIR {
            fared.ended.remove(package);
            fared.overran.insert(package.to_owned());
        } else if took < limit && !fared.overran.contains(package) && !fared.ended.contains(package) {
            fared.ended.insert(package.to_owned());
        }
    }

    /// Whether the policy with this package may be asked, which is noted.
    #[cfg(test)]
    pub(crate) fn ask_for_test(&self, package: &str) -> bool {
        self.ask(&format!("data.{package}.verdict")).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn package(rule: &str) -> &str {
    rule.rsplit('.').nth(1).unwrap_or_default()
}
