//! Runs single instructions on an independent implementation: a static arm64 program, made here word by word,
//! under `qemu-aarch64`. Each case loads all registers, executes one instruction and stores all registers.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Registers of a case: V0 to V15, X0 to X15, FPCR or FPSR, NZCV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub v: [u128; 16],
    pub x: [u64; 16],
    /// FPCR going in, FPSR coming out.
    pub fp: u32,
    pub nzcv: u32,
    /// Coming out: the instruction was undefined.
    pub undefined: bool,
}

const RECORD: usize = 400;
const BASE: u64 = 0x40_0000;

impl Registers {
    fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD);
        self.v.iter().for_each(|v| out.extend(v.to_le_bytes()));
        self.x.iter().for_each(|x| out.extend(x.to_le_bytes()));
        out.extend(u64::from(self.fp).to_le_bytes());
        out.extend(u64::from(self.nzcv).to_le_bytes());
        out
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let flags = word(392);
        Self {
            v: std::array::from_fn(|i| u128::from(word(16 * i)) | u128::from(word(16 * i + 8)) << 64),
            x: std::array::from_fn(|i| word(256 + 8 * i)),
            fp: word(384) as u32,
            nzcv: flags as u32 & 0xf000_0000,
            undefined: flags & 1 != 0,
        }
    }
}

/// The program: X20 walks the input records, X21 the output records, X19 counts undefined instructions.
#[derive(Default)]
struct Program {
    words: Vec<u32>,
}

impl Program {
    fn emit(&mut self, word: u32) {
        self.words.push(word);
    }

    fn here(&self) -> usize {
        self.words.len()
    }

    /// Loads a 64-bit constant.
    fn constant(&mut self, rd: u32, value: u64) {
        for i in 0..4u32 {
            let half = (value >> (16 * i)) as u32 & 0xffff;
            let op = if i == 0 { 0xd280_0000 } else { 0xf280_0000 };
            self.emit(op | i << 21 | half << 5 | rd);
        }
    }

    fn call(&mut self, target: usize) {
        let offset = (target as i64 - self.here() as i64) as u32 & 0x3ff_ffff;
        self.emit(0x9400_0000 | offset);
    }

    /// LDP or STP of V0 to V15 and X0 to X15 at the record in `base`.
    fn all_registers(&mut self, load: bool, base: u32) {
        let bit = u32::from(load) << 22;
        for i in (0..16).step_by(2) {
            self.emit(0xad00_0000 | bit | i << 15 | (i + 1) << 10 | base << 5 | i);
        }
        for i in (0..16).step_by(2) {
            self.emit(0xa900_0000 | bit | (i + 32) << 15 | (i + 1) << 10 | base << 5 | i);
        }
    }

    fn advance(&mut self, base: u32) {
        self.emit(0x9100_0000 | (RECORD as u32) << 10 | base << 5 | base);
    }

    fn load(&mut self) -> usize {
        let start = self.here();
        self.emit(0xf940_0000 | 48 << 10 | 20 << 5 | 17); // ldr x17, [x20, #384]
        self.emit(0xd51b_4400 | 17); // msr fpcr, x17
        self.emit(0xf940_0000 | 49 << 10 | 20 << 5 | 17); // ldr x17, [x20, #392]
        self.emit(0xd51b_4200 | 17); // msr nzcv, x17
        self.emit(0xd51b_4420 | 31); // msr fpsr, xzr
        self.all_registers(true, 20);
        self.advance(20);
        self.emit(0xd280_0000 | 19); // mov x19, #0
        self.emit(0xd65f_03c0);
        start
    }

    fn save(&mut self) -> usize {
        let start = self.here();
        self.all_registers(false, 21);
        self.emit(0xd53b_4420 | 17); // mrs x17, fpsr
        self.emit(0xf900_0000 | 48 << 10 | 21 << 5 | 17);
        self.emit(0xd53b_4200 | 17); // mrs x17, nzcv
        self.emit(0x8b00_0000 | 19 << 16 | 17 << 5 | 17); // add x17, x17, x19
        self.emit(0xf900_0000 | 49 << 10 | 21 << 5 | 17);
        self.advance(21);
        self.emit(0xd65f_03c0);
        start
    }

