"""What the exporter serves, in which surroundings, and how it fails."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from images import exporter
from images.detect import Format
from images.exporter import exported

from .conftest import DISK_SIZE, VARIANTS, listing, qemu_of, streamed

ROOT = {"bin", "dev", "lib", "lib32", "lib64", "run", "sbin", "usr"}


def fetch(export, target: Path) -> bytes:
    url = f"nbd+unix:///{export.name}?socket={export.socket}"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", url, str(target)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


def served(image, folder: Path) -> bytes:
    with exported(image.plan, folder, name="disk0") as export:
        assert export.size == image.virtual_size
        content = fetch(export, folder / "out.raw")
    assert not export.socket.exists()
    return content


@pytest.mark.parametrize("name", VARIANTS)
def test_every_format_is_served_byte_for_byte(name, variants, disk, opened, run_folder):
    image = opened(variants[name])
    assert image.format == name.split("-")[0]
    assert image.virtual_size == DISK_SIZE
    assert served(image, run_folder) == disk.read_bytes()
    assert all(file.changes() == [] for file in image.files)


def test_raw_is_served_byte_for_byte(disk, opened, run_folder):
    assert served(opened(disk), run_folder) == disk.read_bytes()


@pytest.mark.parametrize("size", [1, 511, 513])
def test_odd_sizes_are_filled_up_to_a_sector(size, tmp_path, opened, run_folder):
    path = tmp_path / "odd"
    path.write_bytes(b"x" * size)
    image = opened(path)
    assert "multiple of 512" in image.notes[0]
    assert served(image, run_folder) == (b"x" * size).ljust(image.virtual_size, b"\0")


def test_stream_with_a_footer_as_vmware_writes_it(variants, disk, tmp_path, opened, run_folder):
    path = tmp_path / "disk.vmdk"
    path.write_bytes(streamed(variants["vmdk-stream"].read_bytes()))
    assert served(opened(path), run_folder) == disk.read_bytes()


def test_declared_raw_is_never_interpreted(variants, opened, run_folder):
    path = variants["qcow2-v3"]
    content = served(opened(path, declared=Format.RAW), run_folder)
    assert content == path.read_bytes().ljust(len(content), b"\0")


def test_zero_extents_keep_their_place(tmp_path, opened, run_folder):
    (tmp_path / "a").write_bytes(b"a" * 1024)
    (tmp_path / "b").write_bytes(b"-" * 512 + b"b" * 512)
    path = tmp_path / "disk.vmdk"
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="twoGbMaxExtentFlat"\n'
        'RW 1 FLAT "a" 0\nRW 4194304 ZERO\nRDONLY 1 FLAT "b" 1\n'
    )
    image = opened(path)
    assert image.virtual_size == (4194304 + 2) * 512
    with exported(image.plan, run_folder, name="disk0") as export:
        url = f"nbd+unix:///disk0?socket={export.socket}"
        read = ["-c", "read -P 97 0 512", "-c", "read -P 0 512 1M", "-c", "read -P 98 2G+ 512"]
        read[-1] = f"read -P 98 {4194305 * 512} 512"
        result = subprocess.run(
            ["qemu-io", "-r", "-f", "raw", *read, url], check=True, capture_output=True, text=True
        )
    assert "verification failed" not in result.stdout


def test_many_extents(tmp_path, opened, run_folder):
    lines = ["# Disk DescriptorFile", "version=1", 'createType="twoGbMaxExtentFlat"']
    for number in range(200):
        (tmp_path / f"part{number}").write_bytes(bytes([number]) * 512)
        lines.append(f'RW 1 FLAT "part{number}" 0')
    path = tmp_path / "disk.vmdk"
    path.write_text("\n".join(lines) + "\n")
    content = served(opened(path), run_folder)
    assert content == b"".join(bytes([number]) * 512 for number in range(200))


def test_several_exports_of_one_image(variants, disk, opened, run_folder):
    image = opened(variants["qcow2-v3"])
    with (
        exported(image.plan, run_folder, name="a") as one,
        exported(image.plan, run_folder, name="b") as two,
    ):
        assert fetch(one, run_folder / "1") == fetch(two, run_folder / "2") == disk.read_bytes()


@pytest.mark.parametrize("name", ["qcow2-v3", "vmdk-split-sparse"])
def test_sandbox_holds_nothing_but_the_evidence(name, variants, opened, run_folder):
    image = opened(variants[name])
    with exported(image.plan, run_folder, name="disk0") as export:
        process = qemu_of(export)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        assert status["Uid"].split()[0] != "0"
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"
        assert listing(process / "root/dev") == ["null"]
        assert listing(process / "root/run") == []
        assert set(listing(process / "root")) <= ROOT
        links = {fd: str((process / "fd" / fd).readlink()) for fd in listing(process / "fd")}
        evidence = {str(file.resolved) for file in image.files}
        for fd, target in links.items():
            plain = target.startswith(("socket:", "pipe:", "anon_inode:"))
            assert plain or target in {"/dev/null", "/memfd:image (deleted)", *evidence}
            if target in evidence:
                flags = (process / "fdinfo" / fd).read_text().split("flags:")[1].split()[0]
                assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def test_text_descriptor_never_reaches_the_parser(variants, opened, run_folder):
    image = opened(variants["vmdk-split-flat"])
    with exported(image.plan, run_folder, name="disk0") as export:
        process = qemu_of(export)
        links = {str((process / "fd" / fd).readlink()) for fd in listing(process / "fd")}
    assert str(image.files[0].resolved) not in links
    assert str(image.files[1].resolved) in links


def test_export_cannot_be_written(variants, opened, run_folder):
    path = variants["qcow2-v3"]
    before = path.read_bytes()
    with exported(opened(path).plan, run_folder, name="disk0") as export:
        url = f"nbd+unix:///disk0?socket={export.socket}"
        command = ["qemu-io", "-f", "raw", "-c", "write 0 512", url]
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert path.read_bytes() == before


def test_times_of_the_evidence_stay(variants, opened, run_folder, tmp_path):
    path = tmp_path / "copy"
    shutil.copy(variants["qcow2-compressed"], path)
    os.utime(path, (10**9, 10**9))
    before = path.stat()
    image = opened(path)
    assert path.stat() == before
    assert image.files[0].read(0, 100)
    served(image, run_folder)
    after = path.stat()
    # QEMU takes O_NOATIME off its descriptor, so the access time needs a read-only mount.
    for field in ("st_mtime_ns", "st_ctime_ns", "st_size"):
        assert getattr(after, field) == getattr(before, field)


DROP_SCRIPT = """
import os, sys, subprocess
from contextlib import ExitStack
from pathlib import Path
from images.exporter import exported
from images.image import open_image
path, folder = map(Path, sys.argv[1:])
before = path.stat()
with ExitStack() as stack:
    image = open_image(path, stack=stack)
    # drop
    with exported(image.plan, folder, name="d") as export:
        url = f"nbd+unix:///d?socket={export.socket}"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", url, folder / "out"],
                       check=True)
    # after
