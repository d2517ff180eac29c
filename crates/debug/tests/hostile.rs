//! Clients that send rubbish, send too much, do not read, die, or come in twos: each gets a clear refusal, and the
//! machine goes on.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::{Client, LIMIT, PC, Rig, STORE, framed};

/// A generator of numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn a_second_client_is_refused_and_the_first_goes_on() {
    let rig = Rig::new(1);
    let mut first = rig.client();
    for _ in 0..3 {
        let mut second = Client::connect(&rig);
        let told = second.packet().unwrap();
        assert!(told.starts_with("E.another debugger"), "{told}");
        second.acks = false;
        assert_eq!(second.packet(), None);
        first.does("Hgp1.1");
        first.register(PC);
    }
    first.does("D");
    drop(first);
    // There is room again, as soon as the server has seen it.
    let start = Instant::now();
    loop {
        let mut next = Client::connect(&rig);
        let _ = next.stream.write_all(&framed(b"?"));
        if next.packet().is_some_and(|p| p.starts_with('T')) {
            return;
        }
        assert!(start.elapsed() < LIMIT);
    }
}

#[test]
fn garbage_does_not_even_stop_the_machine() {
    let rig = Rig::new(1);
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..20 {
        let mut client = Client::connect(&rig);
        let garbage: Vec<u8> = (0..20_000).map(|_| random.next() as u8).filter(|b| *b != b'#').collect();
        client.send(&garbage);
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        rig.counts();
        // Wrong checksums.
        client.send(b"$#zz$qSupported#00$?#40$vCont;c#a8x");
        rig.counts();
        drop(client);
    }
    let mut client = rig.client();
    assert!(client.ask("?").starts_with("T05"));
}

#[test]
fn what_is_malformed_is_refused_and_the_session_goes_on() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    client.does("Hgp1.1");
    client.does(&format!("Z0,{STORE:x},4"));
    for malformed in [
        "m",
        "m,",
        "mx,1",
        "m0",
        "m0,x",
        "m0,ffffffffffffffff",
        "m0,10000000000000000",
        "mffffffffffffffff0,1",
        "M",
        "M0",
        "M0,4",
        "M0,1:0",
        "M0,1:zz",
        "X",
        "X0,1",
        "p",
        "pzz",
        "P",
        "P1",
        "P1=0",
        "P1=zz",
        "G",
        "Gzz",
        "Z0",
        "Z0,,",
        "Z0,x,4",
        "Z0,1234567890123456789,4",
        "Z2,0,0",
        "z0",
        "vCont",
        "vCont;",
        "vCont;x",
        "vCont;c:",
        "vCont;c:p1.",
        "vCont;s",
        "vCont;s:-1",
        "vCont;r0,4:p1.1",
        "vCont;t",
        "vCont;t:p1.1",
        "H",
        "Hg",
        "Hgp",
        "Hg-1",
        "Hgp-1.-1",
        "T",
        "T-1",
        "Tzz",
        "qXfer:features:read",
        "qXfer:features:read:target.xml",
        "qXfer:features:read:target.xml:0",
        "qXfer:features:read:target.xml:zz,1",
        "qThreadExtraInfo,zz",
        "qRcmd,z",
        "qSupported:=;;;",
        "Qqemu.PhyMemMode:2",
        "D;zz",
        "vAttach;1",
        "vRun;x",
        "R",
        "!",
        "Qnonsense",
        "\u{e9}",
    ] {
        let answer = client.ask(malformed);
        assert!(answer.is_empty() || answer.starts_with('E') || answer == "OK", "{malformed}: {answer}");
        // Whatever it did to the choice of a thread.
        client.does("Hgp1.1");
        client.register(PC);
    }
    for unknown in ["Hgp1.63", "Hg7fffffffffffffff"] {
        client.does(unknown);
        for question in
            ["g", "p20", "m40000000,4", "P0=0000000000000000", "M40000000,1:00", "qThreadExtraInfo,p1.63"]
        {
            let answer = client.ask(question);
            assert!(
                answer.starts_with('E') || common::unhex(&answer).contains("gone"),
                "{question}: {answer}"
            );
        }
        assert!(client.monitor("translate 0").contains("vCPU"));
    }
    client.does("Hgp1.1");
    assert!(client.ask("c").starts_with("T05thread:p01.01;swbreak:;"), "what was agreed on still holds");
}

