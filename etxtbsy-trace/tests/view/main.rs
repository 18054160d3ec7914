//! The view on a real terminal, in tmux: keys, screens, and the restored terminal. Tests with live sessions
//! need root, and are skipped without.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod screen;

use etxtbsy_trace::{
    event::Line,
    tui::{
        model::state::State,
        terminal::{self, SignalOwner},
    },
};
use nix::unistd::geteuid;
use rustix::thread::{CapabilitySet, capabilities};
use screen::Screen;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};
use test_support::{NOBODY, skip};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_etxtbsy-trace");

/// A terminal; `None` without root, and the test is skipped.
fn screen(width: u16, height: u16) -> Option<Screen> {
    if geteuid().is_root() {
        return Some(Screen::new(width, height));
    }
    skip!("tracing needs root (run: cargo xtask test)")
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// The lines of a file.
fn lines(file: &Path) -> Vec<Line> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The exported files in a directory.
fn exported(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|it| it == "jsonl")).collect()
}

#[test]
fn an_incident_can_be_viewed_filtered_and_exported() {
    let Some(screen) = screen(100, 40) else { return };
    let before = screen.settings();
    screen.line(&format!("{BINARY} demo leaked-daemon"));
    // The newest incident is shown without a key. A screenshot can have half a frame, so wait for all.
    screen.wait("an incident, its chain and its verdict", |text| {
        // Counted: it is pending no more.
        ["1 incident", "leaked-fd", "opener", "O_CLOEXEC"].iter().all(|word| text.contains(word))
    });
    screen.keys(&["Enter"]);
    screen.await_text("#1 ");
    screen.keys(&["Escape", "\\"]);
    screen.keys(&["-l", "nosuchprogram"]);
    screen.wait("nothing", |text| !text.contains("leaked-fd"));
    screen.keys(&["Escape", "Escape"]);
    screen.await_text("leaked-fd");
    screen.keys(&["C-s"]);
    screen.wait("the prompt of the export", |text| text.contains("all"));
    screen.keys(&["a"]);
    screen.await_text(".jsonl");
    let [file] = &exported(screen.dir.path())[..] else { panic!("not one file") };
    let lines = lines(file);
    assert!(matches!(lines[0], Line::Meta(_)) && matches!(lines[1], Line::Incident(_)));
    screen.keys(&["q"]);
    // The summary stays on the terminal.
    let left = screen.await_prompt();
    assert!(left.contains("by verdict: leaked-fd"), "{left}");
    assert_eq!(screen.settings(), before);
}

#[test]
fn a_tree_is_watched_and_its_end_is_shown() {
    let Some(screen) = screen(120, 40) else { return };
    let go = screen.dir.path().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("read word < {}; exec {BINARY} workload still-open", go.display());
    let child = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
    let mut child = Ended(child);
    screen.line(&format!("{BINARY} --pid {}", child.0.id()));
    screen.await_text(&format!("sh[{}]", child.0.id()));
    fs::write(&go, "go\n").unwrap();
    let shown = screen.await_text("still-open");
    assert!(shown.contains("victim"), "{shown}");
    child.0.wait().unwrap();
    screen.await_text("tracing has ended");
    // The view stays open.
    screen.keys(&["Tab"]);
    screen.await_text("[chain]");
    screen.keys(&["C-c"]);
    screen.await_prompt();
}

