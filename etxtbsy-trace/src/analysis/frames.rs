//! Words for the frames of a stack: `write_script (src/build.rs:42), called by main (src/main.rs:7)`.
//!
//! `show` makes a text that another process chose safe for the reader, or shortens it.

use crate::event::{Frame, own_frames};

/// The user's own frames of a stack, innermost first; none if the stack is not known.
#[must_use]
pub fn own(stack: Option<&[Frame]>) -> Vec<&Frame> {
    stack.map(own_frames).unwrap_or_default()
}

/// The user's own frames of a stack in one line; `None` if there is none.
pub fn calls(stack: Option<&[Frame]>, show: &dyn Fn(&str) -> String) -> Option<String> {
    let own: Vec<String> = own(stack).into_iter().map(|frame| brief(frame, show)).collect();
    (!own.is_empty()).then(|| own.join(", called by "))
}

/// A frame with its source line, or else with the name of its module's file.
pub fn brief(frame: &Frame, show: &dyn Fn(&str) -> String) -> String {
    match (function(frame, show), source(frame, show)) {
        (Some(function), Some(source)) => format!("{function} ({source})"),
        (None, Some(source)) => source,
        (function, None) => function.unwrap_or_else(unnamed) + &within(frame, show),
    }
}

/// A frame with its source line and the path of its module.
pub fn whole(frame: &Frame, show: &dyn Fn(&str) -> String) -> String {
    let function = function(frame, show).unwrap_or_else(unnamed);
    let source = source(frame, show).map(|source| format!(" ({source})")).unwrap_or_default();
    let module = frame.module.as_deref().map(|module| format!(" in {}", show(module)));
    format!("{function}{source}{}", module.unwrap_or_default())
}

/// The innermost of the user's own frames within a sentence: `write_script, src/build.rs:42`.
pub fn place(stack: Option<&[Frame]>, show: &dyn Fn(&str) -> String) -> Option<String> {
    let innermost = own(stack).into_iter().next()?;
    Some(match (function(innermost, show), source(innermost, show)) {
        (Some(function), Some(source)) => format!("{function}, {source}"),
        _ => brief(innermost, show),
    })
}

fn function(frame: &Frame, show: &dyn Fn(&str) -> String) -> Option<String> {
    frame.function.as_deref().map(show)
}

fn source(frame: &Frame, show: &dyn Fn(&str) -> String) -> Option<String> {
    let line = frame.line.map(|line| format!(":{line}")).unwrap_or_default();
    frame.file.as_deref().map(|file| show(file) + &line)
}

fn within(frame: &Frame, show: &dyn Fn(&str) -> String) -> String {
    let name = frame.module.as_deref().and_then(|module| module.rsplit('/').next());
    name.map(|name| format!(" in {}", show(name))).unwrap_or_default()
}

fn unnamed() -> String {
    "a function without a name".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn a_frame_has_its_line_or_else_its_module() {
        let text = |text: &str| Some(text.to_owned());
        let all = Frame {
            function: text("write_script"),
            file: text("src/build.rs"),
            line: Some(42),
            module: text("/usr/bin/demo"),
        };
        let shown = |frame: Frame| {
            let stack = [frame.clone()];
            [brief(&frame, &raw), whole(&frame, &raw), place(Some(&stack), &raw).unwrap()]
        };
        assert_eq!(
            shown(all.clone()),
            [
                "write_script (src/build.rs:42)",
                "write_script (src/build.rs:42) in /usr/bin/demo",
                "write_script, src/build.rs:42"
            ]
        );
        let no_line = Frame { line: None, ..all.clone() };
        assert_eq!(brief(&no_line, &raw), "write_script (src/build.rs)");
        let no_file = Frame { file: None, ..no_line };
        assert_eq!(
            shown(no_file),
            ["write_script in demo", "write_script in /usr/bin/demo", "write_script in demo"]
        );
        assert_eq!(brief(&Frame { function: None, ..all }, &raw), "src/build.rs:42");
        let jit = Frame { function: text("[JIT]"), ..Frame::default() };
        assert_eq!([brief(&jit, &raw), whole(&jit, &raw)], ["[JIT]", "[JIT]"]);
        assert_eq!(brief(&Frame::default(), &raw), "a function without a name");
    }

    #[test]
    fn only_own_frames_are_named() {
        let stacks = crate::output::samples::with_stacks();
        let opened = stacks.holders[0].opened.as_ref().unwrap();
        assert_eq!(
            calls(opened.stack.as_deref(), &raw).as_deref(),
            Some(
                "demo::build::write_script (src/build.rs:42), called by demo::main (src/main.rs:7)"
            )
        );
        let foreign = &opened.stack.as_ref().unwrap()[..4];
        assert_eq!((calls(Some(foreign), &raw), place(Some(foreign), &raw)), (None, None));
        assert_eq!(calls(None, &raw), None);
    }
}
