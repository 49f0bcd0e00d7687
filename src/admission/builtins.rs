//! The built-in functions that can make much of little, with a bound on what they make; and a bound on what is told.
//!
//! The engine looks at the clock between two calls, never inside of one: `numbers.range(1, 30000000)` would run on for a
//! second and take 700 MB, thirty times `replace(s, "a", "aa")` a gigabyte. So each function that makes texts or lists is
//! asked first what it would make at most, and that counts against what one evaluation may make in all. What it gives is
//! the engine's own result: `opa` gives the same.
//!
//! A value is small in memory and endless in writing where its parts are shared: `x := [y, y]`, `y := [z, z]`, …. Functions
//! write their arguments out when they are of the wrong kind, and what a rule gives is written out by whoever reads it: both
//! are measured before.
//!
//! And `regex.match`, whose own form in the engine makes room to match in anew for each call: five times the work of a match.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use regex::{Regex, RegexBuilder};
use regorus::{
    Extension,
    unstable::{BUILTINS, BuiltinFcn, Expr, Ref, Source, Span},
};

use super::engine::one_message;
use crate::template::{Json, json};

/// What the functions may make in one evaluation. A review is some 10 KB, and what is said of it less.
const MOST: usize = 64 << 20;

/// What one value may be in writing, where it is an argument that a function may name as wrong, or the answer of a rule:
/// more than any object that there is. It is written several times on its way into a message.
const TOLD: usize = 8 << 20;

/// What an element of a list takes.
const ELEMENT: usize = size_of::<Json>();

/// Patterns that a thread keeps ready, how large one may be (the engine's own limit), and the room it may take while it
/// matches. The built-in policies have a handful.
const KEPT: usize = 64;
const PATTERN: usize = 100 << 10;
const MATCHING: usize = 128 << 10;

thread_local! {
    /// What they have made in the evaluation that this thread is at.
    static MADE: Cell<usize> = const { Cell::new(0) };

    static READY: RefCell<HashMap<Arc<str>, Regex>> = RefCell::default();
}

/// A new evaluation begins on this thread.
pub(super) fn begin() {
    MADE.set(0);
}

/// The value of a rule, unless it is too large to be told to anybody.
pub(super) fn told(value: Json) -> Result<Json, String> {
    if is_endless(&value) { Err(too_much("what it gives is", TOLD)) } else { Ok(value) }
}

/// Each such function by name and number of arguments, as the engine takes it.
pub(super) fn bounded() -> Vec<(String, u8, Box<dyn Extension>)> {
    let Ok(source) = Source::from_contents(String::new(), String::new()) else { return Vec::new() };
    let span = Span { source, line: 0, col: 0, start: 0, end: 0 };
    // A function says by them where its arguments stand. The place of the call, which the engine adds, is enough.
    let nowhere = Ref::new(Expr::Null { span: span.clone(), value: Json::Null, eidx: 0 });
    let bounded = |(name, (function, arity)): (&&'static str, &BuiltinFcn)| {
        let (name, function, arity) = (*name, *function, *arity);
        let made = BOUNDED.iter().find_map(|(bounded, made)| (*bounded == name).then_some(*made));
        let (span, is_regex) = (span.clone(), name == "regex.match");
        let places = vec![nowhere.clone(); usize::from(arity)];
        let call = move |arguments: Vec<Json>| {
            if arguments.iter().any(|argument| !is_silent_on(name, argument) && is_endless(argument)) {
                anyhow::bail!(too_much("an argument is", TOLD));
            }
            if let Some(made) = made {
                let made = MADE.get().saturating_add(made(&arguments));
                // What is measured stops at the bound.
                if made >= MOST {
                    anyhow::bail!("{} in one evaluation", too_much("this makes", MOST));
                }
                MADE.set(made);
            }
            if let Some(is_match) = is_regex.then(|| matches(&arguments)).flatten() {
                return Ok(Json::Bool(is_match));
            }
            function(&span, &places, &arguments, true).map_err(|error| anyhow::anyhow!(one_message(&error)))
        };
        (name.to_owned(), arity, Box::new(call) as Box<dyn Extension>)
    };
    BUILTINS.iter().filter(|(name, _)| !SILENT.contains(name)).map(bounded).collect()
}

