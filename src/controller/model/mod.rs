//! Every order in which two controllers, a tool that applies the bad version again and crashes can come together, within
//! small bounds, explored by a model checker. What the controllers do is the controller's own code (see [`mind`]); the
//! API server they ask is a value (see [`cluster`]).
//!
//! A controller sees what its watches showed it at some time: the Deployment with what belongs to it, and the record, each
//! as old as it likes. A request that was sent arrives at any later time, also when its sender is dead or leads no more.

mod cluster;
mod mind;

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stateright::{Checker, Model, Property};

use self::{
    cluster::{Answer, Cluster, Kept, Objects, Request, digest, refusal, template},
    mind::{Mind, Next, Remembered, Task},
};
use crate::rollout::{
    decide::MOST_REVERTS,
    record::{Outcome, StallReason},
};

/// What may happen, and how often.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    /// The tool applies the bad version again.
    applies: u8,
    /// Somebody changes something else of the Deployment.
    edits: u8,
    /// A controller dies.
    crashes: u8,
    /// The lease of a controller that lives runs out (it was frozen, or cut off).
    losses: u8,
    /// A person reverts by hand.
    hands: u8,
    /// A request gets no answer, or 500: done or not.
    faults: u8,
}

/// The protocol with its surroundings.
struct Protocol(Bounds);

/// The same for all models: what the code does does not depend on the bounds.
static MIND: LazyLock<Mind> = LazyLock::new(Mind::default);

/// One of the two controllers, or a person.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct Process {
    /// The oldest of what was there that its watches may show when it looks next: they never go back.
    since: [usize; 2],
    remembered: Option<Kept<Remembered>>,
    work: Option<Work>,
}

/// A look that is under way.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct Work {
    task: Task,
    asks: Kept<Request>,
    /// A write is sent only by one that leads, a read by any.
    sent: bool,
    /// It leads for another time since: what this look remembers is forgotten.
    outlived: bool,
}

/// All of it at one moment.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct World {
    cluster: Cluster,
    /// What was there, oldest first; what is there is the last.
    objects: Vec<Kept<Objects>>,
    records: Vec<Kept<Option<serde_json::Value>>>,
    controllers: [Process; 3],
    leader: Option<usize>,
    /// Writes whose sender has died, and that may arrive yet.
    on_their_way: Vec<Kept<Request>>,
    webhook: bool,
    left: [u8; 6],
    broken: Option<&'static str>,
}

const APPLIES: usize = 0;
const CRASHES: usize = 1;
const LOSSES: usize = 2;
const FAULTS: usize = 3;
const EDITS: usize = 4;
const HANDS: usize = 5;
/// Who is no controller, and needs no lease.
const PERSON: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    /// The tool applies the bad version.
    Apply,
    /// Somebody changes something else.
    Edit,
    /// A person begins to revert by hand, or tries again.
    Hand,
    /// This controller begins to lead.
    Lead(usize),
    /// It begins to look, at the Deployment and the record as they were then.
    Look(usize, [usize; 2]),
    /// It sends a write, if it leads.
    Send(usize),
    /// What it sent arrives, and is answered.
    Arrive(usize),
    /// What it sent arrives, and is not answered in time.
    Unanswered(usize),
    /// What it sent is refused for no fault of its own.
    Refused(usize),
    /// It dies and is started again.
    Crash(usize),
    /// What the dead have sent arrives, or is lost.
    ArriveLate(usize),
    Lost(usize),
}

impl Protocol {
    /// Hears what the controller asks after the last answer.
    fn go_on(&self, world: &mut World, who: usize, mut task: Task, outlived: bool) {
        loop {
            match MIND.next(&task, true) {
                // The same at any time.
                Next::Asks(asks) if asks.is_of_what_never_changes() => {
                    task.answers.push(Kept::new(world.cluster.answer(&asks)));
                }
                Next::Asks(asks) => {
                    let sent = !asks.is_write();
                    world.controllers[who].work = Some(Work { task, asks, sent, outlived });
                    return;
                }
                Next::Ends(remembered) => return Self::end(&mut world.controllers[who], remembered, outlived),
            }
        }
    }

    fn end(controller: &mut Process, remembered: Option<Kept<Remembered>>, outlived: bool) {
        controller.work = None;
        controller.remembered = remembered.filter(|_| !outlived);
    }

