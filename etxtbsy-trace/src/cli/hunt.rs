//! `hunt`: runs a command again and again; what it prints at the end.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroU64,
};

use anyhow::Context as _;

use super::{
    args::{Cli, Hunt},
    presentation::{Presentation, Stream},
    streams::{file_sink, present, recreates_file, say, sinks},
    trace::{start_tracing, warn_of_no_new_privs},
};
use crate::{
    event::{self, Provoke},
    host::{
        identity, memory::FAILED_TO_TRACE, owned_output::is_stdout, privileges::SessionKind, stdio,
        user::Invoker,
    },
    hunt::{
        compare::{baseline, compare},
        launcher::{HuntedCommand, Launcher},
        plan::{Plan, Until},
        search::{self, KeptOutput, Outcome},
        table::table,
    },
    output::{
        formats::Format,
        incident::{count, run_name},
        text::provoking_again,
    },
    report::{model::Document, text::groups},
    text::{escape, time},
};

/// Runs the hunt; returns its exit status.
pub(super) fn run(cli: &Cli, args: &Hunt) -> anyhow::Result<u8> {
    let before = args.baseline.as_deref();
    let before = before.map(|path| baseline(path, cli.options.output.as_deref())).transpose()?;
    let user = identity::for_command(args.user.as_deref())?;
    let plan = plan(args);
    let sudo_user = Invoker::of_sudo()?;
    warn_of_no_new_privs(plan.provocation.as_ref())?;
    // First, so that the command inherits nothing that the tracer opens or changes.
    let launcher = Launcher::start(HuntedCommand { argv: &args.argv, user: user.as_ref() })?;
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let presentation = present(cli);
    // Else the text is written at the end, all at once.
    let is_live = presentation.format != Format::Text || cli.options.verbose > 0;
    let open_sinks = || {
        if is_live {
            return sinks(cli, sudo_user.as_ref(), None);
        }
        Ok(Vec::from_iter(file_sink(cli, sudo_user.as_ref())?))
    };
    let kind = SessionKind {
        command: true,
        files: recreates_file(cli, true),
        sudo: sudo_user.is_some(),
        loads: false,
    };
    let root = Some(launcher.pid());
    let (tracer, filter, sinks) = start_tracing(cli, Some(&args.argv), root, open_sinks, kind)?;
    let hunt = search::Hunt {
        tracer,
        filter,
        provoke: plan.provocation.map(Provoke::from),
        sinks,
        launcher,
        plan,
        incidents: cli.options.stop_after.map(NonZeroU64::get),
        shows_progress: io::stderr().is_terminal(),
    };
    let Outcome { traced, report, outputs, not_started, cut_short } = hunt.run()?;
    let hunted = traced.summary.hunt.unwrap_or_default();
    let mut text = outputs.iter().map(output).collect::<String>();
    let near_misses = report.near_misses();
    if !is_live {
        text += &groups(&Document { now: report, before: None });
    }
    if not_started.is_none() {
        let duration = time::span(traced.summary.duration_ns);
        let time = if cut_short { ", and one that was cut short, in " } else { " in " };
        let _ = write!(text, "\n{}", end(args, &hunted, &(time.to_owned() + &duration)));
        for line in near_misses {
            let _ = writeln!(text, "{line}");
        }
        if traced.summary.lost > 0 {
            let lost = traced.summary.lost;
            let _ = writeln!(text, "lost {lost}: there may be more than is shown (-v shows what)");
        }
        let _ = writeln!(text, "repeat with: {}", repeat(args, &plan, &hunted));
    }
    if let (Some(before), None) = (&before, &not_started) {
        let _ = write!(text, "\n{}", compare(before, &hunted));
    }
    write(cli, presentation, &text)?;
    if let Some(stalled) = &traced.stalled {
        say(stalled);
        return Ok(FAILED_TO_TRACE);
    }
    if let Some((code, why)) = not_started {
        say(&why);
        return Ok(code);
    }
    let near_misses_count = cli.options.near_misses_too || plan.until == Some(Until::NearMiss);
    let found = hunted.sum(|runs| runs.incidents) > 0
        || near_misses_count && hunted.sum(|runs| runs.near_misses) > 0;
    Ok(u8::from(found))
}

/// What the options ask for.
fn plan(args: &Hunt) -> Plan {
    let ends_by_itself = args.runs.is_some() || args.time.is_some();
    Plan {
        runs: args.runs.map(NonZeroU64::get),
        time: args.time,
        until: args.until.or((!ends_by_itself).then_some(Until::Failure)),
        provocation: args.delays.provocation(),
    }
}

/// Writes the text at the end: to stdout, unless JSON lines are written there.
fn write(
    cli: &Cli,
    Presentation { format, stream, .. }: Presentation,
    text: &str,
) -> anyhow::Result<()> {
    let stdout_is_taken =
        format.is_for_programs() || cli.options.output.as_deref().is_some_and(is_stdout);
    if stream == Stream::Stdout && !stdout_is_taken {
        io::stdout().lock().write_all(text.as_bytes()).context("cannot write to stdout")
    } else {
        io::stderr().lock().write_all(text.as_bytes()).context("cannot write to stderr")
    }
}

/// The output of a run that failed, each line indented.
fn output(KeptOutput { run, code, found, text, skipped }: &KeptOutput) -> String {
    let mut out = format!(
        "\nrun {}: exit status {code}, {}, {}\n",
        run_name(*run),
        count(found.failures, "failure", "failures"),
        count(found.near_misses, "near miss", "near misses"),
    );
    if *skipped > 0 {
        let _ = writeln!(out, "  … {} before this", count(*skipped, "byte", "bytes"));
    }
    for line in String::from_utf8_lossy(text).lines() {
        let _ = writeln!(out, "  | {}", escape::prose(line));
    }
    out
}

/// The table, with what comes before it. `time` says how long it took.
fn end(args: &Hunt, hunted: &event::Hunt, time: &str) -> String {
    let runs = hunted.sum(|runs| runs.runs);
    let command = escape::command(&words(args), 80);
    format!("{} of {command}{time}\n\n{}\n", count(runs, "run", "runs"), table(hunted))
}

/// The command's words.
fn words(args: &Hunt) -> Vec<String> {
    args.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// A command line that does the same runs again.
fn repeat(args: &Hunt, plan: &Plan, hunted: &event::Hunt) -> String {
    let runs = hunted.sum(|runs| runs.runs);
    let mut line = format!("sudo etxtbsy-trace hunt --runs {}", runs.max(1));
    if let Some(provocation) = &plan.provocation {
        let _ = write!(line, " {}", provoking_again(&Provoke::from(*provocation)));
    }
    format!("{line} -- {}", escape::command(&words(args), usize::MAX))
}
