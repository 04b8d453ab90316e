"""Runs in a guest: mounts partitions with the agent's own module, and prints what is in them.

The first argument is a file of JSON: for each partition's name its type and the views to look in.
One line of JSON is printed for each. The disks take writes, but for the block devices, which are
set read-only: whether that holds is seen on the host, by the bytes.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from appliance.agent.device import open_device, seal
from appliance.agent.mount import MountError, mounted
from appliance.agent.volume import Volume
from appliance.layer import Kind, SubvolumeFacts


def main() -> None:
    wanted = json.loads(Path(sys.argv[1]).read_text())
    for info in sorted(Path("/sys/class/block").glob("sd*/uevent")):
        facts = dict(line.split("=", 1) for line in info.read_text().splitlines())
        node = f"/dev/{facts['DEVNAME']}"
        seal(node)
        if "PARTNAME" in facts:
            kind, views, parts = wanted[facts["PARTNAME"]]
            for view in views:
                show(facts["PARTNAME"], node, kind, view, parts)


def show(name: str, node: str, kind: str, view: str, parts: list[int]) -> None:
    with ExitStack() as stack:
        device = open_device(node)
        stack.callback(device.close)
        whole = Volume(name, Kind.PARTITION, [], 0, device.size, device, start=0, node=node)
        for part in (None, *parts):
            facts = SubvolumeFacts(part) if part else None
            found: dict[str, object] = {"name": name, "view": view, "part": part}
            try:
                with mounted(replace(whole, subvolume=facts), kind, view) as folder:
                    found["files"] = read(folder)
                    found["options"] = options(folder)
            except MountError as error:
                found["error"] = str(error)
            print("LOOK", json.dumps(found), flush=True)


def read(folder: Path) -> dict[str, str]:
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            files[str(path.relative_to(folder))] = path.read_bytes()[:64].decode("latin-1")
    return files


def options(folder: Path) -> list[str]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[1] == str(folder):
            return line.split()[3].split(",")
    return []


main()
