//! A pid that is used again names two processes.

use crate::scenes::assert_told;
use crate::support::{Attached, Turn};
use etxtbsy_trace::event::Ancestor;
use etxtbsy_workload::Scene;
use nix::sys::signal::Signal;

/// The tracer does not run until the holder has ended and its pid is another's: nothing of that
/// one is told of the holder.
#[test]
fn a_holder_whose_pid_is_used_again() {
    let Some(_turn) = Turn::take_as_root() else { return };
    let mut attached = Attached::start(&["reused-pid"]);
    attached.tracer.stop();
    attached.workload.say_go();
    let scene: Scene = serde_json::from_str(&attached.workload.line()).unwrap();
    attached.tracer.signal(Signal::SIGCONT);
    // All have let go, so it is told at once, while the others with these pids live.
    attached.await_line();
    let trace = attached.end();

    assert_told(&scene, &trace);
    let [holder] = &trace.incidents[0].holders[..] else { unreachable!("it was told") };
    // What is not known is `null`.
    assert!(holder.comm.as_deref().is_none_or(|comm| comm == "cat"), "{holder:#?}");
    assert!(holder.exe.as_deref().is_none_or(|exe| exe.ends_with("/cat")), "{holder:#?}");
    assert!(holder.argv.as_ref().is_none_or(|argv| *argv == ["/bin/cat"]), "{holder:#?}");
    let is_other = |ancestor: &Ancestor| ancestor.comm.as_deref() == Some("sh");
    assert!(!holder.ancestors.iter().take(1).any(is_other), "{holder:#?}");
}
