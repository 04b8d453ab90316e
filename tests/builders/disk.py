"""Raw disks with an MBR or GPT partition table, written by sfdisk into a sparse file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.builders.command import run
from tests.builders.sparse import make_sparse, place_image

SECTOR = 512
MIB = 1024 * 1024

TableType = Literal["dos", "gpt"]

EXTENDED_TYPES = ("5", "f", "85")


@dataclass(frozen=True)
class Partition:
    """One row of the table.

    `type` is what sfdisk takes: an MBR type in hexadecimal ("83", "8e", "5" for the extended
    one) or a GPT type GUID. `name` and `uuid` are for GPT only. An MBR partition that lies
    inside the extended one becomes a logical one.
    """

    start_sector: int
    sectors: int
    type: str
    image: Path | None = None
    bootable: bool = False
    name: str | None = None
    uuid: str | None = None

    @property
    def offset(self) -> int:
        """Where the partition starts, in bytes."""
        return self.start_sector * SECTOR

    @property
    def size(self) -> int:
        """The partition's size in bytes."""
        return self.sectors * SECTOR

    @property
    def extended(self) -> bool:
        """Whether this is the container of the logical partitions."""
        return self.type.lower().lstrip("0x") in EXTENDED_TYPES

    def holds(self, other: "Partition") -> bool:
        """Whether the other partition lies inside this one."""
        end = self.start_sector + self.sectors
        return self.start_sector < other.start_sector < end


def make_disk(
    path: Path,
    size: int,
    label: TableType,
    partitions: Sequence[Partition],
    disk_id: str | None = None,
) -> Path:
    """Make a disk of `size` bytes with a partition table and the partitions' images.

    `disk_id` is "0x1234abcd" for MBR and a UUID for GPT; without it sfdisk chooses one.
    """
    make_sparse(path, size)
    script = table_script(label, partitions, disk_id)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path, stdin=script.encode())
    for partition in partitions:
        if partition.image is not None:
            check_fits(partition)
            place_image(partition.image, path, partition.offset)
    return path


def table_script(label: TableType, partitions: Sequence[Partition], disk_id: str | None) -> str:
    """The script for sfdisk's standard input."""
    head = [f"label: {label}", "unit: sectors"]
    if disk_id is not None:
        head.append(f"label-id: {disk_id}")
    numbers = partition_numbers(label, partitions)
    rows = [table_row(number, part) for number, part in zip(numbers, partitions, strict=True)]
    return "\n".join([*head, "", *rows, ""])


def table_row(number: int, partition: Partition) -> str:
    """One partition's line of the script."""
    fields = [
        f"start={partition.start_sector}",
        f"size={partition.sectors}",
        f"type={partition.type}",
    ]
    if partition.uuid is not None:
        fields.append(f"uuid={partition.uuid}")
    if partition.name is not None:
        fields.append(f'name="{partition.name}"')
    if partition.bootable:
        fields.append("bootable")
    return f"disk{number} : {', '.join(fields)}"


def partition_numbers(label: TableType, partitions: Sequence[Partition]) -> list[int]:
    """The table's numbers: 1, 2, … and for logical partitions 5, 6, …"""
    containers = [part for part in partitions if label == "dos" and part.extended]
    numbers = []
    primary, logical = 1, 5
    for partition in partitions:
        if any(container.holds(partition) for container in containers):
            numbers.append(logical)
            logical += 1
        else:
            numbers.append(primary)
            primary += 1
    return numbers


def check_fits(partition: Partition) -> None:
    """Refuse an image that is larger than its partition."""
    if partition.image is not None and partition.image.stat().st_size > partition.size:
        raise ValueError(f"{partition.image} does not fit into {partition.size} bytes")
