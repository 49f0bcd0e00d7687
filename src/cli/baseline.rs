//! `check --baseline`: what another set of policies said of the same Deployments.

use std::path::Path;

use super::{
    load::{self, Unusable},
    report::{Change, Judged, Report},
};
use crate::{
    admission::{Finding, PolicySet},
    config::Config,
};

/// The policies in `dir` under the same configuration. What that says of policies and parameters that the baseline does
/// not have came with the edit, and is left out.
pub(super) fn policies(dir: &Path, config: &Config) -> Result<(PolicySet, Config), Unusable> {
    let known = load::policies(Some(dir), &Config::default())?;
    let mut config = config.clone();
    config.policies.retain(|name, settings| {
        let Some(policy) = known.policies().iter().find(|policy| policy.name == *name) else { return false };
        settings.parameters.retain(|name, _| policy.parameters.contains_key(name));
        settings
            .overrides
            .iter_mut()
            .for_each(|it| it.parameters.retain(|name, _| policy.parameters.contains_key(name)));
        true
    });
    Ok((load::policies(Some(dir), &config)?, config))
}

/// Only what differs from the baseline is left in the report; each that changed knows what it was.
pub(super) fn compare(baseline: Report, mut report: Report) -> Report {
    report.compared = Some(report.deployments());
    let before = |now: &Judged| {
        let same = |was: &&Judged| std::rc::Rc::ptr_eq(&was.object, &now.object);
        baseline.judged.iter().find(same).cloned()
    };
    let judged = std::mem::take(&mut report.judged);
    report.judged = judged.into_iter().filter_map(|now| changed(before(&now), now)).collect();
    report.notices.extend(baseline.failures.iter().map(|failure| format!("in the baseline, {}", failure.message)));
    report
}

/// `None`: nothing that anybody sees has changed.
fn changed(was: Option<Judged>, now: Judged) -> Option<Judged> {
    let was = was.unwrap_or_else(|| Judged { findings: Vec::new(), broken: false, ..now.clone() });
    let missing_in = |others: &[Finding], findings: &[Finding]| -> Vec<Finding> {
        findings.iter().filter(|finding| !others.contains(finding)).cloned().collect()
    };
    let change = Change {
        was_denied: was.denied(),
        come: missing_in(&was.findings, &now.findings),
        gone: missing_in(&now.findings, &was.findings),
        defaults: was.defaults != now.defaults,
        before: was.findings,
    };
    let is_same =
        change.come.is_empty() && change.gone.is_empty() && !change.defaults && change.was_denied == now.denied();
    (!is_same).then_some(Judged { change: Some(change), ..now })
}
