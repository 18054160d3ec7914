//! Which test, job and container a process belongs to: what its environment and its cgroup say.
//!
//! Of the environment only the variables in [`TESTS`] and [`JOBS`] are looked at; nothing else of it is kept. It is the one
//! that the process got from its exec (proc(5), `/proc/PID/environ`): what it set itself since then is not in it.

use std::collections::HashMap;

use super::proc_file::read_begin;
use crate::event::Context;

/// How much of an environment is read. `execve` allows 6 MiB; CI services set some tens of KiB.
const MOST_ENVIRON: usize = 256 << 10;
/// The longest value that is kept.
const MOST_VALUE: usize = 1024;
/// The length of a container's id: 32 bytes in hexadecimal.
const ID: usize = 64;

/// How a runner shows its test or job: what comes before each variable, and the variable. It counts where the first
/// variable is set; the others may be missing.
type Form = &'static [(&'static str, &'static str)];

/// Test runners: cargo-nextest (0.9.116 on), pytest, Bazel.
const TESTS: [Form; 3] = [
    &[("", "NEXTEST_TEST_NAME"), (" in ", "NEXTEST_BINARY_ID"), (", attempt ", "NEXTEST_ATTEMPT")],
    &[("", "PYTEST_CURRENT_TEST")],
    &[("", "TEST_TARGET")],
];

/// CI services: GitHub Actions (and those that follow it), GitLab, Buildkite, CircleCI, Azure Pipelines, Jenkins.
const JOBS: [Form; 6] = [
    &[
        ("", "GITHUB_JOB"),
        (" of ", "GITHUB_WORKFLOW"),
        (" in ", "GITHUB_REPOSITORY"),
        (", run ", "GITHUB_RUN_ID"),
        (", attempt ", "GITHUB_RUN_ATTEMPT"),
    ],
    &[("", "CI_JOB_NAME"), (" in ", "CI_PROJECT_PATH"), (", id ", "CI_JOB_ID")],
    &[
        ("", "BUILDKITE_JOB_ID"),
        (" of ", "BUILDKITE_PIPELINE_SLUG"),
        (", build ", "BUILDKITE_BUILD_NUMBER"),
    ],
    &[("", "CIRCLE_JOB"), (" in ", "CIRCLE_PROJECT_REPONAME"), (", build ", "CIRCLE_BUILD_NUM")],
    &[("", "SYSTEM_JOBDISPLAYNAME"), (", build ", "BUILD_BUILDID")],
    &[("", "BUILD_TAG")],
];

/// What a live process says itself, by its pid here and its cgroup.
#[must_use]
pub fn of(pid: u32, cgroup: Option<&str>) -> Context {
    let environ = read_begin(&format!("/proc/{pid}/environ"), MOST_ENVIRON).unwrap_or_default();
    let (test, job) = of_environment(&environ);
    let (container, pod) = cgroup.map(of_cgroup).unwrap_or_default();
    Context { test, job, container, pod }
}

/// The test and the job in an environment: variables that are each ended by NUL. One that was cut off at the end is not
/// used.
fn of_environment(environ: &[u8]) -> (Option<String>, Option<String>) {
    let mut variables = HashMap::new();
    let whole = environ.iter().rposition(|byte| *byte == 0).map_or(&[][..], |end| &environ[..end]);
    for variable in whole.split(|byte| *byte == 0) {
        let Some(at) = variable.iter().position(|byte| *byte == b'=') else { continue };
        let Ok(name) = str::from_utf8(&variable[..at]) else { continue };
        let known = TESTS.iter().chain(&JOBS).copied().flatten().find(|(_, known)| *known == name);
        if let Some((_, known)) = known {
            let value = &variable[at + 1..];
            let value = &value[..value.len().min(MOST_VALUE)];
            // As for getenv(3), the first of that name counts.
            let value = || String::from_utf8_lossy(value).into_owned();
            variables.entry(*known).or_insert_with(value);
        }
    }
    let find = |forms: &[Form]| forms.iter().find_map(|form| filled(form, &variables));
    // pytest adds the phase of the test.
    let test = find(&TESTS).map(|test| match test.rsplit_once(" (") {
        Some((name, "setup)" | "call)" | "teardown)")) => name.to_owned(),
        _ => test,
    });
    (test, find(&JOBS))
}

/// A form with the values; `None` if the first is missing.
fn filled(form: Form, variables: &HashMap<&str, String>) -> Option<String> {
    let value = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    value(form.first()?.1)?;
    Some(form.iter().fold(String::new(), |text, (before, name)| match value(name) {
        Some(value) => text + before + value,
        None => text,
    }))
}

/// The container and the pod in the path of a cgroup, the innermost of each: Docker, containerd, Podman, CRI-O, LXC,
/// systemd-nspawn, Kubernetes. In a cgroup namespace, the path may begin with `/..`.
#[must_use]
pub fn of_cgroup(path: &str) -> (Option<String>, Option<String>) {
    let innermost = |of: fn(&str) -> Option<String>| path.rsplit('/').find_map(of);
    (innermost(container), innermost(pod))
}

