//! Configuration and policies from files, for every command that takes `--config` and `--policies`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};

use super::{bundle, given_up};
use crate::{
    admission::{LoadError, LoadErrors, PolicySet, Source},
    config::{Config, ConfigError, yaml::Position},
};

/// More than any policy or configuration is long: what is larger was given by mistake.
const MAX_FILE: u64 = 1 << 20;

/// More than any set has: whoever gives a folder with more means another one.
const MAX_ENTRIES: usize = 10_000;

/// One question is not answered for longer than this: four times what a test may take.
pub(super) const STUCK: Duration = Duration::from_secs(20);

/// Why there is no policy set, or no configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// A file or folder could not be read. All causes are in its words, so it has no source that would say them again.
    #[error("{0:#}")]
    Unread(anyhow::Error),
    /// What is in it does not load: each error with file (as the user would name it), line and column.
    #[error(transparent)]
    Wrong(#[from] LoadErrors),
}

impl From<anyhow::Error> for Unusable {
    fn from(error: anyhow::Error) -> Self {
        Self::Unread(error)
    }
}

/// The configuration in `file`; without one, the defaults.
pub(super) fn config(file: Option<&Path>) -> Result<Config, Unusable> {
    let Some(file) = file else { return Ok(Config::default()) };
    let parsed = text("configuration", file).and_then(|text| Config::parse(&text, &file.display().to_string()));
    parsed.map_err(|error| LoadErrors(vec![error]).into())
}

/// The policies in `dir`; without one, those that are compiled in. Every mistake is in the error, with its place.
pub(super) fn policies(dir: Option<&Path>, config: &Config) -> Result<PolicySet, Unusable> {
    of_sources(sources(dir)?, dir, config)
}

/// The policies in `sources`, which were read from `dir`.
pub(super) fn of_sources(sources: Vec<Source>, dir: Option<&Path>, config: &Config) -> Result<PolicySet, Unusable> {
    let names: Vec<String> = sources.iter().map(|source| source.path.clone()).collect();
    PolicySet::load(sources, config).map_err(|errors| as_named_by_the_user(errors, dir, &names))
}

/// The same, and its own tests pass: for whoever enforces it. Those of the compiled-in set did before this program was
/// built. It ends, whatever is in them.
pub(super) fn tested_policies(dir: Option<&Path>, config: &Config) -> Result<PolicySet, Unusable> {
    let sources = sources(dir)?;
    let names: Vec<String> = sources.iter().map(|source| source.path.clone()).collect();
    let config = config.clone();
    let loaded = given_up::unless_stuck(STUCK, move |watch| PolicySet::load_tested(sources, &config, watch));
    let where_ = || format!("{} not loaded", dir.unwrap_or(Path::new("policies")).display());
    loaded.with_context(where_).map_err(Unusable::Unread)?.map_err(|errors| as_named_by_the_user(errors, dir, &names))
}

fn sources(dir: Option<&Path>) -> Result<Vec<Source>, Unusable> {
    let built_in = || PolicySet::built_in_sources().into_iter().filter(|source| !source.path.ends_with("_test.rego"));
    dir.map_or_else(|| Ok(built_in().collect()), read)
}

fn as_named_by_the_user(LoadErrors(mut errors): LoadErrors, dir: Option<&Path>, names: &[String]) -> Unusable {
    for error in errors.iter_mut().filter(|error| names.contains(&error.file)) {
        error.file = shown(dir, &error.file);
        // The other file of two with the same package.
        let other = names.iter().find_map(|name| Some((error.message.strip_suffix(name.as_str())?, name)));
        if let Some((head, name)) = other.filter(|(head, _)| head.ends_with(" is already in ")) {
            error.message = format!("{head}{}", shown(dir, name));
        }
    }
    LoadErrors(errors).into()
}

/// A policy file as the user would name it; those that are compiled in lie below `policies/` in the sources.
pub(super) fn shown(dir: Option<&Path>, file: &str) -> String {
    dir.unwrap_or(Path::new("policies")).join(file).display().to_string()
}

