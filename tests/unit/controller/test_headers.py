"""Detached headers: which file is for which layer, and what is not taken for one."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from controller.errors import EvidenceRefused, UsageError
from controller.headers import MAX_BYTES, DetachedHeader, open_header, read_words
from images.errors import Unreadable


@pytest.fixture
def header(tmp_path: Path) -> Path:
    path = tmp_path / "with:colon"
    path.write_bytes(b"LUKS")
    return path


def test_file_alone_is_for_the_only_disk(header: Path) -> None:
    assert read_words([str(header)], 1) == (DetachedHeader("disk0", header),)
    with pytest.raises(UsageError, match=r"ADDRESS:FILE|does not exist"):
        read_words([str(header)], 2)


@pytest.mark.parametrize("address", ["disk0/p1", "vg/root", "vg/root:/images/a.qcow2/p1"])
def test_colons_in_the_address_and_in_the_name(header: Path, address: str) -> None:
    for images in (1, 2):
        assert read_words([f"{address}:{header}"], images) == (DetachedHeader(address, header),)


@pytest.mark.parametrize("word", ["", ":", "disk0:", ":/nowhere", "disk0:/nowhere", "/nowhere"])
def test_what_names_no_file(word: str) -> None:
    with pytest.raises(UsageError, match="--header"):
        read_words([word], 1)


def test_two_headers_for_one_layer(header: Path) -> None:
    with pytest.raises(UsageError, match="two headers"):
        read_words([f"disk0:{header}", str(header)], 1)


def test_only_small_regular_files_are_opened(tmp_path: Path, header: Path) -> None:
    with ExitStack() as stack:
        opened = open_header(DetachedHeader("disk0", header), stack)
        assert (opened.plan.size, opened.plan.top.driver) == (4, "raw")
        assert os.get_blocking(opened.file.fd) or opened.file.size == 4
        huge = tmp_path / "huge"
        huge.write_bytes(b"")
        os.truncate(huge, MAX_BYTES + 1)
        with pytest.raises(EvidenceRefused, match="64 MiB"):
            open_header(DetachedHeader("disk0", huge), stack)
        os.mkfifo(tmp_path / "pipe")
        for name in ("pipe", "missing", "."):
            with pytest.raises(Unreadable):
                open_header(DetachedHeader("disk0", tmp_path / name), stack)
