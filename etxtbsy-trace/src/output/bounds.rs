//! Bounds on what other processes control: their names, paths and arguments, and their number.
//!
//! Each text of a process is cut off at [`TEXT_BYTES`] where it is read. [`apply`] keeps the line of an
//! incident within [`INCIDENT_BYTES`].

use crate::event::{Context, Frame, Holder, Incident, LeftOut, Opened, bytes::text, own_frames};
use crate::{event::weight, output::json};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The most bytes of a process's arguments, or of a path.
pub const TEXT_BYTES: usize = 4096;
/// The most bytes of an incident's line.
pub const INCIDENT_BYTES: usize = 1 << 20;
/// The most bytes of a text in an incident that would be longer.
const SHORT_BYTES: usize = 256;
/// The same for a sentence of the verdict, which has several names.
const SENTENCE_BYTES: usize = 2048;
/// The most fds of a holder, suspects and entries of `unheld` in such an incident.
const MOST: usize = 64;
/// The most bytes of a text of a frame in such an incident.
const FRAME_BYTES: usize = 128;
/// The most frames of a stack in such an incident; and of stacks besides those of the victim and the first holder,
/// from many to few.
const FRAMES: usize = 16;
const OTHER_FRAMES: [usize; 3] = [FRAMES, OWN_FRAMES, 0];
/// The most frames that are the user's own code.
const OWN_FRAMES: usize = 3;
/// The bytes that a control character (`\u0001`), or a byte that is not UTF-8, takes in JSON.
const ESCAPED: usize = 6;

/// Replaces the rest of a text that is cut off.
const ELLIPSIS: &str = "…";

/// Shortens an incident whose line would be too long, and records what is left out.
pub fn apply(incident: &mut Incident) {
    apply_within(incident, INCIDENT_BYTES);
}

/// The same for a line of at most that many bytes.
pub fn apply_within(incident: &mut Incident, most: usize) {
    // The estimate is cheap, and is enough for most incidents.
    if weight::incident(incident) * ESCAPED <= most || json::length(incident) <= most {
        return;
    }
    shorten(incident);
    let mut left_out = LeftOut::default();
    for holder in &mut incident.holders {
        left_out.fds += cut(&mut holder.fds, MOST);
    }
    left_out.suspects = cut(&mut incident.suspects, MOST);
    left_out.unheld = cut(&mut incident.unheld, MOST);
    // The longest numbers, because the real ones are not known yet.
    incident.left_out = Some(LeftOut {
        holders: u64::MAX,
        fds: u64::MAX,
        suspects: u64::MAX,
        unheld: u64::MAX,
        frames: u64::MAX,
    });
    let Incident { victim, holders, .. } = &mut *incident;
    let first = holders.iter_mut().take(1).flat_map(stacks_of).chain(&mut victim.stack);
    left_out.frames += first.map(|stack| cut_stack(stack, FRAMES)).sum::<u64>();
    for frames in OTHER_FRAMES {
        let Incident { holders, unheld, .. } = &mut *incident;
        let others = holders.iter_mut().skip(1).flat_map(stacks_of);
        let unheld = unheld.iter_mut().filter_map(|one| one.opened.as_mut()?.stack.as_mut());
        left_out.frames += others.chain(unheld).map(|stack| cut_stack(stack, frames)).sum::<u64>();
        // A holder says more than the frames of another.
        if json::length(incident) <= most {
            break;
        }
    }
    let holders = std::mem::take(&mut incident.holders);
    let count = holders.len();
    let mut length = json::length(incident);
    for holder in holders {
        length += json::length(&holder) + 1;
        // A single holder always fits.
        if length > most && !incident.holders.is_empty() {
            break;
        }
        incident.holders.push(holder);
    }
    left_out.holders = (count - incident.holders.len()) as u64;
    incident.left_out = (left_out != LeftOut::default()).then_some(left_out);
}

/// Truncates a list, and returns how many entries that removed.
fn cut<T>(list: &mut Vec<T>, most: usize) -> u64 {
    let more = list.len().saturating_sub(most);
    list.truncate(most);
    more as u64
}

/// Leaves only the frames that reports show.
pub fn keep_own_frames(incident: &mut Incident) {
    let Incident { victim, holders, unheld, .. } = incident;
    let unheld = unheld.iter_mut().filter_map(|one| one.opened.as_mut()?.stack.as_mut());
    for stack in holders.iter_mut().flat_map(stacks_of).chain(&mut victim.stack).chain(unheld) {
        cut_stack(stack, OWN_FRAMES);
    }
}

