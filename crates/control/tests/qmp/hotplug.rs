//! vCPUs plugged and unplugged by clients.

use serde_json::{Value, json};

use super::common::Rig;

const TYPE: &str = "neoverse-n1-arm-cpu";

fn add(core: u64, id: Option<&str>) -> Value {
    let mut arguments = json!({"driver": TYPE, "core-id": core});
    if let Some(id) = id {
        arguments["id"] = id.into();
    }
    json!({"execute": "device_add", "arguments": arguments})
}

fn del(id: &str) -> Value {
    json!({"execute": "device_del", "arguments": {"id": id}})
}

#[test]
fn places_and_paths_are_told_and_deleted_devices_are_events() {
    let rig = Rig::with_room(2, 5);
    rig.machine.resume("the test").unwrap();
    let (mut client, mut other) = (rig.client(), rig.client());
    // As clients do it: what the list says of a place is what `device_add` takes.
    let places = client.execute("query-hotpluggable-cpus");
    let place = &places[3];
    let expected = json!({
        "type": TYPE, "vcpus-count": 1,
        "props": {"socket-id": 0, "cluster-id": 0, "core-id": 3, "thread-id": 0},
    });
    assert_eq!(*place, expected, "nothing is there, so there is no path");
    assert_eq!(places[1]["qom-path"], "/machine/unattached/device[1]");
    let mut arguments = place["props"].clone();
    arguments["driver"] = place["type"].clone();
    arguments["id"] = "cpu-3".into();
    let nothing = json!({"return": {}});
    assert_eq!(client.call(&json!({"execute": "device_add", "arguments": arguments})), nothing);
    assert_eq!(client.call(&add(2, None)), nothing);
    let paths: Vec<_> = [
        Some("/machine/unattached/device[0]"),
        Some("/machine/unattached/device[1]"),
        Some("/machine/peripheral-anon/device[0]"),
        Some("/machine/peripheral/cpu-3"),
        None,
    ]
    .map(|path| json!(path))
    .into();
    let told =
        |list: Value| list.as_array().unwrap().iter().map(|e| e["qom-path"].clone()).collect::<Vec<_>>();
    assert_eq!(told(other.execute("query-hotpluggable-cpus")), paths);
    assert_eq!(told(other.execute("query-cpus-fast")), paths[..4]);
    assert_eq!(other.call(&del("cpu-3")), nothing);
    assert_eq!(other.call(&del("/machine/peripheral-anon/device[0]")), nothing);
    assert_eq!(other.call(&del("/machine/unattached/device[1]")), nothing, "it is off");
    for data in [
        json!({"device": "cpu-3", "path": "/machine/peripheral/cpu-3"}),
        json!({"path": "/machine/peripheral-anon/device[0]"}),
        json!({"path": "/machine/unattached/device[1]"}),
    ] {
        assert_eq!(client.event(), json!({"event": "DEVICE_DELETED", "data": data}));
    }
    assert_eq!(client.execute("query-cpus-fast").as_array().unwrap().len(), 1);
    assert_eq!(client.call(&add(3, Some("cpu-3"))), nothing, "place and id are free again");
}

#[test]
fn what_cannot_be_plugged_is_refused_and_the_machine_goes_on() {
    let rig = Rig::with_room(1, 3);
    rig.machine.resume("the test").unwrap();
    let mut client = rig.client();
    assert_eq!(client.call(&add(1, Some("one"))), json!({"return": {}}));
    for (arguments, desc) in [
        (json!({}), "Parameter 'driver' is missing"),
        (json!({"driver": 5}), "Invalid parameter type for 'driver', expected: string"),
        (json!({"driver": "foo"}), "'foo' is not a valid device model name"),
        (json!({"driver": "virtio-blk-pci", "id": "x"}), "'virtio-blk-pci' is not a valid device model name"),
        (json!({"driver": "max-arm-cpu"}), "Invalid CPU type, expected cpu type: 'neoverse-n1-arm-cpu'"),
        (json!({"driver": TYPE}), "CPU core-id is not set"),
        (json!({"driver": TYPE, "core-id": "2"}), "Invalid parameter type for 'core-id', expected: integer"),
        (json!({"driver": TYPE, "core-id": 2.5}), "Invalid parameter type for 'core-id', expected: integer"),
        (json!({"driver": TYPE, "core-id": 3}), "Invalid CPU core-id: 3 must be in range 0:2"),
        (json!({"driver": TYPE, "core-id": -1}), "Invalid CPU core-id: -1 must be in range 0:2"),
        (json!({"driver": TYPE, "core-id": 0}), "CPU[0] exists"),
        (json!({"driver": TYPE, "core-id": 1}), "CPU[1] exists"),
        (json!({"driver": TYPE, "core-id": 2, "id": "one"}), "Duplicate device ID 'one'"),
        (json!({"driver": TYPE, "core-id": 2, "id": "9!"}), "Invalid device ID '9!'"),
        (json!({"driver": TYPE, "core-id": 2, "foo": 1}), "Parameter 'foo' is unexpected"),
    ] {
        let request = json!({"execute": "device_add", "arguments": arguments}).to_string();
        assert_eq!(client.refused(request.as_bytes()), ("GenericError".into(), desc.into()), "{request}");
    }
    let missing = ("DeviceNotFound".to_owned(), "Device 'two' not found".to_owned());
    assert_eq!(client.refused(del("two").to_string().as_bytes()), missing);
    let boot = client.refused(del("/machine/unattached/device[0]").to_string().as_bytes());
    assert_eq!(boot.1, "CPU 0 boots the machine and stays: choose another");
    assert_eq!(client.execute("query-cpus-fast").as_array().unwrap().len(), 2);
    rig.power_on(1);
    let on = client.refused(del("one").to_string().as_bytes()).1;
    assert!(on.contains("take it offline in the guest first"), "{on}");
    assert_eq!(client.execute("query-status")["running"], true);
    assert_eq!(client.events.len(), 0);
}

/// Of several clients that want the same place, one gets it; nothing is left of the others.
#[test]
fn clients_that_plug_at_once_do_not_disturb_each_other() {
    let rig = Rig::with_room(1, 4);
    rig.machine.resume("the test").unwrap();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let rig = &rig;
            scope.spawn(move || {
                let mut client = rig.client();
                for i in 0..40 {
                    let core = 1 + (number + i) % 3;
                    let id = format!("client-{number}");
                    if client.call(&add(core, Some(&id))).get("return").is_some() {
                        assert_eq!(client.call(&del(&id)), json!({"return": {}}));
                    }
                }
            });
        }
    });
    let mut client = rig.client();
    for core in 1..4 {
        assert_eq!(client.call(&add(core, None)), json!({"return": {}}));
    }
}
