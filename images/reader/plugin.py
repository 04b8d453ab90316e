"""The plugin for nbdkit (nbdkit-python-plugin(3)): what is asked for over NBD is read here.

nbdkit calls these functions by their names. An exception in `pread` becomes EIO at the client.
"""

from __future__ import annotations

from images.errors import ImageError
from images.quoting import shown
from images.reader import lockdown
from images.reader.content import KINDS, Content, opened, told

API_VERSION = 2
_SECTOR = 512
# NBDKIT_THREAD_MODEL_PARALLEL of nbdkit-plugin(3).
_PARALLEL = 3

_settings: dict[str, str] = {}
_contents: list[Content] = []


def thread_model() -> int:
    """Requests may come in several threads at once."""
    return _PARALLEL


def config(key: str, value: str) -> None:
    """One `key=value` of the command line: `kind`, `fds` separated by commas, `most` in bytes."""
    _settings[key] = value


def config_complete() -> None:
    """Refuses a command line that is not ours."""
    if set(_settings) != {"kind", "fds", "most"} or _settings["kind"] not in KINDS:
        raise ValueError("usage: kind=KIND fds=N,… most=BYTES")


def after_fork() -> None:
    """The last call before nbdkit serves, when it has opened all that it needs itself.

    The first that looks at the evidence.
    """
    descriptors = [int(number) for number in _settings["fds"].split(",")]
    lockdown.lock()
    try:
        _contents.append(opened(_settings["kind"], descriptors, int(_settings["most"])))
    except ImageError as error:
        # The host looks for this line. Not chained: a traceback would push it out.
        raise RuntimeError(f"REFUSED {shown(told(error, descriptors))} HINT {error.hint}") from None


def open(readonly: bool) -> Content:
    """One connection; all share the content."""
    del readonly
    return _contents[0]


def get_size(content: Content) -> int:
    """In bytes, rounded up to a sector as for raw images."""
    return -(-content.size // _SECTOR) * _SECTOR


def can_multi_conn(content: Content) -> bool:
    """Nothing is written, so all connections see the same."""
    del content
    return True


def pread(content: Content, buffer: bytearray, offset: int, flags: int) -> None:
    """Fill `buffer`; behind the end of the content the last sector has zeros."""
    del flags
    length = max(0, min(len(buffer), content.size - offset))
    data = content.read(offset, length)
    buffer[:] = data.ljust(len(buffer), b"\0")
