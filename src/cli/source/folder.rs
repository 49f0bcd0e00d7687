//! What lies in a folder and is no manifest. A folder is given whole, with the settings, charts and data in it, so its
//! files are told apart here; what is passed over is counted, and nothing that may hold a Deployment is.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::bytes::Regex;

use super::{
    objects,
    tree::{Document, SyntaxError},
};

/// A file that was found in a folder and not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Passed {
    /// As the user would name it.
    pub(in crate::cli) file: String,
    pub(in crate::cli) why: Why,
}

/// Why it was not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Why {
    /// It holds no Kubernetes object.
    NoObject,
    /// It is neither YAML nor JSON, and does not speak of a Deployment.
    NoYaml,
    /// It is a template, of this chart if that is known, and becomes YAML when it is rendered.
    Template(Option<PathBuf>),
}

impl Why {
    /// In a few words.
    pub(in crate::cli) fn words(&self) -> &'static str {
        match self {
            Self::NoObject => "no Kubernetes object in it",
            Self::NoYaml => "neither YAML nor JSON",
            Self::Template(_) => "a template that is not rendered",
        }
    }
}

/// A sentence about each chart, and each template of none, that was passed over: there may be a Deployment in it.
pub(in crate::cli) fn notices(passed: &[Passed]) -> Vec<String> {
    let mut charts: Vec<(&Path, usize)> = Vec::new();
    let mut told = Vec::new();
    for Passed { file, why } in passed {
        match why {
            Why::NoObject | Why::NoYaml => {}
            Why::Template(None) => told.push(format!(
                "{file} is a template and no YAML yet, so it was passed over; judge what becomes of it, e.g. helm template . | surefoot check -"
            )),
            Why::Template(Some(chart)) => match charts.iter_mut().find(|(known, _)| known == chart) {
                Some((_, count)) => *count += 1,
                None => charts.push((chart, 1)),
            },
        }
    }
    let of_chart = |(chart, count): (&Path, usize)| {
        let (what, were) = if count == 1 { ("template", "was") } else { ("templates", "were") };
        let chart = chart.display();
        format!(
            "{count} {what} of the Helm chart {chart} {were} passed over; judge what becomes of them: \
             helm template {chart} | surefoot check -"
        )
    };
    charts.into_iter().map(of_chart).chain(told).collect()
}

/// Without these words there is no object in it. Large data beside manifests is not even parsed.
pub(super) fn may_be_manifest(bytes: &[u8]) -> bool {
    static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("k\0?i\0?n\0?d|a\0?p\0?i\0?V").ok());
    WORDS.as_ref().is_none_or(|words| words.is_match(bytes))
}

/// It says somewhere that something is a Deployment. Also in UTF-16.
pub(super) fn mentions_deployment(bytes: &[u8]) -> bool {
    const KIND: &str = r#"(?-u)kind["']?\s*:\s*(?:[&!]\S*\s+)*["']?Deployment(?:List)?\b"#;
    static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(KIND).ok());
    let wide: Vec<u8>;
    let bytes = match bytes.contains(&0) {
        true => {
            wide = bytes.iter().copied().filter(|byte| *byte != 0).collect();
            &wide
        }
        false => bytes,
    };
    WORDS.as_ref().is_none_or(|words| words.is_match(bytes))
}

/// Why `text`, from a file in a folder, is not judged. `None`: it is read as strictly as if it had been named.
pub(super) fn passed_over(path: &Path, text: &str, parsed: &Result<Vec<Document>, SyntaxError>) -> Option<Why> {
    let chart = chart_of(path).filter(|_| text.contains("{{"));
    match parsed {
        _ if chart.is_some() => Some(Why::Template(chart)),
        Ok(documents) if documents.iter().any(|document| objects::is_any(&document.value)) => None,
        Ok(_) => Some(Why::NoObject),
        Err(error) if breaks_at_a_template(text, error) => Some(Why::Template(None)),
        Err(_) if mentions_deployment(text.as_bytes()) => None,
        Err(_) => Some(Why::NoYaml),
    }
}

/// Braces that come after the error are not what broke it.
fn breaks_at_a_template(text: &str, error: &SyntaxError) -> bool {
    let last = error.place.map_or(usize::MAX, |place| place.line);
    text.lines().take(last).any(|line| line.contains("{{"))
}

/// The Helm chart whose template the file is.
fn chart_of(path: &Path) -> Option<PathBuf> {
    let is_chart = |folder: &&Path| folder.join("Chart.yaml").is_file();
    let of = |path: &Path| {
        let chart = path.ancestors().skip(1).find(is_chart)?;
        let chart = path.strip_prefix(chart).ok()?.starts_with("templates").then_some(chart)?;
        Some(if chart.as_os_str().is_empty() { PathBuf::from(".") } else { chart.to_owned() })
    };
    // A part of the chart may be given, or be where the user is.
    of(path).or_else(|| of(&std::path::absolute(path).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::source::tree;

    #[test]
    fn nothing_that_may_hold_a_deployment_is_passed_over() {
        const D: &str = "apiVersion: apps/v1\nkind: Deployment\n";
        let template = Some(Why::Template(None));
        let rows = [
            (D.to_owned(), None),
            (format!("a: 1\n---\n{D}"), None),
            (format!("{D}a: 1\na: 2\n"), None),
            (format!("{D}metadata: {{name: \"{{{{ .Values.x }}}}\"}}\n"), None),
            ("{\"apiVersion\": \"apps/v1\", \"kind\":\n \"Deployment\",}}".to_owned(), None),
            ("a: [\nkind: &d !!str 'Deployment'\n".to_owned(), None),
            ("a: [\nkind: DeploymentList\n".to_owned(), None),
            (format!("{D}a: 1\na: 2\nb: '{{{{ x }}}}'\n"), None),
            ("apiVersion: apps/v1\nspec: {}\n".to_owned(), None),
            ("kind: Deployment\nspec: {}\n".to_owned(), None),
            (format!("- {}", D.replace('\n', "\n  ")), None),
            ("items:\n- {apiVersion: apps/v1, kind: Deployment}\n".to_owned(), None),
            (format!("{D}metadata: {{name: {{{{ .Values.x }}}}}}\n"), template.clone()),
            (format!("{{{{- if .Values.x }}}}\n{D}{{{{- end }}}}\n"), template),
            // The values of a chart, a chart, a playbook, a configuration with comments.
            ("kind: Deployment\nreplicas: 2\n".to_owned(), Some(Why::NoObject)),
            ("apiVersion: v2\nname: x\n".to_owned(), Some(Why::NoObject)),
            ("- hosts: all\n  kind: x\n".to_owned(), Some(Why::NoObject)),
            ("[1, \"kind\"]".to_owned(), Some(Why::NoObject)),
            ("{ // kind\n \"a\": [}".to_owned(), Some(Why::NoYaml)),
            ("kind: [DeploymentGroup\n".to_owned(), Some(Why::NoYaml)),
        ];
        for (text, expected) in rows {
            assert!(may_be_manifest(text.as_bytes()), "{text}");
            assert_eq!(passed_over(Path::new("x.yaml"), &text, &tree::parse(&text)), expected, "{text}");
        }
        assert!(!may_be_manifest(b"replicas: 2\n"));
        let wide: Vec<u8> = "kind: Deployment".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(may_be_manifest(&wide) && mentions_deployment(&wide));
    }
}
