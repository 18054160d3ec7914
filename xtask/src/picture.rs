//! The picture of the view in the README: what a terminal shows of a real session.

use std::{
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anstyle_svg::Term;
use anyhow::{Context as _, Result, bail};

use crate::{
    command::{built, output, root, run, step},
    tmux,
};

/// Where the picture goes.
const PICTURE: &str = "docs/view.svg";
/// The size of the terminal, in columns and rows.
const SIZE: [&str; 2] = ["140", "40"];
/// After which the demo has shown nothing.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a demo of the race in a terminal, opens its story, and draws what is seen.
pub(crate) fn draw() -> Result<()> {
    tmux::ensure()?;
    step(&format!("{PICTURE}: a race in the view, as root"));
    // Its own directory, whose name is shown.
    let dir = env::temp_dir().join("demo");
    fs::create_dir_all(&dir).context("cannot make a directory")?;
    let program = dir.join("etxtbsy-trace");
    fs::copy(built("etxtbsy-trace")?, &program).context("cannot copy the program")?;
    let screen = Screen { socket: dir.join("tmux").display().to_string() };
    let picture = screen.session(&program);
    let _ = screen.tmux(&["kill-server"]);
    fs::remove_dir_all(&dir).context("cannot remove what the picture was made in")?;
    let ansi = picture?;
    let top = output(crate::command::command("git").args(["rev-parse", "--show-toplevel"]));
    let file = Path::new(&top.context("not in a clone")?).join(PICTURE);
    fs::write(&file, Term::new().render_svg(&ansi)).context("cannot write the picture")
}

/// A terminal of our own.
struct Screen {
    socket: String,
}

impl Screen {
    fn tmux(&self, arguments: &[&str]) -> Result<()> {
        run(root("tmux").args(["-S", &self.socket, "-f", "/dev/null"]).args(arguments))
    }

    /// What it shows, with the codes for colours.
    fn text(&self) -> Result<String> {
        let mut capture = root("tmux");
        capture.args(["-S", &self.socket, "capture-pane", "-p", "-e"]);
        output(&mut capture).context("tmux shows nothing")
    }

    /// A race, until its end, and its story opened.
    fn session(&self, program: &Path) -> Result<String> {
        let [columns, rows] = SIZE;
        let demo = format!("LANG=C.UTF-8 {} demo go22315; sleep 60", program.display());
        self.tmux(&["new-session", "-d", "-x", columns, "-y", rows, &demo])?;
        let began = Instant::now();
        while !self.text()?.contains("ended with status 0") {
            if began.elapsed() > LIMIT {
                bail!("the demo did not end: {}", self.text()?);
            }
            thread::sleep(Duration::from_millis(100));
        }
        self.tmux(&["send-keys", "Enter", "Down"])?;
        let began = Instant::now();
        while !self.text()?.contains("released after") {
            if began.elapsed() > LIMIT {
                bail!("no incident to be seen: {}", self.text()?);
            }
            thread::sleep(Duration::from_millis(100));
        }
        self.text()
    }
}
