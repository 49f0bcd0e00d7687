//! Fields that Kubernetes does not know. The API server refuses them (kubectl asks it to), but the generated types drop
//! them in silence; what they list as their fields is read here while they decode.

use std::cell::RefCell;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value::StrDeserializer,
};
use serde_json::{Error, Value};

use super::tree::escape;

/// A field that the type at its place does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// JSON pointer.
    pub(super) path: String,
    pub(super) name: String,
    /// What the type has.
    pub(super) known: &'static [&'static str],
}

/// The first thing that does not decode.
#[derive(Debug)]
pub(super) struct Undecoded {
    /// JSON pointer.
    pub(super) path: String,
    pub(super) error: Error,
}

/// Reads `value` as a `T`, and gives every field that it does not know.
pub(super) fn unknown<T: DeserializeOwned>(value: &Value) -> Result<Vec<Unknown>, Undecoded> {
    let notes = Notes::default();
    let decoded = T::deserialize(Node { value, path: String::new(), notes: &notes });
    match decoded {
        Ok(_) => Ok(notes.unknown.into_inner()),
        Err(error) => Err(Undecoded { path: notes.undecoded.into_inner().unwrap_or_default(), error }),
    }
}

/// What is found on the way.
#[derive(Default)]
struct Notes {
    unknown: RefCell<Vec<Unknown>>,
    /// The innermost place that failed: those around it fail for its sake.
    undecoded: RefCell<Option<String>>,
}

/// A value that notes what its types do not know while they read it.
#[derive(Clone)]
struct Node<'a> {
    value: &'a Value,
    path: String,
    notes: &'a Notes,
}

impl<'a> Node<'a> {
    /// Reads what is one step below.
    fn read<S: DeserializeSeed<'a>>(&self, step: &str, value: &'a Value, seed: S) -> Result<S::Value, Error> {
        let path = format!("{}/{}", self.path, escape(step));
        seed.deserialize(Self { value, path: path.clone(), notes: self.notes }).inspect_err(|_| {
            self.notes.undecoded.borrow_mut().get_or_insert(path);
        })
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(members) => visitor.visit_map(Members { node: &self, members: members.iter(), next: None }),
            Value::Array(elements) => {
                visitor.visit_seq(Elements { node: &self, elements: elements.iter().enumerate() })
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        for name in self.value.as_object().into_iter().flat_map(|members| members.keys()) {
            if !fields.contains(&name.as_str()) {
                let path = format!("{}/{}", self.path, escape(name));
                self.notes.unknown.borrow_mut().push(Unknown { path, name: name.clone(), known: fields });
            }
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Members<'n, 'a> {
    node: &'n Node<'a>,
    members: serde_json::map::Iter<'a>,
    next: Option<(&'a String, &'a Value)>,
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.members.next();
        let Some((key, _)) = self.next else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = self.next.take().ok_or_else(|| Error::custom("a value before its key"))?;
        self.node.read(key, value, seed)
    }
}

struct Elements<'n, 'a> {
    node: &'n Node<'a>,
    elements: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some((index, value)) = self.elements.next() else { return Ok(None) };
        self.node.read(&index.to_string(), value, seed).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_deployment_does_not_have() {
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "Spec": 1,
            "metadata": {"name": "x", "labels": {"any": "thing"}, "annotation": {}},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"nodeSelector": {"a": "b"},
                "containers": [{"name": "a"}, {"name": "b", "readinesProbe": {"httpget": {}},
                    "livenessProbe": {"httpGet": {"port": "http", "pth": "/"}},
                    "resources": {"limits": {"odd.io/thing": "1"}, "limit": {}}}]}}}});
        let found: Vec<_> = unknown::<Deployment>(&value).unwrap().into_iter().map(|unknown| unknown.path).collect();
        let container = "/spec/template/spec/containers/1";
        let expected = [
            "/Spec",
            "/metadata/annotation",
            &format!("{container}/readinesProbe"),
            &format!("{container}/livenessProbe/httpGet/pth"),
            &format!("{container}/resources/limit"),
        ];
        assert_eq!(
            found.iter().collect::<std::collections::BTreeSet<_>>(),
            expected.map(str::to_owned).iter().collect()
        );
    }
}
