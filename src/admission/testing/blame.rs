//! Why a test did not hold: the first of its statements that nothing satisfies, and the values that it looked at.
//!
//! The engine says only "undefined". So the beginnings of the test's body become rules of their own, one statement longer
//! each, and the first of them without value names the statement; its operands are asked for in the same way.

use std::time::Duration;

use regorus::unstable::{self as ast, Expr, Literal, LiteralStmt, Ref, RuleHead};

use super::{Test, Tests, text_of};
use crate::{admission::Source, template::Json};

/// Asked for by nobody else: a name that no author gives.
const PREFIX: &str = "surefoot_why_";

/// The statement of a test that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Where it stands in the file of the test.
    pub line: u32,
    /// The statement, on one line.
    pub text: String,
    /// What it looked at.
    pub values: Vec<Shown>,
}

/// A part of a statement and what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The part, on one line.
    pub part: String,
    /// Its values as JSON (sets as `{…}`), one for each way to get there; none: undefined.
    pub values: Vec<String>,
}

impl Tests {
    /// The statement because of which `test` has no value, each question answered within `limit`; `None` where it cannot be
    /// said, e.g. because statements use what only later ones bind.
    pub(super) fn why(&self, test: &Test, limit: Duration) -> Option<Why> {
        let ast::Rule::Spec { head: RuleHead::Compr { .. }, bodies, .. } = self.rule(test) else { return None };
        let [body] = bodies.as_slice() else { return None };
        let statements = &body.query.stmts;
        let beginnings = (1..=statements.len()).map(|end| format!("if {{\n{}\n}}", joined(&statements[..end])));
        let asked = self.asked(test, beginnings, limit)?;
        let broken = asked.iter().position(|value| *value == Json::Undefined)?;
        let statement = &statements[broken];
        let parts: Vec<String> =
            parts(&statement.literal).into_iter().map(|part| text_of(part.span()).to_owned()).collect();
        let with = with(statement);
        let before = joined(&statements[..broken]);
        let questions = parts
            .iter()
            .map(|part| format!("contains {PREFIX}value if {{\n{before}\n{PREFIX}value := ({part}){with}\n}}"));
        let values = self.asked(test, questions, limit).unwrap_or_default();
        let shown = |(part, value): (&String, Json)| Shown {
            part: one_line(part),
            values: match value {
                Json::Set(values) => values.iter().map(rendered).collect(),
                _ => Vec::new(),
            },
        };
        let values = parts.iter().zip(values).map(shown).collect();
        Some(Why { line: statement.span.line, text: one_line(text_of(&statement.span)), values })
    }

    /// The names that `test_x[name] if …` tries: what `name` is after the fewest statements that bind it.
    pub(super) fn tried(&self, test: &Test, limit: Duration) -> Vec<Json> {
        let (Some(key), ast::Rule::Spec { bodies, .. }) = (self.keys(test), self.rule(test)) else { return Vec::new() };
        let [body] = bodies.as_slice() else { return Vec::new() };
        let statements = &body.query.stmts;
        let key = text_of(key.span());
        let binds = |name: &str| statements.iter().position(|it| words(text_of(&it.span)).any(|word| word == name));
        let end = words(key).filter_map(binds).max().map_or(0, |last| last + 1);
        let before = joined(&statements[..end]);
        let question = format!("contains {PREFIX}value if {{\n{before}\n{PREFIX}value := {key}\n}}");
        match self.asked(test, std::iter::once(question), limit).as_deref() {
            Some([Json::Set(values)]) => values.iter().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// The values of rules that stand in the package of `test`; `None` if they do not compile.
    fn asked(&self, test: &Test, rules: impl Iterator<Item = String>, limit: Duration) -> Option<Vec<Json>> {
        let module = &self.modules[test.module];
        let package = module.package.refr.span().text();
        let mut text = format!("package {package}\n");
        for import in &module.imports {
            text.push_str(text_of(&import.span));
            text.push('\n');
        }
        let mut names = Vec::new();
        for (index, rule) in rules.enumerate() {
            names.push(format!("data.{package}.{PREFIX}{index}"));
            text.push_str(&format!("{PREFIX}{index} {rule}\n"));
        }
        let mut sources = self.sources.clone();
        sources.push(Source { path: PREFIX.to_owned(), text });
        let mut engine = super::engine_of(&sources).ok()?;
        names.first().map_or(Ok(()), |name| engine.prepare(name)).ok()?;
        names.iter().map(|name| engine.ask(name, limit).value.ok()).collect()
    }
}

/// What is worth showing of a statement: what it compares, what it calls a function with, what it denies.
fn parts(literal: &Literal) -> Vec<&Ref<Expr>> {
    let expr = match literal {
        Literal::SomeVars { .. } => return Vec::new(),
        Literal::SomeIn { collection, .. } => return vec![collection],
        Literal::Every { domain, .. } => return vec![domain],
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => expr,
    };
    let mut parts = Vec::new();
    match expr.as_ref() {
        Expr::BoolExpr { lhs, rhs, .. } | Expr::AssignExpr { lhs, rhs, .. } | Expr::BinExpr { lhs, rhs, .. } => {
            parts.extend([lhs, rhs]);
        }
        Expr::Membership { value, collection, .. } => parts.extend([value, collection]),
        Expr::Call { params, .. } => parts.extend(params),
        _ => parts.push(expr),
    }
    // How many there are says less than what they are.
    let counted: Vec<&Ref<Expr>> = parts.iter().filter_map(|part| counted(part)).collect();
    parts.extend(counted);
    parts.retain(|part| !is_constant(part));
    parts
}

/// `x` of `count(x)`.
fn counted(expr: &Expr) -> Option<&Ref<Expr>> {
    match expr {
        Expr::Call { fcn, params, .. } if fcn.span().text() == "count" => params.first(),
        _ => None,
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {
            true
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().all(|item| is_constant(item)),
        Expr::Object { fields, .. } => fields.iter().all(|(_, key, value)| is_constant(key) && is_constant(value)),
        Expr::Call { fcn, params, .. } => params.is_empty() && fcn.span().text() == "set",
        _ => false,
    }
}

fn joined(statements: &[LiteralStmt]) -> String {
    let mut text = String::new();
    for statement in statements {
        text.push_str(text_of(&statement.span));
        text.push('\n');
    }
    // A body without statements is none.
    if text.is_empty() { "true".to_owned() } else { text }
}

fn with(statement: &LiteralStmt) -> String {
    statement.with_mods.iter().map(|with| format!(" {}", text_of(&with.span))).collect()
}

/// A value as one would write it in Rego.
pub(super) fn rendered(value: &Json) -> String {
    match value {
        Json::Set(items) if items.is_empty() => "set()".to_owned(),
        Json::Set(items) => {
            let items: Vec<String> = items.iter().map(rendered).collect();
            format!("{{{}}}", items.join(", "))
        }
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(rendered).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}: {}", rendered(key), rendered(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// The names in a text, and some words that are none.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|sign: char| !sign.is_alphanumeric() && sign != '_').filter(|word| !word.is_empty())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
