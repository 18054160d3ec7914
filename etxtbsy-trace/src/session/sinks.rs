//! Where the lines go: outputs, their queues, and what to do when one fails or nobody reads it.

use std::{fmt, io, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::Notify;

use super::{Ended, signals::Signals};
use crate::{
    event::{Incident, Line, Summary},
    output::{
        Output,
        queue::{Notice, Queue},
    },
};

/// How long the end waits for outputs of which nothing more is read.
const DRAIN: Duration = Duration::from_secs(2);

/// A place for lines, and its name for errors.
pub struct Sink {
    /// Such as `stdout`, or the file's name.
    pub name: String,
    /// Where they go.
    pub output: Box<dyn Output>,
    /// Whether it never keeps its writer waiting, and so needs no thread of its own.
    is_direct: bool,
}

impl Sink {
    /// A place that may keep its writer waiting, such as a pipe or a file.
    #[must_use]
    pub fn new(name: String, output: Box<dyn Output>) -> Self {
        Self { name, output, is_direct: false }
    }

    /// A place in memory.
    pub fn direct(name: &str, output: impl Output + 'static) -> Self {
        Self { name: name.to_owned(), output: Box::new(output), is_direct: true }
    }
}

/// An output does not have all that it should: a failure to trace. The text is one line.
#[derive(Debug)]
pub struct OutputError(String);

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OutputError {}

/// An output during the session.
struct Taker {
    name: String,
    way: Way,
    can_reopen: bool,
    /// Why it failed.
    error: Option<io::Error>,
}

/// How lines get to an output.
enum Way {
    Direct(Box<dyn Output>),
    Queue(Queue),
}

impl Taker {
    fn start(sink: Sink, ended: &Arc<Notify>) -> anyhow::Result<Self> {
        let Sink { name, output, is_direct } = sink;
        let can_reopen = output.can_reopen();
        let way = if is_direct {
            Way::Direct(output)
        } else {
            let queue = Queue::start(output, Arc::clone(ended));
            Way::Queue(queue.with_context(|| format!("cannot start a thread for {name}"))?)
        };
        Ok(Self { name, way, can_reopen, error: None })
    }

    fn line(&mut self, line: &Arc<Line>) {
        match &mut self.way {
            _ if self.error.is_some() => {}
            Way::Direct(output) => self.error = output.line(line).err(),
            Way::Queue(queue) => queue.line(line),
        }
    }

    /// Whether it failed because whoever read our stdout or stderr has gone, which is no error.
    fn is_unread(&self) -> bool {
        let has_gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        ["stdout", "stderr"].contains(&self.name.as_str())
            && self.error.as_ref().is_some_and(has_gone)
    }

    /// How many of so many incidents it does not have, without a `lost` line about them.
    fn lacks(&self, incidents: u64) -> u64 {
        match &self.way {
            Way::Direct(_) => 0,
            Way::Queue(queue) => incidents.saturating_sub(queue.written().incidents),
        }
    }
}

/// All outputs of a session.
pub(super) struct Sinks {
    takers: Vec<Taker>,
    /// Notified when the thread of an output has ended.
    pub(super) ended: Arc<Notify>,
}

impl Sinks {
    /// Starts a thread for each output that can block.
    pub(super) fn start(sinks: Vec<Sink>) -> anyhow::Result<Self> {
        let ended = Arc::new(Notify::new());
        let takers = sinks.into_iter().map(|sink| Taker::start(sink, &ended));
        Ok(Self { takers: takers.collect::<anyhow::Result<_>>()?, ended })
    }

    /// Shows an incident that is not settled yet to those outputs that want it.
    pub(super) fn pending(&mut self, incident: &dyn Fn() -> Incident) {
        for taker in &mut self.takers {
            if let Way::Direct(output) = &mut taker.way {
                output.pending(incident);
            }
        }
    }

    /// The command could not be started: that nothing else failed is no news then.
    pub(super) fn command_failed(&mut self) {
        for sink in &mut self.takers {
            match &mut sink.way {
                Way::Direct(output) => output.command_failed(),
                Way::Queue(queue) => queue.command_failed(),
            }
        }
    }

    /// Gives a line to every output that still takes it.
    pub(super) fn write(&mut self, line: Line) {
        let line = Arc::new(line);
        for sink in &mut self.takers {
            sink.line(&line);
        }
    }

    /// Has the files opened again by their names. False if there are none.
    pub(super) fn reopen(&self) -> bool {
        let mut any = false;
        for sink in self.takers.iter().filter(|sink| sink.can_reopen && sink.error.is_none()) {
            if let Way::Queue(queue) = &sink.way {
                queue.reopen();
                any = true;
            }
        }
        any
    }

    /// What there is to say of outputs that have not failed.
    fn notices(&self) -> Vec<String> {
        let mut all = Vec::new();
        for sink in &self.takers {
            let Way::Queue(queue) = &sink.way else { continue };
            let name = &sink.name;
            all.extend(queue.take_notices().into_iter().map(|notice| match notice {
                Notice::Full(error) => {
                    format!("cannot write to {name}: {error}; lines wait until there is room")
                }
                Notice::HasRoom => format!("there is room again, writing to {name} continues"),
                Notice::Message(message) => message,
            }));
        }
        all
    }

    /// Notes which outputs have failed, and says so at once.
    pub(super) fn find_failed(&mut self, ending: bool) {
        for words in self.notices() {
            log::error!("{words}");
            for sink in &mut self.takers {
                if let Way::Direct(output) = &mut sink.way {
                    output.failed(&words);
                }
            }
        }
        let mut failed = Vec::new();
        for sink in &mut self.takers {
            if let Way::Queue(queue) = &sink.way
                && let Some(error) = queue.take_error()
            {
                let words = format!("cannot write to {}: {error}", sink.name);
                sink.error = Some(error);
                if !sink.is_unread() {
                    failed.push(words);
                }
            }
        }
        for words in failed {
            if !ending {
                log::error!("{words}; tracing goes on");
            }
            for sink in &mut self.takers {
                if let Way::Direct(output) = &mut sink.way {
                    output.failed(&words);
                }
            }
        }
    }

    /// Whether whoever read our stdout has gone, or all outputs have failed.
    pub(super) fn has_no_reader(&self) -> bool {
        self.takers.iter().any(Taker::is_unread)
            || self.takers.iter().all(|sink| sink.error.is_some())
    }

    /// Waits until the outputs have everything, as long as somebody reads them and no signal comes.
    pub(super) async fn drain(&mut self, signals: &mut Signals) {
        let output_ended = Arc::clone(&self.ended);
        let queues = |takers: &[Taker]| {
            let queues = takers.iter().filter_map(|sink| match &sink.way {
                Way::Queue(queue) => Some((queue.is_done(), queue.written().lines)),
                Way::Direct(_) => None,
            });
            queues.collect::<Vec<_>>()
        };
        for sink in &self.takers {
            if let Way::Queue(queue) = &sink.way {
                queue.close();
            }
        }
        loop {
            let before = queues(&self.takers);
            if before.iter().all(|(is_done, _)| *is_done) {
                break;
            }
            tokio::select! {
                () = output_ended.notified() => {}
                _ = signals.next() => break,
                () = tokio::time::sleep(DRAIN) => {
                    if queues(&self.takers) == before {
                        break;
                    }
                }
            }
        }
        self.find_failed(true);
    }

    /// What the outputs come to.
    pub(super) fn outcome(&self, summary: Summary) -> anyhow::Result<Ended> {
        let incidents = summary.incidents;
        let missing = |sink: &Taker| match sink.lacks(incidents) {
            0 => String::new(),
            count => format!("; {count} of {incidents} incidents are not there"),
        };
        let failed = self.takers.iter().filter(|sink| !sink.is_unread());
        let failed = failed.filter_map(|sink| Some((sink, sink.error.as_ref()?)));
        if let Some((sink, error)) = failed.clone().next() {
            let words = format!("cannot write to {}: {error}{}", sink.name, missing(sink));
            return Err(OutputError(words).into());
        }
        let is_stalled = |sink: &&Taker| match &sink.way {
            Way::Direct(_) => false,
            Way::Queue(queue) => !queue.is_done(),
        };
        let stalled = self.takers.iter().find(is_stalled).map(|sink| {
            let seconds = DRAIN.as_secs();
            format!("nothing was read from {} for {seconds} s{}", sink.name, missing(sink))
        });
        Ok(Ended { summary, unread: self.takers.iter().any(Taker::is_unread), stalled })
    }
}