    /// A look that asks nothing is none: it leaves the world as it is.
    fn look(&self, world: &mut World, who: usize, at: [usize; 2]) {
        let now = now(&world.cluster) + Duration::from_millis(who as u64);
        let (objects, record) = (world.objects[at[0]].clone(), world.records[at[1]].clone());
        let remembered = world.controllers[who].remembered.clone();
        self.go_on(
            world,
            who,
            Task { objects, record, remembered, now, by_hand: who == PERSON, answers: Vec::new() },
            false,
        );
        if world.controllers[who].work.is_some() {
            world.controllers[who].since = at;
        }
    }

    /// Whether the process sends what it has to send is asked of itself.
    fn send(&self, world: &mut World, who: usize) {
        let leads = who == PERSON || world.leader == Some(who);
        let controller = &mut world.controllers[who];
        let Some(work) = &mut controller.work else { return };
        match MIND.next(&work.task, leads) {
            Next::Asks(_) => {
                work.sent = true;
                if !leads {
                    world.broken = Some("a write without the lease");
                }
            }
            Next::Ends(remembered) => {
                let outlived = work.outlived;
                Self::end(controller, remembered, outlived);
            }
        }
    }

    /// The answer to what the controller has sent. `None`: to nothing that was sent.
    fn answered(&self, world: &mut World, who: usize, answer: impl FnOnce(&mut World, &Request) -> Answer) {
        let Some(mut work) = world.controllers[who].work.take() else { return };
        let answer = answer(world, &work.asks);
        work.task.answers.push(Kept::new(answer));
        self.go_on(world, who, work.task, work.outlived);
    }

    /// A request arrives at the API server. What a revert must find there is looked at when it comes.
    fn arrives(&self, world: &mut World, request: &Request) -> Answer {
        let before = world.cluster.clone();
        let answer = world.cluster.answer(request);
        if world.cluster.reverts > before.reverts {
            let record = MIND.told(&before.record);
            let (to, now) = (digest(&world.cluster.objects.deployment["spec"]["template"]), now(&before));
            let from = digest(&template("2"));
            if !record.has_settled(&to) {
                world.broken = Some("a revert to a template that has not settled");
            }
            if record.quarantined(&to, now).is_some() {
                world.broken = Some("a revert to a quarantined template");
            }
            let open = record.reverts.first().filter(|revert| revert.outcome == Outcome::Recorded);
            if open.is_none_or(|revert| revert.digest != from || !revert.is_quarantine(now)) {
                world.broken = Some("a revert that is not in the record");
            }
        }
        answer
    }

    fn apply(&self, world: &mut World) {
        let record = MIND.told(&world.cluster.record);
        let refused = world.webhook && record.quarantined(&digest(&template("2")), now(&world.cluster)).is_some();
        if !refused {
            world.cluster.apply();
        }
    }

    /// Nothing goes on, the one that leads sees what there is, and has nothing to do.
    fn at_rest(&self, world: &World) -> bool {
        let Some(leader) = world.leader else { return false };
        let idle = world.on_their_way.is_empty() && world.controllers.iter().all(|one| one.work.is_none());
        idle && {
            let mut next = world.clone();
            self.look(&mut next, leader, world.latest());
            next == *world
        }
    }

    /// One revert for each cause, in the record and told, and nothing left to do; after the third it is left as it is.
    fn is_right(&self, world: &World) -> bool {
        let cluster = &world.cluster;
        let record = MIND.told(&cluster.record);
        let written = record.reverts.iter().filter(|revert| revert.outcome == Outcome::Written).count();
        let quarantined = record.quarantined(&digest(&template("2")), now(cluster)).is_some();
        let stall = record.current.as_ref().and_then(|current| current.stall.as_ref());
        let ended = match stall.map(|stall| stall.reason) {
            Some(StallReason::TooManyReverts) => cluster.runs_bad() && written == MOST_REVERTS,
            Some(_) => false,
            None => !cluster.runs_bad() && cluster.is_given_back(),
        };
        ended
            && quarantined
            && (1..=cluster.causes).contains(&written)
            && written == record.reverts.len()
            && written + usize::from(stall.is_some()) == cluster.events.len()
    }
}

