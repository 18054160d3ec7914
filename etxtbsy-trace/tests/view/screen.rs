//! A terminal for the tests: a tmux server of its own, with a shell.

use std::{
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long to wait for something on the screen.
const LIMIT: Duration = Duration::from_secs(20);
/// How often the screen is checked.
const LOOK: Duration = Duration::from_millis(20);
/// The prompt of the shell.
pub(crate) const PROMPT: &str = "prompt> ";

/// The terminal; its programs end with it.
pub(crate) struct Screen {
    /// The directory of the shell and of the server's socket.
    pub(crate) dir: TempDir,
}

impl Screen {
    /// A shell on a terminal of that size, in an empty directory.
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("etxtbsy-trace-").tempdir_in("/var/tmp").unwrap();
        let screen = Self { dir };
        let (width, height) = (width.to_string(), height.to_string());
        let shell = format!("env -u SUDO_UID -u SUDO_GID -u SUDO_USER PS1='{PROMPT}' sh");
        let size = ["-x", &width, "-y", &height];
        let started = screen.tmux(&[&["new-session", "-d"], &size[..], &[&shell]].concat());
        assert!(started.status.success(), "tmux: {}", String::from_utf8_lossy(&started.stderr));
        screen.await_prompt();
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux")
            .arg("-S")
            .arg(self.dir.path().join("tmux"))
            .args(["-f", "/dev/null"])
            .args(arguments)
            .current_dir(self.dir.path())
            .output()
            .expect("tmux, which cargo xtask test installs")
    }

    /// A tmux variable of the terminal, such as `alternate_on`.
    pub(crate) fn fact(&self, name: &str) -> String {
        let said = self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]);
        String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
    }

    /// Presses keys, by tmux's names for them.
    pub(crate) fn keys(&self, keys: &[&str]) {
        assert!(self.tmux(&[&["send-keys"], keys].concat()).status.success());
    }

    /// Types a text, and Enter.
    pub(crate) fn line(&self, text: &str) {
        assert!(self.tmux(&["send-keys", "-l", text]).status.success());
        self.keys(&["Enter"]);
    }

    /// What the screen shows.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// Waits until `wanted` accepts the screen, and returns it.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(began.elapsed() < LIMIT, "no {what:?} on the screen:\n{text}");
            thread::sleep(LOOK);
        }
    }

    /// Waits until the screen shows a text.
    #[track_caller]
    pub(crate) fn await_text(&self, wanted: &str) -> String {
        self.wait(wanted, |text| text.contains(wanted))
    }

    /// Waits for the prompt as the last thing on the screen.
    #[track_caller]
    pub(crate) fn await_prompt(&self) -> String {
        self.wait("prompt", |text| text.trim_end().ends_with(PROMPT.trim_end()))
    }

    /// Changes the terminal's size.
    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        assert!(self.tmux(&["resize-window", "-x", &width, "-y", &height]).status.success());
    }

    /// Also writes all further output of the terminal to a file.
    pub(crate) fn record(&self, file: &Path) {
        let command = format!("cat > {}", file.display());
        assert!(self.tmux(&["pipe-pane", &command]).status.success());
    }

    /// The settings of the terminal, which a program must restore.
    pub(crate) fn settings(&self) -> String {
        let file = self.dir.path().join("settings");
        self.line(&format!("stty -g > {0} && echo settings > {0}.done", file.display()));
        let done = self.dir.path().join("settings.done");
        let began = Instant::now();
        while !done.exists() {
            assert!(began.elapsed() < LIMIT, "no stty: {}", self.text());
            thread::sleep(LOOK);
        }
        std::fs::remove_file(done).unwrap();
        let facts = ["alternate_on", "cursor_flag", "keypad_flag", "mouse_any_flag"];
        let facts = facts.map(|name| self.fact(name)).join(" ");
        std::fs::read_to_string(file).unwrap() + &facts
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
