//! What the cluster says, read once.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, future::join_all};
use hyper::Request;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use crate::{cluster::Attempt, template::keys};

/// An object or a list; `null` where there is none; or why it cannot be read.
pub(super) type Got = Result<Value, String>;

/// Names of both hook configurations and of the policy that bounds the controller.
pub(super) const HOOKS: &str = "surefoot";
/// What the controller keeps the webhook's certificate in.
pub(super) const SECRET: &str = "surefoot-webhook-tls";

/// A pod is asked for no longer than that.
const ASKED: Duration = Duration::from_secs(3);

pub(super) struct Seen {
    /// surefoot's own namespace.
    pub(super) own: String,
    pub(super) now: Timestamp,
    pub(super) namespaces: Got,
    pub(super) mutating: Got,
    pub(super) validating: Got,
    pub(super) bounds: Got,
    pub(super) binding: Got,
    /// Those whose name begins with `surefoot`.
    pub(super) roles: Got,
    pub(super) deployments: Got,
    pub(super) pods: Got,
    pub(super) slices: Got,
    pub(super) secret: Got,
    pub(super) lease: Got,
    pub(super) config: Got,
    /// What `/readyz?verbose` of each running webhook pod says.
    pub(super) said: BTreeMap<String, Result<String, String>>,
}

impl Seen {
    pub(super) async fn read(client: &Client, own: &str, now: Timestamp) -> Self {
        let admission = "/apis/admissionregistration.k8s.io/v1";
        let (core, apps) = (format!("/api/v1/namespaces/{own}"), format!("/apis/apps/v1/namespaces/{own}"));
        let ours = "labelSelector=app.kubernetes.io/name%3Dsurefoot";
        let service = format!("labelSelector=kubernetes.io/service-name%3D{}", keys::WEBHOOK_ACCOUNT);
        let paths = [
            "/api/v1/namespaces".to_owned(),
            format!("{admission}/mutatingwebhookconfigurations"),
            format!("{admission}/validatingwebhookconfigurations"),
            format!("{admission}/validatingadmissionpolicies/bounds.surefoot.dev"),
            format!("{admission}/validatingadmissionpolicybindings/bounds.surefoot.dev"),
            format!("/apis/rbac.authorization.k8s.io/v1/clusterroles?{ours}"),
            format!("{apps}/deployments?{ours}"),
            format!("{core}/pods?{ours}"),
            format!("/apis/discovery.k8s.io/v1/namespaces/{own}/endpointslices?{service}"),
            format!("{core}/secrets/{SECRET}"),
            format!("/apis/coordination.k8s.io/v1/namespaces/{own}/leases/{}", keys::LEASE),
            format!("{core}/configmaps/surefoot-config"),
        ];
        let mut got = join_all(paths.iter().map(|path| get(client, path))).await.into_iter();
        let mut next = || got.next().unwrap_or(Ok(Value::Null));
        let mut seen = Self {
            own: own.to_owned(),
            now,
            namespaces: next(),
            mutating: next(),
            validating: next(),
            bounds: next(),
            binding: next(),
            roles: next(),
            deployments: next(),
            pods: next(),
            slices: next(),
            secret: next(),
            lease: next(),
            config: next(),
            said: BTreeMap::new(),
        };
        let running: Vec<_> =
            seen.pods_of("webhook").filter(|pod| ready(pod)).map(|pod| text(&pod["metadata"]["name"])).collect();
        let asked = running.iter().map(|name| async move {
            let path = format!("/api/v1/namespaces/{own}/pods/https:{name}:8443/proxy/readyz?verbose");
            let request = Request::get(&path).body(Vec::new()).map_err(|error| error.to_string());
            let said = match request {
                Ok(request) => match tokio::time::timeout(ASKED, client.request_text(request)).await {
                    Ok(said) => said.map_err(|error| explained(&path, &error)),
                    Err(_) => Err(format!("no answer for {} s", ASKED.as_secs())),
                },
                Err(error) => Err(error),
            };
            (name.clone(), said)
        });
        seen.said = futures::stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(4).collect().await;
        seen
    }

    /// Both configurations, with the plural of their kind.
    pub(super) fn configurations(&self) -> [(&'static str, &Got); 2] {
        [("mutatingwebhookconfigurations", &self.mutating), ("validatingwebhookconfigurations", &self.validating)]
    }

    /// The hooks' own configuration in a list of them.
    pub(super) fn ours(list: &Got) -> Option<&Value> {
        items(list).find(|object| object["metadata"]["name"] == HOOKS)
    }

    /// Where the hooks call processes beside the cluster.
    pub(super) fn url(&self) -> Option<String> {
        let hook = Self::ours(&self.validating).or_else(|| Self::ours(&self.mutating))?;
        let url = hook["webhooks"][0]["clientConfig"]["url"].as_str()?;
        Some(url.rsplit_once('/').map_or(url, |(base, _)| base).to_owned())
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Value> {
        items(&self.namespaces).find(|object| object["metadata"]["name"] == name)
    }

    pub(super) fn pods_of(&self, component: &str) -> impl Iterator<Item = &Value> {
        items(&self.pods).filter(move |pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == component)
    }

    /// A file of the Secret, decoded.
    pub(super) fn file(&self, name: &str) -> Vec<u8> {
        self.secret.as_ref().ok().map(|secret| decoded(&secret["data"][name])).unwrap_or_default()
    }
}

pub(super) fn decoded(text: &Value) -> Vec<u8> {
    text.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default()
}

pub(super) fn items(list: &Got) -> impl Iterator<Item = &Value> {
    list.as_ref().ok().and_then(|list| list["items"].as_array()).into_iter().flatten()
}

/// A string; empty where it is none.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

async fn get(client: &Client, path: &str) -> Got {
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match client.request(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Value::Null),
        got => got.map_err(|error| explained(path, &error)),
    }
}

/// The path's resource, as in RBAC.
fn explained(path: &str, error: &kube::Error) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if path.contains("/proxy/") {
        return Attempt::new("get", "pods/proxy").explain(error);
    }
    let (rest, namespace) = match path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')) {
        Some((namespace, rest)) => (rest, Some(namespace)),
        None => (path.split_once("/v1/").map_or(path, |(_, rest)| rest), None),
    };
    let (resource, name) = rest.split_once('/').unwrap_or((rest, ""));
    let list = name.is_empty() || !query.is_empty();
    let attempt = Attempt::new(if list { "list" } else { "get" }, resource).named(name);
    namespace.map_or(attempt.clone(), |namespace| attempt.within(namespace)).explain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named_as_in_rbac() {
        let forbidden = kube::core::Status::failure(r#"x is forbidden: User "ana" cannot"#, "").with_code(403);
        let error = kube::Error::Api(Box::new(forbidden));
        for (path, want) in [
            ("/api/v1/namespaces", "list namespaces"),
            ("/api/v1/namespaces/own/secrets/tls", "get secrets in namespace own"),
            ("/apis/apps/v1/namespaces/own/deployments?labelSelector=a", "list deployments in namespace own"),
            ("/apis/rbac.authorization.k8s.io/v1/clusterroles?a=b", "list clusterroles"),
            ("/api/v1/namespaces/own/pods/https:a:8443/proxy/readyz?verbose", "get pods/proxy"),
        ] {
            let said = explained(path, &error);
            assert!(said.starts_with(&format!("no right to {want}: ")), "{said}");
        }
    }
}
