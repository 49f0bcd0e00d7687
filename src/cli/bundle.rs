//! `surefoot bundle`: a policy folder as one ConfigMap, once it has passed the gate and its own tests.
//!
//! A ConfigMap has no folders: its keys are names of files. So the folders of a policy's path become part of the name, with
//! two underscores for each slash, and a mounted ConfigMap is read back as the folder that it was made from.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use anyhow::{anyhow, bail, ensure};
use clap::Args;

use super::{
    Outcome, help,
    load::{self, Unusable},
};
use crate::{
    admission::{LoadErrors, Source},
    config::Config,
};

/// What the API server takes as the data of one ConfigMap.
const MAX_DATA: usize = 1 << 20;
/// What it takes as annotations; client-side apply keeps the whole manifest in one of them.
const MAX_APPLY: usize = 256 << 10;
const MAX_KEY: usize = 253;
/// Stands for `/` in the name of a key.
const SLASH: &str = "__";

/// Print a policy folder as one ConfigMap, for kubectl apply
///
/// The policies go through the gate and their own unit tests first, as they will in the webhook; if something is wrong,
/// nothing is printed. The same folder gives the same bytes. Unit tests are left out: they decide no verdict.
#[derive(Debug, Args)]
#[command(after_long_help = help::BUNDLE)]
pub(super) struct Bundle {
    /// The policy folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Configuration that the policies must fit
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the ConfigMap
    #[arg(long, default_value = "surefoot-policies")]
    name: String,
    /// Its namespace
    #[arg(short, long, default_value = "surefoot-system")]
    namespace: String,
    /// Take the unit tests too: the webhook then runs them whenever it loads the set
    #[arg(long)]
    with_tests: bool,
}

impl Bundle {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        for (what, name) in [("--name", &self.name), ("--namespace", &self.namespace)] {
            ensure!(is_dns_name(name), "{what} `{name}`: a name has lower-case letters, digits, `-` and `.`");
        }
        match self.manifest() {
            Ok(manifest) => {
                if manifest.len() > MAX_APPLY {
                    let kib = manifest.len() >> 10;
                    anstream::eprintln!(
                        "note: {kib} KiB are too much for kubectl apply; use kubectl apply --server-side -f -"
                    );
                }
                super::print(&manifest)?;
                Ok(Outcome::Fine)
            }
            Err(Unusable::Unread(error)) => Err(error),
            Err(Unusable::Wrong(errors)) => {
                errors.0.iter().for_each(|error| anstream::eprintln!("error: {error}"));
                Ok(Outcome::Failed)
            }
        }
    }

    fn manifest(&self) -> Result<String, Unusable> {
        let config = load::config(self.config.as_deref())?;
        load::tested_policies(Some(&self.dir), &config)?;
        let mut taken = load::read(&self.dir)?;
        if !self.with_tests {
            taken.retain(|source| !source.path.ends_with("_test.rego"));
            self.loads_without_tests(taken.clone(), &config)?;
        }
        let data = taken
            .into_iter()
            .map(|Source { path, text }| Ok((key(&path)?, text)))
            .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        let size: usize = data.iter().map(|(key, text)| key.len() + text.len()).sum();
        if size > MAX_DATA {
            let (key, text) = data.iter().max_by_key(|(_, text)| text.len()).unzip();
            let (key, largest) = (key.map_or("", String::as_str), text.map_or(0, String::len) >> 10);
            return Err(anyhow!(
                "{} KiB of policies do not fit into a ConfigMap, which holds 1024 KiB; the largest is {} with {largest} KiB",
                size >> 10,
                path(key),
            )
            .into());
        }
        Ok(config_map(&self.name, &self.namespace, &data))
    }

    /// What a policy takes from a file of tests it does not have in the cluster.
    fn loads_without_tests(&self, taken: Vec<Source>, config: &Config) -> Result<(), Unusable> {
        let Err(unusable) = load::of_sources(taken, Some(&self.dir), config) else { return Ok(()) };
        let Unusable::Wrong(LoadErrors(mut errors)) = unusable else { return Err(unusable) };
        for error in &mut errors {
            error.message +=
                "; files of tests (*_test.rego) are left out: move what policies need, or say --with-tests";
        }
        Err(LoadErrors(errors).into())
    }
}

