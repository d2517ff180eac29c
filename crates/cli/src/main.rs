//! The `armlet` command.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

mod args;
mod ctl;
mod escape;
mod list;
mod outputs;
mod parse;
mod profile;
mod run;
mod signals;
mod terminal;

use args::{Cli, Command};

/// Exit statuses, as `armlet run --help` promises them.
mod status {
    pub const DONE: u8 = 0;
    pub const OTHER: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const CRASHED: u8 = 3;
    pub const TIMED_OUT: u8 = 4;
}

fn main() -> ExitCode {
    armlet::heap::give_back();
    let cli = match Cli::of_process() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    log_to_stderr(cli.verbose);
    let status = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Ctl(args) => ctl::run(&args),
        Command::Cpus(args) => list::cpus(args.model.as_deref()),
        Command::Machines => list::machines(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "armlet", &mut script);
            list::print(&String::from_utf8_lossy(&script))
        }
    };
    ExitCode::from(status)
}

/// Tells an error in one line.
fn complain(what: &dyn std::fmt::Display) {
    let line = what.to_string().replace(char::is_control, " ");
    say(&format!("armlet: {line}\n"));
}

/// How long a message waits for somebody to read what came before it.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Writes to standard error, whether anybody reads that or not.
fn say(text: &str) {
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    if matches!(poll(&mut fds, Some(&PATIENCE)), Ok(0)) {
        return;
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::TRACE,
    };
    let start = tracing_subscriber::fmt::time::uptime();
    let log = tracing_subscriber::fmt().with_max_level(level).with_timer(start);
    // A log that cannot be written is no reason to say so in the same place.
    let log = log.log_internal_errors(false);
    log.with_writer(std::io::stderr).with_ansi(false).with_target(verbose > 0).init();
}

/// Help as it is; errors in one line with their mend.
fn usage(e: &clap::Error) -> ExitCode {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = e.print();
        return ExitCode::from(status::DONE);
    }
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = e.print();
        return ExitCode::from(status::USAGE);
    }
    complain(&usage_line(e));
    ExitCode::from(status::USAGE)
}

/// Where the command that was given is explained.
fn see_help() -> String {
    let command = Cli::command();
    let word = std::env::args_os().nth(1).unwrap_or_default();
    match command.get_subcommands().find(|c| word == c.get_name()) {
        Some(command) => format!("see armlet {} --help", command.get_name()),
        None => "see armlet --help".into(),
    }
}

fn usage_line(e: &clap::Error) -> String {
    let text = |kind| match e.get(kind) {
        Some(ContextValue::String(s)) => Some(s.clone()),
        Some(ContextValue::Strings(all)) => Some(all.join(", ")),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg).unwrap_or_default();
    let name = option.split(' ').next().unwrap_or_default().to_string();
    let like = text(ContextKind::SuggestedArg).or_else(|| text(ContextKind::SuggestedSubcommand));
    let like = like.map(|s| format!("did you mean '{s}'? ")).unwrap_or_default();
    match e.kind() {
        ErrorKind::UnknownArgument if !name.starts_with('-') => {
            format!("'{name}' is one word too many: {}", see_help())
        }
        ErrorKind::UnknownArgument => format!("unknown option '{name}': {like}{}", see_help()),
        ErrorKind::MissingRequiredArgument => format!("{name} is missing: {}", see_help()),
        ErrorKind::InvalidSubcommand => {
            let command = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unknown command '{command}': {like}{}", see_help())
        }
        ErrorKind::ArgumentConflict => format!("{name} is given twice: give it once"),
        ErrorKind::ValueValidation => match std::error::Error::source(e) {
            Some(why) => format!("{name}: {why}"),
            None => format!("{name} has a bad value: {}", see_help()),
        },
        ErrorKind::InvalidValue => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let valid = text(ContextKind::ValidValue).unwrap_or_default();
            if value.is_empty() {
                return format!("{name} needs a value: {}", see_help());
            }
            format!("{name} cannot be '{value}': use one of {valid}")
        }
        _ => {
            let rendered = e.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            format!("{}: {}", first.trim_start_matches("error: "), see_help())
        }
    }
}
