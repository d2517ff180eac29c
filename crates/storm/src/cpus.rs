//! CPUs that come and go: switched off and on by Linux, unplugged and plugged through QMP.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use armlet::control::Client;
use serde_json::{Value, json};

use crate::agents::Agent;
use crate::guest::Guest;

/// How often a CPU that has just been switched off is asked to leave.
const TRIES: usize = 100;

/// A place for a CPU, as QMP tells of it.
struct Place {
    info: Value,
    /// Of the CPU that is there.
    path: Option<String>,
}

fn place(client: &mut Client, cpu: usize) -> Result<Place> {
    let all = client.execute("query-hotpluggable-cpus", None)?;
    let here = |info: &&Value| info["props"]["core-id"].as_u64() == Some(cpu as u64);
    let info = all.as_array().and_then(|all| all.iter().find(here)).context("there is no such place")?;
    Ok(Place { path: info["qom-path"].as_str().map(str::to_owned), info: info.clone() })
}

fn plug(client: &mut Client, cpu: usize) -> Result<()> {
    let place = place(client, cpu)?;
    let mut arguments = place.info["props"].clone();
    arguments["driver"] = place.info["type"].clone();
    client
        .execute("device_add", Some(arguments))
        .map(drop)
        .with_context(|| format!("CPU {cpu} is not plugged"))
}

fn unplug(client: &mut Client, cpu: usize) -> Result<()> {
    let path = place(client, cpu)?.path.context("there is no CPU")?;
    for _ in 0..TRIES {
        match client.execute("device_del", Some(json!({"id": path}))) {
            // Linux does not wait for a CPU that a debugger keeps from switching itself off.
            Err(error) if error.to_string().contains("is on") => thread::sleep(Duration::from_millis(50)),
            other => return other.map(drop).with_context(|| format!("CPU {cpu} is not unplugged")),
        }
    }
    bail!("CPU {cpu} does not switch itself off")
}

/// Switches CPUs off and on again, all but the first, and takes some of them out meanwhile.
pub fn come_and_go(agent: &mut Agent, guest: &Guest, client: &mut Client) {
    // What Linux has, and what is plugged.
    let places = agent.machine.places();
    let mut plugged: Vec<bool> =
        (0..places).map(|cpu| agent.machine.cpus().iter().any(|info| info.index == cpu)).collect();
    agent.repeat(200, |agent| {
        let cpu = 1 + agent.random.below(places - 1);
        let (watch, name) = (Arc::clone(&agent.watch), agent.name);
        let ask = |what: &str| {
            watch.begins(name, format!("Linux, to take CPU {cpu} {what}"));
            guest.command(&format!("{what} {cpu}"))
        };
        if !plugged[cpu] {
            if ask("online") == Some(true) {
                bail!("Linux has switched on CPU {cpu}, which is not there");
            }
            plug(client, cpu)?;
            plugged[cpu] = true;
            agent.watch.count("plugged");
            return expect(ask("online"), "online", cpu);
        }
        expect(ask("offline"), "offline", cpu)?;
        agent.watch.count("offline");
        if agent.random.once_in(2) {
            agent.begins(format!("QMP, to unplug CPU {cpu}"));
            unplug(client, cpu)?;
            plugged[cpu] = false;
            agent.watch.count("unplugged");
            return Ok(());
        }
        expect(ask("online"), "online", cpu)
    });
}

fn expect(answer: Option<bool>, what: &str, cpu: usize) -> Result<()> {
    match answer {
        Some(false) => bail!("Linux does not take CPU {cpu} {what}"),
        _ => Ok(()),
    }
}
