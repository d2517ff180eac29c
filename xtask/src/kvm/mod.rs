//! `cargo xtask test-kvm`: armlet on a real KVM for arm64. The peer emulates a host that has one (`virtualization=on`), with
//! Debian's kernel and an initial RAM disk of our static build, its test programs, and the guests' kernels.

pub mod host;

use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::boot::{self, PROMPT};
use crate::build::Target;
use crate::carry::Luggage;
use crate::kernel::Version;
use crate::{gdb, run};

use host::PROMPT as HOST;
pub use host::{Host, Plan, folder};

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
    let only = matches!(o.only, Some(Only::Carry));
    let mut plan = Plan::default();
    plan.add_guests()?;
    let target = plan.add_armlet()?;
    if !o.short && !only {
        plan.files.push(("/guests/gdb".into(), gdb::program()?));
        plan.port = Some(free_port()?);
        for (name, _) in TESTS {
            plan.programs.push((name.into(), build_test(&target, name)?));
        }
    }
    // Where nothing is translated, nothing can come from there.
    let translates = std::env::consts::ARCH == "x86_64";
    let mut luggage = translates.then(Luggage::pack).transpose()?;
    plan.disks = luggage.as_ref().map(Luggage::disks).unwrap_or_default();
    let mut host = Host::start(&plan, o.verbose)?;
    host.ask(&format!("dd if=/dev/urandom of=disk bs=1M count={DISK}"), 0)?;
    if let Some(luggage) = &mut luggage {
        luggage.carry(&mut host)?;
        luggage.return_from_kvm(&mut host)?;
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
    if let Some(port) = plan.port {
        host.debugger(port)?;
    }
    host.refusals()?;
    if o.short { Ok(()) } else { lesser_hosts(o.verbose) }
}

/// A host with a KVM on which armlet's machine cannot be.
struct Lesser {
    kernel: Version,
    cpu: &'static str,
    gic: u32,
    /// Of what is told.
    words: &'static str,
}

const LESSER: [Lesser; 2] = [
    Lesser { kernel: Version::V6_12, cpu: "cortex-a53", gic: 2, words: "cannot serve a guest's GICv3" },
    Lesser { kernel: Version::V6_1, cpu: "neoverse-n1", gic: 3, words: "use Linux 6.4 or later" },
];

fn lesser_hosts(echo: bool) -> Result<()> {
    for Lesser { kernel, cpu, gic, words } in LESSER {
        let mut plan = Plan { kernel, cpu, gic, ..Plan::default() };
        plan.add_armlet()?;
        plan.files.push(("/guests/gdb".into(), gdb::program()?));
        let mut host = Host::start(&plan, echo)?;
        let told = host.ask("armlet run --accel kvm --kernel /guests/gdb </dev/null", 2)?;
        if !told.contains(words) {
            bail!("armlet does not tell of {words:?}, but:\n{told}");
        }
        println!("a host with {cpu}, GICv{gic}, Linux {kernel:?}: refused as it should be");
    }
    Ok(())
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

impl Host {
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
        self.session().send_line(&line)?;
        self.session().wait_for("armlet-init: user space").context("no user space")?;
        self.session().wait_for(PROMPT).context("no shell in the guest")?;
        let s = self.session();
        boot::ask(s, "grep -c ^processor /proc/cpuinfo", &smp.to_string())?;
        boot::ask(s, "sed -n '1,/^CPU part/p' /proc/cpuinfo", "CPU implementer")?;
        boot::ask(s, "md5sum /dev/vda", &sum)?;
        boot::ask(s, "grep -c virtio /proc/interrupts", "2")?;
        // Every CPU's timer interrupts.
        let timers = "awk '/arch_timer/ { n = 0; for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i > 0; print \"cpus \" n }' /proc/interrupts";
        boot::ask(s, timers, &format!("cpus {smp}"))?;
        // What its CPUs were kept from running is told to it.
        boot::ask(s, "dmesg | grep -c 'using stolen time PV'", "1")?;
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

    /// Debian's gdb, here, with a guest there.
    fn debugger(&mut self, port: u16) -> Result<()> {
        let run = format!(
            "armlet run --accel kvm --smp 2 --kernel /guests/gdb --paused --gdb 0.0.0.0:{port} </dev/null >log 2>&1 &"
        );
        let wait =
            format!("while ! netstat -ltn | grep -q :{port} && kill -0 $!; do sleep 0.1; done; kill -0 $!");
        self.ask(&format!("{run} {wait}"), 0)?;
        let told = gdb::with_kvm(&format!("127.0.0.1:{port}"));
        let log = self.ask("kill $!; wait $!; cat log; true", 0)?;
        told.with_context(|| format!("armlet has said:\n{}", crate::session::last_lines(&log)))?;
        println!("gdb: ok");
        Ok(())
    }

    /// What a host cannot do is told in one line, with its mend, and status 2.
    fn refusals(&mut self) -> Result<()> {
        let image = format!("--kernel {}/Image", folder(Version::V6_12));
        let user = "mkdir -p /etc; echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd; chmod 600 /dev/kvm";
        let told =
            self.ask(&format!("{user}; su nobody -c 'armlet run --accel kvm {image} </dev/null'"), 2)?;
        if !told.contains("no permission for /dev/kvm") {
            bail!("armlet does not tell of a missing permission, but:\n{told}");
        }
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

/// A port of this machine that nobody listens at now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
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