/// The stacks of the opener and the forker.
fn stacks_of(holder: &mut Holder) -> impl Iterator<Item = &mut Vec<Frame>> {
    let opened = holder.opened.iter_mut().flat_map(|opened| &mut opened.stack);
    opened.chain(holder.forked.iter_mut().flat_map(|forked| &mut forked.stack))
}

/// Truncates a stack, and returns how many frames that removed. The user's own frames stay longest, then the
/// innermost.
fn cut_stack(stack: &mut Vec<Frame>, most: usize) -> u64 {
    let more = stack.len().saturating_sub(most);
    if more == 0 {
        return 0;
    }
    let place = |own: &Frame| stack.iter().position(|frame| std::ptr::eq(frame, own));
    let own: Vec<usize> = own_frames(stack).into_iter().filter_map(place).collect();
    let others = (0..stack.len()).filter(|at| !own.contains(at));
    let kept: Vec<usize> = own.iter().copied().chain(others).take(most).collect();
    let mut at = 0..;
    stack.retain(|_| at.next().is_some_and(|at| kept.contains(&at)));
    more as u64
}

/// Which end of a text is kept.
#[derive(Clone, Copy)]
enum Keeps {
    Begin,
    /// The end of a path says more than its beginning.
    End,
}

/// Shortens all texts of an incident.
fn shorten(incident: &mut Incident) {
    let path = |text: &mut Option<String>, exact: &mut Option<String>| {
        shorten_text(text, exact, SHORT_BYTES, Keeps::End);
    };
    let opened = |opened: &mut Option<Opened>| {
        if let Some(Opened { path: name, path_b64, context, stack, .. }) = opened {
            path(name, path_b64);
            shorten_context(context);
            shorten_frames(stack);
        }
    };
    let Incident { file, victim, holders, unheld, verdict, .. } = incident;
    path(&mut incident.path, &mut incident.path_b64);
    path(&mut file.path, &mut file.path_b64);
    path(&mut victim.exe, &mut victim.exe_b64);
    path(&mut victim.cwd, &mut victim.cwd_b64);
    path(&mut victim.cgroup, &mut None);
    shorten_context(&mut victim.context);
    shorten_frames(&mut victim.stack);
    shorten_arguments(&mut victim.argv, &mut victim.argv_b64);
    for above in &mut victim.ancestors {
        path(&mut above.exe, &mut above.exe_b64);
    }
    for holder in holders {
        path(&mut holder.exe, &mut holder.exe_b64);
        path(&mut holder.script, &mut holder.script_b64);
        path(&mut holder.cgroup, &mut None);
        shorten_context(&mut holder.context);
        shorten_arguments(&mut holder.argv, &mut holder.argv_b64);
        opened(&mut holder.opened);
        if let Some(forked) = &mut holder.forked {
            shorten_frames(&mut forked.stack);
        }
        for above in &mut holder.ancestors {
            path(&mut above.exe, &mut above.exe_b64);
        }
        if let Some(released) = &mut holder.released {
            path(&mut released.exec, &mut released.exec_b64);
        }
    }
    for one in unheld {
        path(&mut one.device, &mut None);
        path(&mut one.mount, &mut one.mount_b64);
        opened(&mut one.opened);
    }
    for sentence in verdict.advice.iter_mut().chain([&mut verdict.summary]) {
        if sentence.len() > SENTENCE_BYTES {
            sentence.truncate(begin(sentence.as_bytes(), SENTENCE_BYTES));
            sentence.push_str(ELLIPSIS);
        }
    }
}

fn shorten_context(context: &mut Option<Context>) {
    if let Some(Context { test, job, container, pod }) = context {
        for text in [test, job, container, pod] {
            shorten_text(text, &mut None, SHORT_BYTES, Keeps::End);
        }
    }
}

fn shorten_frames(stack: &mut Option<Vec<Frame>>) {
    for Frame { function, file, module, line: _ } in stack.iter_mut().flatten() {
        for text in [function, file, module] {
            shorten_text(text, &mut None, FRAME_BYTES, Keeps::End);
        }
    }
}

/// Shortens a text, and its exact bytes if there are any.
fn shorten_text(shown: &mut Option<String>, exact: &mut Option<String>, most: usize, keeps: Keeps) {
    let bytes = match (exact.as_ref().map(|exact| STANDARD.decode(exact)), &shown) {
        (Some(Ok(bytes)), _) => bytes,
        (_, Some(text)) => text.clone().into_bytes(),
        (_, None) => return,
    };
    if bytes.len() <= most {
        return;
    }
    let (lossy, bytes) = text(&match keeps {
        Keeps::Begin => [&bytes[..begin(&bytes, most)], ELLIPSIS.as_bytes()].concat(),
        Keeps::End => [ELLIPSIS.as_bytes(), &bytes[end(&bytes, most)..]].concat(),
    });
    (*shown, *exact) = (Some(lossy), bytes);
}

