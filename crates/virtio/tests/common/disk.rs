//! Driving the block device: images and requests.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use armlet_storage::{BlockBackend, DiskOptions};
use armlet_virtio::{Block, BlockConfig, Service};

use super::{BUFFERS, Driver};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;
pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;
pub const F_FLUSH: u64 = 1 << 9;
pub const F_DISCARD: u64 = 1 << 13;

pub const HEADER: u64 = BUFFERS;
pub const STATUS: u64 = BUFFERS + 0x100;
pub const DATA: u64 = BUFFERS + 0x1000;
pub const DISK: usize = 8 << 20;

/// A file that is deleted at the end of the test.
pub struct TempImage(pub PathBuf);

impl TempImage {
    pub fn new(content: &[u8]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        // A program may have this file several times, each with a count of its own.
        let here = module_path!().replace("::", "-");
        let path = std::env::temp_dir().join(format!("armlet-{here}-{}-{n}.img", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }
}

impl Drop for TempImage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bytes that differ from sector to sector.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub fn block(options: DiskOptions) -> Arc<Block> {
    device(options.open().unwrap().backend)
}

pub fn device(backend: Arc<dyn BlockBackend>) -> Arc<Block> {
    served(backend, Service::Threaded)
}

pub fn served(backend: Arc<dyn BlockBackend>, service: Service) -> Arc<Block> {
    let config = BlockConfig { name: "disk0".into(), serial: "serial-0123456789-and-more".into() };
    Arc::new(Block::with_service(backend, config, service).unwrap())
}

pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..4].copy_from_slice(&kind.to_le_bytes());
    raw[8..].copy_from_slice(&sector.to_le_bytes());
    raw
}

pub fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut raw = sector.to_le_bytes().to_vec();
    raw.extend(sectors.to_le_bytes());
    raw.extend(flags.to_le_bytes());
    raw
}

/// One request with its buffers; returns the status byte and the used length.
pub fn request(d: &mut Driver, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
    d.ram.write(HEADER, &header(kind, sector)).unwrap();
    d.ram.write(STATUS, &[0xff]).unwrap();
    let mut chain = vec![(HEADER, 16, false)];
    chain.extend_from_slice(data);
    chain.push((STATUS, 1, true));
    let head = d.add(0, &chain);
    d.notify(0);
    let (id, len) = d.wait_used(0);
    assert_eq!(id, u32::from(head));
    (d.bytes(STATUS, 1)[0], len)
}

pub fn read(d: &mut Driver, sector: u64, len: u32) -> Vec<u8> {
    d.ram.write(DATA, &vec![0xee; len as usize]).unwrap();
    assert_eq!(request(d, IN, sector, &[(DATA, len, true)]), (OK, len + 1));
    d.bytes(DATA, len as usize)
}

pub fn write(d: &mut Driver, sector: u64, data: &[u8]) {
    d.ram.write(DATA, data).unwrap();
    assert_eq!(request(d, OUT, sector, &[(DATA, data.len() as u32, false)]), (OK, 1));
}
