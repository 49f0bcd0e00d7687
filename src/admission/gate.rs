//! What a policy must pass before it is compiled, on top of what the Rego parser says. regorus parses in time
//! exponential in the nesting of literals, and overflows the stack (which ends the process) on functions that call
//! themselves; both are refused here. So is what it would only notice while it judges somebody's Deployment: an unknown
//! function, a wrong number of arguments, a misspelt `data.` path.
//!
//! ```text
//!   text ── nesting, terms ─▶ (parser) ─▶ every rule walked once: what it refers to ─▶ unknown names, cycles
//! ```

mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use regorus::unstable::{self as ast, Ref, RuleHead, Span};

use self::walk::{Walk, path, reference};
use super::policy_set::{LoadError, Source};
use crate::config::{ConfigError, yaml::Position};

/// Brackets within brackets: each further level doubles what the parser takes. The deepest shipped file has 8.
const MAX_NESTING: usize = 12;
/// What the brackets of one file may cost the parser together, each 2 to the power of its depth: four literals of
/// [`MAX_NESTING`] levels, under a second. Sixty of 16 levels, 6 KB of text, kept it for more than ten minutes. The most that a
/// shipped file has is 5,000.
const MAX_WORK: u64 = 1 << (MAX_NESTING + 3);
/// Expressions within expressions, e.g. the terms of a long sum: the evaluator goes down one call for each.
const MAX_DEPTH: usize = 120;

/// Signs that join the terms of one expression, in its text: the parser, and whatever drops what it made, go down one call for each.
/// A line of a shipped file has at most 15; 4,000 minuses overflow a stack of 8 MB.
const MAX_LINKS: usize = 500;

/// What the rest of surefoot wants to know of a parsed file.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub(super) file: String,
    pub(super) text: String,
    /// `["surefoot", "probes"]`
    pub(super) package: Vec<String>,
    /// Where `package` stands.
    pub(super) at: Position,
    pub(super) rules: Vec<Rule>,
}

/// One definition of a rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// First part of its name.
    pub(super) name: String,
    pub(super) at: Position,
    /// `name contains …`
    pub(super) is_set: bool,
}

/// Where the comments and strings of a text are, which need not parse.
pub(super) fn quoted(text: &str) -> Vec<Range<usize>> {
    let (mut quoted, mut chars) = (Vec::new(), text.char_indices());
    while let Some((begin, c)) = chars.next() {
        match c {
            '#' => while chars.next().is_some_and(|(_, c)| c != '\n') {},
            '`' => while chars.next().is_some_and(|(_, c)| c != '`') {},
            '"' => loop {
                match chars.next() {
                    Some((_, '\\')) => drop(chars.next()),
                    Some((_, '"' | '\n')) | None => break,
                    Some(_) => {}
                }
            },
            _ => continue,
        }
        quoted.push(begin..chars.offset());
    }
    quoted
}

/// What the parser would not survive, in a text that was not parsed yet: brackets nested too deeply, and expressions of too
/// many terms.
pub(super) fn text(source: &Source) -> Option<LoadError> {
    let wrong = |index, message: String| {
        Some(ConfigError::new(&source.path, &source.text, position_of(&source.text, index), message))
    };
    let (mut brackets, mut chain) = (Brackets::default(), Chain::default());
    let mut quoted = quoted(&source.text).into_iter().peekable();
    for (index, c) in source.text.char_indices() {
        while quoted.next_if(|quoted| quoted.end <= index).is_some() {}
        match quoted.peek().filter(|quoted| quoted.contains(&index)) {
            // A text is a term; a comment has the end of its line.
            Some(quoted) if quoted.start == index => chain.see(if c == '#' { '\n' } else { '_' }),
            Some(_) => {}
            None => {
                brackets.see(c);
                chain.see(c);
            }
        }
        if brackets.open > MAX_NESTING {
            let told = format!("brackets nested more than {MAX_NESTING} deep; give the inner part a name of its own");
            return wrong(index, told);
        }
        if brackets.work > MAX_WORK {
            let told = "too many brackets nested deeply in one file; give inner parts a name of their own, or split it";
            return wrong(index, told.to_owned());
        }
        if chain.links > MAX_LINKS {
            let told =
                format!("more than {MAX_LINKS} operators in one expression; give parts of it a name of their own");
            return wrong(index, told);
        }
    }
    None
}

