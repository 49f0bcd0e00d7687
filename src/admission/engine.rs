//! The Rego engine: sources in, values or [`Broken`] out. The only module that knows regorus' evaluator (and gate.rs and
//! whole.rs its syntax tree): it changes its interface every few weeks.
//!
//! The tree interpreter in strict mode, never the bytecode VM: that one turns run-time errors into "undefined", which in
//! a `deny` rule means "allowed".

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use regorus::{
    LimitError,
    unstable::{Module, Ref},
    utils::limits::{ExecutionTimerConfig, monotonic_now},
};

use super::{
    builtins,
    limits::{Limits, Watch},
    whole,
};
use crate::template::Json;

/// Work units between two looks at the clock: not measurable at this interval.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(128).expect("128 is not 0");

/// Characters of what the engine says: a file's line and some words.
const LONGEST: usize = 500;

/// Engines that wait for the next request with their working memory grown: more than are asked at once on a small node.
const IDLE: usize = 4;

/// Modules that were parsed, and after [`Engine::prepare`] can be asked. What a clone shares with it is what was parsed.
#[derive(Debug)]
pub(super) struct Engine {
    regorus: regorus::Engine,
    /// How many of its modules, the first ones, are [`whole::heads`].
    heads: usize,
    /// Clones of it that answered.
    idle: Mutex<Vec<regorus::Engine>>,
}

impl Clone for Engine {
    fn clone(&self) -> Self {
        Self { regorus: self.regorus.clone(), heads: self.heads, idle: Mutex::default() }
    }
}

/// What regorus says is wrong, and where; line and column are 0 where it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
}

impl Engine {
    pub(super) fn new() -> Self {
        let mut regorus = regorus::Engine::new();
        regorus.set_strict_builtin_errors(true);
        for (name, arity, function) in builtins::bounded() {
            // It fails for a name that is there twice, and none is.
            let _added = regorus.add_extension(name, arity, function);
        }
        Self { regorus, heads: 0, idle: Mutex::default() }
    }

    /// Parses one module. Its text must have passed the gate: the parser is exponential in the nesting of literals.
    pub(super) fn add(&mut self, path: &str, text: &str) -> Result<(), Broken> {
        match self.regorus.add_policy(path.to_owned(), text.to_owned()) {
            Ok(_) => Ok(()),
            Err(error) => Err(broken(&error)),
        }
    }

    /// The modules in the order in which they were added.
    pub(super) fn modules(&mut self) -> &[Ref<Module>] {
        &self.regorus.get_modules()[self.heads..]
    }

    /// Analyses all modules together, whichever `rule` of theirs is named; undefined variables show here. Nothing is added
    /// after it.
    pub(super) fn prepare(&mut self, rule: &str) -> Result<(), Broken> {
        let heads = whole::heads(self.modules());
        if heads.len() != self.heads {
            *self = self.led_by(&heads)?;
        }
        self.regorus.compile_with_entrypoint(&rule.into()).map(drop).map_err(|error| broken(&error))
    }

    /// The same modules, with `heads` before them.
    fn led_by(&mut self, heads: &[String]) -> Result<Self, Broken> {
        let mut led = Self::new();
        for (index, head) in heads.iter().enumerate() {
            led.add(&format!("surefoot_head/{index}.rego"), head)?;
        }
        for module in self.modules() {
            let source = &module.package.span.source;
            led.add(source.get_path(), source.get_contents())?;
        }
        led.heads = heads.len();
        Ok(led)
    }

    /// The value of `rule` without input, with what a runner of tests wants to know beside it.
    pub(super) fn ask(&self, rule: &str, limit: Duration) -> Asked {
        let mut regorus = self.regorus.clone();
        regorus.set_gather_prints(true);
        regorus.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval: CHECK_INTERVAL });
        let start = monotonic_now();
        let value = eval(&mut regorus, rule, limit);
        let took = start.zip(monotonic_now()).map(|(start, end)| end.saturating_sub(start));
        Asked { value, prints: regorus.take_prints().unwrap_or_default(), took: took.unwrap_or_default() }
    }

    /// The lines of each file on which something was evaluated while `rules` were asked, each within `limit`.
    pub(super) fn touched(&self, rules: &[String], limit: Duration, watch: &Watch) -> BTreeMap<String, BTreeSet<u32>> {
        let mut regorus = self.regorus.clone();
        regorus.set_enable_coverage(true);
        regorus.set_gather_prints(true);
        regorus.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval: CHECK_INTERVAL });
        for rule in rules {
            watch.begin(&format!("what {rule} covers"));
            // One that breaks has touched what it reached.
            let _ = eval(&mut regorus, rule, limit);
        }
        let files = regorus.get_coverage_report().map(|report| report.files).unwrap_or_default();
        files.into_iter().map(|file| (file.path, file.covered)).collect()
    }

    /// A clone shares what is compiled, but must grow its own working memory: one that has it is better.
    fn take(&self) -> regorus::Engine {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.regorus.clone())
    }

    /// Not one that broke: regorus does not promise what an evaluation leaves behind that stops half-way.
    fn give_back(&self, mut regorus: regorus::Engine) {
        regorus.set_input(Json::Undefined);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(regorus);
        }
    }
}

