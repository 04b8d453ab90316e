"""A program: read a whole disk once and print its hashes. `python3 -m images.reader.verify`.

Each line of the output is an object in JSON: {"done": bytes, "size": bytes} about once a second;
at the end one with "md5", "sha1" and "sha256" in hexadecimal, or one with "error" and "hint".
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from images.errors import ImageError
from images.reader import lockdown
from images.reader.content import Content, opened, told

_STEP = 4 << 20
_ALGORITHMS = ("md5", "sha1", "sha256")


def main(arguments: list[str]) -> int:
    """`arguments`: kind, descriptors separated by commas, limit in bytes. Returns the status."""
    kind, descriptors, limit = arguments
    numbers = [int(number) for number in descriptors.split(",")]
    lockdown.lock()
    try:
        content = opened(kind, numbers, int(limit))
        _say(_digests(content))
    except ImageError as error:
        _say({"error": told(error, numbers), "hint": error.hint})
        return 1
    return 0


def _digests(content: Content) -> dict[str, str | int]:
    hashes = [hashlib.new(name, usedforsecurity=False) for name in _ALGORITHMS]
    told = time.monotonic()
    # hashlib lets go of the interpreter while it works, so that three threads help.
    with ThreadPoolExecutor(len(hashes) + 1) as pool:
        data = content.read(0, min(_STEP, content.size))
        done = 0
        while data:
            working = [pool.submit(each.update, data) for each in hashes]
            done += len(data)
            data = content.read(done, min(_STEP, content.size - done))
            for job in working:
                job.result()
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                _say({"done": done, "size": content.size})
    found: dict[str, str | int] = {"size": content.size}
    return found | {name: each.hexdigest() for name, each in zip(_ALGORITHMS, hashes, strict=True)}


def _say(what: dict[str, str | int] | dict[str, str] | dict[str, int]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
