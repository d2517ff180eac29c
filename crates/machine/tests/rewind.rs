//! Back in time: the past is lived through as it was, and the present goes on from where it was left.
#![cfg(target_arch = "x86_64")]

use std::time::Duration;

use armlet_machine::config::{AcceleratorKind, DriveConfig};
use armlet_machine::{Cause, Machine, MachineConfig, MachineHandle, RewindError, spec};

/// The demonstration guest, which prints, waits for a timer and echoes what is typed.
fn config() -> MachineConfig {
    let mut config = MachineConfig { memory: 32 << 20, ..MachineConfig::default() };
    config.accelerator.kind = AcceleratorKind::Jit;
    let option = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    config.accelerator.options =
        [("thread", "single"), ("sleep", "off"), ("trace", "on")].map(option).to_vec();
    config
}

/// Registers, and all of memory as one number.
fn moment(machine: &MachineHandle) -> (String, u64) {
    let state = machine.engine().run_on(0, |cpu| format!("{:?}", cpu.state())).expect("work runs");
    let mut bytes = vec![0; 32 << 20];
    machine.memory().ram().read(spec::RAM_BASE, &mut bytes).expect("all is RAM");
    let hash = bytes.chunks_exact(8).fold(0u64, |hash, word| {
        let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (state, hash)
}

/// Does something with a machine while its own thread runs it.
fn with_machine(machine: Machine, f: impl FnOnce(&MachineHandle, &dyn Fn() -> String)) {
    let handle = machine.handle();
    let console = machine.console().clone();
    let read = move || {
        let mut out = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match console.output.try_read(&mut buffer) {
                0 => return String::from_utf8_lossy(&out).into_owned(),
                n => out.extend(&buffer[..n]),
            }
        }
    };
    std::thread::scope(|scope| {
        let mut machine = machine;
        let run = scope.spawn(move || {
            machine.run(Some(Duration::from_secs(120)));
            machine.shutdown();
        });
        f(&handle, &read);
        handle.quit(Cause::HostUi, "the test is over");
        run.join().expect("no panic");
    });
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn the_past_comes_again_as_it_was() {
    let machine = Machine::new(config()).expect("is made");
    let console = machine.console().clone();
    with_machine(machine, |machine, said| {
        assert!(console.input.push(b"first words\r"));
        assert!(machine.run_to(2 * SECOND).expect("runs"));
        let early = moment(machine);
        assert!(console.input.push(b"second words\r"));
        assert!(machine.run_to(5 * SECOND + 12_345).expect("runs"));
        let late = moment(machine);
        let text = said();
        assert!(text.contains("first words") && text.contains("second words"), "{text}");
        for _ in 0..2 {
            machine.rewind(2 * SECOND).expect("goes back");
            assert_eq!(machine.count(), Some(2 * SECOND));
            assert!(moment(machine) == early, "another past");
            assert!(machine.run_to(5 * SECOND + 12_345).expect("runs"));
            assert!(moment(machine) == late, "another present");
        }
        // In smaller and smaller steps, to the instruction.
        let before = machine.last_instruction(0).expect("it has executed some");
        assert!(before < 5 * SECOND + 12_345);
        machine.rewind(before).expect("goes back");
        assert!(moment(machine).0 != late.0);
        assert!(machine.run_to(5 * SECOND + 12_345).expect("runs"));
        assert!(moment(machine) == late);
        assert_eq!(said(), "", "it has said that before");
        assert!(machine.run_to(8 * SECOND).expect("runs"));
        assert!(!said().is_empty(), "the present goes on");
        assert!(matches!(machine.rewind(9 * SECOND), Err(RewindError::Future(_))));
    });
}

#[test]
fn what_was_written_for_good_does_not_go_back() {
    let path = std::env::temp_dir().join(format!("armlet-rewind-{}", std::process::id()));
    std::fs::write(&path, vec![0; 4096]).expect("a file");
    let with = |readonly, snapshot| {
        let drive = DriveConfig { readonly, snapshot, ..DriveConfig::new(path.clone()) };
        let machine = Machine::new(MachineConfig { drives: vec![drive], ..config() }).expect("is made");
        machine.handle().can_rewind()
    };
    assert!(matches!(with(false, false), Err(RewindError::Disk(0))));
    assert!(with(true, false).is_ok());
    assert!(with(false, true).is_ok());
    let mut ordinary = config();
    ordinary.accelerator.options.clear();
    let machine = Machine::new(ordinary).expect("is made");
    let refused = machine.handle().rewind(0).expect_err("its time is the host's").to_string();
    assert!(refused.contains("thread=single"), "{refused}");
    let _ = std::fs::remove_file(&path);
}
