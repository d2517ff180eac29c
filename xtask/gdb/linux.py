"""Sessions with a Linux kernel of 4 CPUs, whose symbols come in the environment."""

import os
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import *

PREFIX = "DEBUG_SYMBOL_"
SYMBOLS = {k[len(PREFIX) :]: int(v, 16) for k, v in os.environ.items() if k.startswith(PREFIX)}
CPUS = 4
STEPS = int(os.environ.get("DEBUG_STEPS", "1000"))
IRQ = 1 << 7


def cpus():
    return sorted(t.num for t in gdb.selected_inferior().threads())


def el():
    return value("$cpsr") >> 2 & 3


def in_kernel(address):
    return SYMBOLS["_stext"] <= address < SYMBOLS["_etext"]


def everywhere():
    """PC, SP and X0 of every CPU, by its thread."""
    found = {}
    for t in cpus():
        run(f"thread {t}")
        found[t] = (pc(), value("$sp"), value("$x0"))
    return found


def stop_at(symbol, **options):
    return gdb.Breakpoint(f"*{SYMBOLS[symbol]:#x}", **options)


def an_idle_machine_is_interrupted():
    check("threads", cpus(), [1, 2, 3, 4])
    for _ in range(3):
        resume(interrupt_after=0.2)
        check("signal", stopped_by(), "SIGINT")
        for t, (where, _, _) in everywhere().items():
            check(f"CPU {t - 1} at {where:#x}", in_kernel(where), True)
    idle = SYMBOLS["cpu_do_idle"]
    waiting = [t for t, (where, _, _) in everywhere().items() if idle <= where < idle + 64]
    check(f"most wait: {waiting}", len(waiting) >= 2, True)


def physical_memory(address, length):
    run("maintenance packet Qqemu.PhyMemMode:1")
    run("maintenance flush dcache")
    found = bytes(gdb.selected_inferior().read_memory(address, length))
    run("maintenance packet Qqemu.PhyMemMode:0")
    run("maintenance flush dcache")
    return found


def memory_of_the_kernel_is_read():
    inferior = gdb.selected_inferior()
    banner = bytes(inferior.read_memory(SYMBOLS["linux_banner"], 19))
    check("banner", banner, b"Linux version 6.12.")
    text = run(f"monitor gva2gpa {SYMBOLS['linux_banner']:#x}")
    physical = int(text.split(": 0x")[1] if REFERENCE else text.split(" is at ")[1].split(":")[0], 16)
    check("banner by its physical address", physical_memory(physical, 19), banner)
    if REFERENCE:
        return
    check("the kernel's text is executable", "EL1 r-x" in run(f"monitor translate {SYMBOLS['_stext']:#x}"), True)
    text = run(f"monitor info tlb {SYMBOLS['_stext']:#x}")
    check("it is in the map: " + text[:200], f"{SYMBOLS['_stext'] & ~0xFFFF:016x}" in text, True)


def a_counter_is_watched():
    watch = gdb.Breakpoint(f"*(unsigned long*){SYMBOLS['jiffies']:#x}", type=gdb.BP_WATCHPOINT, wp_class=gdb.WP_WRITE)
    seen = []
    for _ in range(4):
        run("continue")
        check("stop", stopped_by(), [watch.number])
        check("in the kernel", in_kernel(pc()) and el() == 1, True)
        seen.append(value(f"*(unsigned long*){SYMBOLS['jiffies']:#x}"))
    check(f"jiffies rise: {seen}", all(a < b for a, b in zip(seen, seen[1:])), True)
    watch.delete()


def interrupt_vectors():
    """Where IRQ and FIQ go, from all levels."""
    return [value("$VBAR_EL1") + 0x80 * n for n in (1, 2, 5, 6, 9, 10, 13, 14)]


def pending():
    """An interrupt would be taken, were it not for the step."""
    if REFERENCE:
        return True  # It does not show ISR_EL1.
    return bool(value("$ISR_EL1") & IRQ) and not value("$cpsr") & IRQ