/// Where to cut so that the first `most` bytes remain, without cutting a character.
fn begin(bytes: &[u8], most: usize) -> usize {
    (most.saturating_sub(3)..=most).rev().find(|at| !is_within(bytes, *at)).unwrap_or(most)
}

/// The same for the last `most` bytes.
fn end(bytes: &[u8], most: usize) -> usize {
    let at = bytes.len() - most;
    (at..=at + 3).find(|at| !is_within(bytes, *at)).unwrap_or(at)
}

/// Whether that byte is in the middle of a character.
fn is_within(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80)
}

fn shorten_arguments(argv: &mut Option<Vec<String>>, exact: &mut Option<Vec<Option<String>>>) {
    let Some(argv) = argv else { return };
    let mut left = SHORT_BYTES;
    let mut kept = 0;
    for (at, word) in argv.iter_mut().enumerate() {
        // An empty argument takes one byte.
        let Some(rest) = left.checked_sub(1) else { break };
        let mut none = None;
        let bytes = exact.as_mut().and_then(|exact| exact.get_mut(at)).unwrap_or(&mut none);
        let length = word.len();
        let mut shown = Some(std::mem::take(word));
        shorten_text(&mut shown, bytes, rest, Keeps::Begin);
        *word = shown.unwrap_or_default();
        left = rest.saturating_sub(length);
        kept = at + 1;
    }
    if kept < argv.len() {
        argv.truncate(kept);
        argv.push(ELLIPSIS.to_owned());
        if let Some(exact) = exact {
            exact.truncate(kept);
            exact.push(None);
        }
    }
}

