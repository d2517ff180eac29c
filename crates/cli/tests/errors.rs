//! Bad input: exit status 2, one line that names cause and mend, nothing created or changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("armlet-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.fill();
        folder
    }

    fn fill(&self) {
        let mut image = vec![0; 100_000];
        image[16..24].copy_from_slice(&(1u64 << 20).to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        self.file("Image", &image);
        let mut wide = image.clone();
        wide[24] = 0b0100;
        self.file("Image16k", &wide);
        self.file("short", &image[..40]);
        self.file("empty", b"");
        self.file("text", b"just some text that is no kernel at all, but longer than a header is");
        self.file("big", &vec![1; 70 << 20]);
        let mut elf = vec![0; 120];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[18] = 62;
        self.file("x86.elf", &elf);
        self.file("disk", &[0; 4096]);
        self.file("image.qcow2", b"QFI\xfb and so on");
    }

    fn file(&self, name: &str, contents: &[u8]) {
        std::fs::write(self.0.join(name), contents).unwrap();
    }

    fn listing(&self) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        let mut all: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                let meta = e.metadata().unwrap();
                (e.path(), meta.len(), meta.modified().unwrap())
            })
            .collect();
        all.sort();
        all
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn armlet(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_armlet"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// Each line: the arguments of `armlet run`, then a word of the cause and one of the mend.
const BAD: &[(&str, &str, &str)] = &[
    ("--kernel missing", "missing", "check the path"),
    ("--kernel empty", "empty", "give a file"),
    ("--kernel short", "truncated", "again"),
    ("--kernel text", "no kernel", "arm64 Linux Image"),
    ("--kernel x86.elf", "x86-64 ELF", "AArch64"),
    ("--kernel .", "folder", "give a file"),
    ("--kernel Image16k --cpu cortex-a53", "16K pages", "--cpu"),
    ("--kernel Image --initrd missing", "initrd 'missing'", "check the path"),
    ("--kernel Image --initrd big --memory 64M", "does not fit", "--memory 128M"),
    ("--initrd Image", "without a kernel", "--kernel"),
    ("--kernel Image --dtb text", "device tree 'text'", "dtc"),
    ("--kernel Image --dtb big", "more than", "smaller"),
    ("--kernel Image --drive missing", "does not exist", "check the path"),
    ("--kernel Image --drive empty", "empty", ""),
    ("--kernel Image --drive image.qcow2", "qcow2", "raw"),
    ("--kernel Image --drive disk,cache=none", "cache", "snapshot"),
    ("--kernel Image --drive disk,bus=usb", "usb", "bus=pci"),
    ("--kernel Image --drive disk,format=qcow2", "qcow2", "raw"),
    ("--kernel Image --memory 0", "memory of 0", "--memory"),
    ("--kernel Image --memory 1M", "too small", "--memory 16M"),
    ("--kernel Image --memory 65537K", "multiple", "--memory 64M"),
    ("--kernel Image --memory 9999999G", "more than this host", "less"),
    ("--kernel Image --memory lots", "no size", "2G"),
    ("--kernel Image --cpu pentium", "unknown CPU", "neoverse-n1"),
    ("--kernel Image --cpu max,warp=on", "unknown CPU feature", "lse"),
    ("--kernel Image --cpu max,lpa=off", "'lpa2' needs 'lpa'", "lpa2=off"),
    ("--kernel Image --cpu max,dpb=off", "'dpb2' needs 'dpb'", "dpb2=off"),
    ("--kernel Image --cpu max,lse=on,lse=off", "as on and as off", "leave one"),
    ("--kernel Image --cpu max,lse=maybe", "maybe", "on or"),
    ("--kernel Image --machine raspi4", "raspi4", "virt"),
    ("--kernel Image --smp 0", "at least one", "--smp 1"),
    ("--kernel Image --smp 513", "513", "512"),
    ("--kernel Image --smp -1", "'-1' is no number", "write 1, 2"),
    ("--kernel Image --memory -1", "'-1' is no size", "write 2G"),
    ("--kernel Image --timeout -1", "'-1' is no time", "such as 30"),
    ("--kernel Image --cpu max,", "behind a comma", "leave"),
    ("--kernel Image --accel jit,", "behind a comma", "leave"),
    ("--kernel Image --drive disk,", "behind a comma", "leave"),
    ("--kernel Image --drive disk --drive disk", "given twice", "give it once"),
    ("--kernel Image --smp 4,max=2", "room for 2", "max=4"),
    ("--kernel Image --smp 4,max=600", "600", "512"),
    ("--kernel Image --smp 4,min=2", "min=2", "max="),
    ("--kernel Image --smp 8,sockets=3", "sockets=3 does not make up room for 8", "max=9"),
    (
        "--kernel Image --smp 4,clusters=2,cores=2,threads=2",
        "clusters=2,cores=2,threads=2 does not",
        "--smp 4,max=8",
    ),
    ("--kernel Image --smp 4,cores=8", "cores=8 does not", "max=8"),
    ("--kernel Image --smp 4,threads=0", "threads=0", "threads=1"),
    ("--kernel Image --smp 64,threads=32", "threads=32 is more", "threads=16"),
    ("--kernel Image --smp 512,sockets=512", "sockets=512 is more", "sockets=256"),
    ("--kernel Image --smp 512,clusters=512", "clusters=512 is more", "clusters=256"),
    ("--kernel Image --smp 8,cores=99999999999999999999", "no number", "write 1, 2"),
    ("--kernel Image --smp sockets=512,clusters=512", "262144 CPUs", "--smp 512"),
    ("--kernel Image --smp 4,dies=2", "dies=2", "clusters"),
    ("--kernel Image --smp 4,", "behind a comma", "leave"),
    ("--kernel Image --accel kvm", "no KVM", "--accel jit"),
    ("--kernel Image --accel warp", "warp", "jit"),
    ("--kernel Image --accel jit,turbo=on", "turbo", "smc"),
    ("--kernel Image --accel jit,smc=maybe", "maybe", "strict"),
    ("--kernel Image --accel dummy,smc=strict", "smc", "none"),
    ("--kernel Image --accel jit,thread=both", "both", "single, multi"),
    ("--kernel Image --accel dummy,thread=single", "thread", "none"),
    ("--kernel Image --accel jit,icount=3", "icount", "thread=single"),
    ("--kernel Image --accel jit,thread=multi,sleep=off", "sleep", "thread=single"),
    ("--kernel Image --accel jit,thread=single,icount=11", "'11'", "0 to 10"),
    ("--kernel Image --accel jit,thread=single,icount=auto", "'auto'", "0 to 10"),
    ("--kernel Image --accel jit,thread=single,trace=maybe", "maybe", "on, off"),
    ("--kernel Image --record new.rec", "--record needs", "thread=single"),
    ("--kernel Image --accel jit --replay missing", "--replay needs", "thread=single"),
    ("--kernel Image --accel jit,thread=single --replay missing", "recording 'missing'", "check the path"),
    ("--kernel Image --accel jit,thread=single --replay empty", "recording 'empty'", "give a file"),
    ("--kernel Image --accel jit,thread=single --replay text", "'text' is no recording", "--record"),
    ("--kernel Image --accel jit,thread=single --replay .", "is a folder", "give a file"),
    ("--kernel Image --accel jit,thread=single --record a --replay big", "together", "leave one out"),
    ("--kernel Image --accel jit,thread=single --record nowhere/run.rec", "nowhere/run.rec", "path"),
    ("--kernel Image --accel jit,thread=single --record .", "no file", "path"),
    (
        "--kernel Image --accel jit,thread=single --record new --drive disk",
        "'disk' can be written",
        "snapshot=on",
    ),
    ("--kernel Image --accel jit,thread=single --record new --qmp unix:nowhere/sock", "nowhere/sock", "path"),
    ("--kernel Image --serial tcp:1234", "tcp:1234", "unix:PATH"),
    ("--kernel Image --timeout never", "never", "seconds"),
    ("--kernel Image --accel dummy --stats nowhere/stats.json", "nowhere/stats.json", "path"),
    ("--kernel Image --accel dummy --stats .", "directory", "path"),
    ("--kernel Image --accel dummy --stats /proc/none", "'/proc/none'", "path"),
    ("--kernel Image --dump-dtb nowhere/tree.dtb", "nowhere/tree.dtb", "path"),
    ("--kernel Image --dump-dtb .", "directory", "path"),
    ("--kernel Image --serial file:nowhere/log", "nowhere/log", "path"),
    ("--kernel Image --gdb here", "here", "unix:PATH"),
    ("--kernel Image --gdb :99999", ":99999", "HOST:PORT"),
    ("--kernel Image --gdb 192.0.2.1:1234", "192.0.2.1:1234", "another address"),
    ("--kernel Image --gdb unix:nowhere/sock", "nowhere/sock", "path"),
    ("--kernel Image --gdb unix:disk", "disk", "another path"),
    ("--kernel Image --qmp tcp:localhost:4444", "tcp:localhost:4444", "unix:PATH"),
    ("--kernel Image --qmp unix:nowhere/sock", "nowhere/sock", "path"),
    ("--kernel Image --qmp unix:disk", "disk", "another path"),
    ("--kernel Image --turbo", "--turbo", "--help"),
    ("--kernel Image stray", "'stray' is one word too many", "--help"),
    ("--kernel", "--kernel", "--help"),
    ("--smp 1 --smp 2", "--smp", "once"),
];

#[test]
fn every_mistake_is_told_in_one_line_and_changes_nothing() {
    let folder = Folder::new("errors");
    let before = folder.listing();
    // A host that does not translate has other words for these, and takes its own CPU if nothing is said.
    let translates = cfg!(target_arch = "x86_64");
    let here =
        |arguments: &str| translates || !["--accel jit", "--accel kvm"].iter().any(|a| arguments.contains(a));
    for (arguments, cause, mend) in BAD.iter().filter(|(arguments, ..)| here(arguments)) {
        let mut all = vec!["run"];
        all.extend(arguments.split(' '));
        if !translates && !arguments.contains("--accel") {
            all.extend(["--accel", "dummy"]);
        }
        if !arguments.contains("--serial") {
            all.extend(["--serial", "file:console.log"]);
        }
        let output = armlet(&folder.0, &all);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments}: {text}");
        assert!(text.starts_with("armlet: "), "{arguments}: {text}");
        assert!(text.contains(cause) && text.contains(mend), "{arguments}: {text}");
        assert!(output.stdout.is_empty(), "{arguments}");
        assert_eq!(folder.listing(), before, "{arguments}");
    }
}

