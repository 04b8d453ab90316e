"""The graph that QEMU is told: each node with its driver, and no name from an image."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from appliance.agent.block_options import BlockOptions
from images.image import open_image
from tests.builders.qcow2 import Qcow2
from tests.builders.vmdk_chain import Ids, random_layer, write_split

MIB = 1 << 20


def graph(path: Path, stack: ExitStack) -> tuple[dict[str, object], BlockOptions]:
    plan = open_image(path, stack=stack).plan
    options = BlockOptions(plan.files, stack)
    name = options.name(plan.top)
    assert name.startswith("json:")
    return json.loads(name.removeprefix("json:")), options


def test_chain_of_qcow2(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(MIB))
    image = Qcow2(MIB, backing=b"base", backing_format=b"raw")
    (tmp_path / "top").write_bytes(image.build())
    with ExitStack() as stack:
        found, options = graph(tmp_path / "top", stack)
        first, second = options.descriptors

        def file(descriptor: int) -> dict[str, object]:
            return {
                "driver": "file",
                "filename": f"/proc/self/fd/{descriptor}",
                "locking": "off",
                "read-only": True,
                "auto-read-only": False,
            }

        assert found == {
            "driver": "qcow2",
            "read-only": True,
            "auto-read-only": False,
            "l2-cache-size": 1048576,
            "refcount-cache-size": 262144,
            "file": file(first),
            "backing": {
                "driver": "raw",
                "read-only": True,
                "auto-read-only": False,
                "file": file(second),
            },
        }


def test_no_backing_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "top").write_bytes(Qcow2(MIB).build())
    with ExitStack() as stack:
        assert graph(tmp_path / "top", stack)[0]["backing"] is None


def test_split_vmdk_has_a_descriptor_of_ours(tmp_path: Path) -> None:
    layer = random_layer(1, 4 * MIB)
    path = write_split(tmp_path / "a.vmdk", 4 * MIB, 2 * MIB, layer, Ids(own=1))
    with ExitStack() as stack:
        found, options = graph(path, stack)
        assert found["driver"] == "vmdk"
        source = found["file"]
        assert isinstance(source, dict)
        text = Path(str(source["filename"])).read_text()
    assert len(options.descriptors) == 3
    assert "a-s001" not in text
    for descriptor in options.descriptors[:2]:
        assert f'RW 4096 SPARSE "/proc/self/fd/{descriptor}"' in text
