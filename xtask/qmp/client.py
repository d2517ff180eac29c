"""Drives machines through the public QMP client `qemu.qmp`: client.py STAGE SOCKET [ARGUMENT]

Each stage is a short conversation that checks itself; the exit status is 0 if all was as it should be. Stages that
wait for something print `ready` when they do.
"""

import asyncio
import random
import sys
import time
from contextlib import asynccontextmanager

from qemu.qmp import ExecuteError, QMPClient

LIMIT = 60


class Wrong(Exception):
    """Something was not as it should be."""


def check(holds, what):
    """Gives up with `what` unless it holds."""
    if not holds:
        raise Wrong(what)


@asynccontextmanager
async def connected(path):
    """A connection that has negotiated; a server that closes it first is no error."""
    client = QMPClient("armlet")
    await client.connect(path)
    try:
        yield client
    finally:
        try:
            await client.disconnect()
        except EOFError:
            pass


async def event(listener, name):
    """The data of the next event, which must be `name`."""
    got = await asyncio.wait_for(listener.get(), LIMIT)
    check(got["event"] == name, f"{got} is not {name}")
    stamp = got["timestamp"]
    check(stamp["seconds"] > 1_700_000_000 and 0 <= stamp["microseconds"] < 1_000_000, f"time of {got}")
    return got.get("data")


async def refused(client, command, arguments=None):
    """Class and description of the error that a command is answered by."""
    try:
        answer = await client.execute(command, arguments)
    except ExecuteError as error:
        return error.error_class, str(error)
    raise Wrong(f"{command} was not refused, but gave {answer}")


async def look(path, cpus):
    """All that can be asked for without changing anything."""
    async with connected(path) as client:
        version = await client.execute("query-version")
        check(version["package"].startswith("armlet "), version)
        check(await client.execute("query-status") == {"status": "running", "running": True}, "status")
        found = await client.execute("query-cpus-fast")
        check([cpu["cpu-index"] for cpu in found] == list(range(int(cpus))), found)
        names = {entry["name"] for entry in await client.execute("query-commands")}
        schema = await client.execute("query-qmp-schema")
        described = {entry["name"] for entry in schema if entry["meta-type"] == "command"}
        check(names == described, names ^ described)
        error = await refused(client, "no-such-command")
        check(error == ("CommandNotFound", "The command no-such-command has not been found"), error)
        error = await refused(client, "stop", {"now": True})
        check(error == ("GenericError", "Parameter 'now' is unexpected"), error)


async def stop(path, _):
    """The machine stops."""
    async with connected(path) as client:
        with client.listener() as events:
            await client.execute("stop")
            check(await event(events, "STOP") is None, "STOP has no data")
        check(await client.execute("query-status") == {"status": "paused", "running": False}, "status")


async def cont(path, _):
    """The machine goes on; another client hears it too."""
    async with connected(path) as client, connected(path) as other:
        with other.listener() as events:
            await client.execute("cont")
            check(await event(events, "RESUME") is None, "RESUME has no data")
        check(await other.execute("query-status") == {"status": "running", "running": True}, "status")


async def reset(path, _):
    """The machine starts again."""
    async with connected(path) as client:
        with client.listener() as events:
            await client.execute("system_reset")
            data = await event(events, "RESET")
        check(data == {"guest": False, "reason": "host-qmp-system-reset"}, data)


async def powerdown(path, _):
    """The power key is pressed."""
    async with connected(path) as client:
        with client.listener() as events:
            await client.execute("system_powerdown")
            await event(events, "POWERDOWN")


async def quit(path, _):
    """The machine ends."""
    async with connected(path) as client:
        with client.listener() as events:
            await client.execute("quit")
            data = await event(events, "SHUTDOWN")
        check(data == {"guest": False, "reason": "host-qmp-quit"}, data)


async def place(client, core):
    """What is known of the place for a CPU."""
    places = await client.execute("query-hotpluggable-cpus")
    return next(place for place in places if place["props"]["core-id"] == int(core))


