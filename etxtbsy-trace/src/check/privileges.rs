//! The rights of this user: capabilities(7), and whether bpf(2) is allowed.

use std::path::PathBuf;

use aya::{maps::MapType, sys::is_map_supported};
use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::geteuid,
};
use procfs::sys::kernel::Version as KernelVersion;
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set, no_new_privs};

use super::{Finding, Machine, Probe, When};
use crate::{
    host::privileges::{self, Capability},
    text::shown,
    tracer::{memlock, perf_event},
};

/// A capability, and what it is needed for.
struct Needed {
    capability: Capability,
    purpose: &'static str,
    when: When,
    /// The finding if the process does not have it.
    without: fn(&'static str) -> Finding,
}

/// The capabilities that suffice if tracefs is mounted, as setcap(8) writes them.
const SUFFICIENT: &str = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search";
/// Those on kernels where maps count against RLIMIT_MEMLOCK.
const SUFFICIENT_WITH_MEMLOCK: &str =
    "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_resource";

/// From then on maps count against the memory of the cgroup.
const FIRST_WITHOUT_MEMLOCK: KernelVersion = KernelVersion { major: 5, minor: 11, patch: 0 };

const NEEDED: [Needed; 10] = [
    Needed {
        capability: privileges::BPF,
        purpose: "to load eBPF programs and create their maps",
        when: When::Start,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Needed {
        capability: privileges::PERFMON,
        purpose: "to attach to tracepoints, and to read the kernel's memory there",
        when: When::Start,
        without: |name| Finding::missing(not_held(), grant(name)),
    },
    Needed {
        capability: privileges::SYS_PTRACE,
        purpose: "to read in /proc which programs other users' processes run",
        when: When::Start,
        without: |name| {
            let instead =
                "exe, cwd and fds of processes that /proc hides from this user stay unknown";
            Finding::degraded(not_held(), instead).with_remedy(grant(name))
        },
    },
    Needed {
        capability: privileges::SYS_RESOURCE,
        purpose: "to raise RLIMIT_MEMLOCK, which limits eBPF maps before 5.11",
        when: When::Start,
        without: without_sys_resource,
    },
    Needed {
        capability: privileges::DAC_READ_SEARCH,
        purpose: "to inspect files and fds that only their owner may inspect",
        when: When::Failure,
        without: |name| {
            let instead = "files in other users' private directories, and other users' io_urings, \
                           stay unknown";
            Finding::degraded(not_held(), instead).with_remedy(grant(name))
        },
    },
    Needed {
        capability: privileges::CHECKPOINT_RESTORE,
        purpose: "to read programs that were replaced, or are on overlayfs, for stacks",
        when: When::Failure,
        without: |_| Finding::ok(format!("{}; stacks have no names of such programs", not_held())),
    },
    Needed {
        capability: privileges::KILL,
        purpose: "to forward signals to a command that runs as another user",
        when: When::Failure,
        without: |name| {
            if is_one_user() {
                return Finding::ok(format!(
                    "{}; not needed, because a command runs as this user",
                    not_held()
                ));
            }
            let instead = "signals sent only to the tracer do not reach such a command";
            Finding::degraded(not_held(), instead).with_remedy(grant(name))
        },
    },
    Needed {
        capability: privileges::SETUID,
        purpose: "to run a command and write files as the user who called sudo",
        when: When::Failure,
        without: without_identity_change,
    },
    Needed {
        capability: privileges::SETGID,
        purpose: "to do that with that user's groups",
        when: When::Failure,
        without: without_identity_change,
    },
    Needed {
        capability: privileges::DAC_OVERRIDE,
        purpose: "to write files wherever root may, if root started the tracer",
        when: When::Failure,
        without: |_| Finding::ok(format!("{}; files are written where this user may", not_held())),
    },
];

pub(super) fn probes() -> Vec<Probe> {
    let capabilities = NEEDED.iter().map(|needed| {
        let Needed { capability, purpose, when, .. } = needed;
        Probe { when: *when, ..Probe::new(capability.name, *purpose, |_| needed.finding()) }
    });
    capabilities
        .chain([
            Probe::new("bpf(2)", "to load programs into the kernel and read their maps", bpf),
            Probe::new("perf_event_open(2)", "to attach to the tracepoints of system calls", perf),
        ])
        .collect()
}

impl Needed {
    fn finding(&self) -> Finding {
        let Capability { name, set, or, .. } = self.capability;
        match capabilities(None) {
            Ok(held) if held.effective.intersects(set | or) => Finding::ok("held"),
            Ok(_) => (self.without)(name),
            Err(error) => Finding::unknown(format!("capget: {error}")),
        }
    }
}

fn not_held() -> String {
    format!("uid {} does not have it", geteuid())
}

/// The remedy for a missing capability.
fn grant(name: &str) -> String {
    let known = privileges::ALL.iter().find(|capability| capability.name == name);
    let is_withheld = |capability: &Capability| {
        capability_is_in_bounding_set(capability.set).is_ok_and(|is_in_set| !is_in_set)
    };
    if known.is_some_and(is_withheld) {
        let name = name.trim_start_matches("CAP_");
        return format!("give it to the container (docker run --cap-add={name}, or --privileged)");
    }
    how_to_get_rights()
}

/// The remedy for a missing right, which depends on how this process was started.
pub(super) fn how_to_get_rights() -> String {
    if geteuid().is_root() {
        "start etxtbsy-trace as root with all capabilities, outside the environment that removed them".to_owned()
    } else if no_new_privs().unwrap_or(false) {
        "start etxtbsy-trace without no_new_privs, which makes sudo and setcap ineffective"
            .to_owned()
    } else {
        let sudo = "start etxtbsy-trace with sudo";
        let is_nosuid = |own: &PathBuf| {
            statvfs(own).is_ok_and(|filesystem| filesystem.flags().contains(FsFlags::ST_NOSUID))
        };
        // On a mount with nosuid, the kernel ignores file capabilities.
        match std::env::current_exe() {
            Ok(own) if !is_nosuid(&own) => {
                // Without CAP_BPF only the version says it.
                let by_version =
                    |_| KernelVersion::current().is_ok_and(|it| it < FIRST_WITHOUT_MEMLOCK);
                let counts = memlock::counts().unwrap_or_else(by_version);
                let sufficient = if counts { SUFFICIENT_WITH_MEMLOCK } else { SUFFICIENT };
                format!(
                    "{sudo}, or give the program its capabilities: sudo setcap {sufficient}=ep {}",
                    shown(own.as_os_str())
                )
            }
            _ => sudo.to_owned(),
        }
    }
}

/// Whether this process cannot become another user.
fn is_one_user() -> bool {
    let held = capabilities(None).map_or_else(|_| CapabilitySet::empty(), |held| held.effective);
    !geteuid().is_root() && !held.contains(CapabilitySet::SETUID)
}

/// The finding without CAP_SETUID or CAP_SETGID.
fn without_identity_change(name: &'static str) -> Finding {
    if is_one_user() {
        return Finding::ok(format!(
            "{}; not needed, because there is no other user to become",
            not_held()
        ));
    }
    let instead = "under sudo, and with --user, the tracer cannot start a command or write a file";
    Finding::degraded(not_held(), instead).with_remedy(grant(name))
}

/// The finding without CAP_SYS_RESOURCE.
fn without_sys_resource(name: &'static str) -> Finding {
    match memlock::counts() {
        Ok(false) => Finding::ok(format!("{}; not needed on this kernel", not_held())),
        Ok(true) => {
            let instead = "the maps must fit into the current limit (ulimit -l)";
            Finding::degraded(not_held(), instead).with_remedy(grant(name))
        }
        Err(_) => Finding::unknown(format!(
            "{}; without CAP_BPF the tracer cannot find out whether it is needed",
            not_held()
        )),
    }
}

/// Whether bpf(2) works: seccomp and security modules can forbid it.
fn bpf(machine: &Machine) -> Finding {
    let error = match is_map_supported(MapType::Array) {
        Ok(true) => return Finding::ok("can create a map"),
        Ok(false) => return Finding::missing("cannot create a map", CONFIG),
        Err(error) => error.io_error,
    };
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Finding::missing("not in this kernel", CONFIG),
        Some(libc::EPERM) if machine.nothing_missing.get() => Finding::missing(
            "refused although the user has the rights: by seccomp or a security module",
            "allow it (docker run --security-opt seccomp=unconfined, or --privileged)",
        ),
        _ => Finding::unknown(format!("cannot create a map: {error}")),
    }
}

/// Whether perf_event_open(2) works: seccomp and a sysctl can forbid it.
fn perf(machine: &Machine) -> Finding {
    let error = match perf_event::probe() {
        Ok(()) => return Finding::ok("can open an event"),
        Err(error) => error,
    };
    let paranoid = perf_event::paranoid();
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            Finding::missing("not in this kernel", "boot a kernel built with CONFIG_PERF_EVENTS=y")
        }
        Some(libc::EACCES | libc::EPERM) if paranoid.is_some_and(|level| level > UPSTREAM_MOST) => {
            let level = paranoid.unwrap_or_default();
            Finding::missing(
                format!(
                    "refused: kernel.perf_event_paranoid is {level}, and above {UPSTREAM_MOST} this kernel \
                     requires CAP_SYS_ADMIN"
                ),
                format!(
                    "sudo sysctl kernel.perf_event_paranoid={UPSTREAM_MOST}, or start etxtbsy-trace with sudo"
                ),
            )
        }
        Some(libc::EACCES | libc::EPERM) if machine.nothing_missing.get() => Finding::missing(
            "refused although the user has the rights: by seccomp or a security module",
            "allow it (docker run --security-opt seccomp=unconfined, or --privileged)",
        ),
        _ => Finding::unknown(format!("cannot open an event: {error}")),
    }
}