#[derive(Default)]
struct Brackets {
    open: usize,
    work: u64,
}

impl Brackets {
    fn see(&mut self, c: char) {
        match c {
            '[' | '{' | '(' => {
                self.open += 1;
                self.work = self.work.saturating_add(1 << self.open.min(MAX_NESTING));
            }
            ']' | '}' | ')' => self.open = self.open.saturating_sub(1),
            _ => {}
        }
    }
}

/// The signs that may join the terms of one expression. Where it ends is guessed so that it is never too early.
#[derive(Default)]
struct Chain {
    links: usize,
    /// The word that is being read.
    word: String,
    /// The term after an operator is still to come, on whichever line.
    awaits: bool,
    /// This is the first on its line.
    first: bool,
}

impl Chain {
    fn see(&mut self, c: char) {
        if c.is_alphanumeric() || c == '_' {
            self.term();
            self.word.push(c);
            return;
        }
        if std::mem::take(&mut self.word) == "in" {
            (self.links, self.awaits) = (self.links + 1, true);
        }
        match c {
            '\n' => self.first = true,
            ',' | ';' | '{' | '}' => *self = Self::default(),
            '+' | '-' | '*' | '/' | '%' | '&' | '|' | '<' | '>' | '=' | '!' | ':' | '.' => {
                (self.links, self.awaits, self.first) = (self.links + 1, true, false);
            }
            '[' | '(' => {
                self.term();
                (self.links, self.awaits) = (self.links + 1, true);
            }
            _ => {}
        }
    }

    /// A term begins, or goes on.
    fn term(&mut self) {
        if self.first && !self.awaits {
            self.links = 0;
        }
        (self.awaits, self.first) = (false, false);
    }
}

