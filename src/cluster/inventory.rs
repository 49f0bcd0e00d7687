//! What namespaces hold, read once and whole: for commands that judge what is there. Lists come in pages, namespace by
//! namespace, so that rights in one namespace are enough to look at it.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use kube::{
    Client,
    api::ListParams,
    core::{ListMeta, Request},
};
use serde::Deserialize;

use super::{
    Namespace,
    client::Attempt,
    facts, isolation,
    records::{self, RecordError, Records},
};
use crate::{
    admission::{History, Isolation},
    config::{Guard, UnknownGuard},
    template::{Json, json, keys},
};

/// Objects that one answer of the API server holds at most.
const PAGE: u32 = 250;

/// Namespaces that are read at the same time.
const AT_ONCE: usize = 8;

/// One namespace and what is in it.
#[derive(Clone, Debug)]
pub struct Held {
    /// metadata.name
    pub name: String,
    /// How far surefoot goes in it.
    pub guarding: Guarding,
    /// `{"labels": {…}, "annotations": {…}}`; `None`: the right to read it is missing.
    pub namespace: Option<Json>,
    /// Its Deployments as they are stored, without managedFields.
    pub deployments: Vec<Json>,
    /// What the records say, by Deployment; `None` for a record that is damaged. `Err`: they could not be read, and why.
    pub histories: Result<BTreeMap<String, Option<History>>, String>,
    /// What keeps it apart from others. `Err`: it could not be read, and why.
    pub isolation: Result<Isolation, String>,
}

/// What the guard label of a namespace says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarding {
    /// It has the label.
    By(Guard),
    /// It has the label, with a value that is none of the three.
    Odd(UnknownGuard),
    /// It does not have it.
    Not,
    /// The namespace could not be read, and why.
    Unknown(String),
}

impl Held {
    /// What a namespace would hold, were these objects the whole cluster: records, and what keeps it apart from others.
    ///
    /// # Errors
    ///
    /// A record among them is damaged.
    pub fn in_files<'a>(name: &str, objects: impl Iterator<Item = &'a Json>) -> Result<Self, RecordError> {
        let (mut histories, mut isolation) = (BTreeMap::new(), Isolation::default());
        for object in objects {
            let kind = json::str_at(object, &["kind"]).unwrap_or_default();
            let walls = match kind {
                "ConfigMap" => {
                    if let Some((namespace, deployment, record)) = records::in_file(object) {
                        let history = facts::history(Some(&Ok(record?))).0;
                        histories.extend((namespace == name).then_some((deployment, history)));
                    }
                    continue;
                }
                "ResourceQuota" => &mut isolation.resource_quotas,
                "LimitRange" => &mut isolation.limit_ranges,
                "NetworkPolicy" => &mut isolation.network_policies,
                _ => continue,
            };
            if json::str_at(object, &["metadata", "namespace"]) == Some(name) {
                walls.push(object.clone());
            }
        }
        Ok(Self {
            name: name.to_owned(),
            guarding: Guarding::By(Guard::Enforce),
            namespace: None,
            deployments: Vec::new(),
            histories: Ok(histories),
            isolation: Ok(isolation),
        })
    }

    /// What the record of a Deployment says; no record is an empty history.
    pub fn history(&self, deployment: &str) -> Option<History> {
        let histories = self.histories.as_ref().ok()?;
        histories.get(deployment).cloned().unwrap_or_else(|| Some(History::default()))
    }
}

