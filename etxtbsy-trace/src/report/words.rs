//! The sentences that all formats share. Each is one line that a terminal shows as it is; a format adds the
//! quoting of its own.

use jiff::Timestamp;

use super::{
    compare::{Change, Row},
    group::{Example, Group},
    model::{Document, Report},
    runs::{Run, Totals},
};
use crate::{
    analysis::group::{GROUPS, Member as _, Tally},
    output::{
        group,
        incident::count,
        look::{Look, Tone},
        near_miss,
    },
    text::{escape, name, time},
};

/// The columns of a name in these sentences.
const NAME: usize = 64;
/// How many runs are listed.
const RUNS: usize = 20;

/// A part of the document under its own heading.
pub(super) struct Part<'a> {
    /// The heading; `None` if there is only one part.
    pub(super) heading: Option<&'static str>,
    /// What it is about.
    pub(super) report: &'a Report,
}

/// The report, and the baseline if there is one.
pub(super) fn parts(document: &Document) -> Vec<Part<'_>> {
    let (now, before) = (&document.now, document.before.as_ref());
    let heading = before.map(|_| "now");
    let now = Part { heading, report: now };
    let before = before.map(|report| Part { heading: Some("baseline"), report });
    std::iter::once(now).chain(before).collect()
}

/// What was found, in one line.
pub(super) fn title(document: &Document, rows: &[Row<'_>]) -> String {
    let report = &document.now;
    if report.incidents == 0 && report.runs.totals().failures > 0 {
        let failures = count(report.runs.totals().failures, "call", "calls");
        return format!("{failures} failed with ETXTBSY, without details");
    }
    if report.incidents == 0 {
        return "no exec, open or truncate was seen to fail with ETXTBSY".to_owned();
    }
    let groups = rows.iter().filter(|row| row.now.is_some()).count();
    let incidents = count(report.incidents, "incident", "incidents");
    let mut title = format!("{incidents} in {}", count(groups as u64, "group", "groups"));
    if document.before.is_some() {
        let changes = [Change::New, Change::Gone, Change::More, Change::Fewer, Change::Same];
        let each = changes.into_iter().filter_map(|change| {
            let groups = rows.iter().filter(|row| row.change() == Some(change)).count();
            (groups > 0).then(|| format!("{groups} {}", change.word()))
        });
        title +=
            &format!(" (groups against the baseline: {})", each.collect::<Vec<_>>().join(", "));
    }
    title
}

/// What was traced, a line each.
pub(super) fn runs(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> =
        report.runs.each().iter().take(RUNS).map(|run| self::run(report, run)).collect();
    let more = report.runs.count().saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {}", count(more, "more recording", "more recordings")));
    }
    lines
}

fn run(report: &Report, run: &Run) -> String {
    let short = |text: &str| escape::short(text, NAME);
    let more = if run.has_more_files { " and more files" } else { "" };
    let file = format!("{}{more}", short(report.name(run.file)));
    let begin = run.begin.as_ref().map_or_else(
        || "no meta line".to_owned(),
        |begin| {
            let since = time::moment(&begin.time).unwrap_or_else(|| short(&begin.time));
            format!(
                "etxtbsy-trace {} on {}, since {since}: watching {}",
                short(&begin.version),
                short(&begin.kernel),
                begin.watched,
            )
        },
    );
    let incidents = count(run.incidents, "incident", "incidents");
    let traced = run.end.as_ref().map_or_else(
        || "no summary line".to_owned(),
        |end| format!("traced for {}", time::span(end.duration_ns)),
    );
    format!("{file}: {begin}; {incidents}; {traced}")
}

