use super::{
    super::fixtures::{sources, standard},
    *,
};

fn tests(files: &[(&str, &str)]) -> Tests {
    Tests::load(&sources(files)).unwrap()
}

/// `name line why` of each that failed, `name` of each that passed.
fn told(files: &[(&str, &str)]) -> Vec<String> {
    let tests = tests(files);
    let told = |test| {
        let outcome = tests.run(test, LIMIT);
        let name = outcome.name.rsplit('.').next().unwrap().to_owned();
        match outcome.failed {
            Some(failed) => format!("{name} {}:{} {failed}", outcome.line, outcome.column),
            None if outcome.skipped => format!("{name} skipped"),
            None => name,
        }
    };
    tests.iter().map(told).collect()
}

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
test_false := false
helper := 1
todo_test_later if false
test_denies if false
test_none contains "x"
test_cases[name] if {
	some name, number in {"one": 1, "two": 2, "three": 3}
	twice := number * 2
	twice != 4
}
test_good[name] if some name in ["a", "b"]
test_no_case[name] if some name in []
"#;
    let mut files = standard();
    files.push(Source { path: "probes/policy_test.rego".to_owned(), text: test.to_owned() });
    let files: Vec<(&str, &str)> = files.iter().map(|it| (it.path.as_str(), it.text.as_str())).collect();
    let expected = [
        "test_denies",
        "test_wrong 7:1 did not hold",
        "test_ignored",
        "test_breaks 10:7 divide by zero",
        "test_value 12:1 gave 7 instead of true",
        "test_false 13:1 gave false",
        "todo_test_later skipped",
        "test_denies#01 16:1 did not hold",
        "test_none 17:1 gave {\"x\"} instead of true",
        "test_cases 18:1 did not hold for two",
        "test_good",
        "test_no_case",
    ];
    assert_eq!(told(&files), expected);
    assert!(run_tests(&sources(&[("a.rego", "package a\nr :=")])).is_err());
}