impl World {
    fn latest(&self) -> [usize; 2] {
        [self.objects.len() - 1, self.records.len() - 1]
    }

    /// Keeps what is there now, and forgets what nobody can see any more.
    fn remember(&mut self) {
        if self.objects.last() != Some(&self.cluster.objects) {
            self.objects.push(self.cluster.objects.clone());
        }
        if self.records.last() != Some(&self.cluster.record) {
            self.records.push(self.cluster.record.clone());
        }
        let [first, second] =
            [0, 1].map(|kind| self.controllers[..PERSON].iter().map(|one| one.since[kind]).min().unwrap());
        self.objects.drain(..first);
        self.records.drain(..second);
        for controller in &mut self.controllers {
            let [objects, records] = controller.since;
            controller.since = [objects.saturating_sub(first), records.saturating_sub(second)];
        }
    }
}

/// Time passes with what is written.
fn now(cluster: &Cluster) -> Timestamp {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    noon + Duration::from_secs(cluster.writes.into())
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let cluster = Cluster::new();
        let controller = Process { since: [0, 0], remembered: None, work: None };
        let Bounds { applies, crashes, losses, faults, edits, hands } = self.0;
        let world = |webhook| World {
            cluster: cluster.clone(),
            objects: vec![cluster.objects.clone()],
            records: vec![cluster.record.clone()],
            controllers: [(); 3].map(|()| controller.clone()),
            leader: Some(0),
            on_their_way: Vec::new(),
            webhook,
            left: [applies, crashes, losses, faults, edits, hands],
            broken: None,
        };
        vec![world(true), world(false)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let left = |what: usize| world.left[what] > 0;
        if left(APPLIES) {
            actions.push(Action::Apply);
        }
        let person = &world.controllers[PERSON];
        if person.work.is_none() && (left(HANDS) || person.remembered.is_some()) {
            actions.push(Action::Hand);
        }
        if left(EDITS) {
            actions.push(Action::Edit);
        }
        for (who, controller) in world.controllers.iter().enumerate() {
            if who != PERSON && world.leader != Some(who) && (world.leader.is_none() || left(LOSSES)) {
                actions.push(Action::Lead(who));
            }
            match &controller.work {
                None if world.leader == Some(who) => {
                    let ([first, second], [objects, records]) = (controller.since, world.latest());
                    let pairs = (first..=objects).flat_map(|one| (second..=records).map(move |other| [one, other]));
                    actions.extend(pairs.map(|at| Action::Look(who, at)));
                }
                Some(work) if work.sent => {
                    actions.push(Action::Arrive(who));
                    if left(FAULTS) {
                        actions.extend([Action::Unanswered(who), Action::Refused(who)]);
                    }
                }
                Some(_) => actions.push(Action::Send(who)),
                None => {}
            }
            if left(CRASHES) && (who != PERSON || controller.work.is_some()) {
                actions.push(Action::Crash(who));
            }
        }
        actions.extend((0..world.on_their_way.len()).flat_map(|one| [Action::ArriveLate(one), Action::Lost(one)]));
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Apply => {
                world.left[APPLIES] -= 1;
                self.apply(&mut world);
            }
            Action::Edit => {
                world.left[EDITS] -= 1;
                world.cluster.edit();
            }
            Action::Hand => {
                world.left[HANDS] -= u8::from(world.controllers[PERSON].remembered.is_none());
                self.look(&mut world, PERSON, before.latest());
            }
            Action::Lead(who) => {
                world.left[LOSSES] -= u8::from(world.leader.is_some());
                world.leader = Some(who);
                let controller = &mut world.controllers[who];
                controller.remembered = None;
                controller.work.iter_mut().for_each(|work| work.outlived = true);
            }
            Action::Look(who, at) => self.look(&mut world, who, at),
            Action::Send(who) => self.send(&mut world, who),
            Action::Arrive(who) => self.answered(&mut world, who, |world, request| self.arrives(world, request)),
            Action::Unanswered(who) => {
                world.left[FAULTS] -= 1;
                self.answered(&mut world, who, |world, request| {
                    self.arrives(world, request);
                    refusal(504)
                });
            }
            Action::Refused(who) => {
                world.left[FAULTS] -= 1;
                self.answered(&mut world, who, |_, _| refusal(500));
            }
            Action::Crash(who) => {
                world.left[CRASHES] -= 1;
                let fresh = Process { since: world.latest(), remembered: None, work: None };
                let work = std::mem::replace(&mut world.controllers[who], fresh).work;
                world.on_their_way.extend(work.filter(|work| work.sent && work.asks.is_write()).map(|work| work.asks));
                world.leader = world.leader.filter(|leader| *leader != who);
            }
            Action::ArriveLate(one) => {
                let request = world.on_their_way.remove(one);
                self.arrives(&mut world, &request);
            }
            Action::Lost(one) => drop(world.on_their_way.remove(one)),
        }
        world.remember();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("what must never happen does not", |_: &Self, world: &World| world.broken.is_none()),
            Property::always("no two reverts for one cause", |_: &Self, world: &World| {
                let Cluster { causes, reverts, events, record, .. } = &world.cluster;
                let recorded = MIND.told(record).reverts.len();
                [recorded, events.len(), *reverts].iter().all(|count| count <= causes)
            }),
            Property::always("at rest all is as it should be", |model: &Self, world: &World| {
                !model.at_rest(world) || model.is_right(world)
            }),
            Property::eventually("it comes to rest", |model: &Self, world: &World| model.at_rest(world)),
        ];
        if self.0.applies > 0 {
            let out = |model: &Self, world: &World| {
                world.webhook && world.left[APPLIES] == 0 && world.cluster.causes == 1 && model.at_rest(world)
            };
            let back = |model: &Self, world: &World| world.cluster.causes > 1 && model.at_rest(world);
            properties.push(Property::sometimes("the webhook keeps the bad version out", out));
            properties.push(Property::sometimes("the bad version comes back and is reverted again", back));
        }
        if self.0.crashes + self.0.losses > 0 {
            properties.push(Property::sometimes(
                "a write is on its way while another leads",
                |_: &Self, world: &World| {
                    let sent = |work: &Work| work.sent && work.asks.is_write();
                    let former = world.controllers.iter().enumerate().filter(|(who, _)| world.leader != Some(*who));
                    let mut former = former.filter_map(|(_, one)| one.work.as_ref());
                    world.leader.is_some() && (!world.on_their_way.is_empty() || former.any(sent))
                },
            ));
        }
        properties
    }
}

