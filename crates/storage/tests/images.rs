//! Disk images: content, copy-on-write, locks, and what users get to read when something is wrong.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use armlet_storage::{
    BlockBackend, DiskOptions, ImageFormat, Overlay, RawImage, StorageError, VolatileSlice,
};

/// A directory that is deleted at the end of the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("armlet-storage-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

fn read(b: &dyn BlockBackend, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut out = vec![0xee; len];
    b.read_at(&[VolatileSlice::from(out.as_mut_slice())], offset)?;
    Ok(out)
}

fn write(b: &dyn BlockBackend, offset: u64, data: &[u8]) -> std::io::Result<()> {
    b.write_at(&[VolatileSlice::from(data.to_vec().as_mut_slice())], offset)
}

fn text(options: &DiskOptions) -> String {
    options.open().unwrap_err().to_string()
}

/// Random work of every kind, compared with a plain array after each step.
fn compare_with_an_array(backend: &dyn BlockBackend, model: &mut [u8], seed: u64, discard_zeroes: bool) {
    let mut random = Random(seed);
    let size = model.len() as u64;
    for step in 0..1500 {
        let offset = random.below(size);
        let longest = (size - offset).min([512, 5000, 70_000][random.below(3) as usize]);
        let len = random.below(longest + 1) as usize;
        let range = offset as usize..offset as usize + len;
        match random.below(8) {
            0..3 => {
                let data = random.bytes(len);
                // In pieces, some of them empty.
                let mut copy = data.clone();
                let (a, rest) = copy.split_at_mut(len / 3);
                let (b, c) = rest.split_at_mut(rest.len() / 2);
                let pieces = [a, &mut [], b, c].map(VolatileSlice::from);
                backend.write_at(&pieces, offset).unwrap();
                model[range].copy_from_slice(&data);
            }
            3 => {
                backend.write_zeroes(offset, len as u64, random.below(2) == 0).unwrap();
                model[range].fill(0);
            }
            4 if discard_zeroes => {
                backend.discard(offset, len as u64).unwrap();
                model[range].fill(0);
            }
            5 => backend.flush().unwrap(),
            _ => {
                let mut out = vec![0xee; len];
                let (a, b) = out.split_at_mut(len / 2);
                backend.read_at(&[VolatileSlice::from(a), VolatileSlice::from(b)], offset).unwrap();
                assert!(out == model[range], "step {step}: {offset:#x}+{len:#x}");
            }
        }
    }
    assert!(read(backend, 0, model.len()).unwrap() == model);
}

#[test]
fn a_raw_image_is_an_array_of_bytes() {
    let dir = TempDir::new();
    let mut model = Random(1).bytes(300 * 1024);
    let path = dir.file("disk.img", &model);
    let disk = DiskOptions::new(&path).open().unwrap();
    assert!(disk.notes.is_empty());
    // tmpfs, ext4 and xfs all give zeroes for discarded ranges.
    compare_with_an_array(&*disk.backend, &mut model, 2, true);
    drop(disk);
    assert!(std::fs::read(&path).unwrap() == model);
}

#[test]
fn an_overlay_is_an_array_of_bytes_and_its_base_stays() {
    let dir = TempDir::new();
    // An odd number of sectors: the last cluster is cut short.
    let content = Random(3).bytes(512 * 607);
    let path = dir.file("disk.img", &content);
    let before = std::fs::metadata(&path).unwrap();
    let mut model = content.clone();
    let disk = DiskOptions { snapshot: true, ..DiskOptions::new(&path) }.open().unwrap();
    assert!(!disk.backend.read_only());
    compare_with_an_array(&*disk.backend, &mut model, 4, true);
    // One on the other.
    let upper = Overlay::new(disk.backend.clone()).unwrap();
    let lower = model.clone();
    compare_with_an_array(&upper, &mut model, 5, true);
    assert!(read(&*disk.backend, 0, lower.len()).unwrap() == lower);
    assert!(upper.is_revertible());
    upper.revert().unwrap();
    assert!(read(&upper, 0, lower.len()).unwrap() == lower);
    disk.backend.revert().unwrap();
    assert!(read(&upper, 0, content.len()).unwrap() == content);
    drop((upper, disk));
    assert!(std::fs::read(&path).unwrap() == content);
    assert_eq!(std::fs::metadata(&path).unwrap().mtime_nsec(), before.mtime_nsec());
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1, "nothing is left beside the image");
}

