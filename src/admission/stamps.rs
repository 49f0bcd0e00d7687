//! What the API server stamps on requests and objects: new each time, though the same is asked.
//!
//! ```text
//!   sources, configuration ── which of them are named ──▶ the rest is taken out of every request before anything is asked
//! ```
//!
//! Who asks for a dry run of the same file twice sends two reviews that differ in nothing else. A verdict may not depend on
//! what it was not given, so both get the same one; and whoever remembers verdicts need not look at it. A policy that means
//! one of these fields has to name it, and then it is there.

use super::{
    policy_set::Source,
    wire::{Request, set},
};
use crate::{
    config::Config,
    template::{Json, json},
};

/// Members of `metadata`; `uid` is one of the request too.
const STAMPS: [&str; 4] = ["creationTimestamp", "generation", "resourceVersion", "uid"];

/// The stamps that no policy can see, because neither a policy nor its configuration names them.
pub(super) fn unseen(sources: &[Source], config: &Config) -> Vec<&'static str> {
    let texts = || sources.iter().map(|source| source.text.as_str()).chain([config.origin.text.as_str()]);
    STAMPS.into_iter().filter(|stamp| !texts().any(|text| names(text, stamp))).collect()
}

/// Whether `word` stands in `text` as a word of its own, but for lines that are comments. What is put together at run time
/// is no name.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let stands_alone = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(|c| is_part(c) || c == '-') && !after.is_some_and(is_part)
    };
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.into_iter().any(|line| line.match_indices(word).any(|(at, _)| stands_alone(line, at)))
}

/// The request without these stamps, its objects too.
pub(super) fn without(request: &Request, stamps: &[&str]) -> Request {
    request.with_tree(|tree| {
        if stamps.contains(&"uid") {
            remove(tree, &["uid"]);
        }
        for object in ["object", "oldObject"] {
            let Some(Json::Object(_)) = json::at(tree, &[object, "metadata"]) else { continue };
            let Some(mut whole) = json::get(tree, object).cloned() else { continue };
            let Some(mut metadata) = json::get(&whole, "metadata").cloned() else { continue };
            if remove(&mut metadata, stamps) {
                set(&mut whole, "metadata", metadata);
                set(tree, object, whole);
            }
        }
    })
}

/// `object` with the stamps of `given` that it lacks.
pub(super) fn put_back(object: &mut Json, given: &Json) {
    let Some(mut metadata) = json::get(object, "metadata").cloned() else { return };
    for stamp in STAMPS {
        if let (None, Some(value)) = (json::get(&metadata, stamp), json::at(given, &["metadata", stamp])) {
            set(&mut metadata, stamp, value.clone());
        }
    }
    set(object, "metadata", metadata);
}

/// Whether any of them was there.
fn remove(object: &mut Json, keys: &[&str]) -> bool {
    let present: Vec<Json> =
        keys.iter().filter(|key| json::get(object, key).is_some()).map(|key| Json::from(*key)).collect();
    if let Json::Object(members) = object {
        let members = std::sync::Arc::make_mut(members);
        present.iter().for_each(|key| drop(members.remove(key)));
    }
    !present.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (text, named) in [
            ("input.request.uid", true),
            ("input.request[\"uid\"]", true),
            ("object.get(input, [`request`, `uid`], 1)", true),
            ("x := uid-1", true),
            ("uid", true),
            ("{metadata: {uid: x}}", true),
            ("runAsUid: guid", false),
            ("my_uid", false),
            ("uid_of(x)", false),
            ("text-uid", false),
            ("\t# the uid of it", false),
            ("concat(\"\", [\"u\", \"id\"])", false),
            ("", false),
        ] {
            assert_eq!(names(text, "uid"), named, "{text}");
        }
    }

    #[test]
    fn they_are_taken_out_and_put_back() {
        let json = |text: &str| Json::from_json_str(text).unwrap();
        let stamped = |uid: &str| {
            json(&format!(
                r#"{{"metadata":{{"name":"m","uid":"{uid}","generation":3,"resourceVersion":"7"}},"uid":"kept"}}"#
            ))
        };
        let request = Request::update(stamped("old"), stamped("new"), "shop");
        let bare = without(&request, &["uid", "generation"]);
        let left = json(r#"{"metadata":{"name":"m","resourceVersion":"7"},"uid":"kept"}"#);
        assert_eq!((bare.object(), bare.old_object()), (&left, Some(&left)));
        assert_eq!((json::get(bare.tree(), "uid"), bare.uid.as_str()), (None, "offline"));
        assert_eq!(request.object(), &stamped("new"), "what was given is as it was");
        let mut object = bare.object().clone();
        put_back(&mut object, request.object());
        assert_eq!(object, stamped("new"));
        for odd in ["{}", r#"{"metadata":null}"#, r#"{"metadata":[1]}"#, r#"{"metadata":{"uid":{"a":1}}}"#] {
            let bare = without(&Request::create(json(odd), "shop"), &STAMPS);
            let mut object = bare.object().clone();
            put_back(&mut object, &json(odd));
            assert_eq!(object, json(odd), "{odd}");
        }
    }
}
