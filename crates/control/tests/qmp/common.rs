//! A machine that executes nothing, its control socket, and clients that speak JSON by hand.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use armlet_control::Server;
use armlet_engine::PowerControl;
use armlet_machine::config::AcceleratorKind;
use armlet_machine::{Cause, End, Machine, MachineConfig, MachineHandle, spec};
use serde_json::{Value, json};

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A machine with a control socket, running on a thread of its own.
pub struct Rig {
    pub machine: MachineHandle,
    pub path: PathBuf,
    power: PowerControl,
    run: Option<JoinHandle<End>>,
}

impl Rig {
    /// With `cpus` vCPUs, started.
    pub fn new(cpus: usize) -> Self {
        let rig = Self::paused(cpus);
        rig.machine.resume("the test").unwrap();
        rig
    }

    /// With `cpus` vCPUs, not started.
    pub fn paused(cpus: usize) -> Self {
        Self::with_room(cpus, cpus)
    }

    /// With `cpus` vCPUs and room for `places`, not started.
    pub fn with_room(cpus: usize, places: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("armlet-qmp-{}-{number}", std::process::id()));
        let mut config =
            MachineConfig { memory: 64 << 20, smp: cpus, max_cpus: Some(places), ..MachineConfig::default() };
        config.accelerator.kind = AcceleratorKind::Dummy;
        let mut machine = Machine::new(config).unwrap();
        let server = Server::start(machine.handle(), &path).unwrap();
        let (handle, power) = (machine.handle(), machine.engine().power());
        let run = std::thread::spawn(move || {
            let end = machine.run(Some(LIMIT));
            machine.shutdown();
            server.finish();
            end
        });
        Self { machine: handle, path, power, run: Some(run) }
    }

    /// Switches vCPU `index` on, as a guest would.
    pub fn power_on(&self, index: usize) {
        self.power.power_on(index, spec::RAM_BASE, 0).unwrap();
    }

    /// A client that has not negotiated yet; the greeting is read.
    pub fn connect(&self) -> Client {
        let mut client = Client::new(&self.path);
        let greeting = client.receive();
        assert!(greeting["QMP"]["version"]["qemu"]["major"].is_u64(), "{greeting}");
        assert_eq!(greeting["QMP"]["capabilities"], json!([]));
        client
    }

    /// A client that is ready.
    pub fn client(&self) -> Client {
        let mut client = self.connect();
        assert_eq!(client.call(&json!({"execute": "qmp_capabilities"})), json!({"return": {}}));
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
    }
}

/// One connection.
pub struct Client {
    pub stream: BufReader<UnixStream>,
    /// Events that came while answers were waited for.
    pub events: Vec<Value>,
}

impl Client {
    pub fn new(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self { stream: BufReader::new(stream), events: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The next message; `None` at the end.
    pub fn try_receive(&mut self) -> Option<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        assert!(line.ends_with("\r\n"), "{line:?}");
        Some(serde_json::from_str(&line).unwrap())
    }

    #[track_caller]
    pub fn receive(&mut self) -> Value {
        self.try_receive().expect("the connection is open")
    }

    /// The next message that is no event.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        loop {
            let message = self.receive();
            if message.get("event").is_none() {
                return message;
            }
            self.events.push(message);
        }
    }

    /// Sends one request and gives its answer.
    #[track_caller]
    pub fn call(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes());
        self.answer()
    }

    /// What `command` without arguments returns.
    #[track_caller]
    pub fn execute(&mut self, command: &str) -> Value {
        let mut answer = self.call(&json!({"execute": command}));
        assert!(answer.get("return").is_some(), "{command}: {answer}");
        answer["return"].take()
    }

    /// Class and description of the error that `bytes` are answered by.
    #[track_caller]
    pub fn refused(&mut self, bytes: &[u8]) -> (String, String) {
        self.send(bytes);
        self.send(b"\n");
        let answer = self.answer();
        let text = |name: &str| answer["error"][name].as_str().unwrap_or_else(|| panic!("{answer}")).into();
        (text("class"), text("desc"))
    }

    /// The next event, its timestamp taken away.
    #[track_caller]
    pub fn event(&mut self) -> Value {
        let mut event = match self.events.is_empty() {
            true => self.receive(),
            false => self.events.remove(0),
        };
        let timestamp = event.as_object_mut().unwrap().remove("timestamp");
        assert!(timestamp.unwrap()["seconds"].is_u64());
        event
    }
}
