//! The running kernel as a [`Backend`]: its maps, the programs that answer questions, and the ring buffer.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd},
};

use anyhow::Context as _;
use aya::{
    maps::{HashMap, MapError},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _, TracePoint},
};
use etxtbsy_trace_common::{
    CallCount, CallKey, Compat32, Config, Count, ExecCall, ExecName, Hold, Intake, Lineage, Lost,
    PendingRelease, PidPair, Run, Stack, StacksOf, Watch,
};
use nix::time::ClockId;
use tokio::io::{Interest, unix::AsyncFd};
use zerocopy::FromBytes as _;

use super::{
    backend::{Backend, ExecCounts},
    layout::{self, Layout as _},
    loader::{Tracer, program_of, refusal},
    numbers::Numbers,
    programs::{CALL_RETURNS, COMPAT_RETURNS, COMPAT_SEARCH, PIDS, RECEIVED, SYS_EXIT},
    stack_copies::StacksWanted,
};
use crate::host::{clock::now_ns, pids::Pids};

/// `BPF_NOEXIST`, include/uapi/linux/bpf.h.
const BPF_NOEXIST: u64 = 1;

impl Tracer {
    /// Counts the execs of interest that succeeded, also from another thread.
    pub fn exec_counter(&self) -> anyhow::Result<Box<dyn Fn() -> u64 + Send>> {
        let counts = Numbers::of(&self.ebpf, "COUNTS", Count::ALL)?;
        Ok(Box::new(move || counts.get(Count::Execs as u32)))
    }
}

impl Backend for Tracer {
    fn listen(&mut self) -> anyhow::Result<()> {
        // File systems take the time of the last tick, at least 100 a second (`ktime_get_coarse_real_ts64`).
        let began = now_ns(ClockId::CLOCK_REALTIME).saturating_sub(10_000_000);
        self.config.set(Config::BeganReal as u32, began);
        let records = self.take_records()?;
        // SAFETY: the ring buffer owns its fd, and closes it when it is dropped.
        let records = unsafe { AsyncFd::register_with_interest(records, Interest::READABLE) };
        self.records =
            Some(records.map_err(io::Error::from).context("cannot wait for the ring buffer")?);
        Ok(())
    }

    async fn readable(&mut self) -> io::Result<()> {
        match &mut self.records {
            Some(records) => {
                records.readable_mut().await?.clear_ready();
                Ok(())
            }
            None => std::future::pending().await,
        }
    }

