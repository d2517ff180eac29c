//! Saving and restoring over a machine of dummies; what guests make of it is tested with guests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use armlet_engine::MachineState;
use armlet_memory::AccessSize;

use super::*;
use crate::config::{AcceleratorKind, Bus, ConsoleDevice, DriveConfig, MachineConfig, Semihosting};
use crate::handle::RunState;
use crate::{ConfigError, End, Machine, spec};

/// A folder that is deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("armlet-state-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config() -> MachineConfig {
    let mut config =
        MachineConfig { memory: 64 << 20, smp: 2, max_cpus: Some(4), ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Dummy;
    config
}

fn restored(path: &Path) -> Result<Machine, ConfigError> {
    let mut config = MachineConfig::of_saved(path)?;
    config.accelerator.kind = AcceleratorKind::Dummy;
    Machine::new(config)
}

fn refused(path: &Path) -> String {
    match restored(path) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("{} was restored", path.display()),
    }
}

/// What the guest sees of a time: the system counter.
fn ticks(time: Duration) -> u128 {
    time.as_nanos() / 16
}

#[test]
fn a_machine_comes_back_as_it_was() {
    let folder = Folder::new();
    let path = folder.file("state");
    // Programs' clock goes on while a machine is paused.
    let machine = Machine::new(MachineConfig { semihosting: Semihosting::Off, ..config() }).unwrap();
    let handle = machine.handle();
    machine.start().unwrap();
    handle.plug_cpu(3).unwrap();
    let ram = machine.memory().ram().clone();
    for (address, value) in [(0, 1), (0x123_4560, 2), ((64 << 20) - 8, 3)] {
        ram.store(spec::RAM_BASE + address, AccessSize::Double, value).unwrap();
    }
    machine.memory().mmio_write(spec::UART0.base + 0x24, AccessSize::Word, 0x77).unwrap();
    machine.memory().mmio_write(spec::GIC_DISTRIBUTOR.base, AccessSize::Word, 3).unwrap();
    handle.pause("test").unwrap();
    machine.engine().run_on(3, |a| a.state_mut().x[5] = 55).unwrap();
    machine.engine().run_on(0, |a| a.state_mut().v[31] = 1 << 100).unwrap();
    let time = handle.time();
    assert!(time > Duration::ZERO);
    let report = handle.save(&path, SavedThen::GoesOn).unwrap();
    assert_eq!(report.size, std::fs::metadata(&path).unwrap().len());
    assert!(report.size < 1 << 20, "zeroes are left out: {}", report.size);
    assert_eq!(handle.state(), MachineState::Paused, "still paused");

    let other = restored(&path).unwrap();
    assert!(other.was_paused());
    assert_eq!(other.engine().vcpus(), [0, 1, 3]);
    assert_eq!(other.engine().run_on(3, |a| a.state().x[5]).unwrap(), 55);
    assert_eq!(other.engine().run_on(0, |a| a.state().v[31]).unwrap(), 1 << 100);
    let read = |address| other.memory().mmio_read(address, AccessSize::Word).unwrap();
    assert_eq!(read(spec::UART0.base + 0x24), 0x77);
    assert_eq!(read(spec::GIC_DISTRIBUTOR.base) & 3, 3);
    let same = |a: &Machine, b: &Machine| {
        let read = |m: &Machine| {
            let mut bytes = vec![0; 64 << 20];
            m.memory().ram().read(spec::RAM_BASE, &mut bytes).unwrap();
            bytes
        };
        assert!(read(a) == read(b), "RAM differs");
    };
    same(&machine, &other);
    let there = other.handle().time();
    assert_eq!(ticks(there), ticks(time));
    // What it saves is what it was made from, but for when its files were looked at.
    let again = folder.file("again");
    other.handle().save(&again, SavedThen::GoesOn).unwrap();
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&path).unwrap(), "not the same again");
    other.handle().unplug_cpu(3).unwrap();
    other.handle().plug_cpu(2).unwrap();
}

#[test]
fn one_that_runs_goes_on_and_one_that_ends_does_not() {
    let folder = Folder::new();
    let path = folder.file("state");
    let mut machine = Machine::new(config()).unwrap();
    let handle = machine.handle();
    handle.save(&path, SavedThen::GoesOn).unwrap();
    assert_eq!(handle.run_state(), RunState::Prelaunch);
    assert!(restored(&path).unwrap().was_paused());
    machine.start().unwrap();
    handle.save(&path, SavedThen::GoesOn).unwrap();
    assert_eq!(handle.run_state(), RunState::Running);
    let time = handle.time();
    while handle.time() == time {
        std::hint::spin_loop();
    }
    assert!(!restored(&path).unwrap().was_paused());
    handle.save(&path, SavedThen::Ends).unwrap();
    assert!(!handle.is_running());
    assert_eq!(machine.run(None), End::Quit("whoever saved it".into()));
    let other = restored(&path).unwrap();
    assert!(!other.was_paused());
    assert_eq!(ticks(other.handle().time()), ticks(handle.time()));
    assert!(matches!(handle.save(&path, SavedThen::GoesOn), Err(SaveError::Ending)));
}

