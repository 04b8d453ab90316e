"""A first sight of bytes in which nothing was recognised: what they could be, by a few samples."""

from __future__ import annotations

from appliance.agent.entropy import looks_random
from appliance.agent.volume import Volume

_SAMPLE = 16 * 1024
_SAMPLES = 16

_MAGIC = {
    (0, b"\x1f\x8b"): "gzip",
    (0, b"BZh"): "bzip2",
    (0, b"\xfd7zXZ\x00"): "xz",
    (0, b"\x28\xb5\x2f\xfd"): "zstd",
    (0, b"PK\x03\x04"): "a zip file",
    (0, b"7z\xbc\xaf\x27\x1c"): "a 7z file",
    (257, b"ustar"): "a tar file",
    (0, b"\x7fELF"): "an ELF program",
    (0, b"MZ"): "a DOS or Windows program",
    (0, b"%PDF"): "a PDF document",
    (0, b"SQLite format 3\x00"): "an SQLite database",
    (0, b"QFI\xfb"): "a qcow image",
    (0, b"KDMV"): "a VMDK image",
    (0, b"vhdxfile"): "a VHDX image",
    (0, b"conectix"): "a VHD image",
    (0, b"EVF\x09\x0d\x0a\xff"): "an EWF (E01) image",
    (0, b"ANDROID!"): "an Android boot image",
    (0, b"\x27\x05\x19\x56"): "a U-Boot image",
    (0, b"\xd0\x0d\xfe\xed"): "a device tree",
    (0, b"070701"): "a cpio archive",
}
"""Bytes at an offset, and what begins so."""


def first_sight(volume: Volume) -> str:
    """The first bytes, and a hint where there is one. Reads at most 256 KiB."""
    try:
        untrusted_start = volume.read(0, _SAMPLE)
        hint = _known(untrusted_start) or _nature(volume.address, _samples(volume))
    except OSError:
        return "its first bytes cannot be read"
    begin = f"it begins with the bytes {untrusted_start[:16].hex(' ')}"
    return f"{begin}, {hint}" if hint else begin


def _known(untrusted_start: bytes) -> str:
    for (offset, magic), name in _MAGIC.items():
        if untrusted_start[offset : offset + len(magic)] == magic:
            return f"like {name}"
    return ""


def _samples(volume: Volume) -> bytes:
    """From all over the volume, at even distances; the whole of a small one."""
    if volume.size <= _SAMPLE * _SAMPLES:
        return volume.read(0, volume.size)
    step = (volume.size - _SAMPLE) // (_SAMPLES - 1) // 512 * 512
    return b"".join(volume.read(index * step, _SAMPLE) for index in range(_SAMPLES))


def _nature(address: str, untrusted_sample: bytes) -> str:
    if not untrusted_sample:
        return ""
    looked = f"in all of the {len(untrusted_sample)} bytes that were looked at"
    first = untrusted_sample[0]
    if untrusted_sample.count(first) == len(untrusted_sample):
        return f"and has only the byte {first:02x} {looked}"
    if looks_random(untrusted_sample):
        return (
            f"and looks random {looked}: it may be encrypted without a signature. "
            f"--key {address}:file:PATH tries it as VeraCrypt and TrueCrypt, "
            f"--header {address}:FILE as LUKS with that header"
        )
    return ""
