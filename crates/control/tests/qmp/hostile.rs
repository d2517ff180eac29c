//! Clients that send rubbish, send too much, do not read, die, or come in crowds: each gets a clear refusal, and the
//! machine goes on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use armlet_control::{Client as Library, ClientError, MAX_CLIENTS, Server};
use armlet_machine::RunState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::common::{Client, LIMIT, Rig};

/// The client is still heard, and so is the machine.
#[track_caller]
fn goes_on(client: &mut Client) {
    let answer = client.call(&json!({"execute": "query-status", "id": "still there"}));
    let expected = json!({"return": {"status": "running", "running": true}, "id": "still there"});
    assert_eq!(answer, expected);
}

#[test]
fn rubbish_is_told_and_forgotten() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    for (rubbish, told) in [
        (&b"{\"execute\":\"query-status\",}"[..], "trailing comma"),
        (b"{'execute':'query-status'}", "JSON parse error"),
        (b"hello", "JSON parse error"),
        (b"{]", "JSON parse error"),
        (b"}", "JSON parse error"),
        (b"{\"execute\":\"query-", "string without an end"),
        (b"{\"execute\":\"\xc3\x28\"}", "JSON parse error"),
        (b"{\"execute\":\"\\ud800\"}", "JSON parse error"),
        (b"{\"execute\":\"stop\",\"execute\":\"cont\"}", "duplicate key 'execute'"),
        (b"{\"execute\":\"query-status\",\"id\":1e999}", "JSON parse error"),
        (b"\x01", "stray control character 0x01"),
        (b"{\"a\":[\xff", "stray control character 0xff"),
    ] {
        let (class, desc) = client.refused(rubbish);
        assert_eq!(class, "GenericError");
        assert!(desc.contains(told), "{rubbish:?}: {desc}");
        goes_on(&mut client);
    }
    assert_eq!(client.events.len(), 0, "nothing was stopped");
}

/// Whatever becomes of requests on the way, the server answers in whole JSON and goes on.
#[test]
fn damaged_requests_never_end_the_conversation() {
    let rig = Rig::with_room(1, 3);
    rig.machine.resume("the test").unwrap();
    let mut client = rig.client();
    let whole = concat!(
        r#"{"execute":"device_add","arguments":{"driver":"neoverse-n1-arm-cpu","core-id":1,"id":"a"},"id":1}"#,
        r#"{"execute":"device_del","arguments":{"id":"a"},"id":[{"x":null}]}{"execute":"query-cpus-fast"}"#,
        r#"{"execute":"query-hotpluggable-cpus","arguments":{}}{"execute":"stop"}{"execute":"cont"}"#,
    );
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) as usize % below
    };
    for _ in 0..400 {
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..1 + random(5) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at + 1),
                2 => bytes.insert(at, b"{}[]\",:\\0-\n\x01\xff"[random(13)]),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        // The control character ends whatever the damage has left open.
        bytes.extend_from_slice(b"\x1d\n{\"execute\":\"cont\",\"id\":\"end\"}");
        client.send(&bytes);
        loop {
            let answer = client.answer();
            assert!(answer.get("return").is_some() != answer.get("error").is_some(), "{answer}");
            if answer["id"] == "end" {
                break;
            }
        }
        client.events.clear();
    }
    goes_on(&mut client);
}

#[test]
fn deep_and_huge_messages_are_refused_once() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    for deep in ["[".repeat(1_000_000), "{\"a\":".repeat(300_000), "[".repeat(101) + &"]".repeat(101)] {
        let (_, desc) = client.refused(deep.as_bytes());
        assert!(desc.contains("nesting depth limit"), "{desc}");
        goes_on(&mut client);
    }
    for huge in [
        format!("{{\"execute\":\"{}\"}}", "x".repeat(8 << 20)),
        format!("{{\"execute\":\"stop\",\"id\":[{}0]}}", "0,".repeat(4 << 20)),
        "1".repeat(8 << 20),
    ] {
        let (_, desc) = client.refused(huge.as_bytes());
        assert!(desc.contains("longer than 1048576 bytes"), "{desc}");
        goes_on(&mut client);
    }
    // A large one that fits is carried out.
    let id = "y".repeat(900_000);
    assert_eq!(client.call(&json!({"execute": "query-status", "id": id}))["id"], id);
}

#[test]
fn a_client_that_dies_in_the_middle_takes_nobody_along() {
    let rig = Rig::new(1);
    let mut other = rig.client();
    let command = "{\"execute\":\"system_powerdown\"}";
    for part in ["", "{", "{\"execute\":\"query-qmp-schema\"}", &command[..12], &format!("{command}{{")] {
        for negotiated in [false, true] {
            let mut client = if negotiated { rig.client() } else { rig.connect() };
            client.send(part.as_bytes());
            drop(client);
        }
    }
    // What was complete and allowed is carried out.
    assert_eq!(other.event(), json!({"event": "POWERDOWN"}));
    goes_on(&mut other);
    assert_eq!(other.events.len(), 0);
}

