//! What the traced command writes while the view has the terminal: it is shown in a pane, kept in
//! a file without a name, and written to the terminal once the view has gone.

use crate::tui::{feed::Feed, model::live};
use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::File,
    io::{self, IsTerminal as _, PipeReader, PipeWriter, Read as _, Seek as _, Write as _, pipe},
    os::fd::{AsFd as _, BorrowedFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// So much is read at once.
const BYTES: usize = 16 << 10;

/// The command's ends of what stands for the terminal.
pub struct Streams {
    input: File,
    output: PipeWriter,
    reader: PipeReader,
}

impl Streams {
    /// A pipe to write to, and nothing to read from.
    pub fn new() -> Result<Self> {
        let (reader, output) = pipe().context("cannot make a pipe")?;
        let input = File::open("/dev/null").context("cannot open /dev/null")?;
        Ok(Self { input, output, reader })
    }

    /// What the command gets in place of those of our streams that are the terminal.
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

    /// Reads what is written from here on. The command must exist already.
    pub fn read(self, feed: Feed) -> Result<CommandOutput> {
        let Self { reader, .. } = self;
        let kept = tempfile::tempfile().context("cannot keep what the command writes")?;
        let place = Arc::new(Mutex::new(Place::View { feed, kept }));
        let (over, tell_over) = pipe().context("cannot make a pipe")?;
        let shared = Arc::clone(&place);
        let thread = thread::spawn(move || follow(reader, &over, &shared));
        Ok(CommandOutput { place, tell_over, thread })
    }
}

/// Where what is read goes.
enum Place {
    View { feed: Feed, kept: File },
    Terminal,
}

/// The reading of what the command writes.
pub struct CommandOutput {
    place: Arc<Mutex<Place>>,
    tell_over: PipeWriter,
    thread: JoinHandle<()>,
}

impl CommandOutput {
    /// Writes what was kept to stdout, and from now on everything.
    pub fn to_terminal(&self) -> Result<()> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Place::View { kept, .. } = &mut *place {
            kept.rewind()?;
            io::copy(kept, &mut io::stdout()).context("cannot write to stdout")?;
            *place = Place::Terminal;
        }
        Ok(())
    }

    /// Takes in what was written until now. Processes that the command left behind may go on
    /// writing; nobody reads that.
    pub fn end(self) {
        drop(self.tell_over);
        let _ = self.thread.join();
    }
}

/// Reads until the end of file, or until nothing is to be had once it is over.
fn follow(mut reader: PipeReader, over: &PipeReader, place: &Mutex<Place>) {
    let mut bytes = vec![0; BYTES];
    loop {
        let mut fds = [&reader, over].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
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
            log::warn!("what the command wrote is lost: {error}");
        }
        let feed = match &*place {
            Place::View { feed, .. } => Some(feed.clone()),
            Place::Terminal => None,
        };
        drop(place);
        if let Some(feed) = feed {
            // Waits for the view, as it would for a terminal.
            feed.session(live::Event::Output(read.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::feed::Message;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn what_is_written_is_shown_and_kept() {
        let (sender, receiver) = sync_channel(8);
        let streams = Streams::new().unwrap();
        let mut output = streams.output.try_clone().unwrap();
        let reading = streams.read(Feed(sender)).unwrap();
        output.write_all(b"building\n").unwrap();
        let Ok(Message::Session(live::Event::Output(chunk))) = receiver.recv() else {
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
