//! What a policy author does: `surefoot new`, `test` and `bundle`, as a person or a pipeline runs them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{ChildStderr, ChildStdout, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{shared, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("workbench::the_shipped_set_passes_and_is_covered", the_shipped_set_passes_and_is_covered),
        trial("workbench::what_fails_says_what_it_looked_at", what_fails_says_what_it_looked_at),
        trial("workbench::cases_are_held_to_their_first_line", cases_are_held_to_their_first_line),
        trial("workbench::no_case_is_left_out_in_silence", no_case_is_left_out_in_silence),
        trial("workbench::a_case_of_a_policy_that_needs_history", a_case_of_a_policy_that_needs_history),
        trial("workbench::coverage_counts_what_was_not_reached", coverage_counts_what_was_not_reached),
        trial("workbench::a_part_can_be_run", a_part_can_be_run),
        trial("workbench::what_does_not_load_has_a_place", what_does_not_load_has_a_place),
        trial("workbench::an_endless_test_is_named_and_the_rest_runs", an_endless_test_is_named_and_the_rest_runs),
        trial("workbench::a_test_that_nothing_stops_is_given_up", a_test_that_nothing_stops_is_given_up),
        trial("workbench::junit_is_what_ci_reads", junit_is_what_ci_reads),
        trial("workbench::watching_runs_again_at_each_save", watching_runs_again_at_each_save),
        trial("workbench::what_new_makes_works", what_new_makes_works),
        trial("workbench::what_is_explained_keeps_its_paragraphs", what_is_explained_keeps_its_paragraphs),
        trial("workbench::a_bundle_gives_the_same_verdicts", a_bundle_gives_the_same_verdicts),
        trial("workbench::what_cannot_be_bundled_is_said", what_cannot_be_bundled_is_said),
        trial("workbench::a_bundle_is_a_config_map", a_bundle_is_a_config_map),
        trial("workbench::shells_complete_and_kubectl_finds_it", shells_complete_and_kubectl_finds_it),
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
        ensure!((name == "lib") == (policy["cases"] == 0), "{policy}");
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
	every n in numbers.range(1, 30) { print(n) }
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
            "FAIL data.surefoot.owner_test.test_wrong   policies/owner/policy_test.rego:10:1\n    14 | codes == {\"present\"}\n       |   codes = {\"missing\"}\n     printed policies/owner/policy_test.rego:11: looking\n",
            "FAIL data.surefoot.owner_test.test_breaks   policies/owner/policy_test.rego:17:18\n     divide by zero\n",
            "     and 21 lines more: -v\n",
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

fn no_case_is_left_out_in_silence() -> anyhow::Result<()> {
    let folder = workplace()?;
    write(folder.path(), "tests/cases/owner/sub/deep/bad.yml", case("# want: allow", "a", ""))?;
    let object: Value = serde_saphyr::from_str(&case("", "a", ""))?;
    write(folder.path(), "tests/cases/owner/bad.json", format!("# want: allow\n{object}\n"))?;
    write(folder.path(), "tests/cases/owner/notes.md", "no case")?;
    write(folder.path(), "tests/cases/loose.yaml", case("# want: allow", "a", ""))?;
    write(folder.path(), "tests/cases/ownr/sub/deny.yaml", case("# want: allow", "a", ""))?;
    std::os::unix::fs::symlink("..", folder.path().join("tests/cases/owner/round"))?;
    let run = surefoot(folder.path(), &["test"])?;
    run.says(
        1,
        &[
            "FAIL tests/cases/owner/sub/deep/bad.yml\n     want denials: none; got: owner/missing",
            "FAIL tests/cases/owner/bad.json\n     want denials: none; got: owner/missing",
            "note: tests/cases: cases not run, there is no policy `ownr`; did you mean `owner`?",
            "they lie in no folder that is named after a policy: loose.yaml",
            "2 of 6 failed",
        ],
    )?;
    let junit = surefoot(folder.path(), &["test", "-o", "junit"])?;
    let document = roxmltree::Document::parse(&junit.stdout).with_context(|| junit.stdout.clone())?;
    let told = document.descendants().filter_map(|it| it.has_tag_name("skipped").then(|| it.attribute("message"))?);
    ensure!(told.filter(|it| it.contains("cases not run")).count() == 2, "{}", junit.stdout);
    Ok(())
}

