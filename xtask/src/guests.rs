//! `cargo xtask guests`: our own bare-metal programs, from their sources, and the tests that they are.
//!
//! `guests/demo/demo.elf` is the only one whose built form is in the tree, since users have no cross compiler;
//! it carries a digest of its sources, so that a stale one is noticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::session::{Session, last_lines};
use crate::{host, run};

const COMPILER: &str = "aarch64-linux-gnu-gcc";
// No floating point, no unaligned access (the MMU is off at first), nothing of the host's.
const FLAGS: &[&str] = &[
    "-O2",
    "-ffreestanding",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-fno-pic",
    "-march=armv8-a",
    "-mgeneral-regs-only",
    "-mstrict-align",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Iguests/common",
    "-Wl,-T,guests/common/link.ld",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,--no-warn-rwx-segments",
];
const COMMON: &[&str] = &["guests/common/start.S", "guests/common/guest.c"];
/// Options of the independent implementation.
#[rustfmt::skip]
const REFERENCE: &[&str] = &[
    "-M", "virt,gic-version=3", "-m", "512", "-display", "none", "-nodefaults",
    "-serial", "stdio", "-monitor", "none", "-no-reboot", "-semihosting",
];
/// The built demonstration in the tree.
pub const DEMO: &str = "guests/demo/demo.elf";

/// The CPU model of a guest that does not say.
const DEFAULT_CPU: &str = "neoverse-n1";

