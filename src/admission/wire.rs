//! The AdmissionReview on the wire: bytes in, a [`Request`] or a [`WireError`] out.
//!
//! The body is read once, straight into the tree that the Rego engine takes; what surefoot itself needs of it is then
//! looked up in that tree. `managedFields` never enters it: no policy has a use for it, and it is a third of the body. That of
//! the object is kept as it came, for the rare default that depends on it.
//!
//! Refused here, because the API server never sends it and two readers could disagree on it: duplicate keys, nesting
//! beyond [`MAX_DEPTH`], anything after the document.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::template::json::{self, Json};

/// Nesting of objects and lists that a review may have. A Deployment has some 15 levels.
pub const MAX_DEPTH: u8 = 100;

/// What the request does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Made new; there is no old object.
    Create,
    /// Changed.
    Update,
    /// Deleted or connected to: never judged, so never refused.
    Other,
}

/// Through which resource the request came: `input.context.via`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `deployments`.
    Deployment,
    /// `deployments/scale`.
    Scale,
}

impl Via {
    /// As policies see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Scale => "scale",
        }
    }
}

/// One admission request: the part that surefoot reads, typed, and the whole as the tree that policies see.
#[derive(Clone, Debug)]
pub struct Request {
    /// Comes back in the answer.
    pub uid: String,
    /// See [`Operation`].
    pub operation: Operation,
    /// Kind of the object as sent: `Deployment`, or `Scale` on the scale hook.
    pub kind: String,
    /// See [`Via`].
    pub via: Via,
    /// Empty in the mutating hook of a Deployment with `generateName`.
    pub name: String,
    /// Namespace of the Deployment.
    pub namespace: String,
    /// Who asks, as the API server authenticated it.
    pub user: String,
    /// Nothing will be stored.
    pub dry_run: bool,
    tree: Json,
    /// `metadata.managedFields` of the object, as it was sent.
    managed_fields: Option<Arc<str>>,
}

/// A body that cannot be answered with a verdict. The text is one sentence for the API server's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// HTTP status to answer with.
    pub status: u16,
    /// What is wrong with the body.
    pub message: String,
}

impl WireError {
    fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }
}

