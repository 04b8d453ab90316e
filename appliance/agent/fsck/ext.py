"""ext2, ext3, ext4: e2fsck(8).

`-n` alone is no verdict: it ends with 0 on images that `-y` then repairs, hence the trial.
"""

from __future__ import annotations

from appliance.agent.fsck.checker import NODE, PROGRESS, Checker

_PASSES = 5

EXT = Checker(
    check=("/usr/sbin/e2fsck", "-fn", "-C", PROGRESS, NODE),
    trial=("/usr/sbin/e2fsck", "-fy", "-C", PROGRESS, NODE),
)


def share_done(untrusted_progress: bytes) -> int | None:
    """Thousandths of the whole, from the last whole line of "pass current maximum …".

    Passes count alike, which is as wrong as any other weight.
    """
    lines = untrusted_progress.rsplit(b"\n", 1)[0].rsplit(b"\n", 1)
    words = lines[-1].split()
    if len(words) < 3 or not all(word.isdigit() and len(word) < 19 for word in words[:3]):
        return None
    number, current, maximum = (int(word) for word in words[:3])
    if not 1 <= number <= _PASSES or maximum < 1:
        return None
    share = 1000 * min(current, maximum) // maximum
    return (1000 * (number - 1) + share) // _PASSES
