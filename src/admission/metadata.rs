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

use std::collections::{BTreeMap, BTreeSet};

use super::{bounds::Bounds, gate};
use crate::config::{
    Action,
    yaml::{self, Node, Position, Wrong},
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
            metadata.parameters.insert(name_text, Bounds::decode(name, bounds)?);
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

/// One METADATA block, its YAML at the lines and columns of the file.
struct Block {
    line: u32,
    yaml: String,
    above_package: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let raw = in_raw_strings(text);
    let mut line = 0;
    while line < lines.len() {
        // As OPA finds them: by how the comment begins.
        let begins = |text: &str| text.trim_start().starts_with("METADATA");
        if raw.contains(&line) || !lines[line].trim_start().strip_prefix('#').is_some_and(begins) {
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

/// Lines, from 0, that begin within a text in backquotes: what looks like a comment there is none.
fn in_raw_strings(text: &str) -> BTreeSet<usize> {
    let mut inner = BTreeSet::new();
    for range in gate::quoted(text).into_iter().filter(|range| text[range.clone()].starts_with('`')) {
        let first = text[..range.start].matches('\n').count();
        inner.extend(first + 1..=first + text[range].matches('\n').count());
    }
    inner
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let rows = [
            ("percent", json!(0), "`percent` must be at least 1"),
            ("percent", json!(101), "`percent` must be at most 100"),
            ("percent", json!(10.001), "`percent` must be a whole number, not 10.001"),
            ("percent", json!(100), ""),
            ("names", json!(["a", 7]), "`names` must hold texts that match ^[^ ]+$, not 7"),
            ("names", json!([" "]), "`names` must hold texts that match ^[^ ]+$, not ` `"),
            ("names", json!(["a-*"]), ""),
            ("mode", json!("c"), r#"`mode` must be one of "a", "b""#),
        ];
        for (name, value, message) in rows {
            let refused = metadata.parameters[name].refuse(name, &value);
            let told: Vec<_> = refused.iter().map(|one| one.message.as_str()).collect();
            assert_eq!(told.join("; "), message, "{name}: {value}");
        }
        assert_eq!(of_package("package a\n# METADATA\n# title: x\nr := 1\n"), Ok(None));
        let quoted = "package a\nr := `\n# METADATA\n# titel: x\n`\n# A ` in a comment is none.\n";
        assert_eq!(of_package(quoted), Ok(None));
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
