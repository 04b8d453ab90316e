"""The guest's domain against golden files, and what must never be in it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol import PORT_NAME
from controller.domain_xml import (
    CPU_MODEL,
    KERNEL_COMMAND_LINE,
    Accelerator,
    DomainPaths,
    check_size,
    domain,
    evidence_disk,
)
from controller.errors import EvidenceRefused

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "domain"
PATHS = DomainPaths(
    kernel="/appliance/vmlinux",
    initramfs="/appliance/initramfs",
    rootfs="/appliance/rootfs.erofs",
    port="/run/forensic/port.sock",
    console="/run/forensic/console.sock",
)
EVIL = "a\"b'<c>&d]]>\n\t<disk/> ü"
FORBIDDEN = {
    "interface", "graphics", "video", "sound", "audio", "input", "filesystem", "hostdev",
    "redirdev", "redirfilter", "smartcard", "hub", "parallel", "watchdog", "tpm", "shmem",
    "memory-device", "panic", "iommu", "vsock", "nvram", "crypto", "lease", "console", "seclabel",
    "commandline", "launchSecurity", "emulator", "loader", "bootmenu", "smbios", "memoryBacking",
}  # fmt: skip


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_domain_is_the_golden_one(accelerator: Accelerator) -> None:
    expected = (GOLDEN / f"{accelerator}.xml").read_text()
    assert domain(accelerator, 512, 2, PATHS) == expected


def test_disk_is_the_golden_one() -> None:
    expected = (GOLDEN / "evidence.xml").read_text()
    actual = evidence_disk(1, "/run/forensic/evidence1.sock", "evidence1", "0123456789abcdef")
    assert actual == expected
    path, name, serial = "/run/forensic/evidence1.sock", "evidence1", "0123456789abcdef"
    assert evidence_disk(1, path, name, serial, 512) == expected


def test_disk_with_large_sectors() -> None:
    """https://libvirt.org/formatdomain.html, blockio; nothing else may differ."""
    small = ET.fromstring(evidence_disk(0, "/s", "e", "1"))
    large = ET.fromstring(evidence_disk(0, "/s", "e", "1", 4096))
    (blockio,) = large.findall("blockio")
    assert blockio.attrib == {"logical_block_size": "4096", "physical_block_size": "4096"}
    assert small.find("blockio") is None
    large.remove(blockio)
    ET.indent(large)
    assert ET.tostring(large) == ET.tostring(small)


@pytest.mark.parametrize("size", [None, 0, 4096, 2**40, 3 * 4096])
def test_whole_sectors(size: int | None) -> None:
    check_size(Path("disk.img"), size, 4096)
    check_size(Path("disk.img"), size, 512)


@pytest.mark.parametrize("size", [512, 4095, 4097, 2**40 + 512])
def test_a_part_of_a_sector(size: int) -> None:
    with pytest.raises(
        EvidenceRefused, match=rf"disk\\x1b.img: a disk of {size} bytes.* 4096"
    ) as told:
        check_size(Path("disk\x1b.img"), size, 4096)
    assert "--sector-size" in told.value.hint


@pytest.mark.parametrize(
    ("accelerator", "memory", "processors"), list(product(["tcg", "kvm"], [256, 4096], [1, 8]))
)
def test_what_is_not_in_the_guest(accelerator: Accelerator, memory: int, processors: int) -> None:
    root = ET.fromstring(domain(accelerator, memory, processors, PATHS))
    tags = {element.tag for element in root.iter()}
    assert tags.isdisjoint(FORBIDDEN)
    assert not any("}" in tag for tag in tags), "no namespace of QEMU's own"
    models = {(element.get("type"), element.get("model")) for element in root.iter("controller")}
    assert models == {("scsi", "virtio-scsi"), ("usb", "none")}
    assert [element.get("model") for element in root.iter("memballoon")] == ["none"]
    devices = root.find("devices")
    assert devices is not None
    assert sorted(element.tag for element in devices) == sorted(
        ["disk", "controller", "controller", "channel", "serial", "rng", "memballoon"]
    )