/// `None`: the engine's own function says what is wrong with the arguments.
fn matches(arguments: &[Json]) -> Option<bool> {
    let [Json::String(pattern), Json::String(text)] = arguments else { return None };
    READY.with_borrow_mut(|ready| {
        if let Some(regex) = ready.get(pattern) {
            return Some(regex.is_match(text));
        }
        let regex = RegexBuilder::new(pattern).size_limit(PATTERN).dfa_size_limit(MATCHING).build().ok()?;
        let is_match = regex.is_match(text);
        if ready.len() >= KEPT {
            ready.clear();
        }
        ready.insert(Arc::clone(pattern), regex);
        Some(is_match)
    })
}

fn too_much(what: &str, bound: usize) -> String {
    format!("{what} too much: more than {} MiB", bound >> 20)
}

fn is_endless(value: &Json) -> bool {
    let mut left = TOLD;
    write(value, &mut left);
    left == 0
}

/// They make nothing, and say nothing of an argument but a number or less.
const SILENT: [&str; 9] =
    ["count", "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name"];

/// `function` wants such an argument, or it counts as made; policies give it large ones at every turn.
fn is_silent_on(function: &str, argument: &Json) -> bool {
    match argument {
        Json::Array(_) => {
            matches!(function, "array.concat" | "array.reverse" | "array.slice" | "concat" | "max" | "min" | "sort")
        }
        Json::Set(_) => matches!(function, "concat" | "max" | "min" | "sort"),
        Json::Object(_) => matches!(function, "object.filter" | "object.get" | "object.keys" | "object.remove"),
        _ => true,
    }
}

/// At most how many bytes a function makes of these arguments. Wrong arguments make nothing: the function says so.
type Made = fn(&[Json]) -> usize;

const BOUNDED: [(&str, Made); 33] = [
    ("array.concat", elements),
    ("base64.decode", texts),
    ("base64.encode", twice),
    ("bits.lsh", |arguments| number(arguments, 1) / 8),
    ("concat", |arguments| text(arguments, 0).saturating_mul(count(arguments, 1)).saturating_add(texts(arguments))),
    ("glob.quote_meta", twice),
    ("indexof_n", |arguments| text(arguments, 0).saturating_mul(ELEMENT)),
    ("json.marshal", twice),
    ("json.marshal_with_options", indented),
    // It takes the document apart, and each `copy` may double it.
    ("json.patch", |arguments| nodes(arguments).saturating_mul(1 << copies(arguments).min(31))),
    ("json.unmarshal", split),
    ("lower", twice),
    ("numbers.range", range),
    ("numbers.range_step", range),
    // What both have is merged part by part, and shared no more.
    ("object.union", nodes),
    ("object.union_n", nodes),
    ("regex.find_n", split),
    // It builds its text piece by piece, a match at a time: dear where there are many.
    ("regex.replace", |arguments| replaced(arguments, 0, 2).saturating_mul(16)),
    ("regex.split", split),
    ("replace", |arguments| replaced(arguments, 0, 2)),
    ("split", split),
    ("sprintf", |arguments| widths(arguments).saturating_add(texts(arguments))),
    ("strings.replace_n", |arguments| replaced(arguments, 1, 0)),
    ("strings.reverse", texts),
    ("substring", texts),
    ("trim", texts),
    ("trim_left", texts),
    ("trim_prefix", texts),
    ("trim_right", texts),
    ("trim_space", texts),
    ("trim_suffix", texts),
    ("upper", twice),
    ("yaml.marshal", indented),
];

/// All arguments, written out.
fn texts(arguments: &[Json]) -> usize {
    let mut left = MOST;
    arguments.iter().for_each(|argument| write(argument, &mut left));
    MOST - left
}

