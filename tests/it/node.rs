//! Rollouts on a real node, each in a namespace of its own and all side by side: most of their time is waiting. Each says
//! what was decided, on what evidence, and after how many seconds. The budget is the default, the bake is 10 s.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

use crate::{
    is_asked, node_causes, node_hands, node_others, node_trial,
    rollouts::{Scene, image_of, model},
    support::{Look, image::digits, until},
};

/// What happens, and in the end what was decided, in words.
pub(crate) type Play = fn() -> Result<String>;

/// More of them and their pods take so much of a small machine that its probes time out.
const SIDE_BY_SIDE: usize = 6;

/// Longer than the longest waits for anything.
const LIMIT: Duration = Duration::from_secs(400);

/// `arguments`: only what is asked for is played.
pub(crate) fn trials(arguments: &Arguments) -> Vec<Trial> {
    let all = [node_causes::PLAYS, node_hands::PLAYS, node_others::PLAYS].concat();
    let asked: Vec<(String, Play)> = all.into_iter().map(|(name, play)| (format!("node::{name}"), play)).collect();
    let asked: Vec<_> = asked.into_iter().filter(|(name, _)| is_asked(arguments, name)).collect();
    let company = Arc::new(Company { asked, ends: OnceLock::new() });
    let trial = |at: usize| {
        let its = company.clone();
        node_trial(&company.asked[at].0, move || its.end_of(at))
    };
    (0..company.asked.len()).map(trial).collect()
}

type End = Result<(), String>;

/// All plays that were asked for. They begin when the end of one is waited for.
struct Company {
    asked: Vec<(String, Play)>,
    ends: OnceLock<Vec<Mutex<Receiver<End>>>>,
}

impl Company {
    fn end_of(&self, at: usize) -> Result<()> {
        let end = self.ends.get_or_init(|| self.begin())[at].lock().unwrap_or_else(PoisonError::into_inner).recv()?;
        end.map_err(|error| anyhow!(error))
    }

    fn begin(&self) -> Vec<Mutex<Receiver<End>>> {
        let (mut waiting, mut ends) = (VecDeque::new(), Vec::new());
        for (name, play) in &self.asked {
            let (tell, end) = mpsc::channel();
            waiting.push_back((name.clone(), *play, tell));
            ends.push(Mutex::new(end));
        }
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..SIDE_BY_SIDE {
            let waiting = waiting.clone();
            thread::spawn(move || {
                while let Some(next) = next(&waiting) {
                    perform(next)
                }
            });
        }
        ends
    }
}

type Waiting = (String, Play, Sender<End>);

fn next(waiting: &Mutex<VecDeque<Waiting>>) -> Option<Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn perform((name, play, tell): Waiting) {
    let begun = Instant::now();
    let end = catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|_| Err(anyhow!("it panicked")));
    let end = end.map(|told| println!("{name:<54} {:>5.1} s  {told}", begun.elapsed().as_secs_f32()));
    // Nobody listens where the run has ended early.
    let _told = tell.send(end.map_err(|error| format!("{error:#}")));
}

/// A Deployment of a version: an image of the test bed, and what it is started with besides.
pub(crate) fn file(version: &str, image: &str, arguments: &[&str]) -> Value {
    let mut file = model(image, &[]);
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        set(&mut file, labels, "app.kubernetes.io/version", json!(version));
    }
    if !arguments.is_empty() {
        set(&mut file, CONTAINER, "args", json!(arguments));
    }
    file
}

pub(crate) const CONTAINER: &str = "/spec/template/spec/containers/0";
pub(crate) const POD: &str = "/spec/template/spec";

/// Sets a member of the object at a pointer.
pub(crate) fn set(file: &mut Value, at: &str, key: &str, value: Value) {
    if let Some(object) = file.pointer_mut(at) {
        object[key] = value;
    }
}

/// With a progress deadline that is over soon.
pub(crate) fn soon_late(mut file: Value) -> Value {
    set(&mut file, "/spec", "progressDeadlineSeconds", json!(12));
    file
}

/// What the record has to say of a revert.
pub(crate) struct Verdict {
    pub(crate) signals: &'static [&'static str],
    pub(crate) class: &'static str,
    pub(crate) container: &'static str,
    pub(crate) replicas: u32,
}

