//! What the caller may do, asked before a command begins: a command of many steps must not find out at its third.

use futures::future::try_join_all;
use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};

/// A right in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// As in RBAC.
    pub verb: &'static str,
    /// API group; empty for the core.
    pub group: &'static str,
    /// In the plural.
    pub resource: &'static str,
    /// Where.
    pub namespace: String,
}

impl Right {
    /// To `verb` the `resource` of `group` in `namespace`.
    pub fn new(verb: &'static str, group: &'static str, resource: &'static str, namespace: &str) -> Self {
        Self { verb, group, resource, namespace: namespace.to_owned() }
    }
}

impl std::fmt::Display for Right {
    /// `patch deployments in namespace shop`; the group only where it is ours: nobody confuses the others.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verb, resource, namespace, .. } = self;
        match self.group {
            group if group.ends_with("surefoot.dev") => write!(f, "{verb} {resource}.{group} in namespace {namespace}"),
            _ => write!(f, "{verb} {resource} in namespace {namespace}"),
        }
    }
}

/// Those of `rights` that the caller does not have, in their order. An authorizer that gives no answer stops nobody
/// here: the request itself will tell.
pub async fn missing(client: &Client, rights: &[Right]) -> Vec<Right> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let asked = rights.iter().map(|right| {
        let api = api.clone();
        async move { api.create(&PostParams::default(), &review(right)).await }
    });
    let Ok(answers) = try_join_all(asked).await else { return Vec::new() };
    let lacks = |answer: SelfSubjectAccessReview| answer.status.is_some_and(|status| !status.allowed);
    rights.iter().zip(answers).filter_map(|(right, answer)| lacks(answer).then(|| right.clone())).collect()
}

/// Who the API server takes the caller for; `None` where it does not say.
pub async fn user(client: &Client) -> Option<String> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.ok()?;
    answer.status?.user_info?.username
}

fn review(right: &Right) -> SelfSubjectAccessReview {
    let attributes = ResourceAttributes {
        verb: Some(right.verb.to_owned()),
        group: Some(right.group.to_owned()),
        resource: Some(right.resource.to_owned()),
        namespace: Some(right.namespace.clone()),
        ..ResourceAttributes::default()
    };
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake::{self, Answer, Asked};

    #[tokio::test]
    async fn what_is_missing_is_named_and_no_answer_stops_nobody() {
        let rights = [Right::new("patch", "apps", "deployments", "shop"), Right::new("get", "", "configmaps", "own")];
        let client = fake::client(|Asked { body, .. }| {
            let allowed = body["spec"]["resourceAttributes"]["verb"] == "get";
            Answer::Json(201, json!({"status": {"allowed": allowed}, "spec": {}, "metadata": {}}))
        });
        let lacking = missing(&client, &rights).await;
        assert_eq!(lacking, rights[..1]);
        assert_eq!(lacking[0].to_string(), "patch deployments in namespace shop");
        let client = fake::client(|_| fake::refusal(403, "no reviews here"));
        assert_eq!((missing(&client, &rights).await, user(&client).await), (Vec::new(), None));
    }
}
