//! `surefoot check`: the verdicts of the cluster, on files.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    ClusterArgs, Outcome,
    around::Around,
    baseline, help,
    judge::{Aside, Judge, Subject},
    live::{self, Cluster},
    load::{self, Unusable},
    report::{self, Report},
    source::{self, File, Manifests, Passed, Problem},
};
use crate::{
    cluster::inventory::{Guarding, Held},
    config::yaml,
};

/// What goes together: the line that would be made from the arguments offers in one breath what excludes each other.
const USAGE: &str = "surefoot check [OPTIONS] FILE|DIR|-...
       surefoot check [OPTIONS] --cluster [-n NAMESPACE | -A]
       surefoot check [OPTIONS] --cluster [-n NAMESPACE] FILE|DIR|-...";

/// Judge manifests, recorded reviews or a live cluster: the same verdicts as at kubectl apply
///
/// Reads YAML and JSON, several documents to a file, and the items of a List; of a folder, every *.yaml, *.yml and *.json
/// in it and below. Deployments are judged, other kinds are passed over. So is what lies in a folder and holds no
/// Kubernetes object (it is counted, -o json names it) and what is a template (it is told); a file that is named must
/// hold objects, and one that is broken and speaks of a Deployment is an error wherever it lies. Each Deployment is taken as if created under
/// surefoot.dev/guard=enforce, after the defaults that the policies add. One that the same file gives again is an
/// update of what it was before; the same name in another file is another environment, and judged on its own.
/// The Deployments of one namespace and model are each other's peers, the nearest file first; policies that need
/// what files cannot tell are reported as skipped.
///
/// A recorded AdmissionReview (v1) is judged as the webhook would, with its oldObject; one that scales needs the manifest
/// of its Deployment beside it.
///
/// With --cluster and no FILE the Deployments of all guarded namespaces are judged, or of the one named by -n: what
/// guard enforce would refuse if they were applied today, whatever the guard is now. With FILE the files
/// are judged as applied to that cluster: over what it has, with its peers, namespaces and history. It reads only.
#[derive(Debug, Args)]
#[command(after_long_help = help::CHECK, override_usage = USAGE)]
pub(super) struct Check {
    /// Files, folders, or - for standard input
    #[arg(required_unless_present_any = ["cluster", "all_namespaces"], value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Policies to use instead of the built-in set
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Configuration: parameters, actions, exemptions
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Judge the objects as they are given, without the defaults that policies would add
    #[arg(long)]
    no_defaults: bool,
    /// Show only what the policies say otherwise than those in DIR; exit code 1 if they refuse more
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
    /// Show what defaults add, as a diff of YAML
    #[arg(long)]
    diff: bool,
    /// Print what policies see as `input`, as JSON, and judge nothing
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with_all = ["baseline", "diff", "output"])]
    show_input: Option<String>,
    /// How to show what was found
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// The cluster around what is judged.
#[derive(Debug, Args)]
struct Place {
    /// Judge what a cluster holds; with FILE, judge the files as applied to it
    #[arg(long)]
    cluster: bool,
    /// With --cluster: this namespace, guarded or not. With FILE: the namespace of what names none
    #[arg(short, long)]
    namespace: Option<String>,
    /// All guarded namespaces, which is what --cluster does without -n
    #[arg(short = 'A', long, requires = "cluster", conflicts_with_all = ["namespace", "paths"])]
    all_namespaces: bool,
    #[command(flatten)]
    which: ClusterArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For scripts; stable, version 1
    Json,
    /// Annotations on a pull request, as a GitHub workflow reads them from a log
    Github,
    /// For code scanning: SARIF 2.1.0
    Sarif,
    /// For CI systems that show tests: JUnit XML
    Junit,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        anyhow::ensure!(
            !self.diff || matches!(self.output, Format::Text),
            "--diff is text; -o json has the defaults too"
        );
        let report = match self.judges() {
            Ok((judge, _)) if self.show_input.is_some() => return self.show_inputs(&judge),
            Ok((judge, baseline)) => {
                let Given { files, problems, passed, subjects, guards, notices } = self.gather()?;
                let mut report = judge.all(&subjects);
                if let Some(baseline) = baseline {
                    report = baseline::compare(baseline.all(&subjects), report);
                }
                report.notices.extend(notices);
                report.notices.extend(judge.config.ended(judge.now));
                Report { files, problems, passed, guards, diffs: self.diff, ..report }
            }
            Err(Unusable::Wrong(errors)) => Report::of_load_errors(errors),
            Err(Unusable::Unread(error)) => return Err(error),
        };
        let outcome = report.outcome();
        match self.output {
            Format::Text => {
                anstream::eprint!("{}", report::text::render_problems(&report));
                super::print(&report::text::render(&report))?;
            }
            Format::Json => super::print(&(report::json::render(&report)? + "\n"))?,
            Format::Github => super::print(&report::github::render(&report.without_the_known()))?,
            Format::Sarif => super::print(&(report::sarif::render(&report.without_the_known())? + "\n"))?,
            Format::Junit => super::print(&report::suites::render(&report.without_the_known())?)?,
        }
        Ok(outcome)
    }

    /// What judges, and what it is compared with.
    fn judges(&self) -> Result<(Judge, Option<Judge>), Unusable> {
        let (with_defaults, now) = (!self.no_defaults, Timestamp::now());
        let config = load::config(self.config.as_deref())?;
        let policies = self.policies.clone();
        let set = load::policies(policies.as_deref(), &config)?;
        let baseline = match &self.baseline {
            Some(dir) => {
                let (set, config) = baseline::policies(dir, &config)?;
                Some(Judge { set, policies: Some(dir.clone()), config, with_defaults, now, aside: Aside::default() })
            }
            None => None,
        };
        Ok((Judge { set, policies, config, with_defaults, now, aside: Aside::default() }, baseline))
    }

    /// One document is plain JSON, as `opa eval --input` takes it; several are a YAML stream of JSON documents, as conftest
    /// reads it, each with a comment that says whose it is.
    fn show_inputs(&self, judge: &Judge) -> anyhow::Result<Outcome> {
        let only = self.show_input.as_deref().filter(|name| !name.is_empty());
        let known: Vec<&str> = judge.set.policies().iter().map(|policy| policy.name.as_str()).collect();
        if let Some(name) = only.filter(|name| !known.contains(name)) {
            anyhow::bail!("{}", yaml::unknown("there is no policy", name, &known));
        }
        let Given { files, problems, subjects, notices, .. } = self.gather()?;
        let inputs = judge.inputs(&subjects, only);
        let mut text = String::new();
        for (policy, object, input) in &inputs {
            if inputs.len() > 1 {
                let (kind, namespace, name) = (&object.kind, object.namespace(), object.name());
                text += &format!("---\n# {policy}, {kind} {namespace}/{name}, {}\n", files[object.file].name);
            }
            text += &(serde_json::to_string_pretty(input)? + "\n");
        }
        super::print(&text)?;
        let report = Report { files, problems, notices, ..Report::default() };
        anstream::eprint!("{}", report::text::render_problems(&report));
        anyhow::ensure!(!inputs.is_empty() || !report.problems.is_empty(), "no policy is asked about what was given");
        Ok(report.outcome())
    }

    /// What is to be judged, and what is known around it.
    fn gather(&self) -> anyhow::Result<Given> {
        let place = &self.place;
        if place.cluster {
            return live::run(self.gather_live());
        }
        anyhow::ensure!(
            place.which.kubeconfig.is_none() && place.which.context.is_none(),
            "--kubeconfig and --context name a cluster, which is only asked with --cluster"
        );
        let home = place.namespace.as_deref().unwrap_or("default");
        Ok(Given::of_files(source::read(&self.paths, &mut io::stdin().lock(), home), None))
    }

    async fn gather_live(&self) -> anyhow::Result<Given> {
        let cluster = live::patiently(Cluster::connect(&self.place.which)).await?;
        if self.paths.is_empty() {
            let held = live::patiently(cluster.held(self.place.namespace.as_deref())).await?;
            return Ok(Given::of_cluster(held));
        }
        let home = cluster.namespace(self.place.namespace.as_deref());
        let found = source::read(&self.paths, &mut io::stdin().lock(), &home);
        let namespaces: BTreeSet<String> = found.namespaces();
        let held = live::patiently(cluster.held_in(namespaces.into_iter().collect())).await?;
        Ok(Given::of_files(found, Some(held)))
    }
}

