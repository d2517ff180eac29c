//! `monitor` commands.

use std::fmt::Write as _;
use std::time::Duration;

use armlet_arm::mmu::{Context, Mapping, Mappings, Permissions};
use armlet_machine::{Cause, RunState};

use crate::memory::{Space, tables};
use crate::target::Target;

/// Lines of a listing.
const MAX_LINES: usize = 400;
/// Pages looked at for one listing: a guest can map the same ones without end.
const MAX_STEPS: usize = 8 << 20;
/// Longest wait for a reset.
const PATIENCE: Duration = Duration::from_secs(30);

const HELP: &str = "\
help                      this list
status                    what the machine and its CPUs do
translate ADDRESS [CPU]   where a virtual address is, and what is allowed there
info tlb [FROM] [CPU]     what the address space maps, from an address on
phys [on|off]             take addresses for physical ones
reset                     reset the machine; it stays stopped
quit                      end the machine
Numbers are decimal, or hexadecimal after 0x. Without CPU, the one that gdb looks at is meant.
";

/// Carries out a command; what to show.
pub(crate) fn run(target: &mut Target, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let done = match words.as_slice() {
        [] | ["help" | "?"] => Ok(HELP.to_owned()),
        ["status"] | ["info", "status" | "cpus"] => Ok(status(target)),
        ["translate" | "gva2gpa", address] => translate(target, address, None),
        ["translate" | "gva2gpa", address, cpu] => translate(target, address, Some(cpu)),
        ["info", "tlb" | "mem"] => map(target, "0", None),
        ["info", "tlb" | "mem", from] => map(target, from, None),
        ["info", "tlb" | "mem", from, cpu] => map(target, from, Some(cpu)),
        ["phys"] => Ok(physical(target)),
        ["phys", switch @ ("on" | "off")] => {
            target.physical = *switch == "on";
            Ok(physical(target))
        }
        ["reset" | "system_reset"] => reset(target),
        ["quit"] => {
            target.machine.quit(Cause::HostUi, "the debugger's quit");
            Ok("the machine ends\n".to_owned())
        }
        _ => Err(format!("unknown command '{}': try monitor help", line.trim())),
    };
    done.unwrap_or_else(|error| format!("{error}\n"))
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("'{text}' is no number: write 4096 or 0x1000"))
}

fn cpu(target: &Target, text: Option<&&str>) -> Result<usize, String> {
    let Some(text) = text else { return Ok(target.selected) };
    let index = number(text)?;
    let known = target.machine.engine().vcpus();
    let index = usize::try_from(index).ok().filter(|i| known.contains(i));
    index.ok_or_else(|| format!("there is no CPU {text}: monitor status lists them"))
}

fn status(target: &Target) -> String {
    let state = match target.machine.run_state() {
        RunState::Prelaunch => "not started yet",
        RunState::Running => "running",
        RunState::Paused => "stopped",
        RunState::Failed => "failed",
        RunState::Shutdown => "ending",
    };
    let mut text =
        format!("the machine is {state}; guest time {:.6} s\n", target.machine.time().as_secs_f64());
    for vcpu in target.machine.engine().vcpus() {
        let mark = if vcpu == target.selected { '*' } else { ' ' };
        let _ = writeln!(text, "{mark} {}", target.vcpu_text(vcpu));
    }
    text
}

fn physical(target: &Target) -> String {
    format!("addresses are {}\n", if target.physical { "physical" } else { "virtual" })
}

fn reset(target: &mut Target) -> Result<String, String> {
    let before = target.mail.resets();
    target.machine.reset(Cause::HostReset);
    match target.mail.wait_for_reset(before, PATIENCE) {
        true => Ok("the machine was reset; gdb forgets old values with: maint flush register-cache\n".into()),
        false => Err("the machine was not reset".into()),
    }
}

