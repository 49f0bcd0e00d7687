//! One run: each policy set on its own, and what is to be said of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
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
        TestOutcome, Tests, Watch,
        testing::{self, Coverage},
    },
    cli::{
        Outcome, given_up,
        judge::{Aside, Judge},
        load::{self, Unusable},
    },
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

impl Set {
    /// It ends, whatever is in the folder.
    pub(super) fn run(args: &Test, dir: &Path) -> Self {
        // A test is asked, and then why it failed and what it tried, each within the time that it may take.
        let limit = load::STUCK + args.timeout.saturating_mul(3);
        let (args, set) = (args.clone(), dir.to_owned());
        given_up::unless_stuck(limit, move |watch| Self::filled(&args, &set, watch)).unwrap_or_else(|error| Self {
            problems: vec![format!("{}: {error:#}; the set was not tested", dir.display())],
            ..Self::default()
        })
    }

    fn filled(args: &Test, dir: &Path, watch: &Watch) -> Self {
        let mut set = Self::default();
        match set.fill(args, dir, watch) {
            Ok(()) => {}
            Err(Unusable::Unread(error)) => set.problems.push(format!("{error:#}")),
            Err(Unusable::Wrong(errors)) => set.problems.extend(errors.0.iter().map(ToString::to_string)),
        }
        set
    }

    fn fill(&mut self, args: &Test, dir: &Path, watch: &Watch) -> Result<(), Unusable> {
        let config = load::config(args.config.as_deref())?;
        let policies = load::policies(Some(dir), &config)?;
        let sources = load::read(dir)?;
        let tests = Tests::load(&sources)?;
        let folder = args.cases_of(dir);
        let cases = if args.cases.is_some() || folder.is_dir() { cases::find(&folder)? } else { Cases::default() };
        self.notes =
            cases::strays(&cases, &policies).into_iter().map(|it| format!("{}: {it}", folder.display())).collect();
        for policy in sources.iter().filter(|source| !source.path.ends_with("_test.rego")) {
            self.rows.entry(group(&policy.path)).or_default();
        }
        self.unit_tests(args, dir, &tests, watch);
        let judge = Judge {
            set: policies,
            policies: Some(dir.to_owned()),
            config,
            with_defaults: true,
            now: Timestamp::now(),
            aside: Aside::default(),
        };
        let ended = tests.iter().filter(|test| args.run.is_none() && self.ended(&test.name, args.timeout));
        let ended: Vec<&testing::Test> = ended.collect();
        let coverage = thread::scope(|scope| {
            // Beside the cases, which take as long.
            let coverage = scope.spawn(|| tests.coverage(ended.into_iter(), args.timeout, watch));
            self.run_cases(args, &judge, cases.files, watch);
            coverage.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
        });
        for (file, coverage) in coverage.into_iter().filter(|_| args.run.is_none()) {
            let text = sources.iter().find(|source| source.path == file).map(|it| it.text.clone());
            let row = self.rows.entry(group(&file)).or_default();
            let file = load::shown(Some(dir), &file);
            row.files.push(Covered { file, text: text.unwrap_or_default(), coverage });
        }
        if self.tests.is_empty() && self.cases.is_empty() {
            self.problems.push(match &args.run {
                Some(pattern) => format!("no test or case of {} matches `{pattern}`", dir.display()),
                None => format!("{}: there is no test; write rules test_… in policy_test.rego", dir.display()),
            });
        }
        Ok(())
    }

    fn unit_tests(&mut self, args: &Test, dir: &Path, tests: &Tests, watch: &Watch) {
        for test in tests.iter().filter(|test| args.wants(&test.name)) {
            watch.test(&test.name);
            let mut outcome = tests.run(test, args.timeout);
            let row = self.rows.entry(group(&outcome.file)).or_default();
            row.tests += 1;
            row.took += outcome.took;
            outcome.file = load::shown(Some(dir), &outcome.file);
            for printed in &mut outcome.prints {
                *printed = load::shown(Some(dir), printed);
            }
            self.tests.push(outcome);
        }
    }

    /// It did not spend all of its time, so it may be asked again.
    fn ended(&self, name: &str, limit: Duration) -> bool {
        self.tests.iter().any(|outcome| outcome.name == name && outcome.took < limit)
    }

    fn run_cases(&mut self, args: &Test, judge: &Judge, cases: Vec<(String, PathBuf)>, watch: &Watch) {
        for (policy, file) in cases {
            // Cases of policies that there are not are told in a note.
            let Some(known) = judge.set.policies().iter().find(|it| it.name == policy) else { continue };
            if !args.wants(&file.display().to_string()) {
                continue;
            }
            watch.test(&file.display().to_string());
            let case = cases::run(judge, known, &file);
            let row = self.rows.entry(group(&known.file)).or_default();
            row.cases += 1;
            row.took += case.took;
            self.cases.push(case);
        }
    }
}

/// What a file belongs to: its folder; of a flat set, what it is about.
fn group(file: &str) -> String {
    match file.split_once('/') {
        Some((folder, _)) => folder.to_owned(),
        None => file.trim_end_matches(".rego").trim_end_matches("_test").to_owned(),
    }
}