/// What one run judges.
struct Given {
    files: Vec<File>,
    problems: Vec<Problem>,
    passed: Vec<Passed>,
    subjects: Vec<Subject>,
    guards: BTreeMap<String, Guarding>,
    notices: Vec<String>,
}

impl Given {
    fn of_files(mut found: Manifests, live: Option<Vec<Held>>) -> Self {
        let held = live.as_deref().unwrap_or_default();
        let (guards, mut notices) = (guards(held), notices(held));
        notices.extend(source::notices(&found.passed));
        let around = Around::new(&found, live);
        let mut subjects = Subject::given(&mut found, &around);
        let builds = found.objects.iter().find(|object| object.kind == "Kustomization");
        if let (true, Some(object)) = (subjects.is_empty(), builds) {
            let name = &found.files[object.file].name;
            notices.push(format!("{name} only names what it is made of: kustomize build DIR | surefoot check -"));
        }
        // Whether a namespace is kept apart is a question about a cluster: said to be skipped, once.
        if let Some(first) = subjects.first().filter(|_| around.live().next().is_none()) {
            subjects.push(Subject::whole(first.object.namespace(), &around, 0));
        }
        Self { files: found.files, problems: found.problems, passed: found.passed, subjects, guards, notices }
    }

    fn of_cluster(held: Vec<Held>) -> Self {
        let (guards, notices) = (guards(&held), notices(&held));
        let subjects = Subject::held(&Around::new(&Manifests::default(), Some(held)));
        Self { files: vec![File::cluster()], problems: Vec::new(), passed: Vec::new(), subjects, guards, notices }
    }
}

fn guards(held: &[Held]) -> BTreeMap<String, Guarding> {
    held.iter().map(|held| (held.name.clone(), held.guarding.clone())).collect()
}

/// What could not be read, each once: it is told, and the rest is judged.
fn notices(held: &[Held]) -> Vec<String> {
    let histories = held.iter().filter_map(|held| held.histories.as_ref().err());
    let missing: BTreeSet<String> =
        histories.chain(held.iter().filter_map(|held| held.isolation.as_ref().err())).cloned().collect();
    missing.into_iter().collect()
}