/// It is asked in its cases, too, and a damaged record is no empty history.
fn a_case_of_a_policy_that_needs_history() -> anyhow::Result<()> {
    const CURRENT: &str = r#","current":{"digest":"v1:aa","version":"1","since":"2026-11-22T14:21:07Z"}"#;
    let folder = workplace()?;
    let policy = "# METADATA
# title: Owner
# custom:
#   action: Deny
#   needs: [history]
package surefoot.owner

deny contains {\"code\": \"missing\", \"msg\": \"unsettled\"} if input.context.history.rollout.version == \"1\"
";
    write(folder.path(), "policies/owner/policy.rego", policy)?;
    fs::remove_file(folder.path().join("policies/owner/policy_test.rego"))?;
    let record = |namespace: &str, current: &str, end: &str| {
        let name = format!("record.{namespace}.a");
        let text = format!(
            r#"{{"version":1,"namespace":"{namespace}","name":"a","uid":"u","settled":[],"reverts":[]{current}{end}"#
        );
        let labels = "{surefoot.dev/record: 'true'}";
        let head = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {labels}}}");
        case(&format!("{head}\ndata: {{record.json: '{text}'}}\n---"), "a", "")
    };
    // (name, text of the case after the first line)
    let rows = [
        ("deny.yaml", "# want: deny missing", record("shop", CURRENT, "}")),
        ("allow.yaml", "# want: allow", record("shop", "", "}")),
        ("elsewhere.yaml", "# want: allow", record("mall", CURRENT, "}")),
    ];
    for (name, want, text) in rows {
        write(folder.path(), &format!("tests/cases/owner/{name}"), format!("{want}\n{text}"))?;
    }
    surefoot(folder.path(), &["test"])?.says(0, &["0 tests and 3 cases passed"])?;
    write(folder.path(), "tests/cases/owner/cut.yaml", format!("# want: allow\n{}", record("shop", CURRENT, "")))?;
    surefoot(folder.path(), &["test"])?
        .says(1, &["FAIL tests/cases/owner/cut.yaml", "record.shop.a cannot be read"])?;
    Ok(())
}

fn coverage_counts_what_was_not_reached() -> anyhow::Result<()> {
    let folder = workplace()?;
    let policy = format!("{POLICY}\nwarn contains \"old\" if {{\n\tinput.request.object.metadata.old\n}}\n");
    write(folder.path(), "policies/owner/policy.rego", policy)?;
    let run = surefoot(folder.path(), &["test"])?;
    run.says(0, &["not reached: policy.rego:10-11", "   10 | warn contains \"old\" if {\n", "coverage 66 %"])?;
    surefoot(folder.path(), &["test", "--min-coverage", "66"])?.says(0, &[])?;
    surefoot(folder.path(), &["test", "--min-coverage", "67%"])?
        .says(1, &["coverage 66 %, wanted 67 %", "exit code 1"])?;
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

/// What has paragraphs keeps them.
fn what_is_explained_keeps_its_paragraphs() -> anyhow::Result<()> {
    let folder = workplace()?;
    surefoot(folder.path(), &["explain", "kubernetes"])?
        .says(0, &["policies\nsay.\n\nkubernetes/unknown-field: Offline"])?;
    let text = "# METADATA\n# title: Owners\n# description: |\n#   One,\n#   and on.\n#\n#   Two.\npackage surefoot.owner\n\nwarn contains 1 if false\n";
    write(folder.path(), "policies/owner/policy.rego", text)?;
    surefoot(folder.path(), &["explain", "owner", "--policies", "policies"])?
        .says(0, &["\nOne, and on.\n\nTwo.\n\ndoes"])
}

fn what_does_not_load_has_a_place() -> anyhow::Result<()> {
    let folder = workplace()?;
    surefoot(folder.path(), &["test", "none"])?.says(2, &["none", "cannot read"])?;
    for command in ["explain", "schema", "bundle", "test"] {
        let options: &[&str] = if ["bundle", "test"].contains(&command) { &["none"] } else { &["--policies", "none"] };
        let run = surefoot(folder.path(), &[&[command], options].concat())?;
        run.says(2, &["cannot read the policy folder none: No such file"])?;
        ensure!(run.stderr.matches("cannot read the policy folder").count() == 1, "said twice: {}", run.stderr);
    }
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
	every x in numbers.range(1, 3000) {
		every y in numbers.range(1, 3000) {
			every z in numbers.range(1, 3000) { x + y + z > 0 }
		}
	}
}

test_last if true
";
    write(folder.path(), "policies/owner/policy_test.rego", format!("{TEST}{endless}"))?;
    let run = surefoot(folder.path(), &["test", "--timeout", "1s"])?;
    run.says(1, &["FAIL data.surefoot.owner_test.test_endless", "did not end within 1000 ms", "1 of 6 failed"])?;
    surefoot(folder.path(), &["test", "--timeout", "soon"])?.says(2, &["5s or 1m"])?;
    Ok(())
}

