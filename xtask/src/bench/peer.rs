//! The peer: the newest QEMU that Debian has, in a folder of its own and never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Run;
use crate::apt::Release;
use crate::boot::Linux;
use crate::{cache, run};

/// A host that the peer emulates, with its own hypervisor.
pub struct Nested<'a> {
    /// Its kernel.
    pub image: &'a Path,
    /// Its initial RAM disk.
    pub initrd: &'a Path,
    /// Its CPUs.
    pub cpu: &'a str,
    /// Version of its interrupt controller.
    pub gic: u32,
    /// Disks, with serial numbers.
    pub disks: &'a [(&'static str, PathBuf)],
    /// A port of this machine that leads to the same one there.
    pub port: Option<u16>,
}

/// The peer's folder.
pub struct Peer {
    tree: PathBuf,
    library: PathBuf,
    loader: PathBuf,
}

impl Peer {
    /// Fetches the peer unless the cache folder has it.
    ///
    /// # Errors
    /// Download or unpacking failed.
    pub fn prepare() -> Result<Self> {
        let tree = cache::folder()?.join("peer");
        cache::once(&tree, |partial| {
            let arch = run::quiet(&mut run::command("dpkg", ["--print-architecture"]))?;
            let packages = ["base-files", "qemu-system-arm", "qemu-system-data"];
            Release::open("sid", arch.trim())?.unpack_all(&packages, partial)
        })?;
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let library = tree.join("usr/lib").join(triplet);
        let loaders = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
        let loader = loaders.iter().map(|l| library.join(l)).find(|l| l.exists());
        let loader = loader.context("the peer's folder has no program loader")?;
        Ok(Self { tree, library, loader })
    }

    /// `qemu-system-aarch64` with the peer's own libraries.
    fn program(&self) -> Command {
        let mut c = Command::new(&self.loader);
        c.arg("--library-path").arg(&self.library);
        c.arg(self.tree.join("usr/bin/qemu-system-aarch64"));
        c.arg("-L").arg(self.tree.join("usr/share/qemu"));
        c.env("QEMU_MODULE_DIR", self.library.join("qemu"));
        c
    }

    /// Its version, as it says it.
    ///
    /// # Errors
    /// It does not run.
    pub fn version(&self) -> Result<String> {
        let text = run::quiet(self.program().arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().replace("emulator version ", ""))
    }

    /// A machine of `smp` CPUs that is not started and listens for QMP clients at `socket`.
    pub fn control(&self, smp: u32, socket: &Path) -> Command {
        let mut c = self.program();
        c.args(["-M", "virt,gic-version=3", "-cpu", "neoverse-n1", "-m", "256", "-S", "-display", "none"]);
        c.args(["-nodefaults", "-serial", "none", "-monitor", "none", "-smp", &smp.to_string()]);
        c.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        c
    }

    /// A bare-metal program, with its console on standard output.
    pub fn bare(&self, program: &Path, smp: &str) -> Command {
        let mut c = self.program();
        c.args(["-M", "virt,gic-version=3", "-cpu", "neoverse-n1", "-m", "1024", "-display", "none"]);
        c.args(["-nodefaults", "-serial", "stdio", "-monitor", "none", "-semihosting", "-smp", smp]);
        c.arg("-kernel").arg(program);
        c
    }

    /// Linux with its console, a virtio device or the PL011, on standard input and output.
    pub fn console(&self, linux: &Linux, words: &str, virtio: bool) -> Command {
        let mut c = self.program();
        c.args(["-M", "virt,gic-version=3", "-cpu", "neoverse-n1", "-m", "1024", "-display", "none"]);
        c.args(["-nodefaults", "-monitor", "none", "-no-reboot", "-chardev", "stdio,id=c0"]);
        if virtio {
            c.args(["-serial", "none", "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c0"]);
        } else {
            c.args(["-serial", "chardev:c0"]);
        }
        c.arg("-kernel").arg(&linux.image).arg("-initrd").arg(&linux.initrd);
        c.args(["-append", &format!("console=ttyAMA0 {words}")]);
        c
    }

    /// A bare-metal program that waits for gdb at `socket`.
    pub fn debugged(&self, program: &Path, smp: &str, socket: &Path) -> Command {
        let mut c = self.bare(program, smp);
        c.arg("-S")
            .arg("-chardev")
            .arg(format!("socket,id=gdb,path={},server=on,wait=off", socket.display()));
        c.args(["-gdb", "chardev:gdb"]);
        c
    }

