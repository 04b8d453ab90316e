"""Which image a word means, what is told of those that are not there, and how deep it goes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from appliance.agent import nested as module
from appliance.agent.device import Device
from appliance.agent.image_search import Candidate
from appliance.agent.nested import MAX_DEPTH, NestedImages, _canonical, _described
from appliance.agent.outcome import Outcome
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem, Work
from appliance.image import ImageFacts, NestedImage
from appliance.layer import MAX_TEXT, Content, Finding, Kind, Layer, Status
from appliance.protocol import Body, Wanted
from tests.builders.qcow2 import Qcow2


def file_system(address: str, kind: str = "none of them") -> FileSystem:
    device = Device("/dev/null", -1, 512, 512)
    volume = Volume(address, Kind.DISK, [], None, 512, device, 0, "/dev/null")
    return FileSystem(volume, Content(kind))


def images(said: list[Body], *words: str) -> tuple[NestedImages, Outcome]:
    outcome = Outcome(said.append)
    work = Work(outcome, ExitStack(), wanted=Wanted(open=list(words)))
    return NestedImages(work), outcome


def findings(said: list[Body]) -> list[tuple[str | None, str]]:
    return [(each.layer, each.code) for each in said if isinstance(each, Finding)]


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("disk0:/a", "disk0:/a"),
        ("disk0://a//./b/", "disk0:/a/b"),
        ("disk0:/a/../b", "disk0:/a/../b"),
        ("a:/b/p1:/c", "a:/b/p1:/c"),
        ("a:/x\\y", r"a:/x\\y"),
        (r"a:/x\\y", r"a:/x\\y"),
        ("a:/x\ny", r"a:/x\x0ay"),
        (r"a:/x\x0ay", r"a:/x\x0ay"),
        (r"a:/\xff", r"a:/\xff"),
    ],
)
def test_words_as_addresses(word: str, address: str) -> None:
    assert _canonical(word) == address
    assert _canonical(address) == address


def test_missing_file_system() -> None:
    said: list[Body] = []
    nested, _ = images(said, "disk1:/a", "disk0/p1:/a", "disk1:/a")
    assert nested.open_wanted([file_system("disk0")]) == []
    assert said == []
    nested.tell_missing()
    assert findings(said) == [(None, "no-such-image")] * 2


def test_file_system_that_cannot_be_mounted() -> None:
    said: list[Body] = []
    nested, _ = images(said, "disk0:/a", "disk0:/b")
    assert nested.open_wanted([file_system("disk0")]) == []
    nested.tell_missing()
    assert findings(said) == [("disk0", "not-opened")] * 2
    nested.list_all([file_system("disk0")])
    assert findings(said)[2:] == [("disk0", "not-searched")]


def test_depth() -> None:
    said: list[Body] = []
    name, parents = "disk0", list[str]()
    nested, outcome = images(said, "deep:/a")
    outcome.add(Layer(name, Kind.DISK, parents, None, 1, Status.MAPPED))
    for number in range(MAX_DEPTH):
        image: dict[str, Any] = {"image": ImageFacts("raw")}
        layer = Layer(f"image{number}", Kind.DISK, [name], None, 1, Status.MAPPED, **image)
        outcome.add(layer)
        name = layer.address
    assert outcome.depth(name) == MAX_DEPTH
    # A group takes it on, whatever it is called.
    outcome.add(Layer("deep", Kind.VOLUME_GROUP, ["disk0", name], None, 1, Status.MAPPED))
    said.clear()
    nested.open_wanted([file_system("deep")])
    assert findings(said) == [("deep", "not-opened")]
    assert "8 images already" in str(said)


def test_description() -> None:
    found = Candidate(b"/a\xff\n", "raw", "dos", 5, 5, 0)
    image = _described("disk0", found)
    assert image is not None
    assert (image.path, image.path_base64) == ("/a\ufffd\n", "L2H/Cg==")
    assert image.address == r"disk0:/a\xff\x0a"
    long = Candidate(b"/" + b"\n" * (MAX_TEXT // 4), "raw", "dos", 5, 5, 0)
    assert _described("disk0", long) is None


def test_no_more_than_the_host_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LISTED", 3)
    for number in range(5):
        (tmp_path / f"{number}.qcow2").write_bytes(Qcow2().build())
    said: list[Body] = []
    nested, _ = images(said)
    # As if it were mounted.
    nested._mounts["disk0"] = tmp_path
    nested.list_all([file_system("disk0")])
    assert len([each for each in said if isinstance(each, NestedImage)]) == 3
    assert findings(said) == [("disk0", "search-limit")]