/// The totals, a line each.
pub(super) fn totals(report: &Report) -> Vec<String> {
    let totals = report.runs.totals();
    let Totals { failures, refusals, elsewhere, execs, near_misses, duration_ns, .. } = totals;
    let incidents = report.incidents;
    let mut first = format!(
        "{}: {} explained, {} unexplained",
        count(incidents, "incident", "incidents"),
        report.explained,
        incidents - report.explained,
    );
    if report.repaired > 0 {
        first += &format!(", {} repaired by the failing process itself", report.repaired);
    }
    let mut lines = vec![first];
    if failures > incidents {
        lines.push(format!("{failures} calls failed; details for {incidents}"));
    }
    if let Some(ns) = duration_ns {
        let runs = count(report.runs.count(), "recording", "recordings");
        let rate = rate(failures, ns).map(|rate| format!(": {rate}")).unwrap_or_default();
        lines.push(format!("traced for {} in {runs}{rate}", time::span(ns)));
    }
    lines.extend(near_miss::rates(&execs, near_misses, &report.near_misses));
    lines.extend(report.near_misses.lines(Look::PLAIN));
    if refusals > 0 {
        let calls = count(refusals, "other call", "other calls");
        let each = report.runs.refusals.iter();
        let each = each.map(|(call, n)| format!("{} {n}", escape::short(call, NAME)));
        let each = each.collect::<Vec<_>>().join(", ");
        let each = if each.is_empty() { each } else { format!(" ({each})") };
        lines.push(format!("{calls} failed with ETXTBSY and were only counted{each}"));
    }
    if elsewhere > 0 {
        let failures = count(elsewhere, "failure", "failures");
        lines.push(format!("{failures} outside of the traced trees not shown"));
    }
    lines
}

/// How often something failed, in the largest number of times that is at least one.
fn rate(failures: u64, ns: u64) -> Option<String> {
    if failures == 0 || ns < 1_000_000_000 {
        return None;
    }
    let hourly = u128::from(failures) * 36_000_000_000_000 / u128::from(ns);
    let (tenths, unit) = match hourly {
        36_000.. => (hourly / 3_600, "a second"),
        600.. => (hourly / 60, "a minute"),
        _ => (hourly, "an hour"),
    };
    Some(format!("{}.{} failed calls {unit}", tenths / 10, tenths % 10))
}

/// What a reader has to know before trusting the numbers, a line each.
pub(super) fn warnings(report: &Report) -> Vec<String> {
    let totals = report.runs.totals();
    let mut lines = Vec::new();
    if totals.lost > 0 {
        let each = report.runs.lost.iter().map(|(kind, lost)| {
            let what = escape::short(&lost.what, NAME);
            let kind = escape::short(kind, NAME);
            if kind == what {
                format!("{} {what}", lost.count)
            } else {
                format!("{} {kind}: {what}", lost.count)
            }
        });
        let each = each.collect::<Vec<_>>().join("; ");
        let each = if each.is_empty() { each } else { format!(" ({each})") };
        lines.push(format!(
            "lost {}{each}: there may be more incidents and holders than shown",
            totals.lost
        ));
    }
    if totals.unfinished > 0 {
        let without = count(totals.unfinished, "recording has", "recordings have");
        lines.push(format!(
            "{without} no summary line: the trace was killed, or its last part is missing here"
        ));
    }
    if report.groups.other().is_some() {
        lines.push(format!("more than {GROUPS} groups: the incidents of all others are one group"));
    }
    lines.extend(report.notes.iter().map(|note| escape::prose(note)));
    lines
}

/// The verdict of a group.
pub(super) fn verdict(row: &Row<'_>) -> String {
    row.cause.map_or_else(|| "other".to_owned(), |cause| name(cause.verdict))
}

/// What the incidents of a group have in common. `paint` as in [`group::sentence`].
pub(super) fn sentence(row: &Row<'_>, paint: &dyn Fn(Tone, &str, usize) -> String) -> String {
    match (row.cause, row.group()) {
        (Some(cause), Some(group)) => group::sentence(cause, group.tally(), paint),
        _ => format!("all other groups (limit {GROUPS})"),
    }
}

/// [`sentence`] without colours, for a terminal.
pub(super) fn plain_sentence(row: &Row<'_>) -> String {
    sentence(row, &|_, raw, columns| escape::short(raw, columns))
}

/// The facts of a group: a label and a line each.
pub(super) fn facts(document: &Document, row: &Row<'_>) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(change) = row.change() {
        let (now, before) = row.counts();
        facts.push(("change", format!("{}: {before} in the baseline, {now} now", change.word())));
    }
    let Some(group) = row.group() else { return facts };
    let tally = group.tally();
    let of = if row.now.is_none() { " (of the baseline)" } else { "" };
    let mut incidents = format!("{}, {} explained{of}", tally.count, tally.explained);
    for (n, what) in [
        (group.likely, "with a holder that is only likely"),
        (group.repaired, "repaired by the failing process itself"),
    ] {
        if n > 0 {
            incidents += &format!(", {n} {what}");
        }
    }
    facts.push(("incidents", incidents));
    if let Some((first, last)) = group.seen {
        let report = match (row.now, &document.before) {
            (None, Some(before)) => before,
            _ => &document.now,
        };
        let runs = report.runs.count();
        let within = if runs > 1 {
            format!(", in {} of {runs} recordings", group.runs)
        } else {
            String::new()
        };
        let seen = if first == last {
            clock(first)
        } else {
            format!("first {}, last {}", clock(first), clock(last))
        };
        facts.push(("seen", format!("{seen}{within}")));
    }
    facts.extend(group.contexts.lines(tally.count));
    facts.extend(group.places.lines());
    facts.push(("wait", waits(tally)));
    if let (Some(_), Some(before)) = (row.now, row.before) {
        facts.push(("before", format!("wait {}", waits(before.tally()))));
    }
    facts
}