impl Request {
    /// Reads a whole AdmissionReview body.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let (review, managed_fields) = read(body)?;
        let text = |key| json::str_at(&review, &[key]).unwrap_or_default();
        if (text("apiVersion"), text("kind")) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(WireError::bad(format!(
                "this is `{}` of `{}`; surefoot answers AdmissionReview of admission.k8s.io/v1 only",
                short(text("kind")),
                short(text("apiVersion"))
            )));
        }
        match json::get(&review, "request") {
            Some(request @ Json::Object(_)) => Ok(Self { managed_fields, ..Self::of_tree(request.clone())? }),
            _ => Err(WireError::bad("the AdmissionReview has no `request`")),
        }
    }

    /// The request that `kubectl create` of `object` would make; for files.
    pub fn create(object: Json, namespace: &str) -> Self {
        let name = json::str_at(&object, &["metadata", "name"]).unwrap_or_default().to_owned();
        let gvk = tree([("group", "apps"), ("version", "v1"), ("kind", "Deployment")].map(|(k, v)| (k, Json::from(v))));
        let gvr =
            tree([("group", "apps"), ("version", "v1"), ("resource", "deployments")].map(|(k, v)| (k, Json::from(v))));
        let request = tree([
            ("uid", Json::from("offline")),
            ("operation", Json::from("CREATE")),
            ("kind", gvk),
            ("resource", gvr),
            ("name", Json::from(name.as_str())),
            ("namespace", Json::from(namespace)),
            ("userInfo", tree([("username", Json::from(""))])),
            ("object", object),
            ("oldObject", Json::Null),
            ("dryRun", Json::Bool(true)),
        ]);
        Self {
            uid: "offline".to_owned(),
            operation: Operation::Create,
            kind: "Deployment".to_owned(),
            via: Via::Deployment,
            name,
            namespace: namespace.to_owned(),
            user: String::new(),
            dry_run: true,
            tree: request,
            managed_fields: None,
        }
    }

    /// The request that `kubectl replace` of `old` by `object` would make; for a live cluster and for tests.
    pub fn update(old: Json, object: Json, namespace: &str) -> Self {
        let mut request = Self::create(object, namespace);
        request.operation = Operation::Update;
        set(&mut request.tree, "operation", Json::from("UPDATE"));
        set(&mut request.tree, "oldObject", old);
        request
    }

    /// A request about a namespace as a whole, for policies that judge one: its object is a Namespace with this name and
    /// the `{"labels", "annotations"}` of [`Facts::namespace`](super::Facts). No hook asks this.
    pub fn of_namespace(name: &str, seen: Option<&Json>) -> Self {
        let mut metadata = seen.cloned().unwrap_or_else(Json::new_object);
        set(&mut metadata, "name", Json::from(name));
        let object =
            tree([("apiVersion", Json::from("v1")), ("kind", Json::from("Namespace")), ("metadata", metadata)]);
        let mut request = Self::create(object, name);
        request.kind = "Namespace".to_owned();
        let of_core = |key, value: &str| {
            tree([("group", Json::from("")), ("version", Json::from("v1")), (key, Json::from(value))])
        };
        set(&mut request.tree, "kind", of_core("kind", "Namespace"));
        set(&mut request.tree, "resource", of_core("resource", "namespaces"));
        request
    }

    /// A Scale request as policies see it: the `deployment` it scales, with the replicas asked for.
    pub fn scaled(mut self, deployment: Json) -> Self {
        // Scale to 0 arrives as `spec: {}`: Go leaves a zero out.
        let replicas = json::int_at(&self.tree, &["object", "spec", "replicas"]).unwrap_or(0);
        let mut object = deployment.clone();
        let mut spec = json::get(&object, "spec").cloned().unwrap_or_else(Json::new_object);
        set(&mut spec, "replicas", Json::from(replicas));
        set(&mut object, "spec", spec);
        set(&mut self.tree, "object", object);
        set(&mut self.tree, "oldObject", deployment);
        self.via = Via::Scale;
        self
    }

    /// The same request with another object, e.g. after defaults were added.
    pub fn with_object(&self, object: Json) -> Self {
        self.with_tree(|tree| set(tree, "object", object))
    }

    /// The same request with its tree changed.
    pub(super) fn with_tree(&self, change: impl FnOnce(&mut Json)) -> Self {
        let mut changed = self.clone();
        change(&mut changed.tree);
        changed
    }

    /// Who asks for what, without the objects.
    pub fn head(&self) -> Self {
        let Self { uid, kind, name, namespace, user, .. } = self;
        Self {
            uid: uid.clone(),
            kind: kind.clone(),
            name: name.clone(),
            namespace: namespace.clone(),
            user: user.clone(),
            tree: Json::Null,
            managed_fields: None,
            ..*self
        }
    }

    #[cfg(test)]
    pub(super) fn with_managed_fields(self, text: Option<&str>) -> Self {
        Self { managed_fields: text.map(Into::into), ..self }
    }

    /// The whole request: `input.request`.
    pub fn tree(&self) -> &Json {
        &self.tree
    }

    /// The object asked for; `Null` where there is none.
    pub fn object(&self) -> &Json {
        json::get(&self.tree, "object").unwrap_or(&Json::Null)
    }

    /// The object as it is stored now; `None` on CREATE.
    pub fn old_object(&self) -> Option<&Json> {
        match self.operation {
            Operation::Update => json::get(&self.tree, "oldObject"),
            Operation::Create | Operation::Other => None,
        }
    }

    /// `metadata.managedFields` of the object asked for, as JSON; `None` where nothing was sent.
    pub(super) fn managed_fields(&self) -> Option<&str> {
        self.managed_fields.as_deref()
    }

    /// The object is a Deployment (a Scale becomes one by [`Request::scaled`]).
    pub fn is_deployment(&self) -> bool {
        self.kind == "Deployment" || self.via == Via::Scale
    }

    /// The object is a Namespace.
    pub(super) fn is_namespace(&self) -> bool {
        self.kind == "Namespace"
    }

    fn of_tree(request: Json) -> Result<Self, WireError> {
        let text = |path: &[&str]| json::str_at(&request, path).unwrap_or_default().to_owned();
        let uid = text(&["uid"]);
        if uid.is_empty() {
            return Err(WireError::bad("the request has no `uid`, so no answer to it could be matched"));
        }
        let operation = match text(&["operation"]).as_str() {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            "DELETE" | "CONNECT" => Operation::Other,
            other => return Err(WireError::bad(format!("unknown operation `{}`", short(other)))),
        };
        let kind = text(&["kind", "kind"]);
        if kind.is_empty() {
            return Err(WireError::bad("the request has no `kind`"));
        }
        let is_object = |key| matches!(json::get(&request, key), Some(Json::Object(_)));
        if operation != Operation::Other && !is_object("object") {
            return Err(WireError::bad("the request has no `object`"));
        }
        if operation == Operation::Update && !is_object("oldObject") {
            return Err(WireError::bad("an UPDATE without `oldObject`"));
        }
        // An object of a kind that the request does not name would be judged as what it is not.
        let sent = json::str_at(&request, &["object", "kind"]).unwrap_or(&kind);
        if operation != Operation::Other && sent != kind {
            return Err(WireError::bad(format!(
                "the request is about a {}, its object is a {}",
                short(&kind),
                short(sent)
            )));
        }
        let either = |key: &str| match text(&[key]) {
            found if found.is_empty() => text(&["object", "metadata", key]),
            found => found,
        };
        Ok(Self {
            uid,
            operation,
            via: Via::Deployment,
            name: either("name"),
            namespace: either("namespace"),
            user: text(&["userInfo", "username"]),
            dry_run: matches!(json::get(&request, "dryRun"), Some(Json::Bool(true))),
            kind,
            tree: request,
            managed_fields: None,
        })
    }
}

