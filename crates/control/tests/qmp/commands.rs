//! Conversations as clients have them.

use armlet_machine::End;
use serde_json::{Value, json};

use super::common::{Client, Rig};

#[test]
fn a_client_negotiates_before_anything_else() {
    let rig = Rig::new(1);
    let mut client = rig.connect();
    let early = client.refused(br#"{"execute": "query-status"}"#);
    let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
    assert_eq!(early, ("CommandNotFound".into(), text.into()));
    let oob = client.refused(br#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#);
    assert_eq!(oob.1, "Parameter 'enable' does not accept value 'oob'");
    let request = json!({"execute": "qmp_capabilities", "arguments": {"enable": []}, "id": 1});
    assert_eq!(client.call(&request), json!({"return": {}, "id": 1}));
    let again = client.refused(br#"{"execute": "qmp_capabilities"}"#);
    let text = "Capabilities negotiation is already complete, command ignored";
    assert_eq!(again, ("CommandNotFound".into(), text.into()));
    assert_eq!(client.execute("query-status"), json!({"status": "running", "running": true}));
}

#[test]
fn ids_come_back_whatever_they_are() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    for id in [json!(1), json!("x"), json!(null), json!({"a": [1, {"b": -2.5}]}), json!([[]]), json!(true)] {
        let answer = client.call(&json!({"execute": "query-status", "id": id}));
        assert_eq!(answer["id"], id);
        let error = client.call(&json!({"execute": "no-such-command", "id": id}));
        assert_eq!((&error["id"], error.as_object().unwrap().len()), (&id, 2));
    }
    let answer = client.call(&json!({"execute": "query-status"}));
    assert!(answer.get("id").is_none());
}

/// Texts and classes are those that clients know.
#[test]
fn bad_requests_are_refused_in_the_words_that_clients_know() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    let not_found = "The command nope has not been found";
    assert_eq!(client.refused(br#"{"execute":"nope"}"#), ("CommandNotFound".into(), not_found.into()));
    for (request, desc) in [
        (r#"{"execute":5}"#, "QMP input member 'execute' must be a string"),
        (r#"{"exec":5}"#, "QMP input member 'exec' is unexpected"),
        (r#"{"exec-oob":"stop"}"#, "QMP input member 'exec-oob' is unexpected"),
        ("{}", "QMP input lacks member 'execute'"),
        ("[]", "QMP input must be a JSON object"),
        ("5", "QMP input must be a JSON object"),
        ("\"x\"", "QMP input must be a JSON object"),
        (r#"{"execute":"stop","arguments":[]}"#, "QMP input member 'arguments' must be an object"),
        (r#"{"execute":"stop","foo":1}"#, "QMP input member 'foo' is unexpected"),
        (r#"{"execute":"stop","arguments":{"a":1}}"#, "Parameter 'a' is unexpected"),
    ] {
        assert_eq!(client.refused(request.as_bytes()), ("GenericError".into(), desc.into()), "{request}");
    }
    assert_eq!(client.execute("query-status")["running"], true, "and the machine goes on");
}

#[test]
fn stop_and_cont_change_the_state_and_every_client_hears_it() {
    let rig = Rig::paused(2);
    let (mut client, mut other, mut silent) = (rig.client(), rig.client(), rig.connect());
    let status = |c: &mut Client| c.execute("query-status");
    assert_eq!(status(&mut client), json!({"status": "prelaunch", "running": false}));
    client.execute("stop");
    assert_eq!(status(&mut client), json!({"status": "prelaunch", "running": false}));
    client.execute("cont");
    assert_eq!(status(&mut other), json!({"status": "running", "running": true}));
    client.execute("cont");
    other.execute("stop");
    assert_eq!(status(&mut client), json!({"status": "paused", "running": false}));
    other.execute("stop");
    client.execute("cont");
    for c in [&mut client, &mut other] {
        for name in ["RESUME", "STOP", "RESUME"] {
            assert_eq!(c.event(), json!({"event": name}));
        }
    }
    // Only who has negotiated hears events: the next message is an answer.
    silent.send(b"{\"execute\":\"qmp_capabilities\"}");
    assert_eq!(silent.receive(), json!({"return": {}}));
}

#[test]
fn reset_powerdown_and_quit_are_told_with_their_reasons() {
    let rig = Rig::new(1);
    let (mut client, mut other) = (rig.client(), rig.client());
    client.execute("system_reset");
    let reset = json!({"event": "RESET", "data": {"guest": false, "reason": "host-qmp-system-reset"}});
    assert_eq!(client.event(), reset);
    client.execute("system_powerdown");
    client.execute("stop");
    client.execute("system_reset");
    assert_eq!(client.event(), json!({"event": "POWERDOWN"}));
    assert_eq!(client.event(), json!({"event": "STOP"}));
    assert_eq!(client.event(), reset);
    assert_eq!(client.execute("query-status")["running"], false, "a reset does not start the machine");
    assert_eq!(client.call(&json!({"execute": "quit", "id": 9})), json!({"return": {}, "id": 9}));
    let shutdown = json!({"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}});
    assert_eq!(client.event(), shutdown);
    assert_eq!(client.try_receive(), None);
    for expected in [&reset, &json!({"event": "POWERDOWN"}), &json!({"event": "STOP"}), &reset, &shutdown] {
        assert_eq!(other.event(), *expected);
    }
    assert_eq!(other.try_receive(), None);
    assert_eq!(rig.end(), End::Quit("control client 1".into()));
}

#[test]
fn cpus_are_listed_with_the_threads_that_the_host_knows() {
    let rig = Rig::new(3);
    let mut client = rig.client();
    let cpus = client.execute("query-cpus-fast");
    assert_eq!(cpus.as_array().unwrap().len(), 3);
    for (index, cpu) in cpus.as_array().unwrap().iter().enumerate() {
        let name = std::fs::read_to_string(format!("/proc/self/task/{}/comm", cpu["thread-id"])).unwrap();
        assert_eq!(name.trim(), format!("CPU {index}/dummy"));
        let expected = json!({
            "cpu-index": index,
            "thread-id": cpu["thread-id"],
            "qom-type": "neoverse-n1-arm-cpu",
            "qom-path": format!("/machine/unattached/device[{index}]"),
            "props": {"socket-id": 0, "cluster-id": 0, "core-id": index, "thread-id": 0},
            "target": "aarch64",
        });
        assert_eq!(*cpu, expected);
    }
}

/// What a client makes of `query-qmp-schema`: checks that `value` is of the type of that name.
fn conforms(schema: &[Value], name: &str, value: &Value) -> Result<(), String> {
    let find = |name: &str| schema.iter().find(|e| e["name"] == name).ok_or(format!("no type {name}"));
    let kind = find(name)?;
    let wrong = || Err(format!("{value} is no {name}"));
    match kind["meta-type"].as_str().unwrap() {
        "builtin" => {
            let fits = match kind["json-type"].as_str().unwrap() {
                "string" => value.is_string(),
                "int" => value.is_i64() || value.is_u64(),
                "boolean" => value.is_boolean(),
                "value" => true,
                other => return Err(format!("{other} is no JSON type")),
            };
            if fits { Ok(()) } else { wrong() }
        }
        "enum" => {
            let known = kind["members"].as_array().unwrap().iter().any(|m| m["name"] == *value);
            if known { Ok(()) } else { wrong() }
        }
        "array" => {
            let Some(items) = value.as_array() else { return wrong() };
            let element = kind["element-type"].as_str().unwrap();
            items.iter().try_for_each(|item| conforms(schema, element, item))
        }
        "object" => {
            let Some(object) = value.as_object() else { return wrong() };
            let mut members = kind["members"].as_array().unwrap().clone();
            if let Some(tag) = kind["tag"].as_str() {
                let variants = kind["variants"].as_array().unwrap();
                let variant = variants.iter().find(|v| v["case"] == object[tag]).ok_or("no such variant")?;
                let more = find(variant["type"].as_str().unwrap())?["members"].as_array().unwrap().clone();
                members.extend(more);
            }
            for m in &members {
                match object.get(m["name"].as_str().unwrap()) {
                    Some(value) => conforms(schema, m["type"].as_str().unwrap(), value)?,
                    None if m.get("default").is_some() => {}
                    None => return Err(format!("{value} lacks {}", m["name"])),
                }
            }
            let known = |name: &String| members.iter().any(|m| m["name"] == **name);
            if object.keys().all(known) { Ok(()) } else { wrong() }
        }
        other => Err(format!("{other} is no type")),
    }
}

#[test]
fn commands_and_events_are_as_the_schema_says() {
    let rig = Rig::new(2);
    let mut client = rig.client();
    let schema = client.execute("query-qmp-schema");
    let schema = schema.as_array().unwrap();
    let of = |meta: &'static str| schema.iter().filter(move |e| e["meta-type"] == meta);
    let mut described: Vec<_> = of("command").map(|e| json!({"name": e["name"]})).collect();
    let commands = client.execute("query-commands");
    assert_eq!(commands.as_array().unwrap(), &described);
    // The one that ends it comes last; the one that must come first was there.
    described.retain(|c| !["quit", "qmp_capabilities"].contains(&c["name"].as_str().unwrap()));
    described.push(json!({"name": "quit"}));
    for command in &described {
        let name = command["name"].as_str().unwrap();
        let kind = of("command").find(|e| e["name"] == name).unwrap();
        if conforms(schema, kind["arg-type"].as_str().unwrap(), &json!({})).is_err() {
            client.refused(format!(r#"{{"execute":"{name}"}}"#).as_bytes());
            continue;
        }
        let result = client.execute(name);
        conforms(schema, kind["ret-type"].as_str().unwrap(), &result)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let mut events = std::mem::take(&mut client.events);
    while let Some(event) = client.try_receive() {
        events.push(event);
    }
    for event in &events {
        let kind = of("event").find(|e| e["name"] == event["event"]).expect("it is in the schema");
        let data = event.get("data").cloned().unwrap_or(json!({}));
        conforms(schema, kind["arg-type"].as_str().unwrap(), &data)
            .unwrap_or_else(|e| panic!("{event}: {e}"));
    }
    assert!(events.len() >= 4, "{events:?}");
}
