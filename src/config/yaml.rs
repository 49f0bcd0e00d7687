//! YAML as a tree in which every value and every key knows its place, so that an error can name line and column.
//!
//! Read by the configuration and by the METADATA of policies. Duplicate keys, anchors by the thousand and more than one
//! document are errors.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A place in a file; 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// What is wrong, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub at: Position,
    /// One sentence, with the way out.
    pub message: String,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// What a node can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, or `null`.
    Null,
    /// `true`.
    Bool(bool),
    /// Any number.
    Number(serde_json::Number),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys, with their places, in the order of the file.
    Map(Vec<(Node, Node)>),
}

/// Reads one document; an empty one is `Null`.
pub fn parse(text: &str) -> Result<Node, Wrong> {
    serde_saphyr::from_str::<Spanned<Raw>>(text).map(Node::from).map_err(|error| {
        let error = error.without_snippet();
        let at = error.location().map(place).unwrap_or_default();
        // The library appends the place in words; it is told apart here.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let mut message = message.to_owned();
        if message.contains("tab") {
            message.push_str("; indent with blanks");
        }
        match error {
            serde_saphyr::Error::MultipleDocuments { .. } => Wrong { at, message: "more than one document".to_owned() },
            serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
                let key = key.as_deref().unwrap_or("a key");
                Wrong { at, message: format!("`{key}` is there twice in one mapping: remove one of them") }
            }
            serde_saphyr::Error::RecursiveReferencesRequireWeakTypes { .. } => {
                Wrong { at, message: "the alias contains itself: write out what is meant".to_owned() }
            }
            _ if message.contains("unknown anchor") => {
                Wrong { at, message: format!("{message}: define it with & above this line") }
            }
            _ if message.starts_with("budget breached") => {
                let message =
                    "with its anchors filled in this is too large or too deep; write it out, or make it smaller";
                Wrong { at, message: message.to_owned() }
            }
            _ => Wrong { at, message },
        }
    })
}

impl Node {
    /// Fails at this node.
    pub fn wrong<T>(&self, message: impl Into<String>) -> Result<T, Wrong> {
        Err(Wrong { at: self.at, message: message.into() })
    }

    /// The members of a mapping whose keys are all among `known`; nothing at all counts as an empty mapping.
    pub fn members(&self, what: &str, known: &[&str]) -> Result<Members<'_>, Wrong> {
        let entries = self.entries(what)?;
        for (key, _) in &entries {
            let name = key.text("a key")?;
            if !known.contains(&name) {
                return key.wrong(unknown(&format!("{what} has no field"), name, known));
            }
        }
        Ok(Members { at: self.at, entries })
    }

    /// The members of a mapping with free keys.
    pub fn entries(&self, what: &str) -> Result<Vec<(&Node, &Node)>, Wrong> {
        match &self.value {
            Value::Null => Ok(Vec::new()),
            Value::Map(members) => Ok(members.iter().map(|(key, value)| (key, value)).collect()),
            _ => self.wrong(format!("{what} must be a mapping")),
        }
    }

    /// The elements of a list; nothing at all counts as an empty one.
    pub fn elements(&self, what: &str) -> Result<&[Node], Wrong> {
        match &self.value {
            Value::Null => Ok(&[]),
            Value::List(elements) => Ok(elements),
            _ => self.wrong(format!("{what} must be a list")),
        }
    }

    /// The text of a string.
    pub fn text(&self, what: &str) -> Result<&str, Wrong> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => self.wrong(format!("{what} must be text")),
        }
    }

    /// A whole number within bounds.
    pub fn integer(&self, what: &str, least: u64, most: u64) -> Result<u64, Wrong> {
        match &self.value {
            Value::Number(number) => match number.as_u64() {
                Some(number) if (least..=most).contains(&number) => Ok(number),
                _ => self.wrong(format!("{what} must be a whole number from {least} to {most}, not {number}")),
            },
            _ => self.wrong(format!("{what} must be a whole number from {least} to {most}")),
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, what: &str, words: &[(&str, T)]) -> Result<T, Wrong> {
        let text = self.text(what)?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.wrong(unknown(&format!("{what} cannot be"), text, &known))
            }
        }
    }

    /// The place of what keys and indices lead to: of a member, where its key stands. Where they lead to nothing, what is
    /// nearest above it.
    pub fn place(&self, path: &[String]) -> Position {
        let Some((step, rest)) = path.split_first() else { return self.at };
        let is_it = |key: &Node| matches!(&key.value, Value::Text(text) if text == step);
        let below = match &self.value {
            Value::Map(members) => members.iter().find(|(key, _)| is_it(key)).map(|(key, value)| (key.at, value)),
            Value::List(elements) => {
                step.parse().ok().and_then(|index: usize| elements.get(index)).map(|value| (value.at, value))
            }
            _ => None,
        };
        match below {
            Some((at, _)) if rest.is_empty() => at,
            Some((_, value)) => value.place(rest),
            None => self.at,
        }
    }

    /// The same without places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(elements) => elements.iter().map(Self::to_json).collect(),
            Value::Map(members) => members
                .iter()
                .map(|(key, value)| {
                    let key = match &key.value {
                        Value::Text(text) => text.clone(),
                        _ => key.to_json().to_string(),
                    };
                    (key, value.to_json())
                })
                .collect(),
        }
    }
}