fn twice(arguments: &[Json]) -> usize {
    texts(arguments).saturating_mul(2)
}

/// All values in the arguments, each for itself.
fn nodes(arguments: &[Json]) -> usize {
    texts(arguments).saturating_mul(2)
}

/// The operations of a JSON patch that copy.
fn copies(arguments: &[Json]) -> u32 {
    let Some(Json::Array(operations)) = arguments.get(1) else { return 0 };
    let copies = operations.iter().filter(|operation| json::str_at(operation, &["op"]) == Some("copy"));
    copies.count().try_into().unwrap_or(u32::MAX)
}

/// Each line may begin with as many blanks as there are levels, which are 128 at most in what comes from outside.
fn indented(arguments: &[Json]) -> usize {
    texts(arguments).saturating_mul(8)
}

/// A list of pieces, at worst one for each byte.
fn split(arguments: &[Json]) -> usize {
    text(arguments, 0).saturating_mul(1 + ELEMENT)
}

/// At worst every byte of argument `subject` is replaced by argument `by`.
fn replaced(arguments: &[Json], subject: usize, by: usize) -> usize {
    let by = arguments.get(by).map_or(0, |by| texts(std::slice::from_ref(by)));
    (text(arguments, subject) + 1).saturating_mul(by + 1)
}

fn elements(arguments: &[Json]) -> usize {
    (0..arguments.len()).map(|index| count(arguments, index).saturating_mul(ELEMENT)).sum()
}

fn range(arguments: &[Json]) -> usize {
    let at = |index: usize| match arguments.get(index) {
        Some(Json::Number(number)) => number.as_i64().map_or(i128::from(i64::MAX), i128::from),
        _ => 0,
    };
    let step = if arguments.len() > 2 { at(2).max(1) } else { 1 };
    usize::try_from((at(1) - at(0)).abs() / step + 1).unwrap_or(usize::MAX).saturating_mul(ELEMENT)
}

/// The widths that a format asks for, `%30s`.
fn widths(arguments: &[Json]) -> usize {
    let Some(Json::String(format)) = arguments.first() else { return 0 };
    let width = |verb: &str| {
        let digits = verb.trim_start_matches(['.', '0', '+', '-', ' ', '#']);
        let digits: &str = &digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())];
        if digits.is_empty() { 0 } else { digits.parse().unwrap_or(usize::MAX) }
    };
    format.split('%').skip(1).map(width).fold(0, usize::saturating_add)
}

fn number(arguments: &[Json], index: usize) -> usize {
    match arguments.get(index) {
        Some(Json::Number(number)) => {
            number.as_u64().map_or(usize::MAX, |number| number.try_into().unwrap_or(usize::MAX))
        }
        _ => 0,
    }
}

fn text(arguments: &[Json], index: usize) -> usize {
    if let Some(Json::String(text)) = arguments.get(index) { text.len() } else { 0 }
}

fn count(arguments: &[Json], index: usize) -> usize {
    match arguments.get(index) {
        Some(Json::Array(elements)) => elements.len(),
        Some(Json::Set(elements)) => elements.len(),
        _ => 0,
    }
}

