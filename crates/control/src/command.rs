//! The commands: their types, and what they do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use armlet_machine::{Cause, MachineHandle, RunState, SavedThen};
use serde_json::{Map, Value, json};

use crate::cpus::{self, Devices};
use crate::error::{ErrorClass, QmpError};
use crate::event::EVENTS;
use crate::schema::{CommandType, EMPTY, Enum, Object, Type, introspect, member, object, optional};

/// What commands work on.
pub(crate) struct Context {
    pub(crate) machine: MachineHandle,
    /// What clients call the vCPUs that they plugged; common to all.
    pub(crate) devices: Arc<Mutex<Devices>>,
    /// Who asks, for the log.
    pub(crate) client: u64,
}

impl Context {
    /// Why a state changes, for the log.
    fn reason(&self, command: &str) -> String {
        format!("{command} by control client {}", self.client)
    }
}

/// A command's arguments, checked by its type.
pub(crate) type Arguments = Map<String, Value>;

/// A command.
pub(crate) struct Command {
    pub(crate) kind: CommandType,
    run: fn(&Context, &Arguments) -> Result<Value, QmpError>,
}

const fn command(
    name: &'static str,
    returns: Type,
    run: fn(&Context, &Arguments) -> Result<Value, QmpError>,
) -> Command {
    Command { kind: CommandType { name, arguments: &EMPTY, returns, features: &[] }, run }
}

const NOTHING: Type = Type::Object(&EMPTY);

/// All commands.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        kind: CommandType {
            name: "qmp_capabilities",
            arguments: &CAPABILITIES,
            returns: NOTHING,
            features: &[],
        },
        run: |_, _| {
            let text = "Capabilities negotiation is already complete, command ignored";
            Err(QmpError::new(ErrorClass::CommandNotFound, text))
        },
    },
    command("query-version", Type::Object(&VERSION_INFO), |_, _| Ok(version())),
    command("query-commands", Type::Array(&Type::Object(&COMMAND_INFO)), |_, _| {
        Ok(COMMANDS.iter().map(|c| json!({"name": c.kind.name})).collect())
    }),
    command("query-qmp-schema", Type::Array(&Type::Object(&SCHEMA_INFO)), |_, _| {
        let kinds: Vec<_> = COMMANDS.iter().map(|c| &c.kind).collect();
        Ok(introspect(&kinds, EVENTS))
    }),
    command("query-status", Type::Object(&STATUS_INFO), |context, _| Ok(status(&context.machine))),
    command("stop", NOTHING, |context, _| {
        context.machine.pause(&context.reason("stop"))?;
        Ok(json!({}))
    }),
    command("cont", NOTHING, |context, _| {
        context.machine.resume(&context.reason("cont"))?;
        Ok(json!({}))
    }),
    command("system_reset", NOTHING, |context, _| {
        context.machine.reset(Cause::HostReset);
        Ok(json!({}))
    }),
    command("system_powerdown", NOTHING, |context, _| {
        context.machine.press_power_key();
        Ok(json!({}))
    }),
    command("quit", NOTHING, |context, _| {
        context.machine.quit(Cause::HostQuit, &format!("control client {}", context.client));
        Ok(json!({}))
    }),
    command("query-cpus-fast", Type::Array(&Type::Object(&cpus::CPU_INFO)), |context, _| {
        Ok(cpus::query_fast(context))
    }),
    command("query-hotpluggable-cpus", Type::Array(&Type::Object(&cpus::PLACE_INFO)), |context, _| {
        Ok(cpus::query_places(context))
    }),
    Command {
        kind: CommandType {
            name: "x-snapshot-save-file",
            arguments: &SAVE,
            returns: Type::Object(&SAVED),
            features: &["unstable"],
        },
        run: save,
    },
    Command {
        kind: CommandType {
            name: "device_add",
            arguments: &cpus::DEVICE_ADD,
            returns: NOTHING,
            // Arguments keep their types.
            features: &["json-cli", "json-cli-hotplug"],
        },
        run: cpus::add,
    },
    Command {
        kind: CommandType {
            name: "device_del",
            arguments: &cpus::DEVICE_DEL,
            returns: NOTHING,
            features: &[],
        },
        run: cpus::delete,
    },
];

/// Saves the machine to a file on this host; with `quit`, it ends then without going on first.
static SAVE: Object =
    object("XSnapshotSaveFile", &[member("filename", Type::Str), optional("quit", Type::Bool)]);
/// Bytes, and milliseconds: until the file was safe, and while the machine stood still.
static SAVED: Object = object(
    "XSnapshotSaveFileInfo",
    &[member("size", Type::Int), member("total-time", Type::Int), member("downtime", Type::Int)],
);

fn save(context: &Context, arguments: &Arguments) -> Result<Value, QmpError> {
    let path = arguments["filename"].as_str().unwrap_or_default();
    let quit = arguments.get("quit").and_then(Value::as_bool).unwrap_or(false);
    let then = if quit { SavedThen::Ends } else { SavedThen::GoesOn };
    let report = context.machine.save(path.as_ref(), then)?;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(json!({
        "size": report.size,
        "total-time": milliseconds(report.total),
        "downtime": milliseconds(report.stopped),
    }))
}

/// Nothing may be switched on.
static CAPABILITY: Enum = Enum { name: "QMPCapability", values: &[] };
static CAPABILITIES: Object =
    object("Capabilities", &[optional("enable", Type::Array(&Type::Enum(&CAPABILITY)))]);