/// What to do with the guests.
#[derive(Args)]
pub struct Options {
    /// Run the test guests under armlet after building them
    #[arg(long)]
    test: bool,
    /// Run the test guests under this program, which takes `qemu-system-aarch64`'s options
    #[arg(long, value_name = "PROGRAM")]
    reference: Option<PathBuf>,
    /// Only the test guest of this name, on all the CPU models that it wants
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The cross compiler is missing or fails, or a guest reports a failure.
pub fn main(o: &Options) -> Result<()> {
    let fresh = build_demo()?;
    fs::copy(&fresh, DEMO).with_context(|| format!("cannot write {DEMO}"))?;
    let mut bad = 0;
    for guest in build_tests()?.iter().filter(|g| o.only.as_deref().is_none_or(|n| g.is_called(n))) {
        let mut commands = Vec::new();
        if o.test {
            commands.push(("armlet", guest.armlet(&run::build_armlet()?)));
        }
        if let Some(program) = &o.reference {
            commands.push(("reference", guest.reference(program)));
        }
        for (who, mut c) in commands {
            match guest.run(&mut c) {
                Ok(()) => println!("{who}: {} ok", guest.name),
                Err(e) => {
                    println!("{who}: {} FAILED: {e:#}", guest.name);
                    bad += 1;
                }
            }
        }
    }
    if bad == 0 { Ok(()) } else { bail!("{bad} test guests failed") }
}

/// Builds the demonstration into the target folder.
///
/// # Errors
/// The cross compiler is missing or fails.
pub fn build_demo() -> Result<PathBuf> {
    let id = demo_digest()?;
    build("demo", Path::new("guests/demo/demo.c"), &["-s", &format!("-DSOURCE_ID=\"{id}\"")])
}

/// Checks that the built demonstration in the tree was made from the sources in the tree.
///
/// # Errors
/// It was not.
pub fn check_demo() -> Result<()> {
    let id = format!("armlet-demo-source {}", demo_digest()?);
    let elf = fs::read(DEMO).with_context(|| format!("cannot read {DEMO}"))?;
    if elf.windows(id.len()).any(|w| w == id.as_bytes()) {
        return Ok(());
    }
    bail!("{DEMO} is older than its sources: run `cargo xtask guests`")
}

/// Holds a short conversation with the demonstration.
///
/// # Errors
/// It does not answer as it should.
pub fn talk_to_demo(c: &mut Command) -> Result<()> {
    let mut s = Session::start(c, Duration::from_secs(30), false)?;
    let shown = s.wait_for("powers off.")?;
    for word in ["Neoverse N1", "EL1", "memory", "CPUs", "timer"] {
        if !shown.contains(word) {
            bail!("it does not show {word:?}: {shown}");
        }
    }
    s.wait_for("00:02")?;
    s.send_line("hello there")?;
    s.wait_for("You typed")?;
    s.wait_for("hello there")?;
    s.send_line("q")?;
    s.wait_for("Good-bye")?;
    let (status, _) = s.finish()?;
    if status.code() == Some(0) { Ok(()) } else { bail!("ended with {status}") }
}

/// FNV-1a over the demonstration's sources; not a matter of security.
fn demo_digest() -> Result<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in COMMON.iter().chain(&["guests/common/guest.h", "guests/common/link.ld", "guests/demo/demo.c"])
    {
        for byte in fs::read(file).with_context(|| format!("cannot read {file}"))? {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

/// A bare-metal program that tests the machine from inside and exits with status 0 if all is well.
///
/// Comments at the head of its source say how it wants to be run: `// smp: 2`, `// smp: 8,threads=2`, `// exit: 7`,
/// `// cpu: max`, or `// cpu: neoverse-n1 max` to be run on each.
pub struct TestGuest {
    /// Name of the source file, without its extension; with `@` and the CPU model if that is not the default one.
    pub name: String,
    elf: PathBuf,
    cpu: String,
    smp: String,
    exit: i32,
}

/// Builds every test guest into the target folder.
///
/// # Errors
/// The cross compiler is missing or fails.
pub fn build_tests() -> Result<Vec<TestGuest>> {
    let mut sources: Vec<PathBuf> = fs::read_dir("guests/tests")?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "c"))
        .collect();
    sources.sort();
    let mut guests = Vec::new();
    for source in &sources {
        let text = fs::read_to_string(source)?;
        let told = |key: &str, default: &str| {
            let found =
                text.lines().find_map(|l| l.strip_prefix("// ")?.strip_prefix(key)?.strip_prefix(": "));
            found.unwrap_or(default).trim().to_owned()
        };
        let base = source.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let elf = build(&base, source, &["-g"])?;
        for cpu in told("cpu", DEFAULT_CPU).split_whitespace() {
            let name = if cpu == DEFAULT_CPU { base.clone() } else { format!("{base}@{cpu}") };
            let (smp, exit) = (told("smp", "1"), told("exit", "0").parse()?);
            guests.push(TestGuest { name, elf: elf.clone(), cpu: cpu.to_owned(), smp, exit });
        }
    }
    Ok(guests)
}

/// Builds a guest of `guests/bench` into the target folder.
///
/// # Errors
/// The cross compiler is missing or fails.
pub fn build_bench(name: &str) -> Result<PathBuf> {
    build(&format!("bench-{name}"), &Path::new("guests/bench").join(name).with_extension("c"), &[])
}

/// Builds a guest of `guests/kvm` into the target folder: one that only a host's own CPU can execute.
///
/// # Errors
/// The cross compiler is missing or fails.
pub fn build_kvm(name: &str) -> Result<PathBuf> {
    build(&format!("kvm-{name}"), &Path::new("guests/kvm").join(name).with_extension("c"), &[])
}

/// Builds a guest of `guests/litmus` into the target folder, with assembler source that was made for it.
///
/// # Errors
/// The cross compiler is missing or fails.
pub fn build_litmus(name: &str, made: Option<&str>) -> Result<PathBuf> {
    // Atomics in line rather than in a library that is not there.
    let mut more = vec!["-march=armv8.1-a".to_owned()];
    if let Some(text) = made {
        let file = run::target().join(format!("guests/{name}-made.S"));
        fs::create_dir_all(run::target().join("guests"))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        more.push(file.display().to_string());
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    build(name, &Path::new("guests/litmus").join(name).with_extension("c"), &more)
}

/// How armlet runs a program on so many CPUs.
pub fn on_armlet(armlet: &Path, elf: &Path, cpus: usize, arguments: &str) -> Command {
    let mut c = Command::new(armlet);
    c.args(["run", "--smp", &cpus.to_string(), "--append", arguments, "--kernel"]).arg(elf);
    c
}

/// How the independent implementation runs it.
pub fn on_reference(program: &Path, elf: &Path, cpus: usize, arguments: &str) -> Command {
    let mut c = Command::new(program);
    c.args(REFERENCE).args(["-cpu", DEFAULT_CPU, "-append", arguments, "-smp", &cpus.to_string()]);
    c.arg("-kernel").arg(elf);
    c
}

impl TestGuest {
    /// The program, with its symbols.
    pub fn elf(&self) -> &Path {
        &self.elf
    }

    /// It is the guest of this name, or that guest on one of its CPU models.
    fn is_called(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    }

    /// How many CPUs it wants, and how arranged, as the option `smp` has it.
    pub fn smp(&self) -> &str {
        &self.smp
    }

    /// Its exit status if all is well.
    pub fn exit(&self) -> i32 {
        self.exit
    }

    /// How armlet runs it.
    pub fn armlet(&self, armlet: &Path) -> Command {
        let mut c = Command::new(armlet);
        c.args(["run", "--cpu", &self.cpu, "--smp", &self.smp, "--append", "word=1 two"]);
        c.arg("--kernel").arg(&self.elf);
        c
    }

    /// How the independent implementation runs it.
    fn reference(&self, program: &Path) -> Command {
        let mut c = Command::new(program);
        c.args(REFERENCE).args(["-cpu", &self.cpu, "-append", "word=1 two", "-smp", &self.smp]);
        c.arg("-kernel").arg(&self.elf);
        c
    }

    /// Runs it and checks its exit status; what it wrote is in the error.
    ///
    /// # Errors
    /// A wrong status, or too much time.
    pub fn run(&self, c: &mut Command) -> Result<()> {
        let (status, text) = Session::start(c, Duration::from_secs(180), false)?.finish()?;
        if status.code() == Some(self.exit) {
            return Ok(());
        }
        bail!("{status}, wanted {}; it says:\n{}", self.exit, last_lines(&text))
    }
}

fn build(name: &str, source: &Path, more: &[&str]) -> Result<PathBuf> {
    host::ensure(&[(COMPILER, "gcc-aarch64-linux-gnu")])?;
    let folder = run::target().join("guests");
    fs::create_dir_all(&folder)?;
    let elf = folder.join(format!("{name}.elf"));
    let mut c = run::command(COMPILER, FLAGS);
    c.args(more).args(COMMON).arg(source).arg("-o").arg(&elf);
    run::quiet(&mut c)?;
    Ok(elf)
}
