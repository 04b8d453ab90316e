"""Images that need a key."""

import subprocess
from pathlib import Path

_TRIES = 5


def make_locked(path: Path, word: str, source: Path | None = None) -> None:
    """A qcow2 encrypted with LUKS: 1 MiB of zeros, or the content of a raw `source`.

    qemu-img measures how fast this machine is, and fails now and then on a busy one ("Unable to
    get accurate CPU usage"): then it is asked again.
    """
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    command = ["qemu-img", "create" if source is None else "convert"]
    command += ["-q", "--object", f"secret,id=s,data={word}", "-o", options]
    if source is None:
        command += ["-f", "qcow2", str(path), "1M"]
    else:
        command += ["-f", "raw", "-O", "qcow2", str(source), str(path)]
    for _ in range(_TRIES):
        path.unlink(missing_ok=True)
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            return
    raise RuntimeError(done.stderr.decode(errors="replace"))