#[test]
fn a_disk_that_another_machine_writes_to_is_refused() {
    let folder = Folder::new("locked");
    let file = std::fs::File::open(folder.0.join("disk")).unwrap();
    file.try_lock().unwrap();
    let output = armlet(&folder.0, &["run", "--kernel", "Image", "--drive", "disk"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("in use") && text.lines().count() == 1, "{text}");
}

#[test]
fn lists_help_and_completions_come_on_standard_output() {
    for (arguments, word) in [
        (&["cpus"][..], "neoverse-n1"),
        (&["cpus", "max"], "lse"),
        (&["machines"], "virt"),
        (&["run", "--help"], "Exit status"),
        (&["--version"], "armlet"),
        (&["completions", "bash"], "_armlet"),
    ] {
        let output = armlet(Path::new("/"), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(word), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn other_commands_name_cause_and_mend_as_well() {
    for (arguments, cause, mend) in [
        (&["completions"][..], "<SHELL> is missing", "--help"),
        (&["completions", "csh"], "csh", "zsh"),
        (&["cpus", "pentium"], "pentium", "neoverse-n1"),
        (&["machines", "virt"], "one word too many", "--help"),
        (&["rum"], "unknown command 'rum'", "run"),
        (&["-v"], "subcommand", "--help"),
    ] {
        let output = armlet(Path::new("/"), arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{arguments:?}: {text}");
        assert!(text.contains(cause) && text.contains(mend), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_timeout_has_its_own_status_and_statistics_are_written() {
    let folder = Folder::new("timeout");
    let arguments = "run --kernel Image --accel dummy --memory 64M --timeout 0.2 --stats stats.json";
    let output = armlet(&folder.0, &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(4));
    let stats = std::fs::read_to_string(folder.0.join("stats.json")).unwrap();
    assert!(stats.contains("\"accelerator\": \"dummy\"") && stats.contains("\"cpus\""), "{stats}");
}

#[test]
fn the_generated_device_tree_can_be_had_and_given_back() {
    let folder = Folder::new("dtb");
    let dump = armlet(&folder.0, &["run", "--kernel", "Image", "--append", "one", "--dump-dtb", "out.dtb"]);
    assert_eq!(dump.status.code(), Some(0), "{}", String::from_utf8_lossy(&dump.stderr));
    let again = "run --kernel Image --dtb out.dtb --append two --dump-dtb again.dtb";
    assert_eq!(armlet(&folder.0, &again.split(' ').collect::<Vec<_>>()).status.code(), Some(0));
    let tree = std::fs::read(folder.0.join("again.dtb")).unwrap();
    let has = |text: &[u8]| tree.windows(text.len()).any(|w| w == text);
    assert!(has(b"two\0") && !has(b"one\0"));
}

#[test]
fn a_pipe_that_nobody_serves_holds_nothing_up() {
    let folder = Folder::new("pipes");
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.0.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    for arguments in
        ["--kernel pipe", "--initrd pipe", "--dtb pipe", "--drive pipe", "--stats pipe", "--serial file:pipe"]
    {
        let mut all: Vec<_> = ["run", "--accel", "dummy", "--memory", "64M"].into();
        all.extend(arguments.split(' '));
        if !arguments.contains("--kernel") {
            all.extend(["--kernel", "Image"]);
        }
        let output = armlet(&folder.0, &all);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{arguments}: {text}");
        assert!(text.contains("'pipe'"), "{arguments}: {text}");
    }
}

#[test]
fn what_is_read_is_not_overwritten() {
    let folder = Folder::new("apart");
    std::os::unix::fs::symlink("disk", folder.0.join("link")).unwrap();
    let before = folder.listing();
    for arguments in [
        "--stats disk",
        "--stats ./Image",
        "--stats link",
        "--serial file:disk",
        "--serial file:Image",
        "--dump-dtb disk",
        "--stats new --serial file:./new",
        "--stats new --dump-dtb new",
        "--record Image",
        "--record disk",
        "--replay text --record text",
        "--record new --stats new",
    ] {
        let mut all: Vec<_> = ["run", "--accel", "dummy", "--kernel", "Image", "--drive", "disk"].into();
        all.extend(arguments.split(' '));
        let output = armlet(&folder.0, &all);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{arguments}: {text}");
        assert!(text.contains("overwrite") && text.contains("another file"), "{arguments}: {text}");
        assert_eq!(folder.listing(), before, "{arguments}");
    }
}

#[test]
fn limits_of_the_host_are_told_like_other_mistakes() {
    let folder = Folder::new("limits");
    for (limit, cause, mend) in [
        ("-n 7", "Too many open files", "raise the limit"),
        ("-v 900000", "Cannot allocate memory", "--memory"),
    ] {
        let run =
            format!("ulimit {limit}; exec {} run --serial none --timeout 20", env!("CARGO_BIN_EXE_armlet"));
        let output = Command::new("sh").args(["-c", &run]).current_dir(&folder.0).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{limit}: {} {text}", output.status);
        assert_eq!(text.lines().count(), 1, "{limit}: {text}");
        assert!(text.contains(cause) && text.contains(mend), "{limit}: {text}");
    }
}

#[test]
fn output_that_goes_nowhere_ends_the_run_and_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_armlet"))
        .args(["run", "--timeout", "60"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    // Where there is KVM, a line says so.
    let lines = text.lines().filter(|line| !line.contains("KVM executes")).count();
    assert_eq!((output.status.code(), lines), (Some(1), 1), "{text}");
    assert!(text.contains("standard output") && text.contains("No space"), "{text}");
}

#[test]
fn nobody_who_reads_the_messages_is_no_reason_to_panic() {
    let folder = Folder::new("full");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_armlet"));
        let status =
            command.args(arguments).current_dir(&folder.0).stdin(Stdio::null()).stderr(full()).status();
        status.unwrap().code()
    };
    assert_eq!(run(&["run", "--smp", "0"]), Some(2));
    assert_eq!(run(&["nonsense"]), Some(2));
    let image =
        ["run", "-vv", "--kernel", "Image", "--accel", "dummy", "--memory", "64M", "--timeout", "0.2"];
    assert_eq!(run(&image), Some(4));
}
