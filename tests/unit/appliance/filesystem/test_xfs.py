"""XFS against xfs_db and xfs_logprint."""

import re

import pytest

KINDS = {
    "default": [],
    "small-blocks": ["-b", "size=1024"],
    "version-4": ["-m", "crc=0"],
    "two-groups": ["-d", "agcount=2"],
    "many-groups": ["-d", "agcount=12"],
    "striped-log": ["-l", "su=256k"],
    "large-sectors": ["-s", "size=4096"],
}


@pytest.fixture(params=KINDS)
def image(request, blank, tool):
    path = blank(1200)
    tool("mkfs.xfs", "-q", *KINDS[request.param], path)
    return path


def superblock(tool, path) -> dict[str, int]:
    words = (
        "dblocks",
        "fdblocks",
        "blocksize",
        "logstart",
        "agblklog",
        "agblocks",
        "logblocks",
        "logsunit",
    )
    prints = [part for word in words for part in ("-c", f"p {word}")]
    text = tool("xfs_db", "-r", "-c", "sb 0", *prints, path)
    return {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", text)}


def log_state(tool, path) -> str:
    text = tool("xfs_logprint", "-t", path)
    return re.search(r"state: <(\w+)>", text)[1]


def test_numbers(image, tool, usage_of):
    says, usage = superblock(tool, image), usage_of(image)
    assert log_state(tool, image) == "CLEAN"
    assert usage.problems == ()
    assert usage.block_size == says["blocksize"]
    assert usage.size == says["dblocks"] * says["blocksize"]
    assert usage.free == says["fdblocks"] * says["blocksize"]
    assert usage.used == usage.size - usage.free


def test_dirty_log(image, tool, usage_of, patch, codes):
    clean, says = usage_of(image), superblock(tool, image)
    group, block = divmod(says["logstart"], 1 << says["agblklog"])
    start = (group * says["agblocks"] + block) * says["blocksize"]
    # The unmount flag in the operation of the one record that mkfs writes.
    headers = 8 if says["logsunit"] > 32768 else 1
    patch(image, start + headers * 512 + 9, b"\x00")
    patch(image, 144, (5).to_bytes(8, "big"))
    assert log_state(tool, image) == "DIRTY"
    usage = usage_of(image)
    assert codes(usage) == {"needs-recovery"}
    assert usage.free == clean.free


def test_log_that_has_wrapped(blank, tool, usage_of, patch, codes):
    """All blocks of pass 2 before the head, of pass 1 after it; the head in the middle."""
    path = blank(320)
    tool("mkfs.xfs", "-q", "-m", "crc=0", path)
    says = superblock(tool, path)
    group, block = divmod(says["logstart"], 1 << says["agblklog"])
    start = (group * says["agblocks"] + block) * says["blocksize"]
    total = says["logblocks"] * says["blocksize"] // 512
    with path.open("rb") as file:
        file.seek(start)
        header, operation = bytearray(file.read(512)), bytearray(file.read(512))
    header[4:8] = operation[0:4] = (2).to_bytes(4, "big")
    head = total // 3
    old, new = ((n).to_bytes(4, "big").ljust(512, b"\0") for n in (1, 2))
    for at in (head, 0, 1):
        # Once in the middle, then where header and operation lie around the end of the log.
        first, second = (at - 2) % total, (at - 1) % total
        pieces = [new if n < at else old for n in range(total)]
        header[4:8] = operation[0:4] = (2 if at >= 2 else 1).to_bytes(4, "big")
        pieces[first] = bytes(header)
        pieces[second] = bytes(operation)
        if at == 1:
            pieces[second] = (2).to_bytes(4, "big") + bytes(operation[4:])
        patch(path, start, b"".join(pieces))
        assert codes(usage_of(path)) == set(), at
        patch(path, start + second * 512 + 9, b"\0")
        assert codes(usage_of(path)) == {"needs-recovery"}, at


def test_external_log(blank, tool, usage_of, codes, tmp_path):
    path = blank(320)
    log = tmp_path / "log.img"
    with log.open("wb") as file:
        file.truncate(128 * 1024 * 1024)
    tool("mkfs.xfs", "-q", "-l", f"logdev={log}", path)
    usage = usage_of(path)
    assert codes(usage) == {"external-journal"}
    assert usage.free is not None


def test_needs_repair(blank, tool, usage_of, codes):
    path = blank(320)
    tool("mkfs.xfs", "-q", path)
    words = tool("xfs_db", "-r", "-c", "sb 0", "-c", "p features_incompat", path)
    flags = int(words.split("=")[1], 16) | 1 << 4
    tool("xfs_db", "-x", "-c", "sb 0", "-c", f"write features_incompat {flags:#x}", path)
    assert "NEEDSREPAIR" in tool("xfs_db", "-r", "-c", "version", path)
    assert codes(usage_of(path)) == {"errors-recorded"}


def test_cut_off(image, tool, usage_of, codes):
    with image.open("r+b") as file:
        file.truncate(40 * 1024 * 1024)
    usage = usage_of(image)
    assert "size-exceeds-volume" in codes(usage)
    assert usage.size == 1200 * 1024 * 1024
