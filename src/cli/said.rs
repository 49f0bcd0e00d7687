//! What `surefoot check` says of a text, for a program instead of a person: fuzzing holds every format to what its
//! readers rely on.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{
    around::Around,
    judge::{Aside, Judge, Subject},
    report::{self, Report},
    source,
};
use crate::{admission::PolicySet, config::Config};

/// One report in each of its formats.
#[derive(Clone, Debug)]
pub struct Said {
    /// `-o text`: what could not be judged, then the report.
    pub text: String,
    /// `-o json`.
    pub json: String,
    /// `-o github`.
    pub github: String,
    /// `-o sarif`.
    pub sarif: String,
    /// `-o junit`.
    pub junit: String,
}

/// What `surefoot check -` prints with `text` on standard input and `set` as policies, on the day of `now`.
///
/// # Errors
/// A format could not be written; never the fault of `text`.
pub fn said(set: PolicySet, text: &[u8], now: Timestamp) -> anyhow::Result<Said> {
    let mut stdin = text;
    let mut found = source::read(&[PathBuf::from("-")], &mut stdin, "default");
    let around = Around::new(&found, None);
    let subjects = Subject::given(&mut found, &around);
    let judge =
        Judge { set, policies: None, config: Config::default(), with_defaults: true, now, aside: Aside::default() };
    let report = Report { files: found.files, problems: found.problems, ..judge.all(&subjects) };
    Ok(Said {
        text: report::text::render_problems(&report) + &report::text::render(&report),
        json: report::json::render(&report)?,
        github: report::github::render(&report),
        sarif: report::sarif::render(&report)?,
        junit: report::suites::render(&report)?,
    })
}
