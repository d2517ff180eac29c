//! `armlet ctl`.

use std::fmt::Write as _;
use std::time::Duration;

use armlet::control::{Client, ClientError};
use serde_json::Value;

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
    let mut execute = |command| machine.execute(command, None);
    match args.command {
        CtlCommand::Status => state(&execute("query-status")?),
        CtlCommand::Stop => {
            execute("stop")?;
            state(&execute("query-status")?)
        }
        CtlCommand::Cont => {
            execute("cont")?;
            state(&execute("query-status")?)
        }
        CtlCommand::Reset => execute("system_reset").map(|_| String::new()),
        CtlCommand::Powerdown => execute("system_powerdown").map(|_| String::new()),
        CtlCommand::Quit => execute("quit").map(|_| String::new()),
        CtlCommand::Cpu(CpuCommand::List) => cpus(&execute("query-cpus-fast")?),
    }
}

fn state(answer: &Value) -> Result<String, ClientError> {
    let state = answer["status"].as_str().ok_or(ClientError::Answer)?;
    Ok(format!("{state}\n"))
}

fn cpus(answer: &Value) -> Result<String, ClientError> {
    let mut text = String::from("CPU  core  host thread\n");
    for cpu in answer.as_array().ok_or(ClientError::Answer)? {
        let number = |value: &Value| value.as_u64().ok_or(ClientError::Answer);
        let (index, core) = (number(&cpu["cpu-index"])?, number(&cpu["props"]["core-id"])?);
        let _ = writeln!(text, "{index:3}  {core:4}  {:11}", number(&cpu["thread-id"])?);
    }
    Ok(text)
}
