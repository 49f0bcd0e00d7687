//! Long random lives of a Deployment, in which it is known who is guilty: no innocent version is ever reverted, every
//! guilty one is found out in its time, and what must hold in every moment does.
//!
//! The controller here wakes up as the real one does, when something changes or a decision said when to look again; it
//! sees old snapshots, dies, is frozen, and its clock is set.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use jiff::Timestamp;

use super::{
    cluster::{Cluster, Conduct, Version},
    observed,
    world::{at, digest},
};
use crate::{
    config::{Guard, Rollouts},
    rollout::{
        Because, Decision, History, Record, Rest, Settings, Snapshot, decide,
        decide::{MOST_REVERTS, REVERT_WINDOW},
        journal,
        record::Outcome,
    },
};

const LIVES: u64 = 50;
const SECONDS: i64 = 5000;
const BAKE: i64 = 300;

#[test]
fn the_guilty_are_found_out_and_the_innocent_left_alone() {
    let mut reverts = 0;
    let mut settled = 0;
    for seed in 0..LIVES {
        let mut life = Life::new(seed);
        for _ in 0..SECONDS {
            life.second();
        }
        reverts += life.reverts.values().sum::<u32>();
        settled += life.record.map_or(0, |record| record.settled.len());
    }
    // A simulator in which nothing happens would prove nothing.
    assert!(reverts > 30 && settled > 40, "{reverts} reverts, {settled} settled");
}

/// Random numbers that are the same on every machine (SplitMix64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn range(&mut self, from: i64, to: i64) -> i64 {
        from + self.roll((to - from).unsigned_abs()) as i64
    }

    fn once_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// A cluster, a controller and people.
