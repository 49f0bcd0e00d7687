//! What `check` found, and a file for each way to show it.

use crate::{
    admission::{DefaultValue, Failure, Finding, Level, LoadError, LoadErrors, Skipped},
    cli::{
        Outcome,
        source::{File, Object, Problem, tree::Place},
    },
};

pub(super) mod json;
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
    /// Without policies or configuration nothing was judged.
    pub(super) unusable: bool,
}

/// One Deployment and what is to be said of it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) object: Object,
    pub(super) findings: Vec<Finding>,
    pub(super) defaults: Vec<DefaultValue>,
    /// Sentences that belong to no finding, such as an override in force.
    pub(super) notes: Vec<String>,
    /// A policy broke on it: the webhook would refuse it.
    pub(super) broken: bool,
}

impl Judged {
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
}

impl Report {
    /// Nothing could be judged.
    pub(super) fn of_load_errors(LoadErrors(errors): LoadErrors) -> Self {
        let failure = |error: LoadError| Failure {
            policy: String::new(),
            file: error.file,
            line: error.line,
            column: error.column,
            message: error.message,
            level: Level::Deny,
        };
        Self { failures: errors.into_iter().map(failure).collect(), unusable: true, ..Self::default() }
    }

    fn file_of(&self, judged: &Judged) -> &File {
        &self.files[judged.object.file]
    }

    fn denied(&self) -> usize {
        self.judged.iter().filter(|judged| judged.denied()).count()
    }

    /// Failures weigh more than denials: a verdict is missing.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            _ if !self.problems.is_empty() || !self.failures.is_empty() => Outcome::Failed,
            _ if self.denied() > 0 => Outcome::Findings,
            _ => Outcome::Fine,
        }
    }
}
