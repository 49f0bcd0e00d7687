//! YAML and JSON text → [`Json`] trees that know where each of their nodes stands.
//!
//! Scalars are read as kubectl reads them (YAML 1.1: an unquoted `no` is a boolean, `0777` is octal), because what counts
//! is what the API server would be sent; where kubectl lets the last of two equal keys win, this is an error.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::template::Json;

/// One document of a file.
#[derive(Debug)]
pub(in crate::cli) struct Document {
    /// The tree.
    pub(in crate::cli) value: Json,
    /// Where its nodes stand.
    pub(in crate::cli) places: Places,
}

/// A stretch of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Place {
    /// From 1.
    pub(in crate::cli) line: usize,
    /// In characters, from 1.
    pub(in crate::cli) column: usize,
    /// In characters; `None`: to the end of the line.
    pub(in crate::cli) length: Option<usize>,
}

/// Where the nodes of a document stand, by JSON pointer.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Places(BTreeMap<String, Place>);

impl Places {
    /// The place of the node at `pointer`, or of its nearest parent that exists.
    pub(in crate::cli) fn nearest(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.0.get(pointer) {
                return *place;
            }
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => return Place { line: 1, column: 1, length: None },
            }
        }
    }

    /// The place of the node at `pointer` itself.
    pub(in crate::cli) fn exact(&self, pointer: &str) -> Option<Place> {
        self.0.get(pointer).copied()
    }

    /// The places below `pointer`, as those of a document of its own.
    pub(in crate::cli) fn below(&self, pointer: &str) -> Self {
        let inside = |(key, place): (&String, &Place)| {
            let rest = key.strip_prefix(pointer)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| (rest.to_owned(), *place))
        };
        // What begins with the pointer stands together; a list of thousands is walked once for each of its items.
        let near = self.0.range(pointer.to_owned()..).take_while(|(key, _)| key.starts_with(pointer));
        Self(near.filter_map(inside).collect())
    }
}

/// Why a text is no manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct SyntaxError {
    /// Where; `None` where the parser could not tell.
    pub(in crate::cli) place: Option<Place>,
    /// One sentence, with the way out.
    pub(in crate::cli) message: String,
}

impl SyntaxError {
    fn of_file(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into() }
    }
}

/// All documents of a text; those that hold nothing but comments are left out.
pub(in crate::cli) fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
    // The parser recurses, and takes 30 KB of stack for each level in a debug build: give it a stack of its own, so
    // that the depth which `options` allows is safe whatever thread asks.
    const STACK: usize = 16 << 20;
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || documents(text));
        let done =
            parser.map_err(|error| SyntaxError::of_file(format!("cannot start a thread to read it: {error}")))?;
        done.join()
            .unwrap_or_else(|_| Err(SyntaxError::of_file("the YAML parser broke on it; please report this file")))
    })
}

fn documents(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let roots: Vec<Spanned<Node>> =
        serde_saphyr::from_str_multiple_with_options(text, options()).map_err(|error| explain(text, &error))?;
    Ok(roots.into_iter().map(document).collect())
}

/// What kubectl takes, within bounds that no manifest of a person comes near.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_documents: 10_000,
            // One anchor and hundreds of aliases to it are how people write many alike manifests; what the aliases
            // expand to is bounded below.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

const MAX_DEPTH: usize = 64;
/// As many as some thousand Deployments of a cluster have, managedFields and all.
const MAX_NODES: usize = 2_000_000;
/// What aliases expand to.
const MAX_REPLAYED: usize = 250_000;

/// A node as the parser hands it over; the positions of its children are with the children.
#[derive(Debug)]
enum Node {
    Scalar(Json),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Json::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Json::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(Json::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Json::from(value)))
    }

    /// An integer however it is written: kubectl sends `1e3` as 1000.
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let whole = value.fract() == 0.0 && value.abs() < EXACT;
        Ok(Node::Scalar(if whole { Json::from(value as i64) } else { Json::from(value) }))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Json::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = access.next_key()? {
            members.push((key, access.next_value()?));
        }
        Ok(Node::Map(members))
    }
}

fn document(root: Spanned<Node>) -> Document {
    let mut places = Places::default();
    places.0.insert(String::new(), start_of(&root));
    let value = plant(root.value, String::new(), &mut places);
    Document { value, places }
}

/// The tree of `node`, with the places of everything below it.
fn plant(node: Node, pointer: String, places: &mut Places) -> Json {
    match node {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                let here = format!("{pointer}/{index}");
                places.0.insert(here.clone(), start_of(&item));
                list.push(plant(item.value, here, places));
            }
            Json::from(list)
        }
        Node::Map(members) => {
            let mut object = BTreeMap::new();
            for (key, member) in members {
                let here = format!("{pointer}/{}", escape(&key.value));
                places.0.insert(here.clone(), place_of_member(&key, &member));
                object.insert(Json::from(key.value), plant(member.value, here, places));
            }
            Json::from(object)
        }
    }
}