/// An object of the given members.
pub(super) fn tree<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::from(members.into_iter().map(|(key, value)| (Json::from(key), value)).collect::<BTreeMap<_, _>>())
}

/// Sets a member of an object; nothing happens to another kind of value.
pub(super) fn set(object: &mut Json, key: &str, value: Json) {
    if let Json::Object(members) = object {
        Arc::make_mut(members).insert(Json::from(key), value);
    }
}

/// At most 60 characters of something that a stranger sent, without control characters.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// The review, and `managedFields` of its object.
fn read(body: &[u8]) -> Result<(Json, Option<Arc<str>>), WireError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut seen = Seen { keys: Keys::new(), managed_fields: None };
    let review = Node { depth: 0, place: Place::Review, seen: &mut seen }
        .deserialize(&mut deserializer)
        .and_then(|review| deserializer.end().map(|()| review));
    match review {
        Ok(review) => Ok((review, seen.managed_fields.map(|fields| fields.get().into()))),
        Err(error) => Err(WireError::bad(format!("the body is no JSON that can be read: {error}"))),
    }
}

/// What is kept beside the tree while it is read.
struct Seen<'de> {
    keys: Keys,
    managed_fields: Option<&'de RawValue>,
}

/// Where in the review a value stands, as far as it matters for leaving `managedFields` out.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Review,
    Request,
    Object,
    Metadata,
    OldObject,
    OldMetadata,
    Elsewhere,
}

impl Place {
    fn member(self, key: &str) -> Self {
        match (self, key) {
            (Self::Review, "request") => Self::Request,
            (Self::Request, "object") => Self::Object,
            (Self::Object, "metadata") => Self::Metadata,
            (Self::Request, "oldObject") => Self::OldObject,
            (Self::OldObject, "metadata") => Self::OldMetadata,
            _ => Self::Elsewhere,
        }
    }
}

/// Reads one value and everything below it.
struct Node<'s, 'de> {
    depth: u8,
    place: Place,
    seen: &'s mut Seen<'de>,
}

