//! Programs in C and C++.

use std::process::Command;

use etxtbsy_trace_event::own_frames;

use crate::{
    assert_begins, of_module,
    programs::{C, Program, line},
    resolve, shown,
    traced::{Call, Traced},
};

/// The frames of [`C`] as it opens its file.
fn expected() -> Vec<String> {
    [("create", "OPEN"), ("write_program", "CREATE"), ("build", "BUILD"), ("main", "MAIN")]
        .map(|(function, mark)| format!("{function} program.c:{}", line(C, mark)))
        .to_vec()
}

#[test]
fn functions_and_lines_of_c_are_found() {
    for flags in [
        &["-O2", "-g", "-fomit-frame-pointer"][..],
        &["-O2", "-g", "-fno-omit-frame-pointer"],
        &["-O2", "-g", "-no-pie"],
        &["-O2", "-g", "-static"],
        &["-O2", "-g", "-gz=zlib"],
        &["-O2", "-g", "-Wl,-z,noseparate-code"],
        // Frame pointers alone.
        &["-O2", "-g", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"],
    ] {
        let program = Program::c(flags);
        let traced = program.opening();
        let resolved = resolve(&traced).unwrap();
        let mut frames = of_module(&resolved, program.module());
        // A static program has the functions of libc too.
        let first = frames.iter().position(|frame| frame.starts_with("create "));
        frames.drain(..first.unwrap_or_else(|| panic!("{flags:?}: {resolved:#?}")));
        assert_begins(&frames, &expected().iter().map(|frame| &**frame).collect::<Vec<_>>());
        let own: Vec<String> = own_frames(&resolved.frames).into_iter().map(shown).collect();
        assert_eq!(own, expected()[..3], "{flags:?}");
    }
}

#[test]
fn the_innermost_frame_is_the_librarys() {
    let program = Program::c(&["-O2", "-g"]);
    let resolved = resolve(&program.opening()).unwrap();
    let first = &resolved.frames[0];
    assert!(first.module.as_ref().unwrap().contains("/libc.so"), "{first:?}");
    assert!(first.function.as_ref().unwrap().contains("open"), "{first:?}");
    assert_eq!(resolved.unknown, 0);
}

#[test]
fn forks_and_failed_execs_are_found() {
    let program = Program::c(&["-O2", "-g"]);
    let mut command = Command::new(&program.path);
    let traced = Traced::at(command.args(["fork", "/"]), Call::Fork);
    let frames = of_module(&resolve(&traced).unwrap(), program.module());
    let [start, build] = [("start", "FORK"), ("build", "START")]
        .map(|(function, mark)| format!("{function} program.c:{}", line(C, mark)));
    assert_begins(&frames, &[&start, &build]);
    let mut command = Command::new(&program.path);
    let traced =
        Traced::at(command.arg("exec").arg(program.target()), Call::Exec(&program.target()));
    let frames = of_module(&resolve(&traced).unwrap(), program.module());
    assert_begins(&frames, &[&format!("execute program.c:{}", line(C, "EXEC"))]);
}

#[test]
fn a_stripped_program_has_no_names() {
    for flags in [
        &["-O2", "-s"][..],
        &["-O2", "-s", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables"],
    ] {
        let program = Program::c(flags);
        let resolved = resolve(&program.opening()).unwrap();
        let frames = of_module(&resolved, program.module());
        assert!(!frames.is_empty() && frames.iter().all(|frame| frame == "?"), "{resolved:#?}");
        assert!(own_frames(&resolved.frames).is_empty());
    }
    // What is exported has a name.
    let program = Program::c(&["-O2", "-s", "-rdynamic"]);
    let frames = of_module(&resolve(&program.opening()).unwrap(), program.module());
    assert_begins(&frames, &["write_program", "build", "main", "_start"]);
}

#[test]
fn without_lines_the_symbols_name_functions() {
    let program = Program::c(&["-O2"]);
    let frames = of_module(&resolve(&program.opening()).unwrap(), program.module());
    assert_begins(&frames, &["write_program", "build", "main"]);
}

#[test]
fn without_unwind_tables_no_frame_is_invented() {
    let program =
        Program::c(&["-O2", "-g", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables"]);
    let resolved = resolve(&program.opening()).unwrap();
    let mut expected = expected().into_iter();
    // Those that are found are in order.
    for frame in of_module(&resolved, program.module()) {
        assert!(frame == "_start" || expected.any(|other| other == frame), "{resolved:#?}");
    }
}

#[test]
fn cpp_names_are_demangled() {
    let source = r"
        #include <fcntl.h>
        #include <string>
        namespace app {
        struct Files { __attribute__((noinline)) int create(const std::string &path) {
            return open(path.c_str(), O_WRONLY | O_CREAT, 0755) + 1; /* OPEN */
        } };
        template <class T> __attribute__((noinline)) int build(T files, const char *path) {
            return files.create(path) + 1;
        }
        }
        int main(int, char **words) { return app::build(app::Files(), words[2]) + 1; }
    ";
    let program = Program::compile("g++", "program.cc", source, &["-O1", "-g"]);
    let frames = of_module(&resolve(&program.opening()).unwrap(), program.module());
    let create = format!("app::Files::create program.cc:{}", line(source, "OPEN"));
    assert_eq!(frames[0], create);
    assert!(frames[1].starts_with("app::build<app::Files>"), "{frames:?}");
}