/// The engine's own clock does not see a comparison of two values that look small and are endless.
fn a_test_that_nothing_stops_is_given_up() -> anyhow::Result<()> {
    let folder = workplace()?;
    let doubled = |name: &str| -> String {
        let step = |i: usize| format!("{name}{i} := [{name}{0}, {name}{0}]\n", i - 1);
        format!("{name}0 := [1]\n{}", (1..=33).map(step).collect::<String>())
    };
    let endless = format!("\n{}{}test_stuck if d33 == e33\n", doubled("d"), doubled("e")) + "test_after if true\n";
    write(folder.path(), "policies/owner/policy_test.rego", format!("{TEST}{endless}"))?;
    let begun = Instant::now();
    let run = surefoot(folder.path(), &["test", "--timeout", "1s"])?;
    ensure!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let line = TEST.lines().count() + 2 * 34 + 2;
    let place =
        format!("policies/owner/policy_test.rego:{line}:1: test data.surefoot.owner_test.test_stuck does not end");
    run.says(2, &[&place, "bound it; not run after it: 1 test", "2 tests and 2 cases passed, coverage 100 %"])
}

fn what_new_makes_works() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    surefoot(folder.path(), &["new", "gpu-quota"])?
        .says(0, &["policies/gpu-quota/policy.rego", "next: surefoot test"])?;
    surefoot(folder.path(), &["test", "--min-coverage", "100"])?
        .says(0, &["3 tests and 2 cases passed, coverage 100 %"])?;
    let deny = "tests/cases/gpu-quota/deny.yaml";
    let check = surefoot(folder.path(), &["check", "--policies", "policies", deny])?;
    check.says(1, &["error[gpu-quota/no-owner]: no annotation example.com/owner", "deny.yaml:4:1"])?;
    surefoot(folder.path(), &["check", "--policies", "policies", "tests/cases/gpu-quota/allow.yaml"])?.says(0, &[])?;
    surefoot(folder.path(), &["new", "gpu-quota"])?.says(2, &["policies/gpu-quota is there already"])?;
    for (bad, good) in [("GpuQuota", "gpu-quota"), ("lib", "lib-rule"), ("../x", "x"), ("gpu-test", "gpu")] {
        surefoot(folder.path(), &["new", bad])?.says(2, &[&format!("try `{good}`")])?;
    }
    // Elsewhere, beside what is there.
    surefoot(folder.path(), &["new", "b", "--policies", "x/mine", "--cases", "x/cases"])?.says(0, &[])?;
    surefoot(folder.path(), &["test", "x/mine", "--cases", "x/cases"])?.says(0, &["3 tests and 2 cases"])?;
    Ok(())
}

/// Lays `data` out as the kubelet does: files are links into `..data`, which is a link to a folder with a time in its name.
fn mount(folder: &Path, data: &serde_json::Map<String, Value>) -> anyhow::Result<()> {
    use std::os::unix::fs::symlink;
    let generation = "..2026_11_23_02_00_00.123456789";
    fs::create_dir_all(folder.join(generation))?;
    symlink(generation, folder.join("..data"))?;
    for (key, text) in data {
        fs::write(folder.join(generation).join(key), text.as_str().context("a text")?)?;
        symlink(Path::new("..data").join(key), folder.join(key))?;
    }
    Ok(())
}

fn bundled(folder: &Path, arguments: &[&str]) -> anyhow::Result<(String, Value)> {
    let run = surefoot(folder, arguments)?;
    run.says(0, &[])?;
    let manifest = serde_saphyr::from_str(&run.stdout).with_context(|| run.stdout.clone())?;
    Ok((run.stdout, manifest))
}