#[test]
fn why_names_the_statement_and_what_it_looked_at() {
    let text = r#"package p_test
import data.p as q
test_a if {
	x := [1, 2]
	some i in x
	q.f(i) == {7}
	false
}
test_b if count(q.s) == 0 with input as {"y": 1}
test_c if not q.s with input.y as 2
test_d if q.s == {"a"} with input as {}
test_e if startswith("abc", q.name)
test_f if every n in q.numbers { n > 1 }
"#;
    let policy = "package p\nf(x) := {x}\ns contains input.y if input.y\nname := \"b\"\nnumbers := [1, 2]\n";
    let tests = tests(&[("p.rego", policy), ("p_test.rego", text)]);
    let told = |test| {
        let Why { line, text, values } = tests.run(test, LIMIT).why.unwrap();
        let values = values.iter().map(|shown| format!("; {} = {}", shown.part, shown.values.join(" | ")));
        format!("{line} {text}{}", values.collect::<String>())
    };
    let expected = [
        "6 q.f(i) == {7}; q.f(i) = {1} | {2}",
        "9 count(q.s) == 0 with input as {\"y\": 1}; count(q.s) = 1; q.s = {1}",
        "10 not q.s with input.y as 2; q.s = {2}",
        "11 q.s == {\"a\"} with input as {}; q.s = set()",
        "12 startswith(\"abc\", q.name); q.name = \"b\"",
        "13 every n in q.numbers { n > 1 }; q.numbers = [1, 2]",
    ];
    assert_eq!(tests.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn what_a_test_prints_is_kept() {
    let tests = tests(&[("p_test.rego", "package p_test\ntest_a if {\n\tprint(\"seen\", {1})\n\tfalse\n}\n")]);
    let outcome = tests.run(tests.iter().next().unwrap(), LIMIT);
    assert_eq!(outcome.prints, ["p_test.rego:3: seen {1}"]);
}

#[test]
fn an_endless_test_is_named_and_the_others_run() {
    let endless = "count([1 | some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x == y]) > 0";
    let text = format!("package p_test\ntest_a if {endless}\ntest_b if true\n");
    let tests = tests(&[("p_test.rego", &text)]);
    let limit = Duration::from_millis(20);
    let outcomes: Vec<_> = tests.iter().map(|test| tests.run(test, limit).failed).collect();
    assert_eq!(outcomes, [Some("did not end within 20 ms".to_owned()), None]);
}

/// `lines` and `missed` of `p.rego` under the tests in `test`.
fn covered(policy: &str, test: &str) -> (String, String) {
    let tests = tests(&[("p.rego", policy), ("p_test.rego", &format!("package p_test\nimport data.p\n{test}\n"))]);
    let coverage = tests.coverage(tests.iter(), LIMIT, &Watch::default());
    assert_eq!(coverage.keys().collect::<Vec<_>>(), ["p.rego"]);
    let numbers =
        |lines: &std::collections::BTreeSet<u32>| lines.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    (numbers(&coverage["p.rego"].lines), numbers(&coverage["p.rego"].missed))
}

#[test]
fn a_line_is_missed_when_something_on_it_was_not_reached() {
    // (policy from its line 2, test, lines, missed)
    let rows = [
        ("a if input.x", "test_a if p.a with input.x as 1", "2", ""),
        ("a if input.x", "test_a if not p.a", "2", "2"),
        ("a if {\n\tinput.x\n\tinput.y\n}", "test_a if p.a with input as {\"x\": 1, \"y\": 2}", "2 3 4", ""),
        ("a if {\n\tinput.x\n\tinput.y\n}", "test_a if not p.a with input as {\"x\": 1}", "2 3 4", "2"),
        ("a if {\n\tinput.x\n\tinput.y\n}", "test_a if not p.a with input as {}", "2 3 4", "2 4"),
        ("a if {\n\tinput.x; input.y\n}", "test_a if not p.a with input as {}", "2 3", "2 3"),
        (
            "a := 1 if input.x\n\nelse := 2 if input.y\n\nelse := 3",
            "test_a if p.a == 2 with input.y as 1",
            "2 4 6",
            "2 6",
        ),
        ("a := 1 if input.x\n\nelse := 3", "test_a if p.a == 1 with input.x as 1", "2 4", "4"),
        ("f(\"x\", y) := 1 if y > 1", "test_a if not p.f(\"x\", 1)", "2", "2"),
        ("f(\"x\", y) := 1 if y > 1", "test_a if p.f(\"x\", 2)", "2", ""),
        ("f(x) := x", "test_a if true", "2", "2"),
        ("f(x) := x", "test_a if p.f(2) == 2", "2", ""),
        ("a := 7\n\nb := {\n\t\"c\": 1,\n}", "test_a if p.a == 7", "2 4 5 6", "4 5 6"),
        ("default a := 1\n\na := 2 if input.x", "test_a if p.a == 1", "2 4", "4"),
        (
            "a := [x |\n\tsome x in input.x\n\tx > 3 # not reached\n]",
            "test_a if p.a == [] with input.x as []",
            "2 3 4 5",
            "4",
        ),
        ("a := [x | some x in input.x; x > 3]", "test_a if p.a == [] with input.x as []", "2", "2"),
        (
            "a contains {\n\t\"m\": 1,\n} if {\n\tevery x in input.x {\n\t\tx > 1\n\t}\n}",
            "test_a if p.a with input.x as []",
            "2 3 4 5 6 7",
            "6",
        ),
        ("a contains x if {\n\tsome x\n\tinput.x[x] == 1\n}", "test_a if p.a == {0} with input.x as [1]", "2 4", ""),
        ("a if { # {\n\tinput.x == \"{\" # }\n}", "test_a if p.a with input.x as \"{\"", "2 3", ""),
        ("a if {\"x\": input.x} == {\"x\": 1}", "test_a if p.a with input.x as 1", "2", ""),
        ("a if not input.x\n\nb[k] := v if some k, v in input.m", "test_a if { p.a\n p.b }", "2 4", "4"),
        ("a if {\n\tinput.x\n} else if {\n\tinput.y\n}", "test_a if not p.a", "2 3 4 5", "2 4"),
        // The name of the import in a string is no import.
        ("a if startswith(input.x, \"p.x/\")", "test_a if p.a with input.x as \"p.x/y\"", "2", ""),
        ("a if startswith(input.x, \"p.x/\")", "test_a if { # \"\n p.a with input.x as `p.x/y` }", "2", ""),
        // To read one rule of a package is not to test the others.
        ("a if input.x\n\nb if input.y", "test_a if p.a with input as {\"x\": 1, \"y\": 1}", "2 4", "4"),
        ("a if input.x\n\nb if input.y", "test_a if p[\"a\"] with input.x as 1", "2 4", "4"),
        ("m.a := 1 if input.x\n\nm.b := 2", "test_a if p.m == {\"b\": 2}", "2 4", "2"),
        (
            "a if {\n\tinput.list[_] == [y |\n\t\ty := input.y\n\t][0]\n}",
            "test_a if p.a with input as {\"list\": [3], \"y\": 3}",
            "2 3 4 5",
            "",
        ),
    ];
    for (policy, test, lines, missed) in rows {
        let text = format!("package p\n{policy}\n");
        assert_eq!(covered(&text, test), (lines.to_owned(), missed.to_owned()), "{policy}\n{test}");
    }
}

#[test]
fn the_shipped_policies_can_be_spread_out() {
    let sources = crate::admission::PolicySet::built_in_sources();
    let tests = Tests::load(&sources).unwrap();
    let coverage = tests.coverage(tests.iter(), LIMIT, &Watch::default());
    for source in sources.iter().filter(|source| !source.path.ends_with("_test.rego")) {
        let Coverage { lines, missed } = &coverage[&source.path];
        assert!(lines.len() > 10 && missed.len() < lines.len(), "{}: {missed:?} of {lines:?}", source.path);
    }
}
