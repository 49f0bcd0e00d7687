//! What defaults add to a manifest, as a unified diff of YAML. Comments are not in it: it is made from what the file
//! says, not from its text.

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use imara_diff::{Algorithm, BasicLineDiffPrinter, Diff, InternedInput, UnifiedDiffConfig};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Judged, shown};
use crate::{
    cli::source::tree::{Places, escape},
    template::{Json, json},
};

const ADDED: Style = AnsiColor::Green.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();
const HUNK: Style = AnsiColor::Cyan.on_default();

/// The diff of one Deployment, with colours; empty where nothing is added.
pub(super) fn diff(judged: &Judged, file: &str) -> anyhow::Result<String> {
    if judged.defaults.is_empty() {
        return Ok(String::new());
    }
    let (given, places) = (&judged.object.value, &judged.object.places);
    let mut after = given.clone();
    for default in &judged.defaults {
        let steps: Vec<String> =
            default.path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        put(&mut after, &steps, &default.value);
    }
    let (before, after) = (yaml(given, places)?, yaml(&after, places)?);
    let name = format!("{} ({})", shown::line(file), judged.title());
    let header = format!("--- {name}\n+++ {name} with defaults\n");
    Ok(format!("{header}{}", unified(&before, &after)).lines().map(coloured).collect())
}

fn unified(before: &str, after: &str) -> String {
    let lines = InternedInput::new(before, after);
    let mut diff = Diff::compute(Algorithm::Histogram, &lines);
    diff.postprocess_lines(&lines);
    diff.unified_diff(&BasicLineDiffPrinter(&lines.interner), UnifiedDiffConfig::default(), &lines).to_string()
}

fn coloured(line: &str) -> String {
    let style = match line.as_bytes().first() {
        Some(b'+') => ADDED,
        Some(b'-') => REMOVED,
        Some(b'@') => HUNK,
        _ => return format!("{line}\n"),
    };
    format!("{style}{line}{style:#}\n")
}

/// Puts `value` at the end of `steps`, with the objects on the way.
fn put(node: &mut Json, steps: &[String], value: &Json) {
    let Some((step, rest)) = steps.split_first() else {
        *node = value.clone();
        return;
    };
    if let Json::Array(elements) = node {
        let elements = std::sync::Arc::make_mut(elements);
        if let Some(element) = step.parse().ok().and_then(|index: usize| elements.get_mut(index)) {
            put(element, rest, value);
        }
        return;
    }
    if !matches!(node, Json::Object(_)) {
        *node = Json::new_object();
    }
    if let Json::Object(members) = node {
        let (members, key) = (std::sync::Arc::make_mut(members), Json::from(step.as_str()));
        if members.get(&key).is_none() {
            members.insert(key.clone(), Json::Null);
        }
        if let Some(member) = members.get_mut(&key) {
            put(member, rest, value);
        }
    }
}

fn yaml(value: &Json, places: &Places) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(&Ordered { value, path: String::new(), places })?)
}

/// A value with its members in the order of the file; what the file does not have comes last.
struct Ordered<'a> {
    value: &'a Json,
    path: String,
    places: &'a Places,
}

impl Ordered<'_> {
    fn below<'a>(&'a self, step: &str, value: &'a Json) -> Ordered<'a> {
        Ordered { value, path: format!("{}/{}", self.path, escape(step)), places: self.places }
    }
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Json::Object(members) => {
                let mut ordered = BTreeMap::new();
                for (key, member) in members.iter() {
                    let key = json::as_str(key).unwrap_or_default();
                    let below = self.below(key, member);
                    let place = self.places.exact(&below.path).map(|place| (place.line, place.column));
                    ordered.insert((place.is_none(), place, key), below);
                }
                let mut map = serializer.serialize_map(Some(ordered.len()))?;
                for ((.., key), below) in &ordered {
                    map.serialize_entry(key, below)?;
                }
                map.end()
            }
            Json::Array(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                for (index, element) in elements.iter().enumerate() {
                    list.serialize_element(&self.below(&index.to_string(), element))?;
                }
                list.end()
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admission::DefaultValue, cli::source};

    const GIVEN: &str = "\
kind: Deployment
apiVersion: apps/v1
metadata: {name: churn, labels: {version: \"1.10\", on: \"off\"}}
spec:
  template:
    spec:
      containers:
      - name: model # the server
        image: x
";

    fn judged(text: &str) -> Judged {
        let object = source::read(&["-".into()], &mut text.as_bytes(), "shop").objects.remove(0);
        let default = |path: &str, value: &str| DefaultValue {
            policy: "p".into(),
            path: path.into(),
            value: Json::from_json_str(value).unwrap(),
        };
        let defaults = vec![
            default("/spec/template/spec/containers/0/readinessProbe", r#"{"httpGet": {"path": "/ready"}}"#),
            default("/spec/template/metadata/labels/a~1b", r#""1.10""#),
        ];
        Judged { defaults, ..Judged::of(object) }
    }

    #[test]
    fn what_is_added_in_the_order_of_the_file() {
        let text = diff(&judged(GIVEN), "k8s/churn.yaml").unwrap();
        let expected = "\
--- k8s/churn.yaml (Deployment shop/churn)
+++ k8s/churn.yaml (Deployment shop/churn) with defaults
@@ -11,3 +11,9 @@
       containers:
       - name: model
         image: x
+        readinessProbe:
+          httpGet:
+            path: /ready
+    metadata:
+      labels:
+        a/b: \"1.10\"
";
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
    }

    #[test]
    fn the_yaml_says_what_the_object_says() {
        let odd = "a: ['no', \"1e3\", '0777', \"null\", '~', \"a: b\", '# c', \"\\ttab\", 'x\n\n y', '', \"- a\", '12:30', 1.5, true, null, {}, []]\n";
        for text in [GIVEN, odd] {
            let document = source::tree::parse(text).unwrap().remove(0);
            let written = yaml(&document.value, &document.places).unwrap();
            let back = source::tree::parse(&written).unwrap().remove(0);
            assert_eq!(back.value, document.value, "{written}");
        }
    }
}
