//! The tests of a policy set, through the engine that judges: rules named `test_…`, with the meaning that `opa test` gives
//! them. A test passes when it is true; `todo_test_…` waits; `test_x[name] if …` passes when every name it tries holds.
//!
//! ```text
//!   sources ── parse ─▶ Tests ─┬─ run ──▶ TestOutcome ── why: the expression that did not hold, and its values
//!                              └─ coverage ──▶ the lines that no test reaches
//! ```

mod blame;
mod coverage;

use std::{collections::BTreeMap, ops::Range, time::Duration};

use regorus::unstable::{self as ast, Ref, RuleHead, Span};

pub use self::{
    blame::{Shown, Why},
    coverage::Coverage,
};
use super::{
    Watch,
    engine::{Asked, Broken, Engine},
    policy_set::{self, LoadErrors, Source},
};
use crate::template::{Json, json};

/// Time that one test may take, as in `opa test`.
pub const LIMIT: Duration = Duration::from_secs(5);
/// Time that all tests of a set may take where nobody watches them: those that are left then have failed.
const LIMIT_OF_ALL: Duration = Duration::from_secs(60);

/// What one test gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// `data.surefoot.probes_test.test_grpc_counts`
    pub name: String,
    /// File of the test.
    pub file: String,
    /// Where the rule begins, or where it broke.
    pub line: u32,
    /// The same; from 1.
    pub column: u32,
    /// `None`: passed. Else why not.
    pub failed: Option<String>,
    /// It is a `todo_test_…` and was not run.
    pub skipped: bool,
    /// Which expression did not hold, where that can be said.
    pub why: Option<Why>,
    /// What it printed, `file:line: text`.
    pub prints: Vec<String>,
    /// Time it took.
    pub took: Duration,
}

/// Runs every test in `sources`, in the order of the files.
pub fn run_tests(sources: &[Source]) -> Result<Vec<TestOutcome>, LoadErrors> {
    Ok(Tests::load(sources)?.run_all(&Watch::default()))
}

/// The tests of a set, ready to run.
#[derive(Debug)]
pub struct Tests {
    sources: Vec<Source>,
    modules: Vec<Ref<ast::Module>>,
    engine: Engine,
    tests: Vec<Test>,
}

/// One test.
#[derive(Clone, Debug)]
pub struct Test {
    /// `data.surefoot.probes_test.test_grpc_counts`; a second one of that name has `#01` behind it.
    pub name: String,
    /// File of the test.
    pub file: String,
    /// Where the rule begins.
    pub line: u32,
    /// The same; from 1.
    pub column: u32,
    /// The rule as the engine knows it.
    rule: String,
    module: usize,
    position: usize,
}

impl Test {
    fn is_todo(&self) -> bool {
        self.name.rsplit('.').next().is_some_and(|rule| rule.starts_with("todo_"))
    }
}

impl Tests {
    /// Parses and compiles `sources`; files that do not end in `.rego` are passed over.
    ///
    /// # Errors
    ///
    /// Each file that does not parse; or what does not compile. The rest of what a set must be is checked by
    /// [`super::PolicySet::load`].
    pub fn load(sources: &[Source]) -> Result<Self, LoadErrors> {
        let sources: Vec<Source> = sources.iter().filter(|source| source.path.ends_with(".rego")).cloned().collect();
        let (engine, _) = policy_set::parse(&sources)?;
        Self::of(sources, engine)
    }

    /// The tests in `sources`, which `engine` has parsed, one module for each.
    pub(super) fn of(mut sources: Vec<Source>, mut engine: Engine) -> Result<Self, LoadErrors> {
        let mut modules = engine.modules().to_vec();
        let mut tests = tests_of(&modules);
        if rename_repeated(&mut sources, &modules, &mut tests) {
            (engine, _) = policy_set::parse(&sources)?;
            modules = engine.modules().to_vec();
        }
        if let Some(first) = tests.first() {
            engine.prepare(&first.rule).map_err(|broken| load_error(broken, &sources))?;
        }
        Ok(Self { sources, modules, engine, tests })
    }

    /// In the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = &Test> {
        self.tests.iter()
    }

    /// Runs every test, in the order of the files.
    pub(super) fn run_all(&self, watch: &Watch) -> Vec<TestOutcome> {
        let mut left = LIMIT_OF_ALL;
        let run = |test| {
            if left.is_zero() {
                let seconds = LIMIT_OF_ALL.as_secs();
                return TestOutcome::new(test, Some(format!("not run: the tests before it took {seconds} s together")));
            }
            watch.begin(&format!("{}:{}:{}: test {}", test.file, test.line, test.column, test.name));
            let outcome = self.run(test, LIMIT.min(left));
            left = left.saturating_sub(outcome.took);
            outcome
        };
        self.iter().map(run).collect()
    }

    /// Runs one test of this set; it may take `limit`.
    pub fn run(&self, test: &Test, limit: Duration) -> TestOutcome {
        let mut outcome = TestOutcome::new(test, None);
        if test.is_todo() {
            outcome.skipped = true;
            return outcome;
        }
        let Asked { value, prints, took } = self.engine.ask(&test.rule, limit);
        (outcome.prints, outcome.took) = (prints, took);
        match value {
            Ok(Json::Bool(true)) => return outcome,
            Ok(held @ Json::Object(_)) if self.keys(test).is_some() => {
                outcome.failed = self.failed_cases(test, &held, limit);
                return outcome;
            }
            Ok(Json::Undefined) => outcome.failed = Some("did not hold".to_owned()),
            Ok(Json::Bool(_)) => outcome.failed = Some("gave false".to_owned()),
            Ok(other) => outcome.failed = Some(format!("gave {} instead of true", blame::rendered(&other))),
            Err(broken) => {
                outcome.breaks(broken);
                return outcome;
            }
        }
        outcome.why = self.why(test, limit);
        outcome
    }

    /// The names that `test_x[name] if …` tries are those that are bound; that one of them does not hold shows in nothing
    /// but its absence.
    fn failed_cases(&self, test: &Test, held: &Json, limit: Duration) -> Option<String> {
        let Json::Object(held) = held else { return None };
        let told = |name: &Json| json::as_str(name).map_or_else(|| name.to_string(), str::to_owned);
        let mut failed: Vec<String> =
            held.iter().filter(|(_, value)| **value != Json::Bool(true)).map(|(name, _)| told(name)).collect();
        failed.extend(self.tried(test, limit).iter().filter(|name| held.get(name).is_none()).map(told));
        (!failed.is_empty()).then(|| format!("did not hold for {}", failed.join(", ")))
    }

    fn rule(&self, test: &Test) -> &ast::Rule {
        &self.modules[test.module].policy[test.position]
    }

    /// What stands in the brackets of `test_x[…]`; `None` where there are none.
    fn keys(&self, test: &Test) -> Option<&Ref<ast::Expr>> {
        let ast::Rule::Spec { head: RuleHead::Compr { refr, .. }, .. } = self.rule(test) else { return None };
        match refr.as_ref() {
            ast::Expr::RefBrack { refr, index, .. } if matches!(refr.as_ref(), ast::Expr::Var { .. }) => Some(index),
            _ => None,
        }
    }
}

