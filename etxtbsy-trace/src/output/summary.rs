//! The summary as text: the groups of incidents, their counts and waits.

use super::look::{Look, Style, Tone};
use super::{
    group::{Advised, sentence},
    incident::{self, count},
    near_miss,
};
use crate::analysis::group::{GROUPS, Groups, Member as _, Tally};
use crate::analysis::verdict::GroupAdvice;
use crate::event::{Summary, TreeRole};
use crate::text::{escape, name, time};
use std::collections::BTreeMap;

/// The number of groups shown without `-v`.
const SHOWN: usize = 20;
/// Which calls are watched.
const WATCHED: &str = "exec, open for writing and truncate; only counted: ftruncate, fallocate, \
    copy_file_range, unlink, rename, swapon, finit_module and kexec_file_load";
/// The headings of the columns.
const HEADS: [&str; 8] = [
    "GROUP",
    "COUNT",
    "EXPLAINED",
    "VERDICT",
    "MEDIAN WAIT",
    "MAX WAIT",
    "STILL HELD",
    "INCIDENTS",
];
/// The columns that are aligned to the left.
const LEFT: [usize; 2] = [3, 7];

/// The table of groups and their advice, the totals, and what was lost, by reason.
pub(super) fn summary(
    summary: &Summary,
    groups: &Groups<Advised>,
    near_misses: &near_miss::Tally,
    lost: &BTreeMap<String, u64>,
    role: TreeRole,
    style: Style,
) -> String {
    let look = style.look;
    let traced = time::span(summary.duration_ns);
    let mut lines = Vec::new();
    let mut begin = String::new();
    if summary.incidents == 0 && summary.failures == 0 {
        // "was seen", because some calls are not watched.
        lines.push(match summary.refusals {
            0 => format!("no call was seen to fail with ETXTBSY in {traced}; watched: {WATCHED}"),
            _ => format!(
                "no exec, open or truncate was seen to fail with ETXTBSY in {traced}; watched: {WATCHED}"
            ),
        });
    } else {
        begin = advised(groups, look);
        let incidents = count(summary.incidents, "incident", "incidents");
        lines.push(format!(
            "{}: {} explained, {} unexplained; lost {}; traced for {traced}",
            look.paint(Tone::Strong, &incidents),
            summary.explained,
            summary.unexplained,
            summary.lost,
        ));
        if summary.failures > summary.incidents {
            let failures = summary.failures;
            lines.push(format!("{failures} calls failed; details for {}", summary.incidents));
        }
        let each = summary.by_verdict.iter();
        let each: Vec<String> = each.map(|(kind, n)| format!("{} {n}", name(*kind))).collect();
        if !each.is_empty() {
            lines.push(format!("by verdict: {}", each.join(", ")));
        }
        let short = summary.unexplained_by.iter();
        let short: Vec<String> = short.map(|(why, n)| format!("{} {n}", name(*why))).collect();
        if !short.is_empty() {
            lines.push(format!("unexplained by: {}", short.join(", ")));
        }
        if let Some(first) = &summary.change_first {
            lines.push(format!("change first: {}", look.prose(first)));
        }
    }
    if let Some(execs) = &summary.execs {
        lines.extend(near_miss::rates(execs, summary.near_misses, near_misses));
    }
    lines.extend(near_misses.lines(look));
    if summary.refusals > 0 {
        let calls = count(summary.refusals, "other call", "other calls");
        let listed = if style.summary_only { "" } else { "listed above, " };
        lines.push(format!("{calls} failed with ETXTBSY: {listed}only counted"));
    }
    if summary.elsewhere > 0 {
        lines.push(match role {
            TreeRole::Victim => format!(
                "{} outside of this tree failed while this tree held the file; --as either shows them",
                count(summary.elsewhere, "exec", "execs")
            ),
            TreeRole::Holder | TreeRole::Either | TreeRole::Other(_) => format!(
                "{} not shown: this tree was neither victim nor holder",
                count(summary.elsewhere, "failure", "failures")
            ),
        });
    }
    if summary.lost > 0 {
        let reasons: Vec<String> = lost.iter().map(|(what, n)| format!("{n} {what}")).collect();
        let reasons = match reasons.as_slice() {
            [] => String::new(),
            reasons => format!(" ({})", reasons.join(", ")),
        };
        let warning = format!(
            "lost {}{reasons}: there may be more incidents and holders than shown",
            summary.lost
        );
        lines.push(look.paint(Tone::Bad, &warning));
    }
    let lines = lines.iter().map(|line| look.line("", line));
    lines.fold(begin, |all, line| all + &line)
}

