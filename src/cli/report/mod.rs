//! What `check` found, and a file for each way to show it.

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    admission::{DefaultValue, Failure, Finding, Level, LoadError, LoadErrors, Skipped},
    cli::{
        Outcome,
        source::{File, Object, Passed, Problem, tree::Place},
    },
    cluster::inventory::Guarding,
    config::Exemption,
};

mod diff;
mod excerpt;
pub(super) mod github;
pub(super) mod json;
pub(super) mod junit;
pub(super) mod sarif;
mod shown;
pub(super) mod suites;
pub(super) mod text;

/// Everything that one run of `check` has to say.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Texts that were read: [`Object::file`] points here.
    pub(super) files: Vec<File>,
    /// The Deployments, in the order of the files.
    pub(super) judged: Vec<Judged>,
    /// Policies that were not asked, for want of facts.
    pub(super) skipped: Vec<Skipped>,
    /// Policies that broke or do not load, each once.
    pub(super) failures: Vec<Failure>,
    /// Files that could not be read or understood.
    pub(super) problems: Vec<Problem>,
    /// Files in the folders that are no manifests.
    pub(super) passed: Vec<Passed>,
    /// Without policies or configuration nothing was judged.
    pub(super) unusable: Vec<LoadError>,
    /// What the policies say of themselves, by name.
    pub(super) policies: BTreeMap<String, About>,
    /// The guard of each namespace of a cluster; empty where files were judged.
    pub(super) guards: BTreeMap<String, Guarding>,
    /// Sentences about the run as a whole, such as a right that is missing.
    pub(super) notices: Vec<String>,
    /// Show what defaults add.
    pub(super) diffs: bool,
    /// With a baseline: how many Deployments were compared. [`Report::judged`] holds those that changed.
    pub(super) compared: Option<usize>,
}

/// What a policy says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) title: String,
    pub(super) description: String,
}

/// One Deployment and what is to be said of it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) object: Rc<Object>,
    /// What denies or warns.
    pub(super) findings: Vec<Finding>,
    /// What counts for nothing here, and why.
    pub(super) silenced: Vec<Silenced>,
    pub(super) defaults: Vec<DefaultValue>,
    /// Sentences that belong to no finding, such as an override in force.
    pub(super) notes: Vec<String>,
    /// A policy broke on it: the webhook would refuse it.
    pub(super) broken: bool,
    /// Only with a baseline.
    pub(super) change: Option<Change>,
}

/// How a verdict differs from that of the baseline.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) was_denied: bool,
    /// Findings that the baseline does not have.
    pub(super) come: Vec<Finding>,
    /// Findings that only the baseline has.
    pub(super) gone: Vec<Finding>,
    /// Other defaults are added.
    pub(super) defaults: bool,
    /// All findings of the baseline.
    pub(super) before: Vec<Finding>,
}

/// A finding that is neither a denial nor a warning.
#[derive(Clone, Debug)]
pub(super) struct Silenced {
    pub(super) finding: Finding,
    /// The entry of the configuration; `None`: the action of its policy is `Audit`.
    pub(super) exemption: Option<Exemption>,
}

impl Judged {
    /// Nothing is to be said of it.
    #[cfg(test)]
    pub(super) fn of(object: Object) -> Self {
        let object = Rc::new(object);
        let (findings, silenced, defaults, notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { object, findings, silenced, defaults, notes, broken: false, change: None }
    }

    /// With a baseline: it was not refused by that, and is now.
    fn newly_denied(&self) -> bool {
        self.denied() && self.change.as_ref().is_some_and(|change| !change.was_denied)
    }

    /// Would the webhook refuse it?
    pub(super) fn denied(&self) -> bool {
        self.broken || self.count(Level::Deny) > 0
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// Where in its file a finding points: the nearest thing that is there.
    fn place(&self, finding: &Finding) -> Place {
        self.object.places.nearest(&finding.path)
    }

    /// `Deployment shop/churn`, `Namespace shop`.
    fn title(&self) -> String {
        let Object { kind, .. } = self.object.as_ref();
        let title = match self.is_deployment() {
            true => format!("{kind} {}/{}", self.object.namespace(), self.object.name()),
            false => format!("{kind} {}", self.object.name()),
        };
        shown::line(&title).into_owned()
    }

    fn is_deployment(&self) -> bool {
        self.object.kind == "Deployment"
    }
}

impl Report {
    /// Nothing could be judged.
    pub(super) fn of_load_errors(LoadErrors(errors): LoadErrors) -> Self {
        let failure = |error: &LoadError| Failure {
            policy: String::new(),
            file: error.file.clone(),
            line: error.line,
            column: error.column,
            message: error.message.clone(),
            level: Level::Deny,
        };
        Self { failures: errors.iter().map(failure).collect(), unusable: errors, ..Self::default() }
    }

    /// No file was judged, but a cluster.
    fn is_of_cluster(&self) -> bool {
        self.files.first().is_some_and(File::is_cluster)
    }

    fn file_of(&self, judged: &Judged) -> &File {
        &self.files[judged.object.file]
    }

    /// The file and place of a finding; `None` for what is in no file but in a cluster.
    fn place_in_file(&self, judged: &Judged, finding: &Finding) -> Option<(&File, Place)> {
        let file = self.file_of(judged);
        (!file.is_cluster()).then(|| (file, judged.place(finding)))
    }

    fn denied(&self) -> usize {
        self.judged.iter().filter(|judged| judged.denied()).count()
    }

    /// Only what the baseline does not say, for readers that know nothing of baselines.
    pub(super) fn without_the_known(mut self) -> Self {
        for judged in &mut self.judged {
            if let Some(change) = &judged.change {
                judged.findings.clone_from(&change.come);
            }
        }
        self
    }

    pub(super) fn deployments(&self) -> usize {
        self.judged.iter().filter(|judged| judged.is_deployment()).count()
    }

    /// Failures weigh more than denials: a verdict is missing.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            _ if !self.problems.is_empty() || !self.failures.is_empty() => Outcome::Failed,
            // What an edit of policies refuses anew is what is asked for; what was refused before is no news.
            _ if self.compared.is_some() => match self.judged.iter().any(Judged::newly_denied) {
                true => Outcome::Findings,
                false => Outcome::Fine,
            },
            _ if self.denied() > 0 => Outcome::Findings,
            _ => Outcome::Fine,
        }
    }
}