#[test]
fn saving_again_and_again_while_others_pause_and_resume_loses_nobody() {
    let folder = Folder::new();
    let machine = Machine::new(config()).unwrap();
    machine.start().unwrap();
    let handle = machine.handle();
    std::thread::scope(|scope| {
        for n in 0..2 {
            let (handle, path) = (handle.clone(), folder.file(&format!("state{n}")));
            scope.spawn(move || {
                for _ in 0..25 {
                    handle.save(&path, SavedThen::GoesOn).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                handle.pause("test").unwrap();
                handle.resume("test").unwrap();
            }
        });
    });
    assert_eq!(handle.run_state(), RunState::Running);
    assert_eq!(restored(&folder.file("state0")).unwrap().engine().vcpus(), [0, 1]);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2, "no unfinished files");
}

#[test]
fn what_differs_is_named() {
    let folder = Folder::new();
    let path = folder.file("state");
    let machine = Machine::new(config()).unwrap();
    machine.handle().save(&path, SavedThen::GoesOn).unwrap();
    let saved = MachineConfig::of_saved(&path).unwrap();
    for (text, change) in [
        ("--memory was '64M' and is '128M': leave --memory out, or give --memory 64M", {
            (|c| c.memory = 128 << 20) as fn(&mut MachineConfig)
        }),
        ("--smp was '2,max=4", |c| c.smp = 3),
        ("--smp was '2,max=4,sockets=1,clusters=1,cores=4,threads=1' and is '2,max=4,sockets=4", |c| {
            (c.topology.sockets, c.topology.cores) = (Some(4), Some(1));
        }),
        ("--console was 'uart' and is 'virtio'", |c| c.console = ConsoleDevice::Virtio),
        ("the entropy device was 'on' and is 'off'", |c| c.entropy = false),
        ("--append was ''", |c| c.boot.append = "quiet".into()),
        ("--kaslr was 'off' and is 'on': leave --kaslr out", |c| c.boot.kaslr = true),
        ("MIDR_EL1 of the CPU was '0x414fd0c1'", |c| c.cpu.model = "cortex-a53".into()),
        ("ID_AA64ISAR0_EL1 of the CPU was", |c| c.cpu.features = vec![("aes".into(), false)]),
        (if cfg!(target_arch = "x86_64") { "thread=single" } else { "cannot translate" }, |c| {
            c.accelerator.kind = AcceleratorKind::Jit;
            c.accelerator.options = vec![("thread".into(), "single".into())];
        }),
        ("--record", |c| c.record = Some("x".into())),
    ] {
        let mut other = saved.clone();
        other.accelerator.kind = AcceleratorKind::Dummy;
        change(&mut other);
        let error = Machine::new(other).err().expect("is refused").to_string();
        assert!(error.contains(text), "{text}: {error}");
    }
}

