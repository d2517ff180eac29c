//! `cargo xtask test-kvm`: armlet on a real KVM for arm64. The peer emulates a host that has one (`virtualization=on`), with
//! Debian's kernel and an initial RAM disk of our static build, its test programs, and the guests' kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::bench::peer::Peer;
use crate::boot::{self, Linux, PROMPT};
use crate::build::{Arch, Target};
use crate::carry::Luggage;
use crate::initrd::Archive;
use crate::kernel::{Kernel, Version};
use crate::run;
use crate::session::Session;

/// The prompt of the emulated host's shell.
const HOST: &str = "host# ";
const INIT: &str = include_str!("../../guests/linux/nested");
/// Everything on a loaded machine, emulated.
const LIMIT: Duration = Duration::from_secs(1500);
/// Sectors of the guests' disk, of 1 MiB.
const DISK: u32 = 4;

/// What to test.
#[derive(Args)]
pub struct Options {
    /// Only the boots, with one kernel
    #[arg(long)]
    short: bool,
    /// Show what the emulated host writes
    #[arg(long)]
    verbose: bool,
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Only>,
}

/// A part of the tests.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Only {
    /// Saved machines that go on there, and here
    Carry,
}

/// Runs the command.
///
/// # Errors
/// Something does not work there.
pub fn main(o: &Options) -> Result<()> {
    // Where nothing is translated, nothing can come from there.
    let translates = std::env::consts::ARCH == "x86_64";
    let mut luggage = translates.then(Luggage::pack).transpose()?;
    let disks = luggage.as_ref().map(Luggage::disks).unwrap_or_default();
    let only = matches!(o.only, Some(Only::Carry));
    let mut host = Host::start(!o.short && !only, o.verbose, &disks)?;
    if let Some(luggage) = &mut luggage {
        luggage.carry(&mut host)?;
    }
    if only {
        return Ok(());
    }
    if !o.short {
        for (name, arguments) in TESTS {
            host.tests(name, arguments)?;
        }
    }
    let versions: &[Version] = if o.short { &[Version::V6_12] } else { &[Version::V6_12, Version::V6_1] };
    for version in versions {
        for smp in [1, 2] {
            host.boot(*version, smp)?;
        }
    }
    host.threads()?;
    host.refusals()
}

/// The short form, for `cargo xtask test`.
///
/// # Errors
/// As [`main`].
pub fn short() -> Result<()> {
    main(&Options { short: true, verbose: false, only: None })
}

/// Test programs of `crates/accel-kvm`, and how they are run.
const TESTS: [(&str, &str); 2] = [("exits", "--test-threads=1"), ("conformance", "--test-threads=1")];

/// An emulated host, in conversation.
pub struct Host(Session);

impl Host {
    fn start(tests: bool, echo: bool, disks: &[(&str, PathBuf)]) -> Result<Self> {
        let kernel = Kernel::fetch(Version::V6_12)?;
        run::say("building armlet for arm64");
        let target = Target::prepare(Arch::Arm64, true)?;
        run::shown(target.cargo("build").args(["--package", "armlet-cli"]))?;
        let mut programs = vec![("armlet", target.folder().join("armlet"))];
        if tests {
            for (name, _) in TESTS {
                programs.push((name, build_test(&target, name)?));
            }
        }
        let initrd = run::target().join("nested.gz");
        write_initrd(&kernel, &programs, &initrd)?;
        run::say("starting an emulated host with KVM");
        let mut c = Peer::prepare()?.nested(&kernel.image(), &initrd, disks);
        let mut host = Self(Session::start(&mut c, LIMIT, echo)?);
        host.0.wait_for(HOST).context("the emulated host has no shell")?;
        host.ask("ls /dev/kvm", 0)?;
        host.ask(&format!("dd if=/dev/urandom of=disk bs=1M count={DISK}"), 0)?;
        Ok(host)
    }

    /// The conversation.
    pub fn session(&mut self) -> &mut Session {
        &mut self.0
    }

    /// Waits until the host asks for the next line.
    ///
    /// # Errors
    /// It does not.
    pub fn prompt(&mut self) -> Result<()> {
        self.0.wait_for(HOST).map(drop)
    }

    /// Runs a line in the host's shell, checks its status and gives what it writes.
    ///
    /// # Errors
    /// No answer, or another status.
    pub fn ask(&mut self, line: &str, status: u8) -> Result<String> {
        // What is typed is echoed, and must not look like the answer.
        self.0.send_line(&format!("{line}; echo \"end\"\"=$?=\""))?;
        let answer = self.0.wait_for("end=").with_context(|| format!("no answer to `{line}`"))?;
        let got = self.0.wait_for("=")?;
        self.0.wait_for(HOST)?;
        if got == status.to_string() {
            return Ok(answer);
        }
        bail!("`{line}` ends with status {got}, not {status}:\n{}", crate::session::last_lines(&answer))
    }

    fn tests(&mut self, name: &str, arguments: &str) -> Result<()> {
        let told = self.ask(&format!("{name} {arguments}"), 0).with_context(|| format!("tests '{name}'"))?;
        let result = told.lines().find(|line| line.starts_with("test result: ok")).context("no result")?;
        println!("{name}: {}", result.trim_start_matches("test result: "));
        Ok(())
    }

