//! vCPUs as control clients see them: devices with a place in the topology, a path, and perhaps an id.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use armlet_machine::topology::{Position, Topology};
use armlet_machine::{MachineHandle, PlugError};
use serde_json::{Value, json};

use crate::command::{Arguments, Context};
use crate::error::{ErrorClass, QmpError};
use crate::schema::{EMPTY, Enum, Object, Type, member, object, optional};

static TARGET: Enum = Enum { name: "SysEmuTarget", values: &["aarch64"] };
static PROPERTIES: Object = object(
    "CpuInstanceProperties",
    &[
        optional("socket-id", Type::Int),
        optional("cluster-id", Type::Int),
        optional("core-id", Type::Int),
        optional("thread-id", Type::Int),
    ],
);
/// What `query-cpus-fast` tells of one vCPU.
pub(crate) static CPU_INFO: Object = Object {
    name: "CpuInfoFast",
    members: &[
        member("cpu-index", Type::Int),
        member("qom-type", Type::Str),
        member("qom-path", Type::Str),
        member("thread-id", Type::Int),
        optional("props", Type::Object(&PROPERTIES)),
        member("target", Type::Enum(&TARGET)),
    ],
    variants: Some(("target", &[("aarch64", &EMPTY)])),
};
/// What `query-hotpluggable-cpus` tells of one place.
pub(crate) static PLACE_INFO: Object = object(
    "HotpluggableCPU",
    &[
        member("type", Type::Str),
        member("vcpus-count", Type::Int),
        member("props", Type::Object(&PROPERTIES)),
        optional("qom-path", Type::Str),
    ],
);
/// What `device_add` takes.
pub(crate) static DEVICE_ADD: Object = object(
    "DeviceAdd",
    &[
        member("driver", Type::Str),
        optional("id", Type::Str),
        optional("socket-id", Type::Int),
        optional("cluster-id", Type::Int),
        optional("core-id", Type::Int),
        optional("thread-id", Type::Int),
    ],
);
/// What `device_del` takes.
pub(crate) static DEVICE_DEL: Object = object("DeviceDel", &[member("id", Type::Str)]);

/// How every type of CPU ends.
const CPU_TYPE: &str = "-arm-cpu";

/// A vCPU that a client plugged.
enum Name {
    Id(String),
    /// Without one: counted.
    Number(u64),
}

/// What clients call the vCPUs that they plugged, by vCPU. An entry is there from before the vCPU is plugged until it
/// is unplugged.
#[derive(Default)]
pub(crate) struct Devices {
    names: BTreeMap<usize, Name>,
    /// How many had no id so far.
    anonymous: u64,
}

impl Devices {
    /// The id that its client gave vCPU `index`.
    pub(crate) fn id(&self, index: usize) -> Option<&str> {
        match self.names.get(&index)? {
            Name::Id(id) => Some(id),
            Name::Number(_) => None,
        }
    }

    /// Where vCPU `index` is in the tree of devices.
    pub(crate) fn path(&self, index: usize) -> String {
        match self.names.get(&index) {
            Some(Name::Id(id)) => format!("/machine/peripheral/{id}"),
            Some(Name::Number(n)) => format!("/machine/peripheral-anon/device[{n}]"),
            None => format!("/machine/unattached/device[{index}]"),
        }
    }

    /// Notes a vCPU that is about to be plugged.
    fn add(&mut self, index: usize, id: Option<&str>) -> Result<(), QmpError> {
        if self.names.contains_key(&index) {
            return Err(exists(index));
        }
        let name = match id {
            Some(id) if self.names.values().any(|name| matches!(name, Name::Id(other) if other == id)) => {
                return Err(QmpError::generic(format!("Duplicate device ID '{id}'")));
            }
            Some(id) => Name::Id(id.to_owned()),
            None => {
                self.anonymous += 1;
                Name::Number(self.anonymous - 1)
            }
        };
        self.names.insert(index, name);
        Ok(())
    }

    /// Forgets a vCPU that is not there any more.
    pub(crate) fn remove(&mut self, index: usize) {
        self.names.remove(&index);
    }