/// One step of a JSON pointer (RFC 6901).
pub(in crate::cli) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A member is where its value begins, or at its key where the value begins on a later line (or is not written).
fn place_of_member(key: &Spanned<String>, member: &Spanned<Node>) -> Place {
    let (key_place, value_place) = (start_of_key(key), start_of(member));
    let unwritten = matches!(member.value, Node::Scalar(Json::Null)) && value_place.length == Some(0);
    if value_place.line == key_place.line && !unwritten { value_place } else { key_place }
}

fn start_of_key(key: &Spanned<String>) -> Place {
    let at = key.referenced;
    Place { line: at.line() as usize, column: at.column() as usize, length: None }
}

/// Scalars are underlined themselves, everything else to the end of its first line.
fn start_of(node: &Spanned<Node>) -> Place {
    let at = node.referenced;
    let length = matches!(node.value, Node::Scalar(_)).then(|| at.span().len() as usize);
    Place { line: at.line() as usize, column: at.column() as usize, length }
}

/// The parser's error in the words of somebody who writes manifests.
fn explain(text: &str, error: &serde_saphyr::Error) -> SyntaxError {
    use serde_saphyr::{Error, budget::BudgetBreach};

    let place = error.location().filter(|at| at.line() > 0).map(|at| Place {
        line: at.line() as usize,
        column: at.column() as usize,
        length: None,
    });
    let line = place.and_then(|place| text.lines().nth(place.line - 1)).unwrap_or_default();
    let message = match error.without_snippet() {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("a key");
            format!(
                "`{key}` is there twice in one mapping, and kubectl would silently take the last: remove one of them"
            )
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("nested deeper than {MAX_DEPTH} levels: no manifest is")
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "the alias contains itself: write out what is meant".into()
        }
        Error::NullIntoString { .. } => "a key is null; quote it if the word itself is meant".into(),
        _ if line.contains("{{") => {
            "this is a template and no YAML yet: render it first, e.g. helm template . | surefoot check -".into()
        }
        // A breach inside of an alias comes wrapped in the alias.
        other
            if ["replay limit", "anchor"].iter().any(|word| breach(other).is_some_and(|told| told.contains(word))) =>
        {
            "its aliases expand to more values than any manifest holds: write out what is needed".into()
        }
        other if breach(other).is_some() => format!("more than {MAX_NODES} values: give it in parts"),
        other => in_words(&other.to_string()),
    };
    SyntaxError { place, message }
}

/// What it says of a limit that was passed.
fn breach(error: &serde_saphyr::Error) -> Option<String> {
    let told = error.to_string();
    ["budget breached", "replay limit"].iter().any(|words| told.contains(words)).then_some(told)
}