fn a_bundle_gives_the_same_verdicts() -> anyhow::Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mounted = tempfile::tempdir()?;
    let (text, manifest) = bundled(top, &["bundle", "policies"])?;
    ensure!(bundled(top, &["bundle", "policies/"])?.0 == text, "not the same bytes");
    ensure!(manifest["metadata"]["name"] == "surefoot-policies", "{}", manifest["metadata"]);
    let data = manifest["data"].as_object().context("data")?;
    ensure!(data.contains_key("probes__policy.rego") && data.contains_key("lib__lib.rego"), "{:?}", data.keys());
    ensure!(!data.keys().any(|key| key.ends_with("_test.rego")), "tests in it");
    mount(mounted.path(), data)?;
    let mounted = mounted.path().to_str().context("a path")?;
    let verdicts = |policies: &str| -> anyhow::Result<Value> {
        let run = surefoot(top, &["check", "tests/cases", "--policies", policies, "-o", "json"])?;
        let mut report = run.json()?;
        ensure!(run.code == Some(1), "{}\n{}", run.stderr, report["failures"]);
        let objects = report["objects"].take();
        ensure!(objects.as_array().is_some_and(|objects| objects.len() > 50), "too few");
        Ok(objects)
    };
    ensure!(verdicts("policies")? == verdicts(mounted)?, "other verdicts");

    // With its tests, too; they pass where it is mounted.
    let whole = tempfile::tempdir()?;
    let (_, manifest) = bundled(top, &["bundle", "policies", "--with-tests", "--name", "mine", "-n", "shop"])?;
    ensure!(manifest["metadata"]["name"] == "mine" && manifest["metadata"]["namespace"] == "shop", "{manifest}");
    mount(whole.path(), manifest["data"].as_object().context("data")?)?;
    let whole = whole.path().to_str().context("a path")?;
    surefoot(top, &["test", whole, "--cases", "tests/cases", "--min-coverage", "100"])?.says(0, &["coverage 100 %"])?;
    Ok(())
}

fn what_cannot_be_bundled_is_said() -> anyhow::Result<()> {
    let folder = workplace()?;
    let good = bundled(folder.path(), &["bundle", "policies"])?.1;
    ensure!(good["data"]["owner__policy.rego"] == POLICY, "{good}");
    let refused = |words: &[&str]| -> anyhow::Result<()> {
        let run = surefoot(folder.path(), &["bundle", "policies"])?;
        run.says(2, words)?;
        ensure!(run.stdout.is_empty(), "{}", run.stdout);
        Ok(())
    };
    let test = "policies/owner/policy_test.rego";
    write(folder.path(), test, format!("{TEST}\ntest_wrong if owner.deny == {{1}}\n"))?;
    refused(&["policies/owner/policy_test.rego:10:1", "test_wrong", "did not hold"])?;
    write(folder.path(), test, TEST)?;
    // The policy would not load without the file that is left out.

    write(folder.path(), "policies/owner/policy.rego", format!("{POLICY}\nwarn contains \"x\" if helps\n"))?;
    write(folder.path(), "policies/owner/z_test.rego", "package surefoot.owner\n\nhelps if false\n")?;
    refused(&["`helps` is not defined", "--with-tests"])?;
    surefoot(folder.path(), &["bundle", "policies", "--with-tests"])?.says(0, &[])?;
    fs::remove_file(folder.path().join("policies/owner/z_test.rego"))?;
    write(folder.path(), "policies/owner/policy.rego", POLICY)?;
    write(folder.path(), test, TEST)?;
    write(folder.path(), "tests-alone/owner/policy_test.rego", TEST)?;
    surefoot(folder.path(), &["bundle", "tests-alone"])?.says(2, &["no policy"])?;
    write(folder.path(), "policies/lib/two words.rego", "package surefoot.lib\n")?;
    refused(&["two words.rego", "has no keys with ` `"])?;
    fs::remove_file(folder.path().join("policies/lib/two words.rego"))?;
    write(folder.path(), "policies/a__b/policy.rego", POLICY.replace("owner\n", "other\n"))?;
    refused(&["rename `a__b`"])?;
    fs::remove_dir_all(folder.path().join("policies/a__b"))?;
    // Two files, each as large as a policy may be.
    let long = format!("package surefoot.lib\n{}", format!("# {}\n", "x".repeat(97)).repeat(9_000));
    for name in ["one", "two"] {
        write(folder.path(), &format!("policies/lib/{name}.rego"), &long)?;
    }
    refused(&["KiB of policies do not fit into a ConfigMap, which holds 1024 KiB", "the largest is lib/"])?;
    fs::remove_file(folder.path().join("policies/lib/two.rego"))?;
    surefoot(folder.path(), &["bundle", "policies"])?.says(0, &["kubectl apply --server-side"])?;
    surefoot(folder.path(), &["bundle", "policies", "--name", "No Good"])?.says(2, &["--name `No Good`"])?;
    surefoot(folder.path(), &["bundle", "nowhere"])?.says(2, &["nowhere"])?;
    Ok(())
}

/// The API server takes it, and gives it back unchanged.
fn a_bundle_is_a_config_map() -> anyhow::Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (admin, _) = shared::namespace(shared::plane()?, "workbench-bundle", "audit")?;
    let (text, manifest) = bundled(top, &["bundle", "policies", "-n", "workbench-bundle"])?;
    admin.apply(&text)?.success()?;
    ensure!(admin.json(&["configmap", "surefoot-policies"])?["data"] == manifest["data"], "other data");
    let again = admin.apply(&text)?.success()?;
    ensure!(again.stdout.contains("unchanged"), "{again}");
    Ok(())
}

