"""Which layer a system means by the name of a device: UUID=, /dev/mapper/…, /dev/sda1.

Names that the running system gave its disks are not on the disks: /dev/sda is guessed to be the
first image, and the answer says that it is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from appliance.layer import Kind, Layer

_TAG = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL)=(.*)", re.IGNORECASE)
_BY = re.compile(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)")
_BSD_LABEL = re.compile(r"/dev/(gpt|gptid|ufs|ufsid|msdosfs|ntfs)/(.+)")
_BSD_TAGS = {"gpt": "PARTLABEL", "gptid": "PARTUUID", "ufsid": "UUID"}
_LETTERED = re.compile(r"/dev/(?:s|h|v|xv)d([a-z])(\d{1,3})?")
_NUMBERED = re.compile(r"/dev/(?:nvme(\d{1,2})n1|mmcblk(\d{1,2}))(?:p(\d{1,3}))?")
_BSD_DISK = re.compile(r"/dev/(?:ada|da|vtbd|nda|nvd)(\d{1,2})(?:[ps](\d{1,3}))?([a-h])?")
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
_DISK = re.compile(r"disk(\d+)")

Found = tuple[str | None, str | None]
"""The layer's address, and a note: why there is none, or how sure it is."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Looks names up among the layers of the run.

    `home` is the layer of the system itself: of several copies, the one on its own disks counts.
    `crypttab` and `arrays` are names that the system has for volumes: encrypted ones with the
    name of what is opened, MD arrays with their UUID.
    """

    layers: list[Layer]
    home: str
    crypttab: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Found:
        """The layer that `name` means."""
        if match := _TAG.fullmatch(name):
            return self._tagged(match[1].upper(), match[2].strip("\"'"))
        if match := _BY.fullmatch(name):
            return self._tagged(match[1].upper(), _decoded(match[2]))
        if match := _BSD_LABEL.fullmatch(name):
            return self._tagged(_BSD_TAGS.get(match[1], "LABEL"), match[2])
        if not name.startswith("/dev/"):
            return None, "a file of this system" if name.startswith("/") else "not a device"
        return self._volume(name) or self._guessed(name)

    def _tagged(self, tag: str, value: str) -> Found:
        tests: dict[str, Callable[[Layer], str | None]] = {
            "UUID": lambda each: each.content.uuid if each.content else None,
            "LABEL": lambda each: each.content.label if each.content else None,
            "PARTUUID": lambda each: each.partition.uuid if each.partition else None,
            "PARTLABEL": lambda each: each.partition.name if each.partition else None,
        }
        of = tests[tag]
        fold = tag.endswith("UUID")
        wanted = value.lower() if fold else value
        # Subvolumes have the UUID of the file system that they are a part of.
        layers = (each for each in self.layers if each.kind is not Kind.SUBVOLUME)
        values = ((each, of(each) or "") for each in layers)
        found = [each for each, text in values if wanted == (text.lower() if fold else text)]
        return (self._one(found) if wanted else None) or (None, f"no layer here has this {tag}")

    def _volume(self, name: str) -> Found | None:
        """Of LVM, of the device mapper, and of MD; None where it is none of theirs."""
        short = name.removeprefix("/dev/").removeprefix("disk/by-id/dm-name-")
        short = short.removeprefix("mapper/")
        groups = {each.address: each.group.name for each in self.layers if each.group}
        found = [
            each
            for each in self.layers
            if each.volume
            and each.parents
            and short in _names_of_volume(groups.get(each.parents[0], ""), each.volume.name)
        ]
        if found:
            return self._one(found)
        if short in self.crypttab or short.startswith("luks-"):
            return self._decrypted(short)
        if short.startswith("md"):
            return self._array(name, short)
        if name.startswith("/dev/mapper/"):
            return None, "no volume of this run has this name"
        return None

    def _decrypted(self, name: str) -> Found:
        source = self.crypttab.get(name, f"UUID={name.removeprefix('luks-')}")
        locked, note = self.find(source) if not source.startswith("/dev/mapper/") else (None, None)
        inner = [each for each in self.layers if each.kind is Kind.CRYPT and locked in each.parents]
        if locked and not inner:
            return None, f"in the encrypted volume {locked}, which is not open"
        return self._one(inner) or (None, note or "no encrypted volume of this run has this name")

    def _array(self, name: str, short: str) -> Found:
        arrays = [each for each in self.layers if each.kind is Kind.ARRAY]
        wanted = short.removeprefix("md/")
        found = [each for each in arrays if each.address.split("/")[-1] == wanted]
        uuid = self.arrays.get(name, "").replace(":", "").replace("-", "").lower()
        if uuid:
            members = {
                each.address
                for each in self.layers
                if each.content and (each.content.uuid or "").replace("-", "").lower() == uuid
            }
            found = [each for each in arrays if members & set(each.parents)] or found
        return self._one(found) or (None, "no array of this run has this name")

    def _guessed(self, name: str) -> Found:
        """By the order in which systems usually count their disks."""
        index, number = _numbers_of(name)
        if index is None:
            return None, "the name of a device, which is not on the disks"
        address = f"disk{index}" if number is None else f"disk{index}/p{number}"
        if any(each.address == address for each in self.layers):
            return address, f"a guess: as if disk{index} were {_disk_of(name)}"
        return None, f"the name of a device, and there is no {address}"

    def _one(self, found: list[Layer]) -> Found | None:
        """The only one; of copies that of the system itself, or the one on its disks."""
        if len(found) > 1:
            found = [each for each in found if not _is_snapshot(each)] or found
            own = [each for each in found if each.address == self.home]
            disks = self._disks_of([self.home])
            near = [each for each in found if self._disks_of([each.address]) & disks]
            found = own or (near if len(near) == 1 else found)
        if not found:
            return None
        if len(found) == 1:
            return found[0].address, None
        names = ", ".join(each.address for each in found[:4])
        return None, f"there are {len(found)} of that name: {names}"

    def _disks_of(self, addresses: Iterable[str]) -> set[str]:
        parents = {each.address: each.parents for each in self.layers}
        seen: set[str] = set()
        waiting = list(addresses)
        while waiting:
            address = waiting.pop()
            if address not in seen:
                seen.add(address)
                waiting += parents.get(address, [])
        return {each for each in seen if _DISK.fullmatch(each)}


def _is_snapshot(layer: Layer) -> bool:
    """An older state of another layer, with the same UUID."""
    origin = layer.volume.origin if layer.volume else None
    return layer.kind is Kind.SHADOW_COPY or origin is not None


def _names_of_volume(group: str, volume: str) -> set[str]:
    """group/volume, and the device mapper's name, in which dashes are doubled."""
    doubled = f"{group.replace('-', '--')}-{volume.replace('-', '--')}"
    return {f"{group}/{volume}", doubled}


def _numbers_of(name: str) -> tuple[int | None, int | None]:
    if match := _LETTERED.fullmatch(name):
        return ord(match[1]) - ord("a"), int(match[2]) if match[2] else None
    if match := _NUMBERED.fullmatch(name):
        return int(match[1] or match[2]), int(match[3]) if match[3] else None
    if (match := _BSD_DISK.fullmatch(name)) and not match[3]:
        return int(match[1]), int(match[2]) if match[2] else None
    return None, None


def _disk_of(name: str) -> str:
    return re.sub(r"(?<=[a-z])\d+$|[ps]\d+$" if "nvme" not in name else r"p\d+$", "", name)


def _decoded(name: str) -> str:
    """udev writes blanks and signs as \\xNN."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name)
