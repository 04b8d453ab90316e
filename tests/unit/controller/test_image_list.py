"""The list of images in file systems, as it is printed and as it is typed in again."""

from __future__ import annotations

import shlex

import pytest

from appliance.image import ImageFacts, ImageFile, NestedImage
from appliance.protocol import Wanted
from controller.errors import UsageError
from controller.image_list import about, lines
from controller.report import Page
from controller.settings import Settings
from images.quoting import shown, unshown

PAGE = Page("utf-8", None, verbose=False)
KIB = 1024


def image(path: bytes, kind: str = "qcow2", content: str | None = None) -> NestedImage:
    address = f"lvg1/lvroot:{shown(path)}"
    text = path.decode("utf-8", "replace")
    size = None if kind == "ambiguous" else 5 * KIB * KIB
    return NestedImage("lvg1/lvroot", address, text, None, kind, content, size, 700 * KIB, 36 * KIB)


def test_table() -> None:
    images = [image(b"/a.qcow2"), image(b"/b c", "raw", "dos"), image(b"/d", "ambiguous")]
    assert lines(images, PAGE.show, PAGE.show_own) == [
        "Disk images in file systems (3)",
        "  FORMAT      DISK     FILE  ALLOCATED  OPEN IT WITH",
        "  qcow2      5 MiB  700 KiB     36 KiB  --open lvg1/lvroot:/a.qcow2",
        "  raw, dos   5 MiB  700 KiB     36 KiB  --open 'lvg1/lvroot:/b c'",
        "  ambiguous      -  700 KiB     36 KiB  --open lvg1/lvroot:/d",
    ]
    assert lines([], PAGE.show, PAGE.show_own) == []


@pytest.mark.parametrize(
    "path",
    [b"/a\nb", b"/\x1b[31m", b"/\xff\xfe", b"/back\\slash", b"/it's", "/\u202e\u00fc".encode()],
)
def test_what_is_printed_can_be_typed(path: bytes) -> None:
    line = lines([image(path)], PAGE.show, PAGE.show_own)[-1]
    assert line.isprintable()
    _, word = shlex.split(line[line.index("--open") :])
    assert unshown(word) == b"lvg1/lvroot:" + path


def test_about_an_opened_image() -> None:
    files = [ImageFile("/a", 1), ImageFile("/b", 2)]
    facts = ImageFacts("qcow2", ["raw /b"], files)
    assert about(facts, PAGE.show) == ["image in the format qcow2", "on raw /b", "2 files"]
    many = ImageFacts("qcow2", [f"qcow2 /{number}" for number in range(6)], files[:1])
    assert about(many, PAGE.show)[-1] == "and on 2 more"
    assert about(None, PAGE.show) == []


@pytest.mark.parametrize("word", ["", "disk0", "disk0:", "/a", "x" * 5000 + ":/a"])
def test_words_that_name_no_file(word: str) -> None:
    with pytest.raises(UsageError, match="ADDRESS:/PATH"):
        Settings(wanted=Wanted(open=[word]))


def test_too_many_words() -> None:
    with pytest.raises(UsageError, match="64 times"):
        Settings(wanted=Wanted(open=["disk0:/a"] * 65))
