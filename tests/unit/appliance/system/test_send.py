"""What is sent of a system arrives as it was, in frames within the limit, however large it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from appliance.agent.outcome import Outcome
from appliance.agent.system.send import Sender
from appliance.layer import MAX_TEXT, Finding, Kind, Layer, Status
from appliance.protocol import Body, SystemPart, encode_reply
from appliance.system import MAX_SYSTEMS, Application, Interface, MountEntry, System, User
from controller.agent_client import _REPLY_BYTES, decode
from controller.errors import GuestHostile
from controller.systems import Systems
from tests.unit.controller.generated import ENCODABLE, systems

EMPTY = System("disk0", "/", "linux")


def received(sent: list[System]) -> tuple[list[System], list[Finding], int]:
    """What the host makes of it, and how many bytes it took."""
    told: list[Body] = []
    sender = Sender(Outcome(told.append))
    for system in sent:
        sender.send(system)
    collected = Systems()
    findings: list[Finding] = []
    total = 0
    for body in told:
        frame = encode_reply(body)
        total += len(frame)
        match decoded := decode(frame[4:]):
            case System():
                collected.add(decoded)
            case SystemPart():
                collected.extend(decoded)
            case Finding():
                findings.append(decoded)
    return collected.found, findings, total


@settings(max_examples=60, deadline=None)
@given(systems(ENCODABLE))
def test_ordinary_systems_arrive_as_they_are(system: System) -> None:
    found, findings, _total = received([system, system])
    assert found == [system, system]
    assert findings == []


def test_thousands_of_packages() -> None:
    packages = [Application(f"package{index}", "1.0", arch="all") for index in range(9000)]
    system = replace(EMPTY, applications=packages)
    found, findings, _total = received([system])
    assert found == [system]
    assert findings == []


@pytest.mark.parametrize("character", ["\0", "\U0001f600", "\ud800", "x"])
def test_the_largest_that_the_types_allow(character: str) -> None:
    """More than the host takes is left out and told, and the rest is still within its limits."""
    text = character * MAX_TEXT
    words = [text] * 64
    system = System(
        "disk0",
        text,
        text,
        product_name=text,
        hostname=text,
        kernels=[text] * 200,
        dns=[text] * 200,
        users=[User(text, text, text, text, text, text)] * 4096,
        mountpoints=[MountEntry(text, text, text, text, text)] * 4096,
        interfaces=[Interface(text, text, words, words, words)] * 5,
        applications=[Application(text, text, text, text, text, text)] * 4096,
    )
    found, findings, total = received([system, system])
    assert len(found) == 2
    assert found[0].users
    assert len(found[0].users) < 4096
    assert {each.code for each in findings} == {"system-limit"}
    assert total < _REPLY_BYTES


def test_half_a_surrogate_pair_is_replaced() -> None:
    system = replace(EMPTY, hostname="a\ud800b", users=[User("\udfff", "1")])
    found, _findings, _total = received([system])
    assert (found[0].hostname, found[0].users[0].name) == ("a\ufffdb", "\ufffd")


def test_an_agent_that_lies_about_systems() -> None:
    user = User("a", "1")
    with pytest.raises(GuestHostile):
        Systems().extend(SystemPart(users=[user]))
    with pytest.raises(GuestHostile):
        Systems().add(replace(EMPTY, users=[user]))
    many = Systems()
    for _ in range(MAX_SYSTEMS):
        many.add(replace(EMPTY, users=[]))
    with pytest.raises(GuestHostile):
        many.add(replace(EMPTY, users=[]))
    for _ in range(4):
        many.extend(SystemPart(users=[user] * 1024))
    with pytest.raises(GuestHostile):
        many.extend(SystemPart(users=[user]))
    elsewhere = Systems()
    elsewhere.add(replace(EMPTY, mountpoints=[]))
    disk = Layer("disk0", Kind.DISK, [], None, 1, Status.MAPPED)
    elsewhere.check([disk])
    elsewhere.extend(SystemPart(mountpoints=[MountEntry("x", "/", layer="disk9")]))
    with pytest.raises(GuestHostile):
        elsewhere.check([disk])
