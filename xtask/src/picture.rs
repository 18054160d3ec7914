//! Draws the README's picture of the view: a terminal with a real session.

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

/// The file of the picture.
const PICTURE: &str = "docs/view.svg";
/// The size of the terminal, in columns and rows.
const SIZE: [&str; 2] = ["140", "40"];
/// How long to wait for the demo.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the demo of the race in a terminal, opens its group, and draws the screen.
pub(crate) fn draw() -> Result<()> {
    tmux::ensure()?;
    step(&format!("{PICTURE}: a race in the view, as root"));
    // Its own directory, because the view shows the name.
    let dir = env::temp_dir().join("demo");
    fs::create_dir_all(&dir).context("cannot create a directory for the picture")?;
    let program = dir.join("etxtbsy-trace");
    fs::copy(built("etxtbsy-trace")?, &program).context("cannot copy the program")?;
    let screen = Screen { socket: dir.join("tmux").display().to_string() };
    let picture = screen.session(&program);
    let _ = screen.tmux(&["kill-server"]);
    fs::remove_dir_all(&dir).context("cannot remove the picture's directory")?;
    let ansi = picture?;
    let top = output(crate::command::command("git").args(["rev-parse", "--show-toplevel"]));
    let file = Path::new(&top.context("not in a git clone")?).join(PICTURE);
    fs::write(&file, Term::new().render_svg(&ansi)).context("cannot write the picture")
}

/// A tmux terminal of this process.
struct Screen {
    socket: String,
}

impl Screen {
    fn tmux(&self, arguments: &[&str]) -> Result<()> {
        run(root("tmux").args(["-S", &self.socket, "-f", "/dev/null"]).args(arguments))
    }

    /// The screen's contents with colour codes.
    fn text(&self) -> Result<String> {
        let mut capture = root("tmux");
        capture.args(["-S", &self.socket, "capture-pane", "-p", "-e"]);
        output(&mut capture).context("tmux shows nothing")
    }

    /// Runs the race until its end, and opens its group.
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
                bail!("the view shows no incident: {}", self.text()?);
            }
            thread::sleep(Duration::from_millis(100));
        }
        self.text()
    }
}
