//! The lines as text for people.

use super::look::{Look, Style, Tone};
use super::{
    Output,
    fold::{Fold, Folded},
    group::Advised,
    incident, near_miss, summary,
};
use crate::analysis::group::{Groups, Member as _};
use crate::event::{Filter, Incident, Line, Lost, Meta, Provoke, TreeRole};
use crate::text::{
    escape::{self, Charset},
    name, time,
};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The number of reasons for losses that are counted separately.
const REASONS: usize = 16;

/// Writes each line as text: the first incidents of a group in full, the others folded, and a table of
/// the groups with their advice at the end.
pub struct Text<W> {
    out: W,
    style: Style,
    groups: Groups<Advised>,
    fold: Fold,
    lost: BTreeMap<String, u64>,
    near_misses: near_miss::Tally,
    role: TreeRole,
    /// Whether the command could not be started.
    command_failed: bool,
    /// Whether the last line has been seen.
    is_complete: bool,
    /// What was written last.
    last: Last,
}

/// What was written last: an empty line separates blocks of several lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Line,
    Block,
}

impl<W: Write> Text<W> {
    /// Writes to `out`. If the look is verbose, nothing is shortened or folded.
    pub fn new(out: W, style: impl Into<Style>) -> Self {
        Self {
            out,
            style: style.into(),
            groups: Groups::default(),
            fold: Fold::default(),
            lost: BTreeMap::new(),
            near_misses: near_miss::Tally::default(),
            role: TreeRole::default(),
            command_failed: false,
            is_complete: false,
            last: Last::Nothing,
        }
    }

    /// Writes a line or a block, unless only the summary is written.
    fn put(&mut self, what: Last, text: &str) -> io::Result<()> {
        if self.style.summary_only {
            return Ok(());
        }
        self.put_always(what, &escape::unlike_commands(text))
    }

    /// Writes a line or a block with one call.
    fn put_always(&mut self, what: Last, text: &str) -> io::Result<()> {
        let apart = match self.last {
            Last::Nothing => false,
            Last::Line => what == Last::Block,
            Last::Block => true,
        };
        self.last = what;
        let text = format!("{}{text}", if apart { "\n" } else { "" });
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Writes an incident in full, or keeps it to fold it with others.
    fn incident(&mut self, incident: &Incident) -> io::Result<()> {
        let tally = self.groups.add_from(incident, ()).tally();
        if self.style.summary_only {
            return Ok(());
        }
        let (look, first, count) = (self.style.look, tally.ids.0, tally.count);
        if !look.verbose {
            let (due, is_full) = self.fold.add(incident, first, count);
            self.folded(&due)?;
            if !is_full {
                return Ok(());
            }
        }
        let text = incident::full(incident, (count > 1).then_some(first), look);
        if self.style.log_groups {
            let text = log_group(&incident::title(incident, look), &text);
            return self.put_always(Last::Block, &text);
        }
        self.put(Last::Block, &text)
    }

    /// Writes a line about each group that waits to be folded.
    fn flush(&mut self) -> io::Result<()> {
        let due = self.fold.end();
        self.folded(&due)
    }

    /// Writes a line about each of these.
    fn folded(&mut self, due: &[Folded]) -> io::Result<()> {
        due.iter().try_for_each(|folded| {
            let text = incident::folded(folded, self.style.look);
            self.put(Last::Line, &text)
        })
    }

    /// Reports a loss at once, because it can affect the lines after it.
    fn lost(&mut self, lost: &Lost) -> io::Result<()> {
        let look = self.style.look;
        let mut what = look.short(&lost.what, 100);
        let text = look.paint(Tone::Bad, &format!("lost {}: {what}", lost.count));
        if self.lost.len() >= REASONS && !self.lost.contains_key(&what) {
            "other".clone_into(&mut what);
        }
        *self.lost.entry(what).or_default() += lost.count;
        self.put(Last::Line, &look.line("", &text))
    }
}

impl<W: Write + Send> Output for Text<W> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let look = self.style.look;
        self.is_complete |= matches!(line, Line::Summary(_));
        match line {
            Line::Meta(meta) => {
                self.role = meta.filter.role;
                let text = begin(meta, look);
                self.put(Last::Line, &text)
            }
            Line::Incident(incident) => self.incident(incident),
            Line::Refusal(refusal) => {
                let due = self.fold.pass(refusal.time_ns);
                self.folded(&due)?;
                let text = incident::refusal(refusal, look);
                self.put(Last::Line, &text)
            }
            Line::NearMiss(near) => {
                self.near_misses.add(near);
                let due = self.fold.pass(near.time_ns);
                self.folded(&due)?;
                if !look.verbose {
                    return Ok(());
                }
                let text = near_miss::full(near, look);
                self.put(Last::Block, &text)
            }
            Line::Lost(lost) => self.lost(lost),
            Line::Summary(end)
                if self.command_failed
                    && end.failures == 0
                    && end.near_misses == 0
                    && end.refusals == 0
                    && end.lost == 0 =>
            {
                Ok(())
            }
            Line::Summary(end) => {
                self.flush()?;
                let text = summary::summary(
                    end,
                    &self.groups,
                    &self.near_misses,
                    &self.lost,
                    self.role,
                    self.style,
                );
                self.put_always(Last::Block, &escape::unlike_commands(&text))
            }
        }
    }

    fn command_failed(&mut self) {
        self.command_failed = true;
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.is_complete || self.groups.all().is_empty() {
            return Ok(());
        }
        self.is_complete = true;
        let text = summary::without_totals(&self.groups, self.style.look);
        self.put_always(Last::Block, &escape::unlike_commands(&text))
    }
}

