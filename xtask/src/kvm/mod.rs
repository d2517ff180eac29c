//! `cargo xtask test-kvm`: armlet on a real KVM for arm64. The peer emulates a host that has one (`virtualization=on`), with
//! Debian's kernel and an initial RAM disk of our static build, its test programs, and the guests' kernels.

pub mod host;

use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::boot::{self, PROMPT};
use crate::build::Target;
use crate::carry::Luggage;
use crate::kernel::Version;
use crate::{gdb, guests};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Saved machines that go on there, and here
    Carry,
    /// Test programs of single exits, and of the engine's guarantees
    Programs,
    /// A host whose interrupt controller is a GICv2
    Gic2,
    /// A host with Linux 6.1
    Old,
    /// A host with scalable vectors and performance counters
    Extensions,
}

/// Runs the command.
///
/// # Errors
/// Something does not work there.
pub fn main(o: &Options) -> Result<()> {
    match o.only {
        Some(Only::Programs) => return programs(o.verbose),
        Some(Only::Gic2) => return gic2_host(o.verbose),
        Some(Only::Old) => return old_host(o.verbose),
        Some(Only::Extensions) => return extended_host(o.verbose),
        Some(Only::Carry) | None => {}
    }
    let only = o.only.is_some();
    let mut plan = Plan::default();
    plan.add_guests(&[Version::V6_12, Version::V6_1])?;
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
        host.boot_pci(*version, 2, true)?;
    }
    host.threads()?;
    if let Some(port) = plan.port {
        host.debugger(port)?;
    }
    host.refusals()?;
    if o.short {
        return Ok(());
    }
    gic2_host(o.verbose)?;
    old_host(o.verbose)?;
    extended_host(o.verbose)
}

/// A host with another KVM than usual.
fn other_host(plan: Plan, echo: bool) -> Result<Host> {
    let mut plan = plan;
    plan.add_guests(&[Version::V6_12])?;
    if !plan.programs.iter().any(|(name, _)| name == "armlet") {
        plan.add_armlet()?;
    }
    let mut host = Host::start(&plan, echo)?;
    host.ask(&format!("dd if=/dev/urandom of=disk bs=1M count={DISK}"), 0)?;
    Ok(host)
}

/// The test programs alone.
fn programs(echo: bool) -> Result<()> {
    let mut plan = Plan::default();
    let target = plan.add_armlet()?;
    for (name, _) in TESTS {
        plan.programs.push((name.into(), build_test(&target, name)?));
    }
    let mut host = other_host(plan, echo)?;
    TESTS.iter().try_for_each(|(name, arguments)| host.tests(name, arguments))
}

/// A host that can give its guests a GICv2 only.
fn gic2_host(echo: bool) -> Result<()> {
    let mut host = other_host(Plan { cpu: "cortex-a53", gic: 2, ..Plan::default() }, echo)?;
    println!("a host with GICv2:");
    host.boot(Version::V6_12, 2)?;
    host.boot_pci(Version::V6_12, 1, false)?;
    host.reset("grep -c GIC-0.*virtio /proc/interrupts", "2")?;
    host.refuses("host", &[("save state", "has a GICv2")])?;
    host.refused(&[("", "--accel kvm --smp 9", "give --smp 8 or less")])
}

/// A host whose CPU has all that the peer can emulate.
fn extended_host(echo: bool) -> Result<()> {
    let mut plan = Plan { cpu: "max", ..Plan::default() };
    plan.files.push(("/guests/extensions".into(), guests::build_kvm("extensions")?));
    let target = plan.add_armlet()?;
    plan.programs.push(("exits".into(), build_test(&target, "exits")?));
    let mut host = other_host(plan, echo)?;
    println!("a host with SVE and PMUv3:");
    host.tests("exits", "--test-threads=1")?;
    let without = "extensions: no vectors";
    for (cpu, words) in [
        ("host", ["extensions: vectors of", "extensions: no counters"]),
        ("host,pmu=on", ["extensions: vectors of", "extensions: counters"]),
        ("host,sve=off", [without, "extensions: no counters"]),
    ] {
        let told = host.ask(&format!("armlet run --cpu {cpu} --kernel /guests/extensions </dev/null"), 0)?;
        if !words.iter().chain(&["extensions: 0 failures"]).all(|words| told.contains(words)) {
            bail!("a CPU '{cpu}' does not do as it should:\n{told}");
        }
        println!("CPU {cpu}: ok");
    }
    let questions = [
        ("grep -cw sve /proc/cpuinfo", "2"),
        ("dmesg | grep -c 'PMU driver'", "1"),
        ("grep -c arm-pmu /proc/interrupts", "1"),
    ];
    host.boot_and_ask(&Guest { cpu: "host,pmu=on", ..Guest::new(Version::V6_12, 2) }, &questions)?;
    let save = [("save state", "--cpu host,sve=off")];
    host.refuses("host", &save)?;
    host.refuses("host,sve=off,pmu=on", &[("save state", "--cpu host,pmu=off")])
}

