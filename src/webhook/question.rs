//! What is asked of the webhook, so that the same is known again.
//!
//! A SHA-256 of the hook and the whole body, byte for byte, but for what is new in each request and decides nothing: the
//! times in `managedFields` (and all of it where nothing is added), and what the API server stamps on it, as far as no policy
//! of the set can see it ([`PolicySet::unseen`](crate::admission::PolicySet::unseen)).

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::review::Hook;

pub(super) type Sum = [u8; 32];

/// What is asked, whoever asks it how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) sum: Sum,
    /// Of this time; the answer brings it back.
    pub(super) uid: String,
}

impl Question {
    /// `None`: nothing to remember this by, or no review at all.
    pub(super) fn of(hook: Hook, body: &[u8], unseen: &[&str]) -> Option<Self> {
        // Each would be another one.
        if !unseen.contains(&"uid") {
            return None;
        }
        let Parts { request } = serde_json::from_slice(body).ok()?;
        let uid = request.uid.get().strip_prefix('"')?.strip_suffix('"')?;
        if uid.is_empty() || !uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return None;
        }
        let mut left_out = vec![request.uid.get()];
        for metadata in
            [&request.object, &request.old_object].into_iter().flatten().filter_map(|it| it.metadata.as_ref())
        {
            left_out.extend(metadata.managed_fields.map(RawValue::get));
            let stamps = metadata.stamps().into_iter().filter(|(name, _)| unseen.contains(name));
            left_out.extend(stamps.filter_map(|(_, value)| value.map(RawValue::get)).filter(|value| is_plain(value)));
        }
        // Where each begins in the body that it was read from.
        let mut left_out: Vec<_> = left_out.into_iter().map(|it| (it.as_ptr() as usize, it.len())).collect();
        left_out.sort_unstable();
        let (mut sum, mut read) = (Sha256::new(), 0);
        sum.update(hook.name());
        // With their lengths: bodies of the same pieces leave the same out.
        let mut add = |piece: &[u8]| {
            sum.update((piece.len() as u64).to_be_bytes());
            sum.update(piece);
        };
        for (at, length) in left_out {
            let start = at.checked_sub(body.as_ptr() as usize)?;
            let piece = body.get(read..start)?;
            // A struct may be read from a list too: what stands in one is no member.
            if !piece.trim_ascii_end().ends_with(b":") {
                return None;
            }
            add(piece);
            read = start + length;
        }
        add(body.get(read..)?);
        if hook == Hook::Mutate {
            let metadata = request.object.as_ref().and_then(|object| object.metadata.as_ref());
            for part in metadata.and_then(|metadata| metadata.managed_fields).map_or(Some(Vec::new()), managers)? {
                add(part.as_bytes());
            }
        }
        Some(Self { sum: sum.finalize().into(), uid: uid.to_owned() })
    }
}

/// Who manages which fields of the object: what a default that follows its source depends on. `None`: nothing that an API server
/// sends.
fn managers(fields: &RawValue) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(default)]
        manager: &'a str,
        #[serde(default)]
        subresource: &'a str,
        #[serde(borrow, rename = "fieldsV1")]
        fields: &'a RawValue,
    }
    let entries: Vec<Entry<'_>> = serde_json::from_str(fields.get()).ok()?;
    // Written by controllers all the time, and nothing is added there.
    let entries = entries.into_iter().filter(|entry| entry.subresource != "status");
    let mut parts: Vec<String> = entries.map(|entry| format!("{:?} {}", entry.manager, entry.fields.get())).collect();
    // They are sorted by time.
    parts.sort_unstable();
    Some(parts)
}

/// The parts of a review that may be left out of its sum. A key that is there twice makes it none.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    request: RequestParts<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestParts<'a> {
    #[serde(borrow)]
    uid: &'a RawValue,
    #[serde(borrow, default)]
    object: Option<ObjectParts<'a>>,
    #[serde(borrow, default)]
    old_object: Option<ObjectParts<'a>>,
}

#[derive(Deserialize)]
struct ObjectParts<'a> {
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    managed_fields: Option<&'a RawValue>,
    #[serde(borrow, default)]
    creation_timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    generation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resource_version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uid: Option<&'a RawValue>,
}

impl<'a> Metadata<'a> {
    fn stamps(&self) -> [(&'static str, Option<&'a RawValue>); 4] {
        [
            ("creationTimestamp", self.creation_timestamp),
            ("generation", self.generation),
            ("resourceVersion", self.resource_version),
            ("uid", self.uid),
        ]
    }
}

