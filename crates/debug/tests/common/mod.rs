//! A machine with a small program, its debugger's socket, and clients that speak packets by hand.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use armlet_debug::{Address, Server};
use armlet_machine::config::AcceleratorKind;
use armlet_machine::{Cause, End, Machine, MachineConfig, MachineHandle, spec};
use armlet_memory::AccessSize;

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Where the program's loop is: `ADD X2, X2, #1`, the store of X2, and the branch back.
pub const LOOP: u64 = spec::RAM_BASE + 68;
pub const STORE: u64 = LOOP + 4;
pub const BRANCH: u64 = LOOP + 8;
/// What the program counts in.
pub const COUNTER: u64 = spec::RAM_BASE + 64 + 256;

/// The program, as a kernel image: counts in X2, and stores that at [`COUNTER`].
fn image() -> Vec<u8> {
    let mut v = vec![0; 4096];
    let mut put = |at: usize, word: u32| v[at..at + 4].copy_from_slice(&word.to_le_bytes());
    put(0, 0x1400_0010); // b 64
    put(56, 0x644d_5241); // the magic number
    put(17, 0x1000); // the image's size, in its second byte
    put(64, 0x1000_0801); // adr x1, COUNTER
    put(68, 0x9100_0442); // add x2, x2, #1
    put(72, 0xf900_0022); // str x2, [x1]
    put(76, 0x17ff_fffe); // b LOOP
    v
}

/// A machine that a debugger can connect to, running on a thread of its own.
pub struct Rig {
    pub machine: MachineHandle,
    pub path: PathBuf,
    folder: PathBuf,
    run: Option<JoinHandle<End>>,
}

impl Rig {
    /// Started.
    pub fn new(cpus: usize) -> Self {
        let rig = Self::paused(cpus);
        rig.machine.resume("the test").unwrap();
        rig
    }

    /// Not started.
    pub fn paused(cpus: usize) -> Self {
        Self::with(cpus, AcceleratorKind::Auto)
    }

    pub fn with(cpus: usize, accelerator: AcceleratorKind) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("armlet-gdb-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, kernel) = (folder.join("socket"), folder.join("Image"));
        std::fs::write(&kernel, image()).unwrap();
        let mut config = MachineConfig { memory: 64 << 20, smp: cpus, ..MachineConfig::default() };
        config.accelerator.kind = accelerator;
        config.boot.kernel = Some(kernel);
        let mut machine = Machine::new(config).unwrap();
        let server = Server::start(machine.handle(), &Address::Unix(path.clone())).unwrap();
        let handle = machine.handle();
        let run = std::thread::spawn(move || {
            let end = machine.run(Some(LIMIT));
            machine.shutdown();
            server.finish();
            end
        });
        Self { machine: handle, path, folder, run: Some(run) }
    }

    pub fn count(&self) -> u64 {
        self.machine.memory().ram().load(COUNTER, AccessSize::Double).unwrap()
    }

    /// Waits until the program has counted on.
    #[track_caller]
    pub fn counts(&self) {
        let (start, before) = (Instant::now(), self.count());
        while self.count() == before {
            assert!(start.elapsed() < LIMIT, "the machine does not run");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A client that has shaken hands: the machine stands still.
    pub fn client(&self) -> Client {
        let mut client = Client::connect(self);
        let supported = client.ask("qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386");
        assert!(
            supported.contains("PacketSize=4004") && supported.contains("qXfer:features:read+"),
            "{supported}"
        );
        assert_eq!(client.ask("QStartNoAckMode"), "OK");
        client.acks = false;
        client
    }

    /// Waits for the machine's end.
    pub fn end(mut self) -> End {
        let end = self.run.take().unwrap().join().unwrap();
        assert!(!self.path.exists(), "the socket is gone with the machine");
        end
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.machine.quit(Cause::HostUi, "the test is over");
            let _ = run.join();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One connection.
pub struct Client {
    pub stream: UnixStream,
    input: Vec<u8>,
    pub acks: bool,
}

pub fn framed(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

impl Client {
    pub fn connect(rig: &Rig) -> Self {
        let stream = UnixStream::connect(&rig.path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self { stream, input: Vec::new(), acks: true }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// One byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        if self.input.is_empty() {
            let mut buffer = [0; 4096];
            let n = match self.stream.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
                Err(e) => panic!("{e}"),
            };
            self.input = buffer[..n].iter().rev().copied().collect();
        }
        self.input.pop()
    }

    /// The next packet's body; `None` at the end. Acknowledgements are skipped.
    pub fn packet(&mut self) -> Option<String> {
        loop {
            match self.byte()? {
                b'$' => break,
                b'+' | b'-' => {}
                other => panic!("{other:#x} between packets"),
            }
        }
        let mut body = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => body.push(byte),
            }
        }
        let sum = [self.byte()?, self.byte()?];
        assert_eq!(framed(&body)[body.len() + 2..], sum, "the checksum");
        if self.acks {
            // It may be gone already.
            let _ = self.stream.write_all(b"+");
        }
        Some(unpacked(&body))
    }

    /// Sends a packet and gives its answer.
    #[track_caller]
    pub fn ask(&mut self, body: &str) -> String {
        self.send(&framed(body.as_bytes()));
        self.packet().unwrap_or_else(|| panic!("no answer to {body}"))
    }

    #[track_caller]
    pub fn does(&mut self, body: &str) {
        assert_eq!(self.ask(body), "OK", "{body}");
    }

    /// A register of the thread that was chosen with `Hg`.
    #[track_caller]
    pub fn register(&mut self, number: usize) -> u64 {
        let hex = self.ask(&format!("p{number:x}"));
        assert_eq!(hex.len(), 16, "{hex}");
        let bytes: Vec<u8> =
            (0..8).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    /// The output of a monitor command.
    #[track_caller]
    pub fn monitor(&mut self, command: &str) -> String {
        let hex: String = command.bytes().map(|b| format!("{b:02x}")).collect();
        self.send(&framed(format!("qRcmd,{hex}").as_bytes()));
        let mut text = String::new();
        loop {
            match self.packet().unwrap().strip_prefix('O') {
                Some("K") => return text,
                Some(hex) => text.push_str(&unhex(hex)),
                None => panic!("no output"),
            }
        }
    }
}

/// Without run lengths: `*` and a count, plus 29, repeat the character before.
fn unpacked(body: &[u8]) -> String {
    let mut text = String::new();
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match (byte, text.chars().last()) {
            (b'*', Some(last)) => {
                let count = usize::from(*bytes.next().unwrap()) - 29;
                text.extend(std::iter::repeat_n(last, count));
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

pub fn unhex(hex: &str) -> String {
    let bytes = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}

/// PC's number.
pub const PC: usize = 32;