/// A block of the log of GitHub Actions that is folded under `title`. Both are one line or more without
/// commands.
fn log_group(title: &str, text: &str) -> String {
    // The runner undoes these escapes.
    let title = escape::unlike_commands(title.trim_end());
    let title = title.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::group::etxtbsy-trace: {title}\n{}::endgroup::\n", escape::unlike_commands(text))
}

/// The traced processes; a command takes about `columns` at most.
pub fn watched(filter: &Filter, columns: usize, charset: Charset) -> String {
    let pids: Vec<String> = filter.pids.iter().map(ToString::to_string).collect();
    let tree = match (&filter.command, pids.as_slice()) {
        (Some(command), _) => {
            format!("{} and its descendants", charset.command(command, columns))
        }
        (None, []) => "the whole machine".to_owned(),
        (None, [pid]) => format!("process {pid} and its descendants"),
        (None, pids) => format!("processes {} and their descendants", pids.join(", ")),
    };
    match filter.role {
        TreeRole::Victim => tree,
        TreeRole::Holder => format!("{tree}, for failures that they cause"),
        TreeRole::Either => format!("{tree}, for failures that they have or cause"),
        TreeRole::Other(_) => format!("{tree}, as {}", name(filter.role)),
    }
}

/// The first line: what is traced, and since when.
fn begin(meta: &Meta, look: Look) -> String {
    let since = time::moment(&meta.time).unwrap_or_else(|| look.short(&meta.time, 32));
    let watched = watched(&meta.filter, look.many(80), look.charset);
    let text = format!(
        "etxtbsy-trace {} on {} {}, since {since}: watching {watched}",
        look.short(&meta.version, 32),
        look.short(&meta.kernel, 64),
        look.short(&meta.arch, 32),
    );
    let provoking = meta.provoke.as_ref().map(provoking);
    [Some(text), provoking]
        .into_iter()
        .flatten()
        .map(|line| look.line("", &look.paint(Tone::Faint, &line)))
        .collect()
}

/// How failures are provoked, and how to repeat that.
#[must_use]
pub fn provoking(provoke: &Provoke) -> String {
    let (number, unit) = time::exact(provoke.max_ns);
    format!(
        "provoking: delays up to {number} {unit}, seed {}; repeat with {}",
        provoke.seed,
        provoking_again(provoke)
    )
}