impl Node<'_, '_> {
    fn depth_below<E: de::Error>(&self) -> Result<u8, E> {
        match self.depth {
            MAX_DEPTH.. => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))),
            depth => Ok(depth + 1),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, 'de> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, 'de> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let (depth, seen) = (self.depth_below()?, self.seen);
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(Node { depth, place: Place::Elsewhere, seen: &mut *seen })? {
            elements.push(element);
        }
        Ok(Json::from(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let (depth, place, seen) = (self.depth_below()?, self.place, self.seen);
        let mut members = BTreeMap::new();
        while let Some(key) = map.next_key_seed(&mut seen.keys)? {
            match (place, &*key) {
                (Place::Metadata, "managedFields") => {
                    seen.managed_fields = Some(map.next_value()?);
                    continue;
                }
                (Place::OldMetadata, "managedFields") => {
                    map.next_value::<de::IgnoredAny>()?;
                    continue;
                }
                _ => {}
            }
            let value = map.next_value_seed(Node { depth, place: place.member(&key), seen: &mut *seen })?;
            if let Some(_first) = members.insert(Json::String(Arc::clone(&key)), value) {
                return Err(de::Error::custom(format_args!("duplicate key `{}`", short(&key))));
            }
        }
        Ok(Json::from(members))
    }
}

/// Keys that came before, so that one that comes again (each entry of `env` has the same two) is not made again. Each has
/// one place; whoever comes later takes it.
struct Keys([Option<Arc<str>>; 64]);

impl Keys {
    fn new() -> Self {
        Self([const { None }; 64])
    }