#[test]
fn a_large_sparse_disk_takes_little_to_overlay() {
    let dir = TempDir::new();
    let path = dir.0.join("big.img");
    File::create(&path).unwrap().set_len(8 << 40).unwrap();
    let disk = DiskOptions { snapshot: true, ..DiskOptions::new(&path) }.open().unwrap();
    let far = (8 << 40) - 1000;
    write(&*disk.backend, far, b"at the far end").unwrap();
    assert_eq!(read(&*disk.backend, far, 14).unwrap(), b"at the far end");
    assert_eq!(read(&*disk.backend, far - 4, 4).unwrap(), [0; 4]);
    disk.backend.write_zeroes(far - 4, 8, true).unwrap();
    assert_eq!(read(&*disk.backend, far, 14).unwrap(), b"\0\0\0\0he far end");
}

#[test]
fn accesses_beyond_the_end_are_refused_and_change_nothing() {
    let dir = TempDir::new();
    let content = Random(6).bytes(4096);
    for snapshot in [false, true] {
        let path = dir.file("disk.img", &content);
        let backend = DiskOptions { snapshot, ..DiskOptions::new(&path) }.open().unwrap().backend;
        for offset in [4096 - 511, 4096, 8192, u64::MAX - 511, u64::MAX] {
            assert!(read(&*backend, offset, 512).is_err());
            assert!(write(&*backend, offset, &[1; 512]).is_err());
            assert!(backend.discard(offset, 512).is_err());
            assert!(backend.write_zeroes(offset, 512, true).is_err());
        }
        assert!(backend.write_zeroes(1, u64::MAX, true).is_err());
        assert!(read(&*backend, 0, 4096).unwrap() == content);
        assert!(std::fs::read(&path).unwrap() == content);
    }
}

#[test]
fn a_read_only_image_cannot_be_changed() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 1024]);
    let backend = DiskOptions { read_only: true, ..DiskOptions::new(&path) }.open().unwrap().backend;
    assert!(backend.read_only());
    assert!(write(&*backend, 0, &[1; 512]).is_err());
    assert!(backend.discard(0, 512).is_err());
    assert!(backend.write_zeroes(0, 512, false).is_err());
    backend.flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [7; 1024]);
    // Both at once: nothing can be written, so there is nothing to throw away.
    let both = DiskOptions { read_only: true, snapshot: true, ..DiskOptions::new(&path) };
    assert!(both.open().unwrap().backend.read_only());
}

#[test]
fn an_odd_length_is_padded_and_noted() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 700]);
    let disk = DiskOptions::new(&path).open().unwrap();
    assert_eq!(disk.notes.len(), 1);
    assert!(disk.notes[0].contains("700 bytes"), "{}", disk.notes[0]);
    assert_eq!(disk.backend.size(), 1024);
    let mut expected = vec![7; 700];
    expected.resize(1024, 0);
    assert_eq!(read(&*disk.backend, 0, 1024).unwrap(), expected);
    assert_eq!(read(&*disk.backend, 800, 100).unwrap(), [0; 100]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 700, "looking changes nothing");
    write(&*disk.backend, 512, &[9; 512]).unwrap();
    expected[512..].fill(9);
    assert_eq!(read(&*disk.backend, 0, 1024).unwrap(), expected);
    assert_eq!(std::fs::read(&path).unwrap(), expected);
}

#[test]
fn a_file_cut_short_while_in_use_is_an_error_not_zeroes() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 4096]);
    let disk = DiskOptions::new(&path).open().unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1024).unwrap();
    assert!(read(&*disk.backend, 512, 1024).is_err());
    assert_eq!(read(&*disk.backend, 512, 512).unwrap(), [7; 512]);
}