/// A host with a kernel that answers PSCI itself, has one counter for all guests, and writes no ID registers.
fn old_host(echo: bool) -> Result<()> {
    let mut host = other_host(Plan { kernel: Version::V6_1, ..Plan::default() }, echo)?;
    println!("a host with Linux 6.1:");
    host.boot(Version::V6_12, 2)?;
    host.reset(
        "echo 0 >/sys/devices/system/cpu/cpu1/online; echo 1 >/sys/devices/system/cpu/cpu1/online; nproc",
        "2",
    )?;
    host.refuses("host", &[("save state", "use Linux 6.4"), ("cpu remove 1", "use Linux 6.4")])?;
    host.refused(&[
        ("", "--accel kvm --cpu neoverse-n1,lse=off", "ID_AA64ISAR0_EL1[23:20]"),
        ("", "--accel kvm --cpu cortex-a53", "MIDR_EL1[15:4]"),
        ("", "--accel kvm --smp 1,max=2", "need Linux 6.4 or later"),
    ])
}

/// The short form, for `cargo xtask test`.
///
/// # Errors
/// As [`main`].
pub fn short() -> Result<()> {
    main(&Options { short: true, verbose: false, only: None })
}

/// A Linux to boot there.
struct Guest {
    version: Version,
    smp: u32,
    cpu: &'static str,
    drive: &'static str,
    /// How many lines of its interrupts are virtio's.
    lines: &'static str,
}

