//! Conversations in packets: stops, steps, threads, memory, ends.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use armlet_engine::MachineState;
use armlet_machine::config::AcceleratorKind;
use armlet_machine::{Cause, End};
use common::{BRANCH, COUNTER, Client, LOOP, PC, Rig, STORE, framed, unhex};

const CTRL_C: &[u8] = b"\x03";

#[test]
fn a_machine_that_waits_begins_at_its_first_instruction() {
    let rig = Rig::paused(2);
    let mut client = rig.client();
    assert_eq!(client.ask("?"), "T05thread:p01.01;");
    assert_eq!(client.ask("qfThreadInfo"), "mp01.01,p01.02");
    assert_eq!(client.ask("qsThreadInfo"), "l");
    assert_eq!(unhex(&client.ask("qThreadExtraInfo,p1.1")), "CPU 0 (EL1h)");
    assert_eq!(unhex(&client.ask("qThreadExtraInfo,p1.2")), "CPU 1 (powered off)");
    client.does("Hgp1.1");
    assert_eq!(client.register(PC), LOOP - 68);
    assert_eq!((rig.machine.state(), rig.machine.time()), (MachineState::Created, Duration::ZERO));
    client.does(&format!("Z0,{STORE:x},4"));
    assert!(client.ask("vCont;c").starts_with("T05thread:p01.01;swbreak:;"));
    assert_eq!((client.register(PC), client.register(2), rig.count()), (STORE, 1, 0));
}

#[test]
fn breakpoints_steps_and_watchpoints_stop_where_they_should() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    client.does("Hgp1.1");
    client.does(&format!("Z1,{BRANCH:x},4"));
    let stop = client.ask("vCont;c");
    assert!(stop.starts_with("T05thread:p01.01;hwbreak:;"), "{stop}");
    // FP, SP and PC come along.
    assert!(stop.contains(&format!("20:{:016x};", BRANCH.swap_bytes())), "{stop}");
    client.does(&format!("z1,{BRANCH:x},4"));
    for at in [LOOP, STORE, BRANCH, LOOP] {
        assert!(client.ask("vCont;s:p1.1").starts_with("T05thread:p01.01;"));
        assert_eq!(client.register(PC), at);
    }
    assert!(client.ask("s").starts_with("T05"), "the old way");
    assert_eq!(client.register(PC), STORE);
    for (set, told) in [("2", "watch"), ("4", "awatch")] {
        client.does(&format!("Z{set},{:x},1", COUNTER + 3));
        for _ in 0..3 {
            let before = rig.count();
            let stop = client.ask("c");
            assert!(stop.starts_with(&format!("T05thread:p01.01;{told}:{:x};", COUNTER + 3)), "{stop}");
            assert_eq!((client.register(PC), rig.count()), (STORE, before), "before the access");
            client.does(&format!("z{set},{:x},1", COUNTER + 3));
            assert!(client.ask("vCont;s:1").starts_with("T05"));
            assert_eq!(rig.count(), before + 1);
            client.does(&format!("Z{set},{:x},1", COUNTER + 3));
        }
        client.does(&format!("z{set},{:x},1", COUNTER + 3));
    }
    // One for reads is not met.
    client.does(&format!("Z3,{COUNTER:x},8"));
    client.send(&framed(b"vCont;c"));
    rig.counts();
    client.send(CTRL_C);
    assert!(client.packet().unwrap().starts_with("T02thread:p01.01;"));
}

