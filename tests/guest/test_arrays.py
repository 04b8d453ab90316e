"""RAID with a real guest: made by mdadm, whose words about its members are what counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from controller.base import RECIPE, find
from controller.store import Store
from tests.builders.md import INNER_UUID, copy_disk, make_arrays
from tests.guest.conftest import Run, inspect


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], str]:
    base = find(Store())
    assert base
    return make_arrays(base, RECIPE, tmp_path_factory.mktemp("md"))


@pytest.fixture(scope="module")
def whole(made: tuple[list[Path], str]) -> Run:
    return inspect("--hash", "none", *made[0], timeout=300)


@pytest.fixture(scope="module")
def part(made: tuple[list[Path], str]) -> Run:
    """Without disks 0 and 3, one of each firmware RAID, and with a copy of a mirror."""
    disks = made[0]
    copies = [copy_disk(disks[number], f"copy{number}.raw") for number in (4, 5)]
    chosen = [disks[number] for number in (1, 2, 4, 5)]
    rest = [disks[number] for number in (6, 7, 10, 11)]
    return inspect("--hash", "none", *chosen, *copies, *rest, timeout=300)


def examined(text: str) -> dict[str, dict[str, str]]:
    """What `mdadm --examine --export` said, by the member's name, and lines of --examine."""
    found = {}
    for name, words in re.findall(r"EXAMINE (\w+)\r?\n(.*?)END", text, re.DOTALL):
        rows = re.findall(r"^ *([\w ]+?) *[:=] *(.*?)\r?$", words, re.MULTILINE)
        found[name] = {key: value for key, value in rows if value}
    return found


def labels(run: Run) -> dict[str, str | None]:
    return {
        address: layer["content"] and layer["content"]["label"]
        for address, layer in run.layers().items()
        if layer["kind"] == "array" or address.startswith("md10/p")
    }


def array(run: Run, name: str) -> dict[str, Any]:
    (found,) = [
        layer["array"]
        for layer in run.layers().values()
        if layer["array"] and layer["array"]["name"] == name
    ]
    return found


def test_every_level_and_every_metadata_is_opened(whole: Run) -> None:
    assert labels(whole) == {
        "md10": None,
        "md10/p1": "inner",
        "md0": "mirror",
        "md127": "five",
        "md126": "six",
        "md125": "ten",
        "md5": "old",
        "md7": "four",
        "md124": "after",
        "md123": "line",
        "md122": "zero",
        "md121": "intel",
        "md120": "snia",
    }, whole.stderr + str(whole.json["findings"])
    layers = whole.layers()
    assert layers["md10/p1"]["content"]["uuid"] == INNER_UUID
    assert "disk4/p1" not in layers, "what is in a mirror is not shown on its members as well"
    assert layers["md126"]["parents"] == ["disk0/p3", "disk1/p3", "disk2/p3", "disk3/p3"]


def test_facts_are_those_of_mdadm(made: tuple[list[Path], str], whole: Run) -> None:
    layers = whole.layers()
    said = examined(made[1])
    assert len(said) == 10
    for member, words in said.items():
        address = f"disk{ord(member[2]) - ord('a')}" + (f"/p{member[3:]}" if member[3:] else "")
        layer = next(
            layer for layer in layers.values() if layer["array"] and address in layer["parents"]
        )
        facts = layer["array"]
        assert facts["uuid"] == words["MD_UUID"]
        if member != "sda8":  # made linear afterwards
            assert facts["level"] == words["MD_LEVEL"]
        assert facts["devices"] == int(words["MD_DEVICES"])
        assert (facts["name"] or "") == words.get("MD_NAME", "")
        version = words.get("Version", "").removesuffix(".00")
        assert facts["version"] == version
        if facts["level"] not in {"raid0", "linear"}:
            assert facts["layout"] == words.get("Layout")
        (own,) = [each for each in facts["members"] if each["layer"] == address]
        assert own["events"] == int(words["MD_EVENTS"])
        assert own["uuid"] == words.get("MD_DEV_UUID")
        chunk = words.get("Chunk Size", "")
        assert facts["chunk_size"] == (int(chunk.removesuffix("K")) * 1024 if chunk else None)


def test_the_stale_member_is_named(whole: Run) -> None:
    facts = array(whole, "host:stale")
    assert [(m["layer"], m["state"]) for m in facts["members"]] == [
        ("disk0/p7", "active"),
        ("disk1/p7", "stale"),
    ]
    assert facts["missing"] == 1
    found = {(each["layer"], each["code"]) for each in whole.json["findings"]}
    assert ("disk1/p7", "left-out") in found
    assert ("md124", "degraded") in found


def test_the_order_of_intel_disks_is_an_assumption(whole: Run) -> None:
    """The finding is at the disk that was taken for the first."""
    findings = whole.json["findings"]
    (layer,) = [each["layer"] for each in findings if each["code"] == "member-order"]
    assert layer == array(whole, "intel")["members"][0]["layer"]
    assert array(whole, "intel")["layout"] == "la"
    assert array(whole, "snia")["layout"] == "ls"


def test_missing_members_are_done_without(part: Run) -> None:
    """In `part` disk0 is the former disk1, so every first member is missing."""
    layers = part.layers()
    by_name = {
        layer["array"]["name"]: layer for layer in layers.values() if layer["kind"] == "array"
    }
    read = {"host:0": "mirror", "host:five": "five", "host:six": "six", "host:ten": "ten"}
    read |= {"host:7": "four", "snia": "snia", "host:stale": "before"}
    for name, label in read.items():
        assert by_name[name]["content"]["label"] == label, name
        assert by_name[name]["array"]["missing"] >= 1
    assert layers["md5"]["content"]["label"] == "old"
    for name in ("host:zero", "host:line", "intel"):
        assert by_name[name]["status"] == "damaged", name
        assert by_name[name]["content"] is None
    codes = {each["layer"]: each["code"] for each in part.json["findings"]}
    assert [code for code in codes.values() if code == "not-activated"] == ["not-activated"] * 3
    assert part.status == 1


def test_copies_are_told_apart(part: Run) -> None:
    layers = part.layers()
    assert layers["md10@disk2"]["parents"] == ["disk2", "disk3"]
    assert layers["md10@disk4"]["parents"] == ["disk4", "disk5"]
    for name in ("md10@disk2/p1", "md10@disk4/p1"):
        assert layers[name]["content"]["label"] == "inner"
    assert [each["layer"] for each in part.json["findings"] if each["code"] == "copies"] == [
        "md10@disk2",
        "md10@disk4",
    ]


def test_evidence_is_as_before(made: tuple[list[Path], str], whole: Run, part: Run) -> None:
    """A write to an export would be refused and change the file's times all the same, if not."""
    assert {whole.status, part.status} == {1}
    assert "evidence-changed" not in whole.stdout.decode() + part.stdout.decode()
