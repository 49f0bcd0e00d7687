//! What keeps a guarded namespace apart from others, read when a command asks: nothing watches it, and no hook needs it.

use kube::{Client, api::ListParams, core::Request};
use serde::Deserialize;

use super::{Attempt, Namespace, facts};
use crate::{
    admission::{Facts, Isolation},
    template::Json,
};

/// What is known of the namespace as a whole, for [`Request::of_namespace`](crate::admission::Request::of_namespace). An
/// error says which right is missing.
pub async fn read(client: &Client, namespace: &Namespace) -> Result<Facts, String> {
    let name = &namespace.name;
    let (resource_quotas, limit_ranges, network_policies) = tokio::try_join!(
        list(client, "/api/v1", name, "resourcequotas"),
        list(client, "/api/v1", name, "limitranges"),
        list(client, "/apis/networking.k8s.io/v1", name, "networkpolicies"),
    )?;
    Ok(Facts {
        guard: Some(namespace.guard),
        namespace: Some(facts::seen(namespace)),
        isolation: Some(Isolation { resource_quotas, limit_ranges, network_policies }),
        ..Facts::default()
    })
}

/// Whole objects: which of their fields matter is for policies to say.
async fn list(client: &Client, api: &str, namespace: &str, resource: &'static str) -> Result<Vec<Json>, String> {
    #[derive(Deserialize)]
    struct Found {
        items: Vec<Json>,
    }
    let attempt = Attempt::new("list", resource).within(namespace);
    let request = Request::new(format!("{api}/namespaces/{namespace}/{resource}")).list(&ListParams::default());
    let request = request.map_err(|error| attempt.explain(&kube::Error::BuildRequest(error)))?;
    let found: Found = client.request(request).await.map_err(|error| attempt.explain(&error))?;
    Ok(found.items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        cluster::fake::{self, Asked},
        config::Guard,
    };

    fn shop() -> Namespace {
        Namespace {
            name: "shop".to_owned(),
            guard: Guard::Warn,
            unknown: None,
            labels: [("team".to_owned(), "risk".to_owned())].into(),
            annotations: [].into(),
        }
    }

    #[tokio::test]
    async fn all_three_kinds_are_read_whole() {
        let client = fake::client(|Asked { line, .. }| match line.split('?').next().unwrap_or_default() {
            "GET /api/v1/namespaces/shop/resourcequotas" => fake::list(&[json!({"spec": {"hard": {"pods": "9"}}})]),
            "GET /api/v1/namespaces/shop/limitranges" => fake::list(&[]),
            "GET /apis/networking.k8s.io/v1/namespaces/shop/networkpolicies" => {
                fake::list(&[json!({"spec": {"podSelector": {}}})])
            }
            _ => fake::refusal(404, "not found"),
        });
        let facts = read(&client, &shop()).await.unwrap();
        assert_eq!(facts.guard, Some(Guard::Warn));
        assert_eq!(facts.namespace.unwrap().to_string(), r#"{"annotations":{},"labels":{"team":"risk"}}"#);
        let isolation = facts.isolation.unwrap();
        assert_eq!(isolation.resource_quotas[0].to_string(), r#"{"spec":{"hard":{"pods":"9"}}}"#);
        assert_eq!((isolation.limit_ranges.len(), isolation.network_policies.len()), (0, 1));
    }

    #[tokio::test]
    async fn a_missing_right_is_named() {
        let client = fake::client(|Asked { line, .. }| {
            if line.contains("limitranges") {
                return fake::refusal(403, r#"limitranges is forbidden: User "ana" cannot list"#);
            }
            fake::list(&[])
        });
        let error = read(&client, &shop()).await.unwrap_err();
        assert!(error.contains("limitranges") && error.contains("shop"), "{error}");
    }
}