    /// Which of the vCPUs `present` is called `name`, by id or path.
    fn find(&self, name: &str, mut present: impl Iterator<Item = usize>) -> Option<usize> {
        present.find(|&index| self.id(index) == Some(name) || self.path(index) == name)
    }
}

fn exists(index: usize) -> QmpError {
    QmpError::generic(format!("CPU[{index}] exists"))
}

fn devices(context: &Context) -> MutexGuard<'_, Devices> {
    context.devices.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The type of the machine's CPUs.
fn type_name(machine: &MachineHandle) -> String {
    format!("{}{CPU_TYPE}", machine.cpu_model().name())
}

/// Where vCPU `index` is in the machine's topology.
fn properties(topology: &Topology, index: usize) -> Value {
    let at = topology.position(index);
    json!({"socket-id": at.socket, "cluster-id": at.cluster, "core-id": at.core, "thread-id": at.thread})
}

/// The vCPUs that are there.
pub(crate) fn query_fast(context: &Context) -> Value {
    let kind = type_name(&context.machine);
    let (cpus, topology) = (context.machine.cpus(), context.machine.topology());
    let devices = devices(context);
    let info = cpus.into_iter().map(|cpu| {
        json!({
            "cpu-index": cpu.index,
            "qom-type": kind,
            "qom-path": devices.path(cpu.index),
            "thread-id": cpu.thread_id,
            "props": properties(&topology, cpu.index),
            "target": "aarch64",
        })
    });
    info.collect()
}

/// All places, and what is in them.
pub(crate) fn query_places(context: &Context) -> Value {
    let kind = type_name(&context.machine);
    let topology = context.machine.topology();
    let present: Vec<_> = context.machine.cpus().iter().map(|cpu| cpu.index).collect();
    let devices = devices(context);
    let place = |index| {
        let mut info = json!({"type": kind, "vcpus-count": 1, "props": properties(&topology, index)});
        if present.contains(&index) {
            info["qom-path"] = devices.path(index).into();
        }
        info
    };
    (0..topology.places()).map(place).collect()
}

/// `device_add`, which knows vCPUs only.
pub(crate) fn add(context: &Context, arguments: &Arguments) -> Result<Value, QmpError> {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    let driver = text("driver").unwrap_or_default();
    let kind = type_name(&context.machine);
    if driver != kind {
        return Err(QmpError::generic(match driver.ends_with(CPU_TYPE) {
            true => format!("Invalid CPU type, expected cpu type: '{kind}'"),
            false => format!("'{driver}' is not a valid device model name"),
        }));
    }
    let id = text("id");
    if let Some(id) = id.filter(|id| !is_id(id)) {
        return Err(QmpError::generic(format!("Invalid device ID '{id}'")));
    }
    let index = place(arguments, &context.machine.topology())?;
    if context.machine.cpus().iter().any(|cpu| cpu.index == index) {
        return Err(exists(index));
    }
    devices(context).add(index, id)?;
    if let Err(error) = context.machine.plug_cpu(index) {
        devices(context).remove(index);
        return Err(error.into());
    }
    Ok(json!({}))
}

/// The number of the vCPU that `arguments` place in `topology`. What there is only one of may be left out, but for the
/// core.
fn place(arguments: &Arguments, topology: &Topology) -> Result<usize, QmpError> {
    let part = |name: &str, count: usize| {
        let last = count - 1;
        let Some(value) = arguments.get(name) else {
            let only = last == 0 && name != "core-id";
            return only.then_some(0).ok_or_else(|| QmpError::generic(format!("CPU {name} is not set")));
        };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= last);
        let outside = || QmpError::generic(format!("Invalid CPU {name}: {value} must be in range 0:{last}"));
        number.ok_or_else(outside)
    };
    Ok(topology.index(Position {
        socket: part("socket-id", topology.sockets)?,
        cluster: part("cluster-id", topology.clusters)?,
        thread: part("thread-id", topology.threads)?,
        core: part("core-id", topology.cores)?,
    }))
}