#[test]
fn punched_holes_give_space_back() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 1 << 20]);
    let disk = DiskOptions::new(&path).open().unwrap();
    disk.backend.flush().unwrap();
    let before = std::fs::metadata(&path).unwrap().blocks();
    disk.backend.write_zeroes(0, 1 << 19, true).unwrap();
    disk.backend.discard(1 << 19, 1 << 18).unwrap();
    disk.backend.flush().unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(after.len(), 1 << 20);
    assert!(after.blocks() <= before / 2, "{before} -> {}", after.blocks());
}

#[test]
fn an_image_that_another_process_uses_is_refused_by_its_name() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 1024]);
    for (lock, mend) in [("--exclusive", "stop that one"), ("--shared", "readonly=on")] {
        let mut other = std::process::Command::new("flock")
            .args([lock, "--no-fork", path.to_str().unwrap(), "sh", "-c", "echo locked; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 7];
        std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut line).unwrap();
        let message = text(&DiskOptions::new(&path));
        drop(other.stdin.take());
        other.wait().unwrap();
        assert!(message.contains(&format!("in use by process {} (sh)", other.id())), "{message}");
        assert!(message.contains(mend), "{message}");
    }
    DiskOptions::new(&path).open().unwrap();
}

/// Another process that holds a shared lock on `len` bytes from byte 100 on, as QEMU does.
fn record_lock(path: &Path, len: u64) -> std::process::Child {
    let program = "use Fcntl; open(F, '+<', $ARGV[0]); $| = 1; \
        fcntl(F, F_SETLK, pack('s s x4 q q i x4', F_RDLCK, 0, 100, $ARGV[1], 0)) or die; print 'locked'; <STDIN>";
    let mut other = std::process::Command::new("perl")
        .args(["-e", program, path.to_str().unwrap(), &len.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    other
}

#[test]
fn locks_on_single_bytes_count_as_well() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 1024]);
    let writer = DiskOptions::new(&path);
    let snapshot = DiskOptions { snapshot: true, ..writer.clone() };
    let end = |mut other: std::process::Child| {
        drop(other.stdin.take());
        other.wait().unwrap();
    };
    let other = record_lock(&path, 2);
    let messages = [text(&writer), text(&snapshot)];
    end(other);
    assert!(messages.iter().all(|m| m.contains("in use by process") && m.contains("a copy")), "{messages:?}");

    let other = record_lock(&path, 1);
    let (message, reader) = (text(&writer), snapshot.open());
    end(other);
    assert!(message.contains("(perl)") && message.contains("readonly=on"), "{message}");
    drop(reader.unwrap());
    writer.open().unwrap();
}

#[test]
fn a_second_writer_is_refused_and_readers_share() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 1024]);
    let writer = DiskOptions::new(&path);
    let reader = DiskOptions { read_only: true, ..writer.clone() };
    let snapshot = DiskOptions { snapshot: true, ..writer.clone() };

    let first = writer.open().unwrap();
    for other in [&writer, &reader, &snapshot] {
        let message = text(other);
        assert!(message.contains("given twice") && message.contains("readonly=on"), "{message}");
    }
    drop(first);

    let (_a, _b) = (reader.open().unwrap(), snapshot.open().unwrap());
    let message = text(&writer);
    assert!(message.contains("given twice"), "{message}");
    drop((_a, _b));
    writer.open().unwrap();
}

