"""`python3 -m images.reader KIND DESCRIPTORS MOST NAME`: serves what only we can read over NBD.

Standard input is the listening socket. DESCRIPTORS are the image's open files in their order,
separated by commas; MOST is the largest disk in bytes that is accepted; NAME is the export's.
"""

from __future__ import annotations

import sys

from images.errors import ImageError
from images.quoting import shown
from images.reader import lockdown, nbd_server
from images.reader.content import opened, told

_LISTENER = 0


def main() -> int:
    """Serves until it is killed. Exit status 1 where the image cannot be read."""
    kind, numbers, most, name = sys.argv[1:]
    descriptors = [int(number) for number in numbers.split(",")]
    # From here on nothing can be opened; only then does anything look at the evidence.
    lockdown.lock()
    try:
        content = opened(kind, descriptors, int(most))
    except ImageError as error:
        # The host looks for this line.
        sys.stderr.write(f"REFUSED {shown(told(error, descriptors))} HINT {error.hint}\n")
        return 1
    nbd_server.serve(_LISTENER, content, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
