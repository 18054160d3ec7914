//! Near misses as text: one in full, and what the summary says of all.

use std::collections::BTreeMap;

use super::{
    incident::{count, process, process_name},
    look::{Look, Tone},
    stack,
};
use crate::{
    analysis::rate::Rate,
    event::{Execs, Frame, How, NearMiss},
    text::{name, time},
};

/// Longer paths and names are shortened; in columns.
const PATH: usize = 100;
const NAME: usize = 32;
/// How many kinds the summary shows without `-v`, and how many are told apart.
const SHOWN: usize = 5;
const KINDS: usize = 256;

/// What has been read of near misses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// By who opened the file and who forked the copy, both by the names of their processes.
    kinds: BTreeMap<(String, String), Kind>,
}

/// Near misses that have opener and forker in common.
#[derive(Clone, Debug)]
struct Kind {
    count: u64,
    closest_ns: u64,
    /// A file of one of them.
    path: String,
}

impl Tally {
    /// Adds a line.
    pub(crate) fn add(&mut self, near: &NearMiss) {
        let first = near.holders.first();
        let unknown = || "(unknown)".to_owned();
        let opener = first.and_then(|holder| {
            let opened = holder.opened.as_ref()?;
            process_name(holder, opened.pid).or(opened.comm.as_deref())
        });
        let forker = first.and_then(|holder| {
            let forked = holder.forked.as_ref()?;
            process_name(holder, forked.pid).or(forked.comm.as_deref())
        });
        let name = |name: Option<&str>| name.map_or_else(unknown, ToOwned::to_owned);
        let mut key = (name(opener), name(forker));
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&key) {
            key = (unknown(), unknown());
        }
        let kind = self.kinds.entry(key).or_insert_with(|| Kind {
            count: 0,
            closest_ns: u64::MAX,
            path: path_of(near).unwrap_or_default().to_owned(),
        });
        kind.count += near.count;
        kind.closest_ns = kind.closest_ns.min(near.margin_ns);
    }

    /// The kinds, the most frequent first.
    pub(crate) fn lines(&self, look: Look) -> Vec<String> {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.count));
        let shown = look.many(SHOWN).min(kinds.len());
        let line = |((opener, forker), kind): &(&(String, String), &Kind)| {
            format!(
                "  {}: opened by {}, copied by a fork of {}, closest {}; for instance {}",
                count(kind.count, "near miss", "near misses"),
                look.paint(Tone::Holder, &look.short(opener, NAME)),
                look.paint(Tone::Holder, &look.short(forker, NAME)),
                time::span(kind.closest_ns),
                look.paint(Tone::Strong, &look.short(&kind.path, PATH)),
            )
        };
        let mut lines: Vec<String> = kinds[..shown].iter().map(line).collect();
        let rest = kinds.len() - shown;
        if rest > 0 {
            let rest = count(rest as u64, "more kind", "more kinds");
            lines.push(look.paint(Tone::Faint, &format!("  {rest} (-v shows them)")));
        }
        lines
    }

    /// By how much the closest missed failing; `None` if there was none.
    fn closest_ns(&self) -> Option<u64> {
        self.kinds.values().map(|kind| kind.closest_ns).min()
    }
}

/// How many execs there were, and how many failed or could have.
pub(crate) fn rates(execs: &Execs, near_misses: u64, tally: &Tally) -> Vec<String> {
    if execs.total == 0 {
        return Vec::new();
    }
    let failed = Rate { happened: execs.failed, of: execs.of_written_files };
    let mut lines = vec![format!(
        "{}, {} of files written here; of those {} failed{}",
        count(execs.total, "exec", "execs"),
        execs.of_written_files,
        execs.failed,
        percent(failed),
    )];
    if near_misses > 0 {
        let closest = tally.closest_ns().map(|ns| format!("; closest {}", time::span(ns)));
        lines.push(format!(
            "race present: {near_misses} of {} execs of files written here could have failed, unless something \
             that the tracer does not see orders them{}",
            execs.of_written_files,
            closest.unwrap_or_default(),
        ));
    }
    lines
}

/// A rate in per cent, and its interval, in parentheses.
pub(crate) fn percent(rate: Rate) -> String {
    let (Some(share), Some((low, high))) = (rate.share(), rate.interval()) else {
        return String::new();
    };
    if rate.happened == 0 {
        return format!(" (95%: below {:.2}%)", 100.0 * high);
    }
    format!(" ({:.2}%, 95%: {:.2} to {:.2}%)", 100.0 * share, 100.0 * low, 100.0 * high)
}