#[test]
fn only_chosen_threads_run() {
    let rig = Rig::new(2);
    rig.machine.engine().power().power_on(1, LOOP - 4, 7).unwrap();
    let mut client = rig.client();
    let x2 = |client: &mut Client, thread: usize| {
        client.does(&format!("Hgp1.{thread}"));
        client.register(2)
    };
    for (chosen, other) in [(1, 2), (2, 1), (1, 2)] {
        let before = (x2(&mut client, chosen), x2(&mut client, other));
        client.send(&framed(format!("vCont;c:p1.{chosen}").as_bytes()));
        rig.counts();
        client.send(CTRL_C);
        assert!(client.packet().unwrap().starts_with(&format!("T02thread:p01.0{chosen};")));
        let after = (x2(&mut client, chosen), x2(&mut client, other));
        assert!(after.0 > before.0, "it ran");
        assert_eq!(after.1, before.1, "it stood still");
    }
    // A step of one while the other runs.
    client.does("Hgp1.2");
    let (before, one) = (client.register(PC), x2(&mut client, 1));
    let mut steps = 0;
    while x2(&mut client, 1) == one {
        assert!(client.ask("vCont;s:p1.2;c:p1.-1").starts_with("T05thread:p01.02;"));
        steps += 1;
    }
    client.does("Hgp1.2");
    assert_eq!(client.register(PC), LOOP + (before - LOOP + 4 * steps) % 12, "{steps} steps");
    // A step of one, alone.
    let one = x2(&mut client, 1);
    for _ in 0..10 {
        assert!(client.ask("vCont;s:p1.2").starts_with("T05thread:p01.02;"));
    }
    assert_eq!(x2(&mut client, 1), one);
    assert!(client.ask("vCont;c:p1.7").starts_with("E.the packet is malformed"), "there is no such thread");
    // All run again when the client has gone.
    drop(client);
    rig.counts();
    let before = rig.machine.engine().run_on(1, |cpu| cpu.state().x[2]).unwrap();
    rig.counts();
    while rig.machine.engine().run_on(1, |cpu| cpu.state().x[2]).unwrap() == before {}
}

#[test]
fn memory_and_registers_are_written() {
    let rig = Rig::new(1);
    rig.counts();
    let mut client = rig.client();
    client.does("Hgp1.1");
    assert_eq!(client.ask(&format!("m{LOOP:x},8")), "42040091220000f9");
    client.does(&format!("P2={:016x}", 0x1234u64.swap_bytes()));
    client.does(&format!("P20={:016x}", STORE.swap_bytes()));
    assert!(client.ask("vCont;s:1").starts_with("T05"));
    assert_eq!(rig.count(), 0x1234);
    assert_eq!(client.ask(&format!("m{COUNTER:x},2")), "3412");
    client.does(&format!("M{COUNTER:x},2:ffff"));
    assert_eq!(rig.count(), 0xffff);
    // Code: the loop now counts by two, though it has been executed before.
    client.does(&format!("P2={:016x}", 0u64));
    client.does(&format!("M{LOOP:x},4:42080091"));
    client.does(&format!("Z0,{STORE:x},4"));
    for n in 1..4 {
        assert!(client.ask("c").starts_with("T05"));
        assert_eq!(client.register(2), 2 * n);
        // Off the breakpoint.
        assert!(client.ask("s").starts_with("T05"));
    }
    let all = client.ask("g");
    assert_eq!(all.len(), 2 * (33 * 8 + 4 + 32 * 16 + 8));
    client.does(&format!("G{all}"));
    assert_eq!(client.ask("g"), all);
    for refused in ["m0,4", "m9000000,4", "mffffffffffffffff,4", "M0,1:00", "P44=00", "p7fffffff", "G00"] {
        assert!(client.ask(refused).starts_with('E'), "{refused}");
    }
    assert_eq!(client.ask(&format!("m{LOOP:x},0")), "");
    assert_eq!(client.ask("qqemu.PhyMemMode"), "0");
    client.does("Qqemu.PhyMemMode:1");
    assert_eq!(client.ask("qqemu.PhyMemMode"), "1");
    assert_eq!(client.ask(&format!("m{LOOP:x},4")), "42080091");
    // Physical memory belongs to no CPU: not to one that is gone either.
    client.does("Hgp1.9");
    client.does(&format!("M{COUNTER:x},2:0102"));
    assert_eq!(client.ask(&format!("m{COUNTER:x},2")), "0102");
}

