//! What a policy author does: `surefoot test`, as a person or a pipeline runs it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("workbench::the_shipped_set_passes_and_is_covered", the_shipped_set_passes_and_is_covered),
        trial("workbench::what_fails_says_what_it_looked_at", what_fails_says_what_it_looked_at),
        trial("workbench::cases_are_held_to_their_first_line", cases_are_held_to_their_first_line),
        trial("workbench::coverage_counts_what_was_not_reached", coverage_counts_what_was_not_reached),
        trial("workbench::a_part_can_be_run", a_part_can_be_run),
        trial("workbench::what_does_not_load_has_a_place", what_does_not_load_has_a_place),
        trial("workbench::an_endless_test_is_named_and_the_rest_runs", an_endless_test_is_named_and_the_rest_runs),
    ]
}

/// What one run of the binary gave.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON on stdout: {self:?}"))
    }

    /// Fails unless it ended with `code` and said all of `words`, on whichever stream.
    fn says(&self, code: i32, words: &[&str]) -> anyhow::Result<()> {
        ensure!(self.code == Some(code), "exit code {:?}, not {code}\n{}\n{}", self.code, self.stdout, self.stderr);
        for words in words {
            let said = self.stdout.contains(words) || self.stderr.contains(words);
            ensure!(said, "`{words}` is not in\n{}\n{}", self.stdout, self.stderr);
        }
        Ok(())
    }
}

fn surefoot(folder: &Path, arguments: &[&str]) -> anyhow::Result<Run> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surefoot"));
    let Output { status, stdout, stderr } = command.args(arguments).current_dir(folder).output()?;
    Ok(Run { code: status.code(), stdout: String::from_utf8(stdout)?, stderr: String::from_utf8(stderr)? })
}

fn write(folder: &Path, file: &str, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().context("a file has a folder")?)?;
    Ok(fs::write(path, text)?)
}

const POLICY: &str = "package surefoot.owner

deny contains {\"code\": \"missing\", \"msg\": \"no owner\"} if {
	not input.request.object.metadata.annotations.owner
	not ignored
}

ignored if input.request.object.metadata.name == \"legacy\"
";

const TEST: &str = "package surefoot.owner_test

import data.surefoot.owner

named(name) := {\"request\": {\"object\": {\"metadata\": {\"name\": name}}}}

test_denies if count(owner.deny) == 1 with input as named(\"a\")
test_ignores if count(owner.deny) == 0 with input as named(\"legacy\")
";

/// A Deployment that only Kubernetes judges, with these annotations.
fn case(want: &str, name: &str, annotations: &str) -> String {
    format!(
        "{want}
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}
spec:
  selector: {{matchLabels: {{app: a}}}}
  template:
    metadata: {{labels: {{app: a}}}}
    spec:
      containers:
      - {{name: model, image: registry.local/a:1.0.0}}
"
    )
}

/// A folder with one policy, its tests and two cases; all is well.
fn workplace() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), "policies/owner/policy.rego", POLICY)?;
    write(folder.path(), "policies/owner/policy_test.rego", TEST)?;
    write(folder.path(), "tests/cases/owner/deny.yaml", case("# want: deny missing", "a", ""))?;
    write(folder.path(), "tests/cases/owner/allow.yaml", case("# want: allow", "a", "owner: me"))?;
    Ok(folder)
}

fn the_shipped_set_passes_and_is_covered() -> anyhow::Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = surefoot(top, &["test", "policies", "--min-coverage", "100", "-o", "json"])?;
    let report = run.json()?;
    ensure!(run.code == Some(0), "{}", serde_json::to_string_pretty(&report["problems"])?);
    for policy in report["policies"].as_array().context("policies")? {
        let name = policy["name"].as_str().unwrap_or_default();
        ensure!(policy["coverage"] == 100.0 && policy["tests"].as_u64() > Some(0), "{policy}");
        ensure!(name == "lib" || policy["cases"].as_u64() > Some(0), "{policy}");
    }
    let count = |what: &str| report[what].as_array().map_or(0, Vec::len);
    println!("{} policies, {} unit tests, {} cases", count("policies"), count("tests"), count("cases"));
    ensure!(count("policies") > 6 && count("tests") > 100 && count("cases") > 50, "too few");
    Ok(())
}

