//! The report as one HTML file: no scripts are needed to read it, and it loads nothing.
//!
//! It is well-formed XML too, so that a parser can check that no name became an element.

mod timeline;

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use super::{
    compare::{self, Row},
    group::Group,
    model::Document,
    words,
};
use crate::{
    analysis::group::Member as _,
    output::{
        incident::{sentence, without_advice},
        look::{Look, Tone},
    },
    text::escape,
    timeline::lanes::Doing,
};

const STYLE: &str = include_str!("style.css");
const FILTER: &str = include_str!("filter.js");
/// The groups that are unfolded from the beginning.
const OPEN: usize = 3;
/// The longest bar of a histogram.
const BAR: u64 = 300;

/// Writes the page.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let rows = compare::rows(document);
    out.write_all(head(&words::title(document, &rows)).as_bytes())?;
    for part in words::parts(document) {
        let heading = part.heading.map(|heading| format!("<h2>{heading}</h2>\n"));
        out.write_all(heading.unwrap_or_default().as_bytes())?;
        for warning in words::warnings(part.report) {
            writeln!(out, "<p class=\"warning\">{}</p>", escaped(&warning))?;
        }
        let mut totals = words::totals(part.report);
        let first = part.report.change_first();
        totals.extend(first.map(|it| format!("change first: {}", sentence(&it, Look::PLAIN))));
        out.write_all(list(&totals).as_bytes())?;
        let runs = list(&words::runs(part.report));
        writeln!(out, "<details><summary>What was traced</summary>{runs}</details>")?;
    }
    if !rows.is_empty() {
        out.write_all(legend().as_bytes())?;
    }
    for row in &rows {
        out.write_all(group(document, row).as_bytes())?;
    }
    writeln!(out, "</main>\n<script>{FILTER}</script>\n</body>\n</html>")
}

/// A text as content or attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Everything before the content. The policy allows the style and the script of this file, and nothing else.
fn head(title: &str) -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(FILTER)
    );
    let title = escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{}\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>ETXTBSY: {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>ETXTBSY: {title}</h1>\n",
        escaped(&policy)
    )
}

fn list(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let items: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
    format!("<ul>\n<li>{}</li>\n</ul>\n", items.join("</li>\n<li>"))
}

/// The filter, which needs the script and is hidden without it, and what the colours mean.
fn legend() -> String {
    let doings =
        [Doing::Open, Doing::Held, Doing::Forking, Doing::Exec, Doing::Running, Doing::Unknown];
    let doings = doings.map(|doing| {
        let word = doing.word();
        let class = word.replace(' ', "-");
        format!(
            "<svg class=\"key\" viewBox=\"0 0 12 12\" width=\"12\" height=\"12\" aria-hidden=\"true\">\
             <rect class=\"doing-{class}\" width=\"12\" height=\"12\"/></svg> {word}"
        )
    });
    format!(
        "<p id=\"filter\" hidden=\"\"><label>Filter <input id=\"words\" type=\"search\"/></label> \
         <output id=\"shown\"></output></p>\n<p class=\"faint\">{}</p>\n\
         <p class=\"faint\">Timelines: {}. Circles: open, fork, release, failure.</p>\n",
        escaped(words::WAIT),
        doings.join(", ")
    )
}

/// A name of another process, in the colour of what it is.
fn name(tone: Tone, raw: &str, columns: usize) -> String {
    let class = match tone {
        Tone::Bad => " class=\"bad\"",
        Tone::Holder => " class=\"holder\"",
        Tone::Good => " class=\"good\"",
        Tone::Faint => " class=\"faint\"",
        Tone::Strong | Tone::Plain => "",
    };
    format!("<code{class}>{}</code>", escaped(&escape::short(raw, columns)))
}

fn group(document: &Document, row: &Row<'_>) -> String {
    let (now, before) = row.counts();
    let (count, change) = match row.change() {
        Some(change) => {
            let word = change.word();
            (format!("{before} → {now}"), format!(" <span class=\"change {word}\">{word}</span>"))
        }
        None => (now.to_string(), String::new()),
    };
    let open = if row.number <= OPEN { " open=\"\"" } else { "" };
    let mut out = format!(
        "<details class=\"group\"{open}>\n<summary><span class=\"count\">{count}</span>{change} \
         <span class=\"verdict\">{}</span> {}</summary>\n<dl>\n",
        escaped(&words::verdict(row)),
        words::sentence(row, &name),
    );
    for (label, fact) in words::facts(document, row) {
        out += &format!("<dt>{label}</dt><dd>{}</dd>\n", escaped(&fact));
    }
    out += "</dl>\n";
    if let Some(group) = row.group() {
        out += &histogram(group);
        let (helps, in_vain) = group.advice();
        for (heading, advice) in [("What helps", helps), ("What does not help here", in_vain)] {
            let advice: Vec<String> = advice.iter().map(|one| sentence(one, Look::PLAIN)).collect();
            if !advice.is_empty() {
                out += &format!("<h3>{heading}</h3>\n{}", list(&advice));
            }
        }
        out += &examples(document, row, group);
    }
    out + "</details>\n"
}

