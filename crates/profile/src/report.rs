//! From addresses to names, and to what people and other tools read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use armlet_engine::samples::{Samples, Stack};

use crate::{Symbol, Symbols, flame};

/// What is shown where the accelerator itself was at work.
const ACCELERATOR: &str = "[armlet]";
/// Addresses without names are put together by this many low bits.
const PAGE_BITS: u32 = 12;
/// Rows of the table.
const ROWS: usize = 50;
/// Linux's label at its exception vectors; a kernel whose address is randomised has it elsewhere than its symbols tell.
const VECTORS: &str = "vectors";

/// What addresses are called: those of programs, and those of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The kernel's own symbols.
    pub kernel: Symbols,
    /// Files that were given; they come first.
    pub files: Vec<Symbols>,
}

impl Names {
    /// The function that `address` is in; `slide` is how far the kernel is from where its symbols say.
    fn find(&self, address: u64, slide: u64) -> Option<&Symbol> {
        let linked = if address >> 63 == 0 { address } else { address.wrapping_sub(slide) };
        self.files.iter().find_map(|s| s.find(linked)).or_else(|| self.kernel.find(linked))
    }

    /// What to call `address`: its function, or its page.
    pub fn name(&self, address: u64, slide: u64) -> String {
        match self.find(address, slide) {
            Some(symbol) => symbol.name.clone(),
            None => format!("{:#x}", address >> PAGE_BITS << PAGE_BITS),
        }
    }

    /// Where the symbols say that the kernel's exception vectors are.
    pub fn vectors(&self) -> Option<u64> {
        self.files.iter().chain([&self.kernel]).find_map(|s| s.address_of(VECTORS))
    }

    /// How far the kernel is from where its symbols say, if its exception vectors are at `vectors`.
    fn slide(&self, vectors: u64) -> u64 {
        match self.vectors() {
            Some(linked) if vectors != 0 => vectors.wrapping_sub(linked),
            _ => 0,
        }
    }
}

/// Stacks by name, each from the outermost function to the innermost, and how many periods were spent in it.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    stacks: BTreeMap<Vec<String>, u64>,
    period: Duration,
}

impl Profile {
    /// Gives `samples` names.
    pub fn new(samples: &Samples, names: &Names) -> Self {
        let (found, vectors) = samples.take();
        let slide = names.slide(vectors);
        let mut stacks = BTreeMap::new();
        for (stack, times) in found {
            *stacks.entry(frames(&stack, names, slide)).or_default() += times;
        }
        Self { stacks, period: samples.period() }
    }

    /// Periods in all.
    pub fn total(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// One line for each stack, `outermost;…;innermost periods`, as tools for flame graphs read it.
    pub fn folded(&self) -> String {
        let mut text = String::new();
        for (stack, times) in &self.stacks {
            let _ = writeln!(text, "{} {times}", stack.join(";"));
        }
        text
    }

    /// A flame graph, as SVG that needs nothing else.
    pub fn flame_graph(&self, title: &str) -> String {
        flame::draw(&self.stacks, title)
    }

    /// A table of the functions in which most time was spent.
    pub fn table(&self) -> String {
        let total = self.total().max(1);
        let mut own: HashMap<&str, (u64, u64)> = HashMap::new();
        for (stack, times) in &self.stacks {
            let different: HashSet<&str> = stack.iter().map(String::as_str).collect();
            different.into_iter().for_each(|name| own.entry(name).or_default().1 += times);
            if let Some(innermost) = stack.last() {
                own.entry(innermost).or_default().0 += times;
            }
        }
        let mut rows: Vec<_> = own.into_iter().collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let seconds = self.period.as_secs_f64() * self.total() as f64;
        let mut text = format!("{} samples, {seconds:.2} s of CPUs' time on the host\n", self.total());
        let share = |n: u64| 100.0 * n as f64 / total as f64;
        let mut part = |title: &str, rows: &[(&str, (u64, u64))]| {
            let _ = writeln!(text, "\n{title}\n\n    own    with callees  function");
            for (name, (own, all)) in rows.iter().take(ROWS) {
                let _ = writeln!(text, "{:6.2} %      {:6.2} %  {name}", share(*own), share(*all));
            }
        };
        part("Most time of their own", &rows);
        rows.sort_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| a.0.cmp(b.0)));
        part("Most time with what they call", &rows);
        text
    }
}

