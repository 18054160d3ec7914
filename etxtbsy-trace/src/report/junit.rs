//! The report as JUnit XML: a group is a test case that failed.

use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{
    compare::{self, Change, Row},
    model::Document,
    words,
};
use crate::{
    output::{
        incident::{sentence, without_advice},
        look::Look,
    },
    text::{escape, name},
};

/// The name of the suite, and what the names of classes begin with.
const SUITE: &str = "etxtbsy-trace";
/// The columns of a name that a test case is named by.
const NAME: usize = 200;

/// Writes the test suite.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let rows = compare::rows(document);
    let mut suite = TestSuite::new(SUITE);
    suite.add_test_case(complete(document));
    suite.add_test_cases(rows.iter().map(|row| case(document, row)));
    let mut report = Report::new(SUITE);
    report.add_test_suite(suite);
    report.serialize(out).map_err(io::Error::other)
}

/// The test case that says whether the trace is complete. It also makes a report without incidents one
/// with a test case.
fn complete(document: &Document) -> TestCase {
    let warnings = words::warnings(&document.now);
    let status = if warnings.is_empty() {
        TestCaseStatus::success()
    } else {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type("incomplete").set_message("the trace is not complete");
        status.set_description(warnings.join("\n"));
        status
    };
    let mut case = TestCase::new("the trace is complete", status);
    case.set_classname(SUITE);
    let mut facts = words::runs(&document.now);
    facts.extend(words::totals(&document.now));
    case.set_system_out(facts.join("\n"));
    case
}

/// The test case of a group. One that only the baseline has succeeds.
fn case(document: &Document, row: &Row<'_>) -> TestCase {
    let status = if row.change() == Some(Change::Gone) {
        TestCaseStatus::success()
    } else {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type(words::verdict(row)).set_message(words::plain_sentence(row));
        status.set_description(description(document, row));
        status
    };
    let mut case = TestCase::new(named(row), status);
    case.set_classname(format!("{SUITE}.{}", words::verdict(row)));
    case
}

/// The name of a test case: the cause, which is the same in every report.
fn named(row: &Row<'_>) -> String {
    let Some(cause) = row.cause else { return words::plain_sentence(row) };
    let part = |label: &str, name: Option<&String>| {
        name.map(|name| format!("{label} {}", escape::short(name, NAME)))
    };
    let parts = [
        Some(name(cause.direction)),
        part("in", cause.directory.as_ref()),
        part("opened by", cause.opener.as_ref()),
        part("held by", cause.holder.as_ref()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn description(document: &Document, row: &Row<'_>) -> String {
    let mut lines: Vec<String> = words::facts(document, row)
        .into_iter()
        .map(|(label, fact)| format!("{label}: {fact}"))
        .collect();
    let Some(group) = row.group() else { return lines.join("\n") };
    for (label, example) in words::shown(group) {
        let origin = words::origin(words::source(document, row), example);
        lines.push(format!("\n{label}: {origin}"));
        lines.push(without_advice(&example.incident, Look::PLAIN));
    }
    let (helps, in_vain) = group.advice();
    for (label, advice) in [("advice", helps), ("does not help", in_vain)] {
        lines.extend(advice.iter().map(|one| format!("{label}: {}", sentence(one, Look::PLAIN))));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document as Xml, Node};

    use super::*;
    use crate::report::samples::{self, written};

    #[test]
    fn recordings_a_baseline_and_nothing() {
        samples::shows_all("junit", |document| written(write, document));
    }

    #[test]
    fn hostile_names_are_text_for_an_xml_parser() {
        let document = samples::hostile();
        let text = written(write, &document);
        let xml = Xml::parse(&text).unwrap();
        let cases = |node: &Node<'_, '_>| node.has_tag_name("testcase");
        let groups = compare::rows(&document).len();
        assert_eq!(xml.descendants().filter(cases).count(), groups + 1);
        let known = ["testsuites", "testsuite", "testcase", "failure", "error", "system-out"];
        for node in xml.descendants().filter(Node::is_element) {
            assert!(known.contains(&node.tag_name().name()), "{node:?}");
        }
        let suite = xml.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
        assert_eq!(suite.attribute("failures"), Some(groups.to_string().as_str()));
        assert_eq!(suite.attribute("errors"), Some("1"));
        let shown = |text: &str| {
            xml.descendants().any(|node| {
                node.text().is_some_and(|it| it.contains(text))
                    || node.attributes().any(|it| it.value().contains(text))
            })
        };
        for text in
            ["<script>alert(1)</script>", "]]>&lt;&#0;", "::error", "\\u{ffff}", "\\x00\\x01"]
        {
            assert!(shown(text), "{text}");
        }
    }

    #[test]
    fn names_of_test_cases_differ() {
        let text = written(write, &samples::hostile());
        let xml = Xml::parse(&text).unwrap();
        let mut names: Vec<_> = xml
            .descendants()
            .filter_map(|node| Some((node.attribute("classname")?, node.attribute("name")?)))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