async def plug(path, core):
    """A CPU is added, by what the server says of its place."""
    async with connected(path) as client:
        free = await place(client, core)
        check("qom-path" not in free, free)
        arguments = {"driver": free["type"], "id": f"cpu-{core}", **free["props"]}
        await client.execute("device_add", arguments)
        check((await place(client, core))["qom-path"] == f"/machine/peripheral/cpu-{core}", "path")
        found = await client.execute("query-cpus-fast")
        check(int(core) in [cpu["cpu-index"] for cpu in found], found)
        error = await refused(client, "device_add", arguments)
        check(error == ("GenericError", f"CPU[{core}] exists"), error)


async def keep(path, core):
    """A CPU that the guest uses cannot be removed."""
    async with connected(path) as client:
        kind, text = await refused(client, "device_del", {"id": f"cpu-{core}"})
        check(kind == "GenericError" and f"cpu{core}/online" in text, text)


async def unplug(path, core):
    """A CPU is removed."""
    async with connected(path) as client:
        with client.listener() as events:
            await client.execute("device_del", {"id": f"cpu-{core}"})
            data = await event(events, "DEVICE_DELETED")
        check(data == {"device": f"cpu-{core}", "path": f"/machine/peripheral/cpu-{core}"}, data)
        check("qom-path" not in await place(client, core), "it is gone")
        error = await refused(client, "device_del", {"id": f"cpu-{core}"})
        check(error == ("DeviceNotFound", f"Device 'cpu-{core}' not found"), error)


async def storm(path, argument):
    """Several clients at once do what they like, for so many seconds, chosen by a seed."""
    seconds, seed = map(int, argument.split(":"))
    allowed = ("overtaken by a resume", "exists", "not found", "offline in the guest", "boots the machine")

    async def client(number):
        chance = random.Random(seed * 100 + number)
        end = time.monotonic() + seconds
        async with connected(path) as machine:
            kind = (await place(machine, 0))["type"]
            commands = {"stop": 10, "cont": 14, "query-status": 5, "query-cpus-fast": 5, "system_powerdown": 1,
                        "device_add": 5, "device_del": 5, "system_reset": 0.15 if number == 0 else 0}
            while time.monotonic() < end:
                command = chance.choices(list(commands), list(commands.values()))[0]
                arguments = {}
                if command == "device_add":
                    arguments = {"driver": kind, "core-id": chance.randrange(4, 6)}
                elif command == "device_del":
                    places = await machine.execute("query-hotpluggable-cpus")
                    arguments = {"id": chance.choice(places).get("qom-path", "none")}
                try:
                    await asyncio.wait_for(machine.execute(command, arguments), LIMIT)
                except ExecuteError as error:
                    check(any(text in str(error) for text in allowed), f"{command}: {error}")
                await asyncio.sleep(chance.random() * 0.05)

    await asyncio.gather(*(client(number) for number in range(4)))
    async with connected(path) as machine:
        await machine.execute("cont")
        check(await machine.execute("query-status") == {"status": "running", "running": True}, "status")


async def hear(path, expected):
    """Waits for an event; `expected` is its name and the reason that it gives."""
    name, reason = expected.split(":")
    async with connected(path) as client:
        with client.listener() as events:
            print("ready", flush=True)
            data = await event(events, name)
        check(data == {"guest": reason.startswith("guest-"), "reason": reason}, data)


# Numbers that differ from run to run, and from program to program.
VARYING = {"thread-id": "thread", "major": 0, "minor": 0, "micro": 0, "package": ""}


def masked(value):
    """`value` without what may differ between two programs. Properties also have a `thread-id`, always 0 here."""
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, dict):
        return {k: VARYING[k] if k in VARYING and v != 0 else masked(v) for k, v in value.items()}
    return value


# Commands, their arguments, and the event that each brings.
REQUESTS = [
    ("query-status", None, None),
    ("query-version", None, None),
    ("query-cpus-fast", None, None),
    ("no-such-command", None, None),
    ("stop", {"a": 1}, None),
    ("cont", None, "RESUME"),
    ("cont", None, None),
    ("query-status", None, None),
    ("stop", None, "STOP"),
    ("stop", None, None),
    ("query-status", None, None),
    ("cont", None, "RESUME"),
    ("system_reset", None, "RESET"),
    ("system_powerdown", None, "POWERDOWN"),
    ("quit", None, "SHUTDOWN"),
]


