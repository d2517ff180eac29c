//! A host with KVM for arm64 that the peer emulates: a kernel, an initial RAM disk with programs, a shell to talk to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::peer::{Nested, Peer};
use crate::boot::Linux;
use crate::build::{Arch, Target};
use crate::initrd::Archive;
use crate::kernel::{Kernel, Version};
use crate::run;
use crate::session::{Session, last_lines};

/// The prompt of the emulated host's shell.
pub const PROMPT: &str = "host# ";
const INIT: &str = include_str!("../../../guests/linux/nested");
/// Everything on a loaded machine, emulated.
const LIMIT: Duration = Duration::from_secs(2400);

/// The folder with a guest's kernel and initial RAM disk.
pub fn folder(version: Version) -> String {
    format!("/guests/{version:?}")
}

/// What a host is to be and have.
pub struct Plan {
    /// Its kernel.
    pub kernel: Version,
    /// Its CPUs.
    pub cpu: &'static str,
    /// Version of its interrupt controller.
    pub gic: u32,
    /// Programs by name, without what helps only debuggers.
    pub programs: Vec<(String, PathBuf)>,
    /// Files by the path that they get.
    pub files: Vec<(String, PathBuf)>,
    /// Disks by their serial numbers, under which they are in `/dev` there.
    pub disks: Vec<(&'static str, PathBuf)>,
    /// A port of this machine, which leads to the same one there.
    pub port: Option<u16>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            kernel: Version::V6_12,
            cpu: "neoverse-n1",
            gic: 3,
            programs: Vec::new(),
            files: Vec::new(),
            disks: Vec::new(),
            port: None,
        }
    }
}

impl Plan {
    /// With armlet, built for it; gives what built it.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn add_armlet(&mut self) -> Result<Target> {
        run::say("building armlet for arm64");
        let target = Target::prepare(Arch::Arm64, true)?;
        run::shown(target.cargo("build").args(["--package", "armlet-cli"]))?;
        self.programs.push(("armlet".into(), target.folder().join("armlet")));
        Ok(target)
    }

    /// With kernels for guests.
    ///
    /// # Errors
    /// They cannot be fetched.
    pub fn add_guests(&mut self, versions: &[Version]) -> Result<()> {
        for version in versions {
            let linux = Linux::prepare(*version)?;
            let folder = folder(*version);
            self.files.push((format!("{folder}/Image"), linux.image));
            self.files.push((format!("{folder}/initrd"), linux.initrd));
        }
        Ok(())
    }

    fn write(&self, kernel: &Kernel, path: &Path) -> Result<()> {
        let mut a = Archive::default();
        a.folders(&["bin", "dev", "lib", "lib/modules", "proc", "sys", "tmp"]);
        a.file("init", INIT.as_bytes());
        a.file("bin/busybox", &fs::read(kernel.busybox())?);
        for (name, program) in &self.programs {
            let stripped = run::target().join(format!("nested-{name}"));
            let mut c = Command::new("aarch64-linux-gnu-strip");
            run::quiet(c.arg("-o").arg(&stripped).arg(program))?;
            a.file(&format!("bin/{name}"), &fs::read(stripped)?);
        }
        a.modules(kernel)?;
        for (to, from) in &self.files {
            let to = to.trim_start_matches('/');
            let folders = to.match_indices('/').map(|(at, _)| &to[..at]);
            a.folders(&folders.collect::<Vec<_>>());
            a.file(to, &fs::read(from).with_context(|| format!("cannot read {}", from.display()))?);
        }
        a.write(path)
    }
}

/// An emulated host, in conversation.
pub struct Host {
    session: Session,
}

impl Host {
    /// Starts it; its shell has answered.
    ///
    /// # Errors
    /// It cannot be made, or has no KVM.
    pub fn start(plan: &Plan, echo: bool) -> Result<Self> {
        let kernel = Kernel::fetch(plan.kernel)?;
        let initrd = run::target().join("nested.gz");
        plan.write(&kernel, &initrd)?;
        run::say("starting an emulated host with KVM");
        let image = kernel.image();
        let nested = Nested {
            image: &image,
            initrd: &initrd,
            cpu: plan.cpu,
            gic: plan.gic,
            disks: &plan.disks,
            port: plan.port,
        };
        let mut c = Peer::prepare()?.nested(&nested);
        let mut host = Self { session: Session::start(&mut c, LIMIT, echo)? };
        host.session.wait_for(PROMPT).context("the emulated host has no shell")?;
        host.ask("ls /dev/kvm", 0)?;
        Ok(host)
    }

    /// The conversation.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Waits until the host asks for the next line.
    ///
    /// # Errors
    /// It does not.
    pub fn prompt(&mut self) -> Result<()> {
        self.session.wait_for(PROMPT).map(drop)
    }

    /// Runs a line in the host's shell, checks its status and gives what it writes.
    ///
    /// # Errors
    /// Another status, or no answer.
    pub fn ask(&mut self, line: &str, status: u8) -> Result<String> {
        // What is typed is echoed, and must not look like the answer.
        self.session.send_line(&format!("{line}; echo \"end\"\"=$?=\""))?;
        let answer = self.session.wait_for("end=").with_context(|| format!("no answer to `{line}`"))?;
        let got = self.session.wait_for("=")?;
        self.session.wait_for(PROMPT)?;
        if got == status.to_string() {
            return Ok(answer);
        }
        bail!("`{line}` ends with status {got}, not {status}:\n{}", last_lines(&answer))
    }
}
