"""What the sessions with gdb share: checks that end gdb with status 1, and short ways to what is looked at."""

import os
import sys
import time
import traceback

import gdb

# Another implementation of the protocol is at the other end: what it does differently is told, and not a failure.
REFERENCE = "DEBUG_REFERENCE" in os.environ
# The guest is executed by KVM: it has no semihosting, and watchpoints are the CPU's, which the reference emulates.
KVM = "DEBUG_KVM" in os.environ


def connect():
    for setting in [
        "pagination off",
        "confirm off",
        "remotetimeout 20",
        "tcp connect-timeout 20",
        "style enabled off",
        "suppress-cli-notifications on",
        "can-use-hw-watchpoints 256",
    ]:
        gdb.execute("set " + setting)
    deadline = time.monotonic() + 20
    while True:
        try:
            return run("target remote " + os.environ["DEBUG_ADDRESS"])
        except gdb.error:
            # It does not listen yet.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def run(command):
    return gdb.execute(command, to_string=True)


def value(expression):
    """As an unsigned number of 64 bits."""
    return int(gdb.parse_and_eval(expression)) & 0xFFFF_FFFF_FFFF_FFFF


def pc():
    return value("$pc")


def at(symbol):
    return value("(long)&" + symbol)


def transcript(where, flags=0xFFFF_FFFF):
    """For a comparison: everything that gdb shows of the registers; of CPSR what is in `flags`."""
    if "DEBUG_TRANSCRIPT" not in os.environ:
        return
    for n in range(31):
        print(f"reg {where} x{n} = {value(f'$x{n}'):#x}")
    for name in ["sp", "pc", "fpsr", "fpcr"]:
        print(f"reg {where} {name} = {value('$' + name):#x}")
    print(f"reg {where} cpsr = {value('$cpsr') & flags:#x}")
    for n in range(32):
        print(f"reg {where} v{n} = {[value(f'$v{n}.d.u[{i}]') for i in (0, 1)]}")
    for register in gdb.newest_frame().architecture().registers():
        if register.name[:1].isupper():
            print(f"reg {where} SYS {register.name} = {value('$' + register.name):#x}")


def thread():
    return gdb.selected_thread().ptid[1]


def check(what, got, wanted):
    shown = lambda v: hex(v) if isinstance(v, int) else repr(v)
    if got == wanted:
        return
    text = f"{what}: {shown(got)}, wanted {shown(wanted)}"
    if not REFERENCE:
        raise AssertionError(text)
    print("the reference differs: " + text)


def note(text):
    print("· " + text)
    sys.stdout.flush()


last_stop = None


def _note_stop(event):
    global last_stop
    last_stop = event


gdb.events.stop.connect(_note_stop)


def stopped_by():
    """Breakpoint numbers of the last stop, or its signal."""
    if isinstance(last_stop, gdb.BreakpointEvent):
        return [b.number for b in last_stop.breakpoints]
    if isinstance(last_stop, gdb.SignalEvent):
        return last_stop.stop_signal
    return None


def resume(command="continue", interrupt_after=None):
    """Lets the program go, and waits for its stop; after some seconds it is interrupted."""
    if interrupt_after is not None:
        import threading

        # As Ctrl-C does: gdb is waiting for the stop.
        timer = threading.Timer(interrupt_after, lambda: os.kill(os.getpid(), 2))
        timer.start()
    return run(command)


def session(steps):
    """Takes the steps one after the other and ends gdb, with status 1 if one of them fails."""
    try:
        connect()
        for step in steps:
            start = time.monotonic()
            step()
            print(f"ok {step.__name__} ({time.monotonic() - start:.2f} s)")
            sys.stdout.flush()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        print("FAILED")
        sys.stdout.flush()
        run("quit 1")
    print("all is well")
    sys.stdout.flush()
    run("quit 0")