#[test]
fn a_commands_output_is_never_written_over_the_view() {
    let Some(screen) = screen(100, 40) else { return };
    let before = screen.settings();
    let script = "echo first line; echo second line >&2; exit 5";
    screen.line(&format!("{BINARY} run --format tui -- sh -c '{script}'; echo status $?"));
    screen.await_text("ended with status 5");
    screen.keys(&["o"]);
    screen.await_text("\nfirst line\nsecond line\n");
    assert_eq!(screen.fact("alternate_on"), "1");
    // The first closes the page.
    screen.keys(&["q", "q"]);
    let left = screen.await_text("status 5\n");
    assert!(left.contains("\nfirst line\nsecond line\n"), "{left}");
    assert_eq!(screen.settings(), before);
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_takes_it_again() {
    let Some(screen) = screen(100, 30) else { return };
    let before = screen.settings();
    screen.line("set -m");
    screen.line(&format!("{BINARY} run --format tui -- sleep 1000"));
    screen.await_text("no incident yet");
    screen.keys(&["C-z"]);
    screen.await_prompt();
    assert_eq!(screen.settings(), before);
    screen.line("fg");
    screen.await_text("no incident yet");
    assert_eq!(screen.fact("alternate_on"), "1");
    // The view reacts, and the command gets the Ctrl-C that the view has read.
    screen.keys(&["?"]);
    screen.await_text("this page (also F1");
    screen.keys(&["C-c"]);
    screen.await_prompt();
    assert_eq!(screen.settings(), before);
}

/// The number after a word on the screen.
fn number_after(text: &str, word: &str) -> u32 {
    let after = text.rsplit_once(word).unwrap().1;
    after.split_whitespace().next().unwrap().parse().unwrap()
}

/// Without the view, only the command uses the terminal.
#[test]
fn without_the_view_keys_go_to_the_command() {
    let Some(screen) = screen(100, 30) else { return };
    let before = screen.settings();
    screen.line("set -m");
    screen.line(&format!("{BINARY} run -- sh -c 'echo pids $$ $PPID; exec cat'"));
    let shown = screen.wait("pids", |text| text.contains("\npids "));
    let command = number_after(&shown, "\npids ");
    let tracer = number_after(&shown, &format!("\npids {command} "));
    screen.line("typed");
    screen.await_text("\ntyped\ntyped\n");
    let state = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    screen.keys(&["C-z"]);
    screen.await_prompt();
    // The shell knows only the tracer.
    screen.wait("stopped", |_| state(command) == 'T');
    assert_eq!(state(tracer), 'T');
    screen.line("fg");
    screen.wait("fg", |text| text.trim_end().ends_with("exec cat\""));
    screen.line("again");
    screen.await_text("\nagain\nagain\n");
    screen.keys(&["C-c"]);
    screen.await_prompt();
    screen.line("echo status $?");
    screen.await_text("\nstatus 130\n");
    screen.line(&format!("{BINARY} run -- sh -c 'echo up again; exec cat'"));
    screen.await_text("\nup again\n");
    screen.keys(&["C-d"]);
    screen.await_prompt();
    screen.line("echo ended with $?");
    screen.await_text("\nended with 0\n");
    screen.line(&format!("{BINARY} run -- sh -c 'ulimit -c 0; echo up once more; exec cat'"));
    screen.await_text("\nup once more\n");
    screen.keys(&["C-\\"]);
    screen.await_prompt();
    screen.line("echo ended with $?");
    screen.await_text("\nended with 131\n");
    assert_eq!(screen.settings(), before);
}

/// A shell ends on an interrupt only if the command that it waits for died of it.
#[test]
fn an_interrupt_ends_the_script_that_runs_it() {
    let Some(screen) = screen(100, 30) else { return };
    let script = "echo up; exec sleep 1000";
    screen.line(&format!("bash -c \"{BINARY} run -- sh -c '{script}'; echo went o''n\""));
    screen.await_text("\nup\n");
    screen.keys(&["C-c"]);
    screen.await_prompt();
    screen.line(&format!(
        "bash -c \"{BINARY} run -- sh -c 'trap \\\"exit 130\\\" INT; echo ready; sleep 1000'; echo went o''n\""
    ));
    let shown = screen.await_text("\nready\n");
    assert!(!shown.contains("went on"), "{shown}");
    screen.keys(&["C-c"]);
    screen.await_text("\nwent on\n");
}

/// Checks all threads of the view, and an export with the remaining capabilities.
#[test]
fn the_view_keeps_only_the_capabilities_it_needs() {
    let Some(screen) = screen(100, 40) else { return };
    let dir = screen.dir.path();
    let binary = dir.join("etxtbsy-trace");
    fs::copy(BINARY, &binary).unwrap();
    std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let sudo = format!("SUDO_UID={NOBODY} SUDO_GID={NOBODY} SUDO_USER=nobody");
    let always = CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::CHECKPOINT_RESTORE;
    let identity = CapabilitySet::SETUID | CapabilitySet::SETGID;
    let root = CapabilitySet::DAC_OVERRIDE;
    for (environment, kept, owner) in [(&*sudo, identity, NOBODY), ("LC_ALL=C", root, 0)] {
        let pid = dir.join("pid");
        let start = format!("exec env {environment} {} demo leaked-daemon", binary.display());
        screen.line(&format!("sh -c 'echo $$ > {}; {start}'", pid.display()));
        screen.await_text("1 incident");
        let pid = fs::read_to_string(pid).unwrap();
        let wanted = (always | kept | CapabilitySet::KILL) & capabilities(None).unwrap().permitted;
        let tasks = fs::read_dir(format!("/proc/{}/task", pid.trim())).unwrap();
        let mut threads = 0;
        for task in tasks {
            // A thread that has just ended has none.
            let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
                continue;
            };
            let fact =
                |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            let found = u64::from_str_radix(fact("CapEff:"), 16).unwrap();
            let found = CapabilitySet::from_bits_retain(found);
            // It may need CAP_BPF before 5.19.
            assert_eq!(found - CapabilitySet::BPF, wanted, "{status}");
            assert_eq!(fact("NoNewPrivs:"), "1");
            threads += 1;
        }
        assert!(threads > 1);
        screen.keys(&["C-s"]);
        screen.wait("the prompt of the export", |text| text.contains("all"));
        screen.keys(&["a"]);
        screen.await_text("wrote ");
        let [file] = &exported(dir)[..] else { panic!("not one file") };
        assert_eq!(fs::metadata(file).unwrap().uid(), owner);
        fs::remove_file(file).unwrap();
        screen.keys(&["q"]);
        screen.await_prompt();
        screen.line("clear");
    }
}