impl Verdict {
    pub(crate) const fn of(signals: &'static [&'static str]) -> Self {
        Self { signals, class: "application", container: "model", replicas: 2 }
    }

    pub(crate) const fn configuration(signals: &'static [&'static str]) -> Self {
        Self { class: "configuration", ..Self::of(signals) }
    }
}

/// A model in a namespace with the default budget.
pub(crate) struct Ground {
    pub(crate) scene: Scene,
    /// When the version was applied that the play is about.
    pub(crate) begun: Instant,
}

impl Ground {
    /// Nothing is there yet.
    pub(crate) fn bare(name: &str) -> Result<Self> {
        let labels = "surefoot.dev/guard: enforce, budget: default, strategy: any";
        Ok(Self { scene: Scene::with_labels(&format!("play-{name}"), labels)?, begun: Instant::now() })
    }

    /// Version 1 has settled.
    pub(crate) fn settled(name: &str) -> Result<Self> {
        Self::settled_with(name, &file("1", "good", &[]))
    }

    pub(crate) fn settled_with(name: &str, file: &Value) -> Result<Self> {
        let mut ground = Self::bare(name)?;
        ground.apply(file)?;
        ground.settles("1")?;
        Ok(ground)
    }

    pub(crate) fn apply(&mut self, file: &Value) -> Result<()> {
        self.begun = Instant::now();
        self.scene.apply(file)?.success().map(drop)
    }

    /// What completes from now on does not settle within a play.
    pub(crate) fn bakes_long(&self) -> Result<()> {
        self.scene.admin.run(&["label", "namespace", &self.scene.namespace, "bake=long"])?.success().map(drop)
    }

    pub(crate) fn seconds(&self) -> f32 {
        self.begun.elapsed().as_secs_f32()
    }

    pub(crate) fn record_of(&self, name: &str) -> Result<Value> {
        let record = format!("record.{}.{name}", self.scene.namespace);
        let path = format!("/api/v1/namespaces/surefoot-system/configmaps/{record}");
        let found = self.scene.plane.get(&path)?.unwrap_or_default();
        Ok(serde_json::from_str(found["data"]["record.json"].as_str().unwrap_or("null"))?)
    }

    pub(crate) fn record(&self) -> Result<Value> {
        self.record_of("digits")
    }

    /// Waits for what the record says.
    pub(crate) fn record_when(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = until(what, LIMIT, || {
            let record = self.record()?;
            Ok(if wanted(&record) { Look::Done(record) } else { Look::Not(record.to_string()) })
        });
        found.map_err(|error| anyhow!("{error:#}\n{}", self.scene.story()))
    }

    /// Waits until a version is last good; says what it had spent.
    pub(crate) fn settles(&self, version: &str) -> Result<String> {
        let is_told = |record: &Value| record["settled"][0]["version"] == version || reverts(record) > 0;
        let record = self.record_when(&format!("{version} to settle"), is_told)?;
        ensure!(record["settled"][0]["version"] == version, "not settled, but: {record}\n{}", self.scene.story());
        Ok(format!("settled after {:.1} s", self.seconds()))
    }

    /// Waits until pods of a version are there, in any state.
    pub(crate) fn has_pods(&self, version: &str) -> Result<Vec<Value>> {
        until(&format!("pods of {version}"), Duration::from_secs(60), || {
            let pods = self.pods(version)?;
            Ok(if pods.is_empty() { Look::Not("none".to_owned()) } else { Look::Done(pods) })
        })
    }

    /// Its pods that are not going away.
    pub(crate) fn pods(&self, version: &str) -> Result<Vec<Value>> {
        let selector = format!("labelSelector=app.kubernetes.io/version={version}");
        let path = format!("/api/v1/namespaces/{}/pods?{selector}", self.scene.namespace);
        let pods = self.scene.plane.get(&path)?.unwrap_or_default();
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        Ok(pods.into_iter().filter(|pod| pod["metadata"].get("deletionTimestamp").is_none()).collect())
    }

    /// Waits until as many replicas of a version are there as are wanted, and available.
    pub(crate) fn complete(&self, version: &str) -> Result<Value> {
        self.scene.until(&format!("{version} to be complete"), "digits", |digits| complete(digits, version))
    }