    fn next_record<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let record = self.records.as_mut()?.get_mut().next()?;
        if let Some(copy) = &mut self.copy
            && let Err(error) = write_framed(copy, &record)
        {
            log::warn!("cannot copy the records: {error}");
            self.copy = None;
        }
        Some(read(&record))
    }

    fn pids(&mut self) -> anyhow::Result<Pids> {
        if !self.is_contained {
            return Ok(Pids::same());
        }
        let mut bytes = Vec::new();
        self.iterate(PIDS)?.read_to_end(&mut bytes).context("cannot list the processes")?;
        let pairs = bytes.chunks_exact(size_of::<PidPair>());
        let pairs: Vec<_> = pairs.filter_map(|pair| PidPair::read_from_bytes(pair).ok()).collect();
        Ok(Pids::of(&pairs))
    }

    fn is_filtered(&self) -> bool {
        self.filtered
    }

    fn tree(&mut self) -> anyhow::Result<Vec<u32>> {
        let tree: HashMap<_, u32, u32> = HashMap::try_from(self.map_mut("TREE")?)?;
        Ok(tree.keys().collect::<Result<_, _>>()?)
    }

    fn is_in_tree(&self, pid: u32) -> bool {
        let tree = self.ebpf.map("TREE").and_then(|map| HashMap::<_, u32, u32>::try_from(map).ok());
        tree.is_some_and(|tree| tree.get(&pid, 0).is_ok())
    }

    fn tree_size(&self) -> u64 {
        let found = self.config.get(Config::TreeFound as u32);
        found.wrapping_add(self.counts.get(Count::Tree as u32))
    }

    fn failures(&self) -> u64 {
        self.counts.get(Count::Failures as u32)
    }

    fn other_calls(&self) -> u64 {
        self.counts.get(Count::OtherCalls as u32)
    }

    fn other_calls_by_process(&mut self) -> anyhow::Result<Vec<(CallKey, CallCount)>> {
        let map: HashMap<_, CallKey, CallCount> = HashMap::try_from(self.map_mut("CALLS_FAILED")?)?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }

    fn execs(&self) -> ExecCounts {
        ExecCounts {
            succeeded: self.counts.get(Count::Execs as u32),
            of_written_files: self.counts.get(Count::ExecsOfWritten as u32),
            failed: self.counts.get(Count::ExecsFailed as u32),
        }
    }

    fn elsewhere(&self) -> u64 {
        self.counts.get(Count::Elsewhere as u32)
    }

    fn take(&self, intake: Intake) {
        self.config.set(Config::Intake as u32, intake as u64);
    }

    fn lost(&self, what: Lost) -> u64 {
        self.lost.get(what as u32)
    }

    fn missed(&self) -> u64 {
        // The second program has done the work of this one.
        let is_repeated = |name: &str| self.preempted && name == "exec_returns";
        let programs = self.ebpf.programs().filter(|(name, _)| !is_repeated(name));
        let missed = programs.filter_map(|(name, program)| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let missed = misses(&fdinfo).filter(|missed| *missed > 0)?;
            log::debug!("{name} was skipped {missed} times");
            Some(missed)
        });
        missed.sum()
    }

    fn lineage(&self, pid: u32) -> Option<Lineage> {
        let map: HashMap<_, u32, Lineage> = HashMap::try_from(self.ebpf.map("LINEAGE")?).ok()?;
        map.get(&pid, 0).ok()
    }

    fn last_exec_ns(&self, pid: u32) -> u64 {
        self.run(pid).map_or(0, |run| run.exec_ns)
    }

    fn script(&self, tgid: u32) -> Option<Vec<u8>> {
        let map: HashMap<_, u32, ExecName> = HashMap::try_from(self.ebpf.map("SCRIPTS")?).ok()?;
        let kept = map.get(&tgid, 0).ok().filter(|kept| kept.tgid == tgid)?;
        let name = kept.name.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then(|| name.to_vec())
    }

    fn run(&self, tgid: u32) -> Option<Run> {
        let map: HashMap<_, u32, Run> = HashMap::try_from(self.ebpf.map("RUNS")?).ok()?;
        map.get(&tgid, 0).ok()
    }

    fn is_in_exec(&self, task: u64) -> bool {
        let map = self.ebpf.map("EXECS").map(HashMap::<_, u64, ExecCall>::try_from);
        map.is_some_and(|map| map.is_ok_and(|map| map.get(&task, 0).is_ok()))
    }

    fn exec_name(&self, task: u64, tgid: u32) -> Option<Vec<u8>> {
        let map: HashMap<_, u64, ExecName> =
            HashMap::try_from(self.ebpf.map("EXEC_NAMES")?).ok()?;
        let kept = map.get(&task, 0).ok().filter(|kept| kept.tgid == tgid)?;
        let name = kept.name.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then(|| name.to_vec())
    }

    fn copies_stacks(&self) -> bool {
        self.stacks_wanted != StacksWanted::Never
    }

    fn stack(&self, time_ns: u64, tid: u32) -> Option<Box<Stack>> {
        self.stacks.get(time_ns, tid)
    }

    fn copy_stacks_of(&mut self, program: &impl AsRawFd) -> anyhow::Result<()> {
        let inode = self.inode_at(program)?;
        let mut map: HashMap<_, u64, u32> = HashMap::try_from(self.map_mut("STACK_PROGRAMS")?)?;
        map.insert(inode, 1, 0)?;
        let bits = self.config.get(Config::Stacks as u32);
        self.config.set(Config::Stacks as u32, bits | StacksOf::OpensOfPrograms as u64);
        Ok(())
    }

    fn still_open(&mut self, task: u64, lingering: &PendingRelease) -> anyhow::Result<bool> {
        let PendingRelease { file, inode } = *lingering;
        Ok(self.ask("still_open", &[task, file, inode])? != 0)
    }

    fn lives(&mut self, task: u64, start_ns: u64) -> anyhow::Result<bool> {
        Ok(self.ask("lives", &[task, start_ns])? != 0)
    }

    fn write_count(&mut self, file: &impl AsRawFd) -> anyhow::Result<i32> {
        let fd = u64::try_from(file.as_raw_fd())?;
        Ok(self.ask("write_count", &[fd])?.cast_signed())
    }

    fn is_swap_file(&mut self, file: &impl AsRawFd) -> anyhow::Result<bool> {
        let fd = u64::try_from(file.as_raw_fd())?;
        Ok(self.ask("is_swap_file", &[fd])? != 0)
    }

    fn inode_at(&mut self, file: &impl AsRawFd) -> anyhow::Result<u64> {
        let fd = u64::try_from(file.as_raw_fd())?;
        let [lower, upper] = [0, 1].map(|half| self.ask("inode_at", &[fd, half]));
        Ok(u64::from(upper?) << 32 | u64::from(lower?))
    }

    fn is_kept_by(&mut self, inode: (u64, u64), entry: &impl AsRawFd) -> Option<bool> {
        let (private, interpreter) = self.entry_fields()?;
        let entry = u64::try_from(entry.as_raw_fd()).ok()?;
        let args = [inode.0, inode.1, entry, private.into(), interpreter.into()];
        Some(self.ask("keeps", &args).ok()? != 0)
    }

    fn still_there(&mut self, hold: &Hold) -> anyhow::Result<bool> {
        let args = [hold.table, u64::from(hold.fd), hold.file, hold.inode];
        Ok(self.ask("still_there", &args)? != 0)
    }

    fn await_end(&mut self, tgid: u32, lingering: &PendingRelease) -> anyhow::Result<()> {
        let mut map: HashMap<_, u32, PendingRelease> =
            HashMap::try_from(self.map_mut("PENDING_RELEASE")?)?;
        map.insert(tgid, lingering, 0)?;
        if self.call_returns.is_none() {
            let program: &mut RawTracePoint = program_of(&mut self.ebpf, CALL_RETURNS)?;
            let link = program.attach(SYS_EXIT).context("cannot attach to sys_exit")?;
            self.call_returns = Some(program.take_link(link)?);
        }
        Ok(())
    }

    fn await_no_end(&mut self) {
        self.call_returns = None;
    }

    fn unwatch(&mut self, inode: u64, failed_ns: u64) -> anyhow::Result<bool> {
        let before = self.failures();
        let mut watched: HashMap<_, u64, Watch> = HashMap::try_from(self.map_mut("WATCHED")?)?;
        // It is not there if it could not be put there, which was counted.
        let watch = watched.get(&inode, 0).ok();
        if watch.is_some_and(|watch| watch.failed_ns > failed_ns) {
            return Ok(false);
        }
        let _ = watched.remove(&inode);
        // A failure is counted before its inode is watched.
        let is_over = self.failures() == before;
        if !is_over {
            let mut watched: HashMap<_, u64, Watch> = HashMap::try_from(self.map_mut("WATCHED")?)?;
            watched.insert(inode, Watch { failed_ns, ..watch.unwrap_or_default() }, 0)?;
        }
        Ok(is_over)
    }

    fn add_to_tree(&mut self, pid: u32) -> anyhow::Result<bool> {
        let mut tree: HashMap<_, u32, u32> = HashMap::try_from(self.map_mut("TREE")?)?;
        match tree.insert(pid, 1, BPF_NOEXIST) {
            Ok(()) => {
                self.change_found(1);
                Ok(true)
            }
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("cannot note process {pid}")),
        }
    }

    fn remove_from_tree(&mut self, pid: u32) -> anyhow::Result<()> {
        let mut tree: HashMap<_, u32, u32> = HashMap::try_from(self.map_mut("TREE")?)?;
        // If it is not there any more, the programs have seen its end, and counted it.
        if tree.remove(&pid).is_ok() {
            self.change_found(-1);
        }
        Ok(())
    }

    fn follow_compat(&mut self) -> anyhow::Result<()> {
        if !self.has_seen_compat() {
            return Ok(());
        }
        let followed = Compat32::Followed as u64;
        if self.compat {
            // Two processors may have seen the first one, the second after it was followed.
            self.config.set(Config::Compat as u32, followed);
            return Ok(());
        }
        log::info!("a 32-bit program runs: following all system calls");
        // This one is loaded already, for loading takes longer than many a program runs.
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, COMPAT_RETURNS)?;
        program.attach(SYS_EXIT).context("cannot attach to the tracepoint sys_exit")?;
        self.compat = true;
        self.config.set(Config::Compat as u32, followed);
        log::debug!("32-bit programs are followed");
        let (name, next) = COMPAT_SEARCH;
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, name)?;
        program.load().map_err(|error| refusal(name, error))?;
        self.link_raw(name, next)
    }

    fn has_seen_compat(&self) -> bool {
        self.config.get(Config::Compat as u32) != Compat32::Unseen as u64
    }

    fn passed_since_ns(&self) -> u64 {
        self.config.get(Config::Passed as u32)
    }

    fn follow_passed(&mut self) -> anyhow::Result<()> {
        log::info!("an fd came from another process: following messages that bring fds");
        let program: &mut TracePoint = program_of(&mut self.ebpf, RECEIVED)?;
        self.passed.attach(program.fd()?.as_fd()).context("cannot attach to recvmsg")?;
        self.config.set(Config::Passed as u32, now_ns(ClockId::CLOCK_MONOTONIC));
        Ok(())
    }
}

