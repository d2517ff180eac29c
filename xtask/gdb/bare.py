"""A session with guests/tests/gdb.c, from its first instruction to its end."""

import os
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import *

MASK = 0xFFFF_FFFF_FFFF_FFFF


def begins_before_the_first_instruction():
    check("pc", pc(), at("_start"))
    check("threads", sorted(t.num for t in gdb.selected_inferior().threads()), [1, 2])
    if not REFERENCE:
        texts = run("info threads")
        for text in ["CPU 0 (EL1h)", "CPU 1 (powered off)"]:
            check(text, text in texts, True)
        text = run("monitor status")
        check("time in " + text, "guest time 0.000000" in text, True)


def breakpoints_stop_before_their_instruction():
    soft = gdb.Breakpoint("known_here")
    hard = gdb.Breakpoint("*step_branch", type=gdb.BP_HARDWARE_BREAKPOINT)
    run("continue")
    check("stop", (stopped_by(), pc()), ([soft.number], at("known_here")))
    transcript("known_here")
    registers_have_the_known_values()
    registers_are_written()
    run("continue")
    check("stop", (stopped_by(), pc(), value("$x0")), ([hard.number], at("step_branch"), 1))
    soft.delete()
    hard.delete()


def registers_have_the_known_values():
    for n in range(31):
        check(f"x{n}", value(f"$x{n}"), n << 48 | 0x0101 * (n + 1) & 0xFFFF)
    for n in range(32):
        check(f"v{n}", [value(f"$v{n}.d.u[{i}]") for i in (0, 1)], [0x1000 + n, 0x2000 + n])
    check("fpcr, fpsr", (value("$fpcr"), value("$fpsr")), (0x1000000, 0x10))
    check("cpsr", value("$cpsr"), 0x600003C5)
    check("flags", str(gdb.parse_and_eval("$cpsr")), "[ SP EL=1 F I A D BTYPE=0 C Z ]")
    check("sp", value("$sp") % 16, 0)
    check("SCTLR_EL1.M", value("$SCTLR_EL1") & 1, 1)
    check("VBAR_EL1", value("$VBAR_EL1"), at("vectors"))
    check("TCR_EL1", value("$TCR_EL1"), 0x2B5103510)


def registers_are_written():
    for name, new in [("x3", 0xFEDCBA9876543210), ("x30", 77), ("v7.d.u[1]", 5), ("v31.d.u[0]", MASK), ("fpsr", 1)]:
        old = value("$" + name)
        run(f"set ${name} = {new}")
        run("maintenance flush register-cache")
        check(name, value("$" + name), new)
        run(f"set ${name} = {old}")
        check(name, value("$" + name), old)
    if not REFERENCE:
        run("set $TPIDR_EL1 = 0x1234")
        run("maintenance flush register-cache")
        check("TPIDR_EL1", value("$TPIDR_EL1"), 0x1234)
        for refused in ["set $ID_AA64PFR0_EL1 = 0", "set $MPIDR_EL1 = 0", "set $cpsr = 0x1f"]:
            try:
                run(refused)
            except gdb.error:
                continue
            raise AssertionError(refused + " was taken")


def steps_are_single_instructions():
    run("set scheduler-locking on")
    vectors = at("vectors")
    path = ["step_branch+4"] + 3 * ["step_branch+8", "step_branch+4"]
    path = [at(p.split("+")[0]) + int(p.split("+")[1]) for p in path[:-1]] + [at("step_svc"), vectors + 0x200]
    for n, wanted in enumerate(path):
        run("stepi")
        check("step", pc(), wanted)
        # On entry to an exception, QEMU clears the flags, which the architecture leaves as they are.
        transcript(f"step {n} to {wanted:#x}", 0xFFF_FFFF if wanted == vectors + 0x200 else 0xFFFF_FFFF)
    check("ELR_EL1", value("$ELR_EL1"), at("step_svc") + 4)
    check("ESR_EL1", value("$ESR_EL1"), 0x15 << 26 | 1 << 25 | 7)
    # Through the handler and back, by the exception return.
    for _ in range(400):
        run("stepi")
        if pc() == at("step_svc") + 4:
            break
    check("back", pc(), at("step_svc") + 4)
    for wanted in [8, 12, 16]:
        run("stepi")
        check("step", pc(), at("step_svc") + wanted)
        transcript(f"step_svc + {wanted}")
    run("set scheduler-locking off")
    run("stepi")
    check("step", (pc(), value("$x2")), (at("step_back"), 4))