def test_what_is_in_the_guest() -> None:
    root = ET.fromstring(domain("kvm", 700, 3, PATHS))
    assert root.get("type") == "kvm"
    genid = root.find("genid")
    assert genid is not None
    assert genid.text is None, "a fixed value would be the same after every restore"
    assert root.findtext("memory") == "700"
    assert root.find("memory").get("dumpCore") == "off"  # type: ignore[union-attr]
    assert root.findtext("vcpu") == "3"
    assert root.findtext("cpu/model") == CPU_MODEL
    assert [root.findtext(f"on_{event}") for event in ("poweroff", "reboot", "crash")] == [
        "destroy"
    ] * 3
    assert root.findtext("os/cmdline") == KERNEL_COMMAND_LINE
    assert root.find("devices/channel/target").get("name") == PORT_NAME  # type: ignore[union-attr]
    assert root.findtext("devices/rng/backend") == "/dev/urandom"


@pytest.mark.parametrize("option", ["panic=1", "oops=panic", "lockdown=confidentiality"])
def test_kernel_command_line(option: str) -> None:
    assert option in KERNEL_COMMAND_LINE.split()


def test_every_disk_is_read_only() -> None:
    root = ET.fromstring(domain("tcg", 512, 1, PATHS))
    disks = [*root.iter("disk"), ET.fromstring(evidence_disk(0, "/s", "e", "1"))]
    assert len(disks) == 2
    for disk in disks:
        assert disk.find("readonly") is not None
        assert disk.find("shareable") is None
        # The format is never left to be guessed from what a guest may have written.
        assert disk.find("driver").get("type") == "raw"  # type: ignore[union-attr]


def test_evidence_comes_through_the_exporter_only() -> None:
    disk = ET.fromstring(evidence_disk(0, "/s", "e", "1"))
    assert disk.get("type") == "network"
    source = disk.find("source")
    assert source is not None
    assert source.attrib == {"protocol": "nbd", "name": "e"}
    assert source.find("host").attrib == {"transport": "unix", "socket": "/s"}  # type: ignore[union-attr]


def test_hostile_paths_are_escaped() -> None:
    paths = DomainPaths(EVIL, EVIL, EVIL, EVIL, EVIL)
    root = ET.fromstring(domain("tcg", 512, 1, paths))
    assert root.findtext("os/kernel") == root.findtext("os/initrd") == EVIL
    places = {
        element.get(name)
        for element in root.iter("source")
        for name in ("file", "path")
        if element.get(name)
    }
    assert places == {EVIL}
    assert len(list(root.iter("disk"))) == 1


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn"]), max_size=20))
def test_hostile_serial_is_escaped(text: str) -> None:
    disk = ET.fromstring(evidence_disk(0, f"/{text}", f"e{text}", f"s{text}"))
    assert disk.findtext("serial") == f"s{text}"
    assert disk.find("source").get("name") == f"e{text}"  # type: ignore[union-attr]
    assert disk.find("source/host").get("socket") == f"/{text}"  # type: ignore[union-attr]
    assert [element.tag for element in disk] == ["driver", "source", "target", "serial", "readonly"]


def test_targets_differ() -> None:
    targets = [
        ET.fromstring(evidence_disk(index, "/s", "e", "1")).find("target").get("dev")  # type: ignore[union-attr]
        for index in range(1000)
    ]
    assert targets[:2] == ["sda", "sdb"]
    assert targets[25:28] == ["sdz", "sdaa", "sdab"]
    assert targets[701:703] == ["sdzz", "sdaaa"]
    assert len(set(targets)) == 1000


def test_domain_does_not_depend_on_the_case() -> None:
    """A saved state fits only a domain that is the same, so nothing random may be in it."""
    assert domain("tcg", 512, 2, PATHS) == domain("tcg", 512, 2, PATHS)


def test_writable_disk() -> None:
    disk = ET.fromstring(evidence_disk(0, "/s", "e", "1", writable=True))
    assert disk.find("readonly") is None
    driver = disk.find("driver")
    assert driver is not None
    # A full overlay must be an error in the guest, which would else be made to wait.
    assert driver.get("error_policy") == driver.get("rerror_policy") == "report"
