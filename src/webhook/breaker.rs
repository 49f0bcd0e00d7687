//! Policies that always overrun their time: not asked for a while, so that not every review waits for them.
//!
//! ```text
//!   asked ── overran for 3 Deployments in a row ──▶ set aside, 30 s ──▶ one trial ── ended in time ──▶ asked
//!                                                        ▲                 └────── overran ──┐
//!                                                        └───────────────────────────────────┘
//! ```
//!
//! A policy that is set aside is a failure in each verdict, as one that overran is: told at once. Different Deployments,
//! because one on which a policy has too much to do is no reason to keep it from the others. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// Deployments in a row on which a policy overran.
pub(super) const IN_A_ROW: usize = 3;

/// How long it is not asked then.
pub(super) const ASIDE: Duration = Duration::from_secs(30);

/// How policies have fared, by package; those that ended in time the last time are not in it.
#[derive(Debug, Default)]
pub(super) struct Breaker(BTreeMap<String, Fared>);

#[derive(Debug)]
enum Fared {
    /// Deployments on which it overran since it last ended in time.
    Overran(BTreeSet<String>),
    /// Until then it is not asked.
    Aside(Instant),
    /// One review asks it, all others do not; when it began.
    OnTrial(Instant),
}

impl Breaker {
    /// The policies that a review which begins now does not ask; and those that it alone may.
    pub(super) fn begin(&mut self, now: Instant) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut aside, mut trials) = (BTreeSet::new(), BTreeSet::new());
        for (package, fared) in &mut self.0 {
            match fared {
                Fared::Overran(_) => {}
                Fared::Aside(until) if now < *until => drop(aside.insert(package.clone())),
                // Nobody came back from the trial.
                Fared::OnTrial(since) if now < *since + ASIDE => drop(aside.insert(package.clone())),
                Fared::Aside(_) | Fared::OnTrial(_) => {
                    *fared = Fared::OnTrial(now);
                    trials.insert(package.clone());
                }
            }
        }
        (aside, trials)
    }

    /// A review of `subject` asked it, and it did not end in time. Whether it is set aside by that.
    pub(super) fn overran(&mut self, package: &str, subject: &str, now: Instant) -> bool {
        let fared = self.0.entry(package.to_owned()).or_insert_with(|| Fared::Overran(BTreeSet::new()));
        match fared {
            Fared::Overran(subjects) => {
                subjects.insert(subject.to_owned());
                if subjects.len() < IN_A_ROW {
                    return false;
                }
            }
            // Asked before it was set aside.
            Fared::Aside(_) => return false,
            Fared::OnTrial(_) => {}
        }
        *fared = Fared::Aside(now + ASIDE);
        true
    }

    /// A review asked it, and it ended in time. Whether it was set aside before.
    pub(super) fn ended(&mut self, package: &str) -> bool {
        let was_aside = self.aside().any(|(aside, _)| aside == package);
        self.0.remove(package);
        was_aside
    }

    /// The review that might have tried it did not ask it.
    pub(super) fn untried(&mut self, package: &str, now: Instant) {
        if let Some(fared @ Fared::OnTrial(_)) = self.0.get_mut(package) {
            *fared = Fared::Aside(now);
        }
    }

    /// Those that are set aside, and until when at least.
    pub(super) fn aside(&self) -> impl Iterator<Item = (&str, Instant)> {
        self.0.iter().filter_map(|(package, fared)| match fared {
            Fared::Overran(_) => None,
            Fared::Aside(until) => Some((package.as_str(), *until)),
            Fared::OnTrial(since) => Some((package.as_str(), *since)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `o1`: overran on Deployment 1; `e`: ended in time; `b`: a review began; `u`: it did not ask; `+20`: seconds pass.
    fn after(steps: &str) -> &'static str {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for step in steps.split_whitespace() {
            match step.split_at(1) {
                ("o", subject) => drop(breaker.overran("p", subject, now)),
                ("e", _) => drop(breaker.ended("p")),
                ("b", _) => drop(breaker.begin(now)),
                ("u", _) => breaker.untried("p", now),
                (_, seconds) => now += Duration::from_secs(seconds.parse().unwrap()),
            }
        }
        let is_shown = breaker.aside().any(|(package, _)| package == "p");
        let (aside, trials) = breaker.begin(now);
        match (aside.contains("p"), trials.contains("p")) {
            (false, false) if !is_shown => "asked",
            (true, false) if is_shown => "aside",
            (false, true) if is_shown => "tried",
            other => panic!("{steps}: {other:?}, {is_shown}"),
        }
    }

    #[test]
    fn who_is_asked_when() {
        for (steps, then) in [
            ("", "asked"),
            ("o1 o2", "asked"),
            ("o1 o2 o3", "aside"),
            ("o1 o1 o1 o1", "asked"),
            ("o1 o2 e o3", "asked"),
            ("o1 o2 e o3 o4 o5", "aside"),
            ("o1 o2 o3 +29", "aside"),
            ("o1 o2 o3 +30", "tried"),
            ("o1 o2 o3 +30 b", "aside"),
            ("o1 o2 o3 +30 b e", "asked"),
            ("o1 o2 o3 +30 b e o4", "asked"),
            ("o1 o2 o3 +30 b o4", "aside"),
            ("o1 o2 o3 +30 b o1 +29", "aside"),
            ("o1 o2 o3 +30 b o1 +30", "tried"),
            ("o1 o2 o3 +30 b u", "tried"),
            ("o1 o2 o3 +30 b +29", "aside"),
            ("o1 o2 o3 +30 b +30", "tried"),
            ("o1 o2 o3 +20 o4 +10", "tried"),
            ("o1 o2 o3 u", "aside"),
            ("u", "asked"),
        ] {
            assert_eq!(after(steps), then, "{steps}");
        }
    }

    #[test]
    fn each_policy_for_itself() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!(["1", "2", "3", "4"].map(|on| breaker.overran("p", on, now)), [false, false, true, false]);
        breaker.overran("q", "1", now);
        assert_eq!(breaker.begin(now), (BTreeSet::from(["p".to_owned()]), BTreeSet::new()));
        assert_eq!(breaker.aside().collect::<Vec<_>>(), [("p", now + ASIDE)]);
        assert_eq!((breaker.ended("q"), breaker.ended("p"), breaker.ended("p")), (false, true, false));
    }
}
