//! What METADATA says of one parameter, and why a value is none for it.
//!
//! ```rego
//! # custom:
//! #   parameters:
//! #     percent: {minimum: 1, maximum: 100, format: integer}
//! #     servers:
//! #       element:
//! #         required: [image]
//! #         members:
//! #           image: {type: string}
//! #           port: {type: number, format: integer}
//! ```

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::{
    config::yaml::{self, Node, Position, Wrong},
    template::quantity,
};

/// What METADATA says of one parameter, or of what is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Where it is named.
    pub at: Position,
    /// For `surefoot explain`.
    pub description: String,
    /// What it is: `type`, or what `element` and `members` imply. A parameter is also of its default's kind.
    pub kind: Option<Kind>,
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
    /// The only values; empty where any will do.
    pub allowed: Vec<Value>,
    /// What it must be, beyond its kind.
    pub format: Option<Format>,
    /// Everything in it, however deep, must be text that matches this regular expression: `pattern`.
    pub pattern: Option<String>,
    /// What each element of a list must be.
    pub element: Option<Box<Self>>,
    /// The members that a mapping may have, no others; empty where any will do.
    pub members: BTreeMap<String, Self>,
    /// Those of them that it must have.
    pub required: Vec<String>,
}

/// A kind of values, in JSON schema's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `boolean`
    Bool,
    /// `number`
    Number,
    /// `string`
    Text,
    /// `array`
    List,
    /// `object`
    Mapping,
}

impl Kind {
    const WORDS: [(&'static str, Self); 5] = [
        ("boolean", Self::Bool),
        ("number", Self::Number),
        ("string", Self::Text),
        ("array", Self::List),
        ("object", Self::Mapping),
    ];

    /// The kind of `value`; `None`: it is null.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Bool),
            Value::Number(_) => Some(Self::Number),
            Value::String(_) => Some(Self::Text),
            Value::Array(_) => Some(Self::List),
            Value::Object(_) => Some(Self::Mapping),
        }
    }

    /// The word of JSON schema.
    pub(super) fn as_str(self) -> &'static str {
        Self::WORDS.into_iter().find_map(|(word, kind)| (kind == self).then_some(word)).unwrap_or_default()
    }

    /// What a person calls such a value.
    pub(super) fn told(kind: Option<Self>) -> &'static str {
        match kind {
            None => "nothing",
            Some(Self::Bool) => "true or false",
            Some(Self::Number) => "a number",
            Some(Self::Text) => "text",
            Some(Self::List) => "a list",
            Some(Self::Mapping) => "a mapping",
        }
    }
}

/// What the value of a parameter must be, beyond its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Every text and number in it, however deep, a quantity such as `500m` or `1Gi`: `format: quantity`.
    Quantity,
    /// A whole number: `format: integer`.
    Integer,
}

impl Format {
    const WORDS: [(&'static str, Self); 2] = [("quantity", Self::Quantity), ("integer", Self::Integer)];

    /// Why `value` has another one.
    fn refuse(self, value: &Value) -> Option<String> {
        match self {
            Self::Quantity => {
                no_quantity(value).map(|none| format!("must hold quantities such as 500m or 1Gi, not {none}"))
            }
            Self::Integer => {
                let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
                (!is_whole).then(|| format!("must be a whole number, not {value}"))
            }
        }
    }
}

/// Something that is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Where in the value, keys and indices; empty: all of it.
    pub(super) path: Vec<String>,
    /// One sentence that begins with the name of what is wrong.
    pub(super) message: String,
}

impl Refused {
    /// The same, told of what `step` leads to.
    fn below(mut self, step: &str) -> Self {
        self.path.insert(0, step.to_owned());
        self
    }
}

impl Bounds {
    /// The bounds of what METADATA calls `name`.
    pub(super) fn decode(name: &Node, node: &Node) -> Result<Self, Wrong> {
        Self { at: name.at, ..Self::default() }.with(node, "a parameter")
    }

    fn with(self, node: &Node, what: &str) -> Result<Self, Wrong> {
        const FIELDS: [&str; 10] = [
            "description",
            "type",
            "minimum",
            "maximum",
            "enum",
            "format",
            "pattern",
            "element",
            "members",
            "required",
        ];
        let given = node.members(what, &FIELDS)?;
        let number = |key: &str| match given.get(key).map(|node| (node, &node.value)) {
            None => Ok(None),
            Some((_, yaml::Value::Number(number))) => Ok(number.as_f64()),
            Some((node, _)) => node.wrong(format!("`{key}` must be a number")),
        };
        let allowed = given.get("enum").map_or(Ok(&[][..]), |node| node.elements("`enum`"))?;
        let element = given.get("element").map(|node| Self { at: node.at, ..Self::default() }.with(node, "an element"));
        let members = given.get("members").map(members).transpose()?.unwrap_or_default();
        let required = given.get("required").map(|node| required(node, &members)).transpose()?.unwrap_or_default();
        Ok(Self {
            description: given.get("description").map_or(Ok(""), |node| node.text("`description`"))?.to_owned(),
            kind: kind(&given)?,
            minimum: number("minimum")?,
            maximum: number("maximum")?,
            allowed: allowed.iter().map(Node::to_json).collect(),
            format: given.get("format").map(|node| node.word("`format`", &Format::WORDS)).transpose()?,
            pattern: given.get("pattern").map(pattern).transpose()?,
            element: element.transpose()?.map(Box::new),
            members,
            required,
            ..self
        })
    }