#[test]
fn drives_must_be_as_they_were() {
    let folder = Folder::new();
    let (path, disk) = (folder.file("state"), folder.file("disk.img"));
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let drive = DriveConfig::new(disk.clone());
    let mut config = MachineConfig { drives: vec![drive], ..config() };
    let machine = Machine::new(config.clone()).unwrap();
    machine.handle().save(&path, SavedThen::GoesOn).unwrap();
    let error = refused(&path);
    assert!(error.contains("is given twice"), "its machine still has it: {error}");
    drop(machine);
    drop(restored(&path).unwrap());
    // A copy is as good, if it is one.
    let copy = folder.file("copy.img");
    std::fs::copy(&disk, &copy).unwrap();
    let with = |file: &Path| {
        let mut config = MachineConfig::of_saved(&path).unwrap();
        config.accelerator.kind = AcceleratorKind::Dummy;
        config.drives[0].file = file.into();
        Machine::new(config).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(with(&copy), Ok(()));
    std::fs::write(&copy, vec![7; 1 << 19]).unwrap();
    let error = with(&copy).unwrap_err();
    assert!(error.contains("the size of drive 0 was '1M' and is '512K'"), "{error}");
    std::fs::write(&copy, [vec![7; (1 << 20) - 1], vec![8]].concat()).unwrap();
    assert!(with(&copy).unwrap_err().contains("was written to since"));
    // The same bytes again, but they were written.
    let written = std::fs::metadata(&disk).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    file.set_modified(written + Duration::from_secs(1)).unwrap();
    let error = refused(&path);
    assert!(error.starts_with("drive 0 (") && error.contains("was written to since"), "{error}");
    let mut moved = MachineConfig::of_saved(&path).unwrap();
    moved.accelerator.kind = AcceleratorKind::Dummy;
    moved.drives[0].bus = Bus::Pci;
    let error = Machine::new(moved).err().expect("is refused").to_string();
    assert!(error.contains("the bus of drive 0 was 'mmio' and is 'pci'"), "{error}");
    config.drives[0].snapshot = true;
    let machine = Machine::new(config).unwrap();
    let error = machine.handle().save(&path, SavedThen::GoesOn).unwrap_err().to_string();
    assert!(error.contains("snapshot=on"), "{error}");
}

#[test]
fn what_cannot_be_written_leaves_machine_and_old_file_as_they_were() {
    let folder = Folder::new();
    let path = folder.file("state");
    let machine = Machine::new(config()).unwrap();
    machine.start().unwrap();
    let handle = machine.handle();
    handle.save(&path, SavedThen::GoesOn).unwrap();
    let before = std::fs::read(&path).unwrap();
    for bad in [folder.0.clone(), folder.file("absent/state"), "/dev/null".into()] {
        let error = handle.save(&bad, SavedThen::GoesOn).unwrap_err().to_string();
        assert!(error.contains("cannot be written"), "{error}");
        assert_eq!(handle.run_state(), RunState::Running);
    }
    // A file system that is full.
    let error = handle.save("/dev/full".as_ref(), SavedThen::GoesOn).unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let mut single = config();
    single.accelerator.kind = AcceleratorKind::Jit;
    single.accelerator.options = vec![("thread".into(), "single".into())];
    let error = Machine::new(single).unwrap().handle().save(&path, SavedThen::GoesOn).unwrap_err();
    assert!(error.to_string().contains("thread=single"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// The bytes of a small saved machine, and how many come before RAM.
fn small(folder: &Folder) -> (Vec<u8>, usize) {
    let path = folder.file("small");
    let mut config = MachineConfig { smp: 1, max_cpus: None, ..config() };
    config.memory = 64 << 20;
    let machine = Machine::new(config).unwrap();
    machine.handle().save(&path, SavedThen::GoesOn).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut at = 24;
    loop {
        let head = &bytes[at..at + 24];
        let length = u64::from_le_bytes(head[8..16].try_into().unwrap()) as usize;
        if head[0] == 16 {
            return (bytes, at);
        }
        at += 24 + length;
    }
}

#[test]
fn damaged_files_are_refused_wherever_they_are_damaged() {
    let folder = Folder::new();
    let (bytes, ram) = small(&folder);
    let path = folder.file("damaged");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        restored(&path).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(read(&bytes), Ok(()));
    for at in 0..ram {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let error = read(&changed).unwrap_err();
        assert!(error.contains("cannot be restored: ") && !error.contains('\n'), "byte {at}: {error}");
    }
    for length in (0..ram).chain([ram + 30, bytes.len() - 1]) {
        let error = read(&bytes[..length]).unwrap_err();
        assert!(error.contains("cannot be restored: ") || length == 0, "{length}: {error}");
    }
    let mut changed = bytes.clone();
    changed[ram + 1000] ^= 1;
    assert!(read(&changed).unwrap_err().contains("damaged"));
}

/// Values that are checked and yet nonsense: whoever can write the file can compute checks.
#[test]
fn strange_values_are_refused_or_harmless() {
    use armlet_saved::file::{Reader, Section, Writer};
    let folder = Folder::new();
    let (bytes, _) = small(&folder);
    let path = folder.file("strange");
    let mut sections = Vec::new();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    while let Some((section, payload)) = reader.next().unwrap() {
        sections.push((section, payload.to_vec()));
    }
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % n
    };
    let (mut made, mut other) = (0, 0);
    for _ in 0..500 {
        let mut changed = sections.clone();
        let plain = changed.iter().position(|(section, _)| *section == Section::Ram).unwrap();
        let (_, payload) = &mut changed[random(plain)];
        for _ in 0..=random(2) {
            let at = random(payload.len());
            // Mostly another digit, so that it stays a number.
            payload[at] = match payload[at] {
                b'0'..=b'9' if random(8) != 0 => b"0123456789"[random(10)],
                byte => byte ^ (1 << random(8)),
            };
        }
        let mut out = Writer::new(Vec::new()).unwrap();
        changed.iter().for_each(|(section, payload)| out.section(*section, &[payload]).unwrap());
        std::fs::write(&path, out.finish().unwrap()).unwrap();
        match restored(&path) {
            Ok(machine) => {
                made += 1;
                machine.start().unwrap();
                machine.handle().pause("test").unwrap();
            }
            Err(e) => {
                other += 1;
                assert!(!e.to_string().contains('\n'), "{e}");
            }
        }
    }
    assert!(made > 20 && other > 20, "{made} {other}");
}

#[test]
fn other_files_are_no_saved_machines() {
    let folder = Folder::new();
    let path = folder.file("other");
    std::fs::write(&path, "something else altogether, and long enough").unwrap();
    assert!(refused(&path).contains("it is no saved state: give a file that armlet ctl PATH save has made"));
    assert!(refused(&folder.0).contains("is a folder"));
    assert!(refused(&folder.file("absent")).contains("cannot be read"));
}