/// The names of a stack, the outermost first.
fn frames(stack: &Stack, names: &Names, slide: u64) -> Vec<String> {
    let mut addresses = vec![stack.pc];
    // A return address may be the first one behind a function that does not return.
    let call = |address: u64| address.wrapping_sub(4);
    let own = names.find(stack.pc, slide).map(|s| s.address);
    let back = names.find(call(stack.lr), slide).map(|s| s.address);
    // A function that has made no frame record has its caller in the link register only. One that has called others
    // has an address of its own there; one that has made a record has the same there and in the record.
    let known = stack.callers.first() == Some(&stack.lr);
    if stack.lr != 0 && !known && back.is_some() && back != own {
        addresses.push(call(stack.lr));
    }
    addresses.extend(stack.callers.iter().map(|a| call(*a)));
    let mut frames: Vec<String> = addresses.into_iter().map(|a| names.name(a, slide)).collect();
    frames.push(match stack.el {
        0 => format!("program (ASID {})", stack.asid),
        el => format!("EL{el}"),
    });
    frames.reverse();
    if stack.accelerator {
        frames.push(ACCELERATOR.into());
    }
    frames.iter_mut().for_each(|f| *f = f.replace(';', ":"));
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "ffff800080010000 T vectors\nffff800080010800 t caller\nffff800080010900 t middle\n\
                       ffff800080010a00 t leaf\nffff800080010b00 t other\n";
    const BASE: u64 = 0xffff_8000_8001_0000;

    fn names() -> Names {
        Names { kernel: Symbols::of_map(MAP), files: Vec::new() }
    }

    fn stack(pc: u64, lr: u64, callers: &[u64]) -> Stack {
        Stack { el: 1, asid: 0, pc, lr, callers: callers.to_vec(), accelerator: false }
    }

    fn folded(stacks: &[(Stack, u64)], vectors: u64) -> String {
        let samples = Samples::new(Duration::from_millis(1));
        for (stack, times) in stacks {
            samples.add(stack.clone(), *times, vectors);
        }
        Profile::new(&samples, &names()).folded()
    }

    #[test]
    fn a_leaf_without_a_frame_is_called_by_who_is_in_the_link_register() {
        let s = stack(BASE + 0xa10, BASE + 0x910, &[BASE + 0x810]);
        assert_eq!(folded(&[(s, 3)], BASE), "EL1;caller;middle;leaf 3\n");
    }

    #[test]
    fn a_link_register_that_is_known_or_used_up_adds_no_caller() {
        let saved = stack(BASE + 0x910, BASE + 0x810, &[BASE + 0x810]);
        let used = stack(BASE + 0x920, BASE + 0x918, &[BASE + 0x810]);
        assert_eq!(folded(&[(saved, 1), (used, 2)], BASE), "EL1;caller;middle 3\n");
    }

    #[test]
    fn a_kernel_that_is_elsewhere_is_found_by_its_vectors() {
        let far = 0x1234_0000;
        let s = stack(BASE + far + 0xa10, 0, &[BASE + far + 0x904]);
        assert_eq!(folded(&[(s, 1)], BASE + far), "EL1;middle;leaf 1\n");
    }

    #[test]
    fn a_return_address_belongs_to_the_function_that_called() {
        let s = stack(BASE + 0xa10, 0, &[BASE + 0xb00]);
        assert_eq!(
            folded(&[(s, 1)], BASE),
            "EL1;leaf;leaf 1\n",
            "the address behind leaf's last instruction"
        );
    }

    #[test]
    fn addresses_without_names_go_by_their_page_and_programs_by_their_asid() {
        let s = Stack { el: 0, asid: 7, pc: 0x40_1234, lr: 0, callers: vec![], accelerator: true };
        assert_eq!(folded(&[(s, 2)], BASE), "program (ASID 7);0x401000;[armlet] 2\n");
    }

    #[test]
    fn the_table_tells_own_time_and_time_with_callees_once_for_recursions() {
        let samples = Samples::new(Duration::from_millis(10));
        samples.add(stack(BASE + 0xa10, 0, &[BASE + 0x910, BASE + 0x914]), 3, 0);
        samples.add(stack(BASE + 0x910, 0, &[]), 1, 0);
        let table = Profile::new(&samples, &names()).table();
        assert!(table.starts_with("4 samples, 0.04 s"), "{table}");
        assert!(table.contains(" 75.00 %       75.00 %  leaf"), "{table}");
        assert!(table.contains(" 25.00 %      100.00 %  middle"), "{table}");
    }
}
