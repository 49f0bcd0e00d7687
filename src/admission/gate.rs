//! What a policy must pass before it is compiled, on top of what the Rego parser says. regorus parses in time
//! exponential in the nesting of literals, and overflows the stack (which ends the process) on functions that call
//! themselves; both are refused here. So is what it would only notice while it judges somebody's Deployment: an unknown
//! function, a wrong number of arguments, a misspelt `data.` path.
//!
//! ```text
//!   text ── nesting ─▶ (parser) ─▶ every rule walked once: what it refers to ─▶ unknown names, cycles
//! ```

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{self as ast, Expr, Literal, Ref, RuleHead, Span};

use super::policy_set::{LoadError, Source};
use crate::config::{
    ConfigError,
    yaml::{self, Position},
};

/// Brackets within brackets. At 16 the parser takes some 50 ms, and each further level doubles that.
const MAX_NESTING: usize = 16;
/// Expressions within expressions, e.g. the terms of a long sum: the evaluator goes down one call for each.
const MAX_DEPTH: usize = 120;
/// Built-in functions whose value is not decided by their arguments.
const UNSTEADY: [&str; 1] = ["rand.intn"];

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

/// Brackets nested too deeply, in a text that was not parsed yet.
pub(super) fn text(source: &Source) -> Option<LoadError> {
    let mut open: usize = 0;
    let mut chars = source.text.char_indices();
    while let Some((index, c)) = chars.next() {
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
            '[' | '{' | '(' => open += 1,
            ']' | '}' | ')' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_NESTING {
            let message =
                format!("brackets nested more than {MAX_NESTING} deep; give the inner part a name of its own");
            return Some(ConfigError::new(&source.path, &source.text, position_of(&source.text, index), message));
        }
    }
    None
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

/// All that is wrong with modules that parse, each file on its own and all together.
pub(super) fn check(modules: &[Ref<ast::Module>], sources: &[Source]) -> Vec<LoadError> {
    let mut names = Names::default();
    for module in modules {
        names.learn(module);
    }
    let mut graph: BTreeMap<Vec<String>, Calls> = BTreeMap::new();
    let mut wrong = Vec::new();
    for module in modules {
        let mut walk = Walk::new(module, &names);
        for rule in &module.policy {
            walk.rule(rule);
            let calls = graph
                .entry(walk.rule_path(rule))
                .or_insert_with(|| Calls { at: rule.span().clone(), to: BTreeSet::new() });
            calls.to.append(&mut walk.refers);
        }
        wrong.append(&mut walk.wrong);
    }
    wrong.extend(recursion(&graph));
    wrong.sort_by(|(a, _), (b, _)| (a.source.get_path(), a.line, a.col).cmp(&(b.source.get_path(), b.line, b.col)));
    wrong.dedup_by(|(a, _), (b, _)| a.source.get_path() == b.source.get_path() && (a.line, a.col) == (b.line, b.col));
    let error = |(span, message): (Span, String)| {
        let file = span.source.get_path();
        ConfigError::new(file, super::policy_set::text_of(sources, file), place(&span), message)
    };
    wrong.into_iter().map(error).collect()
}

/// The rules that exist, by full path, and how many arguments those take that are functions.
#[derive(Default)]
struct Names {
    rules: BTreeMap<Vec<String>, Option<usize>>,
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
                self.rules.insert([package.clone(), path(root.text(), &rest)].concat(), arity);
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

/// One step of a reference below its root; `None` where it is computed.
type Step<'a> = Option<&'a str>;

/// A reference such as `data.a["b"][c].d`: its root and its steps. `None`: the expression is no reference.
fn reference(expr: &Expr) -> Option<(&Span, Vec<Step<'_>>)> {
    let mut steps = Vec::new();
    let mut expr = expr;
    loop {
        match expr {
            Expr::Var { span, .. } => {
                steps.reverse();
                return Some((span, steps));
            }
            Expr::RefDot { refr, field, .. } => {
                steps.push(Some(field.0.text()));
                expr = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                steps.push(match index.as_ref() {
                    Expr::String { span, .. } | Expr::RawString { span, .. } => Some(span.text()),
                    _ => None,
                });
                expr = refr;
            }
            _ => return None,
        }
    }
}

/// The part of a reference that is known before evaluation.
fn path(root: &str, steps: &[Step<'_>]) -> Vec<String> {
    std::iter::once(root).chain(steps.iter().map_while(|step| *step)).map(str::to_owned).collect()
}

/// Walks the rules of one module.
struct Walk<'a> {
    names: &'a Names,
    package: Vec<String>,
    imports: BTreeMap<String, Vec<String>>,
    is_test: bool,
    /// Names declared in the scopes around the expression that is being walked, innermost last.
    scopes: Vec<BTreeSet<String>>,
    depth: usize,
    refers: BTreeSet<Vec<String>>,
    wrong: Vec<(Span, String)>,
}

impl<'a> Walk<'a> {
    fn new(module: &ast::Module, names: &'a Names) -> Self {
        let mut imports = BTreeMap::new();
        for import in &module.imports {
            if let Some((root, rest)) = reference(&import.refr) {
                let target = path(root.text(), &rest);
                let alias = import.r#as.as_ref().map(Span::text).map(str::to_owned);
                imports.insert(alias.unwrap_or_else(|| target.last().cloned().unwrap_or_default()), target);
            }
        }
        let package = package(module);
        let is_test = package.last().is_some_and(|last| last.ends_with("_test"));
        Self {
            names,
            package,
            imports,
            is_test,
            scopes: Vec::new(),
            depth: 0,
            refers: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    fn rule_path(&self, rule: &ast::Rule) -> Vec<String> {
        let (ast::Rule::Spec {
            head: RuleHead::Set { refr, .. } | RuleHead::Compr { refr, .. } | RuleHead::Func { refr, .. },
            ..
        }
        | ast::Rule::Default { refr, .. }) = rule;
        let own = reference(refr).map(|(root, rest)| path(root.text(), &rest)).unwrap_or_default();
        [self.package.clone(), own].concat()
    }

    fn rule(&mut self, rule: &ast::Rule) {
        let (head, bodies) = match rule {
            ast::Rule::Default { value, .. } => return self.expr(value),
            ast::Rule::Spec { head, bodies, .. } => (head, bodies),
        };
        let mut arguments = BTreeSet::new();
        if let RuleHead::Func { args, .. } = head {
            args.iter().for_each(|arg| declared(arg, &mut arguments));
        }
        self.scopes.push(arguments);
        // The head may use what any of the bodies declares.
        let bodies_declare = bodies.iter().flat_map(|body| declarations(&body.query)).collect();
        self.scopes.push(bodies_declare);
        match head {
            RuleHead::Compr { refr, assign, .. } => self.head(refr, assign.as_ref().map(|assign| &assign.value)),
            RuleHead::Set { refr, key, .. } => self.head(refr, key.as_ref()),
            RuleHead::Func { refr, assign, .. } => self.head(refr, assign.as_ref().map(|assign| &assign.value)),
        }
        self.scopes.pop();
        for body in bodies {
            self.query(&body.query, body.assign.as_ref().map(|assign| &assign.value).into_iter());
        }
        self.scopes.pop();
    }

    fn head(&mut self, refr: &Expr, value: Option<&Ref<Expr>>) {
        // Only what stands in brackets of a rule's own name refers to anything: `m[x] := …`.
        let mut refr = refr;
        while let Expr::RefBrack { refr: inner, index, .. } = refr {
            self.expr(index);
            refr = inner;
        }
        if let Some(value) = value {
            self.expr(value);
        }
    }

    fn query<'e>(&mut self, query: &ast::Query, results: impl Iterator<Item = &'e Ref<Expr>>) {
        self.scopes.push(declarations(query));
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().for_each(|key| self.expr(key));
                    self.expr(value);
                    self.expr(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { key, value, domain, query, .. } => {
                    self.expr(domain);
                    self.scopes.push(key.iter().chain([value]).map(|name| name.text().to_owned()).collect());
                    self.query(query, std::iter::empty());
                    self.scopes.pop();
                }
            }
            for with in &statement.with_mods {
                // The target is replaced, not used; a test may replace what does not exist.
                self.expr(&with.r#as);
            }
        }
        results.for_each(|result| self.expr(result));
        self.scopes.pop();
    }

    fn expr(&mut self, expr: &Expr) {
        if self.depth >= MAX_DEPTH {
            let message = format!("expressions nested more than {MAX_DEPTH} deep; give a part a name of its own");
            self.wrong.push((expr.span().clone(), message));
            return;
        }
        self.depth += 1;
        self.expr_below(expr);
        self.depth -= 1;
    }

    fn expr_below(&mut self, expr: &Expr) {
        match expr {
            Expr::Var { span, .. } => self.refer(span, &[]),
            Expr::RefDot { .. } | Expr::RefBrack { .. } => self.chain(expr),
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| self.expr(item)),
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expr(key);
                    self.expr(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.query(query, [term].into_iter());
            }
            Expr::ObjectCompr { key, value, query, .. } => self.query(query, [key, value].into_iter()),
            Expr::Call { fcn, params, .. } => {
                self.call(fcn, params.len());
                params.iter().for_each(|param| self.expr(param));
            }
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expr(lhs);
                self.expr(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().for_each(|key| self.expr(key));
                self.expr(value);
                self.expr(collection);
            }
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
        }
    }

    fn chain(&mut self, expr: &Expr) {
        match reference(expr) {
            Some((root, steps)) => self.refer(root, &steps),
            None => {
                // Something else with a step below it, e.g. `f(x).y`: its inner part is walked by itself.
                let mut inner = expr;
                while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = inner {
                    inner = refr;
                }
                self.expr(inner);
            }
        }
        let mut part = expr;
        loop {
            part = match part {
                Expr::RefDot { refr, .. } => refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.expr(index);
                    refr
                }
                _ => break,
            };
        }
    }

    /// Where a reference leads; `None`: not to a rule.
    fn resolve(&self, root: &str, steps: &[Step<'_>]) -> Option<Vec<String>> {
        let known = path(root, steps);
        if root == "data" {
            return Some(known[1..].to_vec());
        }
        if root == "input" || self.scopes.iter().any(|scope| scope.contains(root)) {
            return None;
        }
        if let Some(target) = self.imports.get(root) {
            return (target.first().map(String::as_str) == Some("data")).then(|| [&target[1..], &known[1..]].concat());
        }
        let own = [self.package.clone(), known].concat();
        let rule = &own[..=self.package.len()];
        let exists = self.names.rules.range(rule.to_vec()..).next().is_some_and(|(found, _)| found.starts_with(rule));
        exists.then_some(own)
    }

    fn refer(&mut self, root: &Span, steps: &[Step<'_>]) {
        let Some(target) = self.resolve(root.text(), steps) else { return };
        let meant = self.names.meant(&target);
        // A test may give `data.x` by `with`.
        if meant.is_empty() && !self.is_test {
            self.wrong.push((root.clone(), format!("`data.{}` is not defined in any file", target.join("."))));
        }
        self.refers.extend(meant);
    }

    fn call(&mut self, function: &Expr, given: usize) {
        let Some((root, steps)) = reference(function) else { return self.expr(function) };
        let name = path(root.text(), &steps).join(".");
        let target = self.resolve(root.text(), &steps).filter(|target| self.names.rules.contains_key(target));
        let wanted = match &target {
            Some(target) => self.names.rules[target],
            None => ast::BUILTINS.get(name.as_str()).map(|(_, arity)| usize::from(*arity)),
        };
        // `f(x, y)` may stand for `y = f(x)`.
        match wanted {
            Some(wanted) if given != wanted && given != wanted + 1 => {
                self.wrong.push((root.clone(), format!("`{name}` takes {wanted} arguments, not {given}")));
            }
            None if target.is_none() && name != "print" => {
                self.wrong.push((root.clone(), self.unknown_function(&name)))
            }
            _ if UNSTEADY.contains(&name.as_str()) => {
                let message = format!("`{name}` is refused: a verdict depends on nothing but its input");
                self.wrong.push((root.clone(), message));
            }
            _ => {}
        }
        self.refers.extend(target);
    }

    fn unknown_function(&self, name: &str) -> String {
        let own = self.names.rules.iter().filter(|(rule, arity)| arity.is_some() && rule.starts_with(&self.package));
        let own: Vec<&str> = own.filter_map(|(rule, _)| rule.last().map(String::as_str)).collect();
        let known: Vec<&str> = own.into_iter().chain(ast::BUILTINS.keys().copied()).collect();
        match yaml::unknown("there is no function", name, &known) {
            offered if offered.ends_with('?') => offered,
            _ => format!("there is no function `{name}`"),
        }
    }
}

/// The names that the statements of a query declare: `some x`, `some x in xs`, `x := …`.
fn declarations(query: &ast::Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for statement in &query.stmts {
        match &statement.literal {
            Literal::SomeVars { vars, .. } => names.extend(vars.iter().map(|name| name.text().to_owned())),
            Literal::SomeIn { key, value, .. } => {
                key.iter().chain([value]).for_each(|pattern| declared(pattern, &mut names));
            }
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { op: ast::AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                    declared(lhs, &mut names);
                }
            }
            Literal::NotExpr { .. } | Literal::Every { .. } => {}
        }
    }
    names
}

/// The variables of a pattern. Patterns are as shallow as brackets may be.
fn declared(pattern: &Expr, names: &mut BTreeSet<String>) {
    match pattern {
        Expr::Var { span, .. } => drop(names.insert(span.text().to_owned())),
        Expr::Array { items, .. } => items.iter().for_each(|item| declared(item, names)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| declared(value, names)),
        _ => {}
    }
}
