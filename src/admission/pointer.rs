//! JSON pointers (RFC 6901) into a Deployment: looked up, named as people name them, and compared across two versions of
//! an object in which a list may have moved.

use std::fmt::Write as _;

use crate::template::{Json, json};

/// The unescaped steps of a pointer.
pub(super) fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// One step further down.
pub(super) fn step<'a>(node: &'a Json, step: &str) -> Option<&'a Json> {
    match node {
        Json::Object(_) => json::get(node, step),
        Json::Array(elements) => elements.get(index(step)?),
        _ => None,
    }
}

/// The value at `pointer`; the empty pointer is the whole.
pub(super) fn lookup<'a>(root: &'a Json, pointer: &str) -> Option<&'a Json> {
    steps(pointer).iter().try_fold(root, |node, name| step(node, name))
}

/// A list index as RFC 6901 writes it.
pub(super) fn index(step: &str) -> Option<usize> {
    let is_index = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    if is_index { step.parse().ok() } else { None }
}

/// A step of a place: the same for a list element that has moved, as long as it keeps its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Named(String),
}

/// Where `pointer` leads in `root`, with list elements by name where they have one.
pub(super) fn place(root: &Json, pointer: &str) -> Vec<Step> {
    let mut node = Some(root);
    let mut place = Vec::new();
    for name in steps(pointer) {
        let below = node.and_then(|node| step(node, &name));
        let element = match (node, below) {
            (Some(Json::Array(_)), Some(element)) => json::str_at(element, &["name"]),
            _ => None,
        };
        place.push(element.map_or_else(|| Step::Key(name.clone()), |name| Step::Named(name.to_owned())));
        node = below;
    }
    place
}

/// The value at a place.
pub(super) fn value_at<'a>(root: &'a Json, place: &[Step]) -> Option<&'a Json> {
    place.iter().try_fold(root, |node, wanted| match (wanted, node) {
        (Step::Key(key), _) => step(node, key),
        (Step::Named(name), Json::Array(elements)) => {
            elements.iter().find(|element| json::str_at(element, &["name"]) == Some(name))
        }
        (Step::Named(_), _) => None,
    })
}

/// As Kubernetes writes it: `spec.template.spec.containers[0].image`, `metadata.labels[app.kubernetes.io/version]`.
pub fn notation(pointer: &str) -> String {
    let mut text = String::new();
    for step in steps(pointer) {
        let is_plain =
            !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let _ = match (index(&step), is_plain) {
            (None, true) if text.is_empty() => write!(text, "{step}"),
            (None, true) => write!(text, ".{step}"),
            _ => write!(text, "[{step}]"),
        };
    }
    text
}

/// The name of the innermost list element (a container, a volume) on the way to `pointer`.
pub(super) fn innermost_name(root: &Json, pointer: &str) -> Option<String> {
    place(root, pointer).into_iter().rev().find_map(|step| match step {
        Step::Named(name) => Some(name),
        Step::Key(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_as_people_read_them() {
        let rows = [
            ("", ""),
            ("/spec/replicas", "spec.replicas"),
            ("/spec/template/spec/containers/0/readinessProbe", "spec.template.spec.containers[0].readinessProbe"),
            ("/metadata/labels/app.kubernetes.io~1version", "metadata.labels[app.kubernetes.io/version]"),
            ("/metadata/labels/a~0b", "metadata.labels[a~b]"),
            ("/spec/x//y", "spec.x[].y"),
        ];
        for (pointer, text) in rows {
            assert_eq!(notation(pointer), text);
        }
    }

    #[test]
    fn a_place_stays_the_same_when_the_list_moves() {
        let old = Json::from_json_str(r#"{"c":[{"name":"a","x":1},{"name":"b","x":2},{"x":3}]}"#).unwrap();
        let new = Json::from_json_str(r#"{"c":[{"name":"b","x":2},{"x":3}]}"#).unwrap();
        assert_eq!(place(&old, "/c/1/x"), place(&new, "/c/0/x"));
        assert_ne!(place(&old, "/c/2/x"), place(&new, "/c/1/x"));
        assert_eq!(value_at(&old, &place(&new, "/c/0/x")), Some(&Json::from(2)));
        assert_eq!(lookup(&old, "/c/2/x"), Some(&Json::from(3)));
        assert_eq!((lookup(&old, "/c/02/x"), lookup(&old, "/c/-/x"), lookup(&old, "/c/9/x")), (None, None, None));
        assert_eq!(innermost_name(&old, "/c/1/x").as_deref(), Some("b"));
    }
}
