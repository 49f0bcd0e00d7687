//! JUnit XML, as CI systems read it: what ran, what failed, and why.

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

/// A group of cases, e.g. a file or a policy.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Suite {
    pub(in crate::cli) name: String,
    pub(in crate::cli) cases: Vec<Case>,
}

/// One thing that was checked.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Case {
    /// What it belongs to: a namespace, a package.
    pub(in crate::cli) class: String,
    pub(in crate::cli) name: String,
    /// `None`: of no file.
    pub(in crate::cli) file: Option<String>,
    /// From 1; 0 where unknown.
    pub(in crate::cli) line: usize,
    pub(in crate::cli) ended: Ended,
    /// What else there is to say, e.g. warnings.
    pub(in crate::cli) output: String,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) enum Ended {
    #[default]
    Passed,
    /// It did not hold: in a line, and in full.
    Failed { message: String, text: String },
    /// It could not be told.
    Broken { message: String, text: String },
    /// It was not run, for this reason.
    Skipped(String),
}

/// The whole as one document. `name` is the name of the run.
pub(in crate::cli) fn render(name: &str, suites: &[Suite]) -> anyhow::Result<String> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let counts = Counts::of(suites.iter().flat_map(|suite| &suite.cases)).texts();
    writer
        .create_element("testsuites")
        .with_attribute(("name", clean(name).as_str()))
        .with_attributes(counts.iter().map(|(name, count)| (*name, count.as_str())))
        .write_inner_content(|writer| suites.iter().try_for_each(|suite| write_suite(writer, suite)))?;
    Ok(String::from_utf8(writer.into_inner())? + "\n")
}

fn write_suite(writer: &mut Writer<Vec<u8>>, suite: &Suite) -> std::io::Result<()> {
    let counts = Counts::of(&suite.cases).texts();
    writer
        .create_element("testsuite")
        .with_attribute(("name", clean(&suite.name).as_str()))
        .with_attributes(counts.iter().map(|(name, count)| (*name, count.as_str())))
        .write_inner_content(|writer| suite.cases.iter().try_for_each(|case| write_case(writer, case)))?;
    Ok(())
}

fn write_case(writer: &mut Writer<Vec<u8>>, case: &Case) -> std::io::Result<()> {
    let (class, name) = (clean(&case.class), clean(&case.name));
    let (file, line) = (case.file.as_deref().map(clean), case.line.to_string());
    let mut element =
        writer.create_element("testcase").with_attributes([("classname", class.as_str()), ("name", name.as_str())]);
    if let Some(file) = &file {
        element = element.with_attribute(("file", file.as_str()));
    }
    if case.line > 0 {
        element = element.with_attribute(("line", line.as_str()));
    }
    if case.ended == Ended::Passed && case.output.is_empty() {
        element.write_empty()?;
        return Ok(());
    }
    element.write_inner_content(|writer| {
        let (tag, message, text) = match &case.ended {
            Ended::Passed => ("", "", ""),
            Ended::Failed { message, text } => ("failure", message.as_str(), text.as_str()),
            Ended::Broken { message, text } => ("error", message.as_str(), text.as_str()),
            Ended::Skipped(why) => ("skipped", why.as_str(), ""),
        };
        if !tag.is_empty() {
            let element = writer.create_element(tag).with_attribute(("message", clean(message).as_str()));
            match text {
                "" => element.write_empty()?,
                text => element.write_text_content(BytesText::new(&clean(text)))?,
            };
        }
        if !case.output.is_empty() {
            writer.create_element("system-out").write_text_content(BytesText::new(&clean(&case.output)))?;
        }
        Ok(())
    })?;
    Ok(())
}

#[derive(Default)]
struct Counts([(&'static str, usize); 4]);

impl Counts {
    fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let mut counts = [("tests", 0), ("failures", 0), ("errors", 0), ("skipped", 0)];
        for case in cases {
            counts[0].1 += 1;
            match case.ended {
                Ended::Passed => {}
                Ended::Failed { .. } => counts[1].1 += 1,
                Ended::Broken { .. } => counts[2].1 += 1,
                Ended::Skipped(_) => counts[3].1 += 1,
            }
        }
        Self(counts)
    }

    fn texts(&self) -> [(&'static str, String); 4] {
        self.0.map(|(name, count)| (name, count.to_string()))
    }
}

/// What XML 1.0 cannot hold in any form, a bell or a NUL, becomes U+FFFD.
pub(in crate::cli) fn clean(text: &str) -> String {
    let is_legal =
        |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|c| if is_legal(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element with its attributes and its text, as a parser reads them.
    fn parsed(xml: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(xml).unwrap();
        let elements = document.descendants().filter(roxmltree::Node::is_element);
        elements
            .map(|node| {
                let attributes: String = node.attributes().map(|it| format!(" {}={}", it.name(), it.value())).collect();
                let text = node.text().map(str::trim).filter(|text| !text.is_empty());
                format!(
                    "{}{attributes}{}",
                    node.tag_name().name(),
                    text.map(|it| format!(": {it}")).unwrap_or_default()
                )
            })
            .collect()
    }

    #[test]
    fn a_parser_reads_back_what_was_written() {
        let cases = vec![
            Case { class: "shop".into(), name: "a".into(), ..Case::default() },
            Case {
                class: "shop".into(),
                name: "b \"<&>'".into(),
                file: Some("k8s/ä.yaml".into()),
                line: 7,
                ended: Ended::Failed { message: "1 problem".into(), text: "]]> <b>\u{7}\u{1b}[0m & more\nnext".into() },
                output: "warned".into(),
            },
            Case {
                name: "c".into(),
                ended: Ended::Broken { message: "no".into(), text: String::new() },
                ..Case::default()
            },
            Case { name: "d".into(), ended: Ended::Skipped("needs history".into()), ..Case::default() },
        ];
        let xml = render("surefoot check", &[Suite { name: "k8s".into(), cases }]).unwrap();
        let expected = [
            "testsuites name=surefoot check tests=4 failures=1 errors=1 skipped=1",
            "testsuite name=k8s tests=4 failures=1 errors=1 skipped=1",
            "testcase classname=shop name=a",
            "testcase classname=shop name=b \"<&>' file=k8s/ä.yaml line=7",
            "failure message=1 problem: ]]> <b>\u{fffd}\u{fffd}[0m & more\nnext",
            "system-out: warned",
            "testcase classname= name=c",
            "error message=no",
            "testcase classname= name=d",
            "skipped message=needs history",
        ];
        assert_eq!(parsed(&xml), expected, "{xml}");
        assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites"), "{xml}");
    }
}