def steps_through_a_handler(symbol, count):
    """From an interrupt's handler, which takes no other one, and back to what was interrupted."""
    point = stop_at(symbol)
    run("continue")
    check("stop", (stopped_by(), pc(), el()), ([point.number], SYMBOLS[symbol], 1))
    point.delete()
    taken = interrupt_vectors()
    back, level = value("$ELR_EL1"), value("$SPSR_EL1") >> 2 & 3
    run("set scheduler-locking on")
    places, before = set(), pc()
    for n in range(count):
        run("stepi")
        now = pc()
        check(f"step {n} from {before:#x} is no interrupt", now in taken, False)
        places.add(now)
        before = now
    note(f"{count} steps, {len(places)} places")
    check("places", len(places) > min(100, count // 2), True)
    run("set scheduler-locking off")
    if now != back:
        point = gdb.Breakpoint(f"*{back:#x}")
        run("continue")
        check("return", (stopped_by(), pc(), el()), ([point.number], back, level))
        point.delete()


def steps_go_through_interrupts():
    steps_through_a_handler("el1h_64_irq_handler", STEPS)


def steps_go_through_interrupts_of_programs():
    steps_through_a_handler("el0t_64_irq_handler", STEPS // 5)


def other_cpus_run_during_steps():
    run("thread 2")
    start = {t: where for t, (where, _, _) in everywhere().items() if t != 2}
    # A step takes less time than the host needs to run all of them, if it has fewer CPUs.
    for _ in range(1000):
        run("thread 2")
        run("stepi")
        now = everywhere()
        if all(now[t][0] != where for t, where in start.items()):
            return
    raise AssertionError(f"CPUs stand still: {start}")


def a_busy_machine_is_interrupted():
    in_user_space = 0
    for _ in range(5):
        resume(interrupt_after=0.2)
        check("signal", stopped_by(), "SIGINT")
        for t in cpus():
            run(f"thread {t}")
            in_user_space += el() == 0
            if el() == 0:
                code = bytes(gdb.selected_inferior().read_memory(pc(), 4))
                check("an instruction", len(code), 4)
    check(f"{in_user_space} times in user space", in_user_space >= 5, True)


def only_the_chosen_cpu_runs():
    for chosen in (2, 4, 1):
        before = everywhere()
        run(f"thread {chosen}")
        run("set scheduler-locking on")
        resume(interrupt_after=0.1)
        check("signal", (stopped_by(), thread()), ("SIGINT", chosen))
        after = everywhere()
        for t in cpus():
            if t != chosen:
                check(f"CPU {t - 1}", after[t], before[t])
        run("set scheduler-locking off")


def each_cpu_meets_the_breakpoint():
    point = stop_at("el0t_64_irq_handler", type=gdb.BP_HARDWARE_BREAKPOINT)
    met = set()
    for _ in range(200):
        run("continue")
        check("stop", (stopped_by(), pc()), ([point.number], SYMBOLS["el0t_64_irq_handler"]))
        met.add(thread())
        if len(met) == CPUS:
            break
    check("CPUs", sorted(met), [1, 2, 3, 4])
    point.delete()


def steps_of_a_user_program():
    for _ in range(50):
        resume(interrupt_after=0.02)
        if el() == 0:
            break
    check("user space", el(), 0)
    run("set scheduler-locking on")
    taken = interrupt_vectors()
    waiting = 0
    for n in range(STEPS // 5):
        run("stepi")
        check(f"step {n} is no interrupt", pc() in taken, False)
        waiting += n % 8 == 0 and pending()
    note(f"{waiting} times an interrupt was pending")
    check("an interrupt was pending", waiting > 0, True)
    run("set scheduler-locking off")


def a_reset_leads_to_the_kernels_start():
    run("monitor reset")
    run("maintenance flush register-cache")
    the_kernel_is_stopped_at_its_start()


def the_kernel_is_stopped_at_its_start():
    """From before its first instruction."""
    point = stop_at("start_kernel")
    run("thread 1")
    check("threads", cpus(), [1, 2, 3, 4])
    check("MMU", value("$SCTLR_EL1") & 1, 0)
    if not REFERENCE:
        check("others", "CPU 3 (powered off)" in run("info threads"), True)
    run("continue")
    check("stop", (stopped_by(), thread(), pc()), ([point.number], 1, SYMBOLS["start_kernel"]))
    check("MMU", value("$SCTLR_EL1") & 1, 1)
    check("interrupts are masked", value("$cpsr") & IRQ, IRQ)
    point.delete()
    # The boot protocol's X0, which the kernel keeps there.
    check("device tree", physical_memory(value("$x21"), 4), bytes.fromhex("d00dfeed"))
    transcript("start_kernel")


def the_first_steps_are_the_kernels_own():
    """The others are off and nothing interrupts: the way is always the same."""
    run("set scheduler-locking on")
    way = []
    for n in range(STEPS // 5):
        run("stepi")
        way.append(pc())
    for n, where in enumerate(way):
        check(f"step {n}", SYMBOLS["_stext"] <= where < SYMBOLS["_einittext"], True)
        if "DEBUG_TRANSCRIPT" in os.environ:
            print(f"reg step {n} of start_kernel pc = {where:#x}")
    note(f"{len(way)} steps of start_kernel, {len(set(way))} places")
    run("set scheduler-locking off")


def each_other_cpu_is_stopped_at_its_start():
    point = stop_at("secondary_start_kernel")
    for expected in range(2, CPUS + 1):
        run("continue")
        check("stop", (stopped_by(), thread(), pc()), ([point.number], expected, SYMBOLS["secondary_start_kernel"]))
        check("interrupts are masked", value("$cpsr") & IRQ, IRQ)
        transcript(f"CPU {expected - 1}")
    point.delete()


PHASES = {
    "boot": [
        the_kernel_is_stopped_at_its_start,
        the_first_steps_are_the_kernels_own,
        each_other_cpu_is_stopped_at_its_start,
        a_counter_is_watched,
        steps_go_through_interrupts,
        only_the_chosen_cpu_runs,
    ],
    "idle": [
        an_idle_machine_is_interrupted,
        memory_of_the_kernel_is_read,
        a_counter_is_watched,
        steps_go_through_interrupts,
    ],
    "busy": [
        a_busy_machine_is_interrupted,
        only_the_chosen_cpu_runs,
        each_cpu_meets_the_breakpoint,
        steps_go_through_interrupts_of_programs,
        steps_of_a_user_program,
        other_cpus_run_during_steps,
    ],
    "reset": [a_reset_leads_to_the_kernels_start],
}
session(PHASES[os.environ["DEBUG_PHASE"]])
