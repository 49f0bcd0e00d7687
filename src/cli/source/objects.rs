//! A document → the Kubernetes objects in it, as kubectl takes it apart: the items of a List, and of a List in that.

use super::set;
use crate::{
    config::yaml,
    template::{Json, json},
};

/// A place of a document where an object should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// JSON pointer into the document.
    pub(super) pointer: String,
    /// Its kind and itself; or why it is none, with the way out.
    pub(super) object: Result<(String, Json), String>,
}

/// Everything that `root` holds, in order.
pub(super) fn of(root: &Json) -> Vec<Found> {
    let mut found = Vec::new();
    take(root.clone(), String::new(), &mut found);
    found
}

/// Whether it is an object, or a list of some, for all that kubectl might refuse it. A list of settings is none, and
/// neither are the values of a chart that say `kind: Deployment` and no more of one.
pub(super) fn is_any(root: &Json) -> bool {
    match root {
        Json::Object(_) if items(root).is_some_and(holds_objects) => true,
        Json::Object(_) => match (text(root, "kind"), text(root, "apiVersion")) {
            (Some("Deployment"), None) => json::get(root, "spec").is_some(),
            (Some(_), _) => true,
            // Nothing else is served there, so something was forgotten.
            (None, version) => {
                version.is_some_and(|it| ["apps/", "extensions/"].iter().any(|group| it.starts_with(group)))
            }
        },
        Json::Array(elements) => holds_objects(elements.as_slice()),
        _ => false,
    }
}

fn take(value: Json, pointer: String, found: &mut Vec<Found>) {
    let object = match &value {
        Json::Array(elements) if holds_objects(elements.as_slice()) => Err(
            "a bare list of objects, which kubectl does not take: put `---` between them, or make them the items of a \
             List (apiVersion: v1, kind: List)"
                .to_owned(),
        ),
        Json::Object(_) => match text(&value, "kind").map(str::to_owned) {
            Some(kind) => return take_kind(kind, value, pointer, found),
            None => Err("not a Kubernetes object: it has no `kind`; write e.g. kind: Deployment".to_owned()),
        },
        _ => Err("not a Kubernetes object: it has no apiVersion and kind".to_owned()),
    };
    found.push(Found { pointer, object });
}

fn take_kind(kind: String, value: Json, pointer: String, found: &mut Vec<Found>) {
    let is_list = kind.ends_with("List");
    match json::get(&value, "items") {
        Some(Json::Array(items)) if is_list || holds_objects(items.as_slice()) => {
            for (position, item) in items.iter().enumerate() {
                let item = if is_list { completed(item, &kind, text(&value, "apiVersion")) } else { item.clone() };
                take(item, format!("{pointer}/items/{position}"), found);
            }
        }
        None | Some(Json::Null) if kind == "List" => {}
        Some(_) if kind == "List" || kind == "DeploymentList" => {
            let object = Err(format!("the items of a {kind} are no list: write items: [...]"));
            found.push(Found { pointer: format!("{pointer}/items"), object });
        }
        _ => {
            found.push(match known(&kind, &value) {
                Ok(()) => Found { pointer, object: Ok((kind, value)) },
                Err(message) => Found { pointer: format!("{pointer}/kind"), object: Err(message) },
            });
        }
    }
}

/// What `apps` serves is known, so a kind that it does not have is a slip: nobody would be told that nothing was judged.
fn known(kind: &str, value: &Json) -> Result<(), String> {
    const KINDS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ControllerRevision"];
    let version = text(value, "apiVersion").filter(|version| version.starts_with("apps/"));
    match version.filter(|_| !KINDS.contains(&kind.trim_end_matches("List"))) {
        Some(version) => Err(yaml::unknown(&format!("{version} has no kind"), kind, &KINDS)),
        None => Ok(()),
    }
}

