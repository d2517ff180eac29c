//! What a client of a socket sends: any bytes to the control server and to the debugger's, each with a machine behind
//! it. The answers are well-formed, the conversation comes to an end, and the next client is served.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use armlet_machine::config::AcceleratorKind;
use armlet_machine::{Machine, MachineConfig};

use crate::input::Input;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Qmp,
    Gdb,
}

thread_local! {
    static QMP: RefCell<Option<Place>> = const { RefCell::new(None) };
    static GDB: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// A server's socket, which is gone with this.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What an input's bytes from 0x80 on stand for, in a client's texts.
const QMP_WORDS: &[&str] = &[
    r#"{"execute":"qmp_capabilities"}"#,
    r#"{"execute":"query-status"}"#,
    r#"{"execute":"stop"}"#,
    r#"{"execute":"cont"}"#,
    r#"{"execute":"query-cpus-fast","id":"#,
    r#"{"execute":"query-hotpluggable-cpus"}"#,
    r#"{"execute":"query-version","arguments":{"#,
    r#"{"execute":"device_add","arguments":{"driver":"#,
    r#"{"execute":"device_del","arguments":{"id":"#,
    r#"{"execute":"system_reset"}"#,
    r#"{"execute":"query-qmp-schema"}"#,
    r#""neoverse-n1-arm-cpu","core-id":"#,
    r#""core-id":1"#,
    "{\"",
    "\":",
    "}",
    "[",
    "]",
    "null",
    "true",
    "1e999",
    "18446744073709551616",
    "\\ud800",
    "\"a\"",
    "\r\n",
];
const GDB_WORDS: &[&str] = &[
    "qSupported:multiprocess+;swbreak+;vContSupported+",
    "QStartNoAckMode",
    "qXfer:features:read:target.xml:",
    "vCont;",
    "vCont;c",
    "vCont;s:p1.1",
    "vCont?",
    "Hgp1.1",
    "Hc-1",
    "m40000000,",
    "M40000000,4:",
    "Z0,40000044,4",
    "Z2,",
    "z0,40000044,4",
    "qRcmd,",
    "qThreadInfo",
    "qfThreadInfo",
    "qsThreadInfo",
    "T",
    "p",
    "P",
    "g",
    "G",
    "?",
    "D",
    "bs",
    "bc",
    "ffffffffffffffff",
    ",",
    ";",
    ":",
];

/// Any bytes for the control server.
///
/// # Panics
/// It does not answer as it should.
pub fn qmp(bytes: &[u8]) {
    QMP.with_borrow_mut(|path| converse(path, Kind::Qmp, &text(bytes, QMP_WORDS)));
}

/// Any bytes for the debugger's server: as they are, or as packets.
///
/// # Panics
/// It does not answer as it should.
pub fn gdb(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut out = Vec::new();
    while !input.is_empty() {
        let length = input.u8();
        let body = text(input.take(usize::from(length & 63)), GDB_WORDS);
        match length >> 6 {
            // As it is.
            0 => out.extend(body),
            // An acknowledgement before it, or a wish to have the last one again.
            n => {
                out.push(if n == 3 { b'-' } else { b'+' });
                let sum = body.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                out.push(b'$');
                out.extend(&body);
                out.extend(format!("#{sum:02x}").bytes());
            }
        }
    }
    GDB.with_borrow_mut(|path| converse(path, Kind::Gdb, &out));
}

/// The bytes, with words in place of those from 0x80 on; 0xff stands for itself.
fn text(bytes: &[u8], words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for &b in bytes {
        match b {
            0xff => out.push(b),
            0x80.. => out.extend(words[usize::from(b & 0x7f) % words.len()].bytes()),
            _ => out.push(b),
        }
    }
    out
}

/// Starts a machine with a server. It ends with the process, or when a client ends it.
fn start(kind: Kind) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("armlet-hostile-{kind:?}-{}-{number}", std::process::id()));
    let mut config = MachineConfig { memory: 16 << 20, max_cpus: Some(2), ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Dummy;
    let machine = Machine::new(config).expect("a machine of dummies");
    machine.handle().resume("the client's machine").expect("it runs");
    match kind {
        Kind::Qmp => {
            let server = armlet_control::Server::start(machine.handle(), &path).expect("a control socket");
            serve(machine, || server.finish());
        }
        Kind::Gdb => {
            let address = armlet_debug::Address::Unix(path.clone());
            let server =
                armlet_debug::Server::start(machine.handle(), &address).expect("a debugger's socket");
            serve(machine, || server.finish());
        }
    }
    path
}

/// Runs the machine on a thread of its own, which blocks on it alone.
fn serve(mut machine: Machine, finish: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        machine.run(None);
        machine.shutdown();
        finish();
    });
}

/// Sends all of it, and reads until the server has nothing more to say.
fn converse(place: &mut Option<Place>, kind: Kind, bytes: &[u8]) {
    let connected = place.as_ref().and_then(|place| UnixStream::connect(&place.0).ok());
    let mut stream = connected.unwrap_or_else(|| {
        // None yet, or the last client has ended the machine, as it may.
        let path = start(kind);
        let stream = UnixStream::connect(&path).expect("the server listens");
        *place = Some(Place(path));
        stream
    });
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    // Who is not wanted any more learns it by an error.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => check(kind, &answer),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the {kind:?} server neither answers nor ends: {e}"),
    }
}

fn check(kind: Kind, answer: &[u8]) {
    match kind {
        Kind::Qmp => {
            let text = std::str::from_utf8(answer).expect("answers are UTF-8");
            for line in text.lines() {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not JSON: {line}");
            }
        }
        Kind::Gdb => packets(answer),
    }
}

/// Acknowledgements and whole packets with right checksums, nothing else.
fn packets(mut rest: &[u8]) {
    while let Some((&first, behind)) = rest.split_first() {
        rest = match first {
            b'+' | b'-' => behind,
            b'$' | b'%' => {
                let Some(end) = behind.iter().position(|&b| b == b'#') else { return };
                let Some(given) = behind.get(end + 1..end + 3) else { return };
                let sum = behind[..end].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                assert_eq!(given, format!("{sum:02x}").as_bytes(), "the checksum of an answer");
                &behind[end + 3..]
            }
            other => panic!("byte {other:#04x} between packets"),
        };
    }
}
