//! Shared by the tests of the workspace: skips tests that cannot run here, and runs tests that must not be
//! root as another user.

use std::{
    env,
    fmt::Display,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio},
    thread,
};

use nix::unistd::geteuid;

/// The variable with the file that records skipped tests, one line each: the test, a tab, and the reason.
/// `cargo xtask test` creates and reads the file.
pub const RECORD: &str = "ETXTBSY_TRACE_SKIPPED_TESTS";

/// The uid of the user nobody, on every system.
pub const NOBODY: u32 = 65534;

/// Runs a program with `input` on its stdin, which it need not read to the end.
///
/// # Errors
///
/// If it cannot be started, or its output cannot be read.
pub fn fed(command: &mut Command, input: &[u8]) -> io::Result<Output> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It stops reading at an error.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output()
}

/// Returns from a test that cannot run here, and records the reason: `skip!("java is not installed")`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skipped(format_args!($($reason)+));
        return Default::default()
    }};
}

/// Reports that this test, or a part of it, is skipped: on stderr, and in the file of [`RECORD`].
///
/// # Panics
///
/// If the report cannot be written.
#[track_caller]
pub fn skipped(reason: impl Display) {
    // The test harness names its threads after their tests.
    let thread = thread::current();
    let test = thread.name().unwrap_or("an unnamed test");
    let reason = reason.to_string();
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    // Not the print macros, whose output the harness captures.
    let mut written = io::stderr().write_all(format!("{test} skipped: {reason}\n").as_bytes());
    if let Some(path) = env::var_os(RECORD) {
        let file = OpenOptions::new().append(true).open(path);
        let line = format!("{test}\t{reason}\n");
        written = written.and(file.and_then(|mut file| file.write_all(line.as_bytes())));
    }
    assert!(written.is_ok(), "cannot report that {test} is skipped: {written:?}");
}

/// As root, runs the calling test again in a process of an ordinary user, and then returns from it.
#[macro_export]
macro_rules! as_ordinary_user {
    () => {{
        fn here() {}
        if $crate::has_run_as_ordinary_user(std::any::type_name_of_val(&here)) {
            return;
        }
    }};
}

/// Returns false if this process is not root. As root, runs the test around the function of that name as
/// nobody.
///
/// # Panics
///
/// If the test fails there.
#[must_use]
pub fn has_run_as_ordinary_user(here: &str) -> bool {
    if !geteuid().is_root() {
        return false;
    }
    // CRATE::MODULES::TEST::here, where the body of an async test is a closure.
    let path = here.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    let test = path.split_once("::").map_or(path, |(_, test)| test);
    // Through this path, nobody can execute the program although its directory is closed to others.
    let output = Command::new("/proc/self/exe")
        .args(["--exact", test, "--nocapture"])
        .env_remove(RECORD)
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {test} as nobody: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains(" 1 passed"),
        "{test} as nobody: {stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "the helper of another test"]
    fn helper_that_is_skipped() {
        skip!("no {}\n here", "luck");
    }

    #[test]
    fn skip_writes_to_stderr_and_the_record() {
        let record = tempfile::NamedTempFile::new().unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "tests::helper_that_is_skipped"])
            .env(RECORD, record.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let test = "tests::helper_that_is_skipped";
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr, format!("{test} skipped: no luck here\n"));
        let recorded = std::fs::read_to_string(record).unwrap();
        assert_eq!(recorded, format!("{test}\tno luck here\n"));
    }

    #[test]
    fn as_ordinary_user_does_not_run_as_root() {
        as_ordinary_user!();
        assert!(!geteuid().is_root());
    }
}