/// What the parser says, without the position (which is told apart), and with a way out where one is known.
fn in_words(told: &str) -> String {
    let told = told.split(" at line ").next().unwrap_or(told);
    const WAYS_OUT: [(&str, &str); 7] = [
        ("tabs disallowed", "indent with spaces"),
        ("found a tab", "indent with spaces"),
        ("did not find expected <document start>", "put a line `---` between two documents"),
        ("mapping values are not allowed", "quote a text that has `: ` in it, and check the indentation"),
        ("unknown anchor", "define it with & above this line"),
        ("recursion limit exceeded", "no manifest is nested that deep"),
        ("non-finite float", "quote it if a text is meant"),
    ];
    match WAYS_OUT.iter().find(|(symptom, _)| told.contains(symptom)) {
        Some((_, way_out)) => format!("{told}: {way_out}"),
        None => format!("not valid YAML or JSON: {told}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVERAL: &str = "\
# a comment first
kind: X # trailing
metadata: {labels: {app.kubernetes.io/version: \"1\", a~b: x}}
spec:
  containers:
  - name: model
    image: a
    resources:
      limits:
        cpu: 1
  -   &sidecar {name: two}
  - *sidecar
  - |
    block
  none:
---
# nothing but a comment
---
kind: Why
";

    #[test]
    fn every_node_has_its_place() {
        let documents = parse(SEVERAL).unwrap();
        let cases = [
            (0, "", (2, 1)),
            (0, "/kind", (2, 7)),
            (0, "/metadata/labels/app.kubernetes.io~1version", (3, 48)),
            (0, "/metadata/labels/a~0b", (3, 58)),
            (0, "/spec", (4, 1)),
            (0, "/spec/containers", (5, 3)),
            (0, "/spec/containers/0", (6, 5)),
            (0, "/spec/containers/0/image", (7, 12)),
            (0, "/spec/containers/0/resources/limits", (9, 7)),
            (0, "/spec/containers/1/name", (11, 23)),
            (0, "/spec/containers/2", (12, 5)),
            (0, "/spec/containers/3", (14, 5)),
            (0, "/spec/none", (15, 3)),
            // What is missing is where its nearest parent is.
            (0, "/spec/containers/0/readinessProbe/httpGet", (6, 5)),
            (0, "/spec/containers/0/resources/limits/memory", (9, 7)),
            (0, "/spec/containers/9", (5, 3)),
            (0, "/status", (2, 1)),
            (0, "/speck", (2, 1)),
            (1, "/kind", (19, 7)),
        ];
        for (document, pointer, (line, column)) in cases {
            let place = documents[document].places.nearest(pointer);
            assert_eq!((place.line, place.column), (line, column), "{pointer}");
        }
    }

    #[test]
    fn places_below_are_those_of_a_document_of_its_own() {
        let text = "kind: List\nitems:\n- a: 1\n- kind: X\n  b: 2\n";
        let below = parse(text).unwrap()[0].places.below("/items/1");
        assert_eq!((below.nearest("").line, below.nearest("/b").line, below.nearest("/a").line), (4, 5, 4));
    }

    #[test]
    fn json_has_places_too() {
        let text = "{\n\t\"a\": \"\\ud83d\\ude00\\/\",\n\t\"b\": [\n\t\t1,\n\t\t{\"c\": null}\n\t]\n}\n";
        let document = &parse(text).unwrap()[0];
        assert_eq!(document.value.to_string(), "{\"a\":\"\u{1f600}/\",\"b\":[1,{\"c\":null}]}");
        let place = document.places.nearest("/b/1/c");
        assert_eq!((place.line, place.column), (5, 9));
    }

    /// The right column is what sigs.k8s.io/yaml 1.6.0, which kubectl 1.35 is built with, makes of the left one.
    #[test]
    fn scalars_are_what_kubectl_makes_of_them() {
        let cases = [
            ("y", "true"),
            ("n", "false"),
            ("yes", "true"),
            ("on", "true"),
            ("off", "false"),
            ("True", "true"),
            ("0777", "511"),
            ("-0777", "-511"),
            ("0o17", "15"),
            ("08", "8"),
            ("1_000", "1000"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("1e3", "1000"),
            ("5.", "5"),
            ("+5", "5"),
            (".5", "0.5"),
            ("1.10", "1.1"),
            ("12:30", "\"12:30\""),
            ("2024-01-01", "\"2024-01-01\""),
            ("~", "null"),
            ("NULL", "null"),
            ("nUll", "\"nUll\""),
            ("0x", "\"0x\""),
            ("1.2.3", "\"1.2.3\""),
            ("0755.0", "755"),
            ("123abc", "\"123abc\""),
            ("09.5", "9.5"),
            ("00", "0"),
            ("'no'", "\"no\""),
            ("\"1.10\"", "\"1.10\""),
            ("!!str 5", "\"5\""),
        ];
        for (written, sent) in cases {
            let documents = parse(&format!("k: {written}\n")).unwrap();
            assert_eq!(documents[0].value.to_string(), format!("{{\"k\":{sent}}}"), "{written}");
        }
    }

    #[test]
    fn an_error_says_where_and_what_to_do() {
        let deep = "[".repeat(5000);
        let block: String = (0..80).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        let letters = ["a", "b", "c", "d", "e", "f", "g"];
        let bomb: String = letters
            .windows(2)
            .map(|pair| format!("{}: &{} [{}]\n", pair[1], pair[1], vec![format!("*{}", pair[0]); 9].join(",")))
            .collect();
        let bomb = format!("a: &a [x,x,x,x,x,x,x,x,x]\n{bomb}");
        let cases = [
            ("a: 1\na: 2\n", (2, 1), "remove one of them"),
            ("{\"a\": 1, \"a\": 2}", (1, 10), "remove one of them"),
            ("a:\n\tb: 1\n", (2, 2), "indent with spaces"),
            ("a: b: c\n", (1, 5), "quote a text"),
            ("a: &x [*x]\n", (1, 8), "contains itself"),
            ("a: *nope\n", (1, 4), "define it with &"),
            ("a: .inf\n", (1, 4), "quote it"),
            ("a: \"x\n", (1, 4), "unclosed quote"),
            ("~: 1\n", (1, 1), "a key is null"),
            ("{\"a\": 1}\n{\"b\": 2}\n", (2, 1), "put a line `---`"),
            ("a: {{ .Values.x }}\n", (1, 5), "helm template"),
            (&deep, (1, 256), "nested that deep"),
            (&block, (65, 65), "nested deeper than 64"),
            (&bomb, (6, 14), "write out what is needed"),
        ];
        for (text, (line, column), words) in cases {
            let error = parse(text).map(|documents| documents.len()).unwrap_err();
            let place = error.place.unwrap();
            let shown = &text[..text.len().min(40)];
            assert!(error.message.contains(words), "{shown}: {}", error.message);
            assert_eq!((place.line, place.column), (line, column), "{shown}: {}", error.message);
        }
    }

    #[test]
    fn comments_and_nothing_are_no_documents() {
        for text in ["", "\n\n", "# c\n", "---\n# c\n---\n", "\u{feff}"] {
            assert_eq!(parse(text).map(|documents| documents.len()), Ok(0), "{text:?}");
        }
    }
}
