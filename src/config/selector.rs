//! Kubernetes' label selectors: which namespaces an override is for.

use std::collections::BTreeMap;

use super::yaml::{Node, Wrong};

/// The members of a selector.
pub(super) const FIELDS: [&str; 2] = ["matchLabels", "matchExpressions"];
/// The members of an expression.
pub(super) const EXPRESSION_FIELDS: [&str; 3] = ["key", "operator", "values"];
const OPERATORS: [(&str, Operator); 4] = [
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

/// Every label and every expression must hold, as in any Kubernetes object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: BTreeMap<String, String>,
    expressions: Vec<Expression>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expression {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    /// Also where the label is absent.
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// An object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|expression| expression.holds(labels.get(&expression.key)))
    }

    pub(super) fn parse(node: &Node) -> Result<Self, Wrong> {
        let selector = node.members("a namespace selector", &FIELDS)?;
        let mut found = Self::default();
        if let Some(labels) = selector.get("matchLabels") {
            for (key, value) in labels.entries("matchLabels")? {
                found.labels.insert(key.text("a label")?.to_owned(), value.text("the value of a label")?.to_owned());
            }
        }
        if let Some(expressions) = selector.get("matchExpressions") {
            for node in expressions.elements("matchExpressions")? {
                found.expressions.push(Expression::parse(node)?);
            }
        }
        if found == Self::default() {
            return node.wrong("an empty selector would match every namespace; set the value itself instead");
        }
        Ok(found)
    }
}

impl Expression {
    fn holds(&self, value: Option<&String>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }

    fn parse(node: &Node) -> Result<Self, Wrong> {
        let members = node.members("an expression", &EXPRESSION_FIELDS)?;
        let key = members.required("key", "; it names the label")?.text("`key`")?.to_owned();
        let operator = members.required("operator", "; In, NotIn, Exists or DoesNotExist")?;
        let operator = operator.word("`operator`", &OPERATORS)?;
        let wants_values = matches!(operator, Operator::In | Operator::NotIn);
        let values = match members.get("values") {
            None if wants_values => return node.wrong("`values` is missing; In and NotIn compare with a list of them"),
            None => Vec::new(),
            Some(given) => {
                let values = given.elements("`values`")?;
                if values.is_empty() == wants_values {
                    return given.wrong("`values` must name at least one for In and NotIn, and none for the others");
                }
                values.iter().map(|value| value.text("a value").map(str::to_owned)).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { key, operator, values })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::yaml, *};

    #[test]
    fn selects_as_kubernetes_does() {
        let rows = [
            ("matchLabels: {a: '1'}", true),
            ("matchLabels: {a: '2'}", false),
            ("matchLabels: {a: '1', b: x}", false),
            ("matchExpressions: [{key: a, operator: In, values: ['2', '1']}]", true),
            ("matchExpressions: [{key: b, operator: In, values: [x]}]", false),
            ("matchExpressions: [{key: a, operator: NotIn, values: ['1']}]", false),
            ("matchExpressions: [{key: b, operator: NotIn, values: [x]}]", true),
            ("matchExpressions: [{key: a, operator: Exists}]", true),
            ("matchExpressions: [{key: b, operator: Exists}]", false),
            ("matchExpressions: [{key: b, operator: DoesNotExist, values: []}]", true),
            ("{matchLabels: {a: '1'}, matchExpressions: [{key: a, operator: DoesNotExist}]}", false),
        ];
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        for (text, matches) in rows {
            let selector = Selector::parse(&yaml::parse(text).unwrap()).unwrap();
            assert_eq!(selector.matches(&labels), matches, "{text}");
        }
    }

    #[test]
    fn a_selector_that_is_none_is_named() {
        let rows = [
            ("{}", "empty selector"),
            ("{matchLabels: {}}", "empty selector"),
            ("{matchLabel: {a: b}}", "did you mean `matchLabels`"),
            ("{matchExpressions: [{key: a, operator: in, values: [b]}]}", "did you mean `In`"),
            ("{matchExpressions: [{key: a, operator: In}]}", "`values` is missing"),
            ("{matchExpressions: [{key: a, operator: In, values: []}]}", "at least one"),
            ("{matchExpressions: [{key: a, operator: Exists, values: [b]}]}", "none for the others"),
            ("{matchExpressions: [{operator: Exists}]}", "`key` is missing"),
        ];
        for (text, message) in rows {
            let wrong = Selector::parse(&yaml::parse(text).unwrap()).unwrap_err();
            assert!(wrong.message.contains(message), "{text}: {wrong:?}");
        }
    }
}
