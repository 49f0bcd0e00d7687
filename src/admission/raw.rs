//! What a policy returns, before it means anything: the shape is checked here, once.

use std::collections::BTreeSet;

use crate::template::{Json, json};

/// Findings of one policy about one Deployment; the largest have some 500 containers.
const MOST: usize = 10_000;
/// Of a code, in bytes: it stands in the first line of a denial.
const LONGEST: usize = 63;
/// Levels of a default, path and value together. A Deployment has some 15, and one with many more the webhook would refuse
/// to read when it is asked again.
const DEEPEST: usize = 50;

/// A member of `deny` or `warn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) path: String,
    pub(super) fix: String,
}

/// A member of `defaults`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Default {
    pub(super) path: String,
    pub(super) value: Json,
    pub(super) sticky: bool,
}

/// The members of `deny` or `warn`; `Err` says what is no finding.
pub(super) fn complaints(set: Option<&Json>) -> Result<Vec<Complaint>, String> {
    members(set)?.iter().map(complaint).collect()
}

/// The members of `defaults`, shallow paths first, so that an object is there before what goes into it.
pub(super) fn defaults(set: &Json) -> Result<Vec<Default>, String> {
    let mut found: Vec<Default> = members(Some(set))?.iter().map(default).collect::<Result<_, _>>()?;
    found.sort_by(|a, b| (a.path.matches('/').count(), &a.path).cmp(&(b.path.matches('/').count(), &b.path)));
    let mut paths = BTreeSet::new();
    match found.iter().find(|default| !paths.insert(&default.path)) {
        Some(twice) => Err(format!("two different values for {}", twice.path)),
        None => Ok(found),
    }
}

fn members(set: Option<&Json>) -> Result<Vec<Json>, String> {
    match set {
        None | Some(Json::Undefined) => Ok(Vec::new()),
        Some(Json::Set(members)) if members.len() > MOST => {
            Err(format!("it gave {} members, and more than {MOST} are a mistake", members.len()))
        }
        Some(Json::Set(members)) => Ok(members.iter_sorted().cloned().collect()),
        Some(other) => Err(format!("it gave {}, which is no set", shown(other))),
    }
}

fn complaint(value: &Json) -> Result<Complaint, String> {
    if let Some(message) = json::as_str(value) {
        return Ok(Complaint {
            code: String::new(),
            message: message.to_owned(),
            path: String::new(),
            fix: String::new(),
        });
    }
    let wrong = |why: &str| format!("it gave {}, which is no finding: {why}", shown(value));
    let Json::Object(_) = value else { return Err(wrong("it must be text or an object with `msg`")) };
    let text = |key: &str| match json::get(value, key) {
        None => Ok(String::new()),
        Some(Json::String(text)) => Ok(text.to_string()),
        Some(_) => Err(wrong(&format!("`{key}` must be text"))),
    };
    let is_word = |code: &str| code.len() <= LONGEST && !code.contains(|c: char| c.is_whitespace() || c.is_control());
    let complaint = Complaint { code: text("code")?, message: text("msg")?, path: text("path")?, fix: text("fix")? };
    if complaint.message.is_empty() {
        return Err(wrong("`msg` is missing"));
    }
    if !is_word(&complaint.code) {
        return Err(wrong("`code` must be one word of at most 63 characters, such as no-limit"));
    }
    if !complaint.path.is_empty() && !complaint.path.starts_with('/') {
        return Err(wrong("`path` must be a JSON pointer such as /spec/replicas"));
    }
    Ok(complaint)
}

fn default(value: &Json) -> Result<Default, String> {
    let wrong = |why: &str| format!("it gave {}, which is no default: {why}", shown(value));
    let path = match json::get(value, "path") {
        Some(Json::String(path)) if path.starts_with('/') && path.len() > 1 => path.to_string(),
        _ => return Err(wrong("`path` must be a JSON pointer such as /spec/minReadySeconds")),
    };
    let sticky = match json::get(value, "sticky") {
        None => true,
        Some(Json::Bool(sticky)) => *sticky,
        Some(_) => return Err(wrong("`sticky` must be true or false")),
    };
    match json::get(value, "value") {
        None | Some(Json::Null | Json::Undefined) => Err(wrong("`value` is missing")),
        Some(value) => match unfit(value, DEEPEST.checked_sub(path.matches('/').count())) {
            Some(why) => Err(wrong(why)),
            None => Ok(Default { path, value: value.clone(), sticky }),
        },
    }
}

/// Why a value cannot stand where it is to be added; `levels` are those that it may take, `None` where it may not be.
fn unfit(value: &Json, levels: Option<usize>) -> Option<&'static str> {
    const NOT_PLAIN: &str = "`value` must be plain JSON, without sets";
    let Some(levels) = levels else {
        return Some("it is nested more than 50 levels deep, and a Deployment has some 15");
    };
    let below = |value| unfit(value, levels.checked_sub(1));
    match value {
        Json::Set(_) | Json::Undefined => Some(NOT_PLAIN),
        Json::Array(elements) => elements.iter().find_map(below),
        Json::Object(members) => members
            .iter()
            .find_map(|(key, value)| if json::as_str(key).is_some() { below(value) } else { Some(NOT_PLAIN) }),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// At most 80 characters of a value.
fn shown(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
