//! `surefoot test`: the unit tests and cases of a policy set, and what they cover.
//!
//! ```text
//!   DIR/**.rego ──▶ gate ──▶ unit tests ──▶ coverage ─┐
//!   CASES/NAME/**.yaml ────▶ cases ───────────────────┴─▶ Run ──▶ text | json | junit
//! ```

mod cases;
mod machine;
mod run;
mod text;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use regex::Regex;

use self::run::{Run, Set};
use super::{Outcome, help};
use crate::config;

/// How often `--watch` looks at the files.
const LOOK: Duration = Duration::from_millis(150);

/// Run the unit tests and cases of policies, with coverage
///
/// Unit tests are the rules test_… of *_test.rego, with the meaning that `opa test` gives them: true passes, false and
/// undefined fail, todo_test_… is skipped, test_x[name] is a table of tests. They run in the engine that judges, in which an
/// error of a built-in function fails the test.
///
/// Cases are whole manifests: *.yaml, *.yml and *.json in CASES/POLICY and below. The first line says what is wanted of that policy: `# want: deny CODE`,
/// `# want: warn CODE` (several codes with commas) or `# want: allow`. All documents but the last are the cluster, the
/// last is applied. A policy that needs history finds it in records (ConfigMaps of
/// surefoot-system, as kubectl gives them) among the documents; one that needs isolation is asked of each Namespace, with
/// the ResourceQuotas, LimitRanges and NetworkPolicies of the file. Cases do not belong below the policies: `opa test` would load them as data.
///
/// A line is covered when every rule and statement on it was reached by a unit test.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = help::TEST)]
pub(super) struct Test {
    /// Policy folders; each is a set of its own [default: policies]
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Folder of cases [default: tests/cases beside DIR]
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// Configuration for the cases: parameters, actions, exemptions
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run only tests and cases whose name matches this regular expression; measures no coverage
    #[arg(long, value_name = "PATTERN", conflicts_with = "min_coverage")]
    run: Option<Regex>,
    /// Fail when fewer per cent of all lines are covered
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_coverage: Option<f64>,
    /// Time that one unit test may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// Run again whenever a file changes, until interrupted
    #[arg(long)]
    watch: bool,
    /// Show every test, what passing ones print, and values in full
    #[arg(short, long)]
    verbose: bool,
    /// How to show what was found
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For scripts; stable, version 1
    Json,
    /// For CI systems that show tests: JUnit XML
    Junit,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("it takes a number from 0 to 100".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).filter(|limit| !limit.is_zero()).ok_or_else(|| "it takes e.g. 5s or 1m".to_owned())
}

impl Test {
    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        if self.dirs.is_empty() {
            let default = PathBuf::from("policies");
            ensure!(default.is_dir(), "there is no folder `policies` here; name one: surefoot test DIR");
            self.dirs.push(default);
        }
        if self.watch {
            return self.watch();
        }
        let run = self.once();
        self.show(&run)?;
        Ok(run.outcome())
    }

    fn once(&self) -> Run {
        let started = Instant::now();
        let sets = self.dirs.iter().map(|dir| Set::run(self, dir)).collect();
        Run { sets, filtered: self.run.is_some(), min_coverage: self.min_coverage, took: started.elapsed() }
    }

    fn show(&self, run: &Run) -> anyhow::Result<()> {
        match self.output {
            Format::Text => {
                anstream::eprint!("{}", text::render_problems(run));
                super::print(&text::render(run, self.verbose))
            }
            Format::Json => super::print(&(machine::json(run)? + "\n")),
            Format::Junit => super::print(&machine::junit(run)?),
        }
    }

    /// Runs again and again; ends with the process.
    fn watch(&self) -> anyhow::Result<Outcome> {
        loop {
            let seen = self.inputs();
            let run = self.once();
            if self.output == Format::Text && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
                // Up to the first line, and away with what was there.
                super::print("\x1b[H\x1b[2J\x1b[3J")?;
            }
            self.show(&run)?;
            if self.output == Format::Text {
                super::print("waiting for a change\n")?;
            }
            // What changed during the run is a change, too.
            while self.inputs() == seen {
                thread::sleep(LOOK);
            }
        }
    }

    /// What a run reads: names, sizes and times.
    fn inputs(&self) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
        let mut found = Vec::new();
        for dir in &self.dirs {
            look(dir, &mut found);
            look(&self.cases_of(dir), &mut found);
        }
        self.config.iter().for_each(|file| look(file, &mut found));
        found.sort();
        found
    }

    fn cases_of(&self, dir: &Path) -> PathBuf {
        self.cases.clone().unwrap_or_else(|| beside(dir).join("tests/cases"))
    }

    fn wants(&self, name: &str) -> bool {
        self.run.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }
}

/// The folder that `dir` lies in, as the user would name it.
pub(super) fn beside(dir: &Path) -> PathBuf {
    match (dir.file_name(), dir.parent()) {
        (Some(_), Some(parent)) => parent.to_owned(),
        // `.` or `..`
        _ => dir.join(".."),
    }
}

/// Everything at `path` and below. What cannot be read is no input; the run says so.
fn look(path: &Path, found: &mut Vec<(PathBuf, u64, Option<SystemTime>)>) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    found.push((path.to_owned(), metadata.len(), metadata.modified().ok()));
    if metadata.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.for_each(|entry| look(&entry.path(), found));
    }
}
