//! The house rules that no lint can hold: who may import whom, that the pure rooms are fenced, and that nothing secret
//! or private to one machine is committed. ARCHITECTURE.md says why.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::{Failed, Trial};
use surefoot::{
    admission::{PolicySet, Source, run_tests},
    config::Config,
};

/// The rooms of the library, in reading order, and the rooms that each may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("template", &[]),
    ("config", &["template"]),
    ("admission", &["template", "config"]),
    ("rollout", &["template", "config"]),
    ("certificates", &[]),
    ("telemetry", &["config"]),
    ("cluster", &["template", "config", "admission", "rollout", "telemetry"]),
    ("webhook", &["template", "config", "admission", "rollout", "telemetry", "cluster"]),
    ("controller", &["template", "config", "admission", "rollout", "certificates", "telemetry", "cluster"]),
    (
        "cli",
        &[
            "template",
            "config",
            "admission",
            "rollout",
            "certificates",
            "telemetry",
            "cluster",
            "webhook",
            "controller",
        ],
    ),
];

/// Values in, values out.
const PURE: &[&str] = &["template", "config", "admission", "rollout", "certificates"];

/// What a pure room does not even name.
const IMPURE: &[&str] =
    &["tokio", "tracing", "kube", "hyper", "axum", "std::fs", "std::env", "std::net", "std::process"];

const FENCE: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("house::import_directions", import_directions),
        Trial::test("house::pure_rooms_are_fenced", pure_rooms_are_fenced),
        Trial::test("house::nothing_private_is_committed", nothing_private_is_committed),
        Trial::test("house::what_is_made_in_certs_is_not_committed", what_is_made_in_certs_is_not_committed),
        Trial::test("house::the_example_configuration_loads", the_example_configuration_loads),
        Trial::test("house::the_policy_in_the_readme_loads", the_policy_in_the_readme_loads),
        Trial::test("house::the_reader_of_imports_reads", the_reader_of_imports_reads),
    ]
}

fn import_directions() -> Result<(), Failed> {
    let mut broken = Vec::new();
    for (room, allowed) in ROOMS {
        for file in files_of(room)? {
            let text = fs::read_to_string(&file)?;
            for import in rooms_named(&text, &module_path(&file)) {
                let known = ROOMS.iter().any(|(name, _)| *name == import);
                if known && import != *room && !allowed.contains(&import.as_str()) {
                    broken.push(format!("{}: {room} must not import {import}", shown(&file)));
                }
            }
            let impure = |crate_name: &&&str| PURE.contains(room) && names(&text, crate_name);
            broken.extend(
                IMPURE.iter().filter(impure).map(|name| format!("{}: {room} is pure, no {name}", shown(&file))),
            );
        }
    }
    none(broken)
}

fn pure_rooms_are_fenced() -> Result<(), Failed> {
    let fenced = |room: &&&str| {
        let root = [format!("src/{room}.rs"), format!("src/{room}/mod.rs")];
        root.iter().any(|file| fs::read_to_string(top().join(file)).is_ok_and(|text| text.contains(FENCE)))
    };
    none(PURE.iter().filter(|room| !fenced(room)).map(|room| format!("src/{room}: lacks {FENCE}")).collect())
}

fn nothing_private_is_committed() -> Result<(), Failed> {
    // In pieces, so that this file does not find itself.
    let paths = [["/ro", "ot/"], ["/wo", "rk/"], ["/tmp", "/wt"], ["/ho", "me/"]].map(|pieces| pieces.concat());
    let is_key = |line: &str| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY");
    let mut broken = Vec::new();
    for file in tracked()? {
        // Binary files are none of ours to search.
        let Ok(text) = fs::read_to_string(top().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let found = paths.iter().find(|path| line.contains(path.as_str())).map(String::as_str);
            if let Some(found) = found.or(is_key(line).then_some("a private key")) {
                broken.push(format!("{file}:{}: holds {found}", number + 1));
            }
        }
    }
    none(broken)
}

fn what_is_made_in_certs_is_not_committed() -> Result<(), Failed> {
    let tracked: Vec<_> = tracked()?.into_iter().filter(|file| file.starts_with("certs/")).collect();
    let others = tracked.iter().filter(|file| !["certs/.gitignore", "certs/README.md"].contains(&file.as_str()));
    let mut broken: Vec<String> = others.map(|file| format!("{file}: is committed")).collect();
    for file in ["certs/ca.crt", "certs/tls.crt", "certs/tls.key"] {
        let ignored = Command::new("git").args(["check-ignore", "-q", file]).current_dir(top()).status()?;
        broken.extend((!ignored.success()).then(|| format!("{file}: would be committed")));
    }
    none(broken)
}