fn position_of(text: &str, index: usize) -> Position {
    let before = &text[..index];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Position { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
}

fn place(span: &Span) -> Position {
    Position { line: span.line, column: span.col }
}

pub(super) fn module(module: &Ref<ast::Module>) -> Module {
    let source = &module.package.span.source;
    let rules = module.policy.iter().filter_map(|rule| {
        let (refr, is_set) = match rule.as_ref() {
            ast::Rule::Spec { head: RuleHead::Set { refr, .. }, .. } => (refr, true),
            ast::Rule::Spec { head: RuleHead::Compr { refr, .. } | RuleHead::Func { refr, .. }, .. }
            | ast::Rule::Default { refr, .. } => (refr, false),
        };
        let (root, _) = reference(refr)?;
        Some(Rule { name: root.text().to_owned(), at: place(rule.span()), is_set })
    });
    Module {
        file: source.get_path().clone(),
        text: source.get_contents().clone(),
        package: package(module),
        at: place(&module.package.span),
        rules: rules.collect(),
    }
}

fn package(module: &ast::Module) -> Vec<String> {
    reference(&module.package.refr).map(|(root, rest)| path(root.text(), &rest)).unwrap_or_default()
}

/// Packages by name, each with those that its rules refer to.
pub(super) type References = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

/// What [`check`] gives.
pub(super) struct Checked {
    /// All that is wrong, each file on its own and all together.
    pub(super) errors: Vec<LoadError>,
    /// Who refers to whom.
    pub(super) references: References,
    /// The rules, by full path, that one refers to which is no test.
    pub(super) used: BTreeSet<Vec<String>>,
    /// Where each module, in their order, calls `print`; outer calls before those within.
    prints: Vec<Vec<Range<usize>>>,
}

impl Checked {
    /// Takes `print` out of the texts of the modules that were checked; all else stays in its place.
    ///
    /// OPA does the same where nobody asked to see it. The engine would write to stderr, between the lines of the log and as
    /// much as a policy likes, and whoever gathers it instead gathers it all in memory.
    pub(super) fn hush(&self, modules: &mut [Module]) {
        for (module, prints) in modules.iter_mut().zip(&self.prints) {
            let mut done = 0;
            for print in prints {
                if let Some(call) = module.text.get(print.clone()).filter(|_| print.start >= done) {
                    module.text.replace_range(print.clone(), &held(call));
                    done = print.end;
                }
            }
        }
    }
}

/// What stands for a call of `print`: as many bytes on as many lines.
fn held(call: &str) -> String {
    const TRUE: &str = "true";
    let rest = call.bytes().skip(TRUE.len()).map(|byte| if byte == b'\n' { '\n' } else { ' ' });
    TRUE.chars().chain(rest).collect()
}

/// Checks modules that parse.
pub(super) fn check(modules: &[Ref<ast::Module>], sources: &[Source]) -> Checked {
    let mut names = Names::default();
    for module in modules {
        names.learn(module);
    }
    let mut graph: BTreeMap<Vec<String>, Calls> = BTreeMap::new();
    let (mut wrong, mut references, mut prints) = (Vec::new(), References::new(), Vec::new());
    for module in modules {
        let mut walk = Walk::new(module, &names);
        let others = references.entry(package(module)).or_default();
        for rule in &module.policy {
            walk.rule(rule);
            others.extend(walk.refers.iter().chain(&walk.replaces).flat_map(|rule| &names.homes[rule]).cloned());
            let calls = graph
                .entry(walk.rule_path(rule))
                .or_insert_with(|| Calls { at: rule.span().clone(), to: BTreeSet::new() });
            calls.to.append(&mut walk.refers);
        }
        let mut calls: Vec<_> = walk.prints.iter().map(|span| span.start as usize..span.end as usize).collect();
        calls.sort_by_key(|call| (call.start, std::cmp::Reverse(call.end)));
        prints.push(calls);
        wrong.append(&mut walk.wrong);
    }
    wrong.extend(recursion(&graph));
    let is_test = |rule: &[String]| {
        rule.split_last().is_some_and(|(_, package)| package.iter().any(|part| part.ends_with("_test")))
    };
    let used =
        graph.iter().filter(|(rule, _)| !is_test(rule)).flat_map(|(_, calls)| calls.to.iter().cloned()).collect();
    wrong.sort_by(|(a, _), (b, _)| (a.source.get_path(), a.line, a.col).cmp(&(b.source.get_path(), b.line, b.col)));
    wrong.dedup_by(|(a, _), (b, _)| a.source.get_path() == b.source.get_path() && (a.line, a.col) == (b.line, b.col));
    let error = |(span, message): (Span, String)| {
        let file = span.source.get_path();
        ConfigError::new(file, super::policy_set::text_of(sources, file), place(&span), message)
    };
    Checked { errors: wrong.into_iter().map(error).collect(), references, used, prints }
}

/// `package` and all that it refers to, by others too.
pub(super) fn closure(references: &References, package: Vec<String>) -> BTreeSet<Vec<String>> {
    let (mut found, mut open) = (BTreeSet::new(), vec![package]);
    while let Some(package) = open.pop() {
        if found.insert(package.clone()) {
            open.extend(references.get(&package).into_iter().flatten().cloned());
        }
    }
    found
}

/// The rules that exist, by full path, and how many arguments those take that are functions.
#[derive(Default)]
struct Names {
    rules: BTreeMap<Vec<String>, Option<usize>>,
    /// The packages that each is defined in.
    homes: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
}

impl Names {
    fn learn(&mut self, module: &ast::Module) {
        let package = package(module);
        for rule in &module.policy {
            let (refr, arity) = match rule.as_ref() {
                ast::Rule::Spec { head: RuleHead::Func { refr, args, .. }, .. } => (refr, Some(args.len())),
                ast::Rule::Spec { head: RuleHead::Set { refr, .. } | RuleHead::Compr { refr, .. }, .. } => (refr, None),
                ast::Rule::Default { refr, args, .. } => (refr, (!args.is_empty()).then_some(args.len())),
            };
            if let Some((root, rest)) = reference(refr) {
                let rule = [package.clone(), path(root.text(), &rest)].concat();
                self.homes.entry(rule.clone()).or_default().insert(package.clone());
                self.rules.insert(rule, arity);
            }
        }
    }

    /// Rules that a reference to `path` may mean: the one it leads into, or all below it.
    fn meant(&self, path: &[String]) -> Vec<Vec<String>> {
        let into = (1..=path.len()).filter_map(|end| self.rules.get_key_value(&path[..end]));
        let below = self.rules.range(path.to_vec()..).take_while(|(rule, _)| rule.starts_with(path));
        into.chain(below).map(|(rule, _)| rule.clone()).collect()
    }
}

struct Calls {
    at: Span,
    to: BTreeSet<Vec<String>>,
}

/// One error for each cycle, at the first rule of it that was met.
fn recursion(graph: &BTreeMap<Vec<String>, Calls>) -> Vec<(Span, String)> {
    #[derive(PartialEq)]
    enum Colour {
        Open,
        Done,
    }
    let mut colours: BTreeMap<&[String], Colour> = BTreeMap::new();
    let mut found = Vec::new();
    for start in graph.keys() {
        // Depth first without recursion: (rule, what it still has to visit).
        let mut trail: Vec<(&[String], Vec<&Vec<String>>)> = Vec::new();
        let mut next = Some(start.as_slice());
        loop {
            if let Some(rule) = next.take() {
                match colours.get(rule) {
                    Some(Colour::Done) => {}
                    Some(Colour::Open) => {
                        let from = trail.iter().position(|(open, _)| *open == rule).unwrap_or(0);
                        let mut cycle: Vec<String> = trail[from..].iter().map(|(rule, _)| rule.join(".")).collect();
                        cycle.push(rule.join("."));
                        found.push((graph[rule].at.clone(), format!("this rule needs itself: {}", cycle.join(" -> "))));
                    }
                    None => {
                        colours.insert(rule, Colour::Open);
                        let to = graph.get(rule).map(|calls| calls.to.iter().collect()).unwrap_or_default();
                        trail.push((rule, to));
                    }
                }
            }
            match trail.last_mut() {
                None => break,
                Some((_, to)) if !to.is_empty() => {
                    next = to.pop().map(Vec::as_slice).filter(|rule| graph.contains_key(*rule))
                }
                Some((rule, _)) => {
                    colours.insert(rule, Colour::Done);
                    trail.pop();
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{PolicySet, fixtures::*};
    use crate::config::Config;

    /// `line:column message` of everything that is wrong with a policy of this body, which begins on line 2.
    fn wrong(body: &str) -> Vec<String> {
        let text = format!("package surefoot.p\n{body}\ndeny contains \"no\" if input.x\n");
        let sources = sources(&[("lib/lib.rego", LIB), ("p/policy.rego", &text)]);
        match PolicySet::load(sources, &Config::default()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors
                .0
                .iter()
                .map(|error| {
                    assert_eq!(error.file, "p/policy.rego");
                    assert!(!error.source_line.is_empty(), "{error}");
                    format!("{}:{} {}", error.line, error.column, error.message)
                })
                .collect(),
        }
    }

    #[test]
    fn print_is_taken_out_and_the_rest_stays_in_its_place() {
        let rows = [
            (
                "deny contains 1 if { print(\"a\", input.x); input.y }",
                "deny contains 1 if { true               ; input.y }",
            ),
            ("x if {\n\tprint(\n\t\tsprintf(\"é)\", [])\n\t)\n}", "x if {\n\ttrue  \n                    \n  \n}"),
            ("x if every y in input.z { print(print(y)) }", "x if every y in input.z { true            }"),
            ("x := [y | some y in input.z; print(y)]", "x := [y | some y in input.z; true    ]"),
            ("print(a) := a\nx := print(1)", "print(a) := a\nx := print(1)"),
            ("x := \"print(1)\" # print(2)", "x := \"print(1)\" # print(2)"),
        ];
        for (body, hushed) in rows {
            let source = |body| crate::admission::Source {
                path: "p.rego".to_owned(),
                text: format!("package surefoot.p\n\n{body}\n"),
            };
            let (mut engine, mut modules) = crate::admission::policy_set::parse(&[source(body)]).unwrap();
            super::check(engine.modules(), &[source(body)]).hush(&mut modules);
            assert_eq!(modules[0].text, source(hushed).text, "{body}");
        }
    }

    #[test]
    fn what_needs_itself_is_refused() {
        let rows = [
            ("a if b\nb if a", "2:1 this rule needs itself: surefoot.p.a -> surefoot.p.b -> surefoot.p.a"),
            ("a if a", "2:1 this rule needs itself: surefoot.p.a -> surefoot.p.a"),
            ("f(x) := f(x - 1) if x > 0", "2:1 this rule needs itself"),
            ("f(x) := g(x)\ng(x) := [h | h := f(x)]", "2:1 this rule needs itself"),
            ("f(x) := y if { y := data.surefoot.p.f(x) }", "2:1 this rule needs itself"),
            ("import data.surefoot.p\nf(x) := p.f(x)", "3:1 this rule needs itself"),
            ("a contains x if some x in a", "2:1 this rule needs itself"),
            ("a := {x | x := data.surefoot[_].a}", "2:1 this rule needs itself"),
            ("a if { every x in [1] { x == 1; a } }", "2:1 this rule needs itself"),
            ("a[x] := y if { x := \"k\"; y := a.j }", "2:1 this rule needs itself"),
            ("default a := 1\na := 2 if not a == 1", "2:1 this rule needs itself"),
            ("a := 1 if input.y\nelse := 2 if a", "2:1 this rule needs itself"),
            ("a := 1 if { input.y with input.z as a }", "2:1 this rule needs itself"),
            ("a := [b | c := a[b]]", "2:1 this rule needs itself"),
        ];
        for (body, message) in rows {
            let wrong = wrong(body);
            assert!(wrong.len() == 1 && wrong[0].starts_with(message), "{body}: {wrong:?}");
        }
    }

    #[test]
    fn names_in_their_scopes_are_no_recursion() {
        let rows = [
            "a := x if { x := 1 }\nx := a",
            "a contains k if input.m[k] == 1",
            "a contains v if [_, v] = split(input.s, \"/\")",
            "a[k] := v if v := input.m[k]",
            "a := [x.y | x := input.l[_]]",
            "f(f_of) := f_of",
            "a(b) := b\nb := a(1)",
            "a := {b | b := input.l[_]}\nb := count(a)",
            "m.a := 1\nm.b := m.a + 1",
            "a if { every a in [1] { a == 1 } }",
            "a := b if { {\"k\": b} := input.o }\nb := a",
            "f(x) := 1 if x > 0\nelse := g(x)\ng(x) := x",
            "a := data.surefoot.lib.params({})",
            "import data.surefoot.p\nf(x) := x\na := p.f(1)",
            // Not the policy's own, or for other tools, or asked for by the policy itself.
            "denied contains \"x\"",
            "violation contains x if some x in deny",
            "denys contains \"x\"\nwarn contains x if some x in denys",
            "deny_gpu contains \"x\"\ndeny contains x if some x in data.surefoot.p.deny_gpu",
            "deny_all := 1",
        ];
        for body in rows {
            assert_eq!(wrong(body), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn names_that_do_not_exist_are_named() {
        let rows = [
            ("a := contians(\"a\", \"b\")", "2:6 there is no function `contians`; did you mean `contains`?"),
            ("a := nofunction(1)", "2:6 there is no function `nofunction`"),
            ("a := http.send({})", "2:6 there is no function `http.send`"),
            ("a := time.now_ns()", "2:6 there is no function `time.now_ns`"),
            ("a := rand.intn(\"x\", 5)", "2:6 `rand.intn` is refused: a verdict depends on nothing but its input"),
            ("helper(x) := x\na := helpr(1)", "3:6 there is no function `helpr`; did you mean `helper`?"),
            ("f(x) := x\na := f(1, 2, 3)", "3:6 `f` takes 1 arguments, not 3"),
            ("a := count()", "2:6 `count` takes 1 arguments, not 0"),
            (
                "import data.surefoot.lib\na := lib.parms({})",
                "3:6 there is no function `lib.parms`; did you mean `lib.params`?",
            ),
            (
                "import data.surefoot.lib\na := lib.nothing",
                "3:6 `data.surefoot.lib.nothing` is not defined in any file",
            ),
            (
                "import data.surefoot.p as q\na if q.b\nb if input.y",
                "3:6 `q.b` leads back here by an import, where nothing is found; write `data.surefoot.p.b`",
            ),
            ("import data.surefoot\na if surefoot.p.b\nb if input.y", "3:6 `surefoot.p.b` leads back here"),
            ("a := data.surefot.lib", "2:6 `data.surefot.lib` is not defined in any file"),
            ("a := 1 +", "3:6 rule must have a body or assignment"),
            ("a := x", "2:6 `x` is not defined"),
            ("a if { y := x + 1 }", "2:13 `x` is not defined"),
            ("f(y) := yy", "2:9 `yy` is not defined"),
            ("warn contains finding if { findng := 1 }", "2:15 `finding` is not defined; did you mean `findng`?"),
            ("a if inptu.x", "2:6 `inptu` is not defined; did you mean `input`?"),
            ("a if imput", "2:6 `imput` is not defined; did you mean `input`?"),
            ("a := helpr\nhelper := 1", "2:6 `helpr` is not defined; did you mean `helper`?"),
            ("import data.surefoot.lib\na := lob.b", "3:6 `lob` is not defined; did you mean `lib`?"),
            ("dney contains \"x\"", "2:1 nobody asks for `dney`; did you mean `deny`?"),
            ("warns contains x if { x := 1 }", "2:1 nobody asks for `warns`; did you mean `warn`?"),
            ("defualts contains {}", "2:1 nobody asks for `defualts`; did you mean `defaults`?"),
            ("deny_gpu contains \"x\"", "2:1 nobody asks for `deny_gpu`; did you mean `deny`?"),
            ("a := [x | y := 1]", "2:7 `x` is not defined"),
            ("a if { every x in [1] { z == x } }", "2:25 `z` is not defined"),
            ("a if { b := [i | input.l[i]]; i == 1 }", "2:31 `i` is not defined"),
        ];
        for (body, message) in rows {
            let wrong = wrong(body);
            assert!(wrong.len() == 1 && wrong[0].starts_with(message), "{body}: {wrong:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_before_it_costs_time() {
        let nested = |n: usize| format!("a := {}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(wrong(&nested(10)), Vec::<String>::new());
        for deep in [13, 100_000] {
            let wrong = wrong(&nested(deep));
            assert_eq!(wrong.len(), 1);
            assert!(wrong[0].starts_with("2:18 brackets nested more than 12 deep"), "{wrong:?}");
        }
        // Each alone would pass.
        let many: Vec<String> =
            (0..60).map(|n| format!("a{n} := {}1{}", "{\"a\":".repeat(12), "}".repeat(12))).collect();
        let refused = wrong(&many.join("\n"));
        assert!(refused.len() == 1 && refused[0].contains("too many brackets nested deeply"), "{refused:?}");
        // Brackets in texts and comments are none.
        let harmless = format!("# {0}\na := \"{0}\\\"{0}\"\nb := `{0}`", "[".repeat(30));
        assert_eq!(wrong(&harmless), Vec::<String>::new());
        let sum = |n: usize| format!("a := 1{}", "\n\t+ 1".repeat(n));
        assert_eq!(wrong(&sum(100)), Vec::<String>::new());
        assert!(wrong(&sum(400))[0].contains("nested more than 120 deep"));
    }

    /// Each of these overflowed the stack, which ends the process.
    #[test]
    fn an_expression_of_endless_terms_is_refused_before_it_is_parsed() {
        let n = 20_000;
        for body in [
            format!("a := {}1", "-".repeat(n)),
            format!("a := {}1", "-\n".repeat(n)),
            format!("a := 1{}", "\n+ 1".repeat(n)),
            format!("a if {{\n 1{}\n}}", " == 1".repeat(n)),
            format!("a if {{\n 1{}\n}}", " in 1".repeat(n)),
            format!("a := input{}", ".x".repeat(n)),
            format!("a := input{}", "[0]".repeat(n)),
            format!("a := \"x\"{}", " +\n# a comment\n\"x\"".repeat(n)),
        ] {
            let refused = wrong(&body);
            assert!(refused.len() == 1 && refused[0].contains("more than 500 operators"), "{body:.40}: {refused:?}");
        }
        // Each line is an expression of its own.
        for line in ["a@ := -1 + input.x", "a@ := \"x\"", "a@ := [input.x] # and", "a@ := count(input.x)"] {
            let many: Vec<String> = (0..1000).map(|number| line.replace('@', &number.to_string())).collect();
            assert_eq!(wrong(&many.join("\n")), Vec::<String>::new(), "{line}");
        }
    }
}
