//! The tree that everything pure reads: [`Json`], which is the Rego engine's own value, behind one name.
//!
//! Cloning is cheap (shared subtrees); integers stay exact. Absent and of another kind are the same here: lookups give
//! `None`. The engine's own `as_*` methods are not used: their errors are built (with a backtrace) even when dropped.

/// A JSON value. `Json::Undefined` never occurs in a tree that was parsed.
pub use regorus::Value as Json;

/// The member `key` of an object; `None` where `tree` is no object or has no such member.
pub fn get<'a>(tree: &'a Json, key: &str) -> Option<&'a Json> {
    match tree {
        Json::Object(members) => members.get(&Json::from(key)),
        _ => None,
    }
}

/// Follows `path` through objects; `None` as soon as a step is missing.
pub fn at<'a>(tree: &'a Json, path: &[&str]) -> Option<&'a Json> {
    path.iter().try_fold(tree, |node, key| get(node, key))
}

/// The text of a string.
pub fn as_str(node: &Json) -> Option<&str> {
    match node {
        Json::String(text) => Some(text),
        _ => None,
    }
}

/// The string at `path`.
pub fn str_at<'a>(tree: &'a Json, path: &[&str]) -> Option<&'a str> {
    as_str(at(tree, path)?)
}

/// The integer at `path`.
pub fn int_at(tree: &Json, path: &[&str]) -> Option<i64> {
    match at(tree, path)? {
        Json::Number(number) => number.as_i64(),
        _ => None,
    }
}

/// The elements of the list at `path`; empty where there is none.
pub fn list_at<'a>(tree: &'a Json, path: &[&str]) -> &'a [Json] {
    match at(tree, path) {
        Some(Json::Array(elements)) => elements.as_slice(),
        _ => &[],
    }
}
