//! Where in its code a thread was, as text.

use super::look::{Look, Tone};
use crate::{analysis::frames, event::Frame};

/// Longer names are shortened; in columns.
const NAME: usize = 100;

/// The user's own frames of a stack in one line after `words`; if verbose, then all frames, one a line, and how
/// many of them are not known. Nothing if there is nothing to show.
pub(super) fn lines(
    words: &str,
    stack: Option<&[Frame]>,
    unknown: Option<u32>,
    look: Look,
) -> Vec<String> {
    let show = |raw: &str| look.short(raw, NAME);
    let own = frames::calls(stack, &show);
    let mut lines: Vec<String> = own
        .into_iter()
        .map(|calls| format!("{words} {}", look.paint(Tone::Strong, &calls)))
        .collect();
    if !look.verbose {
        return lines;
    }
    let numbered = stack.unwrap_or_default().iter().enumerate().map(|(number, frame)| {
        let text = look.paint(Tone::Faint, &frames::whole(frame, &show));
        format!("{number:>3}: {text}")
    });
    let unknown = unknown.filter(|unknown| *unknown > 0).map(|unknown| {
        let frames = if unknown == 1 { "frame" } else { "frames" };
        let text = format!("{unknown} {frames} not known");
        format!("     {}", look.paint(Tone::Faint, &text))
    });
    let all: Vec<String> = numbered.chain(unknown).collect();
    if lines.is_empty() && !all.is_empty() {
        lines.push(format!("{words}:"));
    }
    lines.extend(all);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn a_stack_without_own_frames_shows_nothing_unless_verbose() {
        let incident = samples::with_stacks();
        let forked = incident.holders[0].forked.as_ref().unwrap();
        let foreign = forked.stack.as_ref().map(|frames| &frames[..1]);
        assert_eq!(lines("at", foreign, Some(2), Look::PLAIN), [""; 0]);
        let verbose = Look { verbose: true, ..Look::PLAIN };
        assert_eq!(
            lines("at", foreign, Some(2), verbose),
            ["at:", "  0: fork in /usr/lib/x86_64-linux-gnu/libc.so.6", "     2 frames not known"]
        );
        assert_eq!(lines("at", Some(&[]), Some(1), verbose), ["at:", "     1 frame not known"]);
        assert_eq!(lines("at", None, None, verbose), [""; 0]);
    }
}