fn shells_complete_and_kubectl_finds_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        surefoot(folder.path(), &["completions", shell])?.says(0, &["surefoot", "min-coverage", "completions"])?;
    }
    surefoot(folder.path(), &["completions", "csh"])?.says(2, &["[possible values: bash,"])?;
    let bash = surefoot(folder.path(), &["completions", "bash"])?.stdout;
    write(folder.path(), "surefoot.bash", bash)?;
    let script = "source surefoot.bash; COMP_WORDS=(surefoot bun); COMP_CWORD=1; _surefoot surefoot bun surefoot; echo \"${COMPREPLY[@]}\"";
    let run = Command::new("bash").args(["-c", script]).current_dir(folder.path()).output()?;
    ensure!(String::from_utf8_lossy(&run.stdout).trim() == "bundle", "{run:?}");

    let plugin = folder.path().join("kubectl-surefoot");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_surefoot"), &plugin)?;
    let help = Command::new(plugin).args(["test", "-h"]).output()?;
    ensure!(String::from_utf8_lossy(&help.stdout).contains("Usage: kubectl surefoot test [OPTIONS]"), "{help:?}");
    surefoot(folder.path(), &["test", "-h"])?.says(0, &["Usage: surefoot test [OPTIONS]"])
}

fn junit_is_what_ci_reads() -> anyhow::Result<()> {
    let folder = workplace()?;
    write(
        folder.path(),
        "policies/owner/policy_test.rego",
        format!("{TEST}\ntest_wrong if owner.deny == {{\"<\"}}\ntodo_test_x if true\n"),
    )?;
    let run = surefoot(folder.path(), &["test", "-o", "junit"])?;
    let document = roxmltree::Document::parse(&run.stdout).with_context(|| run.stdout.clone())?;
    let all = document.root_element();
    let counts = ["tests", "failures", "errors", "skipped"].map(|count| all.attribute(count).unwrap_or_default());
    ensure!(run.code == Some(1) && counts == ["6", "1", "0", "1"], "{:?} {counts:?}\n{}", run.code, run.stdout);
    let failed = document.descendants().find(|node| node.has_tag_name("failure")).context("no failure")?;
    let case = failed.parent().context("of a case")?;
    ensure!(case.attribute("name") == Some("test_wrong"), "{}", run.stdout);
    ensure!(failed.text().is_some_and(|text| text.contains("owner.deny == {\"<\"}")), "{}", run.stdout);
    Ok(())
}

/// Runs again within a second of a save, also after a policy that does not load.
fn watching_runs_again_at_each_save() -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(60);
    let folder = workplace()?;
    let mut child = Command::new(env!("CARGO_BIN_EXE_surefoot"))
        .args(["test", "--watch"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (send, lines) = mpsc::channel();
    for pipe in [child.stdout.take().map(Pipe::Out), child.stderr.take().map(Pipe::Err)].into_iter().flatten() {
        let send = send.clone();
        thread::spawn(move || pipe.lines().try_for_each(|line| send.send(line)));
    }
    let until = |words: &str| -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(started.elapsed());
            let line = lines.recv_timeout(left).with_context(|| format!("`{words}` was not said"))?;
            if line.contains(words) {
                return Ok(started.elapsed());
            }
        }
    };
    let seen = (|| {
        until("2 tests and 2 cases passed")?;
        until("waiting for a change")?;
        write(folder.path(), "policies/owner/policy.rego", POLICY.replace("legacy", "other"))?;
        let first = until("1 of 4 failed")?;
        write(folder.path(), "policies/owner/policy.rego", "package surefoot.owner\ndeny contains")?;
        until("policies/owner/policy.rego:2:")?;
        write(folder.path(), "policies/owner/policy.rego", POLICY)?;
        until("2 tests and 2 cases passed")?;
        write(folder.path(), "tests/cases/owner/more.yaml", case("# want: allow", "a", ""))?;
        until("1 of 5 failed")?;
        anyhow::Ok(first)
    })();
    child.kill()?;
    child.wait()?;
    println!("from saving a policy to the verdict: {} ms", seen?.as_millis());
    Ok(())
}

enum Pipe {
    Out(ChildStdout),
    Err(ChildStderr),
}

impl Pipe {
    fn lines(self) -> Box<dyn Iterator<Item = String>> {
        match self {
            Self::Out(pipe) => Box::new(BufReader::new(pipe).lines().map_while(Result::ok)),
            Self::Err(pipe) => Box::new(BufReader::new(pipe).lines().map_while(Result::ok)),
        }
    }
}