#[test]
fn absurd_lengths_are_refused_and_not_kept() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    let block = vec![b'a'; 1 << 20];
    client.send(b"$");
    for _ in 0..32 {
        client.send(&block);
    }
    client.send(b"#00");
    let told = client.packet().unwrap();
    assert!(told.starts_with("E.the packet is too long"), "{told}");
    client.does("Hgp1.1");
    assert!(client.ask("m40000000,2001").starts_with("E."));
    assert_eq!(client.ask("m40000000,2000").len(), 0x4000);
    // The longest that is taken.
    let longest = format!("M40100000,1ff8:{}", "5a".repeat(0x1ff8));
    assert!(longest.len() <= 16 << 10);
    client.does(&longest);
    assert_eq!(client.ask("m40101ff0,8"), "5a5a5a5a5a5a5a5a");
    // More breakpoints than anyone sets: refused at some point, and none is in the way then. They are in memory, where
    // KVM needs them.
    let accepted = (0..6000).take_while(|i| client.ask(&format!("Z0,{:x},4", 0x4200_0000 + 4 * i)) == "OK");
    assert_eq!(accepted.count(), 4096);
    client.send(&framed(b"c"));
    rig.counts();
}

#[test]
fn a_client_that_dies_in_the_middle_takes_nobody_along() {
    let rig = Rig::new(1);
    let session: Vec<u8> =
        ["qSupported:multiprocess+", "?", "Hgp1.1", "g", "Z0,40000048,4", "vCont;c", "vCont;s:1"]
            .iter()
            .flat_map(|body| [b"+".to_vec(), framed(body.as_bytes())].concat())
            .collect();
    for end in (0..=session.len()).step_by(3) {
        for how in [Some(Shutdown::Both), Some(Shutdown::Write), None] {
            let mut client = Client::connect(&rig);
            client.send(&session[..end]);
            if let Some(how) = how {
                let _ = client.stream.shutdown(how);
            }
            drop(client);
        }
        rig.counts();
    }
}

#[test]
fn a_client_that_reads_nothing_is_let_go() {
    let rig = Rig::new(1);
    let mut client = rig.client();
    client.stream.set_nonblocking(true).unwrap();
    let question = framed(b"m40000000,2000");
    let start = Instant::now();
    // Until neither side takes more, and then until it is closed.
    loop {
        match client.stream.write(&question) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10))
            }
            Err(_) => break,
        }
        assert!(start.elapsed() < LIMIT, "it is still there");
    }
    rig.counts();
}

/// Packets with right checksums and whatever in them, also while the machine runs.
#[test]
fn random_packets_harm_nobody() {
    let rig = Rig::new(2);
    let mut random = Random(0xfeed_beef_dead_cafe);
    let starts = [
        "?",
        "g",
        "G",
        "m",
        "M",
        "X",
        "p",
        "P",
        "H",
        "Hg",
        "Hc",
        "T",
        "c",
        "s",
        "vCont;",
        "vCont;c",
        "vCont;s:p1.1",
        "vCont;c:p1.1;s:p1.2",
        "Z0,",
        "Z1,",
        "Z2,",
        "Z3,",
        "Z4,",
        "z0,",
        "z2,",
        "qXfer:features:read:target.xml:",
        "qRcmd,",
        "qSupported:",
        "qThreadExtraInfo,",
        "qfThreadInfo",
        "Qqemu.PhyMemMode:",
        "QStartNoAckMode",
        "vFile:",
    ];
    let pieces = [
        "40000044",
        "40000140",
        ",",
        ";",
        ":",
        "=",
        "p1.1",
        "p1.2",
        "p1.-1",
        "-1",
        "0",
        "1",
        "2",
        "4",
        "8",
        "ff",
        "1000",
        "ffffffffffffffff",
        "c",
        "s",
        "68656c70",
        "616263",
        "~",
        "}",
        "\x01",
        "e9",
    ];
    for _ in 0..60 {
        let mut client = Client::connect(&rig);
        client.acks = false;
        let mut bytes = Vec::new();
        for _ in 0..40 {
            let mut body = starts[random.below(starts.len())].to_owned();
            for _ in 0..random.below(5) {
                body.push_str(pieces[random.below(pieces.len())]);
            }
            if random.below(4) == 0 {
                bytes.push([b'+', b'-', 3][random.below(3)]);
            }
            bytes.extend(framed(body.as_bytes()));
        }
        bytes.push(3);
        let mut reader = client.stream.try_clone().unwrap();
        let reads = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        client.send(&bytes);
        let _ = client.stream.shutdown(Shutdown::Write);
        let _ = reads.join().unwrap();
        // It may have changed the program; what matters is that a debugger can still take the machine, and leaves it.
        drop(client);
    }
    let mut client = rig.client();
    assert!(client.ask("?").starts_with('T'));
    client.does("D");
    assert!(rig.machine.is_running() || rig.machine.engine().failure().is_none());
}
