"""What exit statuses and progress of checkers mean, by their manual pages."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.fsck import ext, ntfs, xfs
from appliance.agent.fsck.checker import NODE, judge, judge_trial
from appliance.agent.fsck.run import CHECKERS
from appliance.agent.supervised import _Kept
from appliance.check import Ending, ToolRun, Verdict

CLEAN, ERRORS, UNDECIDED = Verdict.CLEAN, Verdict.ERRORS, Verdict.UNDECIDED


def ended(status: int | None, ending: Ending = Ending.EXITED, tool: str = "e2fsck") -> ToolRun:
    return ToolRun("check", tool, [], ending, status, "", 0, 1.0, None)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(0, CLEAN), (1, ERRORS), (2, ERRORS), (4, ERRORS), (8, UNDECIDED), (12, ERRORS),
     (16, UNDECIDED), (32, UNDECIDED), (128, UNDECIDED), (6, ERRORS)],
)  # fmt: skip
def test_bits_of_fsck(status: int, verdict: Verdict) -> None:
    assert judge(ended(status))[0] is verdict
    assert judge_trial(ended(status))[0] is verdict


@pytest.mark.parametrize("ending", [each for each in Ending if each is not Ending.EXITED])
@pytest.mark.parametrize("kind", sorted(CHECKERS))
def test_no_end_is_no_verdict(ending: Ending, kind: str) -> None:
    checker = CHECKERS[kind]
    assert (checker.judge or judge)(ended(None, ending))[0] is UNDECIDED
    assert (checker.judge_trial or judge_trial)(ended(None, ending))[0] is UNDECIDED


def test_xfs() -> None:
    """xfs_repair(8), EXIT STATUS."""
    assert [xfs.judge(ended(n))[0] for n in (0, 1, 2)] == [CLEAN, ERRORS, UNDECIDED]
    assert [xfs.judge_trial(ended(n))[0] for n in (0, 1, 2, 4)] == [CLEAN, ERRORS, ERRORS, ERRORS]


def test_ntfs_is_never_clean() -> None:
    judge_ntfs = ntfs.NTFS.judge
    assert judge_ntfs is not None
    assert [judge_ntfs(ended(n))[0] for n in (0, 1)] == [UNDECIDED, ERRORS]


@pytest.mark.parametrize("kind", sorted(CHECKERS))
def test_check_writes_nothing_and_names_its_device(kind: str) -> None:
    checker = CHECKERS[kind]
    assert checker.check.count(NODE) == 1
    assert checker.trial is None or checker.trial.count(NODE) == 1
    assert (checker.trial is None) == bool(checker.untried)
    reading = {"-fn", "-n", "--readonly", "--no-action", "--dry-run", "--check"}
    harmless = {"/usr/bin/fsck.erofs", "/usr/sbin/fsck.cramfs", "/usr/sbin/fsck.minix"}
    assert reading & set(checker.check) or checker.check[0] in harmless


@pytest.mark.parametrize(
    ("said", "share"),
    [
        (b"1 0 100 /dev/sda\n", 0),
        (b"1 50 100 /dev/sda\n", 100),
        (b"1 1 2 x\n3 5 10 x\n", 500),
        (b"5 10 10 x\n5 ", 1000),
        (b"2 300 100 x\n", 400),
        (b"6 1 2 x\n", None),
        (b"1 1 0 x\n", None),
        (b"1 1", None),
        (b"", None),
        (b"a b c d\n", None),
    ],
)
def test_progress_of_e2fsck(said: bytes, share: int | None) -> None:
    assert ext.share_done(said) == share


@given(st.binary(max_size=200))
def test_any_progress(said: bytes) -> None:
    share = ext.share_done(said)
    assert share is None or 0 <= share <= 1000


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(4, 200))
def test_beginning_and_end_of_an_output(parts: list[bytes], limit: int) -> None:
    kept, whole = _Kept(limit), b"".join(parts)
    for part in parts:
        kept.add(part)
    data = base64.b64decode(kept.text)
    assert kept.size == len(whole)
    if len(whole) <= limit * 3 // 4:
        assert data == whole
    assert len(data) <= limit
    head, tail = bytes(kept.head), bytes(kept.tail)
    assert whole.startswith(head)
    assert whole.endswith(tail)
