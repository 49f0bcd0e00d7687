//! Whether webhook and controller have the rights that the manifests give them, as the API server sees it.

use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use serde_json::Value;

use super::{Level, Row, seen::text};
use crate::{cluster::Attempt, template::keys};

const AREA: &str = "rights";

pub(super) async fn row(client: &Client, own: &str, base: &[Value]) -> Row {
    let wanted = wanted(own, base);
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let count = wanted.len();
    let asked = wanted.into_iter().map(|(account, attributes)| {
        let api = api.clone();
        async move {
            let user = format!("system:serviceaccount:{own}:{account}");
            let groups = vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{own}"),
                "system:authenticated".to_owned(),
            ];
            let spec = SubjectAccessReviewSpec {
                user: Some(user),
                groups: Some(groups),
                resource_attributes: Some(attributes.clone()),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            let answer = api.create(&PostParams::default(), &review).await;
            answer
                .map(|answer| (!answer.status.is_some_and(|status| status.allowed)).then(|| said(account, &attributes)))
        }
    });
    let mut lacking = Vec::new();
    let mut answers = futures::stream::iter(asked.collect::<Vec<_>>()).buffered(8);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(lacks) => lacking.extend(lacks),
            Err(error) => {
                let why = Attempt::new("create", "subjectaccessreviews").explain(&error);
                return Row::new(Level::Skip, AREA, why, "");
            }
        }
    }
    match lacking.first() {
        None => Row::ok(AREA, format!("webhook and controller have the {count} that they need")),
        Some(first) => {
            let more = if lacking.len() > 1 { format!(", and {} more", lacking.len() - 1) } else { String::new() };
            Row::new(
                Level::Fail,
                AREA,
                format!("{first}{more}"),
                "surefoot manifests | kubectl apply -f - (Roles, ClusterRoles and their bindings)",
            )
        }
    }
}

/// `surefoot-controller may not patch deployments`
fn said(account: &str, right: &ResourceAttributes) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let place = right.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
    format!("{account} may not {} {}{place}", part(&right.verb), part(&right.resource))
}

/// Each verb of each rule, for whom.
fn wanted(own: &str, base: &[Value]) -> Vec<(&'static str, ResourceAttributes)> {
    let strings = |list: &Value| list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let mut all = Vec::new();
    for account in [keys::WEBHOOK_ACCOUNT, keys::CONTROLLER_ACCOUNT] {
        for role in base
            .iter()
            .filter(|object| text(&object["kind"]).ends_with("Role") && object["metadata"]["name"] == account)
        {
            for rule in role["rules"].as_array().into_iter().flatten() {
                let name = strings(&rule["resourceNames"]).into_iter().next();
                for (group, resource) in strings(&rule["apiGroups"]).iter().flat_map(|group| {
                    strings(&rule["resources"]).into_iter().map(move |resource| (group.clone(), resource))
                }) {
                    all.extend(strings(&rule["verbs"]).into_iter().map(|verb| {
                        let attributes = ResourceAttributes {
                            group: Some(group.clone()),
                            resource: Some(resource.clone()),
                            verb: Some(verb),
                            name: name.clone(),
                            namespace: (role["kind"] == "Role").then(|| own.to_owned()),
                            ..ResourceAttributes::default()
                        };
                        (account, attributes)
                    }));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_of_the_manifests_is_asked_for() {
        let all = wanted("own", &crate::cli::manifests::objects().unwrap());
        let said: Vec<_> = all.iter().map(|(account, right)| said(account, right)).collect();
        for right in [
            "surefoot-webhook may not watch namespaces",
            "surefoot-controller may not patch deployments",
            "surefoot-controller may not update secrets in namespace own",
        ] {
            assert!(said.iter().any(|one| one == right), "{right}: {said:?}");
        }
        assert!(!said.iter().any(|one| one.contains("surefoot-webhook may not patch")), "{said:?}");
    }
}
