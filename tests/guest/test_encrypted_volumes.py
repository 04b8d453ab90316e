"""Volumes that other programs have encrypted, each opened with each kind of key.

What is expected is what their makers say (tests/data/cryptsetup/README.md).
"""

from __future__ import annotations

import lzma
import os
import subprocess
from pathlib import Path

import pytest

from tests.builders.luks import HEADER, make_luks
from tests.builders.veracrypt import PIM, make_veracrypt
from tests.guest.conftest import Run, inspect

DATA = Path(__file__).parents[1] / "data/cryptsetup"
RECOVERY = b"235818-357951-253979-013365-241120-245575-342914-591910"
MIB = 1 << 20

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encrypted")
    for packed in DATA.glob("*.xz"):
        unpack(packed, path / packed.stem)
    content = path / "content"
    content.write_bytes(b"")
    os.truncate(content, MIB)
    subprocess.run(
        ["mkfs.vfat", "-i", "ca11ab1e", content], check=True, capture_output=True, timeout=20
    )
    make_veracrypt(path / "pim", content.read_bytes(), b"word")
    make_luks(path / "detached", content, b"word", 2)
    with (path / "detached").open("r+b") as file:
        (path / "header").write_bytes(file.read(HEADER))
        file.seek(0)
        file.write(os.urandom(HEADER))
    for name, word in {
        "anaconda": b"anaconda\n",
        "recovery": RECOVERY + b"\n",
        "heslo": b"heslo123\n",
        "outer": b"aaaaaaaaaaaa\n",
        "hidden": b"bbbbbbbbbbbb\n",
        "word": b"word\n",
    }.items():
        (path / name).write_bytes(word)
    return path


def unpack(packed: Path, target: Path) -> None:
    """With holes: these volumes are half a gibibyte of nothing."""
    with lzma.open(packed) as source, target.open("wb") as file:
        while block := source.read(MIB):
            if any(block):
                file.write(block)
            else:
                file.seek(len(block), os.SEEK_CUR)
        file.truncate()


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """All at once, since each guest costs seconds."""
    disks = {
        "bitlk-aes-xts-128.img": ["file:recovery"],
        "bitlk-aes-xts-128-startup-key.img": [f"keyfile:{DATA / 'startup.bek'}"],
        "fvault2-small": ["file:heslo"],
        "tc_5-sha512-xts-aes-hidden": ["file:hidden", "file:outer"],
        "tck_5-sha512-xts-aes": [
            "file:outer",
            f"keyfile:{DATA / 'keyfile1'}",
            f"keyfile:{DATA / 'keyfile2'}",
        ],
        "pim": [f"pim={PIM}:file:word"],
        "detached": ["file:word"],
    }
    keys = [
        word
        for index, sources in enumerate(disks.values())
        for source in sources
        for word in ("--key", f"disk{index}:{source}")
    ]
    header = ["--header", "disk6:header"]
    options = ["--timeout", "900", "--hash", "files"]
    return inspect(*options, *keys, *header, *disks, cwd=folder, timeout=1000)


def test_everything_was_read(run: Run) -> None:
    # Of the NTFS in these images all is wiped that a size or the log could be read from.
    known = ["journal-unreadable", "usage-unknown"] * 2
    problems = [each["code"] for each in run.json["findings"] if each["severity"] != "info"]
    assert (run.status, problems) == (1, known), run.stderr


@pytest.mark.parametrize(
    ("address", "scheme", "number", "type_", "uuid"),
    [
        ("disk0/bitlocker", "bitlocker", 1, "ntfs", "68844E71844E41B4"),
        ("disk1/bitlocker", "bitlocker", 1, "ntfs", "27F7B5DB3754A2A9"),
        ("disk2/filevault", "filevault2", 1, "hfsplus", "de124d8a-2164-394e-924f-8e28db0a09cb"),
        ("disk3/truecrypt", "truecrypt", 1, "vfat", "DEAD-BABE"),
        ("disk3/truecrypt-hidden", "truecrypt", 1, "vfat", "CAFE-BABE"),
        ("disk4/truecrypt", "truecrypt", 1, "vfat", "DEAD-BABE"),
        ("disk5/veracrypt", "veracrypt", 1, "vfat", "CA11-AB1E"),
        ("disk6/luks", "luks2", 1, "vfat", "CA11-AB1E"),
    ],
)
def test_volume(run: Run, address: str, scheme: str, number: int, type_: str, uuid: str) -> None:
    layers = run.layers()
    outer = layers[address.split("/", maxsplit=1)[0]]
    assert (outer["encryption"]["scheme"], outer["encryption"]["opened_by"]) == (scheme, number)
    assert outer["status"] == "mapped"
    inside = layers[address]
    assert (inside["content"]["type"], inside["content"]["uuid"]) == (type_, uuid)
    assert (inside["kind"], inside["parents"]) == ("crypt", [outer["address"]])


def test_detached_header_is_evidence_too(run: Run, folder: Path) -> None:
    sha256 = subprocess.run(
        ["sha256sum", folder / "header"], check=True, capture_output=True, text=True, timeout=20
    ).stdout.split()[0]
    (header,) = run.json["headers"]
    assert (header["layer"], header["size"], header["sha256"]) == ("disk6", HEADER, sha256)
    volume = run.layers()["disk6"]
    assert volume["content"]["type"] == "crypto_LUKS"
    assert len(volume["encryption"]["keyslots"]) == 1


def test_nothing_given_fits(folder: Path) -> None:
    """A volume without a signature stays unrecognised, and a wrong or astray header is told."""
    keys = ["--key", "disk0:file:word", "--key", "disk1:file:anaconda"]
    keys += ["--key", "all:file:word"]
    headers = ["--header", "disk1:header", "--header", "disk2:content", "--header", "vg/lv:header"]
    disks = ["pim", "detached", "detached"]
    run = inspect(*keys, *headers, "--timeout", "120", *disks, cwd=folder, timeout=300)
    assert run.status == 1, run.stderr
    layers = run.layers()
    codes = {(each["layer"], each["code"]): each["message"] for each in run.json["findings"]}
    assert layers["disk0"]["status"] == "unsupported"
    assert layers["disk0"]["encryption"] is None
    assert ("disk0", "wrong-key") in codes
    assert ("disk0", "unrecognised") in codes
    # `all` fits where the key for this volume did not, and detached volumes are no exception.
    assert layers["disk1"]["encryption"]["opened_by"] == 2
    assert layers["disk2"]["status"] == "unsupported"
    assert ("disk2", "bad-header") in codes
    assert "vg/lv" in codes[None, "no-such-layer"]
    assert "disk2/luks" not in layers
    assert "disk0/veracrypt" not in layers


def test_random_bytes_may_be_encrypted(folder: Path) -> None:
    path = folder / "random"
    path.write_bytes(os.urandom(MIB))
    run = inspect(path, "--key", f"all:file:{folder / 'word'}")
    (finding,) = [each for each in run.json["findings"] if each["severity"] != "info"]
    assert finding["code"] == "unrecognised"
    assert "--key disk0:file:PATH" in finding["message"]
