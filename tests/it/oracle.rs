//! OPA as oracle: the shipped policies give the same in the real one as in the engine that judges, whatever they are asked;
//! and their files are what OPA's own tools want them to be.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use proptest::{
    strategy::{Strategy as _, ValueTree},
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use surefoot::{
    admission::{Policy, PolicySet},
    config::Config,
    template::Json,
};

use crate::{generated, support::tools::rego_tools, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("oracle::generated_reviews_get_the_same_from_opa", generated_reviews),
        trial("oracle::opa_test_passes", || run("opa", &["test", "policies"])),
        trial("oracle::opa_check_strict_passes", || {
            run("opa", &["check", "--strict", "--schema", "policies/schemas", "policies"])
        }),
        trial("oracle::conftest_verify_passes", || run("conftest", &["verify", "--policy", "policies", "--no-color"])),
    ]
}

/// As many as `SUREFOOT_REVIEWS` says.
const REVIEWS: usize = 2_000;

fn run(tool: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(rego_tools()?.path(tool)).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{out}");
    ensure!(output.status.success(), "{tool} {}:\n{out}{err}", arguments.join(" "));
    Ok(())
}

/// OPA holds a batch and all that it gives in memory.
const BATCH: usize = 500;

fn generated_reviews() -> Result<()> {
    let reviews = std::env::var("SUREFOOT_REVIEWS").ok().and_then(|count| count.parse().ok()).unwrap_or(REVIEWS);
    let both = Both::shipped()?;
    // The same ones in each run: what was seen once can be looked at again.
    let mut runner = TestRunner::deterministic();
    let strategy = generated::input();
    let mut given = BTreeMap::new();
    for start in (0..reviews).step_by(BATCH) {
        let trees: Vec<_> = (start..reviews.min(start + BATCH))
            .map(|_| strategy.new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("{reason}")))
            .collect::<Result<_>>()?;
        let inputs: Vec<Value> = trees.iter().map(ValueTree::current).collect();
        let (ours, theirs) = both.ask(&inputs)?;
        for (index, tree) in trees.into_iter().enumerate() {
            ensure!(ours[index] == theirs[index], "review {}: {}", start + index, both.smallest(tree)?);
            count(&ours[index], &mut given);
        }
    }
    let compared = reviews * both.policies.len();
    println!("{reviews} reviews, {} policies: {compared} comparisons; in them", both.policies.len());
    given.iter().for_each(|(what, count)| println!("  {what:32} {count:6}"));
    // Inputs that no rule says anything of would compare nothing.
    for policy in &both.policies {
        ensure!(given.keys().any(|what| what.starts_with(policy)), "no review made {policy} say anything");
    }
    Ok(())
}

/// Which rules gave something, and how often: `probes deny no-readiness`.
fn count(answers: &Value, given: &mut BTreeMap<String, usize>) {
    for (policy, answer) in answers.as_object().into_iter().flatten() {
        for (rule, entries) in answer.as_object().into_iter().flatten() {
            for entry in entries.as_array().into_iter().flatten() {
                let code = entry["code"].as_str().unwrap_or_default();
                *given.entry(format!("{policy} {rule} {code}")).or_default() += 1;
            }
        }
    }
}

/// The same policies in both engines.
struct Both {
    set: PolicySet,
    policies: Vec<String>,
    /// Sources and the module that asks for everything.
    folder: tempfile::TempDir,
}

