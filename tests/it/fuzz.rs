//! What `make fuzz` looks for, on what is known: the same functions, given the seeds, every input that was once found, and
//! the manifests, reviews and policies that are here anyway. Each also cut short and with a byte changed.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;

use crate::trial;

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library of its own for the fuzzer")]
mod targets;

use targets::{TARGETS, Target};

pub(crate) fn trials() -> Vec<Trial> {
    let each = TARGETS.into_iter().map(|target| trial(&format!("fuzz::{}", target.0), move || replay(target)));
    each.collect()
}

/// Changed versions of each input; the search for more is `make fuzz`.
const CHANGES: usize = 4;

fn replay((name, function): Target) -> anyhow::Result<()> {
    let mut inputs = Vec::new();
    for folder in folders(name)? {
        collect(&top().join(folder), &mut inputs)?;
    }
    inputs.sort();
    let seeds = inputs.iter().filter(|path| path.starts_with(top().join("fuzz/seeds"))).count();
    ensure!(seeds > 0, "fuzz/seeds/{name} is empty");
    let mut given = 0;
    for path in &inputs {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        for (which, input) in versions(&bytes).into_iter().enumerate() {
            let done = panic::catch_unwind(AssertUnwindSafe(|| function(&input)));
            ensure!(done.is_ok(), "{name} broke on version {which} of {}", path.display());
            given += 1;
        }
    }
    println!("fuzz::{name}: {given} inputs from {} files, {seeds} of them seeds", inputs.len());
    Ok(())
}

/// The input itself, then with a stretch left out or a byte changed, at places that depend on nothing but its length.
fn versions(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut versions = vec![bytes.to_vec()];
    for change in 1..=CHANGES.min(bytes.len()) {
        let at = bytes.len() * change / (CHANGES + 1);
        let mut version = bytes.to_vec();
        match change % 2 {
            0 => version[at] ^= 1 << (change % 7),
            _ => drop(version.drain(at..(at + change * 7).min(bytes.len()))),
        }
        versions.push(version);
    }
    versions
}

/// Where the inputs of a target lie.
fn folders(target: &str) -> anyhow::Result<Vec<String>> {
    let inputs = fs::read_to_string(top().join("fuzz/inputs"))?;
    let mut lines = inputs.lines().map(|line| line.split(' '));
    let mut named = lines.find(|words| words.clone().next() == Some(target)).context("fuzz/inputs does not name it")?;
    named.next();
    Ok(named.map(str::to_owned).chain([format!("fuzz/seeds/{target}")]).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
