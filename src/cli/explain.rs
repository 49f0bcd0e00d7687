//! `surefoot explain`: what policies say of themselves, and what a code in a message means.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Outcome, help, load};
use crate::{
    admission::NATIVE,
    config::{Config, yaml},
};

/// Explain a policy, or a code such as probes/no-readiness
///
/// Without a name: the policies that there are.
#[derive(Debug, Args)]
#[command(after_long_help = help::EXPLAIN)]
pub(super) struct Explain {
    /// POLICY or POLICY/CODE, as messages name them
    name: Option<String>,
    /// Policy folder; default: the policies that are compiled in
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Longer lines are hard to read.
const WIDTH: usize = 100;

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let set = load::policies(self.policies.as_deref(), &Config::default())?.describe();
        let policies = set["policies"].as_array().map_or(&[][..], Vec::as_slice);
        let text = match self.name.as_deref().map(|name| Asked::find(policies, name)).transpose()? {
            None if self.output == Output::Json => format!("{set:#}\n"),
            None => list(policies),
            Some(asked) => asked.shown(self.output),
        };
        super::print(&text)?;
        Ok(Outcome::Fine)
    }
}

/// What a name stands for.
enum Asked<'a> {
    Policy(&'a Value),
    Code { name: &'a str, meaning: String, of: Option<&'a Value> },
}

impl<'a> Asked<'a> {
    fn find(policies: &'a [Value], name: &'a str) -> anyhow::Result<Self> {
        let (policy, code) = name.split_once('/').map_or((name, None), |(policy, code)| (policy, Some(code)));
        // A broken policy is named `NAME/broken`.
        let native =
            NATIVE.iter().find(|(native, _)| *native == name || (code == Some("broken") && *native == "broken"));
        if let Some((_, meaning)) = native {
            return Ok(Self::Code { name, meaning: (*meaning).to_owned(), of: None });
        }
        // `kubernetes` alone stands for all that the API server would say.
        let below: Vec<String> = NATIVE
            .iter()
            .filter(|(native, _)| native.split_once('/').is_some_and(|(first, _)| first == name))
            .map(|(native, meaning)| format!("{native}: {meaning}"))
            .collect();
        if !below.is_empty() {
            return Ok(Self::Code { name, meaning: below.join("\n\n"), of: None });
        }
        let Some(found) = policies.iter().find(|found| found["name"] == policy) else {
            let known = policies.iter().filter_map(|policy| policy["name"].as_str());
            let known: Vec<&str> = known.chain(NATIVE.iter().map(|(native, _)| *native)).collect();
            bail!("{}", yaml::unknown("there is no policy", name, &known));
        };
        match code {
            None => Ok(Self::Policy(found)),
            Some(code) => Ok(Self::Code { name, meaning: meaning(found, code)?, of: Some(found) }),
        }
    }

    fn shown(&self, output: Output) -> String {
        match (self, output) {
            (Self::Policy(policy), Output::Json) => format!("{policy:#}\n"),
            (Self::Policy(policy), Output::Text) => whole(policy),
            (Self::Code { name, meaning, .. }, Output::Json) => {
                format!("{:#}\n", json!({"code": name, "meaning": meaning}))
            }
            (Self::Code { meaning, of, .. }, Output::Text) => paragraphs(meaning) + &of.map(beside).unwrap_or_default(),
        }
    }
}

/// Where the rest is.
fn beside(policy: &Value) -> String {
    let name = string(&policy["name"]);
    format!("\nof {name}: {}; surefoot explain {name} says more\n", string(&policy["title"]))
}

fn meaning(policy: &Value, code: &str) -> anyhow::Result<String> {
    let name = string(&policy["name"]);
    let codes = policy["codes"].as_object();
    if let Some(meaning) = codes.and_then(|codes| codes.get(code)) {
        return Ok(string(meaning));
    }
    let known: Vec<&str> = codes.into_iter().flatten().map(|(code, _)| code.as_str()).collect();
    if known.is_empty() {
        bail!("the METADATA of policy {name} explains no codes; add custom.codes, or ask whoever keeps it");
    }
    bail!("{}", yaml::unknown(&format!("policy {name} explains no code"), code, &known));
}

