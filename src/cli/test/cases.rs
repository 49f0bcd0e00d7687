//! Cases: whole manifests below a folder for each policy, with the verdict that is wanted in their first line.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    admission::{Finding, Level, Policy, PolicySet},
    cli::{
        around::Around,
        judge::{Judge, Subject},
        source::{self, Manifests},
    },
    cluster::inventory::Held,
    config::yaml,
};

/// What one case gave.
#[derive(Debug)]
pub(super) struct Case {
    /// As the user would name it.
    pub(super) file: String,
    /// The folder that it lies in.
    pub(super) policy: String,
    /// `None`: as wanted.
    pub(super) failed: Option<String>,
    pub(super) took: Duration,
}

/// What lies in a folder of cases.
#[derive(Debug, Default)]
pub(super) struct Cases {
    /// With the folder of each, which is named after a policy.
    pub(super) files: Vec<(String, PathBuf)>,
    /// Beside the folders: of no policy.
    pub(super) loose: Vec<PathBuf>,
}

/// Case files below `folder`, by policy: *.yaml, *.yml and *.json, in its folder or below that.
///
/// # Errors
///
/// The folder cannot be read.
pub(super) fn find(folder: &Path) -> anyhow::Result<Cases> {
    let mut found = Cases::default();
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let mut files = Vec::new();
            walk(&path, &mut files)?;
            found.files.extend(files.into_iter().map(|file| (name.clone(), file)));
        } else if is_case(&path) {
            found.loose.push(path);
        }
    }
    Ok(found)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for path in entries(folder)? {
        // A link to a folder may lead round for ever.
        if path.is_dir() && !path.is_symlink() {
            walk(&path, files)?;
        } else if is_case(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn is_case(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|one| end.eq_ignore_ascii_case(one)))
}

/// Sorted; what is hidden is not meant.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = listed.with_context(|| format!("cannot read the cases in {}", folder.display()))?;
    let shown = listed.iter().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let mut paths: Vec<PathBuf> = shown.map(fs::DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

/// One sentence for each folder of cases that belongs to no policy of `set`, and one for files that lie in none.
pub(super) fn strays(found: &Cases, set: &PolicySet) -> Vec<String> {
    let known: Vec<&str> = set.policies().iter().map(|policy| policy.name.as_str()).collect();
    let folders: BTreeSet<&str> = found.files.iter().map(|(policy, _)| policy.as_str()).collect();
    let strays = folders.into_iter().filter(|folder| !known.contains(folder));
    let mut told: Vec<String> =
        strays.map(|folder| yaml::unknown("cases not run, there is no policy", folder, &known)).collect();
    let loose: Vec<_> = found.loose.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    if !loose.is_empty() {
        told.push(format!("cases not run, they lie in no folder that is named after a policy: {}", loose.join(", ")));
    }
    told
}

/// Judges the documents of `file`; what it finds of `policy` in the last one must be what the first line wants.
pub(super) fn run(judge: &Judge, policy: &Policy, file: &Path) -> Case {
    let started = Instant::now();
    let failed = holds(judge, policy, file).err().map(|error| format!("{error:#}"));
    Case { file: file.display().to_string(), policy: policy.name.clone(), failed, took: started.elapsed() }
}

fn holds(judge: &Judge, policy: &Policy, file: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(file).context("cannot be read")?;
    let text = String::from_utf8(bytes).ok().context("is no UTF-8; save it as UTF-8")?;
    let want = Want::parse(text.lines().next().unwrap_or_default())?;
    let mut found = source::read(&[file.to_owned()], &mut std::io::empty(), "default");
    let around = Around::new(&found, live(policy, &found)?);
    let subjects = if policy.judges_namespaces() {
        let namespaces = found.objects.iter().filter(|object| object.kind == "Namespace");
        namespaces.map(|namespace| Subject::whole(namespace.name(), &around, 0)).collect()
    } else {
        Subject::given(&mut found, &around)
    };
    if let Some(problem) = found.problems.first() {
        let place = problem.place.map(|place| format!("{}:{}: ", place.line, place.column)).unwrap_or_default();
        bail!("{place}{}", problem.message);
    }
    let what = if policy.judges_namespaces() { "Namespace" } else { "Deployment" };
    let last = subjects.last().with_context(|| format!("there is no {what} in it"))?;
    if let Some(other) = found.objects.last().filter(|it| !policy.judges_namespaces() && it.index != last.object.index)
    {
        bail!("what is judged is the last document, and that is a {}: put the Deployment last", other.kind);
    }
    if last.facts.guard.is_none() {
        bail!("it is never judged: surefoot leaves namespace {} alone", last.object.namespace());
    }
    let report = judge.all(&subjects);
    if let Some(failure) = report.failures.iter().find(|failure| failure.policy == policy.name) {
        bail!("the policy broke: {}:{}:{}: {}", failure.file, failure.line, failure.column, failure.message);
    }
    if report.skipped.iter().any(|skipped| skipped.policy == policy.name) {
        bail!("the policy needs the namespace: put a Namespace into the file");
    }
    // A namespace that nothing was found in is not in the report.
    let judged = report.judged.iter().rfind(|judged| Rc::ptr_eq(&judged.object, &last.object));
    want.compare(&policy.name, judged.map_or(&[], |judged| &judged.findings))
}

/// For a policy that needs what only a cluster knows, the case is all that there is in one: records (ConfigMaps, as
/// `kubectl get -o yaml` gives them) and what keeps the namespace apart from others are in the file or nowhere.
fn live(policy: &Policy, found: &Manifests) -> anyhow::Result<Option<Vec<Held>>> {
    if !policy.needs_a_cluster() {
        return Ok(None);
    }
    let names: BTreeSet<&str> = found
        .objects
        .iter()
        .map(|object| match object.kind.as_str() {
            "Namespace" => object.name(),
            _ => object.namespace(),
        })
        .collect();
    let held = names.into_iter().map(|name| Held::in_files(name, found.objects.iter().map(|object| &object.value)));
    Ok(Some(held.collect::<Result<_, _>>()?))
}

/// What the first line of a case asks for: `# want: deny CODE, CODE`, `# want: warn CODE`, `# want: allow`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Want {
    deny: BTreeSet<String>,
    warn: BTreeSet<String>,
}

