//! LPIs and the interrupt translation service: any commands, tables, registers and messages, also while it is enabled.
//!
//! Afterwards it must work for software that sets it up from anew, and what was saved must be what is restored.

use std::sync::Arc;

use armlet_arm::SysReg;
use armlet_arm::gic::{FIRST_LPI, gicd, gicr, gits};
use armlet_devices::gic::{GicConfig, GicV3, Its};
use armlet_devices::{Message, MessageSink};
use armlet_engine::VcpuShared;
use armlet_memory::{AccessSize, MmioDevice, Ram};

use crate::input::Input;

const CPUS: usize = 3;
const REDISTRIBUTOR: u64 = 0x2_0000;
const BASE: u64 = 0x0808_0000;
const RAM: u64 = 0x4000_0000;
const SIZE: u64 = 1 << 20;
/// Where well-behaved software has them.
const CONFIGURATION: u64 = RAM;
const QUEUE: u64 = RAM + 0x1_0000;
const DEVICES: u64 = RAM + 0x2_0000;
const COLLECTIONS: u64 = RAM + 0x3_0000;
const EVENTS: u64 = RAM + 0x4_0000;
const PENDING: u64 = RAM + 0x8_0000;
const SIZES: [AccessSize; 4] = [AccessSize::Byte, AccessSize::Half, AccessSize::Word, AccessSize::Double];
/// Registers of the service that do something, and of a redistributor.
const SERVICE: [u64; 6] =
    [gits::CTLR, gits::CBASER, gits::CWRITER, gits::CREADR, gits::BASER, gits::BASER + 8];
const OF_CPU: [u64; 5] = [gicr::CTLR, gicr::PROPBASER, gicr::PENDBASER, gicr::INVLPIR, gicr::INVALLR];
/// What places and sizes are made from.
const PLACES: [u64; 8] = [
    0,
    gits::VALID | QUEUE | 0xf,
    gits::VALID | DEVICES,
    gits::VALID | gits::BASER_INDIRECT | DEVICES,
    gits::VALID | COLLECTIONS,
    gits::VALID | (RAM + SIZE - 0x1_0000) | 0xff,
    CONFIGURATION | 0xf,
    PENDING,
];

struct Rig {
    gic: Arc<GicV3>,
    its: Arc<Its>,
    frames: Arc<dyn MmioDevice>,
    redistributors: Arc<dyn MmioDevice>,
    ram: Ram,
}

impl Rig {
    fn new(ram: &Ram) -> Self {
        let cpus = (0..CPUS).map(|n| Arc::new(VcpuShared::new(n))).collect();
        let affinities = (0..CPUS as u32).map(armlet_arm::model::mpidr).collect();
        let config = GicConfig { spis: 32, affinities };
        let gic = GicV3::with_lpis(&config, cpus, ram.clone()).expect("a controller");
        let its = Its::new(&gic, ram.clone(), BASE);
        Self { frames: its.frames(), redistributors: gic.redistributors(0..CPUS), its, gic, ram: ram.clone() }
    }

    fn register(&self, offset: u64, value: u64) {
        self.frames.write(offset, AccessSize::Double, value);
    }

    /// As software sets everything up, with event 0 of device 0 as the first LPI at the first CPU.
    fn set_up(&self) {
        self.gic.distributor().write(gicd::CTLR, AccessSize::Word, 3);
        for cpu in 0..CPUS {
            let frame = REDISTRIBUTOR * cpu as u64;
            let register =
                |offset, value| self.redistributors.write(frame + offset, AccessSize::Double, value);
            register(gicr::CTLR, 0);
            register(gicr::PROPBASER, CONFIGURATION | 0xf);
            register(gicr::PENDBASER, PENDING + 0x1_0000 * cpu as u64);
            register(gicr::CTLR, 1);
            self.gic.write_icc(cpu, SysReg::IccPmrEl1, 0xff);
            self.gic.write_icc(cpu, SysReg::IccIgrpen1El1, 1);
        }
        self.frames.write(gits::CTLR, AccessSize::Word, 0);
        self.register(gits::CBASER, gits::VALID | QUEUE | 0xf);
        self.register(gits::BASER, gits::VALID | DEVICES);
        self.register(gits::BASER + 8, gits::VALID | COLLECTIONS);
        self.frames.write(gits::CTLR, AccessSize::Word, 1);
        self.command([gits::MAPC.into(), 0, gits::VALID, 0]);
        self.command([gits::MAPD.into(), 4, gits::VALID | EVENTS, 0]);
        self.command([gits::MAPTI.into(), u64::from(FIRST_LPI) << 32, 0, 0]);
    }