impl Guest {
    fn new(version: Version, smp: u32) -> Self {
        Self { version, smp, cpu: "host", drive: "disk", lines: "2" }
    }
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
        self.boot_and_ask(&Guest::new(version, smp), &[])
    }

    /// As [`Self::boot`], with the disk on PCI Express: it interrupts by messages if they can be had.
    fn boot_pci(&mut self, version: Version, smp: u32, messages: bool) -> Result<()> {
        let lines = if messages { "3" } else { "2" };
        let guest = Guest { drive: "disk,bus=pci", lines, ..Guest::new(version, smp) };
        let read = "echo 3 >/proc/sys/vm/drop_caches; md5sum -c sum";
        let questions = [
            ("grep -c MSI /proc/interrupts", if messages { "2" } else { "0" }),
            (
                "dd if=/dev/urandom of=/dev/vda bs=64k count=32 conv=fsync 2>&-; md5sum /dev/vda >sum; wc -l <sum",
                "1",
            ),
            (read, ": OK"),
            ("echo 1 >/sys/bus/pci/devices/0000:00:01.0/remove; ls /dev/vda", "No such file"),
            ("echo 1 >/sys/bus/pci/rescan; md5sum -c sum", ": OK"),
        ];
        self.boot_and_ask(&guest, &questions).context("a disk on PCI Express")
    }

    /// As [`Self::boot`], with more questions and words of their answers.
    fn boot_and_ask(&mut self, guest: &Guest, more: &[(&str, &str)]) -> Result<()> {
        let Guest { version, smp, cpu, drive, lines } = *guest;
        let sum = self.ask("md5sum <disk", 0)?;
        let sum = sum
            .lines()
            .find_map(|l| l.split_whitespace().find(|w| w.len() == 32))
            .context("no sum")?
            .to_owned();
        let folder = folder(version);
        let line = format!(
            "armlet run --accel kvm --kernel {folder}/Image --initrd {folder}/initrd --smp {smp} --cpu {cpu} --drive {drive} \
             --append 'console=ttyAMA0 quiet shell'; echo \"end\"\"=$?=\""
        );
        self.session().send_line(&line)?;
        self.session().wait_for("armlet-init: user space").context("no user space")?;
        self.session().wait_for(PROMPT).context("no shell in the guest")?;
        let s = self.session();
        boot::ask(s, "grep -c ^processor /proc/cpuinfo", &smp.to_string())?;
        boot::ask(s, "sed -n '1,/^CPU part/p' /proc/cpuinfo", "CPU implementer")?;
        boot::ask(s, "md5sum /dev/vda", &sum)?;
        boot::ask(s, "grep -c virtio /proc/interrupts", lines)?;
        // Every CPU's timer interrupts.
        let timers = "awk '/arch_timer/ { n = 0; for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i > 0; print \"cpus \" n }' /proc/interrupts";
        boot::ask(s, timers, &format!("cpus {smp}"))?;
        // What its CPUs were kept from running is told to it.
        boot::ask(s, "dmesg | grep -c 'using stolen time PV'", "1")?;
        // Two seconds are two seconds, by the count and by the clock.
        let span = "a=$(cut -d. -f1 /proc/uptime) b=$(date +%s); sleep 2; c=$(cut -d. -f1 /proc/uptime) d=$(date +%s); \
                    [ $((c - a)) -ge 2 ] && [ $((d - b)) -ge 2 ] && [ $((c - a)) -le 10 ] && echo clock\" \"goes";
        boot::ask(s, span, "clock goes")?;
        more.iter().try_for_each(|(question, words)| boot::ask(s, question, words))?;
        s.send_line("poweroff -f")?;
        s.wait_for("end=")?;
        let status = s.wait_for("=")?;
        s.wait_for(HOST)?;
        if status != "0" {
            bail!("armlet ends with status {status}");
        }
        println!("Linux {version:?} with {smp} CPUs and '{drive}': ok");
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
        self.refused(&[
            ("", "--accel jit", "cannot translate"),
            ("", "--accel kvm --cpu cortex-a53", "MIDR_EL1[15:4]"),
            ("", "--accel jit --cpu host", "cannot translate"),
            ("", "--accel kvm --semihosting on", "--semihosting off"),
            ("", "--accel kvm --smp 513", "512"),
            ("mv /dev/kvm /dev/gone;", "--accel kvm", "there is no /dev/kvm"),
            ("", "--accel auto", "there is no /dev/kvm"),
        ])?;
        println!("refusals: ok");
        Ok(())
    }

    /// What is done before, options, and words of what is told of them.
    fn refused(&mut self, cases: &[(&str, &str, &str)]) -> Result<()> {
        let image = format!("--kernel {}/Image", folder(Version::V6_12));
        for (before, options, words) in cases {
            let told = self.ask(&format!("{before} armlet run {options} {image} </dev/null"), 2)?;
            if !told.contains(words) {
                bail!("`{options}` does not tell of {words:?}, but:\n{told}");
            }
        }
        Ok(())
    }

    /// A guest with two CPUs that resets its machine, answers `question` afterwards, and powers off.
    fn reset(&mut self, question: &str, answer: &str) -> Result<()> {
        let folder = folder(Version::V6_12);
        let line = format!(
            "armlet run --accel kvm --kernel {folder}/Image --initrd {folder}/initrd --smp 2 --drive disk \
             --append 'console=ttyAMA0 quiet shell'; echo \"end\"\"=$?=\""
        );
        let s = self.session();
        s.send_line(&line)?;
        s.wait_for(PROMPT).context("no shell in the guest")?;
        s.send_line("reboot -f")?;
        s.wait_for("armlet-init: user space").context("no user space after a reset")?;
        s.wait_for(PROMPT).context("no shell in the guest after a reset")?;
        boot::ask(s, question, answer)?;
        s.send_line("poweroff -f")?;
        s.wait_for("end=0=").context("no power-off")?;
        s.wait_for(HOST)?;
        println!("a reset: ok");
        Ok(())
    }

    /// A guest with two CPUs cannot have that done to it, each with words of what is told, and goes on.
    fn refuses(&mut self, cpu: &str, cases: &[(&str, &str)]) -> Result<()> {
        let image = format!("{}/Image", folder(Version::V6_12));
        let run = format!(
            "armlet run --accel kvm --cpu {cpu} --smp 2 --kernel {image} --qmp unix:q </dev/null >log 2>&1 &"
        );
        self.ask(&format!("{run} while ! [ -S q ] && kill -0 $!; do sleep 0.1; done"), 0)?;
        for (command, words) in cases {
            let told = self.ask(&format!("armlet ctl q {command}"), 1)?;
            if !told.contains(words) {
                bail!("`{command}` does not tell of {words:?}, but:\n{told}");
            }
        }
        self.ask("! [ -e state ] && kill -0 $! && kill $!; wait $!; true", 0)?;
        println!("what cannot be done to a guest: ok");
        Ok(())
    }
}

/// A port of this machine that nobody listens at now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Builds a test program of `crates/accel-kvm`.
fn build_test(target: &Target, name: &str) -> Result<PathBuf> {
    let built = target.build_tests(&["--package", "armlet-accel-kvm", "--test", name])?;
    let test = built.into_iter().rfind(|built| built.is_test);
    Ok(test.with_context(|| format!("cargo does not tell where test '{name}' is"))?.program)
}
