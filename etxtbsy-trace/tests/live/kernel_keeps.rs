//! Causes without a process: what the kernel itself keeps open, or a file system refuses.

use crate::fuse::{FILE, Server};
use crate::support::{Trace, Turn, spawn_scoped};
use etxtbsy_trace::event::{Direction, Incident, Place, VerdictKind};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use test_support::skip;

/// An active swap file, until it is dropped.
struct Swap(CString);

impl Swap {
    /// `None` if this file system has none.
    fn on(path: &Path) -> Option<Self> {
        const PAGES: u32 = 64;
        let mut bytes = vec![0_u8; 4096 * PAGES as usize];
        // `union swap_header`, include/linux/swap.h: version and last page.
        bytes[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[1028..1032].copy_from_slice(&(PAGES - 1).to_ne_bytes());
        bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that ends with NUL.
        match Errno::result(unsafe { libc::swapon(path.as_ptr(), 0) }) {
            Ok(_) => Some(Self(path)),
            Err(errno) => skip!("this file system can have no swap file: {errno}"),
        }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: a string that ends with NUL.
        unsafe { libc::swapoff(self.0.as_ptr()) };
    }
}

/// Asserts that only this place keeps the file: the incident is complete and, if `certain`, certain.
#[track_caller]
fn assert_kept(incident: &Incident, place: Place, device: Option<&str>, kind: VerdictKind) {
    assert!(incident.holders.is_empty() && incident.suspects.is_empty(), "{incident:#?}");
    let [unheld] = &incident.unheld[..] else { panic!("{incident:#?}") };
    assert_eq!((unheld.place, unheld.device.as_deref()), (place, device), "{incident:#?}");
    assert_eq!(incident.verdict.kind, kind, "{incident:#?}");
    assert!(incident.complete && incident.explained == 1, "{incident:#?}");
}

/// The names of the failed calls.
fn calls(trace: &Trace) -> Vec<&str> {
    trace.incidents.iter().map(|incident| &*incident.syscall).collect()
}

/// An exec, a truncate and an open with O_TRUNC fail, by any name of the file; a plain open for writing
/// does not. `fallocate` and `ftruncate` are counted.
#[test]
fn an_active_swap_file_is_named() {
    let Some(turn) = Turn::take_as_root() else { return };
    let dir = turn.dir.path();
    let [path, link] = ["swap", "link"].map(|name| dir.join(name));
    let Some(swap) = Swap::on(&path) else { return };
    fs::hard_link(&path, &link).unwrap();
    let script = "cd \"$0\"; ./swap; cp /bin/true swap; ./link; >link; \
                  python3 -c 'import os
os.close(os.open(\"swap\", os.O_WRONLY))
for call in lambda: os.truncate(\"swap\", 0), lambda: os.posix_fallocate(f, 0, 1 << 20), lambda: os.ftruncate(f, 0):
    f = os.open(\"swap\", os.O_WRONLY)
    try: call()
    except OSError as error: assert error.errno == 26
    else: raise SystemExit(1)
'";
    let (ended, trace) = turn.run(&[], &["sh", "-c", script, dir.to_str().unwrap()]);
    drop(swap);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(calls(&trace), ["execve", "openat", "execve", "openat", "truncate"]);
    let ino = fs::metadata(&path).unwrap().ino();
    for incident in &trace.incidents {
        assert_kept(incident, Place::SwapFile, None, VerdictKind::SwapFile);
        assert!(incident.certain, "{incident:#?}");
        assert_eq!(incident.file.ino, Some(ino));
        if incident.direction == Direction::Exec {
            assert_eq!(incident.file.writers, Some(1));
        }
        let advice = &incident.verdict.advice[0];
        assert!(advice.contains("swapoff /"), "{advice}");
    }
    let counted: Vec<_> =
        trace.refusals.iter().map(|one| (one.syscall.as_str(), one.count)).collect();
    assert_eq!(counted, [("fallocate", 1), ("ftruncate", 1)], "{:?}", trace.refusals);
    assert_eq!(trace.lost(), Vec::<&_>::new());
}

/// In another mount namespace the file has another path, which we do not see.
#[test]
fn an_active_swap_file_is_known_in_another_mount_namespace() {
    let Some(turn) = Turn::take_as_root() else { return };
    let dir = turn.dir.path();
    let Some(swap) = Swap::on(&dir.join("swap")) else { return };
    fs::create_dir(dir.join("at")).unwrap();
    let script = "mount --bind \"$0\" \"$0/at\" && cd / && \"$0/at/swap\"; exit 0";
    let command = ["unshare", "-m", "sh", "-c", script, dir.to_str().unwrap()];
    let (ended, trace) = turn.run(&[], &command);
    drop(swap);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
    assert_kept(incident, Place::SwapFile, None, VerdictKind::SwapFile);
    let at = dir.join("at/swap");
    assert_eq!(incident.file.path.as_deref(), at.to_str());
}

/// A process that has the swap file open for writing also holds it.
#[test]
fn a_writer_of_a_swap_file_is_named_too() {
    let Some(turn) = Turn::take_as_root() else { return };
    let path = turn.dir.path().join("swap");
    let Some(swap) = Swap::on(&path) else { return };
    let script = "exec 3<>\"$0\"; (exec 3>&-; exec \"$0\"); echo $$";
    let (ended, trace) = turn.run(&[], &["bash", "-c", script, path.to_str().unwrap()]);
    drop(swap);
    let shell: u32 = ended.stdout.trim().parse().unwrap();
    let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
    let holders: Vec<u32> = incident.holders.iter().map(|holder| holder.pid).collect();
    assert_eq!(holders, [shell], "{incident:#?}");
    assert_eq!(incident.unheld[0].place, Place::SwapFile, "{incident:#?}");
    assert_eq!((incident.file.writers, incident.explained), (Some(2), 2), "{incident:#?}");
    assert!(incident.complete, "{incident:#?}");
}

/// A binfmt_misc entry in a mount namespace of this thread, removed when dropped.
struct Entry {
    control: PathBuf,
    name: String,
}

impl Entry {
    /// `None` if this kernel has none.
    fn register(control: PathBuf, interpreter: &Path, flags: &str) -> Option<Self> {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        fs::create_dir(&control).unwrap();
        if let Err(errno) =
            mount(Some("none"), &control, Some("binfmt_misc"), MsFlags::empty(), none)
        {
            skip!("this kernel has no binfmt_misc: {errno}");
        }
        let name = format!("etxtbsy-trace-{}-{flags}", std::process::id());
        let line = format!(":{name}:M::{name}::{}:{flags}", interpreter.display());
        fs::write(control.join("register"), line).unwrap();
        Some(Self { control, name })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = fs::write(self.control.join(&self.name), "-1");
        let _ = umount2(&self.control, MntFlags::MNT_DETACH);
    }
}

/// Runs a test on a thread, whose mount namespace ends with it.
fn on_a_thread(test: impl FnOnce(&Turn) + Send) {
    let Some(turn) = Turn::take_as_root() else { return };
    thread::scope(|scope| spawn_scoped(scope, || test(&turn)).join().unwrap());
}

/// Writing the interpreter fails by its own name and by a new name, but not if another file has replaced
/// it.
#[test]
fn a_binfmt_misc_entry_is_named() {
    on_a_thread(|turn| {
        let dir = turn.dir.path();
        let interpreter = dir.join("interpreter");
        fs::copy("/bin/true", &interpreter).unwrap();
        let Some(entry) = Entry::register(dir.join("control"), &interpreter, "F") else { return };
        let script = "cd \"$0\"; cp /bin/false interpreter; mv interpreter renamed; \
                      cp /bin/false renamed; cp /bin/false interpreter && truncate -s 0 renamed; \
                      exit 0";
        let (ended, trace) = turn.run(&[], &["sh", "-c", script, dir.to_str().unwrap()]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(calls(&trace), ["openat", "openat", "openat"]);
        for incident in &trace.incidents {
            let kind = VerdictKind::BinfmtMisc;
            assert_kept(incident, Place::BinfmtMisc, Some(&entry.name), kind);
            assert!(incident.certain, "{incident:#?}");
            assert_eq!(incident.file.writers, Some(-1));
            let advice = &incident.verdict.advice[0];
            assert!(advice.contains(&format!("binfmt_misc/{}", entry.name)), "{advice}");
        }
        assert_eq!(trace.lost(), Vec::<&_>::new());
    });
}

/// An entry without flag `F` does not keep its interpreter open; only processes that run it do.
#[test]
fn a_binfmt_misc_entry_without_flag_f_is_no_cause() {
    on_a_thread(|turn| {
        let dir = turn.dir.path();
        let interpreter = dir.join("interpreter");
        fs::copy("/bin/sleep", &interpreter).unwrap();
        let Some(_entry) = Entry::register(dir.join("control"), &interpreter, "O") else { return };
        // The shell continues before its child has exec'd.
        let script = "cd \"$0\"; ./interpreter 9 & \
                      until [ \"$(readlink /proc/$!/exe)\" = \"$PWD/interpreter\" ]; do :; done; \
                      cp /bin/true interpreter; kill $!; wait; cp /bin/true interpreter";
        let (ended, trace) = turn.run(&[], &["sh", "-c", script, dir.to_str().unwrap()]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
        assert_eq!(incident.verdict.kind, VerdictKind::RunningExecutable, "{incident:#?}");
        assert!(incident.unheld.is_empty() && incident.complete, "{incident:#?}");
    });
}

/// A FUSE file system answers ETXTBSY to an exec, an open for writing, a truncate, unlink and rename.
#[test]
fn a_file_system_that_refuses_is_named() {
    on_a_thread(|turn| {
        let at = turn.dir.path().join("mount");
        fs::create_dir(&at).unwrap();
        let Some(server) = Server::start(&at, Path::new("none"), |_| true) else {
            skip!("this kernel has no FUSE");
        };
        let file = at.join(FILE);
        let script = "cd \"${0%/*}\"; \"$0\"; (echo >\"$0\"); (truncate -s 0 \"$0\"); unlink \"$0\"; \
                      mv \"$0\" \"$0.new\"; exit 0";
        let (ended, trace) = turn.run(&[], &["sh", "-c", script, file.to_str().unwrap()]);
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        server.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(calls(&trace), ["execve", "openat", "openat"], "{}", ended.stderr);
        for incident in &trace.incidents {
            let kind = VerdictKind::RefusedByFilesystem;
            assert_kept(incident, Place::FileSystem, Some("fuse"), kind);
            // After a refused write, a process that ran the file may have just exited.
            assert_eq!(incident.certain, incident.direction == Direction::Exec, "{incident:#?}");
            assert_eq!(incident.unheld[0].mount.as_deref(), at.to_str());
            assert_eq!(incident.file.path.as_deref(), file.to_str());
            // A failed write shows the file; a failed exec had not opened one.
            assert_eq!(incident.file.ino.is_some(), incident.direction == Direction::Write);
            assert_eq!(incident.file.writers, None);
        }
        let counted: Vec<_> = trace.refusals.iter().map(|one| (&*one.syscall, one.count)).collect();
        assert_eq!(counted.len(), 2, "{counted:?}");
        assert!(counted[0].0.starts_with("unlink") && counted[1].0.starts_with("rename"));
        assert_eq!(trace.lost(), Vec::<&_>::new());
    });
}
