//! One run: each policy set on its own, and what is to be said of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Test,
    cases::{self, Case, Cases},
};
use crate::{
    admission::{
        PolicySet, Source, TestOutcome, Tests, Watch,
        testing::{self, Coverage},
    },
    cli::{
        Outcome, given_up,
        judge::{Aside, Judge},
        load::{self, Unusable},
        plural,
    },
    config::Config,
};

/// Everything that one run has to say.
pub(super) struct Run {
    pub(super) sets: Vec<Set>,
    /// Only a part was asked for: coverage says nothing.
    pub(super) filtered: bool,
    pub(super) min_coverage: Option<f64>,
    pub(super) took: Duration,
}

/// What one policy folder gave.
#[derive(Default)]
pub(super) struct Set {
    /// Why nothing, or not all, was run: one text each, with its place.
    pub(super) problems: Vec<String>,
    /// By folder.
    pub(super) rows: BTreeMap<String, Row>,
    pub(super) tests: Vec<TestOutcome>,
    pub(super) cases: Vec<Case>,
    /// Sentences that are no failures.
    pub(super) notes: Vec<String>,
}

/// A policy of the set, or `lib`.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) tests: usize,
    pub(super) cases: usize,
    pub(super) took: Duration,
    pub(super) files: Vec<Covered>,
}

/// A file without tests in it, and what was reached of it.
#[derive(Debug)]
pub(super) struct Covered {
    /// As the user would name it.
    pub(super) file: String,
    pub(super) text: String,
    pub(super) coverage: Coverage,
}

impl Run {
    pub(super) fn rows(&self) -> impl Iterator<Item = (&String, &Row)> {
        self.sets.iter().flat_map(|set| &set.rows)
    }

    pub(super) fn tests(&self) -> impl Iterator<Item = &TestOutcome> {
        self.sets.iter().flat_map(|set| &set.tests)
    }

    pub(super) fn cases(&self) -> impl Iterator<Item = &Case> {
        self.sets.iter().flat_map(|set| &set.cases)
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.sets.iter().flat_map(|set| &set.problems)
    }

    /// Tests and cases that failed.
    pub(super) fn failed(&self) -> usize {
        let tests = self.tests().filter(|test| test.failed.is_some()).count();
        tests + self.cases().filter(|case| case.failed.is_some()).count()
    }

    /// Per cent of all lines; `None` where it was not measured or there are no lines.
    pub(super) fn coverage(&self) -> Option<f64> {
        let rows = self.rows().map(|(_, row)| row.lines());
        percent(rows.fold((0, 0), |(lines, missed), row| (lines + row.0, missed + row.1)))
    }

    /// Less was covered than is wanted.
    pub(super) fn too_little(&self) -> bool {
        self.min_coverage.is_some_and(|least| self.coverage().unwrap_or(0.0) < least)
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            _ if self.problems().next().is_some() => Outcome::Failed,
            _ if self.failed() > 0 || self.too_little() => Outcome::Findings,
            _ => Outcome::Fine,
        }
    }
}

impl Row {
    /// How many lines, and how many of them were missed.
    fn lines(&self) -> (usize, usize) {
        let sum = |count: fn(&Coverage) -> usize| self.files.iter().map(|file| count(&file.coverage)).sum();
        (sum(|coverage| coverage.lines.len()), sum(|coverage| coverage.missed.len()))
    }

    pub(super) fn coverage(&self) -> Option<f64> {
        percent(self.lines())
    }
}

fn percent((lines, missed): (usize, usize)) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer lines than a double can count")]
    (lines > 0).then(|| 100.0 * (lines - missed) as f64 / lines as f64)
}

/// What a folder has to run.
struct Work {
    args: Test,
    dir: PathBuf,
    config: Config,
    policies: PolicySet,
    sources: Vec<Source>,
    tests: Tests,
    /// Its folder, and what lies there.
    folder: PathBuf,
    cases: Cases,
}

impl Work {
    fn load(args: Test, dir: PathBuf) -> Result<Self, Unusable> {
        let config = load::config(args.config.as_deref())?;
        let policies = load::policies(Some(&dir), &config)?;
        let sources = load::read(&dir)?;
        let tests = Tests::load(&sources)?;
        let folder = args.cases_of(&dir);
        let cases = if args.cases.is_some() || folder.is_dir() { cases::find(&folder)? } else { Cases::default() };
        Ok(Self { args, dir, config, policies, sources, tests, folder, cases })
    }

    fn run_test(&self, test: &testing::Test, watch: &Watch) -> TestOutcome {
        let shown = |file: &str| load::shown(Some(&self.dir), file);
        watch.begin(&format!("{}:{}:{}: test {}", shown(&test.file), test.line, test.column, test.name));
        let mut outcome = self.tests.run(test, self.args.timeout);
        outcome.file = shown(&outcome.file);
        for printed in &mut outcome.prints {
            *printed = shown(printed);
        }
        outcome
    }

    /// Those that match `--run`.
    fn wanted_tests(&self) -> impl Iterator<Item = &testing::Test> {
        self.tests.iter().filter(|test| self.args.wants(&test.name))
    }

    fn run_cases(&self, found: &Sender<(String, Case)>, watch: &Watch) {
        let judge = Judge {
            set: self.policies.clone(),
            policies: Some(self.dir.clone()),
            config: self.config.clone(),
            with_defaults: true,
            now: Timestamp::now(),
            aside: Aside::default(),
        };
        for (policy, file) in &self.cases.files {
            // Cases of policies that there are not are told in a note.
            let Some(known) = judge.set.policies().iter().find(|it| it.name == *policy) else { continue };
            if self.args.wants(&file.display().to_string()) {
                watch.begin(&format!("{}: the case", file.display()));
                let _nobody_waits = found.send((group(&known.file), cases::run(&judge, known, file)));
            }
        }
    }
}

