//! Which frames of a stack are the user's own code.

use crate::Frame;

/// The most frames that are returned.
const MOST: usize = 3;

/// Libraries and programs whose code is never the user's, by the beginnings of their files' names: what follows is a
/// version or an ending.
const MODULES: [&str; 34] = [
    "ash",
    "bash",
    "busybox",
    "dash",
    "deno",
    "dotnet",
    "java",
    "ksh",
    "ld-linux",
    "ld-musl",
    "libc",
    "libclrjit",
    "libcoreclr",
    "libdl",
    "libgcc_s",
    "libjava",
    "libjli",
    "libjvm",
    "libm",
    "libnio",
    "libnode",
    "libperl",
    "libpthread",
    "libpython",
    "libruby",
    "libstdc++",
    "libuv",
    "node",
    "perl",
    "php",
    "python",
    "ruby",
    "sh",
    "zsh",
];

/// Packages of standard libraries, which a `::` or `.` ends.
const RUST_AND_CPP: [&str; 5] = ["std", "core", "alloc", "__gnu_cxx", "tokio"];
const GO: [&str; 11] = [
    "runtime",
    "syscall",
    "os",
    "os/exec",
    "io",
    "io/fs",
    "io/ioutil",
    "internal",
    "sync",
    "bufio",
    "reflect",
];

/// Functions of libc, which a static program contains.
const LIBC: [&str; 30] = [
    "_start",
    "clone",
    "clone3",
    "creat",
    "creat64",
    "do_system",
    "execl",
    "execle",
    "execlp",
    "execv",
    "execve",
    "execveat",
    "execvp",
    "execvpe",
    "fdopen",
    "fexecve",
    "fopen",
    "fopen64",
    "fork",
    "freopen",
    "mkostemp",
    "mkstemp",
    "open",
    "open64",
    "openat",
    "openat64",
    "popen",
    "start_thread",
    "system",
    "vfork",
];
const LIBC_PREFIXES: [&str; 9] =
    ["_Fork", "_IO_", "__GI_", "__clone", "__libc_", "__open", "__rust_", "__vfork", "posix_spawn"];

/// Sources that are not the user's: of Rust's, Go's and glibc's standard libraries.
const SOURCES: [&str; 4] =
    ["/rustc/", "/lib/rustlib/src/rust/library/", "/usr/local/go/src/", "../sysdeps/"];

/// Code that V8 has made for itself, and of the JDK, as perf maps name it.
const MADE_BY_RUNTIMES: [&str; 14] = [
    "[JIT]",
    "Builtin:",
    "BytecodeHandler:",
    "Handler:",
    "Interpreter",
    "RegExp:",
    "Stub:",
    "StubRoutines",
    "call_stub",
    "Ljava/",
    "Ljdk/",
    "Lsun/",
    "java.",
    "jdk.",
];

/// The user's own frames: at most three, innermost first. Left out are libc, the dynamic linker, language runtimes and
/// standard libraries, and frames without a function.
#[must_use]
pub fn own_frames(frames: &[Frame]) -> Vec<&Frame> {
    frames.iter().filter(|frame| is_own(frame)).take(MOST).collect()
}

fn is_own(frame: &Frame) -> bool {
    let Some(function) = &frame.function else { return false };
    let Some(module) = &frame.module else {
        // Code that a runtime made. Node marks its own sources: `JS:~openSync node:fs:1`.
        let is_runtime = MADE_BY_RUNTIMES.iter().any(|prefix| function.starts_with(prefix));
        return !is_runtime && !function.contains(" node:");
    };
    let source = frame.file.as_deref().unwrap_or_default();
    !is_runtime_module(module)
        && !SOURCES.iter().any(|part| source.contains(part))
        && !LIBC.contains(&&**function)
        && !LIBC_PREFIXES.iter().any(|prefix| function.starts_with(prefix))
        && !is_standard_library(function)
}

fn is_runtime_module(module: &str) -> bool {
    let path = module.strip_suffix(" (deleted)").unwrap_or(module);
    let name = path.rsplit('/').next().unwrap_or(path);
    MODULES.iter().any(|prefix| {
        // libc.so.6, libc-2.31.so, python3.12, ld-musl-x86_64.so.1: but not libcurl or shell.
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    })
}