/// An item of a typed list, such as the API server sends, need not say what the list says of all of them.
fn completed(item: &Json, list: &str, version: Option<&str>) -> Json {
    let implied = list.trim_end_matches("List");
    let mut item = item.clone();
    if implied.is_empty() || !matches!(item, Json::Object(_)) {
        return item;
    }
    if text(&item, "kind").is_none() {
        set(&mut item, "kind", Json::from(implied));
    }
    if let Some(version) =
        version.filter(|_| text(&item, "apiVersion").is_none() && text(&item, "kind") == Some(implied))
    {
        set(&mut item, "apiVersion", Json::from(version));
    }
    item
}

fn items(value: &Json) -> Option<&[Json]> {
    match json::get(value, "items") {
        Some(Json::Array(items)) => Some(items.as_slice()),
        _ => None,
    }
}

fn holds_objects(elements: &[Json]) -> bool {
    elements.iter().any(|it| text(it, "kind").is_some() && text(it, "apiVersion").is_some())
}

fn text<'a>(object: &'a Json, key: &str) -> Option<&'a str> {
    json::str_at(object, &[key]).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/items/0 apps/v1 Deployment`, or the pointer and the first words of what is wrong.
    fn summary(text: &str) -> Vec<String> {
        let told = |Found { pointer, object }: Found| match object {
            Ok((kind, value)) => format!("{pointer} {} {kind}", self::text(&value, "apiVersion").unwrap_or("-")),
            Err(message) => format!("{pointer} {}", message.split([':', ',']).next().unwrap()),
        };
        of(&Json::from_json_str(text).unwrap()).into_iter().map(told).collect()
    }

    #[test]
    fn lists_are_taken_apart_as_kubectl_does() {
        const D: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment"}"#;
        let list = |items: &str| format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{items}]}}"#);
        let typed =
            |items: &str| format!(r#"{{"apiVersion": "apps/v1", "kind": "DeploymentList", "items": [{items}]}}"#);
        let no_object = "not a Kubernetes object";
        let rows: [(String, &[&str]); 15] = [
            (D.to_owned(), &[" apps/v1 Deployment"]),
            (list(&list(D)), &["/items/0/items/0 apps/v1 Deployment"]),
            (list(&typed("{}")), &["/items/0/items/0 apps/v1 Deployment"]),
            (typed(r#"{}, {"kind": null}"#), &["/items/0 apps/v1 Deployment", "/items/1 apps/v1 Deployment"]),
            (typed(r#"{"kind": "Service"}"#), &["/items/0 - Service"]),
            (
                list(&format!("null, 5, {{}}, {D}")),
                &[
                    &format!("/items/0 {no_object}"),
                    &format!("/items/1 {no_object}"),
                    &format!("/items/2 {no_object}"),
                    "/items/3 apps/v1 Deployment",
                ],
            ),
            (list(""), &[]),
            (r#"{"kind": "List"}"#.to_owned(), &[]),
            (r#"{"kind": "List", "items": {"a": 1}}"#.to_owned(), &["/items the items of a List are no list"]),
            (r#"{"kind": "AllowList", "items": {"a": 1}}"#.to_owned(), &[" - AllowList"]),
            (format!(r#"{{"kind": "Bundle", "items": [{D}]}}"#), &["/items/0 apps/v1 Deployment"]),
            (format!("[{D}]"), &[" a bare list of objects"]),
            (
                r#"{"apiVersion": "apps/v1", "kind": "Deploymnt"}"#.to_owned(),
                &["/kind apps/v1 has no kind `Deploymnt`; did you mean `Deployment`?"],
            ),
            (r#"{"apiVersion": "apps/v1", "kind": "StatefulSet"}"#.to_owned(), &[" apps/v1 StatefulSet"]),
            (r#"{"apiVersion": "apps.example.com/v1", "kind": "Model"}"#.to_owned(), &[" apps.example.com/v1 Model"]),
        ];
        for (text, expected) in rows {
            assert_eq!(summary(&text), expected, "{text}");
        }
    }
}
