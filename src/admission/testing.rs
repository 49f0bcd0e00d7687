//! The tests of a policy set: rules named `test_…` in packages named `…_test`, run through the engine that judges.

use std::time::Duration;

use super::policy_set::{self, LoadErrors, Source};
use crate::template::Json;

/// Time that all tests of a set may take together; one alone at most half of it.
const LIMIT: Duration = Duration::from_secs(60);

/// What one test gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// `data.surefoot.probes_test.test_grpc_counts`
    pub name: String,
    /// File of the test.
    pub file: String,
    /// Where the rule begins, or where it broke.
    pub line: u32,
    /// `None`: passed. Else why not.
    pub failed: Option<String>,
}

/// Runs every test in `sources`, in the order of the files.
pub fn run_tests(sources: &[Source]) -> Result<Vec<TestOutcome>, LoadErrors> {
    let sources: Vec<Source> = sources.iter().filter(|source| source.path.ends_with(".rego")).cloned().collect();
    let (engine, modules) = policy_set::parse(&sources)?;
    let mut session = engine.session(LIMIT);
    let mut outcomes: Vec<TestOutcome> = Vec::new();
    for module in modules.iter().filter(|module| module.package.last().is_some_and(|last| last.ends_with("_test"))) {
        for rule in module.rules.iter().filter(|rule| rule.name.starts_with("test_")) {
            let name = format!("data.{}.{}", module.package.join("."), rule.name);
            if outcomes.iter().any(|outcome| outcome.name == name) {
                continue;
            }
            let (line, failed) = match session.eval(&name, Json::Undefined) {
                Ok(Json::Bool(true)) => (rule.at.line, None),
                Ok(Json::Undefined) => (rule.at.line, Some("did not hold".to_owned())),
                Ok(other) => (rule.at.line, Some(format!("gave {other} instead of true"))),
                Err(broken) if broken.file == module.file => (broken.line, Some(broken.message)),
                Err(broken) => (
                    rule.at.line,
                    Some(format!("{}:{}:{}: {}", broken.file, broken.line, broken.column, broken.message)),
                ),
            };
            outcomes.push(TestOutcome { name, file: module.file.clone(), line, failed });
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};

    #[test]
    fn each_test_passes_or_says_why_not() {
        let test = r#"package surefoot.probes_test
import data.surefoot.probes

bad := {"request": {"object": {"spec": {"template": {"spec": {"containers": [{"name": "m"}]}}}}}}

test_denies if count(probes.deny) == 1 with input as bad
test_wrong if count(probes.deny) == 0 with input as bad
test_ignored if count(probes.deny) == 0 with input as object.union(bad, {"parameters": {"ignoreContainers": ["m"]}})
test_breaks if {
	1 / 0 == 1
}
test_value := 7
helper := 1
"#;
        let mut sources = standard();
        sources.push(Source { path: "probes/policy_test.rego".to_owned(), text: test.to_owned() });
        let outcomes = run_tests(&sources).unwrap();
        let rows: Vec<_> = outcomes
            .iter()
            .map(|one| (one.name.rsplit('.').next().unwrap(), one.line, one.failed.as_deref()))
            .collect();
        assert_eq!(
            rows,
            [
                ("test_denies", 6, None),
                ("test_wrong", 7, Some("did not hold")),
                ("test_ignored", 8, None),
                ("test_breaks", 10, Some("divide by zero")),
                ("test_value", 12, Some("gave 7 instead of true")),
            ]
        );
        assert!(run_tests(&self::sources(&[("a.rego", "package a\nr :=")])).is_err());
    }
}