fn histogram(group: &Group) -> String {
    let sizes = words::histogram(group.tally());
    if sizes.len() < 2 {
        return String::new();
    }
    let most = sizes.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let rows = sizes.iter().map(|(size, count)| {
        let width = (u128::from(*count) * u128::from(BAR)).div_ceil(u128::from(most));
        format!(
            "<tr><th scope=\"row\">{}</th><td>{count}</td><td><svg class=\"key\" \
             viewBox=\"0 0 {BAR} 12\" width=\"{BAR}\" height=\"12\" aria-hidden=\"true\">\
             <rect class=\"size\" width=\"{width}\" height=\"12\"/></svg></td></tr>\n",
            escaped(size)
        )
    });
    format!(
        "<table>\n<caption class=\"faint\">Waits</caption>\n{}</table>\n",
        rows.collect::<String>()
    )
}

fn examples(document: &Document, row: &Row<'_>, group: &Group) -> String {
    let examples = words::shown(group).map(|(label, example)| {
        let origin = words::origin(words::source(document, row), example);
        format!(
            "<h3>{}: {}</h3>\n{}<pre>{}</pre>\n",
            capital(label),
            escaped(&origin),
            timeline::svg(&example.incident),
            escaped(&without_advice(&example.incident, Look::PLAIN)),
        )
    });
    examples.collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + chars.as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use roxmltree::{Document as Xml, Node, ParsingOptions};

    use super::*;
    use crate::report::samples::{self, written};

    fn parsed(text: &str) -> Xml<'_> {
        Xml::parse_with_options(text, ParsingOptions { allow_dtd: true, ..Default::default() })
            .unwrap()
    }

    /// The page without style and script, whose changes say nothing about the page.
    fn content(document: &Document) -> String {
        let text = written(write, document).replace(STYLE, "…").replace(FILTER, "…");
        let (before, rest) = text.split_once("content=\"default-src").unwrap();
        let (_, after) = rest.split_once('>').unwrap();
        format!("{before}content=\"…\"/>{after}")
    }

    #[test]
    fn recordings_a_baseline_and_nothing() {
        samples::shows_all("html", content);
    }

    #[test]
    fn hostile_names_are_neither_elements_nor_attributes() {
        let elements = |document: &Document| {
            let text = written(write, document);
            let xml = parsed(&text);
            let mut found = BTreeSet::new();
            for node in xml.descendants().filter(Node::is_element) {
                let name = node.tag_name().name();
                found.insert(name.to_owned());
                for attribute in node.attributes() {
                    let key = attribute.name();
                    assert!(
                        !key.starts_with("on") && !["href", "src", "style"].contains(&key),
                        "{key}"
                    );
                    found.insert(format!("{name} {key}"));
                }
            }
            let scripts = xml.descendants().filter(|node| node.has_tag_name("script")).count();
            assert_eq!(scripts, 1);
            let shown = xml.descendants().any(|it| it.text() == Some("<script>alert(1)</script>"));
            (found, shown)
        };
        let (hostile, shown) = elements(&samples::hostile());
        let (own, _) = elements(&samples::compared());
        assert!(shown);
        let more: Vec<&String> = hostile.difference(&own).collect();
        let own_words = ["p class", "table", "tr", "td", "th", "caption"];
        assert!(more.iter().all(|it| own_words.iter().any(|own| it.starts_with(own))), "{more:?}");
    }

    #[test]
    fn the_policy_allows_only_what_the_file_has() {
        let text = written(write, &samples::recorded());
        let xml = parsed(&text);
        let meta =
            |node: &Node<'_, '_>| node.attribute("http-equiv") == Some("Content-Security-Policy");
        let policy = xml.descendants().find(meta).unwrap().attribute("content").unwrap().to_owned();
        for (element, directive) in [("style", "style-src"), ("script", "script-src")] {
            let node = xml.descendants().find(|node| node.has_tag_name(element)).unwrap();
            let hash = STANDARD.encode(Sha256::digest(node.text().unwrap()));
            assert!(policy.contains(&format!("{directive} 'sha256-{hash}'")), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
        for part in ["http://", "https://", "url(", "@import"] {
            assert!(!text.contains(part), "{part}");
        }
    }

    #[test]
    fn groups_are_read_without_scripts() {
        let text = written(write, &samples::recorded());
        let xml = parsed(&text);
        let group = |node: &Node<'_, '_>| node.attribute("class") == Some("group");
        let groups: Vec<_> = xml.descendants().filter(group).collect();
        assert_eq!(groups.len(), 2);
        for group in groups {
            assert!(group.has_tag_name("details") && group.attribute("hidden").is_none());
            assert!(group.children().any(|node| node.has_tag_name("summary")));
            assert!(group.descendants().any(|node| node.has_tag_name("svg")));
        }
    }
}