/// The key of a file in a ConfigMap.
fn key(path: &str) -> anyhow::Result<String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    if let Some(c) = path.chars().find(|c| !is_allowed(*c)) {
        bail!("{path}: a ConfigMap has no keys with `{c}`; rename it with letters, digits, `-`, `_` and `.`");
    }
    for part in path.split('/') {
        let ambiguous = part.contains(SLASH) || part.starts_with('_') || part.ends_with('_');
        ensure!(!ambiguous, "{path}: two underscores stand for a slash in the keys of a ConfigMap; rename `{part}`");
    }
    let key = path.replace('/', SLASH);
    ensure!(key.len() <= MAX_KEY, "{path}: a key of a ConfigMap has at most {MAX_KEY} characters");
    Ok(key)
}

/// The file that a key of a ConfigMap was made from: what a mounted one is read as.
pub(super) fn path(key: &str) -> String {
    if key.contains('/') { key.to_owned() } else { key.replace(SLASH, "/") }
}

fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= MAX_KEY && name.split('.').all(is_label)
}

/// Made by hand, so that the policies stand in it as they were written and a diff of two bundles can be read.
fn config_map(name: &str, namespace: &str, data: &BTreeMap<String, String>) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels:\n    \
         app.kubernetes.io/name: surefoot\n    app.kubernetes.io/component: policies\ndata:\n"
    );
    for (key, text) in data {
        // Writing to a String cannot fail.
        let _ = write!(yaml, "  {key}: {}", scalar(text));
    }
    yaml
}

/// A text as YAML, indented to stand below `data`: as a block where that keeps every byte, else quoted.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| matches!(c, '\n' | '\t' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{10000}'..);
    let breaks = ['\u{2028}', '\u{2029}'];
    let begins = text.trim_start_matches('\n').starts_with([' ', '\t']) || text.starts_with('\n');
    let only_blanks = text.lines().any(|line| !line.is_empty() && line.trim().is_empty());
    if begins || only_blanks || text.contains(breaks) || text.is_empty() || !text.chars().all(is_plain) {
        // JSON text is YAML.
        return format!("{}\n", serde_json::Value::from(text));
    }
    let chomp = match text.trim_end_matches('\n').len() {
        kept if kept == text.len() => "-",
        kept if kept + 1 == text.len() => "",
        _ => "+",
    };
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let indented: String =
        lines.map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
    format!("|{chomp}\n{indented}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_as_its_path() {
        for (given, expected) in
            [("lib/lib.rego", "lib__lib.rego"), ("p.rego", "p.rego"), ("a/b-c/d_e.rego", "a__b-c__d_e.rego")]
        {
            let key = key(given).unwrap();
            assert_eq!((key.as_str(), path(&key).as_str()), (expected, given));
        }
        for (given, words) in
            [("a b.rego", "` `"), ("ä/b.rego", "`ä`"), ("a__b.rego", "a slash"), ("a_/b.rego", "`a_`")]
        {
            assert!(key(given).unwrap_err().to_string().contains(words), "{given}");
        }
        assert!(key(&"x".repeat(254)).is_err());
    }

    #[test]
    fn every_text_survives_yaml() {
        let texts = [
            "package a\n",
            "package a",
            "package a\n\n\n",
            "\npackage a\n",
            "\tx := 1\n",
            "a\r\nb\n",
            "a\n \nb\n",
            "a\n\t\nb\n",
            "a:  \n# ä € 🦀\n",
            "",
            "\n",
            "a\u{2028}b\n",
            "\u{feff}package a\n",
            "nul \0\n",
            "a \n",
            "---\n...\n",
        ];
        for text in texts {
            let data = BTreeMap::from([("k".to_owned(), text.to_owned()), ("z".to_owned(), "end\n".to_owned())]);
            let yaml = config_map("n", "ns", &data);
            let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!((read["data"]["k"].as_str(), read["data"]["z"].as_str()), (Some(text), Some("end\n")), "{yaml}");
        }
    }
}