#[test]
fn signals_close_the_view_and_restore_the_terminal() {
    let Some(screen) = screen(100, 30) else { return };
    let before = screen.settings();
    for signal in ["TERM", "HUP", "INT", "QUIT"] {
        let file = screen.dir.path().join(signal);
        // The shell writes its pid and execs the tracer.
        let start = format!("sh -c 'echo $$ > {0}; exec {BINARY} -o {0}.out'", file.display());
        screen.line(&start);
        screen.await_text("no incident yet");
        let pid = fs::read_to_string(&file).unwrap();
        let sent = Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status().unwrap();
        assert!(sent.success());
        screen.await_prompt();
        assert_eq!(screen.settings(), before, "{signal}");
        let lines = lines(&screen.dir.path().join(format!("{signal}.out")));
        // It may have incidents of other tests.
        assert!(matches!(lines[..], [Line::Meta(_), .., Line::Summary(_)]), "{signal}: {lines:?}");
    }
}

#[test]
fn a_panic_restores_the_terminal() {
    let screen = Screen::new(100, 30);
    let before = screen.settings();
    let this = std::env::current_exe().unwrap();
    for (test, message) in [
        ("a_source_that_panics", "source of the view panicked"),
        ("a_loop_that_panics", "on purpose"),
    ] {
        let this = this.display();
        screen
            .line(&format!("clear; RUST_BACKTRACE=0 {this} --ignored --exact {test} --nocapture"));
        screen.wait(message, |text| text.contains("test result") && text.contains(message));
        assert_eq!(screen.settings(), before, "{test}");
    }
}

/// One line of a recording.
fn lost() -> Line {
    let text = r#"{"type":"lost","what":"ring buffer full","count":3}"#;
    serde_json::from_str(text).unwrap()
}