impl Tracer {
    /// Where an inode of binfmt_misc leads to its entry, and that to its interpreter's file.
    pub(super) fn entry_fields(&self) -> Option<(u32, u32)> {
        let find = || {
            let kernel = layout::running_kernel().ok()?;
            let field = |of: &layout::Kernel| of.offset("Node", "interp_file");
            let found = field(&kernel).or_else(|| field(&kernel.module("binfmt_misc").ok()?))?;
            Some((kernel.offset("inode", "i_private")?, found))
        };
        *self.entry_fields.get_or_init(find)
    }

    /// Runs a program that is attached to nothing.
    pub(super) fn ask(&mut self, name: &str, args: &[u64]) -> anyhow::Result<u32> {
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, name)?;
        let mut options = RawTracePointRunOptions::default();
        options.args[..args.len()].copy_from_slice(args);
        Ok(program.test_run(options)?.return_value)
    }
}

/// Writes a record behind its length, in bytes, as a little-endian u32.
fn write_framed(file: &mut File, record: &[u8]) -> io::Result<()> {
    file.write_all(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    file.write_all(record)
}

/// `recursion_misses` in /proc/PID/fdinfo of a program (`bpf_prog_show_fdinfo`,
/// kernel/bpf/syscall.c).
fn misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_read() {
        let fdinfo =
            "pos:\t0\nflags:\t02000002\nrun_cnt:\t0\nrecursion_misses:\t17\nverified_insns:\t85\n";
        assert_eq!(misses(fdinfo), Some(17));
        assert_eq!(misses("pos:\t0\nrun_cnt:\t0\n"), None, "before 5.12");
    }
}
