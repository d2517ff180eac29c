//! The command line: its shape and its texts.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use armlet::config::{AcceleratorConfig, CpuConfig, DriveConfig};
use armlet::debug::Address;

use crate::parse::{self, ControlPath, Cpus, GuestSize, Serial};

/// Runs arm64 machines.
#[derive(Debug, Parser)]
#[command(name = "armlet", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Say more about what goes on, on standard error; twice says everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses this process's command line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_process() -> Result<Self, clap::Error> {
        let mut matches = Self::command().try_get_matches()?;
        let given = matches.subcommand().map(|(_, of_command)| given(of_command)).unwrap_or_default();
        let mut cli = Self::from_arg_matches_mut(&mut matches)?;
        if let Command::Run(args) = &mut cli.command {
            args.given = given;
        }
        Ok(cli)
    }
}

fn given(matches: &ArgMatches) -> HashSet<String> {
    let ids = matches.ids().map(clap::Id::as_str);
    let given = ids.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
    given.map(str::to_owned).collect()
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a machine
    #[command(after_help = EXAMPLES, after_long_help = LONG_HELP)]
    Run(Box<RunArgs>),
    /// Control a running machine that was started with --qmp
    #[command(after_help = CTL_EXAMPLES)]
    Ctl(CtlArgs),
    /// List the CPU models, or the features of one
    Cpus(CpusArgs),
    /// List the machines
    Machines,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Options of `armlet cpus`.
#[derive(Debug, Args)]
pub struct CpusArgs {
    /// The model whose features to list
    pub model: Option<String>,
}

/// Options of `armlet ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// The machine's control socket, as given to --qmp
    #[arg(value_name = "PATH", value_parser = parse::control)]
    pub path: ControlPath,
    /// What to do
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What to do with a running machine.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Tell what the machine does
    Status,
    /// Stop the machine
    Stop,
    /// Start the machine, or let it go on
    Cont,
    /// Save the machine to a file, from which armlet run --restore goes on; the machine stands still meanwhile
    Save {
        /// The file; it is replaced when the new one is complete
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// End the machine then, without going on first: its disks stay as the file knows them
        #[arg(long)]
        quit: bool,
    },
    /// Reset the machine
    Reset,
    /// Press the power key: a guest that listens shuts down in order
    Powerdown,
    /// End the machine at once
    Quit,
    /// List, add and remove CPUs
    #[command(subcommand)]
    Cpu(CpuCommand),
}

/// What to do with CPUs.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum CpuCommand {
    /// List the CPUs, and the places where there is none
    List,
    /// Add a CPU; the guest has to switch it on
    Add {
        /// Its number; the first that is free if none is given
        cpu: Option<u64>,
    },
    /// Remove a CPU, which the guest must have switched off
    Remove {
        /// Its number
        cpu: u64,
    },
}

