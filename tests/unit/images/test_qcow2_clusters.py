"""The clusters of an overlay that is not what it should be."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import qcow2_header
from images.errors import ImageError
from images.evidence import opened
from images.qcow2_clusters import Cluster, clusters
from images.qcow2_output import CLUSTER, overlay

SIZE = 10 * CLUSTER
L1, L2, DATA = 3 * CLUSTER, 4 * CLUSTER, 5 * CLUSTER
COPIED = 1 << 63


def found(path: Path, l1: int, entries: dict[int, int], length: int = 8 * CLUSTER) -> list[Cluster]:
    image = bytearray(overlay(SIZE, None, "").ljust(length, b"\0"))
    struct.pack_into(">8H", image, 2 * CLUSTER, *([1] * (length // CLUSTER)))
    struct.pack_into(">Q", image, L1, l1)
    for number, entry in entries.items():
        struct.pack_into(">Q", image, L2 + 8 * number, entry)
    path.write_bytes(image)
    with opened(path) as file:
        return list(clusters(file, qcow2_header.parse(file)))


def test_sound(tmp_path: Path) -> None:
    assert found(tmp_path / "x", L2 | COPIED, {1: DATA | COPIED, 9: 1}) == [
        Cluster(CLUSTER, CLUSTER, DATA),
        Cluster(9 * CLUSTER, CLUSTER, None),
    ]


@pytest.mark.parametrize(
    ("l1", "entries"),
    [
        (L2 + 512, {}),
        (8 * CLUSTER, {}),
        (L2 | 1, {}),
        (L2, {1: DATA + 512}),
        (L2, {1: 8 * CLUSTER}),
        (L2, {1: 1 << 55}),
        (L2, {1: DATA | 2}),
        (L2, {1: DATA | 1 << 62}),
        (L2, {10: DATA | COPIED}),
    ],
)
def test_refused(tmp_path: Path, l1: int, entries: dict[int, int]) -> None:
    with pytest.raises(ImageError):
        found(tmp_path / "x", l1, entries)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(0, 2**64 - 1), st.dictionaries(st.integers(0, 8191), st.integers(0, 2**64 - 1)))
def test_any_numbers(tmp_path: Path, l1: int, entries: dict[int, int]) -> None:
    for first in (l1, L2):
        try:
            own = found(tmp_path / "x", first, entries)
        except ImageError:
            continue
        for each in own:
            assert 0 <= each.start < SIZE
            assert each.place is None or each.place + CLUSTER <= 8 * CLUSTER
