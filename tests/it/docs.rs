//! The documents: those that are made from what the program says of itself are fresh (`make docs` writes them anew), and
//! what is shown of commands in the others is what the commands print.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use regex::Regex;
use serde_json::Value;

use crate::{
    schema::{kept, top},
    support::tools::rego_tools,
    trial,
};

mod examples;
mod rollouts;

use examples::{Example, Examples};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("docs::policies_is_fresh", || kept("docs/policies.md", &policies(&explained()?))),
        trial("docs::messages_is_fresh", || kept("docs/messages.md", &messages(&explained()?, &examples::all()?)?)),
        trial("docs::config_is_fresh", || kept("docs/config.md", &configuration(&json(&["schema"])?)?)),
        trial("docs::transcripts_are_what_is_printed", transcripts),
        trial("docs::transcripts_of_a_cluster_are_what_is_printed", rollouts::transcripts),
        trial("docs::links_lead_somewhere", links),
    ]
}

/// Who reads a generated document shall not edit it.
const GENERATED: &str = "<!-- Written by `make docs`; a test holds it to the program. -->\n\n";

fn explained() -> Result<Value> {
    json(&["explain", "-o", "json"])
}

fn json(arguments: &[&str]) -> Result<Value> {
    let run = Command::new(env!("CARGO_BIN_EXE_surefoot")).args(arguments).current_dir(top("")).output()?;
    serde_json::from_slice(&run.stdout).with_context(|| String::from_utf8_lossy(&run.stderr).into_owned())
}

fn policies(explained: &Value) -> String {
    let mut text = format!(
        "{GENERATED}# The shipped policies\n\nWhat each looks for, its parameters for `config.yaml` ([config.md](config.md)), and its codes \
         ([messages.md](messages.md)). `surefoot explain POLICY` prints the same.\n"
    );
    for policy in list(&explained["policies"]) {
        let _ = write!(
            text,
            "\n## {}\n\n**{}.** {}\n",
            plain(&policy["name"]),
            plain(&policy["title"]),
            folded(&policy["description"])
        );
        let words = [("deny", "refuses"), ("warn", "warns"), ("defaults", "adds defaults")];
        let rules: Vec<&str> = list(&policy["rules"]).filter_map(Value::as_str).collect();
        let does: Vec<&str> = words.iter().filter(|(rule, _)| rules.contains(rule)).map(|(_, word)| *word).collect();
        let needs: Vec<String> = list(&policy["needs"]).map(|need| format!("`{}`", plain(need))).collect();
        let _ = write!(text, "\n- does: {}\n- action: {}\n", does.join(", "), plain(&policy["action"]));
        if !needs.is_empty() {
            let _ = writeln!(text, "- needs: {}", needs.join(", "));
        }
        if policy["scale"] == true {
            let _ = writeln!(text, "- judges `kubectl scale` and autoscalers, too");
        }
        let parameters: Vec<[String; 3]> = members(&policy["parameters"])
            .map(|(name, schema)| [format!("`{name}`"), format!("`{}`", schema["default"]), described(schema)])
            .collect();
        text += &table(["parameter", "default", ""], &parameters);
        for (name, schema) in members(&policy["parameters"]) {
            let element = &schema["items"];
            let is_required = |name: &str| list(&element["required"]).any(|one| one == name);
            let rows: Vec<[String; 2]> = members(&element["properties"])
                .map(|(name, schema)| {
                    let optional = if is_required(name) { "" } else { "optional; " };
                    [format!("`{name}`"), format!("{optional}{}", described(schema))]
                })
                .collect();
            text += &table([&format!("each of `{name}`"), ""], &rows);
        }
        let codes: Vec<[String; 2]> =
            members(&policy["codes"]).map(|(code, meaning)| [format!("`{code}`"), plain(meaning)]).collect();
        text += &table(["code", ""], &codes);
    }
    text
}

fn described(schema: &Value) -> String {
    let words = [("minimum", "at least"), ("maximum", "at most")];
    let mut bounds: Vec<String> =
        words.iter().filter_map(|(key, words)| Some(format!("{words} {}", schema.get(key)?))).collect();
    if let Some(allowed) = schema["enum"].as_array() {
        bounds.extend(allowed.iter().map(|one| format!("`{}`", plain(one))));
    }
    let description = plain(&schema["description"]);
    match bounds.is_empty() {
        true => description,
        false => format!("{description} ({})", bounds.join(", ")).trim_start().to_owned(),
    }
}

