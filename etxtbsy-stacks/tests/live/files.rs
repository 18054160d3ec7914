//! Programs and libraries whose files are gone, replaced, or no longer what was mapped.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::Command,
};

use nix::{
    sys::stat::Mode,
    unistd::{geteuid, mkfifo},
};

use crate::{
    assert_begins, of_module,
    programs::{Program, line},
    resolve,
    traced::{Call, Traced},
};

/// What a program in a file that is gone shows: only root can open its file.
fn assert_gone(program: &Program, traced: &Traced, module: &str) {
    let resolved = resolve(traced).unwrap();
    let frames = of_module(&resolved, module);
    if geteuid().is_root() {
        assert_begins(
            &frames[1..],
            &[&format!("write_program program.c:{}", line(crate::programs::C, "CREATE"))],
        );
    } else {
        assert!(frames.is_empty(), "{resolved:#?}");
        assert!(resolved.unknown > 0, "{resolved:#?}");
    }
    let names: Vec<_> =
        resolved.frames.iter().filter_map(|frame| frame.function.as_deref()).collect();
    assert!(!names.contains(&"other"), "{names:?} of {}", program.module());
}

fn deleted_and_replaced_programs() {
    let program = Program::c(&["-O2", "-g"]);
    let deleted = format!("{} (deleted)", program.module());
    let traced = program.opening();
    fs::remove_file(&program.path).unwrap();
    assert_gone(&program, &traced, &deleted);
    // Another program of the same name, with code at all addresses.
    let other = format!(
        "int main(void) {{ return 0; }} void other(void) {{ {} }}",
        "__asm__(\"nop\");".repeat(9000)
    );
    let other = Program::compile("gcc", "other.c", &other, &["-O0", "-g"]);
    fs::copy(&other.path, &program.path).unwrap();
    assert_gone(&program, &traced, &deleted);
    fs::remove_file(&program.path).unwrap();
    mkfifo(&program.path, Mode::S_IRWXU).unwrap();
    assert_gone(&program, &traced, &deleted);
}

#[test]
fn deleted_and_replaced_programs_are_read_from_the_mapping() {
    deleted_and_replaced_programs();
}

#[test]
fn without_privileges_deleted_and_replaced_programs_are_unknown() {
    test_support::as_ordinary_user!();
    deleted_and_replaced_programs();
}

#[test]
fn without_privileges_programs_are_found_by_their_paths() {
    test_support::as_ordinary_user!();
    let program = Program::c(&["-O2", "-g"]);
    let frames = of_module(&resolve(&program.opening()).unwrap(), program.module());
    assert!(frames[0].starts_with("create program.c:"), "{frames:?}");
}

/// A program that opens its file in a library, and the library.
fn with_library() -> (Program, PathBuf) {
    let library = "#include <fcntl.h>\n\
        int write_program(const char *path) { return open(path, O_WRONLY | O_CREAT, 0755) + 1; }";
    let library = Program::compile("gcc", "library.c", library, &["-O2", "-g", "-shared", "-fPIC"]);
    let path = library.directory.path().join("libown.so");
    fs::rename(&library.path, &path).unwrap();
    let source = "int write_program(const char *);\n\
        int main(int count, char **words) { return write_program(words[2]) + 1; }";
    let directory = library.directory;
    let from = directory.path().join("program.c");
    fs::write(&from, source).unwrap();
    let program = directory.path().join("program");
    let output = Command::new("gcc")
        .args(["-O2", "-g"])
        .args([&from, &path])
        .arg("-o")
        .arg(&program)
        .output();
    assert!(output.unwrap().status.success());
    (Program { directory, path: program }, path)
}

#[test]
fn libraries_that_are_truncated_or_overwritten_are_unknown() {
    let (program, library) = with_library();
    let module = library.to_str().unwrap();
    let traced = program.opening();
    let frames = of_module(&resolve(&traced).unwrap(), module);
    assert_eq!(frames, ["write_program library.c:2"]);
    let file = OpenOptions::new().write(true).open(&library).unwrap();
    let content = fs::read(&library).unwrap();
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) as u8
    };
    for kept in [content.len() - 1, content.len() / 2, 4096, 100, 64, 8, 0] {
        // A shorter file; then one of the old size with other bytes.
        file.set_len(kept as u64).unwrap();
        let shorter = resolve(&traced).unwrap();
        file.write_all_at(
            &(kept..content.len()).map(|_| random()).collect::<Vec<_>>(),
            kept as u64,
        )
        .unwrap();
        let overwritten = resolve(&traced);
        for resolved in [Some(shorter), overwritten].into_iter().flatten() {
            let frames = of_module(&resolved, module);
            let is_known = |frame: &String| frame == "?" || frame.starts_with("write_program");
            assert!(frames.len() <= 1 && frames.iter().all(is_known), "{kept}: {resolved:#?}");
        }
    }
}

#[test]
fn a_process_that_has_ended_or_executed_has_no_answer() {
    let program = Program::c(&["-O2", "-g"]);
    let first = program.opening();
    let second = Traced::at(Command::new(&program.path).args(["fork", "/"]), Call::Fork);
    // Its mappings are another process's.
    let mut stack = first.stack.clone();
    stack.sp += 1 << 40;
    let elsewhere = Traced { pid: second.pid, stack };
    assert_eq!(resolve(&elsewhere), None);
    std::mem::forget(elsewhere);
    let stack = first.stack.clone();
    let pid = first.pid;
    drop(first);
    let ended = Traced { pid, stack };
    assert_eq!(resolve(&ended), None);
    std::mem::forget(ended);
}