#[test]
fn who_says_no_more_still_hears_the_answers() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    client.send(&b"{\"execute\":\"query-qmp-schema\"}".repeat(200));
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    for _ in 0..200 {
        assert!(client.receive()["return"].is_array());
    }
    assert_eq!(client.try_receive(), None);
}

#[test]
fn more_clients_than_there_is_room_for_are_sent_away() {
    let rig = Rig::new(1);
    let mut crowd: Vec<_> = (0..MAX_CLIENTS).map(|_| rig.client()).collect();
    let mut late = Client::new(&rig.path);
    let refusal = late.receive();
    assert!(refusal["error"]["desc"].as_str().unwrap().contains("32 clients are connected"), "{refusal}");
    assert_eq!(late.try_receive(), None);
    let error = Library::connect(&rig.path, LIMIT).err().unwrap();
    assert!(matches!(&error, ClientError::Refused(why) if why.contains("32 clients")), "{error}");
    crowd.iter_mut().for_each(goes_on);
    crowd.pop();
    // Its place is free as soon as its thread has seen that it is gone.
    while let Err(e) = Library::connect(&rig.path, LIMIT) {
        assert!(matches!(e, ClientError::Refused(_)), "{e}");
        std::thread::yield_now();
    }
}

/// Commands of a client that reads no answers are carried out only as far as there is room for their answers.
#[test]
fn a_client_that_does_not_read_answers_is_not_served_further() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    let stream = client.stream.get_ref().try_clone().unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = b"{\"execute\":\"query-qmp-schema\"}\n";
    let mut sent = 0;
    while (&stream).write_all(request).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "somebody keeps it all");
    }
    let mut other = rig.client();
    goes_on(&mut other);
    for _ in 0..sent {
        assert!(client.answer()["return"].is_array());
    }
}

#[test]
fn a_client_that_does_not_read_events_is_given_up() {
    let rig = Rig::new(1);
    let (deaf, mut client) = (rig.client(), rig.client());
    let mut deaf = deaf.stream.into_inner();
    let given_up = || {
        let mut fds = [PollFd::new(&deaf, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() != 0
    };
    // Each round is two events of about 80 bytes; a socket and the outbox keep less than 4 MiB.
    let mut rounds = 0;
    while !given_up() {
        rounds += 1;
        assert!(rounds < 25_000, "somebody keeps it all");
        client.execute("stop");
        client.execute("cont");
        client.events.clear();
    }
    let mut heard = Vec::new();
    deaf.read_to_end(&mut heard).unwrap();
    assert!(heard.len() < 4 << 20, "{}", heard.len());
    goes_on(&mut client);
}

/// From several clients at once: each command has its answer, and the last word counts.
#[test]
fn everybody_may_stop_resume_and_reset_at_once() {
    let rig = Rig::new(4);
    std::thread::scope(|scope| {
        for command in ["stop", "cont", "stop", "cont", "system_reset", "query-cpus-fast"] {
            let rig = &rig;
            scope.spawn(move || {
                let mut client = rig.client();
                for _ in 0..50 {
                    let answer = client.call(&json!({"execute": command}));
                    let overtaken =
                        answer["error"]["desc"] == "The pause was overtaken by a resume; pause again";
                    assert!(answer.get("return").is_some() || command == "stop" && overtaken, "{answer}");
                }
            });
        }
    });
    let mut client = rig.client();
    client.execute("stop");
    assert_eq!(rig.machine.run_state(), RunState::Paused);
    client.execute("cont");
    goes_on(&mut client);
}

#[test]
fn a_path_in_use_is_refused_and_stays() {
    let rig = Rig::new(1);
    let error = Server::start(rig.machine.clone(), &rig.path).err().unwrap().to_string();
    assert!(error.contains("another program listens there"), "{error}");
    let mut client = rig.client();
    goes_on(&mut client);
}

#[test]
fn the_library_client_says_what_is_wrong() {
    let rig = Rig::new(1);
    let mut client = Library::connect(&rig.path, LIMIT).unwrap();
    assert_eq!(client.execute("query-status", None).unwrap()["status"], "running");
    client.execute("stop", None).unwrap();
    let error = client.execute("stop", Some(json!({"x": 1}))).unwrap_err();
    assert_eq!(error.to_string(), "Parameter 'x' is unexpected");
    client.execute("quit", None).unwrap();
    let path = rig.path.clone();
    rig.end();
    assert!(matches!(client.execute("query-status", None), Err(ClientError::Closed)));
    let gone = Library::connect(&path, LIMIT).err().unwrap().to_string();
    assert!(gone.contains("no machine listens") && gone.contains("--qmp"), "{gone}");
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let speaker = std::thread::spawn(move || {
        let mut stream: UnixStream = other.accept().unwrap().0;
        stream.write_all(b"220 mail ready\n").unwrap();
    });
    let error = Library::connect(&path, LIMIT).err().unwrap();
    assert!(matches!(error, ClientError::NotQmp { .. }), "{error}");
    speaker.join().unwrap();
    std::fs::remove_file(&path).unwrap();
}
