//! Who manages a field: `metadata.managedFields`, which the API server keeps. What a webhook adds stands in no entry, because
//! entries are written before webhooks are asked.

use serde_json::Value;

use super::pointer::Step;
use crate::template::keys;

/// Whether somebody manages the field at `place`, as the text of `managedFields` has it. What surefoot put back with a revert
/// counts as nobody's. `None`: it has no entries, or is no such list, and so says nothing.
pub(super) fn is_managed(managed_fields: &str, place: &[Step]) -> Option<bool> {
    let entries: Vec<Value> = serde_json::from_str(managed_fields).ok()?;
    let others = entries.iter().filter(|entry| entry["manager"] != keys::FIELD_MANAGER);
    (!entries.is_empty()).then(|| others.map(|entry| &entry["fieldsV1"]).any(|fields| has(fields, place)))
}

/// A place with nothing below it is managed whole.
fn has(fields: &Value, place: &[Step]) -> bool {
    let Some((first, rest)) = place.split_first() else { return true };
    let Some(members) = fields.as_object() else { return false };
    let is_whole = members.is_empty();
    let below = match first {
        Step::Key(key) => members.get(&format!("f:{key}")),
        Step::Named(name) => members.iter().find_map(|(key, below)| {
            let item: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
            (item["name"] == name.as_str()).then_some(below)
        }),
    };
    is_whole || below.is_some_and(|below| has(below, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::pointer::place;
    use crate::template::Json;

    #[test]
    fn a_field_is_found_in_the_entries() {
        let object = Json::from_json_str(
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"a","image":"x"},{"name":"b","image":"y"}]}}}}"#,
        )
        .unwrap();
        let entry = |manager: &str, fields: &str| format!(r#"{{"manager":"{manager}","fieldsV1":{fields}}}"#);
        let labels = r#"{"f:metadata":{"f:labels":{".":{},"f:a/b":{}}}}"#;
        let image =
            r#"{"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"b\"}":{".":{},"f:image":{}}}}}}}"#;
        let (label, second) = ("/metadata/labels/a~1b", "/spec/template/spec/containers/1/image");
        let rows = [
            (format!("[{}]", entry("kubectl", labels)), label, Some(true)),
            (format!("[{}]", entry("kubectl", labels)), "/metadata/labels/a", Some(false)),
            (format!("[{}]", entry("kubectl", r#"{"f:metadata":{"f:labels":{}}}"#)), label, Some(true)),
            (format!("[{}]", entry("surefoot", labels)), label, Some(false)),
            (format!("[{},{}]", entry("surefoot", labels), entry("helm", labels)), label, Some(true)),
            (format!("[{}]", entry("kubectl", image)), second, Some(true)),
            (format!("[{}]", entry("kubectl", image)), "/spec/template/spec/containers/0/image", Some(false)),
            ("[{}]".to_owned(), label, Some(false)),
            ("[7]".to_owned(), label, Some(false)),
            ("[]".to_owned(), label, None),
            ("{}".to_owned(), label, None),
            ("null".to_owned(), label, None),
        ];
        for (text, path, wanted) in rows {
            assert_eq!(is_managed(&text, &place(&object, path)), wanted, "{path} in {text}");
        }
    }
}