/// The highest `kernel.perf_event_paranoid` of kernels without a distribution's patch.
const UPSTREAM_MOST: i32 = 2;

const CONFIG: &str = "boot a kernel built with CONFIG_BPF_SYSCALL=y";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::privileges::Kept;
    use saphyr::{LoadableYamlNode as _, Yaml};

    #[test]
    fn limitations_page_has_the_sufficient_capabilities() {
        let page = include_str!("../../../docs/limitations.md");
        assert!(page.contains(&format!("sudo setcap {SUFFICIENT}=ep")), "{SUFFICIENT}");
        for name in SUFFICIENT.split(',') {
            let name = name.to_uppercase();
            assert!(privileges::ALL.iter().any(|capability| capability.name == name), "{name}");
        }
    }

    #[test]
    fn containers_get_the_sufficient_capabilities() {
        let wanted: Vec<String> = SUFFICIENT
            .split(',')
            .map(|name| name.trim_start_matches("cap_").to_uppercase())
            .collect();
        let page = include_str!("../../../docs/container.md");
        let options: Vec<&str> =
            page.split_whitespace().filter_map(|word| word.strip_prefix("--cap-add=")).collect();
        assert_eq!(options.join(","), wanted.join(","));

        let manifest = include_str!("../../../packaging/daemonset.yaml");
        let documents = Yaml::load_from_str(manifest).unwrap();
        let [manifest] = &documents[..] else { panic!("{} documents", documents.len()) };
        assert_eq!(manifest["apiVersion"].as_str(), Some("apps/v1"));
        assert_eq!(manifest["kind"].as_str(), Some("DaemonSet"));
        let template = &manifest["spec"]["template"];
        assert_eq!(manifest["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
        let pod = &template["spec"];
        assert_eq!(pod["hostPID"].as_bool(), Some(true));
        let [container] = &pod["containers"].as_sequence().unwrap()[..] else { panic!("{pod:?}") };
        let version = concat!(":", env!("CARGO_PKG_VERSION"));
        assert!(container["image"].as_str().unwrap().ends_with(version), "{container:?}");
        let context = &container["securityContext"];
        let list = |name: &str| {
            let names = context["capabilities"][name].as_sequence().unwrap().iter();
            names.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((list("drop"), list("add")), (vec!["ALL".to_owned()], wanted));
        assert_eq!(context["seccompProfile"]["type"].as_str(), Some("Unconfined"));
        let mount = &container["volumeMounts"][0];
        assert_eq!(mount["mountPath"].as_str(), Some("/sys/kernel/tracing"));
        assert_eq!(pod["volumes"][0]["name"], mount["name"]);
        assert_eq!(pod["volumes"][0]["hostPath"]["path"].as_str(), Some("/sys/kernel/tracing"));
    }

    #[test]
    fn limitations_page_says_which_capabilities_are_kept() {
        let page = include_str!("../../../docs/limitations.md");
        let words = |kept| match kept {
            Kept::No => "no",
            Kept::Always => "always",
            Kept::Aside => "x86_64: permitted, not effective, until the first 32-bit program runs",
            Kept::ToReadMaps => {
                "the same; effective on kernels that require it to read maps (before 5.19)"
            }
            Kept::WithCommand => "with a command",
            Kept::ForFilesUnderSudo => "in the view, and to rotate or reopen -o, under sudo",
            Kept::ForFilesElse => "in the view, and to rotate or reopen -o, not under sudo",
        };
        for Needed { capability: Capability { name, kept, .. }, purpose, .. } in NEEDED {
            let row = format!("| {name} | {} |\n", words(kept));
            assert!(page.contains(&row), "not in docs/limitations.md, for {purpose}:\n{row}");
        }
    }

    #[test]
    fn every_capability_is_probed() {
        let needed: Vec<_> = NEEDED.iter().map(|needed| needed.capability.name).collect();
        assert_eq!(needed, privileges::ALL.map(|capability| capability.name));
    }
}
