//! Talks to a guest through the pipes of a running `armlet`: waits for text, sends lines, gives up in time.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A guest in conversation. Dropping it ends the process.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    chunks: Receiver<Vec<u8>>,
    seen: String,
    mark: usize,
    echo: bool,
    deadline: Instant,
}

impl Session {
    /// Starts `command`; all waiting together may take `limit`. `echo` shows the guest's output as it comes.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: &mut Command, limit: Duration, echo: bool) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("cannot run `{}`", crate::run::line(command)))?;
        let mut stdout = child.stdout.take().context("no pipe from the guest")?;
        let stdin = child.stdin.take();
        let (sender, chunks) = channel();
        // Ends at end of file, which comes at the latest when the child is killed; blocks in nothing else.
        std::thread::Builder::new().name("session reader".into()).spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        })?;
        let deadline = Instant::now() + limit;
        Ok(Self { child, stdin, chunks, seen: String::new(), mark: 0, echo, deadline })
    }

    /// Waits until `text` comes, and gives what came before it since the last wait.
    ///
    /// # Errors
    /// The time is over or the guest ended first.
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        // What has been looked through already is long where a guest writes much.
        let mut from = self.mark;
        loop {
            if let Some(at) = self.seen[from..].find(text) {
                let before = self.seen[self.mark..from + at].to_owned();
                self.mark = from + at + text.len();
                return Ok(before);
            }
            from = self.mark.max(self.seen.floor_char_boundary(self.seen.len().saturating_sub(text.len())));
            if !self.more()? {
                bail!("the guest ended before it said {text:?}; its last lines:\n{}", self.tail());
            }
        }
    }

    /// True if `text` has come since the last wait, as far as was looked ([`Session::quiet_for`]).
    pub fn has_said(&self, text: &str) -> bool {
        self.seen[self.mark..].contains(text)
    }

    /// The next wait looks at what comes from now on.
    pub fn forget(&mut self) {
        self.mark = self.seen.len();
    }

    /// Types a line.
    ///
    /// # Errors
    /// The process has closed its standard input.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).context("armlet does not read its standard input")
    }

    /// The process's number.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Lets time pass, taking what the guest writes.
    ///
    /// # Errors
    /// The guest ends meanwhile.
    pub fn quiet_for(&mut self, time: Duration) -> Result<()> {
        let saved = std::mem::replace(&mut self.deadline, Instant::now() + time);
        while self.deadline > Instant::now() {
            if let Ok(false) = self.more() {
                bail!("the guest ended; its last lines:\n{}", self.tail());
            }
        }
        self.deadline = saved + time;
        Ok(())
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// The time is over first.
    pub fn finish(mut self) -> Result<(ExitStatus, String)> {
        while self.more()? {}
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, std::mem::take(&mut self.seen)));
            }
            if Instant::now() >= self.deadline {
                bail!("the guest is silent, but armlet does not end");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the next piece of output; false at its end.
    fn more(&mut self) -> Result<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.chunks.recv_timeout(left) {
            Ok(chunk) => {
                if self.echo {
                    let mut out = std::io::stdout();
                    let _ = out.write_all(&chunk).and_then(|()| out.flush());
                }
                self.seen.push_str(&String::from_utf8_lossy(&chunk));
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the guest took too long; its last lines:\n{}", self.tail())
            }
        }
    }

    fn tail(&self) -> String {
        last_lines(&self.seen)
    }
}

/// The last lines of what a guest wrote, and no more than fits a screen, for messages.
pub fn last_lines(text: &str) -> String {
    let printable = |c: &char| *c == '\n' || (!c.is_control() && *c != char::REPLACEMENT_CHARACTER);
    let clean: Vec<char> = text.chars().filter(printable).collect();
    let clean: String = clean[clean.len().saturating_sub(2000)..].iter().collect();
    let lines: Vec<&str> = clean.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_held_and_a_silent_guest_is_given_up() {
        let mut c = Command::new("sh");
        c.args(["-c", "printf 'name? '; read n; echo hello $n; exit 3"]);
        let mut s = Session::start(&mut c, Duration::from_secs(20), false).unwrap();
        s.wait_for("name? ").unwrap();
        s.send_line("you").unwrap();
        assert_eq!(s.wait_for("\n").unwrap(), "hello you");
        assert_eq!(s.finish().unwrap().0.code(), Some(3));

        let mut c = Command::new("sh");
        c.args(["-c", "echo started; exec sleep 60"]);
        let mut s = Session::start(&mut c, Duration::from_millis(300), false).unwrap();
        let e = s.wait_for("never").unwrap_err().to_string();
        assert!(e.contains("too long") && e.contains("started"), "{e}");
    }
}
