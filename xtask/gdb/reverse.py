"""A session with a deterministic machine of 4 CPUs that boots Linux: forwards, and backwards again."""

import os
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import *

PREFIX = "DEBUG_SYMBOL_"
SYMBOLS = {k[len(PREFIX) :]: int(v, 16) for k, v in os.environ.items() if k.startswith(PREFIX)}
STEPS = int(os.environ.get("DEBUG_STEPS", "40"))


def registers():
    """Everything that a step can change."""
    names = [f"x{n}" for n in range(31)] + ["sp", "pc", "cpsr"]
    return [value("$" + name) for name in names]


def stop_at(symbol, offset=0, **options):
    return gdb.Breakpoint(f"*{SYMBOLS[symbol] + offset:#x}", **options)


def steps_are_taken_back():
    point = stop_at("start_kernel")
    run("continue")
    check("stop", (stopped_by(), pc()), ([point.number], SYMBOLS["start_kernel"]))
    point.delete()
    path = [registers()]
    for _ in range(STEPS):
        run("stepi")
        path.append(registers())
    for n in range(STEPS - 1, -1, -1):
        if n % 8 and n > 4:
            continue
        here = path.index(registers())
        run(f"reverse-stepi {here - n}")
        check(f"registers {here - n} steps back", registers(), path[n])
    for n in range(1, STEPS + 1):
        run("stepi")
        check(f"registers at step {n} again", registers(), path[n])


def an_interrupt_is_taken_back():
    # The first instruction of the vector for interrupts of EL1 itself.
    vector = stop_at("vectors", 0x280, type=gdb.BP_HARDWARE_BREAKPOINT)
    run("continue")
    check("stop", (stopped_by(), pc()), ([vector.number], SYMBOLS["vectors"] + 0x280))
    taken, interrupted = registers(), value("$ELR_EL1")
    run("stepi")
    after = registers()
    run("reverse-stepi")
    check("back at the vector", registers(), taken)
    run("reverse-stepi")
    before = registers()
    check("the interrupt is not taken yet", before != taken and pc() != SYMBOLS["vectors"] + 0x280, True)
    check("interrupts are not masked", value("$cpsr") >> 7 & 1, 0)
    check("where it is taken", pc(), interrupted)
    run("stepi")
    check("it is taken again", registers(), taken)
    run("stepi")
    check("and handled", registers(), after)
    vector.delete()


def a_counter_goes_back():
    address = f"*(unsigned long*){SYMBOLS['jiffies']:#x}"
    watch = gdb.Breakpoint(address, type=gdb.BP_WATCHPOINT, wp_class=gdb.WP_WRITE)
    seen = []
    for _ in range(4):
        run("continue")
        check("stop", stopped_by(), [watch.number])
        seen.append((value(address), thread(), pc()))
    check(f"it rises: {seen}", all(a[0] < b[0] for a, b in zip(seen, seen[1:])), True)
    for n in (2, 1, 0):
        run("reverse-continue")
        check("stop", stopped_by(), [watch.number])
        note(f"back at {value(address)}: {seen[n][0]} then")
    watch.delete()


def the_beginning_is_the_end_of_the_way_back():
    run("reverse-continue")
    check("stop", stopped_by() not in ([], "SIGINT"), True)
    check("registers at power-on", registers()[1:31], [0] * 30)
    check("the MMU", value("$SCTLR_EL1") & 1, 0)


def and_on_to_the_present():
    point = stop_at("start_kernel")
    run("continue")
    check("stop", (stopped_by(), pc()), ([point.number], SYMBOLS["start_kernel"]))
    point.delete()
    run("detach")


session(
    [
        steps_are_taken_back,
        an_interrupt_is_taken_back,
        a_counter_goes_back,
        the_beginning_is_the_end_of_the_way_back,
        and_on_to_the_present,
    ]
)
