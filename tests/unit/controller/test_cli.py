"""The command as a user starts it, as far as it needs no guest.

Images are opened before anything else, so what is wrong with them is said at once.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FORENSIC = Path(sys.executable).parent / "forensic"
SECONDS = 2.0
NOBODY = 65534
NAME = b"a\n\x1b]0;owned\x07\x1b[31m\xff\xe2\x80\xae.img"
SHOWN = r"a\x0a\x1b]0;owned\x07\x1b[31m\xff\u{202e}.img"


@dataclass(frozen=True)
class Ended:
    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class Place:
    """A folder that another account may enter, and an environment that leads nowhere else."""

    folder: Path
    environment: dict[str, str]

    def forensic(self, *words: str | bytes | Path, user: int | None = None) -> Ended:
        """Run the command; it may take SECONDS (once more where the machine was busy)."""
        for attempt in (1, 2, 3):
            begin = time.monotonic()
            done = subprocess.run(
                [FORENSIC, *words],
                env=self.environment,
                cwd=self.folder,
                capture_output=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
                user=user,
                extra_groups=[] if user is not None else None,
            )
            if time.monotonic() - begin < SECONDS:
                break
            assert attempt < 3, f"it took {time.monotonic() - begin:.1f} seconds"
        ended = Ended(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in ended.stderr
        return ended

    def refused(self, *words: str | bytes | Path, user: int | None = None) -> str:
        """Inspect what must be refused as evidence; return the message."""
        return self.fails(3, "inspect", *words, user=user)

    def fails(self, status: int, *words: str | bytes | Path, user: int | None = None) -> str:
        ended = self.forensic(*words, user=user)
        assert ended.status == status, ended
        assert ended.stdout == b""
        assert ended.stderr
        assert all(line.isprintable() for line in ended.stderr.splitlines())
        # Nothing was prepared for a guest, not even the folder for one.
        assert not list(self.folder.glob("cache/*"))
        return ended.stderr


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="forensic-cli-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": name,
            "XDG_CACHE_HOME": f"{name}/cache",
            "XDG_STATE_HOME": f"{name}/state",
            "LC_ALL": "C.UTF-8",
        }
        yield Place(folder, environment)


# --- words --------------------------------------------------------------------------------------


def test_version(place: Place) -> None:
    ended = place.forensic("--version")
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.startswith(b"forensic ")
    assert ended.stdout.count(b"\n") == 1


HELP = [(), ("inspect",), ("os",), ("doctor",), ("appliance",)]
HELP += [("appliance", command) for command in ("build", "status", "verify", "remove")]


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help(place: Place, command: tuple[str, ...]) -> None:
    ended = place.forensic(*command, "--help")
    assert (ended.status, ended.stderr) == (0, "")
    assert b"Usage: forensic" in ended.stdout


@pytest.mark.parametrize("command", [(), ("appliance",)])
def test_no_arguments_show_the_help(place: Place, command: tuple[str, ...]) -> None:
    ended = place.forensic(*command)
    assert ended.status == 2
    assert "Usage: forensic" in ended.stdout.decode() + ended.stderr


USAGE: dict[str, tuple[str, ...]] = {
    "no image": ("inspect",),
    "unknown option": ("inspect", "--nonsense", "disk.img"),
    "unknown command": ("explode",),
    "unknown command of the appliance": ("appliance", "explode"),
    "accelerator": ("inspect", "--accel", "hvf", "disk.img"),
    "accelerator in capitals": ("inspect", "--accel", "KVM", "disk.img"),
    "too little memory": ("inspect", "--memory", "1", "disk.img"),
    "negative memory": ("inspect", "--memory", "-1", "disk.img"),
    "memory is no number": ("inspect", "--memory", "much", "disk.img"),
    "sector size": ("inspect", "--sector-size", "2048", "disk.img"),
    "no sector size": ("inspect", "--sector-size", "0", "disk.img"),
    "sector size is no number": ("inspect", "--sector-size", "4k", "disk.img"),
    "no time": ("inspect", "--timeout", "0", "disk.img"),
    "negative time": ("inspect", "--timeout", "-1", "disk.img"),
    "time is no number": ("inspect", "--timeout", "long", "disk.img"),
    "option without its value": ("inspect", "disk.img", "--memory"),
    "build with too little memory": ("appliance", "build", "--memory", "1"),
    "too many images": ("inspect", *["disk.img"] * 65),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage(place: Place, case: str) -> None:
    (place.folder / "disk.img").write_bytes(b"x" * 512)
    place.fails(2, *USAGE[case])


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300"])
def test_time_that_is_no_limit(place: Place, seconds: str) -> None:
    place.fails(2, "inspect", "--timeout", seconds, "missing.img")


def test_memory_beyond_any_host(place: Place) -> None:
    place.fails(2, "inspect", "--memory", str(2**60), "missing.img")


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_log_that_exists(place: Place, kind: str) -> None:
    path = place.folder / "log\x1b[31m"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to("nowhere")
    place.fails(2, "inspect", "--keep-log", path, "missing.img")
    assert kind != "file" or path.read_text() == "precious"


def test_log_with_a_name_that_cannot_be(place: Place) -> None:
    place.fails(3, "inspect", "--keep-log", "x" * 300, "missing.img")


def test_usage_message_says_what_is_possible(place: Place) -> None:
    assert "auto, kvm, tcg" in place.fails(2, "inspect", "--accel", "hvf", "x")
    assert "256" in place.fails(2, "inspect", "--memory", "255", "x")
    assert "512, 4096" in place.fails(2, "inspect", "--sector-size", "2048", "x")


@pytest.mark.parametrize(("size", "padded"), [(512, 512), (4097, 4608), (8704, 8704)])
def test_disk_that_has_no_whole_sectors(place: Place, size: int, padded: int) -> None:
    (place.folder / "first.img").write_bytes(bytes(8192))
    (place.folder / "odd.img").write_bytes(b"x" * size)
    message = place.refused("--sector-size", "4096", "first.img", "odd.img")
    assert f"odd.img: a disk of {padded} bytes cannot have sectors of 4096" in message
    assert "first.img" not in message


# --- evidence -----------------------------------------------------------------------------------


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def test_missing_file(place: Place) -> None:
    message = place.refused("missing.img")
    assert "missing.img: does not exist" in message
    assert "hint: check the name" in message


def test_second_image_is_missing(place: Place) -> None:
    (place.folder / "disk.img").write_bytes(b"x" * 512)
    assert "missing.img: does not exist" in place.refused("disk.img", "--add", "missing.img")


def test_folder(place: Place) -> None:
    assert "is a folder, not a regular file" in place.refused(place.folder)


def test_empty_file(place: Place) -> None:
    (place.folder / "empty.img").touch()
    assert "is empty" in place.refused("empty.img")


def test_dangling_link(place: Place) -> None:
    (place.folder / "link.img").symlink_to("nowhere")
    assert "does not exist" in place.refused("link.img")


def test_link_to_itself(place: Place) -> None:
    (place.folder / "loop.img").symlink_to("loop.img")
    place.refused("loop.img")


def test_fifo(place: Place) -> None:
    os.mkfifo(place.folder / "pipe")
    assert "is a named pipe" in place.refused("pipe")


def test_socket(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.folder / "socket"))
        assert "is a socket" in place.refused("socket")


def test_device(place: Place) -> None:
    assert "is a character device" in place.refused("/dev/zero")


@pytest.mark.parametrize("name", ["", "\n", "x" * 300, "/" * 5000])
def test_name_that_cannot_be(place: Place, name: str) -> None:
    place.refused(name)


def test_file_of_another_user(place: Place) -> None:
    path = place.folder / "secret.img"
    path.write_bytes(b"x" * 512)
    path.chmod(0o000)
    user = NOBODY if os.geteuid() == 0 else None
    assert "secret.img: may not be read by this user" in place.refused("secret.img", user=user)


def test_file_of_another_user_with_a_hostile_name(place: Place) -> None:
    path = Path(os.fsdecode(os.fsencode(place.folder) + b"/" + NAME))
    path.touch(mode=0o000)
    assert SHOWN in place.refused(NAME, user=NOBODY if os.geteuid() == 0 else None)


def test_truncated_qcow2(place: Place) -> None:
    path = place.folder / "cut.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1G")
    os.truncate(path, 70_000)
    assert "truncated" in place.refused("cut.qcow2")


def test_missing_extent_is_named(place: Place) -> None:
    path = place.folder / "disk.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "4M")
    (place.folder / "disk-flat.vmdk").unlink()
    message = place.refused("disk.vmdk")
    assert "disk-flat.vmdk: does not exist" in message
    assert "named as the extent of disk.vmdk" in message


def test_extent_elsewhere(place: Place) -> None:
    path = place.folder / "disk.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "4M")
    path.write_bytes(path.read_bytes().replace(b"disk-flat.vmdk", b"/etc/passwd"))
    assert "/etc/passwd" in place.refused("disk.vmdk")


def test_backing_file(place: Place) -> None:
    qemu_img("create", "-q", "-f", "raw", place.folder / "base.raw", "1M")
    overlay = place.folder / "overlay.qcow2"
    backing = ("-b", place.folder / "base.raw", "-F", "raw")
    qemu_img("create", "-q", "-f", "qcow2", *backing, overlay)
    (place.folder / "base.raw").unlink()
    message = place.refused("overlay.qcow2")
    assert "base.raw" in message
    assert "--allow-dir" in message


def test_backing_file_elsewhere(place: Place, tmp_path: Path) -> None:
    base = tmp_path / "elsewhere.raw"
    qemu_img("create", "-q", "-f", "raw", base, "1M")
    overlay = place.folder / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
    message = place.refused("overlay.qcow2")
    assert f"{base}" in message
    assert "outside" in message


def test_external_data_file(place: Place) -> None:
    options = f"data_file={place.folder / 'data.raw'}"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, place.folder / "disk.qcow2", "1M")
    (place.folder / "data.raw").unlink()
    assert "data.raw" in place.refused("disk.qcow2")


@pytest.mark.parametrize("exists", [False, True])
def test_hostile_name_is_escaped(place: Place, exists: bool) -> None:
    if exists:
        Path(os.fsdecode(os.fsencode(place.folder) + b"/" + NAME)).touch()
    message = place.refused(NAME)
    assert f"forensic: error: {SHOWN}: " in message
    assert ("is empty" if exists else "does not exist") in message


def test_hostile_name_in_a_descriptor_is_escaped(place: Place) -> None:
    path = place.folder / "disk.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "4M")
    path.write_bytes(path.read_bytes().replace(b"disk-flat.vmdk", b"\x1b[31m\xe2\x80\xae.vmdk"))
    place.refused("disk.vmdk")


@pytest.mark.parametrize("option", ["--nonsense\x1b[31m", "--accel=\x1b[31m", "--memory=\x1b[31m"])
def test_hostile_option_does_no_harm(place: Place, option: str) -> None:
    """A script may pass on words that it did not choose."""
    ended = place.forensic("inspect", option, "disk.img")
    assert ended.status == 2
    assert ended.stdout == b""


def test_nothing_is_left(place: Place) -> None:
    place.refused("missing.img")
    assert list(place.folder.iterdir()) == []


def test_json_does_not_change_what_an_error_is(place: Place) -> None:
    place.refused("--json", "missing.img")


def test_messages_can_be_lost(place: Place) -> None:
    """Standard error is closed: the status tells all the same."""
    command = f"exec {FORENSIC} inspect missing.img 2>&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env=place.environment,
        cwd=place.folder,
        capture_output=True,
        check=False,
    )
    assert done.stdout == b""
    assert done.returncode in {3, 1}


# --- the appliance's own commands ---------------------------------------------------------------


def test_nothing_is_built(place: Place) -> None:
    ended = place.forensic("appliance", "status")
    assert ended.status == 4
    assert b"not ready: run `forensic appliance build`" in ended.stdout
    ended = place.forensic("appliance", "verify")
    assert ended.status == 4
    assert "no appliance has been built" in ended.stderr


def test_status_as_json(place: Place) -> None:
    ended = place.forensic("appliance", "status", "--json")
    assert ended.status == 4
    assert b'"schema": "forensic.appliance/1"' in ended.stdout


def test_sigterm(place: Place) -> None:
    process = subprocess.Popen(
        [FORENSIC, "doctor"],
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode != 0
    assert b"Traceback" not in stderr
