"""Results written down by hand, for what prints them."""

from __future__ import annotations

from appliance.layer import (
    Content,
    ExtState,
    Finding,
    GroupFacts,
    Kind,
    Layer,
    PartitionEntry,
    Severity,
    Status,
    Table,
    VolumeFacts,
)
from controller.results import SCHEMA, Evidence, EvidenceFile, Inspection, is_complete

DIGEST = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
MIB = 1 << 20
GIB = 1 << 30
HOSTILE = "\x1b[31mred\x1b[0m\u202e\n[red]x[/red]\r\x9b2J\u200b\u3164e\u0301\u0301\u0301\\ \ud800"
PV_UUIDS = ("0GHlTq-Jm1A-WSDt-KW1o-Xk3O-1xUe-aMXPVa", "b41gYs-5x7J-0Hqv-RjVp-1sLe-4oZm-GxQ2Tb")


def partition(
    number: int, kind: str, name: str | None, *, bootable: bool = False, logical: bool = False
) -> PartitionEntry:
    uuid = f"0ff1ce12-{number:02x}"
    extended = name == "Extended"
    return PartitionEntry(number, kind, name, None, uuid, bootable, extended, logical)


def disk(size: int, table: str | None = "dos", *, index: int = 0, uuid: str = "0ff1ce12") -> Layer:
    facts = Table(table, uuid, 512) if table else None
    return Layer(f"disk{index}", Kind.DISK, [], None, size, Status.MAPPED, table=facts)


def gap(number: int, offset: int, size: int, *, index: int = 0) -> Layer:
    name = f"disk{index}"
    return Layer(f"{name}/gap{number}", Kind.GAP, [name], offset, size, Status.MAPPED)


def ext4(size: int, label: str, used: int) -> Content:
    state = ExtState(
        state="clean",
        errors_behavior="Continue",
        mount_count=3,
        maximum_mount_count=30,
        created=1_705_312_800,
        last_mounted=1_711_972_800,
        last_written=1_711_976_400,
        last_checked=1_705_312_800,
        check_interval=15_552_000,
        last_mounted_on="/",
        features=["has_journal", "ext_attr", "dir_index", "filetype", "extent", "64bit"],
        block_count=size // 4096,
        free_blocks=(size - used) // 4096,
        inode_count=12288,
        free_inodes=12000,
        inode_size=256,
        error_count=0,
    )
    return Content(
        type="ext4",
        usage="filesystem",
        version="1.0",
        label=label,
        uuid="6a2f4c1e-0d3b-4a57-9c1d-5e8f7a6b9c01",
        block_size=4096,
        size=size,
        used=used,
        free=size - used,
        ext=state,
    )


