"""Whatever a file holds: an answer or an ImageError, and nothing else.

FORENSIC_FUZZ_CASES sets how many cases each test tries (default 300), here and in
test_fuzz_references.py.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images import detect, qcow2_header, raw, vmdk, vmdk_descriptor, vmdk_sparse
from images.errors import ImageError
from images.image import open_image

from .conftest import listing

CASES = int(os.environ.get("FORENSIC_FUZZ_CASES", "300"))
BUDGET = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
pytestmark = pytest.mark.timeout(max(300, CASES // 10))
MAGICS = [b"", b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\2", b"KDMV\1\0\0\0\3\0\0\0", b"COWD"]
PARSERS = [
    detect.detect,
    raw.parse,
    qcow2_header.parse,
    vmdk_sparse.parse,
    vmdk.parse_single,
    vmdk.parse_text,
]
KEYS = st.sampled_from(
    [
        "# Disk DescriptorFile",
        "version=1",
        "CID=1",
        "parentCID=ffffffff",
        'createType="twoGbMaxExtentFlat"',
        'createType="twoGbMaxExtentSparse"',
        'createType="monolithicFlat"',
        "\0",
    ]
)
EXTENTS = st.builds(
    '{} {} {} "{}" {}'.format,
    st.sampled_from(["RW", "RDONLY", "NOACCESS", "rw"]),
    st.integers(-1, 1 << 70),
    st.sampled_from(["FLAT", "SPARSE", "ZERO", "VMFS"]),
    st.text(max_size=20),
    st.one_of(st.just(""), st.integers(-1, 1 << 70)),
)
DESCRIPTORS = st.lists(st.one_of(KEYS, EXTENTS, st.text(max_size=30)), max_size=12).map(
    lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
)
NOISE = st.builds(bytes.__add__, st.sampled_from(MAGICS), st.binary(max_size=2048))


def survives(parser, *arguments) -> None:
    try:
        parser(*arguments)
    except ImageError as error:
        text = str(error) + error.hint
        assert text.isprintable()


@pytest.mark.parametrize("parser", PARSERS)
@BUDGET
@given(data=st.one_of(NOISE, DESCRIPTORS))
def test_noise(parser, data, bytes_source):
    survives(parser, bytes_source(data))


@pytest.fixture(scope="session")
def heads(variants) -> dict[str, tuple[bytes, int]]:
    """The metadata at the start of real images, and their full length."""
    names = ("qcow2-v2", "qcow2-v3", "qcow2-512", "qcow2-compressed", "vmdk-sparse", "vmdk-stream")
    return {name: (variants[name].read_bytes()[:300_000], 300_000) for name in names}


CHANGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 112), st.integers(0, 299_000)),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\x80"]),
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize(
    "name",
    ["qcow2-v2", "qcow2-v3", "qcow2-512", "qcow2-compressed", "vmdk-sparse", "vmdk-stream"],
)
@BUDGET
@given(changes=CHANGES, length=st.one_of(st.none(), st.integers(0, 300_000)))
def test_changed_headers(name, changes, length, heads, bytes_source):
    data = bytearray(heads[name][0])
    for offset, patch in changes:
        data[offset : offset + len(patch)] = patch
    source = bytes_source(bytes(data)[:length])
    survives(detect.detect, source)
    survives(qcow2_header.parse if name.startswith("qcow2") else vmdk.parse_single, source)


@BUDGET
@given(data=st.one_of(NOISE, DESCRIPTORS, st.binary(max_size=600)))
def test_open_image(data, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(data)
    (tmp_path / "a").write_bytes(b"x" * 512)
    before = len(listing("/proc/self/fd"))
    with ExitStack() as stack:
        survives(lambda: open_image(path, stack=stack))
    assert len(listing("/proc/self/fd")) == before


@BUDGET
@given(name=st.text(max_size=300))
def test_open_image_by_any_name(name):
    with ExitStack() as stack:
        survives(lambda: open_image(Path("/nonexistent/" + name), stack=stack))


@BUDGET
@given(data=DESCRIPTORS)
def test_descriptor(data, bytes_source):
    survives(vmdk_descriptor.parse, bytes_source(b""), data)