/// As the API server writes it. What is not may make a body one that cannot be read, and that is no matter of its value.
fn is_plain(value: &str) -> bool {
    match value.strip_prefix('"') {
        Some(text) => !text.contains('\\'),
        None => value.len() < 18 && value.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_uid_of_the_request_is_left_out() {
        let unseen = ["creationTimestamp", "generation", "resourceVersion", "uid"];
        let of = |body: &str| Question::of(Hook::Validate, body.as_bytes(), &unseen);
        let one = of(r#"{"request":{"uid":"a-1","object":{"uid":"x"}}}"#).unwrap();
        let two = of(r#"{"request":{"uid":"b","object":{"uid":"x"}}}"#).unwrap();
        assert_eq!((one.sum == two.sum, one.uid.as_str(), two.uid.as_str()), (true, "a-1", "b"));
        assert_ne!(one.sum, of(r#"{"request":{"uid":"a-1","object":{"uid":"y"}}}"#).unwrap().sum);
        assert_ne!(
            one.sum,
            Question::of(Hook::Mutate, br#"{"request":{"uid":"a-1","object":{"uid":"x"}}}"#, &unseen).unwrap().sum
        );
        // The same bytes, cut elsewhere.
        let early = of(r#"{"request":{"uid":"x","object":{"name":""}}}"#).unwrap();
        let late = of(r#"{"request":{"object":{"name":""},"uid":"x"}}"#).unwrap();
        assert_ne!(early.sum, late.sum);
        let with = |metadata: &str| of(&format!(r#"{{"request":{{"uid":"a","object":{{"metadata":{metadata}}}}}}}"#));
        let same = |one: &str, other: &str| with(one).unwrap().sum == with(other).unwrap().sum;
        assert!(same(
            r#"{"uid":"x","generation":1,"managedFields":[1]}"#,
            r#"{"uid":"y","generation":22,"managedFields":{}}"#
        ));
        assert!(same(r#"{"resourceVersion": "1"}"#, r#"{"resourceVersion": "22"}"#));
        for (one, other) in [
            (r#"{"uid":"x"}"#, r#"{"name":"x"}"#),
            (r#"{"uid":"x"}"#, "{}"),
            (r#"{"uid":"x"}"#, r#"{"uid":null}"#),
            (r#"{"uid":"x"}"#, r#"{"uid":["x"]}"#),
            (r#"{"uid":"x"}"#, r#"{"uid":"\\u0061"}"#),
            (r#"{"generation":1}"#, r#"{"generation":1e999}"#),
            (r#"{"uid":"x","name":""}"#, r#"{"name":"","uid":"x"}"#),
            (r#"{"labels":{"uid":"x"}}"#, r#"{"labels":{"uid":"y"}}"#),
            (r#"{"ownerReferences":[{"uid":"x"}]}"#, r#"{"ownerReferences":[{"uid":"y"}]}"#),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
        let managed = |hook, text: &str| {
            let body = format!(r#"{{"request":{{"uid":"a","object":{{"metadata":{{"managedFields":{text}}}}}}}}}"#);
            Question::of(hook, body.as_bytes(), &unseen).map(|question| question.sum)
        };
        let entry = |manager: &str, more: &str, time: u8| {
            format!(r#"{{"manager":"{manager}","time":"2026-11-22T15:00:0{time}Z","fieldsV1":{{"f:a":{{}}}}{more}}}"#)
        };
        let one = format!("[{},{}]", entry("flux", "", 1), entry("kubectl", "", 2));
        let later = format!("[{},{}]", entry("kubectl", "", 3), entry("flux", "", 4));
        let status = format!(
            "[{},{},{}]",
            entry("kubectl", "", 3),
            entry("flux", "", 4),
            entry("m", r#","subresource":"status""#, 5)
        );
        let other = format!("[{},{}]", entry("flux", "", 1), entry("helm", "", 2));
        for same in [&later, &status] {
            assert!(
                managed(Hook::Mutate, &one).is_some() && managed(Hook::Mutate, &one) == managed(Hook::Mutate, same)
            );
        }
        assert_ne!(managed(Hook::Mutate, &one), managed(Hook::Mutate, &other));
        assert_eq!(managed(Hook::Validate, &one), managed(Hook::Validate, &other));
        assert_eq!(managed(Hook::Mutate, "[1]"), None);
        assert_eq!(with(r#"[1,"x"]"#), None, "a list has no members");
        assert_eq!(with(r#"{"uid":"x","uid":"y"}"#), None);
        assert_eq!(Question::of(Hook::Validate, br#"{"request":{"uid":"a"}}"#, &["generation"]), None);
        for body in [
            "",
            "{}",
            "[]",
            r#"{"request":{}}"#,
            r#"{"request":{"uid":""}}"#,
            r#"{"request":{"uid":7}}"#,
            r#"{"request":{"uid":"a\u0022"}}"#,
            r#"{"request":{"uid":"a","uid":"b"}}"#,
            r#"{"request":{"uid":"a"}} {}"#,
        ] {
            assert_eq!(of(body), None, "{body}");
        }
    }
}