/// One near miss, on several lines.
pub(crate) fn full(near: &NearMiss, look: Look) -> String {
    let clock = time::clock(&near.time).unwrap_or_else(|| look.short(&near.time, NAME));
    let path =
        path_of(near).map_or_else(|| "(path unknown)".to_owned(), |path| look.short(path, PATH));
    let like = match near.count {
        1 => String::new(),
        count => format!(" ({count} like it)"),
    };
    let text = format!(
        "{}  {}: exec by {} succeeded, {} after the last copy was released{like}",
        look.paint(Tone::Faint, &clock),
        look.paint(Tone::Strong, &path),
        process(near.victim.pid, near.victim.comm.as_deref(), look),
        time::span(near.margin_ns),
    );
    let mut out = look.line("near miss  ", &text);
    let places = |words: &str, stack: Option<&[Frame]>, unknown: Option<u32>| -> String {
        let lines = stack::lines(words, stack, unknown, look);
        lines.iter().map(|line| look.line("    ", line)).collect()
    };
    out += &places("exec at", near.victim.stack.as_deref(), near.victim.frames_unknown);
    for holder in &near.holders {
        let mut facts =
            vec![look.paint(Tone::Holder, &process(holder.pid, holder.comm.as_deref(), look))];
        if let Some(opened) = &holder.opened {
            let comm = opened
                .comm
                .as_deref()
                .map_or_else(String::new, |comm| format!(" ({})", look.short(comm, NAME)));
            facts.push(format!("opened by thread {}{comm} of {}", opened.tid, opened.pid));
        }
        if let Some(forked) = &holder.forked {
            facts.push(format!("forked by thread {} of {}", forked.tid, forked.pid));
        }
        if let Some(released) = &holder.released {
            let before = near.time_ns.saturating_sub(released.time_ns);
            let by = match released.how {
                How::CloseOnExec => "its exec".to_owned(),
                how => name(how),
            };
            facts.push(format!("released by {by} {} before", time::span(before)));
        }
        out += &look.line("  ", &facts.join(" · "));
        if let Some(opened) = &holder.opened {
            out += &places("opened at", opened.stack.as_deref(), opened.frames_unknown);
        }
        if let Some(forked) = &holder.forked {
            out += &places("forked at", forked.stack.as_deref(), forked.frames_unknown);
        }
    }
    out
}

fn path_of(near: &NearMiss) -> Option<&str> {
    near.path.as_deref().or(near.file.path.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn rates_have_an_interval() {
        let execs = |total, of_written_files, failed| Execs { total, of_written_files, failed };
        let none = Tally::default();
        assert_eq!(rates(&Execs::default(), 0, &none), Vec::<String>::new());
        assert_eq!(
            rates(&execs(9000, 1440, 18), 0, &none),
            [
                "9000 execs, 1440 of files written here; of those 18 failed (1.25%, 95%: 0.79 to 1.97%)"
            ]
        );
        assert_eq!(
            rates(&execs(4800, 4800, 0), 0, &none),
            ["4800 execs, 4800 of files written here; of those 0 failed (95%: below 0.08%)"]
        );
    }

    #[test]
    fn near_misses_are_summed_up_by_opener_and_forker() {
        let mut tally = Tally::default();
        let near = samples::near_miss();
        tally.add(&near);
        tally.add(&NearMiss { count: 3, margin_ns: 3_000, ..near });
        insta::assert_snapshot!(
            rates(&Execs { total: 50, of_written_files: 40, failed: 0 }, 4, &tally)
                .into_iter()
                .chain(tally.lines(Look::PLAIN))
                .collect::<Vec<_>>()
                .join("\n")
        );
    }

    #[test]
    fn one_in_full() {
        insta::assert_snapshot!(full(&samples::near_miss(), Look::PLAIN));
    }

    #[test]
    fn one_in_full_with_stacks() {
        let near = samples::near_miss_with_stacks();
        let verbose = Look { verbose: true, ..Look::PLAIN };
        insta::assert_snapshot!(full(&near, Look::PLAIN) + &full(&near, verbose));
    }
}