fn is_standard_library(function: &str) -> bool {
    // Of an implementation, `<T as Trait>::function`, the type counts; of one for a reference or a function, the trait.
    let path = function.trim_start_matches(['<', '&', '*', '(', ' ']);
    let path = path.strip_prefix("mut ").unwrap_or(path);
    let of = |path: &str| {
        let package = path.split_once("::").map(|(package, _)| package);
        package.is_some_and(|package| RUST_AND_CPP.contains(&package))
    };
    let (package, rest) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
    let package = rest.split_once('.').map(|(last, _)| format!("{package}{last}"));
    let is_go = |package: String| {
        GO.contains(&&*package)
            || package.starts_with("internal/")
            || package.contains("/internal/syscall")
    };
    of(path)
        || path.split_once(" as ").is_some_and(|(_, of_trait)| is_call_of_closure(of_trait))
        || package.is_some_and(is_go)
}

fn is_call_of_closure(of_trait: &str) -> bool {
    of_trait.starts_with("core::ops::function::")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str, file: &str) -> Frame {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Frame { function: given(function), file: given(file), line: None, module: given(module) }
    }

    #[test]
    fn libraries_and_runtimes_are_not_own() {
        for (function, module, file) in [
            ("open64", "/lib/libc.so.6", ""),
            ("__open64", "/app/static", ""),
            ("f", "/lib/libc-2.31.so", ""),
            ("f", "/lib/ld-musl-x86_64.so.1", ""),
            ("f", "/usr/bin/python3.12", ""),
            ("f", "/usr/bin/node", ""),
            ("f", "/usr/bin/node (deleted)", ""),
            ("f", "/usr/bin/sh", ""),
            ("std::fs::File::create::inner", "/app/program", ""),
            ("<std::fs::OpenOptions>::open", "/app/program", ""),
            (
                "<alloc::boxed::Box<F> as core::ops::function::FnOnce<A>>::call_once",
                "/app/program",
                "",
            ),
            ("<F as core::ops::function::FnOnce<()>>::call_once", "/app/program", ""),
            ("helper", "/app/program", "/rustc/0123/library/std/src/fs.rs"),
            ("syscall.Syscall6", "/app/go", ""),
            ("internal/runtime/syscall.Syscall6", "/app/go", ""),
            ("os.(*File).Write", "/app/go", ""),
            ("os/exec.(*Cmd).Start", "/app/go", ""),
            ("[JIT]", "", ""),
            ("Builtin:InterpreterEntryTrampoline", "", ""),
            ("JS:~openSync node:fs:571:18", "", ""),
            ("", "/app/stripped", ""),
        ] {
            let frame = frame(function, module, file);
            assert!(own_frames(std::slice::from_ref(&frame)).is_empty(), "{frame:?}");
        }
    }

    #[test]
    fn other_code_is_own() {
        for (function, module, file) in [
            ("write_program", "/app/program", "/app/src/main.c"),
            ("app::std::create", "/app/program", ""),
            ("<app::Files as core::ops::drop::Drop>::drop", "/app/program", ""),
            ("Curl_open", "/lib/libcurl.so.4", ""),
            ("f", "/app/shell", ""),
            ("f", "/app/nodes", ""),
            ("main.writeProgram", "/app/go", ""),
            ("example.com/app/os.Create", "/app/go", ""),
            ("opened", "/app/program", ""),
            ("JS:~writeProgram /app/main.js:1:22", "", ""),
            ("py::build:/app/main.py", "", ""),
        ] {
            let frame = frame(function, module, file);
            assert_eq!(own_frames(std::slice::from_ref(&frame)), [&frame]);
        }
    }

    #[test]
    fn at_most_three_are_returned_innermost_first() {
        let frames = ["open", "a", "b", "std::c", "d", "e"]
            .map(|function| frame(function, "/app/program", ""));
        assert_eq!(own_frames(&frames), [&frames[1], &frames[2], &frames[4]]);
    }
}