/// True for a letter, then letters, digits, `-`, `.` and `_`.
fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// `device_del`, by id or by path.
pub(crate) fn delete(context: &Context, arguments: &Arguments) -> Result<Value, QmpError> {
    let name = arguments.get("id").and_then(Value::as_str).unwrap_or_default();
    let present = context.machine.cpus().into_iter().map(|cpu| cpu.index);
    let found = devices(context).find(name, present);
    let missing = || QmpError::new(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"));
    // The event that tells of it, and what is noted of the vCPU, come and go with the machine's notice.
    match context.machine.unplug_cpu(found.ok_or_else(missing)?) {
        // Another client was faster.
        Err(PlugError::Absent(_)) => Err(missing()),
        other => Ok(other.map(|()| json!({}))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_and_wrong_ones_named() {
        let flat = Topology::flat(4);
        let place = |value: Value| place(value.as_object().unwrap(), &flat).map_err(|e| e.desc);
        assert_eq!(place(json!({"core-id": 3, "socket-id": 0, "thread-id": 0, "cluster-id": 0})), Ok(3));
        assert_eq!(place(json!({"core-id": 0})), Ok(0));
        for (value, error) in [
            (json!({"socket-id": 0}), "CPU core-id is not set"),
            (json!({"core-id": 4}), "Invalid CPU core-id: 4 must be in range 0:3"),
            (json!({"core-id": -1}), "Invalid CPU core-id: -1 must be in range 0:3"),
            (json!({"core-id": u64::MAX}), "Invalid CPU core-id: 18446744073709551615 must be in range 0:3"),
            (json!({"core-id": 1, "socket-id": 9}), "Invalid CPU socket-id: 9 must be in range 0:0"),
            (json!({"core-id": 1, "thread-id": 1}), "Invalid CPU thread-id: 1 must be in range 0:0"),
        ] {
            assert_eq!(place(value), Err(error.to_owned()));
        }
    }

    #[test]
    fn places_are_found_by_their_properties() {
        let topology = Topology { sockets: 1, clusters: 2, cores: 2, threads: 2 };
        for index in 0..8 {
            let place = place(properties(&topology, index).as_object().unwrap(), &topology);
            assert_eq!(place.map_err(|e| e.desc), Ok(index));
        }
        for (value, error) in [
            (json!({"core-id": 1, "thread-id": 0}), "CPU cluster-id is not set"),
            (json!({"core-id": 1, "cluster-id": 1}), "CPU thread-id is not set"),
            (json!({"thread-id": 1, "cluster-id": 1}), "CPU core-id is not set"),
            (
                json!({"core-id": 2, "cluster-id": 1, "thread-id": 0}),
                "Invalid CPU core-id: 2 must be in range 0:1",
            ),
        ] {
            assert_eq!(place(value.as_object().unwrap(), &topology).unwrap_err().desc, error);
        }
    }

    #[test]
    fn devices_have_the_paths_that_clients_know() {
        let mut devices = Devices::default();
        devices.add(4, Some("c4")).unwrap();
        devices.add(5, None).unwrap();
        devices.add(6, None).unwrap();
        assert_eq!(devices.add(4, None).unwrap_err().desc, "CPU[4] exists");
        assert_eq!(devices.add(7, Some("c4")).unwrap_err().desc, "Duplicate device ID 'c4'");
        let paths: Vec<_> = [0, 4, 5, 6].map(|index| devices.path(index)).into();
        let expected = [
            "/machine/unattached/device[0]",
            "/machine/peripheral/c4",
            "/machine/peripheral-anon/device[0]",
            "/machine/peripheral-anon/device[1]",
        ];
        assert_eq!(paths, expected);
        assert_eq!(devices.find("c4", 0..8), Some(4));
        assert_eq!(devices.find(expected[3], 0..8), Some(6));
        assert_eq!(devices.find("c5", 0..8), None);
        devices.remove(4);
        devices.add(4, None).unwrap();
        assert_eq!(devices.path(4), "/machine/peripheral-anon/device[2]");
        assert!(is_id("a-1._B") && !is_id("9a") && !is_id("") && !is_id("a!") && !is_id("ä"));
    }
}
