//! Arm semihosting 2.0 for AArch64: console, exit, clocks and command line for bare-metal programs.
//!
//! Files of the host are out of reach: the only names that open are `:tt` and `:semihosting-features`. A pointer
//! that leads nowhere makes the call return −1.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use armlet_devices::WallClock;
use armlet_saved::{SavedHandle, SavedSemihosting, Unfit};

use crate::board::{Elapsed, Times};
use crate::console::Console;
use crate::lock;

mod op {
    pub const OPEN: u32 = 0x01;
    pub const CLOSE: u32 = 0x02;
    pub const WRITEC: u32 = 0x03;
    pub const WRITE0: u32 = 0x04;
    pub const WRITE: u32 = 0x05;
    pub const READ: u32 = 0x06;
    pub const READC: u32 = 0x07;
    pub const ISERROR: u32 = 0x08;
    pub const ISTTY: u32 = 0x09;
    pub const SEEK: u32 = 0x0a;
    pub const FLEN: u32 = 0x0c;
    pub const CLOCK: u32 = 0x10;
    pub const TIME: u32 = 0x11;
    pub const ERRNO: u32 = 0x13;
    pub const GET_CMDLINE: u32 = 0x15;
    pub const HEAPINFO: u32 = 0x16;
    pub const EXIT: u32 = 0x18;
    pub const EXIT_EXTENDED: u32 = 0x20;
    pub const ELAPSED: u32 = 0x30;
    pub const TICKFREQ: u32 = 0x31;
}

/// `ADP_Stopped_ApplicationExit`: the reason of a program that ended by itself.
const APPLICATION_EXIT: u64 = 0x2_0026;
/// Exit status of a program that ended for any other reason.
const ABNORMAL_EXIT: u32 = 1;
/// `:semihosting-features`: magic, then extended exit and separate stdout and stderr.
const FEATURES: [u8; 5] = [b'S', b'H', b'F', b'B', 0b11];
/// Ticks per second of the elapsed-time clock.
const TICK_HZ: u64 = 1_000_000_000;
/// Most bytes that one call moves; a program that wants more gets a short count.
const MAX_TRANSFER: u64 = 16 << 20;
/// Most open handles.
const MAX_HANDLES: usize = 64;
/// How long output waits for a full console before it gives up.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
const FAILED: u64 = u64::MAX;

const EACCES: u64 = 13;
const EBADF: u64 = 9;
const EFAULT: u64 = 14;
const EINVAL: u64 = 22;
const EMFILE: u64 = 24;
const ENOSYS: u64 = 38;

/// The calling program's memory, by virtual address.
pub trait ProgramMemory {
    /// Reads all of `out`, or tells `false`.
    fn read(&self, address: u64, out: &mut [u8]) -> bool;
    /// Writes all of `data`, or tells `false`.
    fn write(&self, address: u64, data: &[u8]) -> bool;
}

