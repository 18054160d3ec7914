//! An estimate of the memory that lines take.

use crate::{Context, Frame, Holder, Incident, Line, NearMiss, Opened, Victim};
use std::mem::size_of;

/// The approximate bytes of a line. Only long texts and lists count.
#[must_use]
pub fn line(line: &Line) -> usize {
    match line {
        Line::Incident(incident) => self::incident(incident),
        Line::NearMiss(near) => {
            let texts = [&near.path, &near.file.path];
            size_of::<NearMiss>()
                + texts.iter().map(|it| text(it.as_ref())).sum::<usize>()
                + victim(&near.victim)
                + near.holders.iter().map(holder).sum::<usize>()
        }
        Line::Meta(meta) => {
            let command = meta.filter.command.as_ref();
            size_of::<Line>() + list(Some(&meta.argv)) + list(command)
        }
        Line::Refusal(_) | Line::Lost(_) | Line::Summary(_) => 2 * size_of::<Line>(),
    }
}

/// The approximate bytes of an incident.
#[must_use]
pub fn incident(incident: &Incident) -> usize {
    let texts = [&incident.path, &incident.file.path];
    let unheld = incident.unheld.iter().map(|one| {
        200 + text(one.mount.as_ref()) + text(one.device.as_ref()) + opened(one.opened.as_ref())
    });
    size_of::<Incident>()
        + texts.iter().map(|it| text(it.as_ref())).sum::<usize>()
        + victim(&incident.victim)
        + list(Some(&incident.verdict.advice))
        + incident.verdict.summary.capacity()
        + incident.holders.iter().map(holder).sum::<usize>()
        + unheld.sum::<usize>()
        + incident.suspects.len() * 100
}

fn victim(victim: &Victim) -> usize {
    let Victim { exe, cwd, cgroup, context, argv, ancestors, stack, .. } = victim;
    let above = ancestors.iter().map(|above| 100 + text(above.exe.as_ref())).sum::<usize>();
    [exe, cwd, cgroup].map(|it| text(it.as_ref())).iter().sum::<usize>()
        + list(argv.as_ref())
        + self::context(context.as_ref())
        + self::stack(stack.as_ref())
        + above
}

fn holder(holder: &Holder) -> usize {
    let Holder { comm, exe, argv, cgroup, script, fds, ancestors, released, .. } = holder;
    let forked = holder.forked.as_ref().and_then(|forked| forked.stack.as_ref());
    let exec = released.as_ref().and_then(|released| released.exec.as_ref());
    let texts = [comm.as_ref(), exe.as_ref(), cgroup.as_ref(), script.as_ref(), exec];
    let ancestors = ancestors.iter().map(|above| 100 + text(above.exe.as_ref())).sum::<usize>();
    size_of::<Holder>()
        + texts.map(text).iter().sum::<usize>()
        + list(argv.as_ref())
        + opened(holder.opened.as_ref())
        + stack(forked)
        + context(holder.context.as_ref())
        + fds.len() * 200
        + ancestors
}

fn opened(opened: Option<&Opened>) -> usize {
    opened.map_or(0, |opened| {
        text(opened.path.as_ref()) + context(opened.context.as_ref()) + stack(opened.stack.as_ref())
    })
}

fn stack(stack: Option<&Vec<Frame>>) -> usize {
    let frame = |frame: &Frame| {
        let texts = [&frame.function, &frame.file, &frame.module];
        size_of::<Frame>() + texts.map(|it| text(it.as_ref())).iter().sum::<usize>()
    };
    stack.into_iter().flatten().map(frame).sum()
}

fn context(context: Option<&Context>) -> usize {
    context.map_or(0, |context| context.each().filter_map(|(_, value)| value).map(str::len).sum())
}

fn text(text: Option<&String>) -> usize {
    text.map_or(0, String::capacity)
}

fn list(list: Option<&Vec<String>>) -> usize {
    list.into_iter().flatten().map(|word| size_of::<String>() + word.capacity()).sum()
}