    /// Everything that is wrong with `value`, which messages call `name`.
    pub(super) fn refuse(&self, name: &str, value: &Value) -> Vec<Refused> {
        if let Some(why) = self.refuse_whole(value) {
            return vec![Refused { path: Vec::new(), message: format!("`{name}` {why}") }];
        }
        match (value, &self.element) {
            (Value::Array(elements), Some(element)) => {
                let each = elements.iter().enumerate().flat_map(|(index, value)| {
                    let refused = element.refuse(&format!("{name}[{index}]"), value);
                    refused.into_iter().map(move |one| one.below(&index.to_string()))
                });
                each.collect()
            }
            (Value::Object(given), _) if !self.members.is_empty() => self.refuse_members(name, given),
            _ => Vec::new(),
        }
    }

    fn refuse_members(&self, name: &str, given: &serde_json::Map<String, Value>) -> Vec<Refused> {
        let known: Vec<&str> = self.members.keys().map(String::as_str).collect();
        let mut refused = Vec::new();
        let mut is_misspelt = false;
        for (key, value) in given {
            if let Some(member) = self.members.get(key) {
                refused.extend(member.refuse(&format!("{name}.{key}"), value).into_iter().map(|one| one.below(key)));
            } else {
                let message = yaml::unknown(&format!("`{name}` has no member"), key, &known);
                refused.push(Refused { path: vec![key.clone()], message });
                is_misspelt = true;
            }
        }
        let missing: Vec<_> = self.required.iter().filter(|key| !given.contains_key(*key)).collect();
        // What is missing may well be what is misspelt.
        if !missing.is_empty() && !is_misspelt {
            let missing: Vec<String> = missing.into_iter().map(|key| format!("`{key}`")).collect();
            let message = format!("`{name}` must have {}", missing.join(" and "));
            refused.push(Refused { path: Vec::new(), message });
        }
        refused
    }

    /// Why `value` is out of bounds, whatever is in it.
    fn refuse_whole(&self, value: &Value) -> Option<String> {
        let found = Kind::of(value);
        if self.kind.is_some() && self.kind != found {
            return Some(format!("must be {}, not {}", Kind::told(self.kind), Kind::told(found)));
        }
        let number = value.as_f64();
        match (number, self.minimum, self.maximum) {
            (Some(number), Some(minimum), _) if number < minimum => return Some(format!("must be at least {minimum}")),
            (Some(number), _, Some(maximum)) if number > maximum => return Some(format!("must be at most {maximum}")),
            _ => {}
        }
        if let Some(refused) = self.format.and_then(|format| format.refuse(value)) {
            return Some(refused);
        }
        if let Some(pattern) = &self.pattern
            && let Some(text) = Regex::new(pattern).ok().and_then(|regex| unlike(&regex, value))
        {
            return Some(format!("must hold texts that match {pattern}, not {text}"));
        }
        if self.allowed.is_empty() || self.allowed.contains(value) {
            return None;
        }
        let allowed: Vec<String> = self.allowed.iter().map(ToString::to_string).collect();
        Some(format!("must be one of {}", allowed.join(", ")))
    }
}

/// `type`, which `element` and `members` imply.
fn kind(given: &yaml::Members<'_>) -> Result<Option<Kind>, Wrong> {
    let mut kind = given.get("type").map(|node| node.word("`type`", &Kind::WORDS)).transpose()?;
    for (key, implied) in [("element", Kind::List), ("members", Kind::Mapping)] {
        if let Some(node) = given.get(key)
            && *kind.get_or_insert(implied) != implied
        {
            return node.wrong(format!("`{key}` is of type {} only", implied.as_str()));
        }
    }
    Ok(kind)
}

fn members(node: &Node) -> Result<BTreeMap<String, Bounds>, Wrong> {
    let entries = node.entries("`members`")?;
    let decoded = entries.into_iter().map(|(name, node)| {
        let text = name.text("the name of a member")?.to_owned();
        Ok((text, Bounds { at: name.at, ..Bounds::default() }.with(node, "a member")?))
    });
    decoded.collect()
}

fn required(node: &Node, members: &BTreeMap<String, Bounds>) -> Result<Vec<String>, Wrong> {
    let known: Vec<&str> = members.keys().map(String::as_str).collect();
    let names = node.elements("`required`")?.iter().map(|node| match node.text("the name of a member")? {
        name if known.contains(&name) => Ok(name.to_owned()),
        name => node.wrong(yaml::unknown("`members` has no", name, &known)),
    });
    names.collect()
}

fn pattern(node: &Node) -> Result<String, Wrong> {
    let text = node.text("`pattern`")?;
    match Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => node.wrong("`pattern` is no regular expression"),
    }
}