fn list(policies: &[Value]) -> String {
    let rows: Vec<[String; 3]> = policies
        .iter()
        .map(|policy| [string(&policy["name"]), string(&policy["title"]), what_it_does(policy)])
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for [name, title, does] in &rows {
        let _ = writeln!(text, "{name:first$}   {title:second$}   {does}");
    }
    let native: Vec<&str> = NATIVE.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(
        text,
        "\nsurefoot explain POLICY, or POLICY/CODE as in a message, says more; also {}",
        native.join(", ")
    );
    text
}

fn what_it_does(policy: &Value) -> String {
    let words = [("deny", "refuses"), ("warn", "warns"), ("defaults", "adds")];
    let has = |rule: &str| policy["rules"].as_array().is_some_and(|rules| rules.iter().any(|one| one == rule));
    let does: Vec<&str> = words.iter().filter(|(rule, _)| has(rule)).map(|(_, word)| *word).collect();
    does.join(", ")
}

fn whole(policy: &Value) -> String {
    let mut text = format!("{}: {}\n\n", string(&policy["name"]), string(&policy["title"]));
    text += &paragraphs(&string(&policy["description"]));
    let mut rows = vec![("does".to_owned(), what_it_does(policy)), ("action".to_owned(), string(&policy["action"]))];
    let needs: Vec<String> = policy["needs"].as_array().into_iter().flatten().map(string).collect();
    if !needs.is_empty() {
        rows.push(("needs".to_owned(), needs.join(", ")));
    }
    if policy["scale"] == true {
        rows.push(("scale".to_owned(), "judges kubectl scale and autoscalers, too".to_owned()));
    }
    text += &table("", &rows);
    let parameters = members(&policy["parameters"], parameter);
    text += &table("parameters", &parameters);
    for (name, schema) in policy["parameters"].as_object().into_iter().flatten() {
        text += &table(&format!("each of {name}"), &elements(&schema["items"]));
    }
    text + &table("codes", &members(&policy["codes"], string))
}

fn parameter(schema: &Value) -> String {
    let default = schema.get("default").map(|default| format!("default {default}"));
    let mut parts = vec![string(&schema["description"]), default.unwrap_or_default()];
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => parts.push(format!("from {least} to {most}")),
        (Some(least), None) => parts.push(format!("at least {least}")),
        (None, Some(most)) => parts.push(format!("at most {most}")),
        (None, None) => {}
    }
    if let Some(allowed) = schema["enum"].as_array() {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        parts.push(format!("one of {}", allowed.join(", ")));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// The members that each element of a list has, or may have.
fn elements(schema: &Value) -> Vec<(String, String)> {
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let mut found = members(&schema["properties"], parameter);
    for (name, text) in &mut found {
        if !is_required(name) {
            *text = format!("{text} (optional)").trim_start().to_owned();
        }
    }
    found
}

fn members(object: &Value, shown: impl Fn(&Value) -> String) -> Vec<(String, String)> {
    object.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), shown(value))).collect()
}

/// Two columns, the second wrapped; nothing where there are no rows.
fn table(title: &str, rows: &[(String, String)]) -> String {
    let Some(width) = rows.iter().map(|(name, _)| name.chars().count()).max() else { return String::new() };
    let indent = if title.is_empty() { 0 } else { 2 };
    let mut text = if title.is_empty() { "\n".to_owned() } else { format!("\n{title}\n") };
    for (name, value) in rows {
        let start = format!("{:indent$}{name:width$}  ", "");
        text += &wrapped(value, &start);
    }
    text
}

/// Each paragraph in lines of its own, an empty one between them.
fn paragraphs(text: &str) -> String {
    let wrapped: Vec<String> = text.trim_end().split("\n\n").map(|paragraph| wrapped(paragraph, "")).collect();
    wrapped.join("\n")
}

/// Words in lines; the first begins with `start`, the others below it with as many blanks.
fn wrapped(words: &str, start: &str) -> String {
    let indent = " ".repeat(start.chars().count());
    let (mut text, mut line) = (String::new(), start.to_owned());
    let mut is_first = true;
    for word in words.split_whitespace() {
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text += line.trim_end();
            text.push('\n');
            line.clone_from(&indent);
            is_first = true;
        }
        if !is_first {
            line.push(' ');
        }
        line += word;
        is_first = false;
    }
    text += line.trim_end();
    text.push('\n');
    text
}

fn string(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}
