//! Programs in Rust and Go.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use etxtbsy_trace_event::own_frames;

use crate::{
    Asked, assert_begins, helper, of_module,
    programs::{Program, is_installed, line},
    resolve, shown,
    traced::{Call, Traced},
};

const RUST: &str = r#"
use std::{fs::File, path::Path, process::Command};
#[inline(never)]
fn write_program(path: &Path) -> File {
    File::create(path).unwrap() /* OPEN */
}
#[inline(never)]
fn build(path: &Path) -> u64 {
    let file = write_program(path); /* BUILD */
    file.metadata().unwrap().len()
}
#[inline(never)]
fn start() -> bool {
    Command::new("/").env("A", "B").current_dir("/").spawn().is_ok() /* FORK */
}
fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words[1] == "open" {
        println!("{}", build(Path::new(&words[2])));
    } else {
        println!("{}", start());
    }
}
"#;

fn rust(flags: &[&str]) -> Program {
    Program::compile("rustc", "program.rs", RUST, flags)
}

#[test]
fn functions_and_lines_of_rust_are_found() {
    let at = |function: &str, mark| format!("program::{function} program.rs:{}", line(RUST, mark));
    for flags in [
        &["-g"][..],
        &["-O", "-Cdebuginfo=1"],
        &["-O", "-Cdebuginfo=line-tables-only", "-Cpanic=abort"],
    ] {
        let program = rust(flags);
        let resolved = resolve(&program.opening()).unwrap();
        let own: Vec<String> = own_frames(&resolved.frames).into_iter().map(shown).collect();
        assert_begins(&own, &[&at("write_program", "OPEN"), &at("build", "BUILD")]);
        assert!(own[2].starts_with("program::main "), "{own:?}");
        let mut command = Command::new(&program.path);
        let traced = Traced::at(command.args(["fork", "/"]), Call::Fork);
        let resolved = resolve(&traced).unwrap();
        let own: Vec<String> = own_frames(&resolved.frames).into_iter().map(shown).collect();
        // Much of the stack lies between, but not more than a copy has.
        assert_begins(&own, &[&at("start", "FORK")]);
    }
}

#[test]
fn stripped_rust_has_no_names() {
    let program = rust(&["-O", "-Cstrip=symbols"]);
    let resolved = resolve(&program.opening()).unwrap();
    let frames = of_module(&resolved, program.module());
    assert!(!frames.is_empty() && frames.iter().all(|frame| frame == "?"), "{resolved:#?}");
}

#[test]
fn go_functions_are_found() {
    if !is_installed("go") {
        test_support::skip!("go is not installed");
    }
    let source = "package main\nimport (\"fmt\"; \"os\")\n//go:noinline\nfunc writeProgram(path string) *os.File {\n\
        file, err := os.Create(path) /* OPEN */\nif err != nil { panic(err) }\nreturn file }\n\
        func main() { fmt.Println(writeProgram(os.Args[2]).Name()) }\n";
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("program.go");
    std::fs::write(&from, source).unwrap();
    let path = directory.path().join("program");
    let output = Command::new("go").arg("build").arg("-o").arg(&path).arg(&from).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let program = Program { directory, path };
    let resolved = resolve(&program.opening()).unwrap();
    let own: Vec<String> = own_frames(&resolved.frames).into_iter().map(shown).collect();
    assert_begins(&own, &[&format!("main.writeProgram program.go:{}", line(source, "OPEN"))]);
}

/// Prints the figures: `cargo test -p etxtbsy-stacks --release -- --ignored --nocapture look_ups_are_timed`.
#[test]
#[ignore = "a measurement"]
fn look_ups_are_timed() {
    let program = rust(&["-g"]);
    let mut asked = Asked::start(helper);
    for nth in 0..4 {
        let traced = program.opening();
        let before = Instant::now();
        let resolved = asked.resolve(&traced).unwrap();
        println!("look-up {nth}: {:?}, {} frames", before.elapsed(), resolved.frames.len());
        assert!(before.elapsed() < Duration::from_secs(5));
    }
}