/// One request, with the time that its policies may spend together.
pub(super) struct Session {
    left: Duration,
    watch: Option<Arc<Watch>>,
}

impl Session {
    pub(super) fn new(limits: impl Into<Limits>) -> Self {
        let Limits { time, watch } = limits.into();
        Self { left: time, watch }
    }

    /// The value of `rule` (e.g. `data.surefoot.probes.params`) under `input`; `Undefined` where it has none.
    ///
    /// It may take half of the time that is left, so that one endless policy does not starve the others.
    pub(super) fn eval(&mut self, engine: &Engine, rule: &str, input: Json) -> Result<Json, Broken> {
        if let Some(watch) = &self.watch {
            watch.ask(rule)?;
        }
        let mut regorus = engine.take();
        let limit = (self.left / 2).max(Duration::from_millis(1));
        regorus.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval: CHECK_INTERVAL });
        regorus.set_input(input);
        let start = monotonic_now();
        let value = eval(&mut regorus, rule, limit);
        if let (Some(start), Some(end)) = (start, monotonic_now()) {
            let took = end.saturating_sub(start);
            self.left = self.left.saturating_sub(took);
            if let Some(watch) = &self.watch {
                watch.answered(rule, took, limit);
            }
        }
        if value.is_ok() {
            engine.give_back(regorus);
        }
        value
    }
}

/// A panic of the engine is a policy that broke, and `regorus` is not to be used again.
fn eval(regorus: &mut regorus::Engine, rule: &str, limit: Duration) -> Result<Json, Broken> {
    builtins::begin();
    match catch_unwind(AssertUnwindSafe(|| regorus.eval_rule(rule.to_owned()))) {
        Ok(value) => value
            .map_err(|error| stopped(&error, limit))
            .and_then(|value| builtins::told(value).map_err(Broken::unplaced)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
            Err(Broken::unplaced(format!("the Rego engine panicked: {}", one_line(text))))
        }
    }
}

/// What [`Engine::ask`] gives.
pub(super) struct Asked {
    pub(super) value: Result<Json, Broken>,
    /// `file:line: text` of each `print`.
    pub(super) prints: Vec<String>,
    pub(super) took: Duration,
}

impl Broken {
    pub(super) fn unplaced(message: String) -> Self {
        Self { file: String::new(), line: 0, column: 0, message }
    }
}

/// How the message about an evaluation that was stopped begins.
pub(super) const OVERRAN: &str = "did not end within";

/// Why an evaluation that might take `limit` gave no value.
fn stopped(error: &anyhow::Error, limit: Duration) -> Broken {
    // Some evaluations pass it on as a text.
    const IN_WORDS: &str = "execution exceeded time limit";
    let is_limit =
        matches!(error.chain().find_map(|cause| cause.downcast_ref()), Some(LimitError::TimeLimitExceeded { .. }));
    if is_limit || error.to_string().contains(IN_WORDS) {
        Broken::unplaced(format!("{OVERRAN} {} ms", limit.as_millis()))
    } else {
        broken(error)
    }
}

/// regorus' errors are one text, `\n--> FILE:LINE:COL\n  |\n5 | source\n  |  ^\nerror: MESSAGE`.
fn broken(error: &(impl std::fmt::Display + ?Sized)) -> Broken {
    let text = error.to_string();
    let Some((_, rest)) = text.split_once("--> ") else {
        return Broken::unplaced(one_line(&text));
    };
    let (place, rest) = rest.split_once('\n').unwrap_or((rest, ""));
    let mut parts = place.trim().rsplitn(3, ':');
    let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    let (column, line) = (number(), number());
    let file = parts.next().unwrap_or_default().to_owned();
    let message = rest.split_once("error: ").map_or(rest, |(_, message)| message);
    // A second place below the first is how it got there.
    let message = message.split("\n--> ").next().unwrap_or_default();
    Broken { file, line, column, message: short(message) }
}