/// `docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID`, `crio-ID.scope`, or the id alone; `lxc.payload.NAME`;
/// `machine-NAME.scope`.
fn container(component: &str) -> Option<String> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some(name.to_owned());
    }
    if let Some(name) = name.strip_prefix("machine-").filter(|_| name != component) {
        return Some(name.to_owned());
    }
    let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
    // containerd's own plugin has `SLICE:cri-containerd:ID`.
    let id = id.rsplit_once(':').map_or(id, |(_, id)| id);
    let is_id = id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

/// `podUID`, or `kubepods-burstable-podUID.slice` with underscores in the uid.
fn pod(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let of_slice = || name.rsplit_once("-pod").map(|(_, uid)| uid);
    let uid = name.strip_prefix("pod").or_else(of_slice)?.replace('_', "-");
    let is_uid =
        uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[&str]) -> (Option<String>, Option<String>) {
        let bytes: Vec<u8> = variables.iter().flat_map(|one| one.bytes().chain([0])).collect();
        of_environment(&bytes)
    }

    #[test]
    fn a_test_is_named_as_its_runner_names_it() {
        for (variables, test) in [
            (
                &["NEXTEST_BINARY_ID=app::it", "NEXTEST_TEST_NAME=runs::script"][..],
                "runs::script in app::it",
            ),
            (
                &["PYTEST_CURRENT_TEST=tests/test_run.py::test_tool[a (b)] (call)"],
                "tests/test_run.py::test_tool[a (b)]",
            ),
            (&["TEST_TARGET=//tools:run_test", "TEST_TARGET=second"], "//tools:run_test"),
        ] {
            assert_eq!(environment(variables), (Some(test.to_owned()), None));
        }
        assert_eq!(environment(&["PYTEST_CURRENT_TEST=", "PATH=/bin", "x"]), (None, None));
    }

    #[test]
    fn a_job_is_named_by_what_is_there() {
        for (variables, job) in [
            (
                &[
                    "GITHUB_JOB=build",
                    "GITHUB_RUN_ID=17",
                    "GITHUB_REPOSITORY=a/b",
                    "GITHUB_WORKFLOW=CI",
                    "BUILD_TAG=no",
                ][..],
                "build of CI in a/b, run 17",
            ),
            (&["CI_JOB_NAME=test 1/2", "CI_JOB_ID=9"], "test 1/2, id 9"),
            (&["BUILD_TAG=jenkins-app-12"], "jenkins-app-12"),
        ] {
            assert_eq!(environment(variables), (None, Some(job.to_owned())));
        }
        assert_eq!(environment(&["GITHUB_REPOSITORY=a/b", "GITHUB_TOKEN=secret"]), (None, None));
    }

    #[test]
    fn hostile_environments_are_read() {
        let long = format!("TEST_TARGET={}\0", "x".repeat(MOST_VALUE + 7));
        let (test, _) = of_environment(long.as_bytes());
        assert_eq!(test.unwrap().len(), MOST_VALUE);
        assert_eq!(of_environment(b"TEST_TARGET=cut off"), (None, None));
        assert_eq!(of_environment(b""), (None, None));
        assert_eq!(
            of_environment(b"\0\0=\0\xff=\0TEST_TARGET=\xff\0").0.as_deref(),
            Some("\u{fffd}")
        );
    }

    #[test]
    fn containers_and_pods_are_found_in_cgroups() {
        let id = "0123456789abcdef".repeat(4);
        let uid = "9b3c2f54-1d2e-4f6a-8b9c-0a1b2c3d4e5f";
        let flat = uid.replace('-', "_");
        for (path, container, pod) in [
            ("/".to_owned(), None, None),
            ("/ci.slice/build-17.scope".to_owned(), None, None),
            (format!("/docker/{id}"), Some(&*id), None),
            (format!("/system.slice/docker-{id}.scope"), Some(&id), None),
            (format!("/machine.slice/libpod-{id}.scope/container"), Some(&id), None),
            (format!("/../libpod-{id}"), Some(&id), None),
            (format!("/kubepods/besteffort/pod{uid}/{id}"), Some(&id), Some(uid)),
            (
                format!("/kubepods.slice/kubepods-pod{flat}.slice/cri-containerd-{id}.scope"),
                Some(&id),
                Some(uid),
            ),
            (
                format!("/system.slice/kubepods-burstable-pod{flat}.slice:cri-containerd:{id}"),
                Some(&id),
                None,
            ),
            ("/lxc.payload.web/init.scope".to_owned(), Some("web"), None),
            ("/machine.slice/machine-web.scope".to_owned(), Some("web"), None),
        ] {
            let expected = (container.map(str::to_owned), pod.map(str::to_owned));
            assert_eq!(of_cgroup(&path), expected, "{path}");
        }
    }
}
