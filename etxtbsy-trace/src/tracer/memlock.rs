//! RLIMIT_MEMLOCK, against which eBPF maps counted before 5.11.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

/// Lifts it for this process and those that it starts later; takes CAP_SYS_RESOURCE.
pub fn lift() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
}

/// Whether maps count against it. As libbpf does (`probe_memcg_account`), by a helper that came
/// with the same version as their accounting by cgroup.
pub fn counts() -> anyhow::Result<bool> {
    let helper = BpfHelper::BPF_FUNC_ktime_get_coarse_ns;
    Ok(!is_helper_supported(ProgramType::SocketFilter, helper)?)
}
