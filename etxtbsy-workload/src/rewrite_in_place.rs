//! A linker replaces an executable from an earlier run, as mold does (rui314/mold#1361), while another
//! process runs it: in three ways.

use super::child::{Actor, Program, fork, wait};
use super::comparison::{Comparison, Side};
use super::report::{Race, Task};
use super::stage;
use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

/// The number of links in each way.
const ROUNDS: u64 = 10;
/// The program that is copied as the executable.
const PROGRAM: &str = "/bin/true";

/// How the linker creates its output.
#[derive(Clone, Copy)]
enum Way {
    /// It opens the old file for writing.
    InPlace,
    /// It removes the old file and creates a new one with that name.
    UnlinkFirst,
    /// It creates a new file with another name, and renames it when it is complete.
    Rename,
}

pub(super) fn run() -> Result<Comparison> {
    let sides = [
        side("in-place", Way::InPlace)?,
        side("unlink-first", Way::UnlinkFirst)?,
        side("rename", Way::Rename)?,
    ];
    Ok(Comparison { scenario: "rewrite-in-place".into(), sides: sides.into() })
}

fn side(name: &str, way: Way) -> Result<Side> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let output = dir.path().join("output");
    stage::copy_program(PROGRAM, &output)?;
    let contents = fs::read(PROGRAM)?;
    let program = Program::new(&output)?;
    let start = Instant::now();
    let mut busy = 0;
    for _ in 0..ROUNDS {
        let linker = Actor::start(|control| {
            let halfway = || {
                control.send([0]);
                control.wait().map(drop)
            };
            link(way, &output, &contents, halfway)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        })?;
        let [_] = linker.receive()?;
        let victim = fork(|| program.exec() as i32)?;
        let status = wait(victim);
        linker.end()?;
        match status? {
            0 => {}
            libc::ETXTBSY => busy += 1,
            errno => bail!("the exec of the output failed: {}", Errno::from_raw(errno)),
        }
        ensure!(wait(fork(|| program.exec() as i32)?)? == 0, "the complete output does not run");
    }
    let task = Task::current();
    Ok(Side {
        name: name.into(),
        race: Race {
            scenario: "rewrite-in-place".into(),
            pid: task.pid,
            dir: dir.path().into(),
            attempts: ROUNDS,
            failures: busy,
            seconds: start.elapsed().as_secs_f64(),
            threads: vec![task.tid],
        },
        runs: ROUNDS,
        given_up: busy,
        longest_ns: 0,
    })
}

/// Creates the output; calls `halfway` when half of it is written.
fn link(
    way: Way,
    output: &Path,
    contents: &[u8],
    halfway: impl FnOnce() -> nix::Result<()>,
) -> io::Result<()> {
    let beside = output.with_extension("new");
    let create =
        |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
    let mut file: File = match way {
        Way::InPlace => OpenOptions::new().write(true).open(output)?,
        Way::UnlinkFirst => {
            fs::remove_file(output)?;
            create(output)?
        }
        Way::Rename => create(&beside)?,
    };
    let (first, second) = contents.split_at(contents.len() / 2);
    file.write_all(first)?;
    halfway()?;
    file.write_all(second)?;
    drop(file);
    match way {
        Way::InPlace | Way::UnlinkFirst => Ok(()),
        Way::Rename => fs::rename(&beside, output),
    }
}