async def transcript(path):
    """What the server says to `REQUESTS`, without what may differ."""
    said = []
    async with connected(path) as client:
        with client.listener() as events:
            for command, arguments, expected in REQUESTS:
                try:
                    said.append((command, masked(await client.execute(command, arguments))))
                except ExecuteError as error:
                    said.append((command, error.error_class, str(error)))
                if expected:
                    said.append((expected, await event(events, expected)))
    return said


async def schema_of(path):
    """What a server tells of its commands and events, by name."""
    async with connected(path) as client:
        return {entry["name"]: entry for entry in await client.execute("query-qmp-schema")}


class Comparison:
    """Two schemas, by name: what ours says must be true of theirs."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs, self.seen = ours, theirs, set()

    def type(self, ours, theirs, where, returned):
        """Ours gives (or takes) nothing that theirs would not, and all that theirs must."""
        if (ours, theirs) in self.seen:
            return
        self.seen.add((ours, theirs))
        a, b = self.ours[ours], self.theirs[theirs]
        check(a["meta-type"] == b["meta-type"], f"{where} is {a['meta-type']}, not {b['meta-type']}")
        if a["meta-type"] == "builtin":
            check(a["json-type"] == b["json-type"], f"{where} is {a['json-type']}, not {b['json-type']}")
        elif a["meta-type"] == "enum":
            more = {m["name"] for m in a["members"]} - {m["name"] for m in b["members"]}
            check(not more, f"{where} has values of its own: {more}")
        elif a["meta-type"] == "array":
            self.type(a["element-type"], b["element-type"], f"{where}[]", returned)
        elif a["meta-type"] == "object":
            self.object(a, b, where, returned)

    def object(self, a, b, where, returned):
        """As `type`, for objects."""
        mine, known = ({m["name"]: m for m in o["members"]} for o in (a, b))
        for name, member in mine.items():
            # What a device takes is up to the device.
            if name not in known and where == "device_add" and "default" in member:
                continue
            check(name in known, f"{where}.{name} is of our own")
            self.type(member["type"], known[name]["type"], f"{where}.{name}", returned)
            looser = "default" in member and "default" not in known[name]
            check(not (returned and looser), f"{where}.{name} may be left out")
        for name, member in known.items():
            check(name in mine or "default" in member, f"{where}.{name} is missing")
        check(a.get("tag") == b.get("tag"), f"{where} is told apart by {a.get('tag')}")
        variants = {v["case"]: v["type"] for v in b.get("variants", [])}
        for variant in a.get("variants", []):
            case = variant["case"]
            check(case in variants, f"{where} has a case of its own: {case}")
            self.type(variant["type"], variants[case], f"{where}/{case}", returned)


async def compare(path, reference):
    """Another program says the same, and tells the same of what it can be told."""
    ours, theirs = await schema_of(path), await schema_of(reference)
    comparison = Comparison(ours, theirs)
    for name, entry in ours.items():
        if name.startswith("x-"):
            # Our own, and says so; nothing of theirs has the name.
            check(name not in theirs, f"{name} is theirs as well")
        elif entry["meta-type"] in ("command", "event"):
            check(theirs.get(name, {}).get("meta-type") == entry["meta-type"], f"{name} is of our own")
            arguments = entry["meta-type"] == "command"
            comparison.type(entry["arg-type"], theirs[name]["arg-type"], name, not arguments)
            if arguments:
                comparison.type(entry["ret-type"], theirs[name]["ret-type"], f"{name}()", True)
    ours, theirs = await transcript(path), await transcript(reference)
    for mine, other in zip(ours, theirs, strict=True):
        check(mine == other, f"\n   {mine}\nis not\n   {other}")


STAGES = [look, stop, cont, reset, powerdown, quit, plug, keep, unplug, storm, hear, compare]


def main():
    name, path, argument = (sys.argv[1:] + [""])[:3]
    stage = next(stage for stage in STAGES if stage.__name__ == name)
    try:
        asyncio.run(stage(path, argument))
    except Wrong as error:
        sys.exit(f"{name}: {error}")


main()