    /// Puts a command into the queue, wherever that is, and has it carried out.
    fn command(&self, command: [u64; 4]) {
        let base = self.frames.read(gits::CBASER, AccessSize::Double) & gits::CBASER_ADDRESS;
        let place = self.frames.read(gits::CWRITER, AccessSize::Double);
        for (n, word) in (0..).zip(command) {
            // It may be in no memory.
            let _ = self.ram.store(base + place + 8 * n, AccessSize::Double, word);
        }
        self.register(gits::CWRITER, (place + gits::COMMAND_SIZE) & gits::OFFSET | gits::CWRITER_RETRY);
    }

    fn send(&self, device: u32, data: u32) {
        self.its.send(Message { device, address: BASE + gits::TRANSLATER, data });
    }

    fn act(&self, input: &mut Input) {
        let what = input.u8();
        let (cpu, size) = (usize::from(what >> 4) % CPUS, SIZES[usize::from(what >> 6)]);
        let frame = REDISTRIBUTOR * cpu as u64;
        match what & 0xf {
            0 => self.frames.write(input.u32().into(), size, input.u64()),
            1 => {
                self.frames.read(input.u32().into(), size);
            }
            2 | 3 => {
                let register = SERVICE[usize::from(input.u8()) % SERVICE.len()];
                let place = PLACES[usize::from(input.u8()) % PLACES.len()];
                self.frames.write(register, AccessSize::Double, place ^ u64::from(input.u16()));
            }
            4 | 5 => {
                let register = OF_CPU[usize::from(input.u8()) % OF_CPU.len()];
                let place = PLACES[usize::from(input.u8()) % PLACES.len()];
                let value = place ^ u64::from(input.u16());
                self.redistributors.write(frame + register, AccessSize::Double, value);
            }
            6 => {
                let at = RAM + u64::from(input.u32()) % SIZE;
                // It may be in no memory.
                let _ = self.ram.store(at & !7, AccessSize::Double, input.u64());
            }
            7 => self.send(u32::from(input.u8()) & 3, u32::from(input.u8()) & 0x1f),
            8 => self.send(input.u32(), input.u32()),
            9 => {
                let intid = self.gic.read_icc(cpu, SysReg::IccIar1El1);
                self.gic.write_icc(cpu, SysReg::IccEoir1El1, intid);
            }
            10 => self.command([input.u64(), input.u64(), input.u64(), input.u64()]),
            _ => {
                // A likely one.
                let (number, device) = (u64::from(input.u8() & 0xf), u64::from(input.u8() & 3));
                let (event, intid) = (u64::from(input.u8() & 0x1f), u64::from(input.u8()));
                let cpu = u64::from(input.u8() & 3);
                let place = if number == u64::from(gits::MAPD) { EVENTS } else { cpu << 16 | device };
                let ids = event | (u64::from(FIRST_LPI) + intid) << 32;
                self.command([number | device << 32, ids, gits::VALID | place, cpu << 16]);
            }
        }
    }
}

/// Runs one input.
///
/// # Panics
/// The service does what it must not.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ram = Ram::new(RAM, SIZE).expect("a megabyte");
    let rig = Rig::new(&ram);
    if input.u8() & 1 == 0 {
        rig.set_up();
    }
    while !input.is_empty() {
        rig.act(&mut input);
    }
    let saved = (rig.gic.save(), rig.its.save());
    let other = Rig::new(&ram);
    other.gic.restore(&saved.0).expect("it takes what it was");
    other.its.restore(&saved.1).expect("it takes what it was");
    assert_eq!((other.gic.save(), other.its.save()), saved);
    rig.its.reset();
    rig.gic.reset();
    ram.clear().expect("memory can be given back");
    ram.store(CONFIGURATION, AccessSize::Byte, 0xa1).expect("it is memory");
    rig.set_up();
    rig.send(0, 0);
    let intid = rig.gic.read_icc(0, SysReg::IccIar1El1);
    assert_eq!(intid, u64::from(FIRST_LPI), "an LPI after a reset");
}