def watchpoints_stop_at_the_access():
    gdb.Breakpoint("accesses", temporary=True)
    run("continue")
    base = at("watched")
    kinds = [("watch", gdb.WP_WRITE), ("rwatch", gdb.WP_READ), ("awatch", gdb.WP_ACCESS)]
    # The place, the bytes, and the instructions that touch them, by kind.
    for offset, size, hits in [
        (2, 1, {"watch": ["store_word"], "rwatch": [], "awatch": ["store_word"]}),
        (12, 4, {"watch": [], "rwatch": [], "awatch": []}),
        (10, 2, {"watch": [], "rwatch": ["load_word"], "awatch": ["load_word"]}),
        (16, 8, {"watch": ["store_byte"], "rwatch": [], "awatch": ["store_byte"]}),
        (47, 1, {"watch": [], "rwatch": ["load_pair"], "awatch": ["load_pair"]}),
        (56, 8, {"watch": ["add_atomic"], "rwatch": ["add_atomic"], "awatch": ["add_atomic"]}),
    ]:
        kind_type = {1: "char", 2: "short", 4: "int", 8: "long"}[size]
        for name, kind in kinds:
            run("set $pc = accesses")
            run(f"set $x0 = {base}")
            end = gdb.Breakpoint("*accesses_end")
            point = gdb.Breakpoint(f"*(unsigned {kind_type}*){base + offset}", type=gdb.BP_WATCHPOINT, wp_class=kind)
            seen = []
            for n in range(3):
                # So that what is written changes.
                run(f"set var *(unsigned long*){base + offset // 8 * 8} = {n} * 0x0303030303030303 + 0x0101010101010101")
                run("continue")
                if stopped_by() == [end.number]:
                    break
                check("stop", stopped_by(), [point.number])
                # gdb has stepped over the access to see the new value.
                seen.append(pc() - 4)
            wanted = [at(h) for h in hits[name]]
            if name == "rwatch" and (REFERENCE or KVM) and offset == 56:
                wanted = seen
            check(f"{name} of {size} bytes at {offset}", seen, wanted)
            point.delete()
            end.delete()
    run(f"set var *(unsigned long*){base} = 0x55")
    run(f"set var *(unsigned long*){base + 56} = 0x55")


def memory_by_virtual_and_physical_address():
    inferior = gdb.selected_inferior()
    hidden, seen = at("hidden"), 0x80_0000_0000
    wanted = bytes(i * 7 & 0xFF for i in range(4096))
    check("by the address of the program", bytes(inferior.read_memory(hidden, 4096)), wanted)
    check("by the other address", bytes(inferior.read_memory(seen, 4096)), wanted)
    inferior.write_memory(seen + 100, b"changed")
    check("changed", bytes(inferior.read_memory(hidden + 100, 7)), b"changed")
    refused = [0x7000_0000_0000, MASK - 7]
    if not REFERENCE:
        refused += [0x0900_0000, 0x80_0000_1000 - 4]  # A device: looking could change it.
    for address in refused:
        try:
            inferior.read_memory(address, 16)
        except gdb.MemoryError:
            continue
        raise AssertionError(f"there is no memory at {address:#x}")
    run("maintenance packet Qqemu.PhyMemMode:1")
    check("mode", 'received: "1"' in run("maintenance packet qqemu.PhyMemMode"), True)
    run("maintenance flush dcache")
    check("physical", bytes(inferior.read_memory(hidden + 100, 7)), b"changed")
    try:
        inferior.read_memory(seen, 16)
        check("a physical address without memory", "is read", "is refused")
    except gdb.MemoryError:
        pass
    inferior.write_memory(hidden + 100, wanted[100:107])
    run("maintenance packet Qqemu.PhyMemMode:0")
    run("maintenance flush dcache")
    check("virtual again", bytes(inferior.read_memory(seen, 4096)), wanted)


def changed_code_is_what_executes():
    gdb.Breakpoint("between", temporary=True)
    run("continue")
    check("result", value("first_result"), 1)
    run("set var *(unsigned int*)patched = 0xd2800540")  # mov x0, #42
    gdb.Breakpoint("spin", temporary=True)
    run("continue")
    check("result", value("second_result"), 42)


