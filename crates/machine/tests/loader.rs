//! Every way in which a kernel, an initrd or a device tree can be wrong, and that the right ones load.

use std::io::Write;
use std::path::PathBuf;

use armlet_machine::boot::{Boot, KernelKind};
use armlet_machine::config::BootConfig;
use armlet_machine::{BootError, spec};
use armlet_memory::{AccessSize, Ram};

const MIB: u64 = 1 << 20;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("armlet-loader-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn image(text_offset: u64, image_size: u64, len: usize) -> Vec<u8> {
    let mut v: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
    v[..8].copy_from_slice(&[0; 8]);
    v[8..16].copy_from_slice(&text_offset.to_le_bytes());
    v[16..24].copy_from_slice(&image_size.to_le_bytes());
    v[24..32].copy_from_slice(&0b1010u64.to_le_bytes());
    v[56..60].copy_from_slice(b"ARM\x64");
    v
}

/// An ELF file with one segment of `body` at `address` and `memory_size` bytes in memory.
fn elf(machine: u16, address: u64, body: &[u8], memory_size: u64) -> Vec<u8> {
    let mut v = vec![0; 64 + 56];
    v[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    v[16..18].copy_from_slice(&2u16.to_le_bytes());
    v[18..20].copy_from_slice(&machine.to_le_bytes());
    v[24..32].copy_from_slice(&(address + 4).to_le_bytes());
    v[32..40].copy_from_slice(&64u64.to_le_bytes());
    v[54..56].copy_from_slice(&56u16.to_le_bytes());
    v[56..58].copy_from_slice(&1u16.to_le_bytes());
    v[64..68].copy_from_slice(&1u32.to_le_bytes());
    let fields = [(72, 120), (80, address), (88, address), (96, body.len() as u64), (104, memory_size)];
    for (at, value) in fields {
        v[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    v.extend_from_slice(body);
    v
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    w.write_all(data).unwrap();
    w.finish().unwrap()
}

fn zboot(method: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut v = vec![0; 256];
    v[..8].copy_from_slice(b"MZ\0\0zimg");
    v[8..12].copy_from_slice(&256u32.to_le_bytes());
    v[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    v[24..24 + method.len()].copy_from_slice(method);
    v.extend_from_slice(payload);
    v
}

fn open(kernel: PathBuf, memory: u64) -> Result<Boot, BootError> {
    Boot::open(&BootConfig { kernel: Some(kernel), ..BootConfig::default() }, memory)
}

fn refused(kernel: PathBuf) -> BootError {
    let e = open(kernel, 64 * MIB).expect_err("it must be refused");
    let text = e.to_string();
    assert!(!text.contains('\n') && text.contains(": "), "one line, cause and mend: {text}");
    e
}

fn bytes_at(ram: &Ram, at: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    ram.read(at, &mut out).unwrap();
    out
}

#[test]
fn images_load_plain_gzipped_and_zbooted() {
    let folder = Folder::new("images");
    let plain = image(0x8_0000, 3 * MIB, 1_000_003);
    let packed = gzip(&plain);
    let files = [
        folder.file("plain", &plain),
        folder.file("gz", &packed),
        folder.file("zboot", &zboot(b"gzip", &packed)),
    ];
    for path in files {
        let boot = open(path.clone(), 64 * MIB).unwrap();
        assert!(matches!(boot.kernel().kind(), KernelKind::Linux(_)));
        let ram = Ram::new(spec::RAM_BASE, 64 * MIB).unwrap();
        boot.load(&ram, b"tree").unwrap();
        let entry = boot.entry();
        assert_eq!(entry.pc, spec::RAM_BASE + 0x8_0000);
        assert_eq!(bytes_at(&ram, entry.pc, plain.len()), plain, "{}", path.display());
        assert_eq!(entry.device_tree % (2 * MIB), 0);
        assert!(entry.device_tree >= entry.pc + 3 * MIB);
        assert_eq!(bytes_at(&ram, entry.device_tree, 4), b"tree");
    }
}

#[test]
fn an_initrd_lies_behind_the_kernel_and_can_be_loaded_again() {
    let folder = Folder::new("initrd");
    let initrd: Vec<u8> = (0..70_000u32).map(|i| i as u8).collect();
    let config = BootConfig {
        kernel: Some(folder.file("k", &image(0, MIB, 4096))),
        initrd: Some(folder.file("i", &initrd)),
        ..BootConfig::default()
    };
    let boot = Boot::open(&config, 64 * MIB).unwrap();
    let (start, end) = boot.initrd_range().unwrap();
    assert_eq!(end - start, 70_000);
    let ram = Ram::new(spec::RAM_BASE, 64 * MIB).unwrap();
    for _ in 0..2 {
        boot.load(&ram, b"").unwrap();
        assert_eq!(bytes_at(&ram, start, initrd.len()), initrd);
        ram.write(start, &[0xaa; 100]).unwrap();
    }
}

#[test]
fn elf_files_load_with_zeroed_bss_and_the_device_tree_at_the_start_of_ram() {
    let folder = Folder::new("elf");
    let at = spec::RAM_BASE + 4 * MIB;
    let boot = open(folder.file("e", &elf(183, at, b"program!", 16)), 64 * MIB).unwrap();
    let ram = Ram::new(spec::RAM_BASE, 64 * MIB).unwrap();
    ram.store(at + 8, AccessSize::Double, u64::MAX).unwrap();
    boot.load(&ram, b"tree").unwrap();
    let entry = boot.entry();
    assert_eq!((entry.pc, entry.device_tree), (at + 4, spec::RAM_BASE));
    assert_eq!(bytes_at(&ram, at, 16), b"program!\0\0\0\0\0\0\0\0");
    // One that is linked at the start of RAM gets the tree behind itself.
    let boot = open(folder.file("low", &elf(183, spec::RAM_BASE, b"program!", 16)), 64 * MIB).unwrap();
    assert_eq!(boot.layout().device_tree, spec::RAM_BASE + 2 * MIB);
}

#[test]
fn wrong_kernels_are_refused_by_name() {
    let folder = Folder::new("wrong");
    let file = |name: &str, data: &[u8]| folder.file(name, data);
    assert!(matches!(refused(folder.0.join("missing")), BootError::Open { .. }));
    assert!(matches!(refused(folder.0.clone()), BootError::NotAFile { kind: "folder", .. }));
    assert!(matches!(refused("/dev/null".into()), BootError::NotAFile { kind: "device", .. }));
    assert!(matches!(refused(file("empty", b"")), BootError::Empty { .. }));
    assert!(matches!(refused(file("short", &image(0, MIB, 64)[..40])), BootError::Truncated { .. }));
    assert!(matches!(refused(file("text", &[b'a'; 5000])), BootError::NotAKernel { .. }));
    assert!(matches!(refused(file("x86", &elf(62, 0x4000_0000, b"x", 1))), BootError::NotArm64 { .. }));
    assert!(matches!(refused(file("arm32", &elf(40, 0x4000_0000, b"x", 1))), BootError::NotArm64 { .. }));
    assert!(matches!(refused(file("xz", b"\xfd7zXZ\0 and so on")), BootError::Compression { .. }));
    let mut big_endian = image(0, MIB, 4096);
    big_endian[24] |= 1;
    assert!(matches!(refused(file("be", &big_endian)), BootError::BigEndian { .. }));
    let packed = gzip(&image(0, MIB, 100_000));
    assert!(matches!(refused(file("gz0", &packed[..20])), BootError::Truncated { .. }));
    let mut bad = packed.clone();
    bad[40..80].fill(0xff);
    assert!(matches!(refused(file("gz1", &bad)), BootError::Damaged { .. } | BootError::Truncated { .. }));
    assert!(matches!(refused(file("gz2", &gzip(&[b'a'; 5000]))), BootError::NotAKernel { .. }));
    assert!(matches!(refused(file("z0", &zboot(b"lzma", &packed))), BootError::Compression { .. }));
    assert!(matches!(refused(file("z1", &zboot(b"gzip", &packed)[..400])), BootError::Truncated { .. }));
    let mut stub = image(0, MIB, 64);
    stub[..2].copy_from_slice(b"MZ");
    stub[0x3c..0x40].copy_from_slice(&64u32.to_le_bytes());
    assert!(matches!(refused(file("stub", &stub)), BootError::Truncated { .. }));
    stub.resize(256, 0);
    stub[64..68].copy_from_slice(b"PE\0\0");
    stub[68..70].copy_from_slice(&0x8664u16.to_le_bytes());
    assert!(matches!(refused(file("gz3", &gzip(&stub))), BootError::NotArm64 { .. }));
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_other_end() {
    let folder = Folder::new("pipe");
    let path = folder.0.join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(matches!(refused(path), BootError::NotAFile { kind: "socket or pipe", .. }));
}

#[test]
fn headers_that_ask_for_the_impossible_are_damaged() {
    let folder = Folder::new("absurd");
    for (name, text_offset, size) in
        [("offset", 1 << 63, MIB), ("size", 0, u64::MAX), ("both", u64::MAX, u64::MAX)]
    {
        let path = folder.file(name, &image(text_offset, size, 4096));
        assert!(matches!(refused(path), BootError::Damaged { .. }), "{name}");
    }
    let top = folder.file("top", &elf(183, u64::MAX - 100, b"x", 100));
    assert!(matches!(refused(top), BootError::Damaged { .. }));
    // Two segments in one place.
    let mut twice = elf(183, spec::RAM_BASE, b"program!", 16);
    let header = twice[64..120].to_vec();
    twice.splice(120..120, header);
    twice[56] = 2;
    assert!(matches!(refused(folder.file("twice", &twice)), BootError::Damaged { .. }));
}

#[test]
fn a_packed_kernel_cut_off_behind_its_header_fails_at_loading() {
    let folder = Folder::new("cut");
    let noise: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
    let mut whole = image(0, MIB, 64);
    whole.extend_from_slice(&noise);
    let packed = gzip(&whole);
    let boot = open(folder.file("gz", &packed[..packed.len() - 1000]), 64 * MIB).unwrap();
    let ram = Ram::new(spec::RAM_BASE, 64 * MIB).unwrap();
    assert!(matches!(boot.load(&ram, b""), Err(BootError::Truncated { .. })));
}

#[test]
fn a_packed_kernel_larger_than_it_says_is_refused() {
    let folder = Folder::new("bomb");
    let mut bomb = image(0, MIB, 64);
    bomb.resize(9 << 20, 0);
    let boot = open(folder.file("gz", &gzip(&bomb)), 64 * MIB).unwrap();
    let ram = Ram::new(spec::RAM_BASE, 64 * MIB).unwrap();
    assert!(matches!(boot.load(&ram, b""), Err(BootError::Damaged { .. })));
}

#[test]
fn a_pe_image_shorter_than_its_sections_is_truncated() {
    let folder = Folder::new("pe");
    let mut v = image(0, MIB, 8192);
    v[..2].copy_from_slice(b"MZ");
    v[0x3c..0x40].copy_from_slice(&64u32.to_le_bytes());
    v[64..68].copy_from_slice(b"PE\0\0");
    v[68..70].copy_from_slice(&0xaa64u16.to_le_bytes());
    v[70..72].copy_from_slice(&1u16.to_le_bytes());
    v[84..86].copy_from_slice(&0u16.to_le_bytes());
    v[88 + 16..88 + 20].copy_from_slice(&8000u32.to_le_bytes());
    v[88 + 20..88 + 24].copy_from_slice(&192u32.to_le_bytes());
    assert!(open(folder.file("whole", &v), 64 * MIB).is_ok());
    assert!(matches!(refused(folder.file("cut", &v[..8191])), BootError::Truncated { .. }));
    v[68..70].copy_from_slice(&0x8664u16.to_le_bytes());
    assert!(matches!(refused(folder.file("x86", &v)), BootError::NotArm64 { .. }));
}

#[test]
fn damaged_elf_files_are_refused() {
    let folder = Folder::new("badelf");
    let base = spec::RAM_BASE;
    let good = elf(183, base, b"body", 4);
    for n in 1..good.len() {
        assert!(open(folder.file("cut", &good[..n]), 64 * MIB).is_err(), "cut at {n}");
    }
    assert!(matches!(
        refused(folder.file("low", &elf(183, 0x1000, b"x", 1))),
        BootError::ElfOutsideRam { .. }
    ));
    assert!(matches!(
        refused(folder.file("big", &elf(183, base, b"x", 65 * MIB))),
        BootError::DoesNotFit { what: "kernel", .. }
    ));
    assert!(matches!(
        refused(folder.file("huge", &elf(183, base, b"x", u64::MAX))),
        BootError::Damaged { .. }
    ));
    assert!(matches!(refused(folder.file("shrunk", &elf(183, base, b"xyz", 1))), BootError::Damaged { .. }));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            if let Ok(boot) = open(folder.file("flip", &bad), 64 * MIB) {
                let ram = Ram::new(base, 64 * MIB).unwrap();
                boot.load(&ram, b"").unwrap();
            }
        }
    }
}

#[test]
fn what_does_not_fit_says_how_much_memory_would_do() {
    let folder = Folder::new("fit");
    let kernel = folder.file("k", &image(0, 100 * MIB, 4096));
    let e = refused(kernel.clone());
    assert!(e.to_string().contains("give --memory 128M"), "{e}");
    let e = refused(folder.file("far", &image(1 << 40, 4096, 4096)));
    assert!(matches!(e, BootError::DoesNotFit { .. }), "{e}");
    let initrd = folder.file("i", &vec![1; 61 << 20]);
    let small = folder.file("small", &image(0, 2 * MIB, 4096));
    let config = BootConfig { kernel: Some(small), initrd: Some(initrd), ..BootConfig::default() };
    let e = Boot::open(&config, 64 * MIB).unwrap_err();
    assert!(matches!(e, BootError::DoesNotFit { what: "initrd", .. }), "{e}");
}

#[test]
fn wrong_device_trees_and_initrds_are_refused() {
    let folder = Folder::new("dtb");
    let kernel = folder.file("k", &image(0, MIB, 4096));
    let with_dtb = |dtb: PathBuf| {
        let config = BootConfig { kernel: Some(kernel.clone()), dtb: Some(dtb), ..BootConfig::default() };
        Boot::open(&config, 64 * MIB).unwrap_err()
    };
    assert!(matches!(with_dtb(folder.file("a", b"text")), BootError::BadDtb { .. }));
    assert!(matches!(with_dtb(folder.file("b", &vec![0; 3 << 20])), BootError::DtbTooLarge { .. }));
    assert!(matches!(with_dtb(folder.file("c", b"")), BootError::Empty { .. }));
    let alone = BootConfig { initrd: Some(kernel.clone()), ..BootConfig::default() };
    assert!(matches!(Boot::open(&alone, 64 * MIB), Err(BootError::InitrdWithoutKernel)));
    let elf = folder.file("elf", &elf(183, spec::RAM_BASE, b"x", 1));
    let both = BootConfig { kernel: Some(elf), initrd: Some(kernel.clone()), ..BootConfig::default() };
    assert!(matches!(Boot::open(&both, 64 * MIB), Err(BootError::InitrdWithElf { .. })));
    let long = BootConfig { kernel: Some(kernel), append: "x".repeat(3000), ..BootConfig::default() };
    assert!(matches!(Boot::open(&long, 64 * MIB), Err(BootError::CommandLine)));
}