/// What regorus says is wrong, without the place.
pub(super) fn one_message(error: &(impl std::fmt::Display + ?Sized)) -> String {
    broken(error).message
}

/// On one line, at most [`LONGEST`] characters: what was given may be in it.
fn short(text: &str) -> String {
    let end = |text: &str| text.char_indices().nth(LONGEST).map(|(end, _)| end);
    // Cut twice: blanks count for less on one line, and what is endless is not gone through.
    let cut = text.char_indices().nth(LONGEST * 4).map_or(text, |(end, _)| &text[..end]);
    let mut line = one_line(cut);
    if let Some(end) = end(&line) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(text: &str) -> Engine {
        let mut engine = Engine::new();
        engine.add("p.rego", text).unwrap();
        engine
    }

    fn eval(text: &str) -> Result<Json, Broken> {
        Session::new(Duration::from_millis(200)).eval(&engine(text), "data.p.r", Json::new_object())
    }

    #[test]
    fn errors_name_their_place() {
        let rows = [
            ("package p\nr := 1 / 0\n", "p.rego:2:8", "divide by zero"),
            ("package p\nr := x\n", "p.rego:2:6", "x"),
            ("package p\nr := upper(0)\n", "p.rego:2:", "string"),
            ("package p\nr := nofunction(0)\n", "p.rego:2:", "nofunction"),
            ("package p\nr := count(numbers.range(1, 1)) + \"a\"\n", "p.rego:2:", "num"),
            ("package p\nr contains x if { some x in numbers.range(1, 300); x / 0 }\n", "p.rego:2:", "divide"),
            ("package p\nr if s\ns if r\n", "", "recurs"),
        ];
        for (text, place, message) in rows {
            let broken = eval(text).unwrap_err();
            let at = format!("{}:{}:{}", broken.file, broken.line, broken.column);
            assert!(at.starts_with(place), "{text}: {at}: {}", broken.message);
            assert!(broken.message.contains(message), "{text}: {}", broken.message);
            assert!(!broken.message.contains('\n'));
        }
        let broken = Engine::new().add("d/p.rego", "package p\n\nr := [1\n").unwrap_err();
        assert_eq!((broken.file.as_str(), broken.line > 2), ("d/p.rego", true), "{broken:?}");
    }

    #[test]
    fn what_a_broken_policy_replaced_is_as_before_for_the_next() {
        let text = "package p
            f(x) := 1
            g(x) := 2
            broken if f(1 / input.zero) == 2 with f as g with input.x as 7
            r := [f(0), input.x]";
        let engine = engine(text);
        let mut session = Session::new(Duration::from_millis(200));
        let input = || Json::from_json_str(r#"{"x": 1, "zero": 0}"#).unwrap();
        assert!(session.eval(&engine, "data.p.broken", input()).is_err());
        assert_eq!(session.eval(&engine, "data.p.r", input()).map(|value| value.to_string()), Ok("[1,1]".to_owned()));
    }

    #[test]
    fn a_panic_of_the_engine_is_a_policy_that_broke() {
        // regorus takes a superscript for a digit.
        let text = "package p\nr := sprintf(\"%\u{b2}d\", [1])\ns := 7";
        let engine = engine(text);
        let mut session = Session::new(Duration::from_millis(200));
        let broken = session.eval(&engine, "data.p.r", Json::new_object()).unwrap_err();
        assert!(broken.message.starts_with("the Rego engine panicked: could not get digit"), "{broken:?}");
        assert_eq!(session.eval(&engine, "data.p.s", Json::new_object()), Ok(Json::from(7)));
    }

    #[test]
    fn an_endless_rule_ends_and_leaves_time_for_the_next() {
        let text = "package p
            e := count([1 | some x in numbers.range(1, 3000); some y in numbers.range(1, 3000); x == y])
            r := 7";
        let engine = engine(text);
        let mut session = Session::new(Duration::from_millis(100));
        let broken = session.eval(&engine, "data.p.e", Json::new_object()).unwrap_err();
        assert_eq!(broken.message, "did not end within 50 ms");
        assert_eq!(session.eval(&engine, "data.p.r", Json::new_object()), Ok(Json::from(7)));
    }

    #[test]
    fn a_rule_without_value_is_undefined_and_an_unknown_one_an_error() {
        assert_eq!(eval("package p\nr := input.nothing\n"), Ok(Json::Undefined));
        assert!(eval("package p\nq := 1\n").is_err());
    }
}