/// Options of `armlet run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Linux Image (plain, gzip'd or EFI zboot) or AArch64 ELF file; without one, a built-in demonstration runs
    #[arg(short, long, value_name = "FILE", help_heading = "Guest")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(short, long, value_name = "FILE", help_heading = "Guest")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true,
        help_heading = "Guest"
    )]
    pub append: String,
    /// Device tree to pass instead of the generated one
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub dtb: Option<PathBuf>,
    /// Give the kernel a seed for randomising its address (makes Linux isolate its page tables: slower)
    #[arg(long, help_heading = "Guest")]
    pub kaslr: bool,

    /// The machine, as `armlet machines` lists it
    #[arg(long, value_name = "NAME", default_value = "virt", help_heading = "Machine")]
    pub machine: String,
    /// CPU model and features, as `armlet cpus` lists them
    #[arg(long, value_name = "NAME[,FEATURE=on|off]", default_value = "default", value_parser = parse::cpu, help_heading = "Machine")]
    pub cpu: CpuConfig,
    /// Number of CPUs, and room for more that are plugged later (armlet ctl PATH cpu add); sockets=, clusters=, cores= and
    /// threads= arrange them
    #[arg(long, value_name = "N[,max=M][,LEVEL=COUNT]", default_value = "1", allow_negative_numbers = true, value_parser = parse::cpus, help_heading = "Machine")]
    pub smp: Cpus,
    /// Memory: 2G, 512M, 65536K; a bare number is MiB
    #[arg(short, long, value_name = "SIZE", default_value = "1G", allow_negative_numbers = true, value_parser = parse::memory, help_heading = "Machine")]
    pub memory: GuestSize,
    /// What executes the guest: auto, kvm, jit or dummy, and its options
    #[arg(long, value_name = "NAME[,OPTION=VALUE]", default_value = "auto", value_parser = parse::accelerator, help_heading = "Machine")]
    pub accel: AcceleratorConfig,
    /// A disk; may be given more than once. A comma in the name is written twice. bus=pci puts it on PCI Express
    #[arg(short, long, value_name = "FILE[,format=raw][,readonly=on][,snapshot=on][,bus=pci]", value_parser = parse::drive, help_heading = "Machine")]
    pub drive: Vec<DriveConfig>,
    /// The device that the terminal belongs to: uart (ttyAMA0), or virtio (hvc0), which knows the terminal's size
    #[arg(long, value_enum, default_value_t = ConsoleArg::Uart, help_heading = "Machine")]
    pub console: ConsoleArg,
    /// Who may use semihosting: bare-metal programs (auto), everyone, no one
    #[arg(long, value_enum, default_value_t = SemihostingArg::Auto, help_heading = "Machine")]
    pub semihosting: SemihostingArg,
    /// End when the guest asks for a reset
    #[arg(long, help_heading = "Machine")]
    pub no_reboot: bool,

    /// The serial console: stdio, file:PATH, unix:PATH (listens) or none
    #[arg(long, value_name = "WHERE", default_value = "stdio", value_parser = parse::serial, help_heading = "Control")]
    pub serial: Serial,
    /// Listen there for gdb: :PORT (of 127.0.0.1), HOST:PORT or unix:PATH; add --paused to have the guest wait for it
    #[arg(long, value_name = "ADDRESS", value_parser = parse::gdb, help_heading = "Control")]
    pub gdb: Option<Address>,
    /// Listen there for control clients (QMP), such as armlet ctl
    #[arg(long, value_name = "unix:PATH", value_parser = parse::control_socket, help_heading = "Control")]
    pub qmp: Option<ControlPath>,
    /// Do not start the guest yet (gdb, Ctrl-A p and armlet ctl PATH cont do)
    #[arg(long, help_heading = "Control")]
    pub paused: bool,
    /// End with exit status 4 after this long
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse::seconds, help_heading = "Control")]
    pub timeout: Option<std::time::Duration>,
    /// Write counters of the run to this file, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Control")]
    pub stats: Option<PathBuf>,
    /// Sample where the guest spends its time; writes FILE (folded stacks), and beside it a flame graph (.svg) and a table (.txt)
    #[arg(long, value_name = "FILE", help_heading = "Control")]
    pub profile: Option<PathBuf>,
    /// Symbols for --profile, besides those that the kernel carries: a System.map or an ELF file; may be given more than once
    #[arg(long, value_name = "FILE", requires = "profile", help_heading = "Control")]
    pub symbols: Vec<PathBuf>,
    /// Note in this file what comes to the guest from outside, and when, so that --replay can repeat the run to the
    /// instruction. Needs --accel jit,thread=single, and drives with readonly=on or snapshot=on
    #[arg(long, value_name = "FILE", help_heading = "Control")]
    pub record: Option<PathBuf>,
    /// Repeat the run that this file is of, on the same machine; what is typed is ignored
    #[arg(long, value_name = "FILE", help_heading = "Control")]
    pub replay: Option<PathBuf>,
    /// Go on from this file, which armlet ctl PATH save has made. The machine is as it was started then; options that
    /// are given must not contradict it. --accel, --serial, --qmp, --gdb and the paths of files may differ
    #[arg(long, value_name = "FILE", help_heading = "Control")]
    pub restore: Option<PathBuf>,
    /// Write the generated device tree to this file and do not run
    #[arg(long, value_name = "FILE", help_heading = "Control")]
    pub dump_dtb: Option<PathBuf>,

    /// Names of the options that were given, rather than left at their defaults
    #[arg(skip)]
    pub given: HashSet<String>,
}

