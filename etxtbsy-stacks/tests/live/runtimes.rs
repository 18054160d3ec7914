//! Interpreters, and code that is made at run time.

use std::{fs, path::Path, process::Command};

use etxtbsy_trace_event::own_frames;

use crate::{
    programs::{Program, is_installed},
    resolve,
    traced::{Call, Traced},
};

#[test]
fn python_has_only_frames_of_the_interpreter() {
    if !is_installed("python3") {
        test_support::skip!("python3 is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("written");
    let mut command = Command::new("python3");
    command.args(["-c", "import sys; open(sys.argv[1], 'w')"]).arg(&target);
    // The program can be a script that executes python.
    let resolved = resolve(&Traced::at(&mut command, Call::Open(&target))).unwrap();
    assert!(resolved.frames.len() > 1, "{resolved:?}");
    assert!(own_frames(&resolved.frames).is_empty(), "{:#?}", own_frames(&resolved.frames));
}

#[test]
fn node_has_no_invented_frames() {
    if !is_installed("node") {
        test_support::skip!("node is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("written");
    let script = "function writeProgram(path) { require('fs').openSync(path, 'w') }\nwriteProgram(process.argv[1])";
    let mut command = Command::new("node");
    command
        .args(["--perf-basic-prof", "--interpreted-frames-native-stack", "-e", script])
        .arg(&target);
    command.current_dir(directory.path());
    let resolved = resolve(&Traced::at(&mut command, Call::Open(&target))).unwrap();
    assert!(resolved.frames.len() > 1, "{resolved:?}");
    for frame in own_frames(&resolved.frames) {
        assert!(frame.module.is_none(), "{frame:?}");
        let function = frame.function.as_deref().unwrap();
        assert!(function.contains("writeProgram") || function.contains("[eval]"), "{resolved:#?}");
    }
}

/// Copies a function to anonymous memory, and calls another from it.
#[cfg(target_arch = "x86_64")]
const RUNTIME: &str = r#"
    #include <fcntl.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <unistd.h>
    static const char *target;
    __attribute__((noinline)) int write_program(void) { return open(target, O_WRONLY | O_CREAT, 0755) + 1; }
    int main(int count, char **words) {
        /* push %rbp; mov %rsp,%rbp; call *%rdi; pop %rbp; ret */
        static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
        char *made = mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(made, code, sizeof code);
        if (words[1][1] == 'n') {
            char name[64];
            snprintf(name, sizeof name, "/tmp/perf-%d.map", getpid());
            FILE *map = fopen(name, "w");
            fprintf(map, "%lx 8 py::generated:/app/main.py\n", (long)made);
            fclose(map);
        }
        target = words[2];
        return ((int (*)(int (*)(void)))made)(write_program) + 1;
    }
"#;

#[cfg(target_arch = "x86_64")]
fn made(mode: &str) -> Vec<(Option<String>, bool)> {
    let program =
        Program::compile("gcc", "runtime.c", RUNTIME, &["-O2", "-g", "-fno-omit-frame-pointer"]);
    let target = program.target();
    let traced =
        Traced::at(Command::new(&program.path).arg(mode).arg(&target), Call::Open(&target));
    let resolved = resolve(&traced).unwrap();
    let map = format!("/tmp/perf-{}.map", traced.id());
    assert_eq!(Path::new(&map).exists(), mode == "-n");
    let _ = fs::remove_file(map);
    let frames = resolved.frames.into_iter().map(|frame| (frame.function, frame.module.is_some()));
    frames.skip_while(|(function, _)| function.as_deref() != Some("write_program")).collect()
}

#[cfg(target_arch = "x86_64")]
#[test]
fn code_of_runtimes_is_named_by_the_perf_map() {
    let frames = made("-n");
    assert_eq!(frames[1], (Some("py::generated:/app/main.py".to_owned()), false), "{frames:?}");
    assert_eq!(frames[2], (Some("main".to_owned()), true), "{frames:?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn code_of_runtimes_without_a_perf_map_is_marked() {
    let frames = made("--");
    assert_eq!(frames[1], (Some("[JIT]".to_owned()), false), "{frames:?}");
    assert_eq!(frames[2], (Some("main".to_owned()), true), "{frames:?}");
}