/// Explores all of it. Says how much that was, and what it has found.
fn explore(name: &str, bounds: Bounds) -> usize {
    let begun = Instant::now();
    let checker = Protocol(bounds).checker().threads(2).spawn_bfs().join();
    println!(
        "model {name}: {} states, {} steps, {} runs of the controller's code, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        MIND.size(),
        begun.elapsed().as_secs_f32(),
    );
    for (property, path) in checker.discoveries() {
        if checker.discovery_classification(property).to_string() == "counterexample" {
            let World { cluster: end, broken, .. } = path.last_state().clone();
            let actions: Vec<_> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
            let record = MIND.told(&end.record);
            let Cluster { causes, reverts, events, .. } = end;
            panic!(
                "not so: {property}: {broken:?}\n{}\n{causes} causes, {reverts} reverts, {} Events\n{record:#?}",
                actions.join("\n"),
                events.len(),
            );
        }
    }
    checker.assert_properties();
    checker.unique_state_count()
}

#[test]
fn crashes() {
    explore("crashes", Bounds { applies: 1, crashes: 1, ..Bounds::default() });
}

#[test]
fn losses_of_the_lease() {
    explore("losses_of_the_lease", Bounds { applies: 1, losses: 1, ..Bounds::default() });
}

#[test]
fn faults() {
    explore("faults", Bounds { applies: 1, faults: 1, ..Bounds::default() });
}

#[test]
fn a_crash_and_a_loss() {
    explore("a_crash_and_a_loss", Bounds { crashes: 1, losses: 1, ..Bounds::default() });
}

#[test]
fn edits_and_crash() {
    explore("edits_and_crash", Bounds { edits: 1, crashes: 1, ..Bounds::default() });
}

#[test]
fn what_comes_back_and_back() {
    explore("what_comes_back_and_back", Bounds { applies: 3, ..Bounds::default() });
}

#[test]
fn by_hand() {
    explore("by_hand", Bounds { hands: 1, ..Bounds::default() });
}