/// The device that the terminal belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsoleArg {
    /// The UART
    Uart,
    /// A virtio console
    Virtio,
}

/// Who may use semihosting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SemihostingArg {
    /// Bare-metal programs
    Auto,
    /// Everyone
    On,
    /// No one
    Off,
}

const EXAMPLES: &str = "\
Examples:
  armlet run                                        a demonstration, with nothing else needed
  armlet run --kernel Image --initrd initrd.gz --append console=ttyAMA0
  armlet run --kernel Image --drive disk.img --append \"root=/dev/vda\" --smp 4
  armlet run --kernel test.elf --timeout 10         a bare-metal program

On a terminal, Ctrl-A x quits and Ctrl-A h shows the other keys.";

const CTL_EXAMPLES: &str = "\
Examples:
  armlet run --kernel Image --qmp unix:/tmp/vm.sock
  armlet ctl /tmp/vm.sock status
  armlet ctl /tmp/vm.sock stop

A machine is saved, and goes on later in another process:
  armlet ctl /tmp/vm.sock save vm.state --quit
  armlet run --restore vm.state --qmp unix:/tmp/vm.sock

CPUs come and go in a machine that has room for them:
  armlet run --kernel Image --smp 4,max=8 --qmp unix:/tmp/vm.sock
  armlet ctl /tmp/vm.sock cpu add 4           in the guest: echo 1 > /sys/devices/system/cpu/cpu4/online
  armlet ctl /tmp/vm.sock cpu remove 4        before, in the guest: echo 0 > ...";

const LONG_HELP: &str = "\
Examples:
  armlet run                                        a demonstration, with nothing else needed
  armlet run --kernel Image --initrd initrd.gz --append console=ttyAMA0
  armlet run --kernel Image --drive disk.img --append \"root=/dev/vda\" --smp 4
  armlet run --kernel test.elf --timeout 10         a bare-metal program

Options of --accel jit:
  smc=fast|strict      how changed code is noticed: by the guest's own cache maintenance, or every write
  thread=multi|single  a thread for each CPU; or all on one, in an order and with a time that instructions alone
                       decide: two runs with the same input are the same to the instruction
  icount=0..10         with thread=single: an instruction takes 2^N ns of the guest's time (0)
  sleep=on|off         with thread=single: while the guest waits, so does the machine (on); or the guest's time
                       leaps to what comes next
  perf=on|off          tell the host's perf what translated code is called (/tmp/perf-PID.map; off)
  avx512=on|off        use the host's AVX-512 if it has it (on)
  trace=on|off         with thread=single: hash the instructions (trace_hash in --stats; off)

The same again:
  armlet run --kernel Image --accel jit,thread=single --record run.rec
  armlet run --kernel Image --accel jit,thread=single --replay run.rec

Keys on a terminal:
  Ctrl-A x   quit              Ctrl-A p        pause, and go on
  Ctrl-A h   show the keys     Ctrl-A Ctrl-A   send one Ctrl-A
  Ctrl-A b   send a break      Ctrl-A s        press the machine's power key

Exit status:
  0  the guest powered the machine off (a bare-metal program's own status, if it gives one), or a replay has come to
     its recording's end
  1  anything else, such as SIGTERM, SIGINT, SIGHUP or Ctrl-A x
  2  usage or configuration
  3  the guest crashed or resets over and over
  4  --timeout passed";
