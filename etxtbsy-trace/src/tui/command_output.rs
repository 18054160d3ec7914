//! What the traced command writes while the view uses the terminal: it is shown on a page, kept in an
//! unnamed file, and written to the terminal after the view has closed.

use crate::tui::{feed::Feed, model::live::SessionEvent};
use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::File,
    io::{self, IsTerminal as _, PipeReader, PipeWriter, Read as _, Seek as _, Write as _, pipe},
    os::fd::{AsFd as _, BorrowedFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// The size of the read buffer.
const BYTES: usize = 16 << 10;

/// The streams that the command gets instead of the terminal.
pub struct Streams {
    input: File,
    output: PipeWriter,
    reader: PipeReader,
}

impl Streams {
    /// A pipe for stdout and stderr, and /dev/null for stdin.
    pub fn new() -> Result<Self> {
        let (reader, output) = pipe().context("cannot create a pipe")?;
        let input = File::open("/dev/null").context("cannot open /dev/null")?;
        Ok(Self { input, output, reader })
    }

    /// The replacements of those of our streams that are the terminal.
    #[must_use]
    pub fn replace(&self) -> Vec<(BorrowedFd<'_>, RawFd)> {
        let (input, output) = (self.input.as_fd(), self.output.as_fd());
        [
            (io::stdin().is_terminal(), (input, libc::STDIN_FILENO)),
            (io::stdout().is_terminal(), (output, libc::STDOUT_FILENO)),
            (io::stderr().is_terminal(), (output, libc::STDERR_FILENO)),
        ]
        .into_iter()
        .filter_map(|(is_terminal, stream)| is_terminal.then_some(stream))
        .collect()
    }

    /// Starts reading. The command must exist already.
    pub fn read(self, feed: Feed) -> Result<CommandOutput> {
        let Self { reader, .. } = self;
        let kept = tempfile::tempfile().context("cannot create a file for the command's output")?;
        let place = Arc::new(Mutex::new(Place::View { feed, kept }));
        let (ended, end_sender) = pipe().context("cannot create a pipe")?;
        let shared = Arc::clone(&place);
        let thread = thread::spawn(move || follow(reader, &ended, &shared));
        Ok(CommandOutput { place, end_sender, thread })
    }
}

/// Where the output goes.
enum Place {
    View { feed: Feed, kept: File },
    Terminal,
}

/// The thread that reads what the command writes.
pub struct CommandOutput {
    place: Arc<Mutex<Place>>,
    end_sender: PipeWriter,
    thread: JoinHandle<()>,
}

impl CommandOutput {
    /// Writes the kept output to stdout, and from now on all further output.
    pub fn to_terminal(&self) -> Result<()> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Place::View { kept, .. } = &mut *place {
            kept.rewind()?;
            io::copy(kept, &mut io::stdout()).context("cannot write to stdout")?;
            *place = Place::Terminal;
        }
        Ok(())
    }

    /// Reads what was written until now, and stops. Processes that the command left behind may still
    /// write; nothing reads that.
    pub fn end(self) {
        drop(self.end_sender);
        let _ = self.thread.join();
    }
}

/// Reads until the end of file or, once `ended` is closed, until the pipe is empty.
fn follow(mut reader: PipeReader, ended: &PipeReader, place: &Mutex<Place>) {
    let mut bytes = vec![0; BYTES];
    loop {
        let mut fds = [&reader, ended].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        if !fds[0].any().unwrap_or(true) {
            return;
        }
        let read = match reader.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(read) => &bytes[..read],
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *place {
            Place::View { kept, .. } => kept.write_all(read),
            Place::Terminal => io::stdout().write_all(read).and_then(|()| io::stdout().flush()),
        };
        if let Err(error) = written {
            log::warn!("cannot write the command's output: {error}");
        }
        let feed = match &*place {
            Place::View { feed, .. } => Some(feed.clone()),
            Place::Terminal => None,
        };
        drop(place);
        if let Some(feed) = feed {
            // Blocks until the view has room, as a terminal would.
            feed.session(SessionEvent::Output(read.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::feed::Message;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn output_is_shown_and_kept() {
        let (sender, receiver) = sync_channel(8);
        let streams = Streams::new().unwrap();
        let mut output = streams.output.try_clone().unwrap();
        let reading = streams.read(Feed(sender)).unwrap();
        output.write_all(b"building\n").unwrap();
        let Ok(Message::Session(SessionEvent::Output(chunk))) = receiver.recv() else {
            panic!("not shown")
        };
        assert_eq!(chunk, b"building\n");
        output.write_all(b"done\n").unwrap();
        let place = Arc::clone(&reading.place);
        // The pipe still has a writer.
        reading.end();
        let Place::View { kept, .. } = &mut *place.lock().unwrap() else { panic!("not kept") };
        kept.rewind().unwrap();
        let mut text = String::new();
        kept.read_to_string(&mut text).unwrap();
        assert_eq!(text, "building\ndone\n");
        drop(output);
    }
}
