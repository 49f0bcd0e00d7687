//! Which lines of the policies the tests reach, counted as `opa test --coverage` does: a rule is reached when its body has
//! held once, a statement when it was evaluated once; a line is missed when it holds something that was not reached.
//!
//! regorus notes the *lines* on which it evaluated something, which says too little of `allow if input.x`: whether its
//! body was asked, but not whether it ever held. So the tests run on a text in which everything that counts stands on
//! lines of its own, and each body ends in a `true` of its own; what is noted there is told in lines of the author's text.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Range, RangeInclusive},
    time::Duration,
};

use regorus::unstable::{self as ast, Expr, Literal, Query, Ref, RuleHead, Span};

use super::{Test, Tests, extent};
use crate::admission::{Source, Watch, gate};

/// Lines of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Those that hold a rule or a statement.
    pub lines: BTreeSet<u32>,
    /// Those of them that hold something no test reached.
    pub missed: BTreeSet<u32>,
}

impl Tests {
    /// What `tests` reach together of each file that is not itself a file of tests; each may take `limit`.
    pub fn coverage<'a>(
        &self,
        tests: impl Iterator<Item = &'a Test>,
        limit: Duration,
        watch: &Watch,
    ) -> BTreeMap<String, Coverage> {
        let spread: Vec<Spread> = self.modules.iter().map(|module| Spread::new(module)).collect();
        let is_test = |file: &str| file.ends_with("_test.rego") || self.tests.iter().any(|test| test.file == file);
        let mut sources = self.sources.clone();
        for ((source, spread), module) in sources.iter_mut().zip(&spread).zip(&self.modules) {
            source.text = if is_test(&source.path) { direct(module) } else { spread.text.clone() };
        }
        let rules: Vec<String> = tests.filter(|test| !test.is_todo()).map(|test| test.rule.clone()).collect();
        let touched = match super::engine_of(&sources) {
            Ok(mut engine) => {
                // What is wrong with it was said of the author's own text.
                let _ = rules.first().map(|rule| engine.prepare(rule));
                engine.touched(&rules, limit, watch)
            }
            Err(_) => BTreeMap::new(),
        };
        let none = BTreeSet::new();
        let told = |(source, spread): (&Source, &Spread)| {
            let touched = touched.get(&source.path).unwrap_or(&none);
            (!is_test(&source.path)).then(|| (source.path.clone(), spread.coverage(touched)))
        };
        self.sources.iter().zip(&spread).filter_map(told).collect()
    }
}

/// The text of a module with the whole path wherever it begins one with the name of an import: to read `policy.deny` through
/// an import the engine evaluates all rules of the package, and each would seem to be tested.
fn direct(module: &ast::Module) -> String {
    let mut text = module.package.span.source.get_contents().clone();
    for import in &module.imports {
        let path = import.refr.span().text();
        let name = import.r#as.as_ref().map_or_else(|| path.rsplit('.').next().unwrap_or_default(), Span::text);
        if path.starts_with("data.") && !name.is_empty() {
            text = with_path(&text, name, path);
        }
    }
    text
}

fn with_path(text: &str, name: &str, path: &str) -> String {
    let mut direct = String::with_capacity(text.len() * 2);
    let mut done = 0;
    let quoted = gate::quoted(text);
    for (at, _) in text.match_indices(name) {
        if quoted.iter().any(|quoted| quoted.contains(&at)) {
            continue;
        }
        let goes_on = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let begins = !text[..at].ends_with(goes_on);
        if begins && text[at + name.len()..].starts_with(['.', '[']) {
            direct.push_str(&text[done..at]);
            direct.push_str(path);
            done = at + name.len();
        }
    }
    direct.push_str(&text[done..]);
    direct
}

/// A module, and its text with everything that counts on lines of its own.
struct Spread {
    units: Vec<Unit>,
    text: String,
    /// For each line of `text`, from 1: whose it is.
    owners: Vec<Option<usize>>,
}

/// A rule or a statement.
struct Unit {
    /// In the author's text.
    rows: RangeInclusive<u32>,
    /// The statement that it stands in.
    inside: Option<usize>,
}

impl Spread {
    fn new(module: &ast::Module) -> Self {
        let text = module.package.span.source.get_contents();
        let mut cuts = Cuts { text, units: Vec::new(), cuts: Vec::new(), inside: None };
        module.policy.iter().for_each(|rule| cuts.rule(rule));
        cuts.spread()
    }

    fn coverage(&self, touched: &BTreeSet<u32>) -> Coverage {
        let mut reached = vec![false; self.units.len()];
        for line in touched {
            let mut unit = self.owners.get(*line as usize).copied().flatten();
            while let Some(index) = unit {
                reached[index] = true;
                unit = self.units[index].inside;
            }
        }
        let mut coverage = Coverage::default();
        for (unit, reached) in self.units.iter().zip(reached) {
            coverage.lines.extend(unit.rows.clone());
            if !reached {
                coverage.missed.extend(unit.rows.clone());
            }
        }
        coverage
    }
}

/// Where the author's text is to be cut, in the order in which the parts stand in each other.
struct Cuts<'a> {
    text: &'a str,
    units: Vec<Unit>,
    cuts: Vec<Cut>,
    inside: Option<usize>,
}

/// Something to put into the text at a byte of it.
struct Cut {
    at: usize,
    insert: &'static str,
    /// The unit whose lines begin behind, or end before, what is put there.
    begins: Option<usize>,
    ends: Option<usize>,
}

