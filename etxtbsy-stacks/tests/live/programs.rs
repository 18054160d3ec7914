//! Programs that the tests compile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::traced::{Call, Traced};

/// Opens, forks or executes: `PROGRAM open|fork|exec PATH`.
pub(crate) const C: &str = r"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
static inline __attribute__((always_inline)) int create(const char *path) {
    return open(path, O_WRONLY | O_CREAT, 0755); /* OPEN */
}
__attribute__((noinline)) int write_program(const char *path) {
    return create(path) + 1; /* CREATE */
}
__attribute__((noinline)) int start(const char *path) {
    return fork() + 1; /* FORK */
}
__attribute__((noinline)) int execute(const char *path) {
    return execl(path, path, (char *)0) + 1; /* EXEC */
}
__attribute__((noinline)) int build(const char *what, const char *path) {
    char local[200];
    strcpy(local, what);
    if (local[0] == 'o') return write_program(path) + 1; /* BUILD */
    if (local[0] == 'f') return start(path) + 1; /* START */
    return execute(path) + local[1];
}
int main(int count, char **words) {
    return build(words[1], words[2]) + 1; /* MAIN */
}
";

/// The line of a source that has a mark.
pub(crate) fn line(source: &str, mark: &str) -> usize {
    1 + source.lines().position(|line| line.contains(&format!("/* {mark} */"))).unwrap()
}

/// A directory with a program, and the file that it opens.
pub(crate) struct Program {
    pub(crate) directory: TempDir,
    pub(crate) path: PathBuf,
}

impl Program {
    /// Compiles a source: `compiler FLAGS SOURCE -o PROGRAM`.
    pub(crate) fn compile(compiler: &str, name: &str, source: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (from, path) = (directory.path().join(name), directory.path().join("program"));
        fs::write(&from, source).unwrap();
        let output =
            Command::new(compiler).args(flags).arg(&from).arg("-o").arg(&path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self { directory, path }
    }

    pub(crate) fn c(flags: &[&str]) -> Self {
        Self::compile("gcc", "program.c", C, flags)
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.directory.path().join("written")
    }

    /// Stops it as it opens its file.
    pub(crate) fn opening(&self) -> Traced {
        Traced::at(
            Command::new(&self.path).arg("open").arg(self.target()),
            Call::Open(&self.target()),
        )
    }

    pub(crate) fn module(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// Whether a program is installed.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| Path::new(&directory).join(program).exists())
}
