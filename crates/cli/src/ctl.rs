//! `armlet ctl`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use armlet::control::{Client, ClientError};
use serde_json::{Value, json};

use crate::args::{CpuCommand, CtlArgs, CtlCommand};
use crate::{complain, list, status};

/// Longest wait for an answer: longer than a machine waits for its vCPUs.
const PATIENCE: Duration = Duration::from_secs(40);

/// Does what is asked for; the exit status.
pub fn run(args: &CtlArgs) -> u8 {
    match carry_out(args) {
        Ok(text) => list::print(&text),
        Err(e) => {
            complain(&e);
            status::OTHER
        }
    }
}

fn carry_out(args: &CtlArgs) -> Result<String, ClientError> {
    let mut machine = Client::connect(&args.path.0, PATIENCE)?;
    let mut quietly = |command| machine.execute(command, None).map(|_| String::new());
    match &args.command {
        CtlCommand::Status => state(&mut machine),
        CtlCommand::Stop => {
            quietly("stop")?;
            state(&mut machine)
        }
        CtlCommand::Cont => {
            quietly("cont")?;
            state(&mut machine)
        }
        CtlCommand::Save { file, quit } => save(&args.path.0, file, *quit),
        CtlCommand::Reset => quietly("system_reset"),
        CtlCommand::Powerdown => quietly("system_powerdown"),
        CtlCommand::Quit => quietly("quit"),
        CtlCommand::Cpu(CpuCommand::List) => list_cpus(&mut machine),
        CtlCommand::Cpu(CpuCommand::Add { cpu }) => add_cpu(&mut machine, *cpu),
        CtlCommand::Cpu(CpuCommand::Remove { cpu }) => remove_cpu(&mut machine, *cpu),
    }
}

/// Longest wait for a machine to be saved: memories are large and disks slow.
const SAVING: Duration = Duration::from_secs(3600);

fn save(socket: &Path, file: &Path, quit: bool) -> Result<String, ClientError> {
    let mut machine = Client::connect(socket, SAVING)?;
    // What is relative here means something else where the machine runs.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let Some(filename) = file.to_str() else {
        return Err(ClientError::Refused("the file's name is no Unicode: choose another".into()));
    };
    let answer =
        machine.execute("x-snapshot-save-file", Some(json!({"filename": filename, "quit": quit})))?;
    let number = |name: &str| answer[name].as_u64().ok_or(ClientError::Answer);
    let (size, downtime) = (number("size")?, number("downtime")?);
    Ok(format!(
        "{:.1} MiB saved; the machine stood still for {downtime} ms\n",
        size as f64 / f64::from(1 << 20)
    ))
}

fn state(machine: &mut Client) -> Result<String, ClientError> {
    let answer = machine.execute("query-status", None)?;
    let state = answer["status"].as_str().ok_or(ClientError::Answer)?;
    Ok(format!("{state}\n"))
}

/// A place for a CPU.
struct Place {
    number: u64,
    /// Of the CPU that is there.
    path: Option<String>,
    info: Value,
}

/// All places, by number.
fn places(machine: &mut Client) -> Result<Vec<Place>, ClientError> {
    let answer = machine.execute("query-hotpluggable-cpus", None)?;
    let place = |info: &Value| {
        info["props"].as_object().ok_or(ClientError::Answer)?;
        Ok(Place { number: 0, path: info["qom-path"].as_str().map(str::to_owned), info: info.clone() })
    };
    let mut all: Vec<_> =
        answer.as_array().ok_or(ClientError::Answer)?.iter().map(place).collect::<Result<_, _>>()?;
    // CPUs are numbered through the topology, from the outermost level to the innermost.
    let id = |place: &Place, name: &str| place.info["props"][name].as_u64();
    all.sort_by_key(|place| ["socket-id", "cluster-id", "core-id", "thread-id"].map(|name| id(place, name)));
    all.iter_mut().zip(0..).for_each(|(place, number)| place.number = number);
    Ok(all)
}

fn list_cpus(machine: &mut Client) -> Result<String, ClientError> {
    let places = places(machine)?;
    let threads = machine.execute("query-cpus-fast", None)?;
    let threads = threads.as_array().ok_or(ClientError::Answer)?;
    let mut text = String::from("CPU  host thread\n");
    for place in &places {
        let cpu = threads.iter().find(|cpu| cpu["props"] == place.info["props"]);
        let thread = cpu.and_then(|cpu| cpu["thread-id"].as_u64());
        let thread = thread.map_or_else(|| "(no CPU)".to_owned(), |thread| thread.to_string());
        let _ = writeln!(text, "{:3}  {thread:>11}", place.number);
    }
    Ok(text)
}

fn add_cpu(machine: &mut Client, cpu: Option<u64>) -> Result<String, ClientError> {
    let places = places(machine)?;
    let chosen = match cpu {
        Some(number) => places.iter().find(|place| place.number == number),
        None => places.iter().find(|place| place.path.is_none()),
    };
    let Some(place) = chosen else {
        let (room, last) = (places.len(), places.len().saturating_sub(1));
        let what = cpu.map_or_else(|| "every place is taken".to_owned(), |n| format!("there is no CPU {n}"));
        let mend = "start it with --smp N,max=M for more";
        return Err(ClientError::Refused(format!(
            "{what}: the machine has room for {room}, 0 to {last}; {mend}"
        )));
    };
    let mut arguments = place.info["props"].clone();
    arguments["driver"] = place.info["type"].clone();
    machine.execute("device_add", Some(arguments))?;
    let number = place.number;
    Ok(format!("CPU {number} added; in Linux, echo 1 > /sys/devices/system/cpu/cpu{number}/online\n"))
}

fn remove_cpu(machine: &mut Client, cpu: u64) -> Result<String, ClientError> {
    let places = places(machine)?;
    let path = places.iter().find(|place| place.number == cpu).and_then(|place| place.path.as_ref());
    let Some(path) = path else {
        return Err(ClientError::Refused(format!("there is no CPU {cpu}: see cpu list")));
    };
    machine.execute("device_del", Some(json!({"id": path})))?;
    Ok(String::new())
}