impl Cuts<'_> {
    fn rule(&mut self, rule: &ast::Rule) {
        match rule {
            ast::Rule::Default { span, value, .. } => self.fact(span, span, value),
            ast::Rule::Spec { span, head, bodies } => {
                let (head_span, value) = match head {
                    RuleHead::Compr { span, assign, .. } | RuleHead::Func { span, assign, .. } => {
                        (span, assign.as_ref().map(|assign| &assign.value))
                    }
                    RuleHead::Set { span, key, .. } => (span, key.as_ref()),
                };
                if let (true, Some(value)) = (bodies.iter().all(|body| body.is_else), value) {
                    self.fact(span, head_span, value);
                } else if let Some(value) = value {
                    self.expression(value);
                }
                for body in bodies {
                    match &body.assign {
                        Some(assign) => self.body(&body.span, &assign.span, &body.query),
                        None if body.is_else => self.body(&body.span, &body.span, &body.query),
                        None => self.body(span, head_span, &body.query),
                    }
                }
            }
        }
    }

    /// A rule without a body is reached when its value is evaluated.
    fn fact(&mut self, first: &Span, last: &Span, value: &Ref<Expr>) {
        let unit = self.unit(extent(first).start..extent(last).end);
        let place = extent(value.span());
        self.cut(place.start, "\n", Some(unit), None);
        self.within(unit, |cuts| cuts.expression(value));
        self.cut(place.end, "\n", None, Some(unit));
    }

    /// A rule with a body, whose head stands from the beginning of `first` to the end of `last`, is reached when its body
    /// has held to the end.
    fn body(&mut self, first: &Span, last: &Span, query: &Query) {
        let Some(statements) = query.stmts.first().zip(query.stmts.last()) else {
            let unit = self.unit(extent(first).start..extent(last).end);
            self.cut(extent(last).end, " if {\n", Some(unit), None);
            self.cut(extent(last).end, "true\n}", None, Some(unit));
            return;
        };
        let (start, end) = (extent(&statements.0.span).start, extent(&statements.1.span).end);
        let opens = extent(&query.span).start;
        let unit = self.unit(extent(first).start..extent(last).end.min(opens));
        let bare = opens == start;
        if bare {
            self.cut(start, "{", None, None);
        }
        self.query(query);
        self.cut(end, "\n", Some(unit), None);
        self.cut(end, "true", None, None);
        self.cut(end, if bare { "\n}" } else { "\n" }, None, Some(unit));
    }

    fn query(&mut self, query: &Query) {
        for statement in &query.stmts {
            if let Literal::SomeVars { .. } = statement.literal {
                // Declares names; nothing is evaluated.
                continue;
            }
            let place = extent(&statement.span);
            let unit = self.unit(place.clone());
            self.cut(place.start, "\n", Some(unit), None);
            self.within(unit, |cuts| match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { collection: expr, .. }
                | Literal::Expr { expr, .. }
                | Literal::NotExpr { expr, .. } => cuts.expression(expr),
                Literal::Every { domain, query, .. } => {
                    cuts.expression(domain);
                    cuts.query(query);
                }
            });
            self.cut(place.end, "\n", None, Some(unit));
        }
    }

    /// The comprehensions in an expression hold statements of their own. Those in what a comprehension gives are left
    /// out: regorus notes nothing there.
    fn expression(&mut self, expr: &Expr) {
        match expr {
            Expr::ArrayCompr { query, .. } | Expr::SetCompr { query, .. } | Expr::ObjectCompr { query, .. } => {
                self.query(query);
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| self.expression(item)),
            Expr::Object { fields, .. } => fields.iter().for_each(|(_, key, value)| {
                self.expression(key);
                self.expression(value);
            }),
            Expr::Call { params, .. } => params.iter().for_each(|param| self.expression(param)),
            Expr::UnaryExpr { expr, .. } | Expr::RefDot { refr: expr, .. } => self.expression(expr),
            Expr::RefBrack { refr: lhs, index: rhs, .. }
            | Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. }
            | Expr::Membership { value: lhs, collection: rhs, .. } => {
                self.expression(lhs);
                self.expression(rhs);
            }
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. }
            | Expr::Var { .. } => {}
        }
    }

    fn unit(&mut self, place: Range<usize>) -> usize {
        let row = |at: usize| {
            let newlines = self.text[..at].matches('\n').count();
            u32::try_from(newlines + 1).unwrap_or(u32::MAX)
        };
        self.units.push(Unit { rows: row(place.start)..=row(place.end), inside: self.inside });
        self.units.len() - 1
    }

    fn cut(&mut self, at: usize, insert: &'static str, begins: Option<usize>, ends: Option<usize>) {
        self.cuts.push(Cut { at, insert, begins, ends });
    }

    fn within(&mut self, unit: usize, walk: impl FnOnce(&mut Self)) {
        let outside = self.inside.replace(unit);
        walk(self);
        self.inside = outside;
    }

    fn spread(mut self) -> Spread {
        // Stable: at one place, what was met first stands first.
        self.cuts.sort_by_key(|cut| cut.at);
        let mut text = String::with_capacity(self.text.len() * 2);
        let (mut done, mut line) = (0, 1);
        let mut lines = vec![0..=0; self.units.len()];
        for Cut { at, insert, begins, ends } in &self.cuts {
            let kept = &self.text[done..*at];
            line += kept.matches('\n').count();
            if let Some(unit) = *ends {
                lines[unit] = *lines[unit].start()..=line;
            }
            line += insert.matches('\n').count();
            if let Some(unit) = *begins {
                lines[unit] = line..=line;
            }
            text.push_str(kept);
            text.push_str(insert);
            done = *at;
        }
        text.push_str(&self.text[done..]);
        // What stands in another comes after it, and so wins.
        let mut owners = vec![None; text.matches('\n').count() + 2];
        for (unit, lines) in lines.into_iter().enumerate() {
            owners[lines].fill(Some(unit));
        }
        Spread { units: self.units, text, owners }
    }
}