struct Life {
    dice: Dice,
    seed: u64,
    cluster: Cluster,
    settings: Settings,
    record: Option<Record>,
    history: History,
    /// What the clock of the controller is ahead.
    skew: i64,
    /// The controller is dead or frozen until then.
    asleep: i64,
    shown: Option<Snapshot>,
    again: Option<Timestamp>,
    last: Option<Decision>,
    /// When the template came, and when something else than itself last disturbed it.
    rollout: u32,
    disturbed: i64,
    /// Reverts by rollout.
    reverts: BTreeMap<u32, u32>,
    /// The clock was set forward in this rollout: its bake may have been shortened.
    hurried: bool,
    story: String,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let versions = (0..12).map(|nth| version(nth, &mut dice)).collect();
        let rollouts = Rollouts { bake: Duration::from_secs(BAKE.unsigned_abs()), ..Rollouts::default() };
        Self {
            seed,
            cluster: Cluster::new(versions),
            settings: Settings::of(&rollouts, Guard::Enforce, &BTreeMap::new(), None),
            record: None,
            history: History::default(),
            skew: 0,
            asleep: 0,
            shown: None,
            again: None,
            last: None,
            rollout: 0,
            disturbed: 0,
            reverts: BTreeMap::new(),
            hurried: false,
            story: String::new(),
            dice,
        }
    }

    fn now(&self) -> Timestamp {
        at(self.cluster.now + self.skew)
    }

    fn note(&mut self, what: &str) {
        let _ = writeln!(self.story, "{:>5} {what}", self.cluster.now);
    }

    fn assert(&self, holds: bool, what: &str) {
        let versions = self.cluster.versions.iter().map(|version| format!("{version:?}\n"));
        let versions = if holds { String::new() } else { versions.collect() };
        assert!(holds, "life {} at {}: {what}\n{versions}{}{:#?}", self.seed, self.cluster.now, self.story, self.last);
    }

    fn second(&mut self) {
        self.cluster.tick();
        self.happen();
        if self.cluster.now < self.asleep {
            return;
        }
        let mut snapshot = self.cluster.snapshot();
        // Now and then a watch is a moment behind.
        if let Some(old) = self.shown.clone().filter(|_| self.dice.once_in(4)) {
            snapshot = old;
        }
        let due = self.again.is_some_and(|again| again <= self.now());
        if due || self.shown.as_ref() != Some(&snapshot) {
            self.look(&snapshot);
        }
        self.shown = Some(snapshot);
        self.found_out();
    }

    /// What people, nodes and clocks do.
    fn happen(&mut self) {
        match self.dice.roll(1500) {
            0 | 1 => {
                let version = self.dice.roll(self.cluster.versions.len() as u64) as usize;
                self.apply(version);
            }
            2 => {
                let replicas = self.dice.range(1, 5);
                self.note(&format!("scaled to {replicas}"));
                self.cluster.scale(u32::try_from(replicas).unwrap());
                self.disturb();
            }
            3 => {
                let (node, seconds) = (self.dice.roll(3) as usize, self.dice.range(5, 200));
                let (reboots, politely) = (self.dice.once_in(2), self.dice.once_in(2));
                self.note(&format!("node-{node} is lost for {seconds} s, reboots: {reboots}, politely: {politely}"));
                self.cluster.lose_node(node, seconds, reboots, politely);
                self.disturbed = self.cluster.now + seconds;
            }
            4 => {
                let nth = self.dice.roll(4) as usize;
                self.note(&format!("pod {nth} is evicted"));
                self.cluster.evict(nth);
                self.disturb();
            }
            5 => {
                self.note("the controller dies, and another starts");
                (self.history, self.skew, self.shown) = (History::default(), 0, None);
                self.asleep = self.cluster.now + self.dice.range(0, 40);
                self.disturbed = self.asleep;
            }
            6 => {
                self.asleep = self.cluster.now + self.dice.range(151, 400);
                self.note(&format!("the controller is frozen until {}", self.asleep));
                self.disturbed = self.asleep;
                self.hurried = true;
            }
            7 => {
                let by =
                    if self.dice.once_in(2) { self.dice.range(151, 100_000) } else { -self.dice.range(1, 100_000) };
                self.note(&format!("the controller's clock is set by {by}"));
                self.skew += by;
                self.hurried |= by > 0;
                self.disturb();
            }
            8 => {
                let paused = !self.cluster.paused;
                self.note(&format!("paused: {paused}"));
                self.cluster.pause(paused);
                self.disturb();
            }
            9 if self.cluster.paused => {
                self.cluster.pause(false);
                self.disturb();
            }
            _ => {}
        }
    }

    fn disturb(&mut self) {
        self.disturbed = self.disturbed.max(self.cluster.now);
    }

    /// Somebody applies a version; the webhook is there most of the time.
    fn apply(&mut self, version: usize) {
        let digest = digest(&self.cluster.versions[version].name);
        let now = at(self.cluster.now);
        let refused = self.record.as_ref().is_some_and(|record| record.quarantined(&digest, now).is_some());
        if version == self.cluster.current || (refused && !self.dice.once_in(4)) {
            return;
        }
        let conduct = self.cluster.versions[version].conduct;
        self.note(&format!("version {version} is applied: {conduct:?}, quarantined: {refused}"));
        self.replace(version);
    }

    fn replace(&mut self, version: usize) {
        self.cluster.apply(version);
        self.rollout += 1;
        self.hurried = false;
        self.disturb();
    }

    /// The controller: look, decide, record, carry out, until there is nothing to do at this moment.
    fn look(&mut self, snapshot: &Snapshot) {
        let mut snapshot = snapshot.clone();
        for _ in 0..6 {
            let now = self.now();
            self.history = std::mem::take(&mut self.history).observe(&snapshot, self.settings.window(), now);
            let decision = decide(&snapshot, self.record.as_ref(), &self.history, &self.settings, now);
            observed::alike(&decision, &snapshot, self.record.as_ref(), &self.history, &self.settings, now);
            self.check(&snapshot, &decision);
            if matches!(decision, Decision::Revert(_) | Decision::Stall { .. }) {
                self.history = std::mem::take(&mut self.history).failing(now);
            }
            if let Some(next) = journal::next(self.record.as_ref(), &snapshot, &decision, now) {
                self.record = Some(next);
            }
            self.last = Some(decision.clone());
            self.again = match &decision {
                Decision::Watch(watch) => watch.again_at,
                Decision::Rest(Rest::Reverted { again_at, .. }) => *again_at,
                Decision::Rest(Rest::Stale) | Decision::Stall { .. } => Some(now + Duration::from_secs(60)),
                _ => None,
            };
            match decision {
                Decision::Settle(_) | Decision::Finish(_) => {}
                Decision::Revert(_) if self.dice.once_in(5) => {
                    self.note("the controller dies between record and patch");
                    self.history = History::default();
                    return self.again = Some(now);
                }
                // A write on what is no longer there is refused: decide again.
                Decision::Revert(_) if snapshot.deployment != self.cluster.snapshot().deployment => {
                    return self.again = Some(now);
                }
                Decision::Revert(revert) => self.revert(&revert.target.unwrap().digest),
                _ => return,
            }
            snapshot = self.cluster.snapshot();
        }
        self.assert(false, "it decides again and again");
    }

    fn revert(&mut self, target: &crate::template::Digest) {
        let version = self.cluster.versions.iter().position(|one| digest(&one.name) == *target).unwrap();
        let (bad, rollout) = (self.cluster.current, self.rollout);
        self.note(&format!("version {bad} is reverted to {version}"));
        *self.reverts.entry(rollout).or_default() += 1;
        self.assert(self.reverts[&rollout] == 1, "two reverts for one cause");
        self.replace(version);
    }

    /// What must hold of every decision.
    fn check(&self, snapshot: &Snapshot, decision: &Decision) {
        let (record, now) = (self.record.as_ref(), self.now());
        let same = decide(snapshot, record, &self.history, &self.settings, now);
        self.assert(same == *decision, "another decision on the same");
        let observing = Settings { guard: Guard::Warn, ..self.settings.clone() };
        let observed = match decide(snapshot, record, &self.history, &observing, now) {
            Decision::Observe { would, because } => {
                self.assert(because == Because::Guard(Guard::Warn), "observed for another reason");
                Decision::Revert(would)
            }
            other => other,
        };
        self.assert(observed == *decision, "observing decides otherwise than enforcing");
        match decision {
            Decision::Settle(settled) => {
                let guilty = self.conduct(&settled.digest).is_guilty();
                // At first sight of an older template all that is known are the times that the cluster wrote.
                let believed = self.skew > 0 && settled.digest != snapshot.deployment.template.digest;
                self.assert(!guilty || self.hurried || believed, &format!("{} settled", settled.digest));
            }
            Decision::Revert(revert) => {
                self.assert(!snapshot.deployment.paused, "a paused Deployment is reverted");
                self.assert(revert.digest == snapshot.deployment.template.digest, "another template is reverted");
                self.assert(self.conduct(&revert.digest).is_guilty(), "an innocent version is reverted");
                let target = revert.target.as_ref().unwrap();
                let record = record.unwrap();
                self.assert(record.has_settled(&target.digest), "to what has not settled");
                self.assert(record.quarantined(&target.digest, now).is_none(), "to what is quarantined");
                self.assert(snapshot.replica_sets.iter().any(|set| target.is_of(set)), "to what is not there");
                let known = record.reverts.iter().any(|one| one == revert && one.outcome == Outcome::Recorded);
                let before = record.reverts_within(REVERT_WINDOW, now);
                self.assert(known || before < MOST_REVERTS, "too many reverts");
            }
            _ => {}
        }
    }

    fn conduct(&self, of: &crate::template::Digest) -> Conduct {
        self.cluster.versions.iter().find(|one| digest(&one.name) == *of).unwrap().conduct
    }

    /// A guilty version that nothing has disturbed for long enough is not waited for.
    fn found_out(&self) {
        let version = &self.cluster.versions[self.cluster.current];
        let time = self.cluster.now - self.disturbed;
        if version.conduct.is_guilty() && time > version.conduct.found_out_after(version.load) && !self.cluster.paused {
            self.assert(
                // One that settled because a clock was set has settled all the same.
                matches!(self.last, Some(Decision::Stall { .. } | Decision::Revert(_) | Decision::Rest(Rest::Settled)))
                    || self.hurried,
                &format!("{:?} is not found out after {time} s", version.conduct),
            );
        }
    }
}

fn version(nth: u64, dice: &mut Dice) -> Version {
    let after = dice.range(1, 100);
    let conduct = match if nth == 0 { 0 } else { dice.roll(14) } {
        0..=2 => Conduct::Good,
        3 => Conduct::Blinks(dice.range(90, 200)),
        4 | 5 => Conduct::CrashesOnce(after),
        6 => Conduct::NoRegistry,
        7 => Conduct::Crashes(after % 15 + 1),
        8 => Conduct::Hangs(after % 10),
        9 => Conduct::Falls(after),
        10 => Conduct::Never,
        11 => Conduct::NoImage,
        12 => Conduct::NoConfig,
        _ => Conduct::InitFails,
    };
    let load = if dice.once_in(3) { dice.range(60, 200) } else { dice.range(0, 10) };
    Version { name: nth.to_string(), conduct, load, startup_probe: dice.once_in(3) }
}