"""
CELL_SCRIPT = DROP_SCRIPT.replace("# after", "assert image.files[0].changes() == []")
CELL_SCRIPT += "assert path.stat() == before\n"


def test_file_that_only_root_could_open(variants, disk):
    if os.geteuid() != 0:
        pytest.skip("needs root, to give it up")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        program = DROP_SCRIPT.replace(
            "# drop", "os.setgroups([]); os.setgid(1234); os.setuid(1234)"
        )
        command = [sys.executable, "-c", program, str(variants["qcow2-v3"]), folder]
        environment = {**os.environ, "PYTHONPATH": str(Path(exporter.__file__).parents[1])}
        subprocess.run(command, check=True, timeout=60, env=environment, cwd="/")
        assert (Path(folder) / "out").read_bytes() == disk.read_bytes()


def test_in_a_cell_as_another_account_even_the_access_time_stays(
    variants, disk, run_folder, tmp_path
):
    path = tmp_path / "copy"
    shutil.copy(variants["qcow2-v3"], path)
    os.utime(path, (10**9, 10**9))
    cell = "bwrap --unshare-user --uid 1234 --gid 1234 --unshare-pid --unshare-net --unshare-ipc"
    cell += " --unshare-uts --die-with-parent --ro-bind / / --dev /dev --proc /proc --tmpfs /run"
    program = [sys.executable, "-c", CELL_SCRIPT, str(path), str(run_folder)]
    command = [*cell.split(), "--bind", str(run_folder), str(run_folder), "--", *program]
    environment = {**os.environ, "PYTHONPATH": str(Path(exporter.__file__).parents[1])}
    subprocess.run(command, check=True, timeout=60, env=environment, cwd="/")
    assert (run_folder / "out").read_bytes() == disk.read_bytes()


def test_start_takes_well_under_100_ms(variants, opened, run_folder):
    times = []
    for _ in range(9):
        begin = time.monotonic()
        with exported(opened(variants["qcow2-v3"]).plan, run_folder, name="disk0"):
            times.append(time.monotonic() - begin)
    assert statistics.median(times) < 0.1


def test_many_reads_at_once_do_not_fail(tmp_path, opened, run_folder):
    """Small clusters make QEMU use all of its threads, which must fit into its limits."""
    raw = tmp_path / "many.raw"
    raw.write_bytes(os.urandom(3 << 20))
    image = tmp_path / "many.qcow2"
    command = ["qemu-img", "convert", "-O", "qcow2", "-o", "cluster_size=512", raw, image]
    subprocess.run(command, check=True)
    with exported(opened(image).plan, run_folder, name="disk0") as export:
        for _ in range(20):
            target = tmp_path / "copy.raw"
            url = f"nbd+unix:///disk0?socket={export.socket}"
            command = ["qemu-img", "convert", "-m", "16", "-f", "raw", "-O", "raw", url, target]
            done = subprocess.run(command, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
    assert target.read_bytes() == raw.read_bytes()