/// Cuts off a command line after `most` bytes.
pub fn shorten_list(list: &mut Vec<String>, most: usize) {
    let mut left = most;
    let mut whole = 0;
    while let Some(rest) = list.get(whole).and_then(|word| left.checked_sub(word.len() + 1)) {
        left = rest;
        whole += 1;
    }
    if let Some(word) = list.get_mut(whole) {
        word.truncate(begin(word.as_bytes(), left));
        word.push_str(ELLIPSIS);
        list.truncate(whole + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Fd, Forked, Line, Place, Reason, Suspect, Unheld},
        output::{Output as _, json::Json, samples},
    };

    /// An incident with that many holders and with texts of the maximum length, all of them `c`.
    fn worst(holders: usize, c: char) -> Incident {
        let name = c.to_string().repeat(TEXT_BYTES / c.len_utf8());
        let mut incident = samples::race();
        let mut above = incident.holders[0].ancestors[0].clone();
        above.exe = Some(name.clone());
        // As long as the resolver leaves them.
        let some = Some(name.chars().take(512).collect::<String>());
        let frame =
            Frame { function: some.clone(), file: some.clone(), line: Some(1), module: some };
        let stack = Some(vec![frame; 64]);
        let opened = incident.holders[0].opened.clone();
        let forked = incident.holders[0].forked.clone();
        incident.victim.stack.clone_from(&stack);
        let holder = Holder {
            exe: Some(name.clone()),
            cgroup: Some(name.clone()),
            argv: Some(vec![name.clone()]),
            opened: opened.map(|opened| Opened {
                path: Some(name.clone()),
                stack: stack.clone(),
                ..opened
            }),
            forked: forked.map(|forked| Forked { stack: stack.clone(), ..forked }),
            ancestors: vec![above; 32],
            fds: vec![Fd { fd: 5, flags: vec!["O_WRONLY".to_owned()], cloexec: None }; 1000],
            ..incident.holders[0].clone()
        };
        incident.victim.ancestors.clone_from(&holder.ancestors);
        incident.path = Some(name.clone());
        incident.victim.cwd = Some(name.clone());
        incident.holders = vec![holder.clone(); holders];
        incident.verdict.advice = vec![name.clone(); 10];
        let suspect = Suspect { pid: 1, comm: None, comm_b64: None, reason: Reason::SeenAfter };
        incident.suspects = vec![suspect; 100_000];
        let unheld = Unheld {
            place: Place::Unknown,
            device: None,
            mount: Some(name),
            mount_b64: None,
            opened: holder.opened,
        };
        incident.unheld = vec![unheld; 100];
        incident
    }

    fn written(incident: &Incident) -> usize {
        let mut out = Vec::new();
        Json::new(&mut out).line(&Line::from(incident.clone())).unwrap();
        out.len()
    }

    #[test]
    fn an_incident_that_is_too_long_is_shortened_and_records_what_is_left_out() {
        for c in ['\u{1}', 'x', '\u{202e}', '家', '\u{10ffff}'] {
            let mut incident = worst(500, c);
            assert!(written(&incident) > 10 * INCIDENT_BYTES);
            apply(&mut incident);
            assert!(written(&incident) <= INCIDENT_BYTES + 100, "{c:?}: {}", written(&incident));
            let left_out = incident.left_out.unwrap();
            let holders = incident.holders.len() as u64;
            assert!(holders > 4, "{c:?}: {holders}");
            assert_eq!(left_out.holders, 500 - holders);
            assert_eq!(left_out.fds, 500 * (1000 - MOST as u64));
            assert_eq!((left_out.suspects, left_out.unheld), (100_000 - 64, 100 - 64));
            let stacks = 1 + 2 * 500 + MOST as u64;
            assert_eq!(left_out.frames, stacks * 64 - 3 * FRAMES as u64);
            let holder = &incident.holders[0];
            assert!(holder.exe.as_ref().unwrap().starts_with(ELLIPSIS));
            assert!(holder.argv.as_ref().unwrap()[0].ends_with(ELLIPSIS));
        }
    }

    #[test]
    fn a_long_function_is_cut_and_frames_are_left_out_before_holders() {
        let mut incident = samples::with_stacks();
        let whole = incident.clone();
        let opened = incident.holders[0].opened.as_mut().unwrap();
        opened.stack.as_mut().unwrap()[4].function = Some("x".repeat(1_000_000));
        opened.path = Some("\n".repeat(TEXT_BYTES));
        incident.verdict.summary = "x".repeat(100_000);
        apply(&mut incident);
        let stack = incident.holders[0].opened.as_ref().unwrap().stack.as_ref().unwrap();
        assert_eq!((stack.len(), stack[4].function.as_ref().unwrap().len()), (8, 131));
        assert_eq!(incident.left_out, None);

        let mut incident = whole;
        incident.holders = vec![incident.holders[0].clone(); 500];
        let own = incident.holders[0].clone();
        apply(&mut incident);
        assert_eq!(incident.holders.len(), 500);
        assert_eq!(incident.holders[0], own);
        let stack = incident.holders[499].opened.as_ref().unwrap().stack.as_ref().unwrap();
        let functions: Vec<_> = stack.iter().filter_map(|it| it.function.as_deref()).collect();
        assert_eq!(functions, ["open64", "demo::build::write_script", "demo::main"]);
        assert_eq!(incident.left_out.unwrap().frames, 499 * (5 + 1));
    }

    #[test]
    fn a_short_incident_is_not_changed() {
        let mut incident = samples::race();
        incident.holders = vec![incident.holders[0].clone(); 200];
        let whole = incident.clone();
        apply(&mut incident);
        assert_eq!(incident, whole);
    }

    #[test]
    fn texts_are_cut_between_characters_and_keep_their_bytes() {
        let cut = |bytes: &[u8], keeps| {
            let (shown, mut exact) = text(bytes);
            let mut shown = Some(shown);
            shorten_text(&mut shown, &mut exact, 4, keeps);
            (shown.unwrap(), exact.map(|exact| STANDARD.decode(exact).unwrap()))
        };
        assert_eq!(cut("家家".as_bytes(), Keeps::Begin), ("家…".to_owned(), None));
        assert_eq!(cut("家家".as_bytes(), Keeps::End), ("…家".to_owned(), None));
        assert_eq!(cut(b"abcd", Keeps::End), ("abcd".to_owned(), None));
        let exact = [b"ab\xffc".as_slice(), "…".as_bytes()].concat();
        assert_eq!(cut(b"ab\xffcd", Keeps::Begin), ("ab\u{fffd}c…".to_owned(), Some(exact)));
        let exact = ["…".as_bytes(), b"\xffabc"].concat();
        assert_eq!(cut(b"xx\xffabc", Keeps::End), ("…\u{fffd}abc".to_owned(), Some(exact)));
    }

    #[test]
    fn command_lines_are_cut_off() {
        let cut = |words: &[&str], most| {
            let mut list: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            shorten_list(&mut list, most);
            list.join(" ")
        };
        assert_eq!(cut(&["sh", "-c", "exit"], 11), "sh -c exit");
        assert_eq!(cut(&["sh", "-c", "exit"], 10), "sh -c exit…");
        assert_eq!(cut(&["sh", "-c", "exit", "x"], 8), "sh -c ex…");
        assert_eq!(cut(&["sh", "家"], 4), "sh …");
    }
}
