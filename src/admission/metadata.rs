//! Package METADATA: the YAML in the comments above `package`, as `opa` reads it. regorus does not.
//!
//! ```rego
//! # METADATA
//! # title: A canary stays small
//! # custom:
//! #   action: Deny
//! #   needs: [peers]
//! #   scale: true
//! #   parameters:
//! #     percent: {minimum: 1, maximum: 100}
//! package surefoot.canary_cap
//! ```

use std::collections::BTreeMap;

use regex::Regex;

use crate::{
    config::{
        Action,
        yaml::{self, Node, Position, Wrong},
    },
    template::quantity,
};

/// What a policy says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// One line.
    pub title: String,
    /// May be empty.
    pub description: String,
    /// What its `deny` does at most.
    pub action: Action,
    /// What it wants to know beside the request.
    pub needs: Vec<Need>,
    /// It also judges requests through `deployments/scale`.
    pub scale: bool,
    /// Bounds of its parameters, by name.
    pub parameters: BTreeMap<String, Bounds>,
    /// What each code of its findings means, for `surefoot explain`.
    pub codes: BTreeMap<String, String>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            title: String::new(),
            description: String::new(),
            action: Action::Deny,
            needs: Vec::new(),
            scale: false,
            parameters: BTreeMap::new(),
            codes: BTreeMap::new(),
        }
    }
}

/// A fact that a policy may declare in `needs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// `input.context.namespace`
    Namespace,
    /// `input.context.peers`
    Peers,
    /// `input.context.history`
    History,
    /// `input.context.isolation`: the policy judges namespaces, on a live cluster, and no Deployments.
    Isolation,
}

impl Need {
    const WORDS: [(&'static str, Self); 4] = [
        ("namespace", Self::Namespace),
        ("peers", Self::Peers),
        ("history", Self::History),
        ("isolation", Self::Isolation),
    ];

    /// The word in METADATA, and the member of `input.context`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Peers => "peers",
            Self::History => "history",
            Self::Isolation => "isolation",
        }
    }
}