impl TestOutcome {
    fn new(test: &Test, failed: Option<String>) -> Self {
        Self {
            name: test.name.clone(),
            file: test.file.clone(),
            line: test.line,
            column: test.column,
            failed,
            skipped: false,
            why: None,
            prints: Vec::new(),
            took: Duration::ZERO,
        }
    }

    fn breaks(&mut self, broken: Broken) {
        self.failed = Some(if broken.file == self.file {
            (self.line, self.column) = (broken.line, broken.column);
            broken.message
        } else if broken.file.is_empty() {
            broken.message
        } else {
            format!("{}:{}:{}: {}", broken.file, broken.line, broken.column, broken.message)
        });
    }
}

/// An engine for a text that was made from one that has passed the gate.
fn engine_of(sources: &[Source]) -> Result<Engine, Broken> {
    let mut engine = Engine::new();
    sources.iter().try_for_each(|source| engine.add(&source.path, &source.text))?;
    Ok(engine)
}

fn load_error(broken: Broken, sources: &[Source]) -> LoadErrors {
    LoadErrors(vec![policy_set::located(broken, sources)])
}

/// The bytes of a span. Those of the engine end before the quotes of a text that they begin or end with.
fn extent(span: &Span) -> Range<usize> {
    let (text, quotes) = (span.source.get_contents().as_bytes(), [Some(&b'"'), Some(&b'`')]);
    let (start, end) = (span.start as usize, span.end as usize);
    let opens = start > 0 && quotes.contains(&text.get(start - 1));
    start - usize::from(opens)..end + usize::from(quotes.contains(&text.get(end)))
}

fn text_of(span: &Span) -> &str {
    span.source.get_contents().get(extent(span)).unwrap_or_default()
}

/// Name of a rule, where it begins, and where its name stands in the text.
fn head(rule: &ast::Rule) -> Option<(&Span, &Span)> {
    let (span, refr) = match rule {
        ast::Rule::Spec {
            span,
            head: RuleHead::Set { refr, .. } | RuleHead::Compr { refr, .. } | RuleHead::Func { refr, .. },
            ..
        }
        | ast::Rule::Default { span, refr, .. } => (span, refr),
    };
    let mut refr = refr.as_ref();
    loop {
        match refr {
            ast::Expr::Var { span: name, .. } => return Some((span, name)),
            ast::Expr::RefDot { refr: inner, .. } | ast::Expr::RefBrack { refr: inner, .. } => refr = inner,
            _ => return None,
        }
    }
}

fn tests_of(modules: &[Ref<ast::Module>]) -> Vec<Test> {
    let mut tests = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        let package = module.package.refr.span().text();
        for (position, rule) in module.policy.iter().enumerate() {
            let Some((span, name)) = head(rule).filter(|_| matches!(rule.as_ref(), ast::Rule::Spec { .. })) else {
                continue;
            };
            let name = name.text();
            if name.starts_with("test_") || name.starts_with("todo_test_") {
                let rule = format!("data.{package}.{name}");
                let (file, line, column) = (span.source.get_path().clone(), span.line, span.col);
                tests.push(Test { name: rule.clone(), file, line, column, rule, module: index, position });
            }
        }
    }
    tests
}

/// Two tests of one name would be one rule, which holds when either does. As in OPA, each is a test of its own, so the
/// second gets another name before the engine sees it. Gives whether there was one.
fn rename_repeated(sources: &mut [Source], modules: &[Ref<ast::Module>], tests: &mut [Test]) -> bool {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut edits = Vec::new();
    for test in tests.iter_mut() {
        let count = seen.entry(test.name.clone()).and_modify(|count| *count += 1).or_insert(0);
        let name = head(&modules[test.module].policy[test.position]).map(|(_, name)| name);
        if let (1.., Some(name)) = (*count, name) {
            edits.push((test.module, name.end as usize, format!("__{count:02}")));
            test.name = format!("{}#{count:02}", test.name);
            test.rule = format!("{}__{count:02}", test.rule);
        }
    }
    // From the back, so that places before an edit stay what they were.
    for (module, at, suffix) in edits.iter().rev() {
        sources[*module].text.insert_str(*at, suffix);
    }
    !edits.is_empty()
}

#[cfg(test)]
mod tests;