fn the_example_configuration_loads() -> Result<(), Failed> {
    let text = fs::read_to_string(top().join("config.yaml"))?;
    let config = Config::parse(&text, "config.yaml").map_err(|error| error.to_string())?;
    PolicySet::load(PolicySet::built_in_sources(), &config).map_err(|errors| errors.to_string())?;
    if config.policies.is_empty() || config.exemptions.is_empty() { Err("it shows too little".into()) } else { Ok(()) }
}

fn the_policy_in_the_readme_loads() -> Result<(), Failed> {
    let readme = fs::read_to_string(top().join("README.md"))?;
    let text =
        readme.split("```rego\n").nth(1).and_then(|rest| rest.split("```").next()).ok_or("it shows no policy")?;
    let mut sources = vec![Source { path: "owner/policy.rego".to_owned(), text: text.to_owned() }];
    PolicySet::load(sources.clone(), &Config::default()).map_err(|errors| errors.to_string())?;
    let test = "package surefoot.owner_test\nimport data.surefoot.owner\n\
        test_denies if count(owner.deny) == 1 with input as {\"request\": {\"object\": {\"metadata\": {}}}}\n\
        test_allows if count(owner.deny) == 0 with input as {\"request\": {\"object\": {\"metadata\": \
        {\"annotations\": {\"example.com/owner\": \"x\"}}}}}\n";
    sources.push(Source { path: "owner/policy_test.rego".to_owned(), text: test.to_owned() });
    let outcomes = run_tests(&sources).map_err(|errors| errors.to_string())?;
    if outcomes.len() != 2 {
        return Err(format!("{outcomes:?}").into());
    }
    none(outcomes.into_iter().filter_map(|outcome| outcome.failed).collect())
}

/// The test of this test.
fn the_reader_of_imports_reads() -> Result<(), Failed> {
    let cases: [(&str, &[&str]); 7] = [
        ("use crate::webhook::server;", &["webhook"]),
        ("use crate::{cli::{self, report}, config::Guard};", &["cli", "config"]),
        ("use crate::{\n    admission::Finding,\n    template::{Json, json},\n};", &["admission", "template"]),
        ("fn f(x: crate::rollout::Record) {}", &["rollout"]),
        ("// use crate::webhook::server;\n/// [`crate::cli`]", &[]),
        ("use super::super::controller::lease;", &["controller"]),
        ("use super::lease;", &[]),
    ];
    let module = ["admission".to_owned(), "engine".to_owned()];
    none(
        cases
            .iter()
            .map(|(text, expected)| (text, expected, rooms_named(text, &module)))
            .filter(|(_, expected, found)| !found.iter().eq(expected.iter()))
            .map(|(text, expected, found)| format!("{text}: found {found:?}, not {expected:?}"))
            .collect(),
    )
}

/// First steps of all paths from the crate's root that `text` names, comments left out.
fn rooms_named(text: &str, module: &[String]) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let to_root = "super::".repeat(module.len());
    let mut found = BTreeSet::new();
    for start in ["crate::", &to_root] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(members(group)),
                None => found.extend(word(rest)),
            }
        }
    }
    found
}

/// The first words of the members of `{…}`, the opening brace already read.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (1, 0, Vec::new());
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && sign == ',') {
            found.extend(word(group[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Does code of `text` name the path `name` as a whole?
fn names(text: &str, name: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.match_indices(name).map(move |(at, _)| (line, at))).any(|(line, at)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        !before.is_some_and(|sign| sign.is_alphanumeric() || "_:\"`./-".contains(sign))
            && (after.starts_with("::") || after.starts_with(';'))
    })
}

/// `src/admission/engine.rs` → `[admission, engine]`; `mod.rs` stands for its folder.
fn module_path(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(top().join("src")).unwrap_or(file).with_extension("");
    let steps = inside.iter().map(|step| step.to_string_lossy().into_owned());
    steps.filter(|step| step != "mod").collect()
}

/// All Rust files of a room; a room without any is a mistake in the table.
fn files_of(room: &str) -> Result<Vec<PathBuf>, Failed> {
    let src = top().join("src");
    let mut files = Vec::new();
    let mut folders = vec![src.join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files.extend([src.join(format!("{room}.rs"))].into_iter().filter(|file| file.exists()));
    if files.is_empty() { Err(format!("no room {room} below src/").into()) } else { Ok(files) }
}

/// What git tracks, or would with the next `git add`.
fn tracked() -> Result<Vec<String>, Failed> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .map_err(|error| format!("git ls-files: {error}; this test reads what git tracks"))?;
    if !listed.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr)).into());
    }
    Ok(String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect())
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(top()).unwrap_or(file).display().to_string()
}

fn none(broken: Vec<String>) -> Result<(), Failed> {
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n").into()) }
}
