//! As holder.c, but the child that holds the file runs a program.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

#[inline(never)]
fn write_program(path: &Path) -> File {
    let mut options = File::options();
    options.write(true).create(true).mode(0o755);
    let mut file = options.open(path).unwrap(); // the open
    file.write_all(b"#!/bin/true\n").unwrap();
    file
}

unsafe extern "C" {
    fn fcntl(fd: i32, command: i32, ...) -> i32;
}

const F_SETFD: i32 = 2;

#[inline(never)]
fn start_holder(file: &File) -> Child {
    // SAFETY: changes whether the fd is close-on-exec: it is not.
    assert_eq!(unsafe { fcntl(file.as_raw_fd(), F_SETFD, 0) }, 0);
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    sleep.spawn().unwrap() // the fork
}

#[inline(never)]
fn execute(path: &Path) -> bool {
    Command::new(path).status().is_ok() // the exec
}

fn main() -> ExitCode {
    let path = std::env::args_os().nth(1).unwrap();
    let path = Path::new(&path);
    let file = write_program(path);
    let mut holder = start_holder(&file);
    drop(file);
    let done = execute(path);
    while std::env::args_os().len() > 2 {
        std::thread::park();
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    ExitCode::from(u8::from(!done))
}