/// The table of groups and their advice, if there is no summary line.
pub(super) fn without_totals(groups: &Groups<Advised>, look: Look) -> String {
    advised(groups, look) + &look.line("", "no totals: no summary line was read")
}

/// The table of groups and their advice.
fn advised(groups: &Groups<Advised>, look: Look) -> String {
    let lines = table(groups, look);
    lines.iter().map(|line| look.line("", line)).collect::<String>() + &advice(groups, look)
}

/// The advice for each group of the table, by its number there. Groups with the same advice share it.
fn advice(groups: &Groups<Advised>, look: Look) -> String {
    let mut each: Vec<(Vec<String>, &GroupAdvice)> = Vec::new();
    for (at, (_, group)) in groups.all().into_iter().take(look.many(SHOWN)).enumerate() {
        let number = (at + 1).to_string();
        match each.iter_mut().find(|(_, advice)| **advice == group.advice) {
            Some((numbers, _)) => numbers.push(number),
            None => each.push((vec![number], &group.advice)),
        }
    }
    let mut out = String::new();
    for (numbers, GroupAdvice { helps, in_vain }) in each {
        let of = if numbers.len() == 1 { "group" } else { "groups" };
        let heading = format!("advice for {of} {}:", numbers.join(", "));
        out += &look.line("", &look.paint(Tone::Strong, &heading));
        for one in helps {
            out += &look.line("  - ", &incident::sentence(one, look));
        }
        for one in in_vain {
            let text = format!("does not help: {}", incident::sentence(one, look));
            out += &look.line("  - ", &text);
        }
    }
    out
}

/// The table of groups: a row of numbers for each group, and a sentence below it.
fn table(groups: &Groups<Advised>, look: Look) -> Vec<String> {
    let all = groups.all();
    let paint = |tone, raw: &str, columns| look.paint(tone, &look.short(raw, columns));
    let shown = look.many(SHOWN).min(all.len());
    let mut rows: Vec<([String; 8], String)> = all[..shown]
        .iter()
        .enumerate()
        .map(|(at, (cause, group))| {
            let cells = cells(&(at + 1).to_string(), &name(cause.verdict), group.tally());
            (cells, sentence(cause, group.tally(), &paint))
        })
        .collect();
    if let Some(other) = groups.other() {
        let text = format!("all other groups (limit {GROUPS})");
        rows.push((cells("", "other", other.tally()), text));
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let widths: [usize; 8] = std::array::from_fn(|at| {
        let column = rows.iter().map(|(cells, _)| escape::width(&cells[at]));
        column.max().unwrap_or(0).max(HEADS[at].len())
    });
    let heads = row(&HEADS.map(str::to_owned), &widths);
    let mut lines = vec![look.paint(Tone::Faint, &heads)];
    let indent = widths[..3].iter().sum::<usize>() + 6;
    for (cells, text) in &rows {
        lines.push(row(cells, &widths));
        lines.push(format!("{:indent$}{text}", ""));
    }
    if shown < all.len() {
        let incidents: u64 = all[shown..].iter().map(|(_, group)| group.tally().count).sum();
        let rest = count((all.len() - shown) as u64, "more group", "more groups");
        let incidents = count(incidents, "incident", "incidents");
        let rest = format!("{rest}, {incidents} (-v shows them)");
        lines.push(look.paint(Tone::Faint, &rest));
    }
    let legend = "wait: time from the failure until the last known holder released the file";
    lines.push(look.paint(Tone::Faint, legend));
    lines
}

/// A row of the table.
fn row(cells: &[String; 8], widths: &[usize; 8]) -> String {
    let cells = cells.iter().zip(widths).enumerate().map(|(at, (cell, width))| {
        let pad = " ".repeat(width - escape::width(cell));
        if LEFT.contains(&at) { cell.clone() + &pad } else { pad + cell }
    });
    let cells: Vec<String> = cells.collect();
    cells.join("  ").trim_end().to_owned()
}

/// The numbers of a group.
fn cells(number: &str, verdict: &str, tally: &Tally) -> [String; 8] {
    let (median, max) = match tally.waits() {
        Some((median, max)) => (time::span(median), time::span(max)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let (first, last) = tally.ids;
    [
        number.to_owned(),
        tally.count.to_string(),
        tally.explained.to_string(),
        verdict.to_owned(),
        median,
        max,
        tally.endless.to_string(),
        if first == last { format!("#{first}") } else { format!("#{first} to #{last}") },
    ]
}
