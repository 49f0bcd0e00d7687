//! `surefoot new`: a policy that works, to be changed into the one that is wanted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{Outcome, help, test};

/// Begin a policy: Rego, unit tests and cases that pass
///
/// Writes DIR/NAME/policy.rego and policy_test.rego, and tests/cases/NAME/deny.yaml and allow.yaml beside DIR. The policy
/// asks for an annotation; change it into what you want, with `surefoot test --watch` in another window.
#[derive(Debug, Args)]
#[command(after_long_help = help::NEW)]
pub(super) struct New {
    /// Its name: lower-case letters, digits and single dashes, e.g. gpu-quota
    name: String,
    /// The policy folder
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// Folder of cases [default: tests/cases beside the policy folder]
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
}

/// Words that no package may have as a name, and names that mean something else here.
const TAKEN: [&str; 22] = [
    "as",
    "contains",
    "data",
    "default",
    "else",
    "every",
    "false",
    "if",
    "import",
    "in",
    "input",
    "not",
    "null",
    "package",
    "some",
    "true",
    "with",
    "lib",
    "kubernetes",
    "quarantine",
    "surefoot",
    "test",
];
const MAX_NAME: usize = 40;

impl New {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let name = self.name.as_str();
        check(name)?;
        let policy = self.policies.join(name);
        let cases = self.cases.unwrap_or_else(|| test::beside(&self.policies).join("tests/cases")).join(name);
        for folder in [&policy, &cases] {
            ensure!(!folder.exists(), "{} is there already; choose another name, or remove it", folder.display());
        }
        let files = [
            (policy.join("policy.rego"), POLICY, "what is refused, and why"),
            (policy.join("policy_test.rego"), TEST, "its unit tests"),
            (cases.join("deny.yaml"), DENY, "a manifest that it refuses"),
            (cases.join("allow.yaml"), ALLOW, "one that it lets through"),
        ];
        let width = files.iter().map(|(file, ..)| file.display().to_string().chars().count()).max().unwrap_or(0);
        let mut told = String::new();
        for (file, text, what) in &files {
            write(file, &text.replace("PACKAGE", &name.replace('-', "_")))?;
            told.push_str(&format!("{:width$}   {what}\n", file.display().to_string()));
        }
        let (policies, deny) = (self.policies.display(), cases.join("deny.yaml"));
        let next = format!(
            "next: surefoot test {policies} --watch\n      surefoot check --policies {policies} {}\n",
            deny.display()
        );
        super::print(&(told + &next))?;
        Ok(Outcome::Fine)
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// A name is a folder, a package (with underscores) and a word in messages.
fn check(name: &str) -> anyhow::Result<()> {
    let good = suggestion(name);
    if TAKEN.contains(&name) {
        bail!("`{name}` cannot be the name of a policy, it means something else here; try `{good}`");
    }
    if name.ends_with("-test") {
        bail!("`{name}` cannot be the name of a policy, packages that end in _test hold tests; try `{good}`");
    }
    if name != good {
        bail!(
            "`{name}` cannot be the name of a policy: it takes lower-case letters, digits and single dashes, begins with a \
             letter and has at most {MAX_NAME} characters; try `{good}`"
        );
    }
    Ok(())
}

/// The good name that is nearest; a good one itself.
fn suggestion(name: &str) -> String {
    let mut good = String::new();
    let mut small_before = false;
    for c in name.chars() {
        match c {
            'a'..='z' | '0'..='9' => good.push(c),
            'A'..='Z' => {
                if small_before {
                    good.push('-');
                }
                good.push(c.to_ascii_lowercase());
            }
            _ if good.is_empty() || good.ends_with('-') => {}
            _ => good.push('-'),
        }
        small_before = c.is_ascii_lowercase();
    }
    let good = good.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let good: String = good.chars().take(MAX_NAME).collect();
    let mut good = good.trim_end_matches('-');
    while let Some(short) = good.strip_suffix("-test") {
        good = short;
    }
    match good {
        "" => "my-policy".to_owned(),
        taken if TAKEN.contains(&taken) => format!("{taken}-rule"),
        good => good.to_owned(),
    }
}

const POLICY: &str = r#"# METADATA
# title: Deployments name their owner
# description: |
#   Nobody is paged when a model without an owner fails.
# custom:
#   action: Deny
#   parameters:
#     annotation: {description: the annotation that names the owner}
#   codes:
#     no-owner: The annotation is missing or empty.
package surefoot.PACKAGE

# What the configuration does not set.
params := object.union({"annotation": "example.com/owner"}, object.get(input, "parameters", {}))

deny contains {
	"code": "no-owner",
	"msg": sprintf("no annotation %s, so nobody is paged when this model fails", [params.annotation]),
	"path": "/metadata/annotations",
	"fix": sprintf("annotations: {%s: YOUR-TEAM}", [params.annotation]),
} if {
	annotations := object.get(input.request.object.metadata, "annotations", {})
	object.get(annotations, params.annotation, "") == ""
}
"#;

const TEST: &str = r#"package surefoot.PACKAGE_test

import data.surefoot.PACKAGE as policy

test_no_owner_is_refused if {
	codes == {"no-owner"} with input as review({})
	codes == {"no-owner"} with input as review({"example.com/owner": ""})
}

test_an_owner_is_enough if {
	codes == set() with input as review({"example.com/owner": "churn-team"})
}

test_the_annotation_can_be_chosen if {
	other := object.union(review({"team": "churn"}), {"parameters": {"annotation": "team"}})
	codes == set() with input as other
}

codes := {finding.code | some finding in policy.deny}

# What the webhook is asked about a Deployment with these annotations.
review(annotations) := {"request": {
	"operation": "CREATE",
	"object": {"metadata": {"name": "churn", "namespace": "shop", "annotations": annotations}},
}}
"#;

const DENY: &str = "# want: deny no-owner
apiVersion: apps/v1
kind: Deployment
metadata:
  name: churn
  namespace: shop
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: churn}
  template:
    metadata:
      labels: {app.kubernetes.io/name: churn}
    spec:
      containers:
      - name: model
        image: registry.local/churn:1.0.0
";

const ALLOW: &str = "# want: allow
apiVersion: apps/v1
kind: Deployment
metadata:
  name: churn
  namespace: shop
  annotations: {example.com/owner: churn-team}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: churn}
  template:
    metadata:
      labels: {app.kubernetes.io/name: churn}
    spec:
      containers:
      - name: model
        image: registry.local/churn:1.0.0
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_name_gets_a_good_one() {
        let rows = [
            ("GpuQuota", "gpu-quota"),
            ("gpu_quota", "gpu-quota"),
            ("gpu--quota", "gpu-quota"),
            ("-gpu", "gpu"),
            ("gpu-", "gpu"),
            ("4gpu", "gpu"),
            ("../gpu", "gpu"),
            ("gpu quota!", "gpu-quota"),
            ("gpu-test", "gpu"),
            ("lib", "lib-rule"),
            ("input", "input-rule"),
            ("", "my-policy"),
            ("ä", "my-policy"),
            ("-test", "test-rule"),
        ];
        for (bad, good) in rows {
            let told = check(bad).unwrap_err().to_string();
            assert!(told.ends_with(&format!("try `{good}`")), "{bad}: {told}");
            check(good).unwrap();
        }
        let long = "x".repeat(41);
        assert!(check(&long).is_err() && check(&long[..40]).is_ok());
        for good in ["gpu-quota", "a", "a1-b2"] {
            check(good).unwrap();
        }
    }
}
