//! The digest of a pod template: what identifies "the same version" across reverts, re-applies and ReplicaSets.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    json::Json,
    keys::{POD_TEMPLATE_HASH, RESTARTED_AT},
};

/// SHA-256 over the canonical JSON of a pod template, in the form `v1:<64 hex digits>`.
///
/// Equal for the template of a Deployment as admission sees it, as it is stored, and as its ReplicaSets carry it: the
/// hash label that the Deployment controller adds and the annotation of `kubectl rollout restart` do not count, nor do
/// nulls and empty objects or lists, which Go's encoder writes or leaves out as it likes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of `template`, the value of `spec.template` of a Deployment or ReplicaSet.
    pub fn of_template(template: &Json) -> Self {
        let mut canonical = Vec::with_capacity(4096);
        write(&mut canonical, template, Place::Template);
        let mut text = String::with_capacity(3 + 64);
        text.push_str("v1:");
        for byte in Sha256::digest(&canonical) {
            text.push(HEX[usize::from(byte >> 4)]);
            text.push(HEX[usize::from(byte & 15)]);
        }
        Self(text)
    }

    /// The text, `v1:` and 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

/// Where in the template a node is, as far as it decides what is left out.
#[derive(Clone, Copy)]
enum Place {
    Template,
    Metadata,
    LabelsOrAnnotations,
    Elsewhere,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Template, "metadata") => Self::Metadata,
            (Self::Metadata, "labels" | "annotations") => Self::LabelsOrAnnotations,
            _ => Self::Elsewhere,
        }
    }

    fn leaves_out(self, key: &str) -> bool {
        matches!(self, Self::LabelsOrAnnotations) && matches!(key, POD_TEMPLATE_HASH | RESTARTED_AT)
    }
}

/// Writes `node` with sorted keys and no spaces; `false`: it is null or empty (what was written is to be taken back).
fn write(out: &mut Vec<u8>, node: &Json, place: Place) -> bool {
    match node {
        Json::Null | Json::Undefined => {
            out.extend_from_slice(b"null");
            false
        }
        Json::Object(members) => {
            let mut any = false;
            out.push(b'{');
            for (key, value) in members.iter_sorted() {
                let Json::String(key) = key else { continue };
                if place.leaves_out(key) {
                    continue;
                }
                let before = out.len();
                if any {
                    out.push(b',');
                }
                write_scalar(out, &**key);
                out.push(b':');
                if write(out, value, place.below(key)) {
                    any = true;
                } else {
                    out.truncate(before);
                }
            }
            out.push(b'}');
            any
        }
        // An element is never left out, empty or not: the others would move.
        Json::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, element, Place::Elsewhere);
            }
            out.push(b']');
            !elements.is_empty()
        }
        scalar => {
            write_scalar(out, scalar);
            true
        }
    }
}

fn write_scalar(out: &mut Vec<u8>, scalar: impl Serialize) {
    // Writing text and numbers to memory cannot fail; were it to, the digest would differ and nothing else happen.
    let _ = serde_json::to_writer(out, &scalar);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(json: &str) -> Digest {
        Digest::of_template(&Json::from_json_str(json).unwrap())
    }

    /// The canonical form is part of every record: a change of it needs a new version prefix.
    #[test]
    fn form() {
        let digest = digest(r#"{"spec":{"containers":[{"name":"model","resources":{},"image":"a:1"}]}}"#);
        assert_eq!(digest.as_str(), "v1:9fdc89e45ad197770de242cf02c9d299b7fcab842c0318ea5a4a0aee872f82cc");
    }

    /// Rows: two templates, and whether they are the same version.
    #[test]
    fn same_or_not() {
        let rows = [
            (r#"{"spec":{"a":1,"b":2}}"#, r#"{"spec":{"b":2,"a":1}}"#, true),
            (
                r#"{"spec":{"a":1}}"#,
                r#"{"metadata":{"creationTimestamp":null,"labels":{}},"spec":{"a":1,"c":[],"d":{"e":{}}}}"#,
                true,
            ),
            (
                r#"{"metadata":{"labels":{"app":"churn"}}}"#,
                r#"{"metadata":{"labels":{"app":"churn","pod-template-hash":"7d9f4c"},"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-11-22T15:00:00Z"}}}"#,
                true,
            ),
            (r#"{"metadata":{"annotations":{"a":"1"}}}"#, r#"{"metadata":{"annotations":{"a":"2"}}}"#, false),
            // Only where the controller and kubectl write them.
            (
                r#"{"spec":{"nodeSelector":{"a":"1"}}}"#,
                r#"{"spec":{"nodeSelector":{"a":"1","pod-template-hash":"x"}}}"#,
                false,
            ),
            (r#"{"pod-template-hash":"x","spec":{"a":1}}"#, r#"{"spec":{"a":1}}"#, false),
            (r#"{"spec":{"c":[{"name":"a"},{"name":"b"}]}}"#, r#"{"spec":{"c":[{"name":"b"},{"name":"a"}]}}"#, false),
            (r#"{"spec":{"c":[{},1]}}"#, r#"{"spec":{"c":[1]}}"#, false),
            (r#"{"spec":{"a":1}}"#, r#"{"spec":{"a":"1"}}"#, false),
            (r#"{"spec":{"a":false}}"#, r#"{"spec":{}}"#, false),
            (r#"{"spec":{"a":0}}"#, r#"{"spec":{}}"#, false),
            (r#"{"spec":{"a":""}}"#, r#"{"spec":{}}"#, false),
            (r#"{"spec":{"a":"b\",\"c\":\"d"}}"#, r#"{"spec":{"a":"b","c":"d"}}"#, false),
            ("{}", "null", false),
        ];
        for (one, other, same) in rows {
            assert_eq!(digest(one) == digest(other), same, "{one}\n{other}");
        }
    }
}