def inspection(
    layers: list[Layer], findings: list[Finding] | None = None, paths: tuple[str, ...] = ()
) -> Inspection:
    disks = [layer for layer in layers if layer.kind is Kind.DISK]
    names = paths or tuple(f"/cases/17/disk{index}.qcow2" for index in range(len(disks)))
    return Inspection(
        schema=SCHEMA,
        evidence=[
            Evidence(path, "qcow2", each.size, [EvidenceFile(path, each.size // 3, DIGEST)])
            for path, each in zip(names, disks, strict=True)
        ],
        layers=layers,
        findings=findings or [],
        complete=is_complete(layers, findings or []),
        boundary="cell",
        tools={"forensic": "0.1.0", "libblkid": "2.41"},
        timings={"restore": 0.51, "map": 0.112},
    )


def member(index: int, number: int, uuid: str, offset: int, size: int) -> Layer:
    return Layer(
        f"disk{index}/p{number}",
        Kind.PARTITION,
        [f"disk{index}"],
        offset,
        size,
        Status.MAPPED,
        content=Content("LVM2_member", "raid", "LVM2 001", uuid=uuid),
        partition=partition(number, "0x8e", "Linux LVM"),
    )


def logical(group: str, name: str, size: int, content: Content | None, *layout: str) -> Layer:
    uuid = "NGQ3pH-gcN2-zRRU-A5Ni-0xgH-tbNd-aR7Y3V"
    facts = VolumeFacts(name, uuid, list(layout or ("linear",)), ["public"], None, None)
    return Layer(
        f"{group}/{name}",
        Kind.LOGICAL_VOLUME,
        [group],
        None,
        size,
        Status.MAPPED,
        content=content,
        volume=facts,
    )


def group(name: str, size: int, free: int, parents: list[str], *, missing: int = 0) -> Layer:
    uuid = "WzG8bW-wG1n-6VlH-J1dV-uYxT-N0Vq-Rk2Lx3"
    facts = GroupFacts(name, uuid, 4 * MIB, free, len(parents) + missing, missing)
    status = Status.DAMAGED if missing else Status.MAPPED
    return Layer(name, Kind.VOLUME_GROUP, parents, None, size, status, group=facts)


def office() -> Inspection:
    swap = Content("swap", "other", "1", label="office-swap", block_size=4096, size=16 * MIB - 4096)
    layers = [
        disk(128 * MIB),
        gap(0, 0, MIB),
        Layer(
            "disk0/p1",
            Kind.PARTITION,
            ["disk0"],
            MIB,
            16 * MIB,
            Status.MAPPED,
            content=swap,
            partition=partition(1, "0x82", "Linux swap"),
        ),
        member(0, 2, PV_UUIDS[0], 17 * MIB, 111 * MIB),
        group("lvg1", 108 * MIB, 28 * MIB, ["disk0/p2"]),
        Layer("lvg1/~free", Kind.GAP, ["lvg1"], None, 28 * MIB, Status.MAPPED),
        logical("lvg1", "lvroot", 48 * MIB, ext4(48 * MIB, "office-root", 7_340_032)),
        logical("lvg1", "lvbackup", 32 * MIB, ext4(32 * MIB, "System Backup", 3_145_728)),
    ]
    return inspection(layers)


def two_disks() -> Inspection:
    layers = [
        disk(2 * GIB),
        gap(0, 0, MIB),
        disk(4 * GIB, "gpt", index=1, uuid="7d1f0a52-2f0b-4dc1-9e0e-1f7f5b0e8a11"),
        gap(0, 0, MIB, index=1),
        gap(1, 4 * GIB - MIB, MIB, index=1),
        member(0, 1, PV_UUIDS[0], MIB, 2 * GIB - MIB),
        member(1, 1, PV_UUIDS[1], MIB, 4 * GIB - 2 * MIB),
        group("data", 6 * GIB - 16 * MIB, 0, ["disk0/p1", "disk1/p1"], missing=1),
        logical("data", "srv", 5 * GIB, ext4(5 * GIB, "srv", GIB), "striped"),
        logical("data", "pool0", GIB - 16 * MIB, None, "thin", "pool"),
    ]
    message = "1 of 3 physical volumes are missing; give the other images of this system with --add"
    return inspection(layers, [Finding(Severity.WARNING, "data", "missing-volume", message)])


def hostile() -> Inspection:
    content = Content(HOSTILE[:-1], label=HOSTILE[:-1], uuid=HOSTILE[:-1])
    raw = Content("vfat", label="a\ufffd", label_base64="Yf8=", uuid="  -  ")
    layers = [
        disk(GIB),
        Layer("disk0/p1", Kind.PARTITION, ["disk0"], 512, GIB // 2, Status.MAPPED, content=content),
        Layer(
            f"disk0/{HOSTILE[:-1]}", Kind.PARTITION, ["disk0"], GIB // 2, 512, Status.MAPPED,
            content=raw,
        ),
    ]  # fmt: skip
    findings = [Finding(Severity.ERROR, f"disk0/{HOSTILE[:-1]}", HOSTILE[:-1], HOSTILE[:-1])]
    return inspection(layers, findings, (HOSTILE[:-1],))


def damaged() -> Inspection:
    locked = Content("crypto_LUKS", "crypto", "2", uuid="3f0e8b3c-6d0a-4f9e-8d53-0c3c2a8ad9a7")
    layers = [
        disk(64 * MIB),
        gap(0, 0, MIB),
        Layer(
            "disk0/p1", Kind.PARTITION, ["disk0"], MIB, 31 * MIB, Status.LOCKED, content=locked,
            partition=partition(1, "0x83", "Linux", bootable=True),
        ),
        Layer(
            "disk0/p2", Kind.PARTITION, ["disk0"], 16 * MIB, 48 * MIB, Status.UNSUPPORTED,
            partition=partition(2, "0x83", "Linux"),
        ),
        Layer(
            "disk0/p3", Kind.PARTITION, ["disk0"], 128 * MIB, 0, Status.DAMAGED,
            partition=partition(3, "0x07", "NTFS/exFAT/HPFS"),
        ),
    ]  # fmt: skip
    findings = [
        Finding(
            Severity.ERROR, "disk0/p3", "beyond-end",
            "the table says that this partition ends at byte 201326592, but disk0 has only "
            "67108864 bytes; the rest of it is missing",
        ),
        Finding(
            Severity.ERROR, "disk0/p2", "overlap",
            "this partition begins at byte 16777216, inside disk0/p1 (until 33554432)",
        ),
        Finding(
            Severity.WARNING, "disk0/p1", "locked",
            "crypto_LUKS: encrypted, and no key was given; what is inside is not shown",
        ),
        Finding(
            Severity.WARNING, "disk0/p2", "unrecognised",
            "nothing was recognised here; it begins with the bytes 00 11 22 33",
        ),
        Finding(Severity.INFO, "disk0", "container", "the image was not closed cleanly"),
    ]  # fmt: skip
    return inspection(layers, findings)


def many() -> Inspection:
    size = 10 * MIB
    layers = [disk(201 * size, "gpt"), gap(0, 0, MIB)]
    layers += [
        Layer(
            f"disk0/p{number}",
            Kind.PARTITION,
            ["disk0"],
            MIB + (number - 1) * size,
            size,
            Status.MAPPED,
            content=Content("xfs", "filesystem", label=f"volume {number}", size=size),
            partition=partition(number, "0fc63daf", "Linux filesystem"),
        )
        for number in range(1, 201)
    ]
    layers.append(gap(1, MIB + 200 * size, 9 * MIB))
    return inspection(layers)


SAMPLES = {
    "office": office,
    "two_disks": two_disks,
    "hostile": hostile,
    "damaged": damaged,
    "many": many,
}
