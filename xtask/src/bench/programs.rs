//! The kernel's statistics of eBPF programs and maps; see Documentation/bpf, and `fdinfo` in proc(5).

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{Read, Seek},
    os::fd::{FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

/// The time between two checks of the loaded programs.
const POLL: Duration = Duration::from_millis(50);
/// After this time, a message says what the benchmark waits for.
const REPORT_AFTER: Duration = Duration::from_secs(3);

/// The runs of one program since the statistics were enabled.
#[derive(Clone, Copy, Default)]
pub(super) struct Runs {
    pub(super) runs: u64,
    pub(super) nanoseconds: u64,
}

impl Runs {
    pub(super) fn since(self, before: Self) -> Self {
        Self { runs: self.runs - before.runs, nanoseconds: self.nanoseconds - before.nanoseconds }
    }
}

/// Makes the kernel count and time the runs of all programs until this is dropped. Each run then takes
/// some ten nanoseconds longer.
pub(super) fn enable_statistics() -> Result<OwnedFd> {
    // BPF_ENABLE_STATS with BPF_STATS_RUN_TIME, see include/uapi/linux/bpf.h. Unlike the sysctl, it ends
    // with its fd, even if this process is killed.
    const BPF_ENABLE_STATS: i32 = 32;
    let run_time = 0_u32;
    // SAFETY: this command reads one u32, and `run_time` outlives the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const run_time, size_of_val(&run_time))
    };
    let fd = Errno::result(fd)
        .context("cannot enable the statistics of eBPF programs (needs Linux 5.8 or newer)")?;
    // SAFETY: the fd is new, so no other value owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What the kernel shows of the fds of a process: its programs, maps and links. The files stay open, so that
/// reading them again makes no call that a tracer sees.
pub(super) struct Statistics(Vec<File>);

impl Statistics {
    pub(super) fn open(pid: u32) -> Result<Self> {
        Ok(Self(fdinfo(pid)?.filter(is_program).collect()))
    }

    /// The runs of the programs, by their tags.
    pub(super) fn runs(&mut self) -> Result<BTreeMap<String, Runs>> {
        let mut all = BTreeMap::new();
        for file in &mut self.0 {
            let info = fields(file)?;
            let tag = info.get("prog_tag").context("an eBPF program has no tag")?;
            let runs = Runs {
                runs: number(&info, "run_cnt")?,
                nanoseconds: number(&info, "run_time_ns")?,
            };
            all.insert(tag.clone(), runs);
        }
        Ok(all)
    }
}

/// A link has its program's tag too, but no run count.
fn is_program(mut file: &File) -> bool {
    fields(&mut file).is_ok_and(|it| it.contains_key("prog_tag") && it.contains_key("run_cnt"))
}

/// The kernel memory of the maps of a process, in bytes.
pub(super) fn map_bytes(pid: u32) -> Result<u64> {
    let mut maps = BTreeMap::new();
    for mut file in fdinfo(pid)? {
        // The fd may have been closed.
        let Ok(info) = fields(&mut file) else { continue };
        if let Some(id) = info.get("map_id") {
            maps.insert(id.clone(), number(&info, "memlock")?);
        }
    }
    Ok(maps.values().sum())
}

/// The number of tracers on this machine, counted by one of their programs.
pub(super) fn tracers() -> Result<usize> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    Ok(symbols.lines().filter(|line| line.ends_with("_exec_returns\t[bpf]")).count())
}

/// Waits until exactly that many tracers run: the kernel frees programs some time after their process has
/// ended, and other users may run tracers.
pub(super) fn wait_for_tracers(wanted: usize) -> Result<()> {
    let began = Instant::now();
    let mut reported = false;
    loop {
        let found = tracers()?;
        if found == wanted {
            return Ok(());
        }
        ensure!(
            found > wanted,
            "/proc/kallsyms does not show eBPF programs: run `sysctl net.core.bpf_jit_kallsyms=1`"
        );
        if began.elapsed() > REPORT_AFTER && !reported {
            reported = true;
            eprintln!("waiting until {} other etxtbsy-trace processes have ended", found - wanted);
        }
        thread::sleep(POLL);
    }
}

/// The names of the loaded programs, by their tags.
pub(super) fn names() -> Result<HashMap<String, String>> {
    // "ffffffffc002a4f0 t bpf_prog_f5f463b2d8186bc8_closing	[bpf]"
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let words = symbols.lines().filter_map(|line| line.split_ascii_whitespace().nth(2));
    Ok(words
        .filter_map(|symbol| symbol.strip_prefix("bpf_prog_")?.split_once('_'))
        .map(|(tag, name)| (tag.to_owned(), name.to_owned()))
        .collect())
}

/// The `fdinfo` of each fd of a process.
fn fdinfo(pid: u32) -> Result<impl Iterator<Item = File>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&dir).with_context(|| dir.clone())?;
    // The fd may have been closed.
    Ok(entries.filter_map(|entry| File::open(entry.ok()?.path()).ok()))
}

/// The fields of a file of `fdinfo`, read from its start.
fn fields(file: &mut (impl Read + Seek)) -> Result<HashMap<String, String>> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let pairs = text.lines().filter_map(|line| line.split_once(":\t"));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
}

fn number(info: &HashMap<String, String>, key: &str) -> Result<u64> {
    let value = info.get(key).with_context(|| format!("this kernel's fdinfo lacks {key}"))?;
    value.parse().with_context(|| format!("fdinfo: {key}: {value}"))
}
