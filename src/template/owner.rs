//! Who manages an object: its controller ownerReference.

use super::json::{self, Json};

/// The controller of an object: it would undo what others change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// e.g. `serving.kserve.io/v1beta1`
    pub api_version: String,
    /// e.g. `InferenceService`
    pub kind: String,
    /// Name in the same namespace, or of a cluster-wide object.
    pub name: String,
    /// What really identifies it.
    pub uid: String,
}

/// The ownerReference with `controller: true` in `metadata`; the API server allows one at most.
pub fn controller_of(metadata: &Json) -> Option<Owner> {
    let owner = json::list_at(metadata, &["ownerReferences"])
        .iter()
        .find(|owner| matches!(json::get(owner, "controller"), Some(Json::Bool(true))))?;
    let text = |key| json::str_at(owner, &[key]).unwrap_or_default().to_owned();
    Some(Owner { api_version: text("apiVersion"), kind: text("kind"), name: text("name"), uid: text("uid") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_controls() {
        let rows = [
            ("{}", None),
            ("null", None),
            (r#"{"ownerReferences":[{"kind":"A","name":"a"}]}"#, None),
            (r#"{"ownerReferences":[{"kind":"A","controller":false}]}"#, None),
            (r#"{"ownerReferences":[{"kind":"A"},{"kind":"B","controller":true}]}"#, Some("B")),
        ];
        for (metadata, kind) in rows {
            let owner = controller_of(&Json::from_json_str(metadata).unwrap());
            assert_eq!(owner.map(|owner| owner.kind).as_deref(), kind, "{metadata}");
        }
    }
}