/// What follows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program goes on with this in X0.
    Done(u64),
    /// There is no input yet: the program makes the call again.
    Retry,
    /// The program has ended with this status.
    Exit(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handle {
    Closed,
    Input,
    Output,
    Features { at: usize },
}

struct State {
    handles: Vec<Handle>,
    errno: u64,
    /// Time that had passed when the machine was restored.
    before: Duration,
}

/// Semihosting of one machine.
pub struct Semihosting {
    console: Console,
    command_line: String,
    /// Free memory for `SYS_HEAPINFO`: first and one past the last byte.
    free: (u64, u64),
    elapsed: Elapsed,
    wall: WallClock,
    /// A program that waits for input lets this thread sleep: no other CPU is on it.
    patient: bool,
    state: Mutex<State>,
}

type Answer = Result<Outcome, u64>;

fn done(x0: u64) -> Answer {
    Ok(Outcome::Done(x0))
}

impl Semihosting {
    /// For a program with this console, command line and free memory (first and one past the last byte).
    pub(crate) fn new(console: Console, command_line: &str, free: (u64, u64), times: &Times) -> Self {
        let state = State { handles: Vec::new(), errno: 0, before: Duration::ZERO };
        Self {
            console,
            command_line: command_line.into(),
            free,
            elapsed: times.elapsed(),
            wall: times.wall(),
            patient: true,
            state: Mutex::new(state),
        }
    }

    /// The same for CPUs that share one thread: none sleeps while it waits for input.
    #[must_use]
    pub(crate) fn impatient(mut self) -> Self {
        self.patient = false;
        self
    }

    /// Machine reset: all handles close.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        *state = State { handles: Vec::new(), errno: 0, before: state.before };
    }

    fn passed(&self) -> Duration {
        let before = lock(&self.state).before;
        before.saturating_add((self.elapsed)())
    }

    /// Handles, and the time that has passed.
    pub(crate) fn save(&self) -> SavedSemihosting {
        let elapsed = u64::try_from(self.passed().as_nanos()).unwrap_or(u64::MAX);
        let state = lock(&self.state);
        let handle = |handle: &Handle| match *handle {
            Handle::Closed => SavedHandle::Closed,
            Handle::Input => SavedHandle::Input,
            Handle::Output => SavedHandle::Output,
            Handle::Features { at } => SavedHandle::Features(at as u64),
        };
        SavedSemihosting { handles: state.handles.iter().map(handle).collect(), errno: state.errno, elapsed }
    }

    /// Takes that over.
    ///
    /// # Errors
    /// More handles than there can be.
    pub(crate) fn restore(&self, saved: &SavedSemihosting) -> Result<(), Unfit> {
        let fits = saved.handles.len() <= MAX_HANDLES;
        Unfit::unless(fits, || "a program had more handles open than it can have".into())?;
        let handle = |handle: &SavedHandle| match *handle {
            SavedHandle::Closed => Handle::Closed,
            SavedHandle::Input => Handle::Input,
            SavedHandle::Output => Handle::Output,
            SavedHandle::Features(at) => Handle::Features {
                at: usize::try_from(at).map_or(FEATURES.len(), |at| at.min(FEATURES.len())),
            },
        };
        *lock(&self.state) = State {
            handles: saved.handles.iter().map(handle).collect(),
            errno: saved.errno,
            before: Duration::from_nanos(saved.elapsed),
        };
        Ok(())
    }

    /// Carries out operation `operation` (W0) with `parameter` (X1).
    pub fn call(&self, operation: u32, parameter: u64, memory: &dyn ProgramMemory) -> Outcome {
        self.dispatch(operation, parameter, memory).unwrap_or_else(|errno| {
            lock(&self.state).errno = errno;
            Outcome::Done(FAILED)
        })
    }

    /// Sleeps until there is input, at most for `limit`.
    pub fn wait_for_input(&self, limit: Duration) {
        if self.patient {
            self.console.input.wait(limit);
        }
    }

    fn dispatch(&self, operation: u32, parameter: u64, memory: &dyn ProgramMemory) -> Answer {
        match operation {
            op::OPEN => self.open(fields(memory, parameter)?, memory),
            op::CLOSE => {
                let [handle] = fields(memory, parameter)?;
                *self.slot(&mut lock(&self.state), handle)? = Handle::Closed;
                done(0)
            }
            op::WRITEC => {
                let [byte] = bytes(memory, parameter)?;
                self.print(&[byte]);
                done(0)
            }
            op::WRITE0 => self.write_string(parameter, memory),
            op::WRITE => self.write(fields(memory, parameter)?, memory),
            op::READ => self.read(fields(memory, parameter)?, memory),
            op::READC => {
                Ok(self.console.input.take_one().map_or(Outcome::Retry, |c| Outcome::Done(c.into())))
            }
            op::ISERROR => {
                let [status] = fields(memory, parameter)?;
                done(u64::from((status as i64) < 0))
            }
            op::ISTTY => {
                let [handle] = fields(memory, parameter)?;
                done(u64::from(!matches!(self.handle(handle)?, Handle::Features { .. })))
            }
            op::SEEK => self.seek(fields(memory, parameter)?),
            op::FLEN => {
                let [handle] = fields(memory, parameter)?;
                let features = matches!(self.handle(handle)?, Handle::Features { .. });
                done(if features { FEATURES.len() as u64 } else { 0 })
            }
            op::CLOCK => done(u64::try_from(self.passed().as_millis() / 10).unwrap_or(FAILED)),
            op::TIME => done((self.wall)().as_secs()),
            op::ERRNO => done(lock(&self.state).errno),
            op::GET_CMDLINE => self.command_line(parameter, memory),
            op::HEAPINFO => self.heap_info(parameter, memory),
            op::EXIT | op::EXIT_EXTENDED => exit(parameter, memory),
            op::ELAPSED => {
                let ticks = u64::try_from(self.passed().as_nanos()).unwrap_or(u64::MAX);
                put(memory, parameter, &ticks.to_le_bytes())?;
                done(0)
            }
            op::TICKFREQ => done(TICK_HZ),
            _ => Err(ENOSYS),
        }
    }

    fn open(&self, [name, mode, len]: [u64; 3], memory: &dyn ProgramMemory) -> Answer {
        let mut text = [0; 32];
        let text = text.get_mut(..usize::try_from(len).map_err(|_| EINVAL)?).ok_or(EACCES)?;
        get(memory, name, text)?;
        let handle = match (&*text, mode) {
            (b":tt", 0..=3) => Handle::Input,
            (b":tt", 4..=11) => Handle::Output,
            (b":semihosting-features", 0 | 1) => Handle::Features { at: 0 },
            (b":tt", _) => return Err(EINVAL),
            _ => return Err(EACCES),
        };
        let mut state = lock(&self.state);
        let free = state.handles.iter().position(|h| *h == Handle::Closed);
        let index = match free {
            Some(i) => i,
            None if state.handles.len() < MAX_HANDLES => {
                state.handles.push(Handle::Closed);
                state.handles.len() - 1
            }
            None => return Err(EMFILE),
        };
        state.handles[index] = handle;
        // Handles are not 0: some libraries take that for a failure.
        done(index as u64 + 1)
    }

    fn slot<'a>(&self, state: &'a mut State, handle: u64) -> Result<&'a mut Handle, u64> {
        let index = handle.checked_sub(1).and_then(|i| usize::try_from(i).ok()).ok_or(EBADF)?;
        state.handles.get_mut(index).filter(|h| **h != Handle::Closed).ok_or(EBADF)
    }

    fn handle(&self, handle: u64) -> Result<Handle, u64> {
        self.slot(&mut lock(&self.state), handle).copied()
    }

    fn seek(&self, [handle, position]: [u64; 2]) -> Answer {
        match self.slot(&mut lock(&self.state), handle)? {
            Handle::Features { at } if position <= FEATURES.len() as u64 => {
                *at = position as usize;
                done(0)
            }
            _ => Err(EINVAL),
        }
    }

    fn write_string(&self, mut address: u64, memory: &dyn ProgramMemory) -> Answer {
        let mut line = Vec::with_capacity(256);
        for _ in 0..MAX_TRANSFER {
            let [byte] = bytes(memory, address)?;
            if byte == 0 {
                break;
            }
            line.push(byte);
            if line.len() == line.capacity() {
                self.print(&line);
                line.clear();
            }
            address = address.wrapping_add(1);
        }
        self.print(&line);
        done(0)
    }

    /// Returns how many bytes were not written.
    fn write(&self, [handle, address, len]: [u64; 3], memory: &dyn ProgramMemory) -> Answer {
        if self.handle(handle)? != Handle::Output {
            return Err(EBADF);
        }
        let mut chunk = [0; 4096];
        let mut written = 0;
        while written < len.min(MAX_TRANSFER) {
            let n = (len - written).min(chunk.len() as u64) as usize;
            get(memory, address.wrapping_add(written), &mut chunk[..n])?;
            self.print(&chunk[..n]);
            written += n as u64;
        }
        done(len - written)
    }

    /// Returns how many bytes were not read; input that is not there yet is waited for.
    fn read(&self, [handle, address, len]: [u64; 3], memory: &dyn ProgramMemory) -> Answer {
        match self.handle(handle)? {
            Handle::Features { at } => {
                let n = len.min((FEATURES.len() - at) as u64) as usize;
                put(memory, address, &FEATURES[at..at + n])?;
                *self.slot(&mut lock(&self.state), handle)? = Handle::Features { at: at + n };
                done(len - n as u64)
            }
            Handle::Input if len == 0 => done(0),
            Handle::Input => {
                let Some(byte) = self.console.input.take_one() else { return Ok(Outcome::Retry) };
                put(memory, address, &[byte])?;
                done(len - 1)
            }
            _ => Err(EBADF),
        }
    }

    fn command_line(&self, parameter: u64, memory: &dyn ProgramMemory) -> Answer {
        let [buffer, len] = fields(memory, parameter)?;
        let text = [self.command_line.as_bytes(), &[0]].concat();
        if len < text.len() as u64 {
            return Err(EINVAL);
        }
        put(memory, buffer, &text)?;
        put(memory, parameter.wrapping_add(8), &(self.command_line.len() as u64).to_le_bytes())?;
        done(0)
    }

    fn heap_info(&self, parameter: u64, memory: &dyn ProgramMemory) -> Answer {
        let [block] = fields(memory, parameter)?;
        let (start, end) = self.free;
        // Heap base and limit, stack base and limit.
        let info = [start, end, end, start];
        let data: Vec<u8> = info.iter().flat_map(|v| v.to_le_bytes()).collect();
        put(memory, block, &data)?;
        done(0)
    }

    /// Output goes to the console in full; a console that takes nothing loses the rest after a while.
    fn print(&self, mut data: &[u8]) {
        let since = Instant::now();
        while !data.is_empty() {
            let n = self.console.write(data).min(data.len());
            data = &data[n..];
            if n == 0 {
                if since.elapsed() > OUTPUT_PATIENCE {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn exit(parameter: u64, memory: &dyn ProgramMemory) -> Answer {
    let [reason, status] = fields(memory, parameter)?;
    Ok(Outcome::Exit(if reason == APPLICATION_EXIT { status as u32 } else { ABNORMAL_EXIT }))
}

fn get(memory: &dyn ProgramMemory, address: u64, out: &mut [u8]) -> Result<(), u64> {
    if memory.read(address, out) { Ok(()) } else { Err(EFAULT) }
}

fn put(memory: &dyn ProgramMemory, address: u64, data: &[u8]) -> Result<(), u64> {
    if memory.write(address, data) { Ok(()) } else { Err(EFAULT) }
}

fn bytes<const N: usize>(memory: &dyn ProgramMemory, address: u64) -> Result<[u8; N], u64> {
    let mut out = [0; N];
    get(memory, address, &mut out)?;
    Ok(out)
}

/// The parameter block: `N` doublewords.
fn fields<const N: usize>(memory: &dyn ProgramMemory, address: u64) -> Result<[u64; N], u64> {
    let mut out = [0; N];
    for (i, field) in out.iter_mut().enumerate() {
        *field = u64::from_le_bytes(bytes(memory, address.wrapping_add(8 * i as u64))?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// 4 KiB of memory at 0x1000.
    struct Memory(RefCell<Vec<u8>>);

    impl ProgramMemory for Memory {
        fn read(&self, address: u64, out: &mut [u8]) -> bool {
            let Some(at) = address.checked_sub(0x1000) else { return false };
            let memory = self.0.borrow();
            let Some(from) = memory.get(at as usize..).and_then(|m| m.get(..out.len())) else { return false };
            out.copy_from_slice(from);
            true
        }

        fn write(&self, address: u64, data: &[u8]) -> bool {
            let Some(at) = address.checked_sub(0x1000) else { return false };
            let mut memory = self.0.borrow_mut();
            let Some(to) = memory.get_mut(at as usize..).and_then(|m| m.get_mut(..data.len())) else {
                return false;
            };
            to.copy_from_slice(data);
            true
        }
    }

    struct Rig {
        console: Console,
        semihosting: Semihosting,
        memory: Memory,
    }

    impl Rig {
        fn new() -> Self {
            let console = Console::new();
            let free = (0x4100_0000, 0x4200_0000);
            let semihosting = Semihosting::new(console.clone(), "prog arg", free, &Times::new(None));
            Self { console, semihosting, memory: Memory(RefCell::new(vec![0; 4096])) }
        }

        fn block(&self, fields: &[u64]) -> u64 {
            let data: Vec<u8> = fields.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert!(self.memory.write(0x1000, &data));
            0x1000
        }

        fn call(&self, operation: u32, fields: &[u64]) -> Outcome {
            let block = self.block(fields);
            self.semihosting.call(operation, block, &self.memory)
        }

        fn open(&self, name: &str, mode: u64) -> Outcome {
            assert!(self.memory.write(0x1800, name.as_bytes()));
            self.call(op::OPEN, &[0x1800, mode, name.len() as u64])
        }

        fn output(&self) -> String {
            let mut buffer = [0; 256];
            let n = self.console.output.try_read(&mut buffer);
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        }
    }

    #[test]
    fn output_reaches_the_console() {
        let rig = Rig::new();
        assert!(rig.memory.write(0x1100, b"hello\0"));
        assert_eq!(rig.semihosting.call(op::WRITE0, 0x1100, &rig.memory), Outcome::Done(0));
        assert_eq!(rig.semihosting.call(op::WRITEC, 0x1100, &rig.memory), Outcome::Done(0));
        assert_eq!(rig.open(":tt", 4), Outcome::Done(1));
        assert_eq!(rig.call(op::WRITE, &[1, 0x1101, 3]), Outcome::Done(0));
        assert_eq!(rig.output(), "hellohell");
        assert_eq!(rig.call(op::ISTTY, &[1]), Outcome::Done(1));
        assert_eq!(rig.call(op::CLOSE, &[1]), Outcome::Done(0));
        assert_eq!(rig.call(op::CLOSE, &[1]), Outcome::Done(FAILED));
        assert_eq!(rig.call(op::ERRNO, &[]), Outcome::Done(EBADF));
    }

    #[test]
    fn input_is_waited_for() {
        let rig = Rig::new();
        assert_eq!(rig.call(op::READC, &[]), Outcome::Retry);
        assert_eq!(rig.open(":tt", 0), Outcome::Done(1));
        assert_eq!(rig.call(op::READ, &[1, 0x1900, 8]), Outcome::Retry);
        assert_eq!(rig.console.input.offer(b"ab"), 2);
        assert_eq!(rig.call(op::READC, &[]), Outcome::Done(u64::from(b'a')));
        assert_eq!(rig.call(op::READ, &[1, 0x1900, 8]), Outcome::Done(7));
        assert_eq!(bytes(&rig.memory, 0x1900), Ok([b'b']));
    }

    #[test]
    fn exits_carry_the_status_of_a_normal_end_only() {
        let rig = Rig::new();
        assert_eq!(rig.call(op::EXIT, &[0x2_0026, 7]), Outcome::Exit(7));
        assert_eq!(rig.call(op::EXIT_EXTENDED, &[0x2_0026, 0]), Outcome::Exit(0));
        assert_eq!(rig.call(op::EXIT, &[0x2_0023, 0]), Outcome::Exit(1));
    }

    #[test]
    fn features_command_line_and_heap_are_told() {
        let rig = Rig::new();
        assert_eq!(rig.open(":semihosting-features", 0), Outcome::Done(1));
        assert_eq!(rig.call(op::FLEN, &[1]), Outcome::Done(5));
        assert_eq!(rig.call(op::READ, &[1, 0x1900, 8]), Outcome::Done(3));
        assert_eq!(bytes(&rig.memory, 0x1900), Ok(*b"SHFB\x03"));
        assert_eq!(rig.call(op::SEEK, &[1, 4]), Outcome::Done(0));
        assert_eq!(rig.call(op::READ, &[1, 0x1900, 1]), Outcome::Done(0));
        assert_eq!(bytes(&rig.memory, 0x1900), Ok([3]));
        assert_eq!(rig.call(op::SEEK, &[1, 6]), Outcome::Done(FAILED));
        assert_eq!(rig.call(op::GET_CMDLINE, &[0x1900, 8]), Outcome::Done(FAILED));
        assert_eq!(rig.call(op::GET_CMDLINE, &[0x1900, 9]), Outcome::Done(0));
        assert_eq!(bytes(&rig.memory, 0x1900), Ok(*b"prog arg\0"));
        assert_eq!(fields(&rig.memory, 0x1008), Ok([8]));
        assert_eq!(rig.call(op::HEAPINFO, &[0x1a00]), Outcome::Done(0));
        assert_eq!(fields(&rig.memory, 0x1a00), Ok([0x4100_0000, 0x4200_0000, 0x4200_0000, 0x4100_0000]));
    }

    #[test]
    fn host_files_do_not_open_and_bad_pointers_fail() {
        let rig = Rig::new();
        for name in ["/etc/passwd", "x", "", ":tt2", "a name that is longer than any that exists here"] {
            assert_eq!(rig.open(name, 0), Outcome::Done(FAILED), "{name}");
        }
        for operation in 0..0x40 {
            for pointer in [0, 0xfff, 0x1fff, 0x2000, u64::MAX, u64::MAX - 7] {
                let reads_nothing =
                    [op::READC, op::CLOCK, op::TIME, op::ERRNO, op::TICKFREQ].contains(&operation);
                // The last byte is a readable character or an empty string.
                let last = pointer == 0x1fff && [op::WRITEC, op::WRITE0].contains(&operation);
                let outcome = rig.semihosting.call(operation, pointer, &rig.memory);
                assert_eq!(
                    outcome == Outcome::Done(FAILED),
                    !reads_nothing && !last,
                    "{operation:#x} {pointer:#x}"
                );
            }
        }
    }
}