impl Both {
    fn shipped() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let sources = PolicySet::built_in_sources();
        for source in sources.iter().filter(|source| !source.path.ends_with("_test.rego")) {
            let path = folder.path().join(&source.path);
            fs::create_dir_all(path.parent().context("a file in no folder")?)?;
            fs::write(path, &source.text)?;
        }
        let set = PolicySet::load(sources, &Config::default())?;
        fs::write(folder.path().join("oracle.rego"), driver(set.policies()))?;
        Ok(Self { policies: set.policies().iter().map(|policy| policy.name.clone()).collect(), set, folder })
    }

    /// What each engine says of each input: `{POLICY: {"deny": […], …}}`, sets in one order.
    fn ask(&self, inputs: &[Value]) -> Result<(Vec<Value>, Vec<Value>)> {
        Ok((inputs.iter().map(|input| self.ours(input)).collect(), self.theirs(inputs)?))
    }

    fn ours(&self, input: &Value) -> Value {
        let answers = self.policies.iter().map(|policy| {
            let input = Json::from(with_parameters_of(policy, input));
            let answer = match self.set.ask(policy, &input, Duration::from_secs(20)) {
                Some(Ok(answer)) => serde_json::to_value(&answer).map(sorted).unwrap_or_default(),
                Some(Err(failure)) => json!(format!("{failure:?}")),
                None => Value::Null,
            };
            (policy.clone(), answer)
        });
        Value::Object(answers.collect())
    }

    /// One conflict in one rule, and OPA says nothing of the whole batch: then it is asked in halves.
    fn theirs(&self, inputs: &[Value]) -> Result<Vec<Value>> {
        let said = self.opa(inputs)?;
        if let Some(results) = said["result"][0]["expressions"][0]["value"].as_array() {
            ensure!(results.len() == inputs.len(), "{} answers to {} inputs", results.len(), inputs.len());
            return Ok(results.iter().cloned().map(sorted).collect());
        }
        let error = &said["errors"][0];
        ensure!(error.is_object(), "opa eval: {said}");
        if let [_] = inputs {
            return Ok(vec![json!(format!("{} {}", error["message"], error["location"]))]);
        }
        let (first, second) = inputs.split_at(inputs.len() / 2);
        Ok([self.theirs(first)?, self.theirs(second)?].concat())
    }

    fn opa(&self, inputs: &[Value]) -> Result<Value> {
        let cases: Vec<Value> = inputs
            .iter()
            .map(|input| {
                self.policies.iter().map(|policy| (policy.clone(), with_parameters_of(policy, input))).collect()
            })
            .collect();
        let file = self.folder.path().join("input.json.batch");
        fs::write(&file, serde_json::to_vec(&json!({ "cases": cases }))?)?;
        let output = Command::new(rego_tools()?.path("opa"))
            .args(["eval", "--format", "json", "--data"])
            .arg(self.folder.path())
            .args(["--ignore", "*.batch", "--input"])
            .arg(&file)
            .arg("data.oracle.results")
            .output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("opa eval: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The smallest input below `tree` on which the two still differ, and what they say.
    fn smallest(&self, mut tree: impl ValueTree<Value = Value>) -> Result<String> {
        let mut smallest = tree.current();
        // Each step starts OPA once.
        for _ in 0..200 {
            let (ours, theirs) = self.ask(&[tree.current()])?;
            let goes_on = if ours == theirs {
                tree.complicate()
            } else {
                smallest = tree.current();
                tree.simplify()
            };
            if !goes_on {
                break;
            }
        }
        let (ours, theirs) = self.ask(std::slice::from_ref(&smallest))?;
        if theirs[0].is_string() {
            return Ok(format!("OPA breaks: {}\non {smallest}", theirs[0]));
        }
        let differing = self.policies.iter().filter(|policy| ours[0][policy.as_str()] != theirs[0][policy.as_str()]);
        let told: Vec<String> = differing
            .map(|policy| {
                format!("{policy}\nours:   {}\ntheirs: {}", ours[0][policy.as_str()], theirs[0][policy.as_str()])
            })
            .collect();
        Ok(format!("{}\non {smallest}", told.join("\n")))
    }
}

/// A module that asks every rule of every policy about every case.
fn driver(policies: &[Policy]) -> String {
    let (mut asked, mut answers) = (String::new(), String::new());
    for policy in policies {
        let package = policy.name.replace('-', "_");
        let rules: Vec<&str> = ["deny", "warn", "defaults"].into_iter().filter(|rule| policy.has(rule)).collect();
        for rule in &rules {
            let input = format!("one[\"{}\"]", policy.name);
            asked += &format!("\t{package}_{rule} := data.surefoot.{package}.{rule} with input as {input}\n");
        }
        let members: Vec<String> = rules.iter().map(|rule| format!("\"{rule}\": {package}_{rule}")).collect();
        answers += &format!("\t\t\"{}\": {{{}}},\n", policy.name, members.join(", "));
    }
    let body = format!("\tsome one in input.cases\n{asked}\tanswer := {{\n{answers}\t}}\n");
    format!("package oracle\n\nresults := [answer |\n{body}]\n")
}

/// The generated parameters are by policy; a policy sees its own.
fn with_parameters_of(policy: &str, input: &Value) -> Value {
    let mut input = input.clone();
    if let Some(own) = input.get("parameters").map(|all| all.get(policy).cloned().unwrap_or_else(|| json!({}))) {
        input["parameters"] = own;
    }
    input
}

/// Sets come as lists, in an order of the engine's own.
fn sorted(mut answer: Value) -> Value {
    for policy in answer.as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
        let rules: Vec<&mut Value> = match policy {
            Value::Array(_) => vec![policy],
            Value::Object(rules) => rules.values_mut().collect(),
            _ => Vec::new(),
        };
        for rule in rules {
            if let Value::Array(entries) = rule {
                entries.sort_by_key(Value::to_string);
            }
        }
    }
    answer
}