/// What files never tell: only a live cluster knows it.
const LIVE: [&str; 2] = ["history", "isolation"];

fn messages(explained: &Value, examples: &Examples) -> Result<String> {
    let mut text = format!(
        "{GENERATED}# Messages\n\nEach finding is named POLICY/CODE, in denials and warnings alike; `surefoot explain POLICY/CODE` \
         prints what stands here. The examples are what the program says of the project's own test cases, and where it takes \
         a cluster to come to that, of one that is made up.\n\n## From no policy\n"
    );
    for (code, meaning) in members(&explained["codes"]) {
        let name = if code == "broken" { "POLICY/broken" } else { code };
        let _ = write!(text, "\n### {name}\n\n{}\n\n{}", plain(meaning), shown(examples, code)?);
    }
    for policy in list(&explained["policies"]) {
        let name = plain(&policy["name"]);
        let _ = write!(text, "\n## {name}\n");
        if let Some(need) = list(&policy["needs"]).map(plain).find(|need| LIVE.contains(&need.as_str())) {
            let _ = write!(text, "\nFiles do not tell: this needs `{need}`, which only a live cluster has.\n");
        }
        for (code, meaning) in members(&policy["codes"]) {
            let full = format!("{name}/{code}");
            let _ = write!(text, "\n### {full}\n\n{}\n\n{}", plain(meaning), shown(examples, &full)?);
        }
    }
    Ok(text)
}

fn shown(examples: &Examples, code: &str) -> Result<String> {
    let Example { verb, text } =
        examples.get(code).with_context(|| format!("nothing shows {code}: add a case that does to tests/cases"))?;
    Ok(format!("For example, {verb}:\n\n```\n{text}\n```\n"))
}

fn configuration(schema: &Value) -> Result<String> {
    let example = fs::read_to_string(top("config.yaml"))?;
    let mut text = format!(
        "{GENERATED}# config.yaml\n\n{}\n\nHand the same file to every part that decides: `surefoot check`, `webhook` and `controller` \
         take `--config FILE`. The two that keep running read it again when it changes; a file that does not load changes \
         nothing there. `surefoot schema` prints a JSON schema of it for editors, with the policies' parameters in it.\n\n## By \
         example\n\n```yaml\n{}```\n\n## Every field\n",
        plain(&schema["description"]),
        example
    );
    let mut rows = Vec::new();
    let mut schema = schema.clone();
    // One policy stands for all: they differ in their parameters, which are in policies.md.
    let all = schema["properties"]["policies"]["properties"].take();
    let any = members(&all).next().map(|(_, any)| any.clone()).unwrap_or_default();
    schema["properties"]["policies"]["properties"] = serde_json::json!({"POLICY": without_parameters(any)});
    fields(&schema, "", &mut rows);
    text += &table(["field", "kind", ""], &rows);
    Ok(text)
}

fn without_parameters(mut policy: Value) -> Value {
    policy["description"] = "Settings of one policy.".into();
    for path in ["/properties", "/properties/overrides/items/properties"] {
        if let Some(parameters) = policy.pointer_mut(path).and_then(|found| found.get_mut("parameters")) {
            parameters["properties"] = Value::Null;
            parameters["description"] = "Values for its parameters, see policies.md.".into();
        }
    }
    policy
}

fn fields(schema: &Value, path: &str, rows: &mut Vec<[String; 3]>) {
    for (name, field) in members(&schema["properties"]) {
        let here = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let here = if field["type"] == "array" { format!("{here}[]") } else { here };
        let required = list(&schema["required"]).any(|one| one == name);
        let mut about = described(field);
        if let Some(value) = field.get("const") {
            about = format!("`{}`", plain(value));
        }
        if let Some(default) = field.get("default") {
            let _ = write!(about, " Default {}.", plain(default));
        }
        if required {
            about += " Required.";
        }
        rows.push([format!("`{here}`"), kind(field), about.trim().to_owned()]);
        let below = if field["type"] == "array" { &field["items"] } else { field };
        fields(below, &here, rows);
    }
}