/// What METADATA says of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Where it is named.
    pub at: Position,
    /// For `surefoot explain`.
    pub description: String,
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
    /// The only values; empty where any will do.
    pub allowed: Vec<serde_json::Value>,
    /// What it must be, beyond its kind.
    pub format: Option<Format>,
    /// Everything in it, however deep, must be text that matches this regular expression: `pattern`.
    pub pattern: Option<String>,
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
    fn refuse(self, value: &serde_json::Value) -> Option<String> {
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

/// The METADATA of the package in `text`; `None` where there is none.
pub(super) fn of_package(text: &str) -> Result<Option<Metadata>, Wrong> {
    let mut found = None;
    for block in blocks(text) {
        let root = yaml::parse(&block.yaml).map_err(|mut wrong| {
            wrong.at.line = if wrong.at.line == 0 { block.line } else { wrong.at.line };
            wrong
        })?;
        if root.value == yaml::Value::Null {
            let at = Position { line: block.line, column: 1 };
            return Err(Wrong {
                at,
                message: "METADATA without anything; its lines follow at once, each with `#` first".into(),
            });
        }
        let members = root.members("METADATA", &FIELDS)?;
        check(&members)?;
        let scope = match members.get("scope") {
            Some(node) => node.word("`scope`", &SCOPES)?,
            None => block.above_package,
        };
        match (scope, block.above_package) {
            (false, false) => continue,
            (true, false) => return root.wrong("METADATA of a package stands directly above `package`"),
            (false, true) => {
                return root.wrong("METADATA of a rule stands directly above the rule, not above `package`");
            }
            (true, true) => {}
        }
        if found.is_some() {
            return root.wrong("a second METADATA block for this package");
        }
        found = Some(decode(&members)?);
    }
    Ok(found)
}

/// The fields that OPA knows.
const FIELDS: [&str; 10] = [
    "scope",
    "title",
    "description",
    "related_resources",
    "authors",
    "organizations",
    "schemas",
    "entrypoint",
    "custom",
    "compile",
];
/// Whether a scope is the package's.
const SCOPES: [(&str, bool); 4] = [("package", true), ("subpackages", true), ("rule", false), ("document", false)];

/// What OPA refuses in any block, of a rule too.
fn check(members: &yaml::Members<'_>) -> Result<(), Wrong> {
    for key in ["title", "description"] {
        members.get(key).map_or(Ok(""), |node| node.text(&format!("`{key}`")))?;
    }
    for node in elements(members, "organizations")? {
        node.text("an organization")?;
    }
    for node in elements(members, "authors")? {
        if let yaml::Value::Text(author) = &node.value {
            if author.trim().is_empty() {
                return node.wrong("an author is `name <email>`, or `name:` and `email:`");
            }
            continue;
        }
        let author = node.members("an author", &["name", "email"])?;
        if author.get("name").or(author.get("email")).is_none() {
            return node.wrong("an author has a `name` or an `email`");
        }
    }
    for node in elements(members, "related_resources")? {
        let reference = match &node.value {
            yaml::Value::Text(_) => node,
            _ => node.members("a related resource", &["ref", "description"])?.required("ref", ", an address")?,
        };
        if reference.text("`ref`")?.trim().is_empty() {
            return reference.wrong("`ref` is an address");
        }
    }
    for node in elements(members, "schemas")? {
        match node.entries("a schema")?.as_slice() {
            [(path, _)] if path.text("a path").is_ok_and(|path| ["input", "data"].contains(&first(path))) => {}
            _ => {
                return node
                    .wrong("a schema is one path below `input` or `data` and its schema, `input: schema.input`");
            }
        }
    }
    match members.get("entrypoint") {
        Some(node) if !matches!(node.value, yaml::Value::Bool(_)) => node.wrong("`entrypoint` must be true or false"),
        _ => Ok(()),
    }
}

fn elements<'a>(members: &'a yaml::Members<'_>, key: &str) -> Result<&'a [Node], Wrong> {
    members.get(key).map_or(Ok(&[]), |node| node.elements(&format!("`{key}`")))
}

fn first(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

fn decode(members: &yaml::Members<'_>) -> Result<Metadata, Wrong> {
    let text = |key: &str| match members.get(key) {
        Some(node) => node.text(&format!("`{key}`")).map(str::to_owned),
        None => Ok(String::new()),
    };
    let mut metadata = Metadata { title: text("title")?, description: text("description")?, ..Metadata::default() };
    let Some(custom) = members.get("custom") else { return Ok(metadata) };
    let custom = custom.members("`custom`", &["action", "needs", "scale", "parameters", "codes"])?;
    if let Some(node) = custom.get("action") {
        let words = [("Deny", Action::Deny), ("Warn", Action::Warn), ("Audit", Action::Audit)];
        metadata.action = node.word("`action`", &words)?;
    }
    if let Some(node) = custom.get("needs") {
        for need in node.elements("`needs`")? {
            metadata.needs.push(need.word("a need", &Need::WORDS)?);
        }
    }
    if let Some(node) = custom.get("scale") {
        metadata.scale = match node.value {
            yaml::Value::Bool(scale) => scale,
            _ => return node.wrong("`scale` must be true or false"),
        };
    }
    if let Some(node) = custom.get("parameters") {
        for (name, bounds) in node.entries("`parameters`")? {
            let name_text = name.text("the name of a parameter")?.to_owned();
            metadata.parameters.insert(name_text, decode_bounds(name, bounds)?);
        }
    }
    if let Some(node) = custom.get("codes") {
        for (code, meaning) in node.entries("`codes`")? {
            let meaning = meaning.text("what a code means")?.to_owned();
            metadata.codes.insert(code.text("a code")?.to_owned(), meaning);
        }
    }
    Ok(metadata)
}

fn decode_bounds(name: &Node, node: &Node) -> Result<Bounds, Wrong> {
    let members = node.members("a parameter", &["description", "minimum", "maximum", "enum", "format", "pattern"])?;
    let number = |key: &str| match members.get(key).map(|node| (node, &node.value)) {
        None => Ok(None),
        Some((_, yaml::Value::Number(number))) => Ok(number.as_f64()),
        Some((node, _)) => node.wrong(format!("`{key}` must be a number")),
    };
    let allowed = match members.get("enum") {
        Some(node) => node.elements("`enum`")?.iter().map(Node::to_json).collect(),
        None => Vec::new(),
    };
    let description = members.get("description").map_or(Ok(""), |node| node.text("`description`"))?.to_owned();
    Ok(Bounds {
        at: name.at,
        description,
        minimum: number("minimum")?,
        maximum: number("maximum")?,
        allowed,
        format: members.get("format").map(|node| node.word("`format`", &Format::WORDS)).transpose()?,
        pattern: members.get("pattern").map(pattern).transpose()?,
    })
}

fn pattern(node: &Node) -> Result<String, Wrong> {
    let text = node.text("`pattern`")?;
    match Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => node.wrong("`pattern` is no regular expression"),
    }
}

impl Bounds {
    /// Why `value` is out of bounds.
    pub(super) fn refuse(&self, value: &serde_json::Value) -> Option<String> {
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

/// The first thing in `value` that is no text that matches.
fn unlike(regex: &Regex, value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Object(members) => members.values().find_map(|below| unlike(regex, below)),
        serde_json::Value::Array(elements) => elements.iter().find_map(|below| unlike(regex, below)),
        serde_json::Value::String(text) => (!regex.is_match(text)).then(|| format!("`{text}`")),
        other => Some(other.to_string()),
    }
}

/// The first text or number in `value` that is no quantity, or a negative one.
fn no_quantity(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Object(members) => members.values().find_map(no_quantity),
        serde_json::Value::Array(elements) => elements.iter().find_map(no_quantity),
        serde_json::Value::String(text) => {
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

/// One METADATA block, its YAML at the lines and columns of the file.
struct Block {
    line: u32,
    yaml: String,
    above_package: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut line = 0;
    while line < lines.len() {
        // As OPA finds them: by how the comment begins.
        if lines[line].trim_start().strip_prefix('#').is_none_or(|text| !text.trim_start().starts_with("METADATA")) {
            line += 1;
            continue;
        }
        let start = line + 1;
        let mut end = start;
        while end < lines.len() && lines[end].starts_with('#') {
            end += 1;
        }
        // Blank lines instead of what stands above, blanks instead of `#`: so that places need no translation.
        let mut yaml = "\n".repeat(start);
        for comment in &lines[start..end] {
            yaml.push_str(&comment.replacen('#', " ", 1));
            yaml.push('\n');
        }
        let above_package = lines[end..]
            .iter()
            .find(|below| !below.trim().is_empty() && !below.trim_start().starts_with('#'))
            .is_some_and(|below| below.trim_start().starts_with("package ") || below.trim() == "package");
        found.push(Block { line: u32::try_from(start).unwrap_or(u32::MAX), yaml, above_package });
        line = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "# A licence.

# METADATA
# title: A canary stays small
# description: |
#   Behind one Service traffic
#   follows ready pods.
# related_resources:
# - https://example.org
# custom:
#   action: Warn
#   needs: [peers, history]
#   scale: true
#   parameters:
#     percent: {minimum: 1, maximum: 100, format: integer}
#     mode: {enum: [a, b], description: how}
#     names: {pattern: '^[^ ]+$'}
package surefoot.canary_cap

# METADATA
# title: of a rule
deny contains x if x := 1
";

    #[test]
    fn the_block_above_package_is_read() {
        let metadata = of_package(FULL).unwrap().unwrap();
        assert_eq!(
            (metadata.title.as_str(), metadata.action, metadata.scale),
            ("A canary stays small", Action::Warn, true)
        );
        assert_eq!(metadata.description, "Behind one Service traffic\nfollows ready pods.\n");
        assert_eq!(metadata.needs, [Need::Peers, Need::History]);
        let percent = &metadata.parameters["percent"];
        assert_eq!((percent.minimum, percent.at), (Some(1.0), Position { line: 15, column: 7 }));
        assert_eq!(percent.refuse(&serde_json::json!(0)).as_deref(), Some("must be at least 1"));
        assert_eq!(percent.refuse(&serde_json::json!(101)).as_deref(), Some("must be at most 100"));
        assert_eq!(percent.refuse(&serde_json::json!(10.001)).as_deref(), Some("must be a whole number, not 10.001"));
        assert_eq!(percent.refuse(&serde_json::json!(100)), None);
        let names = &metadata.parameters["names"];
        assert_eq!(
            names.refuse(&serde_json::json!(["a", 7])).as_deref(),
            Some("must hold texts that match ^[^ ]+$, not 7")
        );
        assert_eq!(
            names.refuse(&serde_json::json!([" "])).as_deref(),
            Some("must hold texts that match ^[^ ]+$, not ` `")
        );
        assert_eq!(names.refuse(&serde_json::json!(["a-*"])), None);
        let mode = &metadata.parameters["mode"];
        assert_eq!(mode.refuse(&serde_json::json!("c")).as_deref(), Some(r#"must be one of "a", "b""#));
        assert_eq!(of_package("package a\n# METADATA\n# title: x\nr := 1\n"), Ok(None));
        let rest = "# METADATA\n# scope: subpackages\n# authors: [Ana <ana@example.org>, {name: Bo}]\n\
            # organizations: [Acme]\n# related_resources: [{ref: https://example.org}]\n\
            # schemas: [{input.request: schema.request}]\n# entrypoint: false\n\n# another comment\npackage a\n";
        assert_eq!(of_package(rest), Ok(Some(Metadata::default())));
    }

    #[test]
    fn a_mistake_is_named_with_its_place_in_the_file() {
        let rows = [
            ("# METADATA\n# titel: x\npackage a\n", (2, 3), "did you mean `title`?"),
            ("# METADATA\n# title: [x]\npackage a\n", (2, 10), "`title` must be text"),
            ("# METADATA\n# title: x\n# title: y\npackage a\n", (3, 3), "there twice"),
            ("\n# METADATA\n# custom:\n#   acton: Deny\npackage a\n", (4, 5), "did you mean `action`?"),
            ("# METADATA\n# custom: {action: deny}\npackage a\n", (2, 20), "did you mean `Deny`?"),
            ("# METADATA\n# custom: {needs: [peer]}\npackage a\n", (2, 20), "did you mean `peers`?"),
            ("# METADATA\n# custom: {scale: 1}\npackage a\n", (2, 19), "true or false"),
            ("# METADATA\n# custom: {parameters: {p: {minimum: x}}}\npackage a\n", (2, 38), "must be a number"),
            ("# METADATA\n# custom: {parameters: {p: {min: 1}}}\npackage a\n", (2, 29), "no field `min`"),
            ("# METADATA\n# title: x\n\n# METADATA\n# title: z\npackage a\n", (5, 3), "second"),
            ("package a\n# METADATA\n# scope: package\nr := 1\n", (3, 3), "directly above `package`"),
            ("# METADATA\n# a: b: c\npackage a\n", (2, 7), ""),
            ("# METADATA\n\n# title: x\npackage a\n", (1, 1), "without anything"),
            ("# METADATA\n  # title: x\npackage a\n", (1, 1), "without anything"),
            ("# METADATA of it\n# titel: x\npackage a\n", (2, 3), "did you mean `title`?"),
            ("# METADATA\n# scope: rule\npackage a\n", (2, 3), "not above `package`"),
            ("package a\n# METADATA\n# titel: x\nr := 1\n", (3, 3), "did you mean `title`?"),
            ("package a\n# METADATA\n# authors: [{nam: x}]\nr := 1\n", (3, 14), "did you mean `name`?"),
            ("# METADATA\n# authors: [{}]\npackage a\n", (2, 13), "`name` or an `email`"),
            ("# METADATA\n# authors: ['']\npackage a\n", (2, 13), "name <email>"),
            ("# METADATA\n# organizations: [1]\npackage a\n", (2, 19), "must be text"),
            ("# METADATA\n# related_resources: [{description: x}]\npackage a\n", (2, 23), "ref"),
            ("# METADATA\n# related_resources: ['']\npackage a\n", (2, 23), "is an address"),
            ("# METADATA\n# schemas: [{output: schema.x}]\npackage a\n", (2, 13), "below `input` or `data`"),
            ("# METADATA\n# entrypoint: yes please\npackage a\n", (2, 15), "true or false"),
            ("# METADATA\n# scope: world\npackage a\n", (2, 10), "`scope` cannot be `world`"),
        ];
        for (text, at, message) in rows {
            let wrong = of_package(text).unwrap_err();
            assert_eq!((wrong.at.line, wrong.at.column), at, "{text}: {}", wrong.message);
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
        }
    }
}
