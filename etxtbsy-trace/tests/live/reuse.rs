//! A reused pid names two processes.

use crate::scenes::assert_reported;
use crate::support::{Attached, Turn};
use etxtbsy_trace::event::Ancestor;
use etxtbsy_workload::Scene;
use nix::sys::signal::Signal;

/// The tracer does not run until the holder has exited and its pid belongs to another process: the
/// incident has nothing of that process.
#[test]
fn a_holder_whose_pid_is_reused() {
    let Some(_turn) = Turn::take_as_root() else { return };
    let mut attached = Attached::start(&["reused-pid"]);
    attached.tracer.stop();
    attached.workload.say_go();
    let scene: Scene = serde_json::from_str(&attached.workload.line()).unwrap();
    attached.tracer.signal(Signal::SIGCONT);
    // All holders have released the file, so the incident is reported at once, while the processes that
    // reuse the pids are alive.
    attached.await_line();
    let trace = attached.end();

    assert_reported(&scene, &trace);
    let [holder] = &trace.incidents[0].holders[..] else { unreachable!("checked above") };
    // Unknown values are `null`.
    assert!(holder.comm.as_deref().is_none_or(|comm| comm == "cat"), "{holder:#?}");
    assert!(holder.exe.as_deref().is_none_or(|exe| exe.ends_with("/cat")), "{holder:#?}");
    assert!(holder.argv.as_ref().is_none_or(|argv| *argv == ["/bin/cat"]), "{holder:#?}");
    let is_other = |ancestor: &Ancestor| ancestor.comm.as_deref() == Some("sh");
    assert!(!holder.ancestors.iter().take(1).any(is_other), "{holder:#?}");
}