/// The options that provoke the same again.
#[must_use]
pub fn provoking_again(Provoke { max_ns, seed }: &Provoke) -> String {
    let (number, unit) = time::exact(*max_ns);
    format!("--provoke={number}{} --seed {seed}", if unit == "µs" { "us" } else { unit })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::analysis::verdict::GroupAdvice;
    use crate::event::{Context, Evidence, LossKind, Place, State, VerdictKind};
    use crate::output::samples;
    use proptest::prelude::*;

    /// What `Text` writes for `lines`.
    fn written(lines: &[Line], color: bool, verbose: bool) -> String {
        styled(lines, Look { color, verbose, ..Look::PLAIN })
    }

    /// The same, in this style.
    fn styled(lines: &[Line], style: impl Into<Style>) -> String {
        let mut out = Vec::new();
        let mut text = Text::new(&mut out, style);
        for line in lines {
            text.line(line).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    /// Compares with the snapshot of that name; with `INSTA_UPDATE=always`, writes it.
    fn shows(name: &str, incident: Incident) {
        let text = written(&[incident.into()], false, false);
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, text);
        });
    }

    /// Compares, and prints both texts if they differ.
    #[track_caller]
    fn pretty(text: &str, expected: &str) {
        let expected = expected.trim_start_matches('\n');
        assert!(text == expected, "got:\n{text}\nexpected:\n{expected}");
    }

    #[test]
    fn provoked_failures_are_announced_with_how_to_repeat_them() {
        let mut meta = samples::meta();
        for (max_ns, expected) in [
            (5_000_000, "delays up to 5 ms, seed 1234; repeat with --provoke=5ms --seed 1234"),
            (200_000, "delays up to 200 µs, seed 1234; repeat with --provoke=200us --seed 1234"),
            (
                1_500_000,
                "delays up to 1500 µs, seed 1234; repeat with --provoke=1500us --seed 1234",
            ),
        ] {
            meta.provoke = Some(Provoke { max_ns, seed: 1234 });
            let text = written(&[meta.clone().into()], false, false);
            assert_eq!(text.lines().nth(1), Some(format!("provoking: {expected}").as_str()));
        }
    }

    #[test]
    fn fork_exec_race() {
        shows("race", samples::race());
    }

    #[test]
    fn what_a_holder_has_in_common_with_the_victim_is_not_repeated() {
        let context = |test: &str| {
            let (test, job) = (Some(test.to_owned()), Some("build, run 17".to_owned()));
            Some(Context { test, job, ..Context::default() })
        };
        let mut incident = samples::race();
        incident.victim.context = context("one");
        incident.holders[0].context = context("two");
        let text = written(&[incident.into()], false, false);
        assert!(text.contains(" test one · job build, run 17\n"), "{text}");
        assert!(text.contains(" test two\n"), "{text}");
    }

    #[test]
    fn own_frames_follow_who_opened_forked_and_failed() {
        shows("stacks", samples::with_stacks());
    }

    #[test]
    fn verbose_shows_all_frames() {
        let text = written(&[samples::with_stacks().into()], false, true);
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("stacks-verbose", text);
        });
    }

    #[test]
    fn names_in_frames_are_escaped_and_short() {
        let mut incident = samples::with_stacks();
        let victim = incident.victim.stack.as_mut().unwrap();
        victim[2].function = Some("a\n#13 all is well\x1b[2J".to_owned());
        victim[2].file = Some("/\u{202e}sr.niam".to_owned());
        victim[3].function = Some("f".repeat(1_000_000));
        let opened = incident.holders[0].opened.as_mut().unwrap().stack.as_mut().unwrap();
        opened[4].function = Some("\u{9b}31m".repeat(200_000));
        let text = written(&[incident.into()], false, false);
        assert!(text.len() < 10_000 && samples::harmless(&text), "{text}");
        let expected =
            r"           failed at a\n#13 all is well\x1b[2J (/\u{202e}sr.niam:31), called by fff";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn leaked_fd_in_another_container() {
        shows("leaked", samples::leaked());
    }

    #[test]
    fn still_open() {
        shows("still-open", samples::still_open());
    }

    #[test]
    fn unexplained_and_unknown() {
        shows("unexplained", samples::unexplained());
    }

    #[test]
    fn several_holders_share_a_column_and_an_unfinished_fork_comes_after_the_failure() {
        shows("several", samples::several());
    }

    #[test]
    fn write_direction() {
        shows("write-direction", samples::write_direction());
    }

    #[test]
    fn hostile_names() {
        let mut incident = samples::race();
        let path = "/tmp/a\n#13 all is well\x1b[2J/\u{202e}gpj.exe";
        incident.path = Some(path.to_owned());
        incident.victim.comm = Some("sh\x1b]0;owned\x07".to_owned());
        incident.victim.argv = Some(vec!["a b".to_owned(), "\u{9b}31m".to_owned()]);
        incident.victim.cwd = Some("\u{200b}".to_owned());
        let text = written(&[incident.into()], false, false);
        let head: Vec<&str> = text.lines().take(3).collect();
        let expected = [
            r"#12  2026-11-20 14:03:07.123456Z  execve /tmp/a\n#13 all is well\x1b[2J/\u{202e}gpj.exe: Text file busy",
            r"  victim   sh\x1b]0;owned\x07[4312] · uid 1000 · parent 4300 · cwd \u{200b}",
            r"           exe /usr/bin/demo · argv 'a b' $'\u{9b}31m'",
        ];
        assert_eq!(head, expected);
    }

    #[test]
    fn verbose_shortens_nothing() {
        let mut incident = samples::race();
        let path = format!("/{}/tool", "x".repeat(3000));
        incident.path = Some(path.clone());
        incident.holders = vec![incident.holders[0].clone(); 6];
        let line = Line::from(incident);
        let brief = written(std::slice::from_ref(&line), false, false);
        assert!(brief.contains("xx…xx") && brief.contains("and 2 more holders (-v shows them)"));
        assert_eq!(brief.matches("\n  holder ").count(), 4);
        let verbose = written(&[line], false, true);
        assert!(verbose.contains(&path));
        assert_eq!(verbose.matches("\n  holder ").count(), 6);
    }

    /// Incidents of one group, each with another file.
    fn storm(incidents: u64) -> Vec<Line> {
        let ids = 1..=incidents;
        let each = ids.map(|id| {
            let mut incident = samples::race();
            incident.id = id;
            incident.path = Some(format!("/var/tmp/fork-exec-{id}"));
            incident.file.path.clone_from(&incident.path);
            incident.into()
        });
        each.collect()
    }

    #[test]
    fn after_the_third_incident_of_a_group_they_fold_to_one_line() {
        let mut lines = storm(5);
        let mut open = samples::leaked();
        open.id = 6;
        lines.push(open.into());
        lines.push(Line::Summary(samples::summary(6, &[])));
        let text = written(&lines, false, false);
        let full = text.matches("\n  verdict ").count();
        assert_eq!(full, 4);
        let (_, end) = text.split_once("\n#4").unwrap();
        let (folded, _) = end.split_once("\n\n").unwrap();
        assert_eq!(
            folded,
            ", #5  14:03:07.123456Z  /var/tmp/fork-exec-*  2 times in 0 ns: fork-exec-race, released after 180 µs  (like #1)"
        );
        let verbose = written(&lines, false, true);
        assert_eq!(verbose.matches("\n  verdict ").count(), 6);
    }

    #[test]
    fn the_first_remedy_is_in_the_first_incident_of_a_group_and_all_advice_in_the_summary() {
        let advice = samples::race().verdict.advice;
        let count = |text: &str| advice.iter().map(|one| text.matches(one).count()).collect();
        let (text, verbose) = (written(&storm(3), false, false), written(&storm(3), false, true));
        let (once, each_time): (Vec<_>, Vec<_>) = (count(&text), count(&verbose));
        let mut first = vec![0; advice.len()];
        first[0] = 1;
        assert_eq!((once, each_time), (first, vec![3; advice.len()]));
        assert_eq!(text.matches("\n  advice   as for #1\n").count(), 2);
        let mut lines = storm(3);
        lines.push(Line::Summary(samples::summary(3, &[])));
        let text = written(&lines, false, false);
        let (_, summary) = text.split_once("\n\nGROUP").unwrap();
        let GroupAdvice { helps, in_vain } = GroupAdvice::of(&samples::race());
        for one in helps.iter().chain(&in_vain) {
            assert_eq!(summary.matches(one.as_str()).count(), 1, "{one}: {summary}");
        }
    }

    #[test]
    fn a_retry_loop_is_one_line() {
        let mut lines: Vec<Line> = Vec::new();
        for id in 1..=57 {
            let mut incident = samples::leaked();
            incident.id = id;
            incident.time_ns += id * 100_000_000;
            lines.push(incident.into());
        }
        let end = lines.len();
        lines.push(Line::Summary(samples::summary(57, &[])));
        let text = written(&lines, false, false);
        assert_eq!(text.matches("\n  verdict ").count(), 1);
        let line = "\n#2 to #57  14:03:07.123456Z  /var/tmp/fork-exec-3  56 times in 5.50 s by worker-3[4312], daemon[4310] → leaked-fd, still held  (retries of #1)\n";
        assert!(text.contains(line), "{text}");
        assert_eq!(written(&lines, false, true).matches("\n  verdict ").count(), 57);
        // A recording that ends without a summary.
        let mut out = Vec::new();
        let mut cut = Text::new(&mut out, Look::PLAIN);
        lines[..end].iter().for_each(|line| cut.line(line).unwrap());
        cut.end().unwrap();
        drop(cut);
        let cut = String::from_utf8(out).unwrap();
        assert!(cut.contains(line) && cut.contains("\n\nGROUP "), "{cut}");
        assert!(cut.ends_with("\nno totals: no summary line was read\n"), "{cut}");
    }

    #[test]
    fn a_storm_is_a_page_or_two() {
        for step_ns in [10_000, 1_000_000, 50_000_000] {
            let mut out = Vec::new();
            let mut text = Text::new(&mut out, Look::PLAIN);
            let mut incidents = [samples::race(), samples::leaked(), samples::several()];
            for id in 1..=100_000_u64 {
                let incident = &mut incidents[id as usize % 3];
                incident.id = id;
                incident.time_ns += 3 * step_ns;
                incident.path = Some(format!("/tmp/tool-{id}"));
                incident.file.path = Some(format!("/tmp/tool-{id}"));
                text.line(&Line::Incident(Box::new(incident.clone()))).unwrap();
            }
            text.line(&Line::Summary(samples::summary(100_000, &[]))).unwrap();
            drop(text);
            let text = String::from_utf8(out).unwrap();
            let lines = text.lines().count();
            println!("100000 incidents, one each {step_ns} ns: {lines} lines");
            assert!(lines < 250, "{lines} lines");
            let (many, each): (Vec<&str>, Vec<&str>) = text
                .lines()
                .filter(|line| line.starts_with('#'))
                .partition(|line| line.contains(" times in "));
            let times = |line: &&str| -> u64 {
                let (before, _) = line.split_once(" times in ").unwrap();
                before.rsplit(' ').next().unwrap().parse().unwrap()
            };
            let folded: u64 = many.iter().map(times).sum();
            assert_eq!(folded + each.len() as u64, 100_000);
        }
    }

    #[test]
    fn a_holder_by_elimination_is_marked_likely() {
        let mut incident = samples::race();
        incident.holders[0].evidence = Some(Evidence::Elimination);
        incident.certain = false;
        let text = written(&[incident.into()], false, false);
        assert!(text.contains("via fork, exec-closing · likely\n"), "{text}");
        assert!(text.contains("\n  uncertain: 1 holder is only likely: "), "{text}");
        assert!(!written(&[samples::race().into()], false, false).contains("likely"));
    }

    #[test]
    fn a_writer_whose_place_is_known_is_not_called_missing() {
        let mut incident = samples::unheld();
        assert!(!incident.complete && incident.explained == 0, "as in schema 1");
        let text = |incident: &Incident| written(&[incident.clone().into()], false, false);
        assert!(!text(&incident).contains("not found"), "{}", text(&incident));
        incident.file.writers = Some(2);
        assert!(text(&incident).contains("unexplained: 1 writer of 2 not found"));
        incident.unheld[0].place = Place::Unknown;
        assert!(text(&incident).contains("unexplained: 2 writers of 2 not found"));
    }

    #[test]
    fn unusual_facts_are_mentioned() {
        let text = |change: &dyn Fn(&mut Incident)| {
            let mut incident = samples::race();
            change(&mut incident);
            written(&[incident.into()], false, false)
        };
        let has = |text: String, words: &str| assert!(text.contains(words), "{text}");
        let during = text(&|it| it.holders[0].released.as_mut().unwrap().after_ns = 0);
        has(during, "exec of /bin/true, while the call was failing");
        let link = text(&|it| it.file.path = Some("/other".to_owned()));
        has(
            link,
            "as /var/tmp/fork-exec-3 (another name of the file: a hard link, or the name before a rename)",
        );
        has(text(&|it| it.holders[0].pid = it.victim.pid), " · the victim itself\n");
        let dump = text(&|it| {
            it.holders[0].state = State::Exiting;
            it.holders[0].released = None;
        });
        has(dump, "keeps its files until its core dump (if any) is written");
    }

    #[test]
    fn the_short_form_shows_a_file_still_held_and_a_holder_not_found() {
        let mut lines = Vec::new();
        for id in 1..=4 {
            lines.push(Incident { id, ..samples::unexplained() }.into());
        }
        for id in 5..=8 {
            let mut incident = Incident { id, ..samples::several() };
            incident.holders[1].released = None;
            incident.holders[1].pid += u32::try_from(id).unwrap();
            lines.push(incident.into());
        }
        lines.push(Line::Summary(samples::summary(8, &[])));
        let text = written(&lines, false, false);
        let compact: Vec<&str> = text.lines().filter(|line| line.contains("(like ")).collect();
        let expected = [
            "#4  14:03:07.123456Z  (path unknown)  unexplained, holder not found  (like #1)",
            "#8  14:03:07.123456Z  /var/tmp/fork-exec-3  demo[4310] and 1 more → fork-exec-race, still held  (like #5)",
        ];
        assert_eq!(compact, expected);
    }

    #[test]
    fn the_table_at_the_end() {
        let mut lines = storm(120);
        for (id, incident) in (121..).zip([samples::leaked(), samples::unexplained()]) {
            let mut incident = incident;
            incident.id = id;
            lines.push(incident.into());
        }
        let verdicts = [
            (VerdictKind::ForkExecRace, 120),
            (VerdictKind::LeakedFd, 1),
            (VerdictKind::Unexplained, 1),
        ];
        lines.push(Line::Summary(samples::summary(122, &verdicts)));
        let text = written(&lines, false, false);
        let (_, table) = text.split_once("\n\nGROUP").unwrap();
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("table", table);
        });
    }

    #[test]
    fn a_long_table_is_cut_without_losing_the_count() {
        let letters = ('a'..='z').map(|letter| {
            let mut incident = samples::race();
            incident.file.path = Some(format!("/{letter}/tool"));
            Line::from(incident)
        });
        let mut lines: Vec<Line> = letters.collect();
        lines.push(Line::Summary(samples::summary(26, &[])));
        let text = written(&lines, false, false);
        assert!(text.contains("\n6 more groups, 6 incidents (-v shows them)\n"));
        assert!(!written(&lines, false, true).contains("more groups"));
    }

    #[test]
    fn a_run_without_failures() {
        let lines = [samples::meta().into(), Line::Summary(samples::summary(0, &[]))];
        pretty(
            &written(&lines, false, false),
            "
etxtbsy-trace 0.1.0 on 6.18.0 x86_64, since 2026-11-20 14:03:00.000000Z: watching make test and its descendants

no call was seen to fail with ETXTBSY in 12.3 s; watched: exec, open for writing and truncate; only counted: ftruncate, fallocate, copy_file_range, unlink, rename, swapon, finit_module and kexec_file_load
",
        );
    }

    #[test]
    fn the_summary_mentions_counted_calls_and_failures_outside_of_the_tree() {
        let mut end = samples::summary(0, &[]);
        (end.refusals, end.elsewhere) = (2, 1);
        let lines = [Line::Refusal(samples::refusal()), Line::Summary(end.clone())];
        let text = written(&lines, false, false);
        pretty(
            &text,
            "
fallocate by fallocate[4320] failed 2 times: Text file busy (only counted, holder not searched; see docs/limitations.md)

no exec, open or truncate was seen to fail with ETXTBSY in 12.3 s; watched: exec, open for writing and truncate; only counted: ftruncate, fallocate, copy_file_range, unlink, rename, swapon, finit_module and kexec_file_load
2 other calls failed with ETXTBSY: listed above, only counted
1 exec outside of this tree failed while this tree held the file; --as either shows them
",
        );
        let mut meta = samples::meta();
        meta.filter.role = TreeRole::Holder;
        let text = written(&[meta.into(), Line::Summary(end)], false, false);
        assert!(text.contains(", for failures that they cause\n"), "{text}");
        assert!(
            text.contains("\n1 failure not shown: this tree was neither victim nor holder\n"),
            "{text}"
        );
    }

    #[test]
    fn losses_are_reported_at_once_and_at_the_end() {
        let mut end = samples::summary(0, &[]);
        end.lost = 6;
        let lost = Line::Lost(samples::lost());
        let lines = [lost.clone(), lost, Line::Summary(end)];
        pretty(
            &written(&lines, true, false),
            "
\x1b[1m\x1b[31mlost 3: ring buffer full\x1b[0m
\x1b[1m\x1b[31mlost 3: ring buffer full\x1b[0m

no call was seen to fail with ETXTBSY in 12.3 s; watched: exec, open for writing and truncate; only counted: ftruncate, fallocate, copy_file_range, unlink, rename, swapon, finit_module and kexec_file_load
\x1b[1m\x1b[31mlost 6 (6 ring buffer full): there may be more incidents and holders than shown\x1b[0m
",
        );
    }

    #[test]
    fn only_the_summary_is_written_on_request() {
        let style = Style { summary_only: true, ..Look::PLAIN.into() };
        let all = styled(&samples::every_line(), Look::PLAIN);
        let only = styled(&samples::every_line(), style);
        assert!(only.starts_with("GROUP") && all.ends_with(&only), "{only}");
        let mut end = samples::summary(0, &[]);
        (end.lost, end.refusals) = (3, 2);
        let lines = [
            samples::meta().into(),
            Line::Lost(samples::lost()),
            Line::Refusal(samples::refusal()),
            Line::Summary(end),
        ];
        let only = styled(&lines, style);
        assert!(only.starts_with("no exec, open or truncate was seen"), "{only}");
        assert!(only.contains("\n2 other calls failed with ETXTBSY: only counted\n"), "{only}");
        assert!(only.contains("\nlost 3 (3 ring buffer full): "), "{only}");
    }

    #[test]
    fn in_the_log_of_github_each_incident_in_full_is_a_group_and_the_summary_is_in_none() {
        let style = Style { log_groups: true, ..Look::PLAIN.into() };
        let mut incident = samples::race();
        incident.path = Some("/tmp/50%\n::endgroup::\n##[error]x".to_owned());
        let mut lines = vec![samples::meta().into()];
        for pid in 1..=5 {
            incident.holders[0].start_ns = Some(pid);
            lines.push(incident.clone().into());
        }
        lines.push(Line::Summary(samples::summary(5, &[])));
        let text = styled(&lines, style);
        let (begins, ends): (Vec<_>, Vec<_>) = text
            .lines()
            .filter(|line| line.trim_start().starts_with("::"))
            .partition(|line| line.starts_with("::group::"));
        assert_eq!((begins.len(), ends.len()), (3, 3), "{text}");
        assert!(!text.contains("##["), "{text}");
        assert_eq!(
            begins[0],
            r"::group::etxtbsy-trace: #12  14:03:07.123456Z  /tmp/50%25\n::endgroup::\n##\[error]x  demo[4310] → fork-exec-race, released after 180 µs"
        );
        let (_, end) = text.rsplit_once("::endgroup::\n").unwrap();
        assert!(end.contains("\nGROUP "), "{end}");
        let only = styled(&lines, Style { summary_only: true, ..style });
        assert!(!only.contains("::group"), "{only}");
    }

    #[test]
    fn a_wrapped_name_is_no_command() {
        let mut incident = samples::race();
        incident.victim.cwd = Some("/a ::error::x ::stop-commands::y".to_owned());
        for columns in 1..80 {
            let look = Look { columns: Some(columns), ..Look::PLAIN };
            let text = styled(&[incident.clone().into()], look);
            let commands = text.lines().filter(|line| line.trim_start().starts_with("::"));
            assert_eq!(commands.count(), 0, "{columns}: {text}");
        }
    }

    #[test]
    fn narrow() {
        let look = Look { columns: Some(60), ..Look::PLAIN };
        let lines = [samples::several().into(), Line::Summary(samples::summary(1, &[]))];
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("narrow", styled(&lines, look));
        });
    }

    #[test]
    fn without_unicode() {
        let look = Look { charset: Charset::Ascii, ..Look::PLAIN };
        let mut incident = samples::several();
        incident.file.path = Some("/tmp/家 → b".to_owned());
        let text = styled(&[incident.into(), Line::Summary(samples::summary(1, &[]))], look);
        assert!(text.is_ascii(), "{text}");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("ascii", text);
        });
    }

    #[test]
    fn the_number_of_loss_reasons_is_bounded() {
        let mut out = Vec::new();
        let mut text = Text::new(&mut out, Look::PLAIN);
        for n in 0..100 {
            let what = format!("reason {n}");
            text.line(&Line::Lost(Lost { kind: LossKind::Unknown, what, count: 2 })).unwrap();
        }
        assert_eq!(text.lost.len(), REASONS + 1);
        assert_eq!(text.lost.values().sum::<u64>(), 200);
    }

    #[test]
    fn the_first_line_names_the_traced_processes() {
        let mut meta = samples::meta();
        meta.filter.command = None;
        let watching = |meta: &Meta| {
            let text = written(&[meta.clone().into()], false, false);
            text.split_once("watching ").unwrap().1.to_owned()
        };
        assert_eq!(watching(&meta), "process 4300 and its descendants\n");
        meta.filter.pids.push(4301);
        assert_eq!(watching(&meta), "processes 4300, 4301 and their descendants\n");
        meta.filter.pids.clear();
        assert_eq!(watching(&meta), "the whole machine\n");
    }

    /// `text` without our own colour codes.
    fn uncolored(text: &str) -> String {
        let ours = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];
        ours.iter().fold(text.to_owned(), |text, code| text.replace(code, ""))
    }

    /// Five incidents and a line of each other type, with strings from `strings`.
    fn lines_with(incident: &Incident, strings: &[String]) -> Vec<Line> {
        let mut meta = samples::meta();
        meta.time.clone_from(&strings[1]);
        meta.filter.command = Some(strings.to_vec());
        let what = strings[0].clone();
        let mut end = samples::summary(5, &[]);
        end.lost = 1;
        let mut lines =
            vec![meta.into(), Line::Lost(Lost { kind: LossKind::Unknown, what, count: 1 })];
        lines.resize(7, samples::with_strings(incident, strings).into());
        lines.push(Line::Summary(end));
        lines
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_string_reaches_the_terminal_raw(
            strings in samples::strings(),
            verbose: bool,
            columns in 1usize..200,
            incident in prop::sample::select(vec![
                samples::with_stacks(),
                samples::several(),
                samples::leaked(),
                samples::still_open(),
                samples::write_direction(),
            ]),
        ) {
            let lines = lines_with(&incident, &strings);
            let plain = written(&lines, false, verbose);
            prop_assert!(samples::harmless(&plain));
            let colored = written(&lines, true, verbose);
            prop_assert_eq!(&uncolored(&colored), &plain);
            let ascii = Look { charset: Charset::Ascii, verbose, ..Look::PLAIN };
            prop_assert!(styled(&lines, ascii).is_ascii());
            let narrow = styled(&lines, Look { columns: Some(columns), verbose, ..Look::PLAIN });
            let words = |text: &str| -> Vec<String> {
                text.split_whitespace().map(ToOwned::to_owned).collect()
            };
            prop_assert_eq!(words(&narrow).concat().replace("\\::", "::"), words(&plain).concat().replace("\\::", "::"));
            // No string adds a line.
            let tame: Vec<String> = strings.iter().map(|s| s.replace('\n', "☃")).collect();
            let expected = written(&lines_with(&incident, &tame), false, verbose);
            prop_assert_eq!(plain.lines().count(), expected.lines().count());
        }
    }
}