fn what_fails_says_what_it_looked_at() -> anyhow::Result<()> {
    let folder = workplace()?;
    let more = "
test_wrong if {
	print(\"looking\")
	codes := {it.code | some it in owner.deny} with input as named(\"a\")
	codes == {\"present\"}
}

test_breaks if 1 / 0 == 1

todo_test_later if false

test_table[name] if {
	some name in [\"a\", \"legacy\"]
	count(owner.deny) == 1 with input as named(name)
}
";
    write(folder.path(), "policies/owner/policy_test.rego", format!("{TEST}{more}"))?;
    let run = surefoot(folder.path(), &["test"])?;
    run.says(
        1,
        &[
            "FAIL data.surefoot.owner_test.test_wrong   policies/owner/policy_test.rego:10:1\n    13 | codes == {\"present\"}\n       |   codes = {\"missing\"}\n     printed policies/owner/policy_test.rego:11: looking\n",
            "FAIL data.surefoot.owner_test.test_breaks   policies/owner/policy_test.rego:16:18\n     divide by zero\n",
            "did not hold for legacy",
            "3 of 8 failed, coverage 100 %",
            "exit code 1",
        ],
    )?;
    ensure!(!run.stdout.contains('\x1b') && !run.stdout.contains("test_denies"), "{}", run.stdout);

    let verbose = surefoot(folder.path(), &["test", "-v"])?;
    verbose.says(1, &["ok   data.surefoot.owner_test.test_denies", "skip data.surefoot.owner_test.todo_test_later"])?;

    let report = surefoot(folder.path(), &["test", "-o", "json"])?.json()?;
    let wrong = report["tests"].as_array().into_iter().flatten().find(|it| it["why"].is_object()).context("why")?;
    ensure!(wrong["line"] == 10 && wrong["outcome"] == "failed" && report["failed"] == 3, "{report}");
    ensure!(wrong["why"]["values"][0]["values"][0] == "{\"missing\"}", "{wrong}");
    Ok(())
}

fn cases_are_held_to_their_first_line() -> anyhow::Result<()> {
    let folder = workplace()?;
    surefoot(folder.path(), &["test"])?.says(0, &["2 tests and 2 cases passed, coverage 100 %"])?;
    // (name, text of the case, what is said)
    let rows = [
        ("a.yaml", case("# want: allow", "a", ""), "want denials: none; got: owner/missing"),
        ("b.yaml", case("# want: deny other", "a", ""), "want denials: owner/other; got: owner/missing"),
        ("c.yaml", case("# want: warn x", "a", "owner: me"), "want warnings: owner/x; got: none"),
        ("d.yaml", case("", "a", ""), "1:1: the first line does not say what is wanted"),
        ("e.yaml", "# want: allow\na: 1\na: 2\n".to_owned(), "3:1: "),
        ("f.yaml", "# want: allow\nkind: Service\napiVersion: v1\n".to_owned(), "there is no Deployment in it"),
    ];
    for (name, text, _) in &rows {
        write(folder.path(), &format!("tests/cases/owner/{name}"), text)?;
    }
    write(folder.path(), "tests/cases/owner/g.yaml", b"# want: allow\n\xff")?;
    write(folder.path(), "tests/cases/ower/deny.yaml", "")?;
    let run = surefoot(folder.path(), &["test"])?;
    run.says(1, &["7 of 11 failed", "there is no policy `ower`; did you mean `owner`?", "is no UTF-8"])?;
    for (name, _, said) in rows {
        let block = format!("FAIL tests/cases/owner/{name}\n     {said}");
        ensure!(run.stdout.contains(&block), "`{block}` is not in\n{}", run.stdout);
    }
    // Elsewhere, and from within.
    fs::rename(folder.path().join("tests/cases"), folder.path().join("elsewhere"))?;
    surefoot(folder.path(), &["test"])?.says(0, &["2 tests and 0 cases passed"])?;
    surefoot(folder.path(), &["test", "--cases", "elsewhere"])?.says(1, &["7 of 11 failed"])?;
    surefoot(&folder.path().join("policies"), &["test", ".", "--cases", "../elsewhere"])?.says(1, &["7 of 11"])?;
    surefoot(folder.path(), &["test", "--cases", "nowhere"])?.says(2, &["cannot read the cases in nowhere"])?;
    Ok(())
}

fn coverage_counts_what_was_not_reached() -> anyhow::Result<()> {
    let folder = workplace()?;
    let policy = format!("{POLICY}\nwarn contains \"old\" if {{\n\tinput.request.object.metadata.old\n}}\n");
    write(folder.path(), "policies/owner/policy.rego", policy)?;
    let run = surefoot(folder.path(), &["test"])?;
    run.says(0, &["not reached: policy.rego:10", "   10 | warn contains \"old\" if {\n", "coverage 83 %"])?;
    surefoot(folder.path(), &["test", "--min-coverage", "83"])?.says(0, &[])?;
    surefoot(folder.path(), &["test", "--min-coverage", "84%"])?
        .says(1, &["coverage 83 %, wanted 84 %", "exit code 1"])?;
    surefoot(folder.path(), &["test", "--min-coverage", "101"])?.says(2, &["from 0 to 100"])?;
    Ok(())
}

fn a_part_can_be_run() -> anyhow::Result<()> {
    let folder = workplace()?;
    let run = surefoot(folder.path(), &["test", "--run", "test_den|allow"])?;
    run.says(0, &["1 test and 1 case passed"])?;
    ensure!(!run.stdout.contains("coverage"), "{}", run.stdout);
    surefoot(folder.path(), &["test", "--run", "nothing"])?
        .says(2, &["no test or case of policies matches `nothing`"])?;
    surefoot(folder.path(), &["test", "--run", "("])?.says(2, &["--run"])?;
    Ok(())
}

fn what_does_not_load_has_a_place() -> anyhow::Result<()> {
    let folder = workplace()?;
    surefoot(folder.path(), &["test", "none"])?.says(2, &["none", "cannot read"])?;
    fs::create_dir(folder.path().join("empty"))?;
    surefoot(folder.path(), &["test", "empty"])?.says(2, &["no policies in empty"])?;
    surefoot(&folder.path().join("empty"), &["test"])?.says(2, &["no folder `policies` here", "surefoot test DIR"])?;
    write(folder.path(), "untested/a/policy.rego", POLICY.replace("owner\n", "other\n"))?;
    surefoot(folder.path(), &["test", "untested"])?.says(2, &["untested: there is no test"])?;
    // (text of the policy, what is said)
    let rows: [(&[u8], &str); 4] = [
        (b"package surefoot.owner\ndeny contains", "policies/owner/policy.rego:2:"),
        (b"package surefoot.owner\na if b\nb if a\n", "policies/owner/policy.rego:2:1: this rule needs itself"),
        (b"package surefoot.owner\ndeny contains \"x\" if y\n", "policies/owner/policy.rego:2:22: `y` is not defined"),
        (b"package surefoot.owner # \xff\n", "policies/owner/policy.rego"),
    ];
    for (text, said) in rows {
        write(folder.path(), "policies/owner/policy.rego", text)?;
        let run = surefoot(folder.path(), &["test"])?;
        run.says(2, &[said])?;
        ensure!(!run.stdout.contains("passed"), "{}", run.stdout);
        ensure!(surefoot(folder.path(), &["test", "-o", "json"])?.json()?["problems"][0].is_string(), "{said}");
    }
    Ok(())
}

fn an_endless_test_is_named_and_the_rest_runs() -> anyhow::Result<()> {
    let folder = workplace()?;
    let endless = "
test_endless if {
	some x in numbers.range(1, 30000)
	some y in numbers.range(1, 30000)
	x * y < 0
}

test_last if true
";
    write(folder.path(), "policies/owner/policy_test.rego", format!("{TEST}{endless}"))?;
    let run = surefoot(folder.path(), &["test", "--timeout", "1s"])?;
    run.says(1, &["FAIL data.surefoot.owner_test.test_endless", "did not end within 1000 ms", "1 of 6 failed"])?;
    surefoot(folder.path(), &["test", "--timeout", "soon"])?.says(2, &["5s or 1m"])?;
    Ok(())
}