/// All Rego files in a folder and below, sorted, so that the set is the same wherever it is read. What cannot be read is
/// said of all files at once.
pub(super) fn read(dir: &Path) -> Result<Vec<Source>, Unusable> {
    let files = files(dir)?;
    if files.is_empty() {
        return Err(anyhow!("no policies in {}: no file there or below ends in .rego", dir.display()).into());
    }
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        match text("policy", &file) {
            Ok(text) => {
                // OPA takes a file that begins with the mark of its encoding, as some editors write it.
                let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
                let path = file.strip_prefix(dir).unwrap_or(&file).to_string_lossy().replace('\\', "/");
                sources.push(Source { path: bundle::path(&path), text });
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(sources) } else { Err(LoadErrors(errors).into()) }
}

/// The paths of all Rego files in a folder and below, sorted.
pub(super) fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if dir.is_file() {
        bail!("{} is a file: give the folder that the policies lie in", dir.display());
    }
    let mut found = Vec::new();
    collect(dir, &mut Vec::new(), &mut 0, &mut found)?;
    found.sort();
    Ok(found)
}

/// `above` are the folders that lead here: a link to one of them would lead round for ever.
fn collect(dir: &Path, above: &mut Vec<PathBuf>, seen: &mut usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let cannot = || format!("cannot read the policy folder {}", dir.display());
    let real = dir.canonicalize().with_context(cannot)?;
    if above.contains(&real) {
        bail!("{} leads back to {}: remove that link", dir.display(), real.display());
    }
    above.push(real);
    for entry in fs::read_dir(dir).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        *seen += 1;
        if *seen > MAX_ENTRIES {
            bail!("more than {MAX_ENTRIES} files up to {}: is this the folder that you mean?", path.display());
        }
        // Hidden ones are not meant: a mounted ConfigMap keeps its generations in `..data` and `..2026_…`.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            collect(&path, above, seen, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rego") {
            files.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// The text of a file; opening anything but a plain one might never return.
fn text(what: &str, file: &Path) -> Result<String, LoadError> {
    let name = file.display().to_string();
    let wrong = |message: String| ConfigError::new(&name, "", Position::default(), message);
    let unread = |error: std::io::Error| wrong(format!("cannot read this {what}: {error}"));
    let about = fs::metadata(file).map_err(unread)?;
    if !about.is_file() {
        return Err(wrong(format!("this is no plain file; a {what} is one, or a link to one")));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    fs::File::open(file).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(unread)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong(format!("larger than {} MiB, which no {what} is", MAX_FILE >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let at = Position { line: u32::try_from(line).unwrap_or(0), column: u32::try_from(column).unwrap_or(0) };
        ConfigError::new(&name, &good, at, "a byte that is no UTF-8; save the file as UTF-8")
    })
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
            ("no config", config(Some(&none)).unwrap_err()),
        ] {
            let text = error.to_string();
            assert!(text.contains(&dir.path().display().to_string()), "{what}: {text}");
        }
    }

    #[test]
    fn what_is_no_policy_is_named_whatever_else_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.rego"), "package surefoot.a\n\t# \u{e4}\u{e4} ").unwrap();
        fs::write(path("b.rego"), b"package surefoot.b\n\t# \xc3\xa4\xff").unwrap();
        fs::write(path("c.rego"), vec![b' '; (MAX_FILE + 1) as usize]).unwrap();
        std::os::unix::fs::symlink(path("none"), path("d.rego")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("e.rego"), rustix::fs::Mode::RUSR).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("f.rego")).unwrap();
        let Err(Unusable::Wrong(LoadErrors(errors))) = read(dir.path()) else { panic!("it was read") };
        let told: Vec<_> = errors.iter().map(|error| format!("{error}")).collect();
        for (told, (file, says)) in told.iter().zip([
            ("b.rego:2:5: ", "no UTF-8"),
            ("c.rego: ", "larger than 1 MiB"),
            ("d.rego: ", "No such file"),
            ("e.rego: ", "no plain file"),
            ("f.rego: ", "no plain file"),
        ]) {
            assert!(told.starts_with(&dir.path().join(file).display().to_string()) && told.contains(says), "{told}");
        }
        assert_eq!(told.len(), 5);
        std::os::unix::fs::symlink(dir.path(), path("again")).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("again leads back to"));
    }
}
