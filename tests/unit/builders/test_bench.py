"""The benchmark's disk, in a small edition."""

import json
import random
from pathlib import Path

from tests.builders import bench
from tests.builders.command import run


def test_sizes_add_up() -> None:
    sizes = bench.file_sizes(6000, random.Random(1))
    assert 0.95 * bench.CONTENT_SIZE < sum(sizes) <= bench.CONTENT_SIZE
    assert sizes == bench.file_sizes(6000, random.Random(1))


def test_bench_image(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bench, "CONTENT_SIZE", 3_000_000)
    image = bench.make_bench_image(tmp_path / "bench.qcow2", files=100)
    info = json.loads(run("qemu-img", "info", "--output=json", image))
    assert info["format"] == "qcow2"
    assert info["virtual-size"] == 2 * 1024**3
    assert list(tmp_path.iterdir()) == [image]

    raw = tmp_path / "raw"
    run("qemu-img", "convert", "-O", "raw", image, raw)
    table = json.loads(run("sfdisk", "--json", raw))["partitiontable"]["partitions"]
    assert [row["type"] for row in table] == ["82", "8e"]
    listing = run("grub-fstest", raw, "ls", "(lvm/lvg1-lvroot)/").decode().split()
    assert listing == ["lost+found/", *sorted(f"area{number}/" for number in range(10))]