    fn shared(&mut self, key: &str) -> Arc<str> {
        let ends = key.as_bytes().first().zip(key.as_bytes().last());
        let sum = ends.map_or(0, |(first, last)| key.len() + usize::from(*first) * 7 + usize::from(*last) * 3);
        let place = &mut self.0[sum % 64];
        match place {
            Some(known) if **known == *key => Arc::clone(known),
            _ => Arc::clone(place.insert(key.into())),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Keys {
    type Value = Arc<str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Arc<str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for &mut Keys {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Arc<str>, E> {
        Ok(self.shared(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn review(request: &str) -> String {
        format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{request}}}"#)
    }

    const HEAD: &str = r#""uid":"u","kind":{"group":"apps","version":"v1","kind":"Deployment"}"#;

    #[test]
    fn a_review_is_read_once_and_typed() {
        let body = review(&format!(
            r#"{{{HEAD},"operation":"UPDATE","name":"churn","namespace":"shop","dryRun":true,
                "userInfo":{{"username":"ana"}},
                "object":{{"kind":"Deployment","metadata":{{"name":"churn","managedFields":[1],"annotations":{{"managedFields":"stays"}}}}}},
                "oldObject":{{"metadata":{{"managedFields":[2]}},"spec":{{"replicas":18446744073709551615}}}}}}"#
        ));
        let request = Request::parse(body.as_bytes()).unwrap();
        assert_eq!((request.uid.as_str(), request.user.as_str()), ("u", "ana"));
        assert_eq!((request.name.as_str(), request.namespace.as_str()), ("churn", "shop"));
        assert_eq!((request.operation, request.dry_run, request.via), (Operation::Update, true, Via::Deployment));
        assert_eq!(json::at(request.object(), &["metadata", "managedFields"]), None);
        assert_eq!(request.managed_fields(), Some("[1]"));
        assert_eq!(json::str_at(request.object(), &["metadata", "annotations", "managedFields"]), Some("stays"));
        let old = request.old_object().unwrap();
        assert_eq!(old.to_string(), r#"{"metadata":{},"spec":{"replicas":18446744073709551615}}"#);
    }

    #[test]
    fn bodies_that_get_400_and_a_sentence() {
        let deep = |n: usize| review(&format!(r#"{{{HEAD},"x":{}{}}}"#, "[".repeat(n), "]".repeat(n)));
        let rows: Vec<(String, &str)> = vec![
            (String::new(), "EOF"),
            ("nonsense".into(), "expected"),
            ("[]".into(), "AdmissionReview of admission.k8s.io/v1 only"),
            ("{}".into(), "AdmissionReview of admission.k8s.io/v1 only"),
            (review("{}").replace("v1\"", "v1beta1\""), "`AdmissionReview` of `admission.k8s.io/v1beta1`"),
            (review("{}").replace("AdmissionReview", "Pod"), "this is `Pod`"),
            (review("null"), "no `request`"),
            (review("{}"), "no `uid`"),
            (review(r#"{"uid":7}"#), "no `uid`"),
            (review(r#"{"uid":"u","operation":"PATCH"}"#), "unknown operation `PATCH`"),
            (review(r#"{"uid":"u","operation":"CREATE"}"#), "no `kind`"),
            (review(&format!(r#"{{{HEAD},"operation":"CREATE"}}"#)), "no `object`"),
            (review(&format!(r#"{{{HEAD},"operation":"CREATE","object":"text"}}"#)), "no `object`"),
            (review(&format!(r#"{{{HEAD},"operation":"UPDATE","object":{{}}}}"#)), "without `oldObject`"),
            (
                review(&format!(r#"{{{HEAD},"operation":"CREATE","object":{{"kind":"Pod"}}}}"#)),
                "about a Deployment, its object is a Pod",
            ),
            (review(r#"{"uid":"u","uid":"v"}"#), "duplicate key `uid`"),
            (format!("{} x", review("{}")), "trailing"),
            (deep(99), "nested deeper"),
            (deep(100_000), "nested deeper"),
            (r#"{"a":1e999}"#.into(), "out of range"),
        ];
        for (body, message) in rows {
            let error = Request::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.status, 400);
            assert!(error.message.contains(message), "{message}: got {error}");
        }
        let error = Request::parse(b"{\"apiVersion\":\"\xff\xfe\"}").unwrap_err();
        assert_eq!(error.status, 400, "{error}");
        assert!(Request::parse(&deep(98).into_bytes()).is_err_and(|error| error.message.contains("operation")));
    }

    #[test]
    fn a_truncated_body_is_refused_wherever_it_ends() {
        let body = review(&format!(r#"{{{HEAD},"operation":"CREATE","object":{{"kind":"Deployment"}}}}"#));
        assert!(Request::parse(body.as_bytes()).is_ok());
        for end in 0..body.len() {
            assert_eq!(Request::parse(&body.as_bytes()[..end]).unwrap_err().status, 400);
        }
    }

    #[test]
    fn a_delete_is_read_and_has_no_object() {
        let body = review(&format!(r#"{{{HEAD},"operation":"DELETE","object":null,"oldObject":{{}}}}"#));
        let request = Request::parse(body.as_bytes()).unwrap();
        assert_eq!((request.operation, request.object()), (Operation::Other, &Json::Null));
    }

    #[test]
    fn a_scale_is_seen_as_the_deployment_with_the_replicas_asked_for() {
        let deployment =
            Json::from_json_str(r#"{"metadata":{"name":"churn"},"spec":{"replicas":2,"paused":true}}"#).unwrap();
        let rows = [(r#"{"replicas":5}"#, 5), ("{}", 0)];
        for (spec, replicas) in rows {
            let body = review(&format!(
                r#"{{"uid":"u","kind":{{"kind":"Scale"}},"operation":"UPDATE","name":"churn","namespace":"shop",
                    "object":{{"kind":"Scale","spec":{spec}}},"oldObject":{{"kind":"Scale"}}}}"#
            ));
            let request = Request::parse(body.as_bytes()).unwrap();
            assert!(!request.is_deployment());
            let request = request.scaled(deployment.clone());
            assert!(request.is_deployment());
            assert_eq!(json::int_at(request.object(), &["spec", "replicas"]), Some(replicas));
            assert_eq!(json::at(request.object(), &["spec", "paused"]), Some(&Json::Bool(true)));
            assert_eq!(request.old_object(), Some(&deployment));
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<i32>().prop_map(|n| (f64::from(n) / 4.0).into()),
            "\\PC{0,8}".prop_map(Into::into),
        ];
        let key = prop_oneof![
            Just("request".to_owned()),
            Just("object".to_owned()),
            Just("kind".to_owned()),
            Just("metadata".to_owned()),
            Just("uid".to_owned()),
            "\\PC{0,4}",
        ];
        leaf.prop_recursive(6, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(key.clone(), inner, 0..5)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&body);
        }

        #[test]
        fn any_json_gets_an_answer_and_is_kept(value in any_json()) {
            let mut body = serde_json::json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
            body["request"] = serde_json::json!({"uid": "u", "kind": {"kind": "Deployment"}, "operation": "CREATE"});
            body["request"]["object"] = serde_json::json!({"spec": value});
            let request = Request::parse(body.to_string().as_bytes()).unwrap();
            prop_assert_eq!(json::get(request.object(), "spec").unwrap(), &Json::from(value.clone()));
            let _ = Request::parse(value.to_string().as_bytes());
        }
    }
}
