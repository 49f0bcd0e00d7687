//! Objects trimmed while they are decoded: what nobody asks for is skipped in the text and never allocated.
//!
//! ```
//! use kube::core::ObjectMeta;
//! use serde::Deserialize;
//!
//! /// Only what is needed of a Deployment.
//! #[derive(Clone, Debug, Deserialize)]
//! pub struct Deployment {
//!     #[serde(default, deserialize_with = "surefoot::cluster::wire::metadata")]
//!     pub metadata: ObjectMeta,
//!     #[serde(default)]
//!     pub spec: Spec,
//! }
//!
//! #[derive(Clone, Debug, Default, Deserialize)]
//! pub struct Spec {
//!     pub replicas: Option<i32>,
//! }
//!
//! surefoot::wire_kind!(Deployment, "apps", "v1", "Deployment", "deployments");
//! ```

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::template::keys;

/// Decodes metadata without managedFields and without what client-side apply writes: together they are most of an
/// object's text.
pub fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let lean = Lean::deserialize(deserializer)?;
    let mut annotations = lean.annotations;
    if let Some(annotations) = &mut annotations {
        annotations.remove(keys::LAST_APPLIED);
    }
    Ok(ObjectMeta {
        name: lean.name,
        namespace: lean.namespace,
        uid: lean.uid,
        resource_version: lean.resource_version,
        generation: lean.generation,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        labels: lean.labels,
        annotations,
        owner_references: lean.owner_references,
        ..ObjectMeta::default()
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lean {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// Makes a struct with a field `metadata: ObjectMeta` a namespaced kind that kube can get, list and watch.
#[macro_export]
macro_rules! wire_kind {
    ($type:ty, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        $crate::wire_kind!($type, $group, $version, $kind, $plural, NamespaceResourceScope);
    };
    ($type:ty, $group:literal, $version:literal, $kind:literal, $plural:literal, $scope:ident) => {
        impl ::kube::Resource for $type {
            type DynamicType = ();
            type Scope = ::kube::core::$scope;

            fn kind((): &()) -> ::std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> ::std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> ::std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> ::std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &::kube::core::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ::kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_keeps_what_is_used_and_drops_the_bulk() {
        let text = r#"{"name": "churn", "namespace": "shop", "uid": "u", "generation": 3, "selfLink": 7,
            "labels": {"a": "b"}, "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            "creationTimestamp": "2026-11-22T14:21:07Z",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "surefoot.dev/budget": "failures=5"}}"#;
        let meta = metadata(&mut serde_json::Deserializer::from_str(text)).unwrap();
        assert_eq!((meta.name.as_deref(), meta.generation), (Some("churn"), Some(3)));
        assert_eq!(meta.managed_fields, None);
        assert_eq!(meta.annotations.unwrap().into_keys().collect::<Vec<_>>(), ["surefoot.dev/budget"]);
    }
}
