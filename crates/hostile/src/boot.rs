//! What a user gives to boot: any bytes as a kernel, or as a device tree.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use armlet_machine::boot::Boot;
use armlet_machine::config::BootConfig;
use armlet_memory::Ram;

const BASE: u64 = 0x4000_0000;
const RAM: u64 = 64 << 20;

/// Memory, and a file for the input.
struct Bench {
    ram: Ram,
    file: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// Opens and loads what `config` makes of the input.
fn run(bytes: &[u8], config: impl FnOnce(PathBuf) -> BootConfig) {
    BENCH.with_borrow_mut(|bench| {
        let bench = bench.get_or_insert_with(|| {
            let name = format!("armlet-hostile-{}-{:?}", std::process::id(), std::thread::current().id());
            let ram = Ram::new(BASE, RAM).expect("memory for a guest");
            Bench { ram, file: std::env::temp_dir().join(name) }
        });
        fs::write(&bench.file, bytes).expect("a file for the input");
        let config = config(bench.file.clone());
        let done = Boot::open(&config, RAM).and_then(|boot| {
            let tree = boot.device_tree(Vec::new(), "console=ttyAMA0")?;
            boot.load(&bench.ram, &tree)?;
            Ok(boot.entry())
        });
        match done {
            Ok(entry) => assert!(bench.ram.contains(entry.device_tree, 1), "the tree is outside of memory"),
            Err(e) => {
                assert!(!e.to_string().is_empty() && !e.to_string().contains('\n'), "not one line: {e}")
            }
        }
    });
}

/// As a kernel.
///
/// # Panics
/// The loader does what it must not.
pub fn kernel(bytes: &[u8]) {
    run(bytes, |file| BootConfig { kernel: Some(file), ..BootConfig::default() });
}

/// As a device tree for the built-in program.
///
/// # Panics
/// The loader does what it must not.
pub fn device_tree(bytes: &[u8]) {
    run(bytes, |file| BootConfig { dtb: Some(file), ..BootConfig::default() });
}
