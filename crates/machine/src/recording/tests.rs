//! Recordings: what is written is read, and nothing that a file may hold does harm.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use super::format::{FORMAT, MAGIC};
use super::*;

/// A file that goes with the test.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("armlet-recording-{}-{n}", std::process::id())))
    }

    fn holding(bytes: &[u8]) -> Self {
        let file = Self::new();
        std::fs::write(&file.0, bytes).unwrap();
        file
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn identity() -> Identity {
    [("--smp", "4,max=4"), ("--append", "console=ttyAMA0 ä"), ("--memory", "1G"), ("drive 0", "x")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

fn items() -> Vec<(u64, Item)> {
    let input = |input| Item::Input(input);
    vec![
        (0, input(Input::Hold)),
        (0, input(Input::Console(b"ls\n".to_vec()))),
        (1 << 40, input(Input::Console(vec![0xff; MAX_CONSOLE]))),
        (1 << 40, input(Input::PowerKey)),
        ((1 << 40) + 127, input(Input::Break)),
        ((1 << 40) + 128, Item::Checkpoint(u64::MAX - 1)),
        ((1 << 41) + 1, input(Input::Reset(Cause::HostReset))),
    ]
}

fn made(items: &[(u64, Item)], end: Option<Ending>) -> (Temp, Vec<u8>) {
    let file = Temp::new();
    let mut recorder = Recorder::new(&file.0, identity()).unwrap();
    assert!(!file.0.exists(), "nothing is made before the start");
    recorder.begin();
    items.iter().for_each(|(count, item)| recorder.note(*count, item));
    if let Some(end) = end {
        recorder.note(1 << 42, &Item::End(end));
    }
    assert!(recorder.error().is_none());
    let bytes = std::fs::read(&file.0).unwrap();
    (file, bytes)
}

fn read(path: &Path) -> Result<Vec<(u64, Item)>, RecordingError> {
    let (mut player, found) = Player::open(path)?;
    assert_eq!(found, identity());
    let mut all = Vec::new();
    while let Some((count, item)) = player.next() {
        all.push((count, item.clone()));
        player.advance();
    }
    Ok(all)
}

#[test]
fn what_was_noted_is_read_with_its_counts() {
    let ends = [
        Ending::PoweredOff,
        Ending::Exited(u32::MAX),
        Ending::Crashed("CPU 1: ö".into()),
        Ending::ResetLoop,
        Ending::Outside("Ctrl-A x".into()),
    ];
    for end in ends {
        let (file, bytes) = made(&items(), Some(end.clone()));
        let mut expected = items();
        expected.push((1 << 42, Item::End(end)));
        assert_eq!(read(&file.0).unwrap(), expected);
        assert!(bytes.len() < 400 + MAX_CONSOLE, "compact: {} bytes", bytes.len());
    }
}

#[test]
fn a_recording_that_was_cut_off_is_played_as_far_as_it_goes() {
    let (_, bytes) = made(&items(), Some(Ending::PoweredOff));
    let (_, head) = made(&[], None);
    let (mut whole, mut cut) = (0, 0);
    for len in head.len()..bytes.len() {
        let file = Temp::holding(&bytes[..len]);
        let got = read(&file.0).unwrap();
        let (last, before) = got.split_last().unwrap();
        assert!(matches!(&last.1, Item::End(Ending::Outside(why)) if why == CUT), "{last:?}");
        assert_eq!(before, &items()[..before.len()]);
        assert!(Player::open(&file.0).unwrap().0.is_cut());
        whole = whole.max(before.len());
        cut += 1;
    }
    assert_eq!((whole, cut), (items().len(), bytes.len() - head.len()));
    for len in 1..head.len() {
        let file = Temp::holding(&bytes[..len]);
        let error = read(&file.0).unwrap_err();
        assert!(matches!(error, RecordingError::CutEarly { .. }), "{len}: {error}");
    }
}

#[test]
fn damage_is_found_wherever_it_is() {
    let (_, bytes) = made(&items(), Some(Ending::PoweredOff));
    for at in 0..bytes.len() {
        for bit in [0, 6, 7] {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            let file = Temp::holding(&bad);
            match Player::open(&file.0) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(!text.contains('\n') && text.contains(": "), "{text}");
                }
                // A length that became longer than what is left looks like a cut.
                Ok((player, _)) => assert!(player.is_cut(), "byte {at}, bit {bit}"),
            }
        }
    }
    let behind = [&bytes[..], b"x"].concat();
    let error = read(&Temp::holding(&behind).0).unwrap_err();
    assert!(matches!(error, RecordingError::Damaged { .. }), "{error}");
}

#[test]
fn other_files_are_refused_at_once() {
    let refused = |bytes: &[u8]| Player::open(&Temp::holding(bytes).0).map(drop).unwrap_err();
    for bytes in [&b"\x7fELF and more"[..], b"armlet recordinX", b"x"] {
        assert!(matches!(refused(bytes), RecordingError::NotARecording { .. }));
    }
    let newer = [&MAGIC[..], &(FORMAT + 1).to_le_bytes(), &[0; 100]].concat();
    assert!(matches!(refused(&newer), RecordingError::Format { found, .. } if found == FORMAT + 1));
    let huge = [&MAGIC[..], &FORMAT.to_le_bytes(), &u32::MAX.to_le_bytes(), &[0; 100]].concat();
    assert!(matches!(refused(&huge), RecordingError::Damaged { .. }));
    assert!(matches!(refused(b""), RecordingError::Open(_)));
    let folder = Player::open(&std::env::temp_dir()).map(drop).unwrap_err();
    assert!(folder.to_string().contains("is a folder"), "{folder}");
    // Larger than any host's memory, and read no further than its first bytes.
    let sparse = Temp::holding(b"");
    File::options().write(true).open(&sparse.0).unwrap().set_len(1 << 42).unwrap();
    assert!(matches!(Player::open(&sparse.0).map(drop), Err(RecordingError::NotARecording { .. })));
    let behind_head = made(&[], None).0;
    File::options().write(true).open(&behind_head.0).unwrap().set_len(1 << 42).unwrap();
    assert!(matches!(Player::open(&behind_head.0).map(drop), Err(RecordingError::Damaged { .. })));
}

#[test]
fn counts_that_overflow_are_damage() {
    let far = [(u64::MAX / 2, Item::Input(Input::Break))];
    let error = read(&made(&far, None).0.0).unwrap_err();
    assert!(matches!(error, RecordingError::Damaged { .. }), "{error}");
}

#[test]
fn random_bytes_do_no_harm() {
    let seed = std::env::var("ARMLET_SEED").ok().and_then(|s| s.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let seed: u64 = seed.unwrap_or_else(now);
    println!("random recordings: ARMLET_SEED={seed}");
    let mut x = seed | 1;
    let mut next = || {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let (_, good) = made(&items(), Some(Ending::Crashed("x".into())));
    let (_, head) = made(&[], None);
    for round in 0..20_000 {
        let mut bytes = match round % 3 {
            // Behind a good head; with a good frame around a body that makes no sense; a good file with changes.
            0 => [&head[..], &vec![0; next() as usize % 64]].concat(),
            1 => {
                let body: Vec<u8> = (0..next() % 40).map(|_| next() as u8 & 0x47).collect();
                let mut crc = flate2::Crc::new();
                crc.update(&body);
                [&head[..], &[body.len() as u8], &body, &crc.sum().to_le_bytes()].concat()
            }
            _ => good.clone(),
        };
        if round % 3 != 1 {
            for _ in 0..next() % 16 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
        }
        let mut input = std::io::Cursor::new(bytes);
        // Whatever it is taken for, it ends, and says one thing.
        if let Ok((_, start, _)) = read_through(&mut input) {
            assert!(start as usize >= MAGIC.len());
        }
    }
}

#[test]
fn another_machine_is_refused_by_its_first_difference() {
    let path = Path::new("run.rec");
    assert!(compare(path, &identity(), &identity()).is_ok());
    let differs = |name: &str, value: &str| {
        let mut here = identity();
        here.iter_mut().filter(|(n, _)| n == name).for_each(|pair| pair.1 = value.into());
        compare(path, &identity(), &here).unwrap_err().to_string()
    };
    assert_eq!(
        differs("--smp", "2,max=2"),
        "recording 'run.rec' is of another machine: --smp was '4,max=4' and is '2,max=2': give --smp 4,max=4"
    );
    assert!(differs("--append", &"long ".repeat(1000)).len() < 300);
    assert!(differs("drive 0", "y").contains("--drive"));
    let mut fewer = identity();
    fewer.truncate(3);
    assert!(compare(path, &identity(), &fewer).unwrap_err().to_string().contains("and is 'none'"));
    assert!(compare(path, &fewer, &identity()).unwrap_err().to_string().contains("was 'none'"));
}

#[test]
fn a_file_that_cannot_be_written_is_told() {
    let mut recorder = Recorder::new(Path::new("/dev/full"), identity()).unwrap();
    recorder.begin();
    recorder.note(5, &Item::Checkpoint(0));
    let error = recorder.error().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|text| text.contains("No space")), "{error:?}");
    recorder.note(6, &Item::Checkpoint(0));
    assert!(recorder.error().is_none(), "told once");
    for path in ["/proc/none", "/", "/nowhere/at/all"] {
        let refused = Recorder::new(Path::new(path), identity()).map(drop);
        assert!(matches!(refused, Err(RecordingError::Write { .. })), "{path}");
    }
}
