//! Developer commands: `cargo xtask boot`, `test`, `bench`, `soak`, `conform`, `litmus`, `fuzz`, `setup`, `guests`.
//!
//! Everything that these need beyond Rust comes from Debian's packages through apt, lands in one cache
//! folder ([`cache`]) and is made once; a second run needs no network.

mod apt;
mod arm64;
mod bench;
mod boot;
mod build;
mod cache;
mod carry;
mod drivers;
mod fuzz;
mod gdb;
mod guests;
mod host;
mod initrd;
mod kernel;
mod kvm;
mod litmus;
mod oracle;
mod profile;
mod qmp;
mod repeat;
mod run;
mod saved;
mod session;
mod suite;
mod topology;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// armlet's developer commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot Debian's arm64 kernel to a shell (without a terminal: run a short session and power off)
    Boot(boot::Options),
    /// Run every check: format, lints, licences, docs, tests, boots of real kernels
    Test(suite::Options),
    /// Compare instruction semantics with qemu-user's (options after `--`: --full, --seed, --class, --help)
    Conform {
        /// Options of the comparison
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Measure armlet and QEMU side by side, and what armlet promises
    Bench(bench::Options),
    /// Boot again and again, run programs that check their own results, or raise a storm over Linux
    Soak(bench::soak::Options),
    /// Drive machines through the public QMP client; compare with another program's QMP
    Qmp(qmp::Options),
    /// Drive machines through Debian's gdb, by script; compare with another program's registers
    Gdb(gdb::Options),
    /// Boot Linux with CPUs in sockets, clusters, cores and threads, and ask it how it sees them
    Topology,
    /// Compare the symbols that kernels' images carry with what they tell themselves, and profile a boot
    Profile,
    /// Run guests twice, record and replay them, with all CPUs on one thread: every run must be the same
    Repeat(repeat::Options),
    /// Build armlet for a host of another architecture
    Build(build::Options),
    /// Save guests at random moments, and have them go on in other processes
    Saved(saved::Options),
    /// Run litmus tests of the memory model, and atomics under contention, on 2 and 4 CPUs
    Litmus(litmus::Options),
    /// Give any bytes to what takes bytes from outside, under libFuzzer
    Fuzz(fuzz::Options),
    /// Test armlet with KVM for arm64, on a host that the peer emulates
    TestKvm(kvm::Options),
    /// Run the tests of all crates on an arm64 host that the peer emulates
    TestArm64(arm64::Options),
    /// Fetch and build everything that the other commands need
    Setup,
    /// Build the bare-metal guests from their sources
    Guests(guests::Options),
}

fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<()> {
    std::env::set_current_dir(run::root())?;
    match Cli::parse().command {
        Command::Boot(o) => boot::main(&o),
        Command::Test(o) => suite::main(&o),
        Command::Conform { options } => conform(&options),
        Command::Bench(o) => bench::main(&o),
        Command::Soak(o) => bench::soak::main(&o),
        Command::Qmp(o) => qmp::main(&o),
        Command::Gdb(o) => gdb::main(&o),
        Command::Topology => topology::linux(&run::build_armlet()?),
        Command::Profile => profile::main(),
        Command::Repeat(o) => repeat::main(&o),
        Command::Build(o) => build::main(&o),
        Command::Saved(o) => saved::main(&o),
        Command::Litmus(o) => litmus::main(&o),
        Command::Fuzz(o) => fuzz::main(&o),
        Command::TestKvm(o) => kvm::main(&o),
        Command::TestArm64(o) => arm64::main(&o),
        Command::Setup => setup(),
        Command::Guests(o) => guests::main(&o),
    }
}

/// Runs the differential tests of instruction semantics.
fn conform(options: &[String]) -> Result<()> {
    host::ensure(host::TEST)?;
    oracle::prepare()?;
    let mut c =
        run::command(&run::cargo(), ["run", "--quiet", "--release", "--package", "armlet-conform", "--"]);
    run::shown(c.args(options))
}

/// Fetches and builds everything, so that no other command needs the network.
fn setup() -> Result<()> {
    for tools in [host::BOOT, host::TEST, host::BENCH] {
        host::ensure(tools)?;
    }
    for version in kernel::Version::ALL {
        boot::Linux::prepare(version)?;
    }
    oracle::prepare()?;
    suite::cargo_deny()?;
    qmp::client()?;
    bench::setup()?;
    run::build_armlet()?;
    Ok(())
}