    /// Debian's kernel to a shell, with a disk, and to power-off.
    fn boot(&mut self, version: Version, smp: u32) -> Result<()> {
        let sum = self.ask("md5sum <disk", 0)?;
        let sum = sum
            .lines()
            .find_map(|l| l.split_whitespace().find(|w| w.len() == 32))
            .context("no sum")?
            .to_owned();
        let folder = folder(version);
        let line = format!(
            "armlet run --accel kvm --kernel {folder}/Image --initrd {folder}/initrd --smp {smp} --drive disk \
             --append 'console=ttyAMA0 quiet shell'; echo \"end\"\"=$?=\""
        );
        self.0.send_line(&line)?;
        self.0.wait_for("armlet-init: user space").context("no user space")?;
        self.0.wait_for(PROMPT).context("no shell in the guest")?;
        let s = &mut self.0;
        boot::ask(s, "grep -c ^processor /proc/cpuinfo", &smp.to_string())?;
        boot::ask(s, "sed -n '1,/^CPU part/p' /proc/cpuinfo", "CPU implementer")?;
        boot::ask(s, "md5sum /dev/vda", &sum)?;
        boot::ask(s, "grep -c virtio /proc/interrupts", "2")?;
        // Every CPU's timer interrupts.
        let timers = "awk '/arch_timer/ { n = 0; for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i > 0; print \"cpus \" n }' /proc/interrupts";
        boot::ask(s, timers, &format!("cpus {smp}"))?;
        // Two seconds are two seconds, by the count and by the clock.
        let span = "a=$(cut -d. -f1 /proc/uptime) b=$(date +%s); sleep 2; c=$(cut -d. -f1 /proc/uptime) d=$(date +%s); \
                    [ $((c - a)) -ge 2 ] && [ $((d - b)) -ge 2 ] && [ $((c - a)) -le 10 ] && echo clock\" \"goes";
        boot::ask(s, span, "clock goes")?;
        s.send_line("poweroff -f")?;
        s.wait_for("end=")?;
        let status = s.wait_for("=")?;
        s.wait_for(HOST)?;
        if status != "0" {
            bail!("armlet ends with status {status}");
        }
        println!("Linux {version:?} with {smp} CPUs: ok");
        Ok(())
    }

    /// The vCPUs' threads are called as promised.
    fn threads(&mut self) -> Result<()> {
        let folder = folder(Version::V6_12);
        let run = format!("armlet run --accel kvm --smp 2 --kernel {folder}/Image </dev/null >log 2>&1 &");
        // The last of them is there; or the limit of the session ends it.
        let wait = "while ! grep -qs CPU.1/KVM /proc/$!/task/*/comm; do sleep 0.1; done";
        self.ask(&format!("{run} {wait}"), 0)?;
        let names = self.ask("cat /proc/$!/task/*/comm; kill $!; wait $!; true", 0)?;
        for name in ["CPU 0/KVM", "CPU 1/KVM"] {
            if !names.contains(name) {
                bail!("there is no thread '{name}', but:\n{names}");
            }
        }
        println!("names of threads: ok");
        Ok(())
    }

    /// What a host cannot do is told in one line, with its mend, and status 2.
    fn refusals(&mut self) -> Result<()> {
        let image = format!("--kernel {}/Image", folder(Version::V6_12));
        let cases = [
            ("", "--accel jit", "cannot translate"),
            ("", "--accel kvm --cpu cortex-a53", "MIDR_EL1[15:4]"),
            ("", "--accel jit --cpu host", "cannot translate"),
            ("", "--accel kvm --semihosting on", "--semihosting off"),
            ("", "--accel kvm --smp 513", "512"),
            ("mv /dev/kvm /dev/gone;", "--accel kvm", "there is no /dev/kvm"),
            ("", "--accel auto", "there is no /dev/kvm"),
        ];
        for (before, options, words) in cases {
            let told = self.ask(&format!("{before} armlet run {options} {image} </dev/null"), 2)?;
            if !told.contains(words) {
                bail!("`{options}` does not tell of {words:?}, but:\n{told}");
            }
        }
        println!("refusals: ok");
        Ok(())
    }
}

/// Where the host has a kernel and its initial RAM disk.
pub fn folder(version: Version) -> String {
    format!("/guests/{version:?}")
}

/// Builds a test program of `crates/accel-kvm`; its name has a number that only cargo knows.
fn build_test(target: &Target, name: &str) -> Result<PathBuf> {
    let mut c = target.cargo("test");
    c.args(["--no-run", "--package", "armlet-accel-kvm", "--test", name, "--message-format", "json"]);
    let told = run::quiet(&mut c)?;
    let messages = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.filter_map(|m| Some(m.get("executable")?.as_str()?.to_owned())).next_back();
    Ok(program.with_context(|| format!("cargo does not tell where test '{name}' is"))?.into())
}

fn write_initrd(kernel: &Kernel, programs: &[(&str, PathBuf)], path: &Path) -> Result<()> {
    let mut a = Archive::default();
    a.folders(&["bin", "dev", "proc", "sys", "tmp", "guests"]);
    a.file("init", INIT.as_bytes());
    a.file("bin/busybox", &fs::read(kernel.busybox())?);
    a.folders(&["lib", "lib/modules"]);
    a.modules(kernel)?;
    for (name, program) in programs {
        let stripped = run::target().join(format!("nested-{name}"));
        let mut c = Command::new("aarch64-linux-gnu-strip");
        run::quiet(c.arg("-o").arg(&stripped).arg(program))?;
        a.file(&format!("bin/{name}"), &fs::read(stripped)?);
    }
    for version in [Version::V6_12, Version::V6_1] {
        let linux = Linux::prepare(version)?;
        let folder = folder(version);
        let folder = folder.trim_start_matches('/');
        a.folders(&[folder]);
        a.file(&format!("{folder}/Image"), &fs::read(linux.image)?);
        a.file(&format!("{folder}/initrd"), &fs::read(linux.initrd)?);
    }
    a.write(path)
}