impl Want {
    fn parse(line: &str) -> anyhow::Result<Self> {
        const FORMS: &str = "`# want: deny CODE`, `# want: warn CODE` or `# want: allow`";
        let Some(wanted) = line.trim_start_matches('\u{feff}').strip_prefix("# want:") else {
            bail!("1:1: the first line does not say what is wanted: {FORMS}");
        };
        let mut want = Self::default();
        let mut codes: Option<&mut BTreeSet<String>> = None;
        let (mut said, mut awaited) = (false, false);
        let words: Vec<&str> = wanted.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
        if words.contains(&"allow") && words.iter().any(|word| ["deny", "warn"].contains(word)) {
            bail!("1:1: what is allowed is not denied nor warned of: {FORMS}");
        }
        for word in words {
            match (word, &mut codes) {
                ("deny", _) => (codes, awaited) = (Some(&mut want.deny), true),
                ("warn", _) => (codes, awaited) = (Some(&mut want.warn), true),
                ("allow", _) => {}
                (code, Some(codes)) => {
                    codes.insert(code.to_owned());
                    awaited = false;
                }
                (word, None) => bail!("1:1: `{word}` is no word of a want line: {FORMS}"),
            }
            said = true;
        }
        ensure!(said && !awaited, "1:1: the first line does not say what is wanted: {FORMS}");
        Ok(want)
    }

    /// Denials and warnings of the policy must be those that are wanted, and no others.
    fn compare(&self, policy: &str, findings: &[Finding]) -> anyhow::Result<()> {
        let found = |level: Level| -> BTreeSet<String> {
            let findings = findings.iter().filter(|it| it.level == level && it.policy == policy);
            findings.map(|finding| finding.code.to_string()).collect()
        };
        if let Some(invalid) = findings.iter().find(|finding| finding.policy == "kubernetes") {
            bail!("Kubernetes would refuse it: {}", invalid.message);
        }
        let (denied, warned) = (found(Level::Deny), found(Level::Warn));
        let told = |codes: &BTreeSet<String>| {
            let names: Vec<String> = codes.iter().map(|code| format!("{policy}/{code}")).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        ensure!(denied == self.deny, "want denials: {}; got: {}", told(&self.deny), told(&denied));
        ensure!(warned == self.warn, "want warnings: {}; got: {}", told(&self.warn), told(&warned));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_what_is_wanted() {
        let rows = [
            ("# want: deny a, b", Ok((vec!["a", "b"], vec![]))),
            ("# want: deny a; warn b", Ok((vec!["a"], vec!["b"]))),
            ("# want: allow", Ok((vec![], vec![]))),
            ("# want: warn b", Ok((vec![], vec!["b"]))),
            ("# want: deny", Err("does not say")),
            ("# want:", Err("does not say")),
            ("apiVersion: apps/v1", Err("does not say")),
            ("", Err("does not say")),
            ("# want: denied a", Err("`denied` is no word")),
            ("# want: allow a", Err("`a` is no word")),
            ("# want: deny a allow", Err("is not denied")),
            ("# want: allow; warn a", Err("is not denied")),
        ];
        for (line, expected) in rows {
            match (Want::parse(line), expected) {
                (Ok(want), Ok((deny, warn))) => {
                    assert!(want.deny.iter().eq(&deny) && want.warn.iter().eq(&warn), "{line}: {want:?}");
                }
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{line}: {error}"),
                (got, _) => panic!("{line}: {got:?}"),
            }
        }
    }
}
