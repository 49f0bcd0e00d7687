//! Configuration and policies from files, for every command that takes `--config` and `--policies`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    admission::{LoadErrors, PolicySet, Source},
    config::Config,
};

/// More than any policy is long: what is larger was given by mistake.
const MAX_POLICY: u64 = 1 << 20;

/// Why there is no policy set, or no configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// A file or folder could not be read.
    #[error("{0:#}")]
    Unread(#[from] anyhow::Error),
    /// What is in it does not load: each error with file (as the user would name it), line and column.
    #[error(transparent)]
    Wrong(#[from] LoadErrors),
}

/// The configuration in `file`; without one, the defaults.
pub(super) fn config(file: Option<&Path>) -> Result<Config, Unusable> {
    let Some(file) = file else { return Ok(Config::default()) };
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the configuration {name}"))?;
    Config::parse(&text, &name).map_err(|error| LoadErrors(vec![error]).into())
}

/// The policies in `dir`; without one, those that are compiled in. Every mistake is in the error, with its place.
pub(super) fn policies(dir: Option<&Path>, config: &Config) -> Result<PolicySet, Unusable> {
    let sources = match dir {
        Some(dir) => read(dir)?,
        // Their tests have passed before this program was built.
        None => {
            PolicySet::built_in_sources().into_iter().filter(|source| !source.path.ends_with("_test.rego")).collect()
        }
    };
    let names: Vec<String> = sources.iter().map(|source| source.path.clone()).collect();
    PolicySet::load(sources, config).map_err(|LoadErrors(mut errors)| {
        for error in errors.iter_mut().filter(|error| names.contains(&error.file)) {
            error.file = shown(dir, &error.file);
        }
        LoadErrors(errors).into()
    })
}

/// A policy file as the user would name it; those that are compiled in lie below `policies/` in the sources.
pub(super) fn shown(dir: Option<&Path>, file: &str) -> String {
    dir.unwrap_or(Path::new("policies")).join(file).display().to_string()
}

/// All Rego files in a folder and below, sorted, so that the set is the same wherever it is read.
fn read(dir: &Path) -> anyhow::Result<Vec<Source>> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
    anyhow::ensure!(!files.is_empty(), "no policies in {}: no file there or below ends in .rego", dir.display());
    let source = |file: PathBuf| {
        let name = file.display().to_string();
        let size = fs::metadata(&file).with_context(|| format!("cannot read the policy {name}"))?.len();
        anyhow::ensure!(size <= MAX_POLICY, "the policy {name} is larger than {} MiB", MAX_POLICY >> 20);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read the policy {name}"))?;
        let path = file.strip_prefix(dir).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        Ok(Source { path, text })
    };
    files.into_iter().map(source).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let listed = fs::read_dir(dir).with_context(|| format!("cannot read the policy folder {}", dir.display()))?;
    for entry in listed {
        let path = entry.with_context(|| format!("cannot read the policy folder {}", dir.display()))?.path();
        // Hidden ones are not meant: a mounted ConfigMap keeps its generations in `..data` and `..2026_…`.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rego") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_sorted_and_without_what_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["probes/policy.rego", "lib/lib.rego", "..data/probes/policy.rego", "README.md", ".git/x.rego"] {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "package x").unwrap();
        }
        let found: Vec<_> = read(dir.path()).unwrap().into_iter().map(|source| source.path).collect();
        assert_eq!(found, ["lib/lib.rego", "probes/policy.rego"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        for (what, error) in [
            ("no folder", read(&none).unwrap_err()),
            ("no policies", read(dir.path()).unwrap_err()),
            ("no config", config(Some(&none)).unwrap_err().into()),
        ] {
            let text = format!("{error:#}");
            assert!(text.contains(&dir.path().display().to_string()), "{what}: {text}");
        }
    }
}