static VERSION_TRIPLE: Object = object(
    "VersionTriple",
    &[member("major", Type::Int), member("minor", Type::Int), member("micro", Type::Int)],
);
static VERSION_INFO: Object =
    object("VersionInfo", &[member("qemu", Type::Object(&VERSION_TRIPLE)), member("package", Type::Str)]);
static COMMAND_INFO: Object = object("CommandInfo", &[member("name", Type::Str)]);
static RUN_STATE: Enum =
    Enum { name: "RunState", values: &["prelaunch", "running", "paused", "internal-error", "shutdown"] };
static STATUS_INFO: Object =
    object("StatusInfo", &[member("running", Type::Bool), member("status", Type::Enum(&RUN_STATE))]);

static META_TYPE: Enum =
    Enum { name: "SchemaMetaType", values: &["builtin", "enum", "array", "object", "command", "event"] };
static JSON_TYPE: Enum =
    Enum { name: "JSONType", values: &["string", "int", "boolean", "object", "array", "value"] };
static SCHEMA_INFO: Object = Object {
    name: "SchemaInfo",
    members: &[
        member("name", Type::Str),
        member("meta-type", Type::Enum(&META_TYPE)),
        optional("features", Type::Array(&Type::Str)),
    ],
    variants: Some((
        "meta-type",
        &[
            ("builtin", &SCHEMA_BUILTIN),
            ("enum", &SCHEMA_ENUM),
            ("array", &SCHEMA_ARRAY),
            ("object", &SCHEMA_OBJECT),
            ("command", &SCHEMA_COMMAND),
            ("event", &SCHEMA_EVENT),
        ],
    )),
};
static SCHEMA_BUILTIN: Object = object("SchemaInfoBuiltin", &[member("json-type", Type::Enum(&JSON_TYPE))]);
static SCHEMA_ENUM: Object = object(
    "SchemaInfoEnum",
    &[
        member("members", Type::Array(&Type::Object(&SCHEMA_ENUM_MEMBER))),
        member("values", Type::Array(&Type::Str)),
    ],
);
static SCHEMA_ENUM_MEMBER: Object = object("SchemaInfoEnumMember", &[member("name", Type::Str)]);
static SCHEMA_ARRAY: Object = object("SchemaInfoArray", &[member("element-type", Type::Str)]);
static SCHEMA_OBJECT: Object = object(
    "SchemaInfoObject",
    &[
        member("members", Type::Array(&Type::Object(&SCHEMA_MEMBER))),
        optional("tag", Type::Str),
        optional("variants", Type::Array(&Type::Object(&SCHEMA_VARIANT))),
    ],
);
static SCHEMA_MEMBER: Object = object(
    "SchemaInfoObjectMember",
    &[member("name", Type::Str), member("type", Type::Str), optional("default", Type::Any)],
);
static SCHEMA_VARIANT: Object =
    object("SchemaInfoObjectVariant", &[member("case", Type::Str), member("type", Type::Str)]);
static SCHEMA_COMMAND: Object =
    object("SchemaInfoCommand", &[member("arg-type", Type::Str), member("ret-type", Type::Str)]);
static SCHEMA_EVENT: Object = object("SchemaInfoEvent", &[member("arg-type", Type::Str)]);

/// This program's version, under the name that clients look for.
pub(crate) fn version() -> Value {
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let triple = json!({
        "major": number(env!("CARGO_PKG_VERSION_MAJOR")),
        "minor": number(env!("CARGO_PKG_VERSION_MINOR")),
        "micro": number(env!("CARGO_PKG_VERSION_PATCH")),
    });
    json!({"qemu": triple, "package": concat!("armlet ", env!("CARGO_PKG_VERSION"))})
}

fn status(machine: &MachineHandle) -> Value {
    let state = machine.run_state();
    let name = match state {
        RunState::Prelaunch => "prelaunch",
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Failed => "internal-error",
        RunState::Shutdown => "shutdown",
    };
    json!({"status": name, "running": state == RunState::Running})
}

/// The command `name`.
///
/// # Errors
/// There is none.
pub(crate) fn find(name: &str) -> Result<&'static Command, QmpError> {
    let missing =
        || QmpError::new(ErrorClass::CommandNotFound, format!("The command {name} has not been found"));
    COMMANDS.iter().find(|c| c.kind.name == name).ok_or_else(missing)
}

impl Command {
    /// Checks the arguments and does it.
    pub(crate) fn execute(&self, context: &Context, arguments: &Arguments) -> Result<Value, QmpError> {
        self.kind.arguments.check(arguments)?;
        tracing::debug!(client = context.client, command = self.kind.name, "control");
        (self.run)(context, arguments)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_the_schema_is_of_its_own_type() {
        let names: HashSet<_> = COMMANDS.iter().map(|c| c.kind.name).collect();
        assert_eq!(names.len(), COMMANDS.len());
        let kinds: Vec<_> = COMMANDS.iter().map(|c| &c.kind).collect();
        let schema = introspect(&kinds, EVENTS);
        find("query-qmp-schema").unwrap().kind.returns.check("schema", &schema).unwrap();
        let described: HashSet<_> = schema.as_array().unwrap().iter().map(|e| e["name"].clone()).collect();
        assert_eq!(described.len(), schema.as_array().unwrap().len(), "nothing is described twice");
        find("query-version").unwrap().kind.returns.check("version", &version()).unwrap();
    }
}