/// Reads these namespaces, in the order given. An error is a sentence: which right is missing, what does not exist.
pub async fn read(client: &Client, own_namespace: &str, names: &[String]) -> Result<Vec<Held>, String> {
    let each = names.iter().map(|name| async move {
        let attempt = Attempt::new("get", "namespaces").named(name);
        let found =
            client.request::<Json>(request("get", Request::new(NAMESPACES).get(name, &Default::default()))?).await;
        let namespace = match found {
            Ok(found) => Ok(found),
            Err(kube::Error::Api(status)) if status.code == 403 => Err(attempt.explain(&kube::Error::Api(status))),
            Err(error) => return Err(attempt.explain(&error)),
        };
        hold(client, own_namespace, name, namespace).await
    });
    futures::stream::iter(each.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
}

/// Reads every guarded namespace, by name.
pub async fn read_guarded(client: &Client, own_namespace: &str) -> Result<Vec<Held>, String> {
    let attempt = Attempt::new("list", "namespaces");
    let wanted = ListParams::default().labels(keys::GUARD);
    let mut found = list(client, NAMESPACES, &wanted).await.map_err(|error| attempt.explain(&error))?;
    found.retain(|namespace| name_of(namespace) != "kube-system" && name_of(namespace) != own_namespace);
    let each = found.into_iter().map(|namespace| async move {
        let name = name_of(&namespace).to_owned();
        hold(client, own_namespace, &name, Ok(namespace)).await
    });
    futures::stream::iter(each.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
}

const NAMESPACES: &str = "/api/v1/namespaces";

async fn hold(
    client: &Client,
    own_namespace: &str,
    name: &str,
    namespace: Result<Json, String>,
) -> Result<Held, String> {
    let path = format!("/apis/apps/v1/namespaces/{name}/deployments");
    let everything = ListParams::default();
    let records = Records::new(client.clone(), own_namespace);
    let shown = namespace.as_ref().ok().map(seen);
    let whole = whole(name, shown.as_ref());
    let (deployments, listed, isolation) =
        tokio::join!(list(client, &path, &everything), records.list(Some(name)), isolation::read(client, &whole));
    let attempt = Attempt::new("list", "deployments").within(name);
    let histories = match listed {
        Ok(listed) => {
            let of = |(_, name, record)| (name, facts::history(Some(&record)).0);
            Ok(listed.into_iter().map(of).collect())
        }
        Err(RecordError::Cluster(why)) => Err(why),
        Err(other) => Err(other.to_string()),
    };
    let guarding = match &namespace {
        Err(why) => Guarding::Unknown(why.clone()),
        Ok(found) => match json::str_at(found, &["metadata", "labels", keys::GUARD]).map(str::parse) {
            Some(Ok(guard)) => Guarding::By(guard),
            Some(Err(odd)) => Guarding::Odd(odd),
            None => Guarding::Not,
        },
    };
    Ok(Held {
        name: name.to_owned(),
        guarding,
        namespace: shown,
        deployments: deployments.map_err(|error| attempt.explain(&error))?,
        histories,
        isolation: isolation.map(|facts| facts.isolation.unwrap_or_default()),
    })
}

/// The namespace for the reader of what keeps it apart, which asks about it by its name alone.
fn whole(name: &str, shown: Option<&Json>) -> Namespace {
    let texts = |key| match shown.and_then(|shown| json::get(shown, key)) {
        Some(Json::Object(members)) => {
            let text = |(key, value)| Some((json::as_str(key)?.to_owned(), json::as_str(value)?.to_owned()));
            members.iter().filter_map(text).collect()
        }
        _ => BTreeMap::new(),
    };
    let (labels, annotations) = (texts("labels"), texts("annotations"));
    Namespace { name: name.to_owned(), guard: Guard::Enforce, unknown: None, labels, annotations }
}

/// `input.context.namespace`.
fn seen(namespace: &Json) -> Json {
    let part = |key| json::at(namespace, &["metadata", key]).cloned().unwrap_or_else(Json::new_object);
    let mut annotations = part("annotations");
    remove(&mut annotations, keys::LAST_APPLIED);
    facts::object([("labels", part("labels")), ("annotations", annotations)])
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Json>,
}

/// All pages of a list, managedFields left out. A list that changed too much between two pages is read again in one.
async fn list(client: &Client, path: &str, wanted: &ListParams) -> kube::Result<Vec<Json>> {
    let mut params = ListParams { limit: Some(PAGE), ..wanted.clone() };
    let mut found = Vec::new();
    loop {
        let asked = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
        let page: Page = match client.request(asked).await {
            Err(kube::Error::Api(status)) if status.code == 410 && params.continue_token.is_some() => {
                found.clear();
                params = wanted.clone();
                continue;
            }
            page => page?,
        };
        found.extend(page.items.into_iter().map(lean));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

fn request<T>(verb: &'static str, built: Result<T, kube::core::request::Error>) -> Result<T, String> {
    built.map_err(|error| Attempt::new(verb, "namespaces").explain(&kube::Error::BuildRequest(error)))
}

fn name_of(object: &Json) -> &str {
    json::str_at(object, &["metadata", "name"]).unwrap_or_default()
}

/// No policy has a use for managedFields, and they are a third of an object.
fn lean(mut object: Json) -> Json {
    if let Json::Object(members) = &mut object
        && let Some(metadata) = std::sync::Arc::make_mut(members).get_mut(&Json::from("metadata"))
    {
        remove(metadata, "managedFields");
    }
    object
}

fn remove(object: &mut Json, key: &str) {
    if let Json::Object(members) = object {
        std::sync::Arc::make_mut(members).remove(&Json::from(key));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake::{self, Answer, Asked};

    fn deployment(name: &str) -> serde_json::Value {
        json!({"metadata": {"name": name, "managedFields": [{}]}})
    }

    fn page(names: [&str; 2], next: &str) -> Answer {
        let items = names.map(deployment);
        Answer::Json(200, json!({"kind": "List", "metadata": {"continue": next}, "items": items}))
    }

    /// Three pages, of which the second is gone when it is asked for, if `expires`.
    fn client(expires: bool) -> Client {
        fake::client(move |Asked { line, .. }| {
            let has = |part: &str| line.contains(part);
            match line.split('?').next().unwrap_or_default() {
                "GET /api/v1/namespaces/shop" => fake::refusal(403, "namespaces \"shop\" is forbidden: User \"ana\" cannot get"),
                "GET /api/v1/namespaces" => fake::list(&["shop", "kube-system", "own"].map(|name| {
                    json!({"metadata": {"name": name, "labels": {keys::GUARD: "audti"}, "annotations": {keys::LAST_APPLIED: "x"}}})
                })),
                _ if has("/deployments") && !has("limit=") => page(["a", "b"], ""),
                _ if has("/deployments") && has("continue=two") && expires => fake::refusal(410, "too old"),
                _ if has("/deployments") && has("continue=two") => page(["c", "d"], ""),
                _ if has("/deployments") => page(["a", "b"], "two"),
                "GET /api/v1/namespaces/own/configmaps" => fake::refusal(403, "configmaps is forbidden: User \"ana\" cannot list"),
                _ if has("/limitranges") || has("/resourcequotas") => fake::list(&[]),
                _ if has("/networkpolicies") => fake::refusal(403, "networkpolicies is forbidden: User \"ana\" cannot list"),
                other => panic!("{other}"),
            }
        })
    }

    #[tokio::test]
    async fn lists_come_in_pages_and_expired_ones_again() {
        for (expires, expected) in [(false, vec!["a", "b", "c", "d"]), (true, vec!["a", "b"])] {
            let held = read(&client(expires), "own", &["shop".to_owned()]).await.unwrap();
            let names: Vec<_> = held[0].deployments.iter().map(name_of).collect();
            assert_eq!(names, expected);
            assert_eq!(json::at(&held[0].deployments[0], &["metadata", "managedFields"]), None);
        }
    }

    #[tokio::test]
    async fn what_may_not_be_read_is_said_and_the_rest_is_read() {
        let held = read(&client(false), "own", &["shop".to_owned()]).await.unwrap().remove(0);
        assert_eq!(held.guarding, Guarding::Unknown("no right to get namespaces: User \"ana\" lacks it".to_owned()));
        assert!(held.histories.as_ref().unwrap_err().contains("no right to list configmaps in namespace own"));
        assert_eq!((held.namespace.as_ref(), held.history("a")), (None, None));
        assert!(held.isolation.unwrap_err().contains("no right to list networkpolicies in namespace shop"));
    }

    #[tokio::test]
    async fn guarded_namespaces_without_those_that_are_off_limits() {
        let held = read_guarded(&client(false), "own").await.unwrap();
        let names: Vec<_> = held.iter().map(|held| held.name.as_str()).collect();
        assert_eq!(names, ["shop"]);
        assert_eq!(held[0].guarding, Guarding::Odd(UnknownGuard("audti".to_owned())));
        assert_eq!(
            held[0].namespace.as_ref().unwrap().to_string(),
            r#"{"annotations":{},"labels":{"surefoot.dev/guard":"audti"}}"#
        );
    }
}
