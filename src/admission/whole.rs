//! Packages of several modules: of more files than one, or with others below them.
//!
//! Where a rule asks for a package as a whole, which `import data.surefoot.lib` and `lib.rule` do, regorus evaluates it module
//! by module, and takes all of it for done when the first is: what the rules of the others ask of each other is undefined
//! then, and `not` of that is true. OPA knows no such order. So a head stands before the modules of such a package: one more
//! module of it, whose rules ask for each rule of the others by its full path, which regorus answers rightly at any time, and
//! never hold.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead};

/// The texts of the heads that `modules` need.
pub(super) fn heads(modules: &[Ref<Module>]) -> Vec<String> {
    let packages: Vec<Vec<String>> = modules.iter().map(|module| path(&module.package.refr).0).collect();
    let distinct: BTreeSet<&Vec<String>> = packages.iter().collect();
    let head = |package: &Vec<String>| {
        let below = || packages.iter().zip(modules).filter(|(other, _)| other.starts_with(package));
        let own = packages.iter().zip(modules).find(|(other, _)| *other == package)?.1;
        (below().count() > 1).then(|| {
            let rules: BTreeSet<Vec<String>> = below()
                .flat_map(|(other, module)| {
                    module.policy.iter().filter_map(|rule| Some([other.clone(), rule_path(rule)?].concat()))
                })
                .collect();
            text(own.package.refr.span().text(), &rules)
        })
    };
    distinct.into_iter().filter_map(head).collect()
}

fn text(package: &str, rules: &BTreeSet<Vec<String>>) -> String {
    let mut text = format!("package {package}\n");
    for (index, rule) in rules.iter().enumerate() {
        let steps: String = rule.iter().map(|step| format!("[{}]", serde_json::Value::from(step.as_str()))).collect();
        text.push_str(&format!("\n__head_{index} if {{\n\tdata{steps}\n\tfalse\n}}\n"));
    }
    text
}

/// Where the rule is in its package; `None`: it is a function, which is always found.
fn rule_path(rule: &Rule) -> Option<Vec<String>> {
    match rule {
        Rule::Spec { head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. }, .. } => Some(path(refr).0),
        Rule::Default { refr, args, .. } if args.is_empty() => Some(path(refr).0),
        Rule::Spec { head: RuleHead::Func { .. }, .. } | Rule::Default { .. } => None,
    }
}

/// The part of a reference that is known before evaluation, and whether that is all of it.
fn path(expr: &Expr) -> (Vec<String>, bool) {
    let (inner, step) = match expr {
        Expr::Var { span, .. } => return (vec![span.text().to_owned()], true),
        Expr::RefDot { refr, field, .. } => (refr, Some(field.0.text())),
        Expr::RefBrack { refr, index, .. } => match index.as_ref() {
            Expr::String { span, .. } | Expr::RawString { span, .. } => (refr, Some(span.text())),
            _ => (refr, None),
        },
        _ => return (Vec::new(), false),
    };
    let (mut path, is_whole) = path(inner);
    match step.filter(|_| is_whole) {
        Some(step) => path.push(step.to_owned()),
        None => return (path, false),
    }
    (path, true)
}