/// Takes what `value` is in writing off `left`, and stops when nothing is left: parts that a value shares with itself are
/// small in memory and endless in writing.
fn write(value: &Json, left: &mut usize) {
    if *left == 0 {
        return;
    }
    let own = match value {
        Json::String(text) => text.len() + 2,
        Json::Number(number) if number.as_i64().is_some() => 20,
        Json::Number(_) => 40,
        _ => 10,
    };
    *left = left.saturating_sub(own);
    match value {
        Json::Array(elements) => elements.iter().for_each(|element| write(element, left)),
        Json::Set(elements) => elements.iter().for_each(|element| write(element, left)),
        Json::Object(members) => members.iter().for_each(|(key, element)| {
            write(key, left);
            write(element, left);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::engine::{Engine, Session};
    use crate::template::Json;

    /// What `body` makes of `r`, in text; or what is wrong with it.
    fn eval(body: &str) -> Result<String, String> {
        let mut engine = Engine::new();
        engine.add("p.rego", &format!("package p\n{body}\n")).unwrap();
        let value = Session::new(Duration::from_secs(20)).eval(&engine, "data.p.r", Json::new_object());
        value.map(|value| value.to_string()).map_err(|broken| format!("{}:{}", broken.line, broken.message))
    }

    #[test]
    fn what_would_make_too_much_is_refused_before_it_makes_anything() {
        let doubled = |first: &str, next: &str| {
            let steps: String =
                (1..40).map(|i| format!("s{i} := {}\n", next.replace('@', &format!("s{}", i - 1)))).collect();
            format!("s0 := {first}\n{steps}r := s39")
        };
        let rows = [
            "r := numbers.range(1, 30000000)".to_owned(),
            "r := numbers.range(1, 9223372036854775807)".to_owned(),
            "r := numbers.range_step(1, 30000000000, 7)".to_owned(),
            "r := bits.lsh(1, 4000000000)".to_owned(),
            "r := sprintf(\"%999999999d\", [1])".to_owned(),
            "r := sprintf(\"%s %0999999999d\", [1, 2])".to_owned(),
            "r := concat(sprintf(\"%01000000d\", [1]), split(sprintf(\"%01000d\", [1]), \"\"))".to_owned(),
            "r := count([s | some i in numbers.range(1, 1000); s := upper(sprintf(\"%01000000d\", [1]))])".to_owned(),
            doubled("\"aa\"", "replace(@, \"a\", \"aa\")"),
            doubled("\"aa\"", "regex.replace(@, \"a\", \"$0$0\")"),
            doubled("\"aa\"", "strings.replace_n({\"a\": \"aa\"}, @)"),
            doubled("\"aa\"", "concat(\"\", [@, @])"),
            doubled("\"aa\"", "sprintf(\"%s%s\", [@, @])"),
            doubled("\"aa\"", "base64.encode(concat(\"\", [@, @]))"),
            doubled("\"aa\"", "json.marshal([@, @])"),
            doubled("[1]", "array.concat(@, @)"),
            doubled("{\"a\": 1}", "json.patch(@, [{\"op\": \"copy\", \"from\": \"/a\", \"path\": \"/b\"}, {\"op\": \"copy\", \"from\": \"\", \"path\": \"/a\"}])"),
            ("r := count(json.patch({\"a\": 1}, [{\"op\": \"copy\", \"from\": \"\", \"path\": \"/a\"} | some i in numbers.range(1, 40)]))").to_owned(),
            "r := count(indexof_n(sprintf(\"%05000000d\", [1]), \"0\"))".to_owned(),
            doubled("[1]", "[@, @]").replace("r := s39", "r := json.marshal(s39)"),
            doubled("[1]", "[@, @]").replace("r := s39", "r := sprintf(\"%v\", [s39])"),
            doubled("[1]", "[@, @]").replace("r := s39", "r := yaml.marshal(s39)"),
        ];
        for body in rows {
            let told = eval(&body).unwrap_err();
            let refused = told.contains("this makes too much: more than 64 MiB in one evaluation")
                || told.contains("an argument is");
            assert!(refused && told.contains("too much: more than"), "{body}: {told}");
            assert!(!told.starts_with("0:"), "{body}: no place: {told}");
        }
    }

    #[test]
    fn what_nobody_could_read_is_told_to_nobody() {
        let step = |i: usize| format!("d{i} := [d{j}, d{j}]\no{i} := {{\"a\": o{j}, \"b\": o{j}}}\n", j = i - 1);
        let doubled = format!("d0 := [1]\no0 := {{\"a\": 1}}\n{}", (1..=39).map(step).collect::<String>());
        let rows = [
            ("r := startswith(d39, \"a\")", "an argument is"),
            ("r := startswith(\"a\", o39)", "an argument is"),
            ("r := endswith({o39}, \"a\")", "an argument is"),
            ("r := split(d39, \"\")", "an argument is"),
            ("r := abs(d39)", "an argument is"),
            ("r := sum([d39])", "an argument is"),
            ("r := to_number(d39)", "an argument is"),
            ("r := array.concat(o39, [])", "an argument is"),
            ("r := max(o39)", "an argument is"),
            ("r := object.get(d39, \"a\", 1)", "an argument is"),
            ("r := regex.match(d39, \"a\")", "an argument is"),
            ("r := json.patch(o39, [])", "an argument is"),
            ("r := object.union(o39, o39)", "an argument is"),
            ("r := d39", "what it gives is"),
            ("r := {\"a\": o39}", "what it gives is"),
            ("r contains d39", "what it gives is"),
            ("r := concat(\"\", [sprintf(\"%05000000d\", [1]), sprintf(\"%05000000d\", [1])])", "what it gives is"),
        ];
        for (body, what) in rows {
            let told = eval(&format!("{body}\n{doubled}")).unwrap_err();
            assert!(told.ends_with(&format!("{what} too much: more than 8 MiB")), "{body}: {told}");
        }
        let rows = [
            ("r := count(d39)", "2"),
            ("r := count(array.concat(d39, d39))", "4"),
            ("r := count(object.keys(o39))", "2"),
            ("r := is_array(object.get(o39, \"z\", []))", "true"),
        ];
        for (body, value) in rows {
            assert_eq!(eval(&format!("{body}\n{doubled}")), Ok(value.to_owned()), "{body}");
        }
    }

    #[test]
    fn what_stays_small_is_as_it_was() {
        let rows = [
            ("r := numbers.range(1, 3)", "[1,2,3]"),
            ("r := numbers.range(3, 1)", "[3,2,1]"),
            ("r := numbers.range_step(0, 10, 5)", "[0,5,10]"),
            ("r := count(numbers.range(1, 1000000))", "1000000"),
            ("r := bits.lsh(1, 40)", "1099511627776"),
            ("r := sprintf(\"%5d|%s|100%%\", [7, \"x\"])", "\"    7|x|100%\""),
            ("r := replace(\"a-b-c\", \"-\", \"__\")", "\"a__b__c\""),
            ("r := strings.replace_n({\"a\": \"b\"}, \"aa\")", "\"bb\""),
            ("r := concat(\", \", {\"a\", \"b\"})", "\"a, b\""),
            ("r := array.concat([1], [2])", "[1,2]"),
            ("r := [m | some t in [\"a:1\", \"a\", \"b:2\"]; m := regex.match(`:[0-9]+$`, t)]", "[true,false,true]"),
            ("r := x if { x := f with sprintf as \"mocked\" }\nf := sprintf(\"%d\", [1])", "\"mocked\""),
            ("r := x if { x := f with upper as g }\nf := upper(\"a\")\ng(x) := x", "\"a\""),
        ];
        for (body, wanted) in rows {
            assert_eq!(eval(body), Ok(wanted.to_owned()), "{body}");
        }
        assert_eq!(eval("r := numbers.range(1, \"a\")").unwrap_err().split(':').next(), Some("2"));
        assert!(eval("r := replace(1, \"a\", \"b\")").unwrap_err().contains("string"));
        assert!(eval("r := regex.match(1, \"a\")").unwrap_err().contains("string"));
        assert!(eval("r := regex.match(`(`, \"a\")").unwrap_err().contains("invalid regex"));
    }

    #[test]
    fn each_name_is_a_function_of_the_engine() {
        let missing: Vec<_> =
            super::BOUNDED.iter().map(|(name, _)| *name).filter(|name| !super::BUILTINS.contains_key(name)).collect();
        assert_eq!(missing, [""; 0]);
    }
}