/// What to do about a question that nothing stops.
const BOUND: &str = "look for what doubles at each step, and bound it";

impl Set {
    /// It ends, whatever is in the folder. What is given up costs only itself: what was found besides is in the set.
    pub(super) fn run(args: &Test, dir: &Path) -> Self {
        let mut set = Self::default();
        let loaded = {
            let (args, dir) = (args.clone(), dir.to_owned());
            given_up::unless_stuck(load::STUCK, move |_| Work::load(args, dir))
        };
        match loaded.unwrap_or_else(|stuck| Err(stuck.context(format!("{} was not tested", dir.display())).into())) {
            Ok(work) => set.fill(&Arc::new(work)),
            Err(Unusable::Unread(error)) => set.problems.push(format!("{error:#}")),
            Err(Unusable::Wrong(errors)) => set.problems.extend(errors.0.iter().map(ToString::to_string)),
        }
        set
    }

    fn fill(&mut self, work: &Arc<Work>) {
        let strays = cases::strays(&work.cases, &work.policies).into_iter();
        self.notes = strays.map(|it| format!("{}: {it}", work.folder.display())).collect();
        for policy in work.sources.iter().filter(|source| !source.path.ends_with("_test.rego")) {
            self.rows.entry(group(&policy.path)).or_default();
        }
        self.unit_tests(work);
        // Side by side: they take as long as each other.
        let (cases, coverage) = thread::scope(|scope| {
            let coverage = scope.spawn(|| self.measured(work));
            (judged(work), coverage.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked)))
        });
        self.add_coverage(work, coverage);
        self.add_cases(cases);
        if self.tests.is_empty() && self.cases.is_empty() && self.problems.is_empty() {
            let dir = work.dir.display();
            self.problems.push(match &work.args.run {
                Some(pattern) => format!("no test or case of {dir} matches `{pattern}`"),
                None => format!("{dir}: there is no test; write rules test_… in policy_test.rego"),
            });
        }
    }

    fn unit_tests(&mut self, work: &Arc<Work>) {
        let (sender, outcomes) = channel();
        let its = Arc::clone(work);
        let ended = given_up::unless_stuck(stuck_after(&work.args), move |watch| {
            for test in its.wanted_tests() {
                let _nobody_waits = sender.send((group(&test.file), its.run_test(test, watch)));
            }
        });
        for (group, outcome) in outcomes.try_iter() {
            let row = self.rows.entry(group).or_default();
            row.tests += 1;
            row.took += outcome.took;
            self.tests.push(outcome);
        }
        if let Err(stuck) = ended {
            let after = work.wanted_tests().count().saturating_sub(self.tests.len() + 1);
            let rest = if after > 0 { format!("; not run after it: {}", plural(after, "test")) } else { String::new() };
            self.problems.push(format!("{stuck:#}; {BOUND}{rest}"));
        }
    }

    /// What the tests reach that did not spend all of their time: they may be asked again.
    fn measured(&self, work: &Arc<Work>) -> anyhow::Result<BTreeMap<String, Coverage>> {
        if work.args.run.is_some() {
            return Ok(BTreeMap::new());
        }
        let limit = work.args.timeout;
        let ended = self.tests.iter().filter(|test| test.took < limit).map(|test| test.name.clone());
        let (its, ended): (_, BTreeSet<String>) = (Arc::clone(work), ended.collect());
        given_up::unless_stuck(stuck_after(&work.args), move |watch| {
            its.tests.coverage(its.tests.iter().filter(|test| ended.contains(&test.name)), limit, watch)
        })
    }

    fn add_coverage(&mut self, work: &Work, coverage: anyhow::Result<BTreeMap<String, Coverage>>) {
        let coverage = coverage.unwrap_or_else(|stuck| {
            self.problems.push(format!("{}: {stuck:#}; {BOUND}", work.dir.display()));
            BTreeMap::new()
        });
        for (file, coverage) in coverage {
            let text = work.sources.iter().find(|source| source.path == file).map(|it| it.text.clone());
            let row = self.rows.entry(group(&file)).or_default();
            let file = load::shown(Some(&work.dir), &file);
            row.files.push(Covered { file, text: text.unwrap_or_default(), coverage });
        }
    }

    fn add_cases(&mut self, (cases, stuck): (Vec<(String, Case)>, Option<anyhow::Error>)) {
        for (group, case) in cases {
            let row = self.rows.entry(group).or_default();
            row.cases += 1;
            row.took += case.took;
            self.cases.push(case);
        }
        self.problems.extend(stuck.map(|stuck| format!("{stuck:#}; {BOUND}; the cases after it were not run")));
    }
}

/// The cases of a folder, by group, and what does not end.
fn judged(work: &Arc<Work>) -> (Vec<(String, Case)>, Option<anyhow::Error>) {
    let (sender, found) = channel();
    let its = Arc::clone(work);
    let ended = given_up::unless_stuck(stuck_after(&work.args), move |watch| its.run_cases(&sender, watch));
    (found.try_iter().collect(), ended.err())
}

/// A test is asked, and then why it failed and what it tried, each within the time that it may take.
fn stuck_after(args: &Test) -> Duration {
    load::STUCK + args.timeout.saturating_mul(3)
}

/// What a file belongs to: its folder; of a flat set, what it is about.
fn group(file: &str) -> String {
    match file.split_once('/') {
        Some((folder, _)) => folder.to_owned(),
        None => file.trim_end_matches(".rego").trim_end_matches("_test").to_owned(),
    }
}
