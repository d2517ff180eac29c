//! `cargo xtask boot`: Debian's arm64 kernel, to a shell.

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::kernel::{Kernel, Version};
use crate::session::Session;
use crate::{initrd, run};

/// The prompt of the shell in the initrd.
pub const PROMPT: &str = "armlet# ";

/// What to boot.
#[derive(Args)]
pub struct Options {
    /// The kernel
    #[arg(long, value_enum, default_value = "6.12")]
    pub kernel: Version,
    /// Number of CPUs
    #[arg(long, default_value_t = 1)]
    pub smp: u32,
    /// Run the scripted session also when there is a terminal
    #[arg(long)]
    pub script: bool,
    /// More options for `armlet run`
    #[arg(last = true)]
    pub armlet: Vec<String>,
}

/// A kernel and its initrd, ready to be given to `armlet run`.
pub struct Linux {
    /// The kernel.
    pub image: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
}

impl Linux {
    /// Fetches what the cache folder lacks and writes the initrd.
    ///
    /// # Errors
    /// Download or unpacking failed.
    pub fn prepare(version: Version) -> Result<Self> {
        let kernel = Kernel::fetch(version)?;
        let initrd = kernel.image().with_file_name("initrd.gz");
        initrd::write(&kernel, &initrd)?;
        Ok(Self { image: kernel.image(), initrd })
    }

    /// Addresses of the kernel's symbols, as a System.map has them: what the kernel tells of itself, written down once.
    /// Debian's own comes with some hundred megabytes of debugging information. It holds as long as the kernel is not
    /// given a seed for its address.
    ///
    /// # Errors
    /// The kernel does not boot, or tells nothing.
    pub fn map(&self, armlet: &Path) -> Result<PathBuf> {
        let path = self.image.with_file_name("System.map");
        crate::cache::once(&path, |partial| {
            run::say("asking the kernel for its symbols, once");
            let mut c = self.command(armlet, 1, "quiet shell");
            let mut s = Session::start(&mut c, Duration::from_secs(300), false)?;
            s.wait_for(PROMPT)?;
            // Modules have addresses of their own each time.
            s.send_line("grep -v '\\[' /proc/kallsyms")?;
            let listing = s.wait_for(PROMPT)?;
            let lines = listing.lines().filter(|l| l.split_whitespace().count() == 3);
            let map: String = lines.map(|l| format!("{}\n", l.trim_end())).collect();
            if !map.contains(" start_kernel\n") {
                bail!("the kernel does not tell its symbols");
            }
            Ok(std::fs::write(partial, map)?)
        })?;
        Ok(path)
    }

    /// `armlet run` on this kernel, with `--smp` as given and `words` added to the kernel's command line.
    pub fn command(&self, armlet: &Path, smp: impl Display, words: &str) -> Command {
        let mut c = Command::new(armlet);
        c.arg("run").arg("--kernel").arg(&self.image).arg("--initrd").arg(&self.initrd);
        c.arg("--append").arg(format!("console=ttyAMA0 {words}"));
        c.arg("--smp").arg(smp.to_string());
        c
    }
}

/// Runs the command.
///
/// # Errors
/// Anything on the way to the shell, or a session that goes wrong.
pub fn main(o: &Options) -> Result<()> {
    let linux = Linux::prepare(o.kernel)?;
    run::say("building armlet");
    let armlet = run::build_armlet()?;
    let mut c = linux.command(&armlet, o.smp, if o.script { "quiet shell" } else { "shell" });
    c.args(&o.armlet);
    if !o.script && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        run::say("booting; type into the shell, leave it with `exit`, or press Ctrl-A x");
        return run::shown(&mut c);
    }
    let time = scripted(&mut c, o.smp, Duration::from_secs(180), true)?;
    run::say(&format!("the session went well; power-off after {:.1} s", time.as_secs_f64()));
    Ok(())
}

/// A short session in the guest's shell, its answers checked; ends with power-off and exit status 0.
///
/// # Errors
/// A wrong answer, a kernel that complains, a wrong exit status, or more time than `limit`.
pub fn scripted(c: &mut Command, smp: u32, limit: Duration, echo: bool) -> Result<Duration> {
    let start = Instant::now();
    let mut s = Session::start(c, limit, echo)?;
    s.wait_for("armlet-init: user space").context("no user space")?;
    s.wait_for(PROMPT).context("no shell prompt")?;
    ask(&mut s, "uname -a", "aarch64")?;
    ask(&mut s, "echo $((6 * 7))", "42")?;
    ask(&mut s, "grep -c ^processor /proc/cpuinfo", &smp.to_string())?;
    ask(&mut s, "sed -n '1,/^CPU part/p' /proc/cpuinfo", "CPU implementer")?;
    ask(&mut s, "awk 'BEGIN { print 22 / 7 }'", "3.14286")?;
    s.send_line("poweroff -f")?;
    let (status, transcript) = s.finish()?;
    if status.code() != Some(0) {
        bail!("armlet ended with {status}");
    }
    complaints(&transcript)?;
    Ok(start.elapsed())
}

/// Looks for the words with which a kernel tells of trouble.
///
/// # Errors
/// There are some.
pub fn complaints(transcript: &str) -> Result<()> {
    for bad in
        ["Kernel panic", "Oops", "BUG:", "WARNING:", "self-detected stall", "detected stalls", "soft lockup"]
    {
        if let Some(line) = transcript.lines().find(|l| l.contains(bad)) {
            bail!("the kernel complains: {line}");
        }
    }
    Ok(())
}

/// Types `line` at the prompt and checks that a line of the answer contains `expected`.
///
/// # Errors
/// It does not, or no answer comes.
pub fn ask(s: &mut Session, line: &str, expected: &str) -> Result<()> {
    s.send_line(line)?;
    let answer = s.wait_for(PROMPT)?;
    // The first line is the terminal's echo of the question.
    if answer.lines().skip(1).any(|l| l.contains(expected)) {
        return Ok(());
    }
    bail!("`{line}` answered {answer:?}, and not {expected:?}")
}