fn translate(target: &mut Target, address: &str, text: Option<&&str>) -> Result<String, String> {
    let (va, index) = (number(address)?, cpu(target, text)?);
    let context = target.context(index).map_err(|e| e.to_string())?;
    match Space::translate(&context, target.machine.memory().ram(), va) {
        Ok(t) => {
            let stretch = Stretch::of(&Mapping { va, translation: t });
            Ok(format!("{va:#x} is at {:#x}: {}\n", t.pa, stretch.attributes()))
        }
        Err(fault) => Ok(format!("{va:#x} is not mapped: {:?} fault at level {}\n", fault.kind, fault.level)),
    }
}

/// What is mapped alike, one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stretch {
    va: u64,
    pa: u64,
    size: u64,
    permissions: Permissions,
    attributes: u8,
    device: bool,
    non_global: bool,
    block: u8,
}

impl Stretch {
    fn of(mapping: &Mapping) -> Self {
        let t = &mapping.translation;
        Self {
            va: mapping.va,
            pa: t.pa,
            size: mapping.size(),
            permissions: t.permissions,
            attributes: t.attributes,
            device: t.device,
            non_global: t.non_global,
            block: t.block_size_log2,
        }
    }

    /// True if `next` continues this one, which then ends where `next` does.
    fn grows_by(&mut self, next: &Self) -> bool {
        let follows =
            Self { va: self.va + self.size, pa: self.pa.wrapping_add(self.size), size: next.size, ..*self };
        let grows = self.va.checked_add(self.size).is_some() && follows == *next;
        if grows {
            self.size += next.size;
        }
        grows
    }

    fn attributes(&self) -> String {
        let rights = |r, w, x| {
            let letter = |bit, letter| if self.permissions.contains(bit) { letter } else { '-' };
            [letter(r, 'r'), letter(w, 'w'), letter(x, 'x')].iter().collect::<String>()
        };
        let el1 = rights(Permissions::EL1_R, Permissions::EL1_W, Permissions::EL1_X);
        let el0 = rights(Permissions::EL0_R, Permissions::EL0_W, Permissions::EL0_X);
        let kind = if self.device { "device" } else { "normal" };
        let scope = if self.non_global { "this ASID" } else { "global" };
        let block = bytes(1 << self.block);
        format!("EL1 {el1}, EL0 {el0}, {kind} {:#04x}, {scope}, {block}", self.attributes)
    }
}

fn bytes(size: u64) -> String {
    match size.trailing_zeros() {
        0..10 => format!("{size} B"),
        10..20 => format!("{} KiB", size >> 10),
        20..30 => format!("{} MiB", size >> 20),
        _ => format!("{} GiB", size >> 30),
    }
}

fn map(target: &mut Target, from: &str, text: Option<&&str>) -> Result<String, String> {
    let (from, index) = (number(from)?, cpu(target, text)?);
    let context = target.context(index).map_err(|e| e.to_string())?;
    if !context.enabled() {
        return Ok(format!("CPU {index} translates no addresses: each is the physical one\n"));
    }
    Ok(listing(&context, target, from))
}

fn listing(context: &Context, target: &Target, from: u64) -> String {
    let tables = tables(target.machine.memory().ram());
    let mut mappings = Mappings::new(context, &tables, from);
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut cut = None;
    for steps in 0.. {
        let Some(found) = mappings.step() else { break };
        let Some(next) = found.as_ref().map(Stretch::of) else { continue };
        if stretches.last_mut().is_some_and(|last| last.grows_by(&next)) {
            continue;
        }
        if stretches.len() == MAX_LINES || steps > MAX_STEPS {
            cut = Some(next.va);
            break;
        }
        stretches.push(next);
    }
    let mut text = String::new();
    for s in &stretches {
        let last = s.va + (s.size - 1);
        let _ = writeln!(text, "{:016x}-{last:016x} at {:012x}: {}", s.va, s.pa, s.attributes());
    }
    if let Some(va) = cut {
        let _ = writeln!(text, "there is more: monitor info tlb {va:#x}");
    }
    if stretches.is_empty() {
        text.push_str("nothing is mapped\n");
    }
    text
}
