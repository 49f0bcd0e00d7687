//! The documents that policies are asked with, for whoever writes one.

use jiff::Timestamp;

use super::{Facts, PolicySet, Request, stamps, validate::Scope};
use crate::{config::Config, template::Json};

/// What each policy that judges this request sees as `input`, by name. A policy that lacks facts, or that has no say in
/// such a request, is left out.
pub fn inputs(
    set: &PolicySet,
    request: &Request,
    facts: &Facts,
    config: &Config,
    now: Timestamp,
) -> Vec<(String, Json)> {
    let request = &stamps::without(request, set.unseen());
    let Some(scope) = Scope::new(request, facts, config, now) else { return Vec::new() };
    let asked = set.policies.iter().filter(|policy| scope.concerns(policy) && scope.missing(policy).is_empty());
    asked.map(|policy| (policy.name.clone(), scope.input(policy, request.tree()))).collect()
}