    /// The SIGILL handler: skips the instruction and counts it, in the interrupted context.
    fn handler(&mut self) -> usize {
        const CONTEXT: u32 = 176 + 8;
        let start = self.here();
        for (offset, add) in [(CONTEXT + 8 * 32, 4), (CONTEXT + 8 * 19, 1)] {
            self.emit(0xf940_0000 | (offset / 8) << 10 | 2 << 5 | 3); // ldr x3, [x2, #offset]
            self.emit(0x9100_0000 | add << 10 | 3 << 5 | 3); // add x3, x3, #add
            self.emit(0xf900_0000 | (offset / 8) << 10 | 2 << 5 | 3);
        }
        self.emit(0xd65f_03c0);
        start
    }

    fn system_call(&mut self, number: u64, args: &[u64]) {
        for (i, &a) in args.iter().enumerate() {
            self.constant(i as u32, a);
        }
        self.constant(8, number);
        self.emit(0xd400_0001);
    }
}

/// Builds the program: code, SIGILL action, inputs, room for outputs, in one segment.
fn image(cases: &[(u32, Registers)]) -> Vec<u8> {
    const HEADER: u64 = 120;
    let mut p = Program::default();
    let (load, save, handler) = (p.load(), p.save(), p.handler());
    let entry = p.here();
    // The start-up below has a fixed length, whatever the constants.
    let code_words = entry + 5 * 4 + 4 + 1 + 2 * 4 + 3 * cases.len() + 4 * 4 + 1 + 4 + 4 + 1;
    let action = (HEADER + 4 * code_words as u64 + 64).next_multiple_of(64);
    let input = action + 64;
    let output = input + (RECORD * cases.len()) as u64;
    p.system_call(134, &[4, BASE + action, 0, 8]);
    p.constant(20, BASE + input);
    p.constant(21, BASE + output);
    for (word, _) in cases {
        p.call(load);
        p.emit(*word);
        p.call(save);
    }
    p.system_call(64, &[1, BASE + output, (RECORD * cases.len()) as u64]);
    p.system_call(94, &[0]);
    assert!(HEADER + 4 * p.here() as u64 <= action, "the code fits before the data");

    let size = output + (RECORD * cases.len()) as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    out.extend((BASE + HEADER + 4 * entry as u64).to_le_bytes());
    out.extend(64u64.to_le_bytes());
    out.extend([0; 12]);
    out.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    out.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for v in [0, BASE, BASE, input + (RECORD * cases.len()) as u64, size, 0x1000] {
        out.extend(v.to_le_bytes());
    }
    p.words.iter().for_each(|w| out.extend(w.to_le_bytes()));
    out.resize(action as usize, 0);
    const SA_SIGINFO: u64 = 4;
    out.extend((BASE + HEADER + 4 * handler as u64).to_le_bytes());
    out.extend(SA_SIGINFO.to_le_bytes());
    out.resize(input as usize, 0);
    cases.iter().for_each(|(_, r)| out.extend(r.to_bytes()));
    out
}

/// The program to run arm64 programs with: `ARMLET_QEMU_USER`, or one in `PATH`.
pub fn qemu() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ARMLET_QEMU_USER") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|dir| ["qemu-aarch64", "qemu-aarch64-static"].map(|name| dir.join(name)))
        .find(|p| p.is_file())
}

/// Executes each instruction with its registers; the results in the same order.
pub fn run(qemu: &PathBuf, cpu: &str, cases: &[(u32, Registers)]) -> Vec<Registers> {
    let dir = std::env::temp_dir().join(format!("armlet-qemu-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary folder");
    let program = dir.join(format!("cases-{:?}", std::thread::current().id()));
    std::fs::write(&program, image(cases)).expect("the program can be written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("the program can be made executable");
    }
    let output = Command::new(qemu)
        .args(["-cpu", cpu])
        .arg(&program)
        .stdin(Stdio::null())
        .output()
        .expect("qemu-aarch64 can be started");
    let _ = std::fs::remove_file(&program);
    let _ = std::fs::remove_dir(&dir);
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), RECORD * cases.len(), "one record for each case");
    output.stdout.chunks(RECORD).map(Registers::from_bytes).collect()
}