/// The first thing in `value` that is no text that matches.
fn unlike(regex: &Regex, value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => members.values().find_map(|below| unlike(regex, below)),
        Value::Array(elements) => elements.iter().find_map(|below| unlike(regex, below)),
        Value::String(text) => (!regex.is_match(text)).then(|| format!("`{text}`")),
        other => Some(other.to_string()),
    }
}

/// The first text or number in `value` that is no quantity, or a negative one.
fn no_quantity(value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => members.values().find_map(no_quantity),
        Value::Array(elements) => elements.iter().find_map(no_quantity),
        Value::String(text) => {
            let is_one = quantity::parse(text).is_ok() && !text.starts_with('-');
            (!is_one).then(|| format!("`{text}`"))
        }
        other => {
            let is_one =
                other.is_number() && quantity::parse(&other.to_string()).is_ok() && !other.to_string().starts_with('-');
            (!is_one).then(|| other.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SERVERS: &str = "element:
  required: [image, port]
  members:
    image: {type: string, pattern: '^[^ ]+$'}
    port: {type: number, format: integer, minimum: 1, maximum: 65535}
    others: {element: {type: number}}
    mode: {enum: [a, b]}
";

    fn decode(text: &str) -> Result<Bounds, Wrong> {
        let name = yaml::parse("servers").unwrap();
        Bounds::decode(&name, &yaml::parse(text)?)
    }

    #[test]
    fn what_is_in_a_list_is_held_against_its_element() {
        let bounds = decode(SERVERS).unwrap();
        let rows = [
            (json!([]), vec![]),
            (json!([{"image": "a", "port": 1, "others": [2], "mode": "b"}]), vec![]),
            (json!("a"), vec![("", "`servers` must be a list, not text")]),
            (
                json!([7, null]),
                vec![
                    ("0", "`servers[0]` must be a mapping, not a number"),
                    ("1", "`servers[1]` must be a mapping, not nothing"),
                ],
            ),
            (json!([{}]), vec![("0", "`servers[0]` must have `image` and `port`")]),
            (
                json!([{"imagez": "a", "port": 1}]),
                vec![("0/imagez", "`servers[0]` has no member `imagez`; did you mean `image`?")],
            ),
            (
                json!([{"image": "a", "port": 1, "zebra": 1}]),
                vec![("0/zebra", "`servers[0]` has no member `zebra`; there is: image, mode, others, port")],
            ),
            (
                json!([{"image": "a", "port": 1}, {"image": 7, "port": "8080"}]),
                vec![
                    ("1/image", "`servers[1].image` must be text, not a number"),
                    ("1/port", "`servers[1].port` must be a number, not text"),
                ],
            ),
            (
                json!([{"image": "a", "port": null}]),
                vec![("0/port", "`servers[0].port` must be a number, not nothing")],
            ),
            (json!([{"image": "a", "port": 0}]), vec![("0/port", "`servers[0].port` must be at least 1")]),
            (
                json!([{"image": " ", "port": 1}]),
                vec![("0/image", "`servers[0].image` must hold texts that match ^[^ ]+$, not ` `")],
            ),
            (
                json!([{"image": "a", "port": 1, "others": [1, "2"]}]),
                vec![("0/others/1", "`servers[0].others[1]` must be a number, not text")],
            ),
            (
                json!([{"image": "a", "port": 1, "mode": "c"}]),
                vec![("0/mode", r#"`servers[0].mode` must be one of "a", "b""#)],
            ),
        ];
        for (value, wanted) in rows {
            let refused = bounds.refuse("servers", &value);
            let found: Vec<_> = refused.iter().map(|one| (one.path.join("/"), one.message.as_str())).collect();
            let wanted: Vec<_> = wanted.into_iter().map(|(path, message)| (path.to_owned(), message)).collect();
            assert_eq!(found, wanted, "{value}");
        }
    }

    #[test]
    fn a_mistake_in_what_is_said_of_an_element_has_its_place() {
        let rows = [
            ("{type: text}", (1, 8), "`type` cannot be `text`"),
            ("{type: string, element: {}}", (1, 25), "`element` is of type array only"),
            ("{type: array, members: {a: {}}}", (1, 24), "`members` is of type object only"),
            ("{element: {member: {}}}", (1, 12), "an element has no field `member`; did you mean `members`?"),
            ("{members: {a: {typ: string}}}", (1, 16), "a member has no field `typ`; did you mean `type`?"),
            ("{required: [imge], members: {image: {}}}", (1, 13), "`members` has no `imge`; did you mean `image`?"),
            ("{required: [a]}", (1, 13), "`members` has no `a`"),
            ("{element: [a]}", (1, 11), "an element must be a mapping"),
        ];
        for (text, at, message) in rows {
            let wrong = decode(text).unwrap_err();
            assert_eq!((wrong.at.line, wrong.at.column), at, "{text}: {}", wrong.message);
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
        }
    }
}