/// The members of a mapping whose keys are known.
pub struct Members<'a> {
    /// Where the mapping begins.
    pub at: Position,
    entries: Vec<(&'a Node, &'a Node)>,
}

impl<'a> Members<'a> {
    /// The value of `key`; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(name, value)| matches!(&name.value, Value::Text(text) if text == key) && value.value != Value::Null)
            .map(|(_, value)| *value)
    }

    /// The value of `key`, which must be there.
    pub fn required(&self, key: &str, why: &str) -> Result<&'a Node, Wrong> {
        self.get(key).ok_or_else(|| Wrong { at: self.at, message: format!("`{key}` is missing{why}") })
    }
}

/// "X `worng`; did you mean `wrong`?", or else what there is to choose from.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match close(name, known) {
        Some(candidate) => format!("{what} `{name}`; did you mean `{candidate}`?"),
        None if known.is_empty() => format!("{what} `{name}`"),
        None => format!("{what} `{name}`; there is: {}", known.join(", ")),
    }
}

/// The one of `known` that `name` is a slip of, if any.
pub fn close<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 4)
        .min();
    close.map(|(_, candidate)| candidate)
}

fn place(location: serde_saphyr::Location) -> Position {
    let clamp = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: clamp(location.line()), column: clamp(location.column()) }
}

enum Raw {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
}

impl From<Spanned<Raw>> for Node {
    fn from(raw: Spanned<Raw>) -> Self {
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Number(number) => Value::Number(number),
            Raw::Text(text) => Value::Text(text),
            Raw::List(elements) => Value::List(elements.into_iter().map(Self::from).collect()),
            Raw::Map(members) => Value::Map(members.into_iter().map(|(k, v)| (k.into(), v.into())).collect()),
        };
        Self { at: place(raw.referenced), value }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(serde_json::Number::from_f64(value).map_or_else(|| Raw::Text(value.to_string()), Raw::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Raw::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Raw::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_place() {
        let node = parse("a: 1\nb:\n  - no\n  - {c: 'x'}\n  -\n").unwrap();
        let members = node.members("it", &["a", "b"]).unwrap();
        let (a, b) = (members.get("a").unwrap(), members.get("b").unwrap());
        assert_eq!((a.at, a.integer("a", 0, 9)), (Position { line: 1, column: 4 }, Ok(1)));
        let elements = b.elements("b").unwrap();
        assert_eq!(elements[0].value, Value::Bool(false));
        assert_eq!(elements[1].at, Position { line: 4, column: 5 });
        assert_eq!(elements[1].entries("c").unwrap()[0].0.at, Position { line: 4, column: 6 });
        assert_eq!(elements[2].value, Value::Null);
        for (path, at) in
            [("", (1, 1)), ("b", (2, 1)), ("b/0", (3, 5)), ("b/1/c", (4, 6)), ("b/1/d", (4, 5)), ("b/9", (3, 3))]
        {
            let steps: Vec<String> = path.split('/').filter(|step| !step.is_empty()).map(str::to_owned).collect();
            let found = node.place(&steps);
            assert_eq!((found.line, found.column), at, "{path}");
        }
        assert_eq!(parse("").unwrap().value, Value::Null);
        assert_eq!(parse("# only a comment\n").unwrap().value, Value::Null);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let rows = [
            ("a: 1\na: 2\n", (2, 1), "`a` is there twice in one mapping: remove one of them"),
            ("a: [1\n", (1, 4), "unclosed"),
            ("a: &a [*a]\n", (1, 8), "write out what is meant"),
            ("a: *b\n", (1, 4), "define it with & above this line"),
            ("a: 1\n\tb: 2\n", (1, 4), "tab"),
            ("a: 1\n---\nb: 2\n", (3, 1), "more than one document"),
        ];
        let bomb: String = (1..30).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1)).collect();
        let bomb = format!("a0: &a0 [x]\n{bomb}");
        let wrong = parse(&bomb).unwrap_err();
        assert!(wrong.at.line > 1 && wrong.message.contains("anchors"), "{wrong:?}");
        for (text, at, message) in rows {
            let wrong = parse(text).unwrap_err();
            assert_eq!((wrong.at.line, wrong.at.column), at, "{text:?}: {}", wrong.message);
            assert!(wrong.message.contains(message), "{text:?}: {}", wrong.message);
        }
    }

    #[test]
    fn a_close_name_is_offered() {
        let rows = [("percnt", "did you mean `percent`?"), ("zebra", "there is: percent, minimum")];
        for (name, wanted) in rows {
            assert!(unknown("no", name, &["percent", "minimum"]).ends_with(wanted));
        }
    }
}