    /// Waits for version 1 to be back, and says on what evidence.
    pub(crate) fn reverted(&self, verdict: &Verdict) -> Result<String> {
        let record = self.record_when("the revert", |record| record["reverts"][0]["outcome"] == "written")?;
        let written = self.seconds();
        self.scene.until("the good version to be back, alone", "digits", |digits| complete(digits, "1"))?;
        let back = self.seconds();
        let revert = &record["reverts"][0];
        let evidence = &revert["evidence"];
        let all = || format!("{record}\n{}", self.scene.story());
        ensure!(reverts(&record) == 1 && revert["target"]["version"] == "1", "{}", all());
        ensure!(verdict.signals.iter().any(|signal| evidence["signal"] == *signal), "another signal: {}", all());
        ensure!(revert["class"] == verdict.class && evidence["container"] == verdict.container, "{}", all());
        let events = self.scene.events_with("RolloutReverted")?;
        ensure!(events.len() == 1, "{} Events: {events:?}", events.len());
        let replicas = &self.scene.deployment("digits")?["spec"]["replicas"];
        ensure!(*replicas == verdict.replicas, "replicas were touched: {replicas}");
        Ok(format!("reverted after {written:.1} s, 1 was alone and ready after {back:.1} s: {}", words(evidence)?))
    }

    /// Nothing was reverted, nor is version 1 back.
    pub(crate) fn left_alone(&self) -> Result<()> {
        let (record, events) = (self.record()?, self.scene.events_with("RolloutReverted")?);
        ensure!(reverts(&record) == 0 && events.is_empty(), "{record}\n{}", self.scene.story());
        Ok(())
    }

    /// Watches for some seconds that it stays so.
    pub(crate) fn stays_for(&self, seconds: u64, is_so: impl Fn() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        until("time to pass", LIMIT, || {
            is_so()?;
            let over = begun.elapsed() > Duration::from_secs(seconds);
            Ok(if over { Look::Done(()) } else { Look::Not(String::new()) })
        })
    }

    /// Waits until the progress deadline is over and surefoot says what keeps the pods from running.
    pub(crate) fn hindered(&self, reason: &str) -> Result<String> {
        self.scene.until("the progress deadline to be over", "digits", |digits| {
            let conditions = digits["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|one| one["reason"] == "ProgressDeadlineExceeded")
        })?;
        let record = self.record_when("what keeps the pods from running", |record| {
            record["current"]["hindrance"]["reason"] == reason || reverts(record) > 0
        })?;
        self.left_alone()?;
        let message = record["current"]["hindrance"]["message"].as_str().unwrap_or_default();
        let message: String = message.chars().take(60).collect();
        Ok(format!("told, not reverted, after {:.1} s: {reason}: {message}", self.seconds()))
    }

    /// Waits until it is said why nothing is done.
    pub(crate) fn stalls(&self, reason: &str) -> Result<String> {
        let record = self.record_when(reason, |record| record["current"]["stall"]["reason"] == reason)?;
        Ok(format!("{reason} after {:.1} s: {}", self.seconds(), words(&record["current"]["stall"]["evidence"])?))
    }
}

pub(crate) fn reverts(record: &Value) -> usize {
    record["reverts"].as_array().map_or(0, Vec::len)
}

fn complete(digits: &Value, version: &str) -> bool {
    let status = &digits["status"];
    let label = &digits["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"];
    let counts = [&status["replicas"], &status["updatedReplicas"], &status["availableReplicas"]];
    *label == version
        && status["observedGeneration"] == digits["metadata"]["generation"]
        && counts.iter().all(|count| **count == digits["spec"]["replicas"])
}

/// `12 of 30 against 10 within 4 s, crash of "model", exit code 1`
pub(crate) fn words(evidence: &Value) -> Result<String> {
    let time = |key: &str| -> Result<jiff::Timestamp> { Ok(evidence[key].as_str().unwrap_or_default().parse()?) };
    let took = time("until")?.duration_since(time("since")?).as_secs_f32();
    let text = |key: &str| evidence[key].as_str().unwrap_or_default().to_owned();
    let figures = [&evidence["failures"], &evidence["attempts"], &evidence["budget"]];
    let [failures, attempts, budget] = figures;
    let message: String = text("message").chars().take(60).collect();
    Ok(format!(
        "{failures} of {attempts} against {budget} in {took:.1} s, {} of \"{}\" {message}",
        text("signal"),
        text("container")
    ))
}

/// What runs is an image of the test bed.
pub(crate) fn runs(ground: &Ground, image: &str) -> Result<()> {
    let deployment = ground.scene.deployment("digits")?;
    if image_of(&deployment) != digits(image) {
        bail!("{} runs\n{}", image_of(&deployment), ground.scene.story());
    }
    Ok(())
}