#[test]
fn the_description_of_the_cpu_is_read_in_pieces() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    let mut xml = String::new();
    loop {
        let piece = client.ask(&format!("qXfer:features:read:target.xml:{:x},3f1", xml.len()));
        let (kind, text) = piece.split_at(1);
        xml.push_str(text);
        if kind == "l" {
            break;
        }
        assert_eq!(kind, "m");
    }
    for part in ["org.gnu.gdb.aarch64.core", "org.gnu.gdb.aarch64.fpu", "SCTLR_EL1", "</target>"] {
        assert!(xml.contains(part), "{part}");
    }
    assert!(!xml.contains(['#', '$', '}', '*']), "nothing that needs an escape");
    assert_eq!(client.ask("qXfer:features:read:target.xml:ffffffffffffff,3f1"), "l");
    assert!(client.ask("qXfer:features:read:other.xml:0,3f1").starts_with('E'));
}

#[test]
fn who_leaves_lets_the_machine_run_on() {
    let rig = Rig::new(1);
    for leave in ["D", "D;1", ""] {
        let mut client = rig.client();
        client.does(&format!("Z0,{STORE:x},4"));
        assert!(client.ask("c").starts_with("T05"));
        if !leave.is_empty() {
            client.does(leave);
            assert_eq!(client.packet(), None, "the connection ends");
        }
        drop(client);
        rig.counts();
        rig.counts();
    }
    // While it waits for a stop, too.
    let mut client = rig.client();
    client.send(&framed(b"c"));
    client.send(&framed(b"D;1"));
    assert_eq!(client.packet().unwrap(), "OK");
    rig.counts();
    // One that has not even begun.
    drop(Client::connect(&rig));
    rig.counts();
}

#[test]
fn a_machine_that_waits_starts_when_its_debugger_leaves() {
    let rig = Rig::paused(1);
    drop(Client::connect(&rig));
    let mut client = rig.client();
    assert_eq!(rig.machine.state(), MachineState::Created);
    client.does("D");
    rig.counts();
}

#[test]
fn a_kill_ends_the_machine() {
    for (kill, answer) in [("k", None), ("vKill;1", Some("OK".to_owned()))] {
        let rig = Rig::new(1);
        let mut client = rig.client();
        client.send(&framed(kill.as_bytes()));
        assert_eq!(client.packet(), answer);
        let End::Quit(reason) = rig.end() else { panic!("another end") };
        assert_eq!(reason, "the debugger's kill");
    }
}

#[test]
fn the_machines_end_is_told() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    client.send(&framed(b"vCont;c"));
    rig.counts();
    rig.machine.quit(Cause::HostQuit, "the test");
    assert_eq!(client.packet().unwrap(), "W00");
    assert_eq!(client.packet(), None);
    rig.end();
    // To one that does not wait for anything there is nothing to say.
    let rig = Rig::new(1);
    let mut client = rig.client();
    rig.machine.quit(Cause::HostQuit, "the test");
    assert_eq!(client.packet(), None);
    rig.end();
}

#[test]
fn a_pause_and_a_resume_by_others_are_no_trouble() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    client.send(&framed(b"vCont;c"));
    rig.counts();
    rig.machine.pause("the test").unwrap();
    assert!(client.packet().unwrap().starts_with("T02thread:p01.01;"));
    rig.machine.resume("the test").unwrap();
    rig.counts();
    client.does(&format!("Z0,{STORE:x},4"));
    for _ in 0..3 {
        assert!(client.ask("vCont;c").starts_with("T05thread:p01.01;swbreak:;"));
        rig.machine.resume("the test").unwrap();
    }
}