def monitor_tells():
    if REFERENCE:
        return
    for command, parts in [
        ("help", ["translate"]),
        ("status", ["stopped", "* CPU 0"]),
        ("translate 0x8000000123", [hex(at("hidden") + 0x123), "EL1 rwx"]),
        ("translate 0x8000001000 1", ["0x9000000", "device"]),
        ("translate 0x700000000000", ["not mapped", "level 0"]),
        ("info tlb", ["0000008000000000-0000008000000fff", "1 GiB"]),
        ("info tlb 0x10000000000", ["0000010040000000"]),
        ("translate zero", ["no number"]),
        ("translate 0 7", ["no CPU"]),
        ("nonsense", ["monitor help"]),
    ]:
        text = run("monitor " + command)
        for part in parts:
            check(f"{command}: {part} in {text}", part in text, True)


def interrupts_do_not_carry_steps_away():
    run("set var linger = 1")
    resume(interrupt_after=0.3)
    check("signal", stopped_by(), "SIGINT")
    run("thread 1")
    function = gdb.Breakpoint("tick")
    run("continue")
    check("stop", stopped_by(), [function.number])
    function.delete()
    ticks, spins = value("ticks"), value("spins")
    # Back to the loop; from there on every step stays in it, whatever is pending.
    block = gdb.block_for_pc(at("spin"))
    inside = lambda: block.start <= pc() < block.end
    for _ in range(500):
        if inside():
            break
        run("stepi")
    check("inside", inside(), True)
    run("set scheduler-locking on")
    for _ in range(200):
        run("stepi")
        check("inside", inside(), True)
    check("spins", value("spins") > spins, True)
    run("set scheduler-locking off")
    stop = gdb.Breakpoint("tick")
    run("continue")
    check("an interrupt", stopped_by(), [stop.number])
    stop.delete()


def only_the_chosen_cpu_runs():
    run("thread 1")
    frozen = value("other_counter")
    run("set scheduler-locking on")
    point = gdb.Breakpoint("tick")
    for _ in range(5):
        run("continue")
        check("stop", (stopped_by(), thread()), ([point.number], 1))
    check("the other CPU has stood still", value("other_counter"), frozen)
    run("thread 2")
    ticks = value("ticks")
    resume(interrupt_after=0.2)
    check("signal", (stopped_by(), thread()), ("SIGINT", 2))
    check("the other CPU has run", value("other_counter") > frozen, True)
    check("this one has not", value("ticks"), ticks)
    point.delete()
    run("set scheduler-locking off")
    watch = gdb.Breakpoint("other_counter", type=gdb.BP_WATCHPOINT, wp_class=gdb.WP_WRITE)
    run("thread 1")
    for _ in range(3):
        before = value("other_counter")
        run("continue")
        check("watchpoint of the other CPU", (stopped_by(), thread()), ([watch.number], 2))
        check("other_counter", value("other_counter"), before + 1)
    watch.delete()


def conditions_and_many_breakpoints():
    run("thread 1")
    point = gdb.Breakpoint("tick")
    ticks = value("ticks")
    point.condition = f"ticks >= {ticks + 5}"
    many = [gdb.Breakpoint(f"*{0x4100_0000 + 4 * i}") for i in range(200)]
    run("continue")
    check("stop", (stopped_by(), value("ticks")), ([point.number], ticks + 5))
    point.delete()
    [b.delete() for b in many]


def ends():
    run("set var linger = 0")
    run("set var exit_status = 3")
    if KVM:
        gdb.Breakpoint("guest_exit", temporary=True)
        run("continue")
        check("the end", (pc(), value("$x0")), (at("guest_exit"), 3))
        run("detach")
        return
    try:
        run("continue")
    except gdb.error as error:
        check("the end", str(error), "is told")
    check("threads at the end", len(gdb.selected_inferior().threads()), 0)


session(
    [
        begins_before_the_first_instruction,
        breakpoints_stop_before_their_instruction,
        steps_are_single_instructions,
        watchpoints_stop_at_the_access,
        memory_by_virtual_and_physical_address,
        changed_code_is_what_executes,
        monitor_tells,
        interrupts_do_not_carry_steps_away,
        only_the_chosen_cpu_runs,
        conditions_and_many_breakpoints,
        ends,
    ]
)
