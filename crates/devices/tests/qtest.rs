//! Registers compared with an independent implementation, over QEMU's qtest protocol.
//!
//! `ARMLET_QTEST="qemu-system-aarch64" cargo test -p armlet-devices --test qtest -- --ignored`; the variable is the
//! command that runs QEMU, to which the machine's options are added.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use armlet_devices::clock::{COUNTER_FREQUENCY, Clock};
use armlet_devices::gic::spec::{DISTRIBUTOR_SIZE, REDISTRIBUTOR_SIZE, SGI_BASE};
use armlet_devices::pl011::spec as pl011;
use armlet_devices::pl061::spec as pl061;
use armlet_devices::{CharSink, GicConfig, GicV3, Pl011, Pl061, TimerQueue, UnconnectedLine};
use armlet_engine::VcpuShared;
use armlet_memory::{AccessSize, MmioDevice};

const GICD: u64 = 0x0800_0000;
const GICR: u64 = 0x080a_0000;
const UART: u64 = 0x0900_0000;
const GPIO: u64 = 0x0903_0000;

/// The peer, with its board's registers.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(cpus: usize) -> Self {
        let command = std::env::var("ARMLET_QTEST").expect("ARMLET_QTEST names the peer's command");
        let mut words = command.split_whitespace();
        let mut child = Command::new(words.next().expect("a command"))
            .args(words)
            .args(["-machine", "virt,gic-version=3", "-accel", "qtest", "-display", "none", "-nodefaults"])
            .args(["-smp", &cpus.to_string(), "-m", "128", "-serial", "null", "-qtest", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the peer starts");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, input, output }
    }

    fn ask(&mut self, command: &str) -> u64 {
        writeln!(self.input, "{command}").expect("the peer listens");
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("the peer answers"), 0, "the peer ended");
            if let Some(rest) = line.strip_prefix("OK") {
                let digits = rest.trim().trim_start_matches("0x");
                return u64::from_str_radix(digits, 16).unwrap_or(0);
            }
            assert!(!line.starts_with("FAIL"), "{command}: {line}");
        }
    }

    fn read(&mut self, address: u64, size: AccessSize) -> u64 {
        self.ask(&format!("read{} {address:#x}", letter(size)))
    }

    fn write(&mut self, address: u64, size: AccessSize, value: u64) {
        self.ask(&format!("write{} {address:#x} {value:#x}", letter(size)));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn letter(size: AccessSize) -> char {
    match size {
        AccessSize::Byte => 'b',
        AccessSize::Half => 'w',
        AccessSize::Word => 'l',
        AccessSize::Double => 'q',
    }
}

/// Both sides of the comparison.
struct Pair {
    peer: Peer,
    ours: Vec<(u64, u64, Arc<dyn MmioDevice>)>,
    random: u64,
}

struct Nowhere;

impl CharSink for Nowhere {
    fn write(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

impl Pair {
    fn new(cpus: usize) -> Self {
        let shared = (0..cpus).map(|i| Arc::new(VcpuShared::new(i))).collect();
        let config = GicConfig { spis: 256, affinities: (0..cpus as u64).collect() };
        let gic = GicV3::new(&config, shared).expect("a GIC");
        let queue = TimerQueue::new(Arc::new(Clock::manual(COUNTER_FREQUENCY)));
        let line = || Arc::new(UnconnectedLine);
        let ours: Vec<(u64, u64, Arc<dyn MmioDevice>)> = vec![
            (GICD, DISTRIBUTOR_SIZE, gic.distributor()),
            (GICR, REDISTRIBUTOR_SIZE * cpus as u64, gic.redistributors(0..cpus)),
            (UART, 0x1000, Arc::new(Pl011::new("uart", line(), Arc::new(Nowhere)))),
            (GPIO, 0x1000, Pl061::new(line(), &queue)),
        ];
        let seed = std::env::var("ARMLET_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_nanos() as u64));
        println!("qtest: ARMLET_SEED={seed}");
        Self { peer: Peer::start(cpus), ours, random: seed | 1 }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }

    fn device(&self, address: u64) -> (&dyn MmioDevice, u64) {
        let (base, _, device) = self
            .ours
            .iter()
            .find(|(base, size, _)| (*base..base + size).contains(&address))
            .expect("a device there");
        (&**device, address - base)
    }

    fn write(&mut self, address: u64, size: AccessSize, value: u64) {
        self.peer.write(address, size, value);
        let (device, offset) = self.device(address);
        device.write(offset, size, value);
    }

    /// Reads on both sides and compares the bits in `mask`.
    fn compare(&mut self, address: u64, size: AccessSize, mask: u64) {
        let theirs = self.peer.read(address, size) & mask;
        let (device, offset) = self.device(address);
        let ours = device.read(offset, size) & mask;
        assert_eq!(ours, theirs, "{address:#x} {size:?}: ours {ours:#x}, the peer's {theirs:#x}");
    }
}

#[test]
#[ignore = "needs QEMU, named by ARMLET_QTEST"]
fn gic_registers() {
    const CPUS: u64 = 3;
    let mut pair = Pair::new(CPUS as usize);
    pair.compare(GICD, AccessSize::Word, !0);
    pair.compare(GICD + 4, AccessSize::Word, 0x1f);
    pair.compare(GICD + 0xffe8, AccessSize::Word, !0);
    for cpu in 0..CPUS {
        // Affinity, processor number and Last; the peer has LPIs, we have DPGS.
        let last_and_numbers = 0xffff_ffff_00ff_ff10;
        pair.compare(GICR + cpu * REDISTRIBUTOR_SIZE + 8, AccessSize::Double, last_and_numbers);
        pair.write(GICR + cpu * REDISTRIBUTOR_SIZE + 0x14, AccessSize::Word, 0);
    }
    for _ in 0..30_000 {
        let cpu = pair.below(CPUS);
        let frame = if pair.below(2) == 0 { GICD } else { GICR + cpu * REDISTRIBUTOR_SIZE + SGI_BASE };
        let shared = frame == GICD;
        let value = pair.next();
        let (address, size, mask) = match pair.below(8) {
            // One bit per interrupt: group, enable, pending, active.
            0..=3 => {
                let register = 1 + pair.below(7);
                let block = if shared { pair.below(10) } else { 0 };
                (frame + register * 0x80 + block * 4, AccessSize::Word, !0)
            }
            // The peer keeps all 8 bits of a priority in the distributor.
            4 => {
                let n = if shared { pair.below(300) } else { pair.below(32) };
                (frame + 0x400 + n, AccessSize::Byte, 0xf8)
            }
            5 => {
                let n = if shared { pair.below(75) } else { pair.below(8) };
                (frame + 0x400 + n * 4, AccessSize::Word, 0xf8f8_f8f8)
            }
            6 => {
                // The bits of ICFGR that are reserved, and SGIs' that are fixed, are left out.
                let n = if shared { 2 + pair.below(17) } else { 1 };
                (frame + 0xc00 + n * 4, AccessSize::Word, 0xaaaa_aaaa)
            }
            _ => {
                let n = 32 + pair.below(256);
                (GICD + 0x6000 + n * 8, AccessSize::Double, 0xff_80ff_ffff)
            }
        };
        pair.write(address, size, value);
        pair.compare(address, size, mask);
        let block = pair.below(10);
        let register = 1 + pair.below(7);
        pair.compare(GICD + register * 0x80 + block * 4, AccessSize::Word, !0);
        pair.compare(GICR + cpu * REDISTRIBUTOR_SIZE + SGI_BASE + register * 0x80, AccessSize::Word, !0);
    }
}

#[test]
#[ignore = "needs QEMU, named by ARMLET_QTEST"]
fn gpio_registers() {
    let mut pair = Pair::new(1);
    let identification = (0xfe0..0x1000).step_by(4).map(|o| GPIO + o).collect::<Vec<_>>();
    for address in identification {
        pair.compare(address, AccessSize::Word, 0xff);
    }
    // The peer forgets what is written to the data of inputs, so all lines are outputs here.
    pair.write(GPIO + pl061::DIR, AccessSize::Word, 0xff);
    let registers = [pl061::IS, pl061::IBE, pl061::IEV, pl061::IE, pl061::AFSEL];
    for _ in 0..10_000 {
        let value = pair.below(256);
        let data = GPIO + pair.below(256) * 4;
        pair.write(data, AccessSize::Word, value);
        let register = GPIO + registers[pair.below(5) as usize];
        pair.write(register, AccessSize::Word, value);
        pair.compare(register, AccessSize::Word, 0xff);
        let data = GPIO + pair.below(256) * 4;
        pair.compare(data, AccessSize::Word, 0xff);
    }
}

#[test]
#[ignore = "needs QEMU, named by ARMLET_QTEST"]
fn uart_registers() {
    let mut pair = Pair::new(1);
    for _ in 0..5000 {
        let (register, mask) = match pair.below(4) {
            0 => (pl011::IBRD, 0xffff),
            1 => (pl011::FBRD, 0x3f),
            2 => (pl011::IFLS, 0x3f),
            _ => (pl011::LCR_H, 0xfe),
        };
        let value = pair.next() & mask;
        pair.write(UART + register, AccessSize::Word, value);
        pair.compare(UART + register, AccessSize::Word, mask);
        pair.compare(UART + pl011::FR, AccessSize::Word, 0xf8);
    }
}