/// Whatever they do in the middle of what the debugger does, nobody stays stopped when it has gone.
#[test]
fn others_pause_and_resume_all_the_while() {
    let rig = Rig::new(2);
    rig.machine.engine().power().power_on(1, LOOP - 4, 7).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = rig.machine.pause("the test");
                rig.machine.resume("the test").unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let x2 = |cpu| rig.machine.engine().run_on(cpu, |cpu| cpu.state().x[2]).unwrap();
        let visits = || {
            for round in 0..40 {
                let mut client = rig.client();
                client.send(&framed(["vCont;c:p1.1", "vCont;s:p1.2", "vCont;c"][round % 3].as_bytes()));
                client.send(CTRL_C);
                while !client.packet().unwrap().starts_with('T') {}
                if round % 2 == 0 {
                    client.does("D");
                }
                drop(client);
                // Until it is seen that the client has gone, and then all of them.
                let (start, before) = (Instant::now(), [x2(0), x2(1)]);
                while x2(0) == before[0] || x2(1) == before[1] {
                    if start.elapsed() > Duration::from_secs(10) {
                        return Err(format!("round {round}: a vCPU stands still"));
                    }
                }
            }
            Ok(())
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(visits));
        over.store(true, Ordering::Relaxed);
        result.unwrap().unwrap();
    });
}

#[test]
fn a_reset_is_done_while_the_machine_is_stopped() {
    let rig = Rig::new(2);
    rig.counts();
    let mut client = rig.client();
    let text = client.monitor("reset");
    assert!(text.contains("was reset"), "{text}");
    client.does("Hgp1.1");
    assert_eq!(client.register(PC), LOOP - 68);
    assert_eq!(rig.count(), 0, "memory is loaded anew");
    client.does(&format!("Z0,{BRANCH:x},4"));
    assert!(client.ask("c").starts_with("T05"));
    assert_eq!(rig.count(), 1);
    // Breakpoints outlive a reset, also one that others make while the machine runs.
    client.does(&format!("z0,{BRANCH:x},4"));
    client.does(&format!("Z0,{:x},4", LOOP - 4));
    client.send(&framed(b"c"));
    rig.counts();
    rig.machine.reset(Cause::HostReset);
    assert!(client.packet().unwrap().starts_with("T05thread:p01.01;swbreak:;"));
    assert_eq!(client.register(PC), LOOP - 4);
}

#[test]
fn the_monitor_explains_itself() {
    let rig = Rig::new(2);
    let mut client = rig.client();
    for command in ["help", "", "?"] {
        assert!(client.monitor(command).contains("translate ADDRESS"));
    }
    let text = client.monitor("status");
    assert!(text.contains("stopped") && text.contains("CPU 1 (powered off)"), "{text}");
    assert!(client.monitor("info tlb").contains("translates no addresses"));
    assert!(client.monitor("translate 0x40000000").contains("is at 0x40000000"));
    assert!(client.monitor("phys on").contains("physical"));
    assert_eq!(client.ask("qqemu.PhyMemMode"), "1");
    for command in
        ["translate", "info", "phys maybe", "\u{fffd}", "translate 0x", "translate -1", "info tlb x"]
    {
        let text = client.monitor(command);
        assert!(text.contains("monitor help") || text.contains("no number"), "{command}: {text}");
    }
    assert!(client.monitor("quit").contains("ends"));
    rig.end();
}

#[test]
fn an_accelerator_that_cannot_debug_says_so() {
    let rig = Rig::with(1, AcceleratorKind::Dummy);
    let mut client = rig.client();
    client.does("Hgp1.1");
    assert_eq!(client.register(PC), LOOP - 68);
    client.send(&framed(b"vCont;s:p1.1"));
    let told = client.packet().unwrap();
    assert!(unhex(&told[1..]).contains("does not support debugging"), "{told}");
    assert!(client.packet().unwrap().starts_with("T05thread:p01.01;"));
    client.send(&framed(b"c"));
    std::thread::sleep(Duration::from_millis(1));
    client.send(CTRL_C);
    assert!(client.packet().unwrap().starts_with("T02"));
}
