//! One walk over the rules of a module: what each refers to, and which names mean nothing.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{self as ast, Expr, Literal, Ref, RuleHead, Span};

use super::{MAX_DEPTH, Names, package};
use crate::config::yaml;

/// Built-in functions whose value is not decided by their arguments.
const UNSTEADY: [&str; 1] = ["rand.intn"];

/// One step of a reference below its root; `None` where it is computed.
type Step<'a> = Option<&'a str>;

/// A reference such as `data.a["b"][c].d`: its root and its steps. `None`: the expression is no reference.
pub(super) fn reference(expr: &Expr) -> Option<(&Span, Vec<Step<'_>>)> {
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
pub(super) fn path(root: &str, steps: &[Step<'_>]) -> Vec<String> {
    std::iter::once(root).chain(steps.iter().map_while(|step| *step)).map(str::to_owned).collect()
}

/// The names of one query, or of the arguments of a function.
#[derive(Default)]
struct Scope {
    /// By `some`, `every`, `:=` or as an argument: they hide rules of the same name.
    declared: BTreeSet<String>,
    /// By use, where no rule has that name: `xs[i]`, `[a, b] = f(x)`.
    bound: BTreeSet<String>,
}

impl Scope {
    fn of(query: &ast::Query) -> Self {
        let mut bound = BTreeSet::new();
        for statement in &query.stmts {
            if let Literal::Expr { expr, .. } = &statement.literal {
                binds(expr, 0, &mut bound);
            }
            if let Literal::SomeIn { collection, .. } = &statement.literal {
                binds(collection, 0, &mut bound);
            }
        }
        Self { declared: declarations(query), bound }
    }
}

/// Walks the rules of one module.
pub(super) struct Walk<'a> {
    names: &'a Names,
    package: Vec<String>,
    imports: BTreeMap<String, Vec<String>>,
    is_test: bool,
    /// The scopes around the expression that is being walked, innermost last.
    scopes: Vec<Scope>,
    depth: usize,
    pub(super) refers: BTreeSet<Vec<String>>,
    /// Targets of `with`.
    pub(super) replaces: BTreeSet<Vec<String>>,
    /// Calls of the built-in `print`.
    pub(super) prints: Vec<Span>,
    pub(super) wrong: Vec<(Span, String)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(module: &ast::Module, names: &'a Names) -> Self {
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
            replaces: BTreeSet::new(),
            prints: Vec::new(),
            wrong: Vec::new(),
        }
    }

    pub(super) fn rule_path(&self, rule: &ast::Rule) -> Vec<String> {
        let (ast::Rule::Spec {
            head: RuleHead::Set { refr, .. } | RuleHead::Compr { refr, .. } | RuleHead::Func { refr, .. },
            ..
        }
        | ast::Rule::Default { refr, .. }) = rule;
        let own = reference(refr).map(|(root, rest)| path(root.text(), &rest)).unwrap_or_default();
        [self.package.clone(), own].concat()
    }

    pub(super) fn rule(&mut self, rule: &ast::Rule) {
        let (head, bodies) = match rule {
            ast::Rule::Default { value, .. } => return self.expr(value),
            ast::Rule::Spec { head, bodies, .. } => (head, bodies),
        };
        let mut arguments = Scope::default();
        if let RuleHead::Func { args, .. } = head {
            args.iter().for_each(|arg| declared(arg, &mut arguments.declared));
        }
        self.scopes.push(arguments);
        // The head may use what any of the bodies declares.
        let mut all = Scope::default();
        for Scope { declared, bound } in bodies.iter().map(|body| Scope::of(&body.query)) {
            all.declared.extend(declared);
            all.bound.extend(bound);
        }
        self.scopes.push(all);
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
        self.scopes.push(Scope::of(query));
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
                    let declared = key.iter().chain([value]).map(|name| name.text().to_owned()).collect();
                    self.scopes.push(Scope { declared, bound: BTreeSet::new() });
                    self.query(query, std::iter::empty());
                    self.scopes.pop();
                }
            }
            for with in &statement.with_mods {
                // The target is replaced, not used; a test may replace what does not exist.
                self.expr(&with.r#as);
                let target = reference(&with.refr).and_then(|(root, steps)| self.resolve(root.text(), &steps));
                self.replaces.extend(target.into_iter().flat_map(|target| self.names.meant(&target)));
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
            Expr::Call { span, fcn, params, .. } => {
                if self.is_print(fcn) {
                    self.prints.push(span.clone());
                }
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
        if root == "input" || self.scopes.iter().any(|scope| scope.declared.contains(root)) {
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
        let Some(target) = self.resolve(root.text(), steps) else {
            if !self.is_known(root.text()) {
                self.wrong.push((root.clone(), self.undefined(root.text())));
            }
            return;
        };
        if self.leads_back(root.text()) {
            let (said, whole) = (path(root.text(), steps).join("."), target.join("."));
            let message =
                format!("`{said}` leads back here by an import, where nothing is found; write `data.{whole}`");
            self.wrong.push((root.clone(), message));
        }
        let meant = self.names.meant(&target);
        // A test may give `data.x` by `with`.
        if meant.is_empty() && !self.is_test {
            self.wrong.push((root.clone(), format!("`data.{}` is not defined in any file", target.join("."))));
        }
        self.refers.extend(meant);
    }

    /// It is an import of this package, or of one that this is in. The engine evaluates an imported package as a whole but for
    /// the rules around it, and takes them for undefined.
    fn leads_back(&self, root: &str) -> bool {
        let is_hidden = self.scopes.iter().any(|scope| scope.declared.contains(root));
        let target = self.imports.get(root).filter(|_| !is_hidden).and_then(|target| target.split_first());
        target.is_some_and(|(first, package)| first == "data" && self.package.starts_with(package))
    }

    fn is_known(&self, name: &str) -> bool {
        let in_scope = |scope: &Scope| scope.declared.contains(name) || scope.bound.contains(name);
        ["input", "_"].contains(&name) || self.imports.contains_key(name) || self.scopes.iter().any(in_scope)
    }

    fn undefined(&self, name: &str) -> String {
        // Names of one or two letters are all alike.
        const TELLING: usize = 3;
        let own = self.names.rules.keys().filter_map(|rule| rule.strip_prefix(self.package.as_slice())?.first());
        let scopes = self.scopes.iter().flat_map(|scope| scope.declared.iter().chain(&scope.bound));
        let known = own.chain(self.imports.keys()).chain(scopes).map(String::as_str).chain(["input", "data"]);
        let known: Vec<&str> = known.filter(|known| known.len() >= TELLING && *known != name).collect();
        match yaml::close(name, &known).filter(|_| name.len() >= TELLING) {
            Some(meant) => format!("`{name}` is not defined; did you mean `{meant}`?"),
            None => format!("`{name}` is not defined"),
        }
    }

    fn is_print(&self, function: &Expr) -> bool {
        matches!(function, Expr::Var { span, .. } if span.text() == "print" && self.resolve("print", &[]).is_none())
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
        let functions =
            || self.names.rules.iter().filter(|(_, arity)| arity.is_some()).map(|(rule, _)| rule.as_slice());
        let own = functions().filter_map(|rule| Some(rule.strip_prefix(self.package.as_slice())?.join(".")));
        let of_imports = self.imports.iter().flat_map(|(alias, target)| {
            let below = move |rule: &[String]| {
                let rest = rule.strip_prefix(target.strip_prefix(&["data".to_owned()])?)?;
                Some([std::slice::from_ref(alias), rest].concat().join("."))
            };
            functions().filter_map(below)
        });
        let known: Vec<String> = own.chain(of_imports).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).chain(ast::BUILTINS.keys().copied()).collect();
        match yaml::close(name, &known) {
            Some(meant) => format!("there is no function `{name}`; did you mean `{meant}`?"),
            None => format!("there is no function `{name}`"),
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

/// The variables that an expression gives a value to where they have none: indices, sides of `=`, the extra argument that
/// stands for what a function gives. Not those of the queries inside.
fn binds(expr: &Expr, depth: usize, names: &mut BTreeSet<String>) {
    if depth >= MAX_DEPTH {
        return;
    }
    let mut below = |expr: &Expr| binds(expr, depth + 1, names);
    match expr {
        Expr::RefDot { refr, .. } => below(refr),
        Expr::RefBrack { refr, index, .. } => {
            below(refr);
            below(index);
            declared(index, names);
        }
        Expr::AssignExpr { op, lhs, rhs, .. } => {
            below(lhs);
            below(rhs);
            if *op == ast::AssignOp::Eq {
                declared(lhs, names);
                declared(rhs, names);
            }
        }
        Expr::Call { params, .. } => {
            params.iter().for_each(|param| below(param));
            if let [_, .., last] = params.as_slice() {
                declared(last, names);
            }
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| below(item)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, key, value)| {
            below(key);
            below(value);
        }),
        Expr::UnaryExpr { expr, .. } => below(expr),
        Expr::BinExpr { lhs, rhs, .. } | Expr::BoolExpr { lhs, rhs, .. } | Expr::ArithExpr { lhs, rhs, .. } => {
            below(lhs);
            below(rhs);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).for_each(|part| below(part));
        }
        _ => {}
    }
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
