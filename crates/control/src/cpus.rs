//! vCPUs as control clients see them.

use armlet_machine::MachineHandle;
use serde_json::{Value, json};

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

/// The type of the machine's CPUs.
fn type_name(machine: &MachineHandle) -> String {
    format!("{}-arm-cpu", machine.cpu_model().name())
}

/// Where vCPU `index` is in the machine's topology.
fn properties(index: usize) -> Value {
    json!({"socket-id": 0, "cluster-id": 0, "core-id": index, "thread-id": 0})
}

/// The vCPUs that are there.
pub(crate) fn query_fast(machine: &MachineHandle) -> Value {
    let kind = type_name(machine);
    let info = machine.cpus().into_iter().map(|cpu| {
        json!({
            "cpu-index": cpu.index,
            "qom-type": kind,
            "qom-path": format!("/machine/unattached/device[{}]", cpu.index),
            "thread-id": cpu.thread_id,
            "props": properties(cpu.index),
            "target": "aarch64",
        })
    });
    info.collect()
}
