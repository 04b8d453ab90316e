"""Which devices of this host lie on the evidence and can write to it, from sysfs and mountinfo."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from images.quoting import shown
from images.writer import Target, Writer

_BLOCK = Path("/sys/block")
_BY_NUMBER = Path("/sys/dev/block")
_MAX_FAMILY = 1024
_OCTAL = re.compile(rb"\\([0-7]{3})")

Mounts = dict[str, list[str]]
"""Where a block device ("major:minor") is mounted for writing."""


def device_writers(targets: Sequence[Target]) -> list[Writer]:
    """Loop devices backed by a target; and what lies on, or is mounted from, one that is a device.

    Only what may write: a read-only loop device or mount is no writer.
    """
    blocks = [target for target in targets if target.is_block]
    files = [target for target in targets if not target.is_block]
    loops = list(_loops()) if files else []
    mounts = _mounts() if blocks or loops else {}
    found = [_loop(target, sys, mounts) for sys, path in loops for target in files
             if target.is_at(path)]  # fmt: skip
    for target in blocks:
        found += _on_device(target, mounts)
    return found


def _loops() -> Iterator[tuple[Path, str]]:
    """(its folder in sysfs, the file behind it) of each loop device that may write."""
    for name in os.listdir(_BLOCK):  # noqa: PTH208 -- names, not paths
        with contextlib.suppress(OSError):  # not in use
            if name.startswith("loop") and not _is_read_only(_BLOCK / name):
                untrusted_path = (_BLOCK / name / "loop/backing_file").read_bytes()
                yield _BLOCK / name, os.fsdecode(untrusted_path.removesuffix(b"\n"))


def _loop(target: Target, sys: Path, mounts: Mounts) -> Writer:
    places = [place for _, places in _mounted(_family(sys), mounts) for place in places]
    mounted = f", mounted at {places[0]}" if places else ""
    return Writer(target.file.path, "loop device", None, None, f"/dev/{sys.name}{mounted}")


def _on_device(target: Target, mounts: Mounts) -> Iterator[Writer]:
    path = target.file.path
    sys = _BY_NUMBER / f"{os.major(target.device)}:{os.minor(target.device)}"
    family = list(_family(sys))
    for device, places in _mounted(family, mounts):
        yield Writer(path, "mount", None, None, f"{shown(device.resolve().name)} at {places[0]}")
    for device in family:
        # What was found through a holders folder; partitions are parts, not holders.
        if device.parent.name == "holders" and not _is_read_only(device):
            yield Writer(path, "holder", None, None, f"/dev/{shown(device.name)}")


def _family(sys: Path) -> Iterator[Path]:
    """A device, its partitions, the devices that hold any of them, and so on."""
    waiting, seen = [sys], set[Path]()
    while waiting and len(seen) < _MAX_FAMILY:
        device = waiting.pop()
        if device.resolve() in seen:
            continue
        seen.add(device.resolve())
        yield device
        with contextlib.suppress(OSError):
            waiting += (device / "holders").iterdir()
        with contextlib.suppress(OSError):
            waiting += (
                part for part in device.resolve().iterdir() if (part / "partition").exists()
            )


def _mounted(family: Iterable[Path], mounts: Mounts) -> Iterator[tuple[Path, list[str]]]:
    for device in family:
        with contextlib.suppress(OSError):
            places = mounts.get((device / "dev").read_text(encoding="ascii").strip())
            if places:
                yield device, places


def _mounts() -> Mounts:
    """From /proc/self/mountinfo (proc(5)): fields 3, 5, 6, and the last, which is the file
    system's own options: it may write although this one mount may not."""
    found: Mounts = {}
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if len(fields) > 6 and b"rw" in fields[-1].split(b","):
            place = shown(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4]))
            found.setdefault(fields[2].decode("ascii", "replace"), []).append(place)
    return found


def _is_read_only(sys: Path) -> bool:
    return (sys / "ro").read_text(encoding="ascii").strip() == "1"
