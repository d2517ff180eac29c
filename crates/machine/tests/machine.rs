//! Whole machines on the accelerator that executes nothing: wiring, loading, resets and ends.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use armlet_machine::config::{AcceleratorKind, DriveConfig, OnReset};
use armlet_machine::{Cause, End, Machine, MachineConfig, Notice, NoticeListener, PlugError, RunState, spec};
use armlet_memory::AccessSize;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("armlet-machine-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn image(&self) -> PathBuf {
        let mut v: Vec<u8> = (0..100_000u32).map(|i| (i / 3) as u8).collect();
        v[..32].fill(0);
        v[16..24].copy_from_slice(&(1u64 << 20).to_le_bytes());
        v[56..60].copy_from_slice(b"ARM\x64");
        let path = self.0.join("Image");
        std::fs::write(&path, v).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config(folder: &Folder) -> MachineConfig {
    let mut config = MachineConfig { memory: 64 << 20, smp: 2, ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Dummy;
    config.boot.kernel = Some(folder.image());
    config
}

const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

#[test]
fn devices_are_where_the_board_has_them() {
    let folder = Folder::new("map");
    let disk = folder.0.join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let mut config = config(&folder);
    config.drives = vec![DriveConfig { snapshot: true, ..DriveConfig::new(disk) }];
    let machine = Machine::new(config).unwrap();
    let word = |gpa| machine.memory().mmio_read(gpa, AccessSize::Word).unwrap();
    let peripheral_id =
        |base: u64| (0..4).fold(0, |id, i| id | (word(base + 0xfe0 + 4 * i) & 0xff) << (8 * i)) & 0xfff;
    assert_eq!(peripheral_id(0x0900_0000), 0x011);
    assert_eq!(peripheral_id(0x0901_0000), 0x031);
    assert_eq!(peripheral_id(0x0903_0000), 0x061);
    assert_eq!(word(0x0a00_3e00), 0x7472_6976);
    assert_eq!(word(0x0a00_3e08), 2, "the disk is in the highest slot");
    assert_eq!(word(0x0a00_3c08), 4, "entropy follows");
    assert_eq!((word(0x0a00_0000), word(0x0a00_0008)), (0x7472_6976, 0), "an empty slot");
    assert_eq!(word(0x0800_ffe8) >> 4 & 0xf, 3, "GICD_PIDR2: GICv3");
    assert_eq!(word(0x080a_0008 + 0x2_0000 + 4) & 0xff, 1, "GICR_TYPER of CPU 1: Aff0");
    assert!(machine.memory().mmio_read(0x0b00_0000, AccessSize::Word).is_err());
}

#[test]
fn what_the_guest_sends_comes_out_and_what_is_typed_goes_in() {
    let folder = Folder::new("uart");
    let machine = Machine::new(config(&folder)).unwrap();
    let write = |offset, value| {
        machine.memory().mmio_write(spec::UART0.base + offset, AccessSize::Word, value).unwrap();
    };
    assert!(machine.console().input.push(b"early"));
    write(0, b'h'.into());
    write(0, b'i'.into());
    let mut buffer = [0; 8];
    assert_eq!(machine.console().output.try_read(&mut buffer), 2);
    assert_eq!(&buffer[..2], b"hi");
    let typed: Vec<u8> = (0..5)
        .map(|_| machine.memory().mmio_read(spec::UART0.base, AccessSize::Word).unwrap() as u8)
        .collect();
    assert_eq!(typed, b"early");
}

#[test]
fn the_first_cpu_starts_by_the_boot_protocol_and_the_others_are_off() {
    let folder = Folder::new("boot");
    let machine = Machine::new(config(&folder)).unwrap();
    let (pc, x, el) = machine.engine().run_on(0, |a| (a.state().pc, a.state().x, a.state().el())).unwrap();
    assert_eq!(pc, spec::RAM_BASE);
    assert_eq!((x[1], x[2], x[3], el), (0, 0, 0, 1));
    let magic = machine.memory().ram().load(x[0], AccessSize::Word).unwrap() as u32;
    assert_eq!(magic.swap_bytes(), 0xd00d_feed, "X0 is the device tree");
    assert_eq!(machine.engine().power().power(1), Some(armlet_engine::Power::Off));
}

#[test]
fn a_reset_loads_everything_again_and_the_machine_goes_on() {
    let folder = Folder::new("reset");
    let mut machine = Machine::new(config(&folder)).unwrap();
    let ram = machine.memory().ram().clone();
    let at = spec::RAM_BASE + 99_999;
    let before = ram.load(at, AccessSize::Byte);
    machine.start().unwrap();
    ram.store(at, AccessSize::Byte, !before.unwrap() & 0xff).unwrap();
    machine.engine().run_on(0, |a| a.state_mut().pc = 0x1234).unwrap();
    let handle = machine.handle();
    handle.reset(Cause::HostReset);
    let watcher = {
        let ram = ram.clone();
        std::thread::spawn(move || {
            while ram.load(at, AccessSize::Byte) != before {
                std::thread::yield_now();
            }
            handle.quit(Cause::HostUi, "the test");
        })
    };
    assert_eq!(machine.run(LIMIT), End::Quit("the test".into()));
    watcher.join().unwrap();
    assert_eq!(machine.engine().run_on(0, |a| a.state().pc).unwrap(), spec::RAM_BASE);
}

#[test]
fn runs_end_for_the_reason_that_ended_them() {
    let folder = Folder::new("ends");
    let mut machine = Machine::new(config(&folder)).unwrap();
    machine.start().unwrap();
    for _ in 0..100 {
        machine.handle().reset(Cause::GuestReset);
    }
    assert_eq!(machine.run(LIMIT), End::ResetLoop);
    assert_eq!(machine.statistics().cpus.len(), 2);
    let mut config = config(&folder);
    config.on_reset = OnReset::PowerOff;
    let mut machine = Machine::new(config).unwrap();
    assert_eq!(machine.run(Some(Duration::from_millis(1))), End::TimedOut);
    machine.handle().reset(Cause::GuestReset);
    assert_eq!(machine.run(LIMIT), End::PoweredOff);
}

#[test]
fn hundreds_of_cpus_fit() {
    let folder = Folder::new("many");
    let mut config = config(&folder);
    config.smp = 130;
    let machine = Machine::new(config).unwrap();
    assert_eq!(machine.engine().vcpus().len(), 130);
    let last = spec::GIC_REDISTRIBUTOR_HIGH_BASE + 6 * 0x2_0000 + 8;
    let typer = machine.memory().mmio_read(last, AccessSize::Double).unwrap();
    assert_eq!(typer >> 32, 0x801, "Aff1 8, Aff0 1");
    assert_eq!(typer >> 4 & 1, 1, "the last of its region");
}

/// Writes down what it hears.
#[derive(Default)]
struct Diary(Mutex<Vec<Notice>>);

impl NoticeListener for Diary {
    fn notice(&self, notice: &Notice) {
        self.0.lock().unwrap().push(notice.clone());
    }
}

#[test]
fn what_happens_is_told_in_order() {
    let folder = Folder::new("notices");
    let mut machine = Machine::new(config(&folder)).unwrap();
    let handle = machine.handle();
    let diary = Arc::new(Diary::default());
    handle.listen(&(Arc::clone(&diary) as _));
    assert_eq!(handle.run_state(), RunState::Prelaunch);
    handle.pause("not running anyway").unwrap();
    handle.resume("the first time").unwrap();
    assert_eq!(handle.run_state(), RunState::Running);
    handle.pause("test").unwrap();
    handle.pause("again").unwrap();
    assert_eq!(handle.run_state(), RunState::Paused);
    handle.resume("test").unwrap();
    handle.press_power_key();
    handle.reset(Cause::HostReset);
    handle.quit(Cause::HostSignal, "the test");
    handle.quit(Cause::HostQuit, "too late");
    assert_eq!(machine.run(LIMIT), End::Quit("the test".into()));
    assert_eq!(handle.run_state(), RunState::Shutdown);
    machine.shutdown();
    let expected = [
        Notice::Resumed,
        Notice::Stopped,
        Notice::Resumed,
        Notice::PowerKey,
        Notice::Reset(Cause::HostReset),
        Notice::Shutdown(Cause::HostSignal),
    ];
    assert_eq!(*diary.0.lock().unwrap(), expected);
}

#[test]
fn many_resets_from_outside_are_no_loop() {
    let folder = Folder::new("outside");
    let mut machine = Machine::new(config(&folder)).unwrap();
    machine.start().unwrap();
    for _ in 0..20 {
        machine.handle().reset(Cause::HostReset);
    }
    machine.handle().quit(Cause::HostQuit, "enough");
    assert_eq!(machine.run(LIMIT), End::Quit("enough".into()));
}

/// Whoever stops the vCPUs stops their time as well, also when several do it at once.
#[test]
fn time_goes_exactly_while_the_machine_runs() {
    let folder = Folder::new("time");
    let machine = Machine::new(config(&folder)).unwrap();
    let handle = machine.handle();
    let moves = || {
        let (before, host) = (handle.time(), Instant::now());
        while host.elapsed() < Duration::from_millis(2) {}
        handle.time() > before
    };
    assert!(!moves(), "not before the start");
    machine.start().unwrap();
    assert!(moves());
    for _ in 0..20 {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..20).for_each(|_| drop(handle.pause("test"))));
                scope.spawn(|| (0..20).for_each(|_| handle.resume("test").unwrap()));
            }
        });
        let running = handle.is_running();
        assert_eq!(moves(), running);
        handle.resume("test").unwrap();
        assert!(moves());
    }
}

fn deterministic(folder: &Folder) -> MachineConfig {
    let mut config = config(folder);
    config.accelerator.kind = AcceleratorKind::Jit;
    config.accelerator.options = vec![("thread".into(), "single".into())];
    config
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "needs the translator")]
fn a_machine_that_is_recorded_keeps_its_cpus() {
    let folder = Folder::new("recorded");
    let mut config = deterministic(&folder);
    config.max_cpus = Some(3);
    config.record = Some(folder.0.join("run.rec"));
    let machine = Machine::new(config).unwrap();
    assert!(matches!(machine.handle().plug_cpu(2), Err(PlugError::Recorded)));
    assert!(matches!(machine.handle().unplug_cpu(1), Err(PlugError::Recorded)));
    assert!(!folder.0.join("run.rec").exists(), "nothing has happened yet");
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "needs the translator")]
fn the_seeds_of_a_deterministic_machine_are_the_same_every_time() {
    let folder = Folder::new("seeds");
    let tree = |config: &MachineConfig| Machine::device_tree(config).unwrap();
    let mut same = deterministic(&folder);
    same.boot.kaslr = true;
    assert_eq!(tree(&same), tree(&same));
    same.accelerator.options.clear();
    assert_ne!(tree(&same), tree(&same));
}
