//! Events: notices of the machine as control clients see them.

use std::time::{SystemTime, UNIX_EPOCH};

use armlet_machine::{Cause, Notice};
use serde_json::{Value, json};

use crate::cpus::Devices;
use crate::schema::{EMPTY, Enum, EventType, Object, Type, member, object, optional};

static SHUTDOWN_CAUSE: Enum = Enum {
    name: "ShutdownCause",
    values: &[
        "host-error",
        "host-qmp-quit",
        "host-qmp-system-reset",
        "host-signal",
        "host-ui",
        "guest-shutdown",
        "guest-reset",
        "guest-panic",
    ],
};
static PANIC_ACTION: Enum = Enum { name: "GuestPanicAction", values: &["poweroff"] };
static CAUSED: Object =
    object("Caused", &[member("guest", Type::Bool), member("reason", Type::Enum(&SHUTDOWN_CAUSE))]);
static PANICKED: Object = object("GuestPanicked", &[member("action", Type::Enum(&PANIC_ACTION))]);
static DELETED: Object = object("DeviceDeleted", &[optional("device", Type::Str), member("path", Type::Str)]);

/// All events.
pub(crate) static EVENTS: &[EventType] = &[
    EventType { name: "STOP", data: &EMPTY },
    EventType { name: "RESUME", data: &EMPTY },
    EventType { name: "RESET", data: &CAUSED },
    EventType { name: "SHUTDOWN", data: &CAUSED },
    EventType { name: "POWERDOWN", data: &EMPTY },
    EventType { name: "GUEST_PANICKED", data: &PANICKED },
    EventType { name: "DEVICE_DELETED", data: &DELETED },
];

const fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::HostError => "host-error",
        Cause::HostQuit => "host-qmp-quit",
        Cause::HostReset => "host-qmp-system-reset",
        Cause::HostSignal => "host-signal",
        Cause::HostUi => "host-ui",
        Cause::GuestShutdown => "guest-shutdown",
        Cause::GuestReset => "guest-reset",
        Cause::GuestPanic => "guest-panic",
    }
}

/// The event that tells of `notice`, which comes about now, and of a vCPU by what `devices` knows of it; none if clients
/// are not told.
pub(crate) fn of_notice(notice: &Notice, devices: &Devices) -> Option<Value> {
    let caused = |cause: &Cause| Some(json!({"guest": cause.by_guest(), "reason": reason(*cause)}));
    Some(match notice {
        Notice::Stopped => event("STOP", None),
        Notice::Resumed => event("RESUME", None),
        Notice::Reset(cause) => event("RESET", caused(cause)),
        Notice::Shutdown(cause) => event("SHUTDOWN", caused(cause)),
        Notice::PowerKey => event("POWERDOWN", None),
        Notice::CpuRemoved(index) => {
            let mut data = json!({"path": devices.path(*index)});
            if let Some(id) = devices.id(*index) {
                data["device"] = id.into();
            }
            event("DEVICE_DELETED", Some(data))
        }
        Notice::GuestPanicked => event("GUEST_PANICKED", Some(json!({"action": "poweroff"}))),
        Notice::Debug { .. } => return None,
    })
}

fn event(name: &str, data: Option<Value>) -> Value {
    // Before 1970 the host's clock is wrong, whatever is said.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = json!({"seconds": now.as_secs(), "microseconds": now.subsec_micros()});
    let mut event = json!({"event": name, "timestamp": timestamp});
    if let Some(data) = data {
        event["data"] = data;
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICES: [Notice; 7] = [
        Notice::CpuRemoved(3),
        Notice::Stopped,
        Notice::Resumed,
        Notice::Reset(Cause::HostReset),
        Notice::Shutdown(Cause::GuestPanic),
        Notice::PowerKey,
        Notice::GuestPanicked,
    ];

    #[test]
    fn every_notice_is_an_event_of_its_type() {
        for notice in NOTICES {
            let event = of_notice(&notice, &Devices::default()).unwrap();
            let kind = EVENTS.iter().find(|e| e.name == event["event"]).unwrap();
            let data = event.get("data").map(|d| d.as_object().unwrap().clone());
            assert_eq!(data.is_none(), kind.data.members.is_empty(), "{event}: no empty data");
            kind.data.check(&data.unwrap_or_default()).unwrap();
            assert!(event["timestamp"]["seconds"].as_u64().unwrap() > 1_700_000_000);
            assert!(event["timestamp"]["microseconds"].as_u64().unwrap() < 1_000_000);
        }
        let stop = Notice::Debug { vcpu: 0, stop: armlet_engine::DebugStop::Step };
        assert_eq!(of_notice(&stop, &Devices::default()), None);
        let event = of_notice(&Notice::Reset(Cause::HostReset), &Devices::default()).unwrap();
        assert_eq!(event["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
    }
}