#[test]
fn each_mistake_is_named_with_its_mend() {
    let dir = TempDir::new();
    let missing = dir.0.join("missing.img");
    let message = text(&DiskOptions::new(&missing));
    assert!(message.contains("does not exist") && message.contains("truncate -s"), "{message}");
    assert!(!missing.exists());

    assert!(text(&DiskOptions::new(&dir.0)).contains("is a directory"));
    let empty = dir.file("empty.img", b"");
    assert!(text(&DiskOptions::new(&empty)).contains("is empty"));
    assert!(text(&DiskOptions::new("/dev/null")).contains("character device"));
    let below_a_file = empty.join("disk.img");
    assert!(text(&DiskOptions::new(below_a_file)).contains("cannot be opened"));

    let fifo = dir.0.join("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(text(&DiskOptions::new(&fifo)).contains("is a pipe"));

    for error in [&missing, &dir.0, &empty, &fifo].map(|p| text(&DiskOptions::new(p))) {
        assert!(!error.contains('\n') && error.contains(": "), "{error}");
    }
}

#[test]
fn permissions_that_are_missing_are_named() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[7; 1024]);
    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let writer = DiskOptions::new(&path);
    match writer.open() {
        // The test's user may write to everything: nothing to see.
        Ok(_) => eprintln!("permissions do not bind this user"),
        Err(error) => {
            assert!(matches!(error, StorageError::NotWritable { .. }));
            assert!(error.to_string().contains("readonly=on"), "{error}");
            std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
            assert!(matches!(writer.open().unwrap_err(), StorageError::NotReadable { .. }));
        }
    }
}

#[test]
fn another_formats_image_is_never_taken_for_what_it_says() {
    let dir = TempDir::new();
    let mut header = vec![0; 65536];
    // A qcow2 header, version 3, whose backing file is /etc/passwd.
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 11]);
    header[256..267].copy_from_slice(b"/etc/passwd");
    let path = dir.file("disk.img", &header);
    let unsaid = DiskOptions::new(&path);
    let message = text(&unsaid);
    assert!(message.contains("qcow2") && message.contains("format=raw"), "{message}");
    let raw = DiskOptions { format: Some(ImageFormat::Raw), ..unsaid.clone() };
    let disk = raw.open().unwrap();
    assert_eq!(disk.backend.size(), 65536);
    assert!(read(&*disk.backend, 0, 65536).unwrap() == header);
    drop(disk);

    // A guest that writes such a header to its raw disk has a raw disk after a reboot, too.
    let plain = dir.file("plain.img", &[0; 65536]);
    let raw = DiskOptions { format: Some(ImageFormat::Raw), ..DiskOptions::new(&plain) };
    write(&*raw.open().unwrap().backend, 0, &header).unwrap();
    assert!(read(&*raw.open().unwrap().backend, 0, 65536).unwrap() == header);
}

#[test]
fn a_file_system_without_holes_gets_zeroes_written() {
    // A pipe-like file refuses fallocate; a file sealed against holes is the nearest thing that reads and writes.
    let file = rustix::fs::memfd_create(c"t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(file);
    file.write_all_at(&[7; 1 << 20], 0).unwrap();
    let image = RawImage::new(file, 1 << 20, false);
    // memfds know no FALLOC_FL_ZERO_RANGE: this goes the slow way.
    image.write_zeroes(100, 900_000, false).unwrap();
    let now = read(&image, 0, 1 << 20).unwrap();
    assert!(now[..100].iter().chain(&now[900_100..]).all(|b| *b == 7));
    assert!(now[100..900_100].iter().all(|b| *b == 0));
}

#[test]
fn backends_can_be_shared_between_threads() {
    let dir = TempDir::new();
    let path = dir.file("disk.img", &[0; 1 << 16]);
    let backend: Arc<dyn BlockBackend> =
        DiskOptions { snapshot: true, ..DiskOptions::new(&path) }.open().unwrap().backend;
    // Each thread owns every fourth 100-byte piece: neighbours share clusters.
    std::thread::scope(|s| {
        for t in 0..4u8 {
            let backend = &backend;
            s.spawn(move || {
                for round in 0..20 {
                    for piece in (u64::from(t)..600).step_by(4) {
                        write(&**backend, piece * 100, &[t * 20 + round; 100]).unwrap();
                    }
                }
            });
        }
    });
    let all = read(&*backend, 0, 60_000).unwrap();
    for (i, piece) in all.chunks(100).enumerate() {
        assert!(piece.iter().all(|b| *b == (i as u8 % 4) * 20 + 19), "piece {i}");
    }
}