#[test]
#[ignore = "for a_panic_restores_the_terminal"]
fn a_source_that_panics() {
    let mut state = State::new(true);
    state.mouse = true;
    let shown = terminal::show(state, SignalOwner::View, |_| panic!("on purpose"), |_| Ok(()));
    eprintln!("{:#}", shown.unwrap_err());
}

#[test]
#[ignore = "for a_panic_restores_the_terminal"]
fn a_loop_that_panics() {
    let mut state = State::new(true);
    state.mouse = true;
    let _ = terminal::show(
        state,
        SignalOwner::View,
        |feed| {
            let _ = feed.line(lost());
            Ok(etxtbsy_trace::tui::feed::End::stay(String::new()))
        },
        |_| panic!("on purpose"),
    );
}

#[test]
fn an_idle_view_draws_nothing() {
    let Some(screen) = screen(80, 24) else { return };
    screen.line(&format!("exec {BINARY} --pid $$"));
    screen.await_text("no incident yet");
    let drawn = screen.dir.path().join("drawn");
    screen.record(&drawn);
    screen.keys(&["?"]);
    screen.await_text("this page (also F1");
    // The footer is drawn last.
    screen.await_text("? help");
    let size = || fs::metadata(&drawn).unwrap().len();
    let quiet = || std::thread::sleep(std::time::Duration::from_secs(1));
    quiet();
    let after_key = size();
    assert!(after_key > 0);
    quiet();
    quiet();
    assert_eq!(size(), after_key);
}

/// A recorded race.
fn race() -> String {
    format!("{}/tests/recordings/race.jsonl", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_mouse_is_reported_and_given_back_on_every_way_out() {
    let screen = Screen::new(100, 30);
    let before = screen.settings();
    screen.line("set -m");
    screen.line(&format!("{BINARY} replay {}", race()));
    screen.await_text("fork-exec-race");
    assert_eq!(screen.fact("mouse_any_flag"), "1");
    // A click on the sign of the first group.
    screen.keys(&["-l", "\x1b[<0;1;4M\x1b[<0;1;4m"]);
    screen.await_text("#4 ");
    screen.keys(&["C-z"]);
    screen.await_prompt();
    assert_eq!(screen.settings(), before);
    screen.line("fg");
    screen.await_text("#4 ");
    assert_eq!(screen.fact("mouse_any_flag"), "1");
    screen.keys(&["q"]);
    screen.await_prompt();
    assert_eq!(screen.settings(), before);
    screen.line("clear");
    screen.line(&format!("{BINARY} replay --no-mouse {}", race()));
    screen.await_text("fork-exec-race");
    assert_eq!(screen.fact("mouse_any_flag"), "0");
    screen.keys(&["q"]);
    screen.await_prompt();
    assert_eq!(screen.settings(), before);
}

#[test]
fn a_replay_leaves_the_summary_on_the_terminal() {
    let screen = Screen::new(100, 40);
    screen.line(&format!("{BINARY} replay {}", race()));
    screen.await_text("end of the recording");
    screen.keys(&["q"]);
    let left = screen.await_prompt();
    assert!(left.contains("by verdict: fork-exec-race 4"), "{left}");
}

#[test]
fn the_view_follows_the_size_of_the_terminal() {
    let screen = Screen::new(80, 24);
    let before = screen.settings();
    let recording = screen.dir.path().join("trace.jsonl");
    fs::write(&recording, serde_json::to_string(&lost()).unwrap() + "\n").unwrap();
    screen.line(&format!("{BINARY} replay {}", recording.display()));
    screen.await_text("lost: 3");
    for (width, height) in [(200, 60), (20, 5), (81, 24)] {
        screen.resize(width, height);
        screen.wait("the last column", |text| {
            let lines: Vec<&str> = text.lines().collect();
            lines.len() == usize::from(height)
                && lines.iter().any(|line| line.chars().count() == usize::from(width))
        });
    }
    screen.keys(&["q"]);
    screen.await_prompt();
    assert_eq!(screen.settings(), before);
}