fn clock(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S.%3fZ").to_string()
}

/// How long a retry would have had to wait.
pub(super) fn waits(tally: &Tally) -> String {
    let over: u64 = tally.histogram().iter().map(|(_, count)| count).sum();
    let mut parts = Vec::new();
    if let Some((median, max)) = tally.waits() {
        parts.push(if over == 1 {
            time::span(max)
        } else {
            format!("median {}, longest {}", time::span(median), time::span(max))
        });
    }
    if tally.endless > 0 {
        parts.push(format!("{} still held when the line was written", tally.endless));
    }
    let unknown = tally.count.saturating_sub(over + tally.endless);
    if unknown > 0 {
        parts.push(format!("{unknown} unknown"));
    }
    parts.join("; ")
}

/// How many waits are of each size, from the first size to the last that occurs.
pub(super) fn histogram(tally: &Tally) -> Vec<(String, u64)> {
    let mut last = String::new();
    let mut rows: Vec<(String, u64)> = tally
        .histogram()
        .into_iter()
        .map(|(to, count)| match to {
            Some(to) => {
                last = time::span(to);
                (format!("≤ {last}"), count)
            }
            None => (format!("> {last}"), count),
        })
        .collect();
    let used = rows.iter().rposition(|(_, count)| *count > 0).map_or(0, |at| at + 1);
    rows.truncate(used);
    let unused = rows.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    rows.drain(..unused);
    rows
}

/// What a wait is, for the legend.
pub(super) const WAIT: &str = "wait: time from the failure until the last known holder released the file; a retry would have \
     had to wait this long";

/// Which incident an example is.
pub(super) fn origin(report: &Report, example: &Example) -> String {
    let file = escape::short(report.name(example.origin.file), NAME);
    format!("incident {} of {file}", example.incident.id)
}

/// The report that the examples of a row come from.
pub(super) fn source<'a>(document: &'a Document, row: &Row<'_>) -> &'a Report {
    match &document.before {
        Some(before) if row.now.is_none() => before,
        _ => &document.now,
    }
}

/// The example that formats with room for one show, and the slowest if it is another.
pub(super) fn shown(group: &Group) -> impl Iterator<Item = (&'static str, &Example)> {
    let first = group.examples.first();
    let slowest = group.slowest().filter(|slowest| {
        first.is_none_or(|first| first.origin.sequence != slowest.origin.sequence)
    });
    first.map(|it| ("example", it)).into_iter().chain(slowest.map(|it| ("longest wait", it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_at_least_one_in_their_unit() {
        let minute = 60_000_000_000;
        for (failures, ns, text) in [
            (7, 1_090_000_000, Some("6.4 failed calls a second")),
            (7, minute, Some("7.0 failed calls a minute")),
            (7, 60 * minute, Some("7.0 failed calls an hour")),
            (1, 600 * minute, Some("0.1 failed calls an hour")),
            (7, 900_000_000, None),
            (0, minute, None),
        ] {
            assert_eq!(rate(failures, ns).as_deref(), text, "{failures} in {ns}");
        }
    }

    #[test]
    fn the_histogram_has_no_empty_ends() {
        use crate::{analysis::group::Groups, output::samples};
        let mut groups = Groups::default();
        for after_ns in [50_000, 5_000_000] {
            let mut incident = samples::race();
            incident.holders[0].released.as_mut().unwrap().after_ns = after_ns;
            groups.add(&incident);
        }
        let rows = histogram(groups.all()[0].1);
        let rows: Vec<(&str, u64)> = rows.iter().map(|(size, n)| (size.as_str(), *n)).collect();
        assert_eq!(rows, [("≤ 100 µs", 1), ("≤ 1.00 ms", 0), ("≤ 10.0 ms", 1)]);
    }
}
