"""Results made by hypothesis: whatever the types allow."""

from __future__ import annotations

from hypothesis import strategies as st

from appliance.image import ImageFacts, ImageFile, NestedImage
from appliance.layer import (
    ArrayFacts,
    ArrayMember,
    Content,
    Encryption,
    ExtState,
    Finding,
    GroupFacts,
    Keyslot,
    Kind,
    Layer,
    PartitionEntry,
    Severity,
    Status,
    Table,
    VolumeFacts,
)
from appliance.system import Application, Interface, MountEntry, Service, System, User
from controller.results import (
    SCHEMA,
    Evidence,
    EvidenceFile,
    EvidenceHeader,
    EvidenceLink,
    Inspection,
    StoredHash,
)
from tests.unit.controller.inspections import HOSTILE

MARKUP = st.sampled_from([HOSTILE[:-1], "[red]", "[/]", "[link=http://x]y", ":smile:", "-", "\\"])
TEXT = st.text(st.characters(), max_size=40) | MARKUP
ENCODABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | MARKUP
"""What can stand in JSON; a lone surrogate cannot."""

SIZE = st.integers(0, 2**63 - 1)
MAYBE_SIZE = st.none() | SIZE
NUMBER = st.integers(-(2**63), 2**64 - 1)
MAYBE_NUMBER = st.none() | NUMBER
FLAG = st.booleans()


def ext_states(text: st.SearchStrategy[str]) -> st.SearchStrategy[ExtState]:
    return st.builds(
        ExtState,
        state=text,
        errors_behavior=text,
        mount_count=NUMBER,
        maximum_mount_count=NUMBER,
        created=MAYBE_NUMBER,
        last_mounted=MAYBE_NUMBER,
        last_written=MAYBE_NUMBER,
        last_checked=MAYBE_NUMBER,
        check_interval=NUMBER,
        last_mounted_on=text,
        features=st.lists(text, max_size=4),
        block_count=NUMBER,
        free_blocks=NUMBER,
        inode_count=NUMBER,
        free_inodes=NUMBER,
        inode_size=NUMBER,
        error_count=NUMBER,
    )


def contents(text: st.SearchStrategy[str]) -> st.SearchStrategy[Content]:
    maybe = st.none() | text
    return st.builds(
        Content, text, maybe, maybe, maybe, maybe, maybe, MAYBE_SIZE, MAYBE_SIZE, MAYBE_SIZE,
        MAYBE_SIZE, st.none() | ext_states(text),
    )  # fmt: skip


def arrays(text: st.SearchStrategy[str]) -> st.SearchStrategy[ArrayFacts]:
    maybe = st.none() | text
    events = st.none() | st.integers(0, 2**64 - 1)
    members = st.builds(ArrayMember, maybe, MAYBE_SIZE, text, maybe, events)
    return st.builds(
        ArrayFacts, text, maybe, text, text, maybe, SIZE, SIZE, st.lists(members, max_size=2),
        MAYBE_SIZE, maybe, maybe, MAYBE_SIZE, MAYBE_SIZE, SIZE,
    )  # fmt: skip


def layers(text: st.SearchStrategy[str]) -> st.SearchStrategy[Layer]:
    maybe, words = st.none() | text, st.lists(text, max_size=4)
    files = st.lists(st.builds(ImageFile, text, SIZE), max_size=2)
    slots = st.lists(st.builds(Keyslot, SIZE, text, SIZE, st.none() | SIZE), max_size=2)
    return st.builds(
        Layer,
        address=text | st.sampled_from(["disk0", "disk1"]),
        kind=st.sampled_from(Kind),
        parents=words,
        offset=MAYBE_SIZE,
        size=SIZE,
        status=st.sampled_from(Status),
        content=st.none() | contents(text),
        table=st.none() | st.builds(Table, text, maybe, SIZE),
        partition=st.none()
        | st.builds(PartitionEntry, SIZE, text, maybe, maybe, maybe, FLAG, FLAG, FLAG),
        group=st.none() | st.builds(GroupFacts, text, text, SIZE, SIZE, SIZE, SIZE),
        volume=st.none() | st.builds(VolumeFacts, text, text, words, words, maybe, maybe),
        encryption=st.none() | st.builds(Encryption, text, maybe, st.none() | SIZE, slots, SIZE),
        image=st.none() | st.builds(ImageFacts, text, words, files),
        array=st.none() | arrays(text),
    )


def systems(text: st.SearchStrategy[str]) -> st.SearchStrategy[System]:
    maybe, words = st.none() | text, st.lists(text, max_size=3)
    moment = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)
    mounts = st.lists(st.builds(MountEntry, text, text, maybe, maybe, maybe, maybe), max_size=2)
    return st.builds(
        System,
        text,
        text,
        text,
        **dict.fromkeys(
            ("distro", "product_name", "product_variant", "version", "build_id", "arch",
             "hostname", "domain", "machine_id", "timezone", "install_date_from", "package_format"),
            maybe,
        ),
        **dict.fromkeys(("install_date", "last_boot", "last_shutdown"), moment),
        **dict.fromkeys(("kernels", "dns"), words),
        **dict.fromkeys(("mountpoints", "drive_mappings"), mounts),
        major_version=MAYBE_SIZE,
        users=st.lists(
            st.builds(User, text, text, maybe, maybe, maybe, maybe, moment, st.none() | FLAG),
            max_size=2,
        ),
        services=st.lists(st.builds(Service, text, text, maybe), max_size=2),
        interfaces=st.lists(
            st.builds(Interface, text, maybe, words, words, words, maybe, maybe), max_size=2
        ),
        applications=st.lists(
            st.builds(Application, text, text, maybe, maybe, maybe, maybe, maybe, maybe, moment),
            max_size=2,
        ),
    )  # fmt: skip


def inspections(text: st.SearchStrategy[str]) -> st.SearchStrategy[Inspection]:
    digest = st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex)
    files = st.lists(st.builds(EvidenceFile, text, SIZE, digest), max_size=2)
    chain = st.lists(st.builds(EvidenceLink, text, text, SIZE), max_size=2)
    stored = st.lists(
        st.builds(StoredHash, st.sampled_from(["md5", "sha1"]), st.just("00ff"), st.just("00ff")),
        max_size=2,
    )
    writers, maybe = st.lists(text, max_size=2), st.none() | text
    return st.builds(
        Inspection,
        schema=st.just(SCHEMA),
        evidence=st.lists(
            st.builds(Evidence, text, text, SIZE, files, chain, digest, stored, writers), max_size=2
        ),
        layers=st.lists(layers(text), max_size=5),
        findings=st.lists(
            st.builds(Finding, st.sampled_from(Severity), st.none() | text, text, text), max_size=4
        ),
        complete=FLAG,
        boundary=st.sampled_from(["kvm", "cell"]),
        tools=st.dictionaries(text, text, max_size=2),
        timings=st.dictionaries(text, st.floats(0, 1e6), max_size=2),
        nested_images=st.lists(
            st.builds(NestedImage, text, text, text, maybe, text, maybe, MAYBE_SIZE, SIZE, SIZE),
            max_size=2,
        ),
        systems=st.none() | st.lists(systems(text), max_size=2),
        headers=st.lists(st.builds(EvidenceHeader, text, text, SIZE, digest), max_size=2),
    )