fn kind(field: &Value) -> String {
    match field["type"].as_str() {
        Some("array") => "list".to_owned(),
        Some("object") => "mapping".to_owned(),
        Some("string") | None => "text".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some(other) => other.to_owned(),
    }
}

/// Blocks that begin with "```console" are run in a folder of their own for each document, in which files are made from
/// blocks whose first line is `# file: PATH`. Times are not compared.
fn transcripts() -> Result<()> {
    let mut commands = 0;
    for document in sorted(&top("docs"))?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let folder = tempfile::tempdir()?;
        for shared in ["policies", "demo"] {
            std::os::unix::fs::symlink(top(shared), folder.path().join(shared))?;
        }
        let text = fs::read_to_string(&document)?;
        for (language, block) in blocks(&text) {
            if let Some((path, contents)) = block.strip_prefix("# file: ").and_then(|rest| rest.split_once('\n')) {
                let path = folder.path().join(path.trim());
                fs::create_dir_all(path.parent().context("no folder")?)?;
                fs::write(path, contents)?;
            }
            if language == "console" {
                commands += run_block(block, folder.path(), &[], str::to_owned).with_context(|| named(&document))?;
            }
        }
    }
    println!("{commands} commands");
    ensure!(commands >= 8, "only {commands} commands in the documents");
    Ok(())
}

/// `compared`: what of a text has to be alike.
pub(crate) fn run_block(
    block: &str,
    folder: &Path,
    environment: &[(&str, OsString)],
    compared: impl Fn(&str) -> String,
) -> Result<usize> {
    let mut commands = 0;
    for part in format!("\n{block}").split("\n$ ").skip(1) {
        let (command, printed) = part.split_once('\n').unwrap_or((part, ""));
        let bin = Path::new(env!("CARGO_BIN_EXE_surefoot")).parent().context("no folder")?;
        let opa = rego_tools()?.path("opa");
        let opa = opa.parent().context("no folder")?;
        let path = format!("{}:{}:{}", bin.display(), opa.display(), std::env::var("PATH").unwrap_or_default());
        let run = Command::new("bash")
            .args(["-c", command])
            .current_dir(folder)
            .env("PATH", path)
            .envs(environment.iter().cloned())
            .output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        let (want, got) = (settled(&compared(printed)), settled(&compared(&said)));
        ensure!(want == got, "$ {command}\nthe document says:\n{want}\nprinted is:\n{got}");
        commands += 1;
    }
    Ok(commands)
}

/// Without what differs from run to run.
fn settled(text: &str) -> String {
    let times = Regex::new(r" +\d+(\.\d+)? m?s\b").map(|times| times.replace_all(text, " N ms").into_owned());
    let text = times.unwrap_or_else(|_| text.to_owned());
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// Fenced blocks with their language.
pub(crate) fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1
            && let Some((language, block)) = part.split_once('\n')
        {
            found.push((language.trim(), block));
        }
    }
    found
}

/// Every relative link in a document leads to a file of the project.
fn links() -> Result<()> {
    let link = Regex::new(r"\]\(([^)#:]+)(#[^)]*)?\)")?;
    let mut documents = sorted(&top("docs"))?;
    documents.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(top));
    let mut broken = BTreeSet::new();
    for document in documents {
        let text = fs::read_to_string(&document)?;
        let folder = document.parent().context("no folder")?;
        for found in link.captures_iter(&text) {
            if !folder.join(&found[1]).exists() {
                broken.insert(format!("{}: {}", named(&document), &found[1]));
            }
        }
    }
    ensure!(broken.is_empty(), "{}", Vec::from_iter(broken).join("\n"));
    Ok(())
}

fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("\n{}|{}\n", line(head.map(str::to_owned).to_vec()), "---|".repeat(N));
    for row in rows {
        text += &line(row.iter().map(|cell| cell.replace('|', "\\|")).collect());
    }
    text
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?;
    found.sort();
    Ok(found)
}

fn named(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn folded(value: &Value) -> String {
    plain(value).split_whitespace().collect::<Vec<_>>().join(" ")
}