    /// A bare-metal program that is not started and listens for QMP clients at `socket`.
    pub fn controlled(&self, program: &Path, smp: &str, socket: &Path) -> Command {
        let mut c = self.bare(program, smp);
        c.arg("-S").arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        c
    }

    /// Linux that waits for gdb at `socket` before its first instruction.
    pub fn debugged_linux(&self, linux: &Linux, smp: u32, words: &str, socket: &Path) -> Command {
        let mut c = self.debugged(&linux.image, &smp.to_string(), socket);
        c.arg("-initrd").arg(&linux.initrd).arg("-no-reboot");
        // It gives the kernel a seed for its address otherwise.
        c.args(["-append", &format!("console=ttyAMA0 nokaslr {words}")]);
        c
    }

    /// A host on which armlet can use KVM, with its console on standard output, and `disks` with serial numbers.
    pub fn nested(&self, nested: &Nested<'_>) -> Command {
        let mut c = self.program();
        c.args([
            "-M",
            &format!("virt,gic-version={},virtualization=on", nested.gic),
            "-cpu",
            nested.cpu,
            "-smp",
            "2",
            "-m",
            "2048",
        ]);
        c.args(["-display", "none", "-nodefaults", "-serial", "stdio", "-monitor", "none", "-no-reboot"]);
        c.args(["-append", "console=ttyAMA0 quiet", "-kernel"]).arg(nested.image);
        c.arg("-initrd").arg(nested.initrd);
        if let Some(port) = nested.port {
            let network = format!("user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:{port}");
            c.args(["-netdev", &network, "-device", "virtio-net-device,netdev=n0"]);
        }
        for (name, path) in nested.disks {
            c.arg("-drive").arg(format!("if=none,format=raw,id={name},file={}", path.display()));
            c.arg("-device").arg(format!("virtio-blk-device,drive={name},serial={name}"));
        }
        c
    }

    /// The same machine as [`Run::armlet`], with the fastest of the peer's own choices.
    pub fn command(&self, r: &Run<'_>) -> Command {
        let mut c = self.program();
        c.args(["-M", "virt,gic-version=3", "-cpu", r.cpu, "-m", "2048"]);
        c.args(["-smp", &r.smp.to_string(), "-display", "none", "-nodefaults", "-serial", "stdio"]);
        c.args(["-monitor", "none", "-no-reboot", "-append", &format!("console=ttyAMA0 {}", r.words)]);
        c.arg("-kernel").arg(&r.linux.image).arg("-initrd").arg(&r.linux.initrd);
        if let Some(disk) = r.disk {
            c.arg("-drive").arg(drive(disk)).args(["-device", "virtio-blk-pci,drive=d0"]);
        }
        c
    }
}

/// Names of the peer's program and of the program loader, where they are together with their libraries.
pub const ARM64_PROGRAM: &str = "qemu-system-aarch64";
pub const ARM64_LOADER: &str = "ld-linux-aarch64.so.1";

/// The peer for arm64 hosts: its program and all libraries that it needs, in one folder of the cache.
///
/// # Errors
/// Download or unpacking failed.
pub fn for_arm64() -> Result<PathBuf> {
    let folder = cache::folder()?.join("peer-arm64");
    cache::once(&folder, |partial| {
        let tree = partial.join("tree");
        let packages = ["base-files", "qemu-system-arm", "qemu-system-data"];
        Release::open("sid", "arm64")?.unpack_all(&packages, &tree)?;
        let library = tree.join("usr/lib/aarch64-linux-gnu");
        let mut wanted = vec![tree.join("usr/bin").join(ARM64_PROGRAM), library.join(ARM64_LOADER)];
        while let Some(file) = wanted.pop() {
            let to = partial.join(file.file_name().context("a library has a name")?);
            if to.exists() {
                continue;
            }
            // Links are followed.
            std::fs::copy(&file, &to).with_context(|| format!("the peer has no {}", file.display()))?;
            let told = run::quiet(run::command("aarch64-linux-gnu-readelf", ["-d"]).arg(&file))?;
            let needed = told.lines().filter(|line| line.contains("(NEEDED)"));
            wanted.extend(
                needed.filter_map(|l| Some(library.join(l.split_once('[')?.1.trim_end_matches(']')))),
            );
        }
        cache::remove(&tree)
    })?;
    Ok(folder)
}

fn drive(disk: &Path) -> String {
    format!("file={},format=raw,if=none,id=d0,snapshot=on", disk.display())
}
