"""The notes below subvolumes and shadow copies."""

from appliance.layer import Kind, Layer, ShadowCopyFacts, Status, SubvolumeFacts
from controller.part_notes import part_notes
from images.quoting import shown


def layer(**facts: object) -> Layer:
    return Layer("disk0/p1/x", Kind.SUBVOLUME, ["disk0/p1"], None, 1, Status.MAPPED, **facts)  # type: ignore[arg-type]


def test_a_snapshot() -> None:
    facts = SubvolumeFacts(
        259, 5, "snap", "uuid", "par\x1b[1ment", read_only=True, created=1711972800
    )
    assert part_notes(layer(subvolume=facts), shown) == [
        "read-only",
        r"snapshot of par\x1b[1ment",
        "made 2024-04-01T12:00:00Z",
    ]


def test_deleted_and_of_no_known_time() -> None:
    assert part_notes(layer(subvolume=SubvolumeFacts(259)), shown) == [
        "has no place in the file system"
    ]


def test_a_shadow_copy() -> None:
    assert part_notes(layer(shadow_copy=ShadowCopyFacts("b1", 1700000000)), shown) == [
        "shadow copy b1",
        "made 2023-11-14T22:13:20Z",
    ]
    assert part_notes(layer(), shown) == []


def test_absurd_times_are_told() -> None:
    facts = ShadowCopyFacts("b1", 2**63)
    assert part_notes(layer(shadow_copy=facts), shown)[1].startswith("made 9223372036854775808")
