//! What keeps guarded namespaces apart, as the policies see it that judge namespaces.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;

use super::live::Cluster;
use crate::{
    admission::{self, Facts, Finding, PolicySet, Request},
    cluster::{Namespace, isolation},
    config::Config,
};

/// Far more than a few lists of names take.
const LIMIT: Duration = Duration::from_secs(2);

/// A namespace that lacks something, or about which that cannot be told.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Gap {
    namespace: String,
    findings: Vec<Finding>,
    /// Why it cannot be told, e.g. which right is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

impl Gap {
    /// A line for people.
    pub(super) fn line(&self) -> String {
        let Self { namespace, findings, unknown } = self;
        if let Some(why) = unknown {
            return format!("isolation: {namespace} not judged: {why}");
        }
        let codes: BTreeSet<_> = findings.iter().map(|finding| finding.code.as_str()).collect();
        let codes = codes.into_iter().collect::<Vec<_>>().join(", ");
        format!("isolation: {namespace} {codes}; what to do: surefoot check --cluster -n {namespace}")
    }
}

/// The namespaces with gaps, in their order, judged by the policies that are compiled in.
pub(super) async fn gaps(cluster: &Cluster, namespaces: &[Namespace], now: Timestamp) -> anyhow::Result<Vec<Gap>> {
    let config = Config::default();
    let sources = PolicySet::built_in_sources().into_iter().filter(|source| {
        ["isolation/", "lib/"].iter().any(|folder| source.path.starts_with(folder))
            && !source.path.ends_with("_test.rego")
    });
    let set = PolicySet::load(sources.collect(), &config)?;
    let read = |namespace| async move { (namespace, isolation::read(&cluster.client, namespace).await) };
    let read: Vec<_> = futures::stream::iter(namespaces.iter().map(read)).buffered(8).collect().await;
    Ok(read.into_iter().filter_map(|(namespace, facts)| judged(&set, &config, namespace, facts, now)).collect())
}

fn judged(
    set: &PolicySet,
    config: &Config,
    namespace: &Namespace,
    facts: Result<Facts, String>,
    now: Timestamp,
) -> Option<Gap> {
    let name = namespace.name.clone();
    let facts = match facts {
        Ok(facts) => facts,
        Err(why) => return Some(Gap { namespace: name, findings: Vec::new(), unknown: Some(why) }),
    };
    let request = Request::of_namespace(&name, facts.namespace.as_ref());
    let verdict = admission::validate(set, &request, &facts, config, now, LIMIT);
    let findings = verdict.findings;
    let unknown = verdict.failures.first().map(|failure| failure.message.clone());
    (!findings.is_empty() || unknown.is_some()).then_some(Gap { namespace: name, findings, unknown })
}
