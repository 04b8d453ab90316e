"""Builds the appliance's base with mmdebstrap: Debian 13's kernel and a read-only root."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import appliance
from controller.errors import EnvironmentFailed
from controller.store import MANIFEST, Store, finish
from images.process import PIPE, Process, ProcessError, started
from images.quoting import shown

RECIPE = Path(appliance.__file__).resolve().parent / "recipe"
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
ARTIFACTS = ("vmlinux", "base.cpio", "rootfs.erofs", "packages.txt")
_TIMEOUT = 1800.0
_STEPS = (
    ("apt-get update", "read Debian's package lists"),
    ("downloading packages", "download packages"),
    ("extracting archives", "unpack packages"),
    ("installing essential", "install the essential packages"),
    ("installing remaining", "install the other packages"),
    ("customize-hook", "make kernel and root file system"),
    ("sync-out", "take the result out"),
)


def ingredients() -> dict[str, str]:
    """What the base is made from; a change of any of it asks for a new base."""
    files = {path.name: path.read_bytes() for path in sorted(RECIPE.iterdir()) if path.is_file()}
    # init and first are packed with the agent's code (controller/state.py).
    hashes = {f"recipe/{name}": hashlib.sha256(data).hexdigest() for name, data in files.items()}
    del hashes["recipe/first"]
    return {"suite": SUITE, **hashes}


def find(store: Store) -> Path | None:
    """The finished base for the present recipe, None where there is none."""
    folder = store.folder("base", ingredients())
    return folder if (folder / MANIFEST).is_file() else None


def build(store: Store, show: Callable[[str], None], mirror: str = MIRROR) -> Path:
    """Build the base; call it under the store's lock. Raises EnvironmentFailed."""
    made_from = ingredients()
    target = store.folder("base", made_from)
    begin = time.monotonic()
    with store.building(target) as folder, tempfile.TemporaryDirectory(dir=folder) as scratch:
        _bootstrap(folder, mirror, Path(scratch), show)
        missing = [name for name in ARTIFACTS if not (folder / name).is_file()]
        if missing:
            raise EnvironmentFailed(f"the build of the appliance made no {', '.join(missing)}")
        finish(folder, made_from, {"mirror": mirror}, {"build": round(time.monotonic() - begin, 1)})
    return target


def _bootstrap(folder: Path, mirror: str, scratch: Path, show: Callable[[str], None]) -> None:
    if shutil.which("mmdebstrap") is None:
        raise EnvironmentFailed("mmdebstrap is not installed", hint="apt-get install mmdebstrap")
    log: list[bytes] = []
    try:
        # In its namespace mmdebstrap writes as another account; what it hands out through
        # sync-out is written by the caller's own.
        with started(
            _command(folder, mirror), stdout=PIPE, stderr=PIPE, env=_environment(scratch), cwd="/"
        ) as process:
            _follow(process, log, show)
            status = process.wait(_TIMEOUT)
    except (ProcessError, TimeoutError) as error:
        raise EnvironmentFailed(f"the appliance could not be built: {error}") from error
    if status != 0:
        lines = "\n".join(shown(line) for line in log[-15:])
        raise EnvironmentFailed(
            f"the appliance could not be built (mmdebstrap ended with status {status}):\n{lines}",
            hint="check that Debian's mirror can be reached, then run `forensic appliance build`",
        )


def _command(folder: Path, mirror: str) -> list[str]:
    packages = [
        words[0]
        for line in (RECIPE / "packages.txt").read_text().splitlines()
        if (words := line.split("#")[0].split())
    ]
    unwanted = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
    return [
        *_namespaces(),
        "mmdebstrap",
        "--variant=minbase",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--format=null",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in unwanted),
        '--customize-hook=mkdir -p "$1/tmp/recipe"',
        f"--customize-hook=sync-in {RECIPE} /tmp/recipe",
        '--customize-hook=sh -eu "$1/tmp/recipe/hook.sh" "$1"',
        f"--customize-hook=sync-out /tmp/out {folder}",
        SUITE,
        "/dev/null",
        mirror,
    ]


def _namespaces() -> list[str]:
    """Namespaces for a build that root starts: whatever kills it, its processes and mounts go.

    mmdebstrap mounts /proc, /sys and /dev/pts into the new root; on the host's own table they
    would outlive a killed build, and wait there for whoever removes the folder. Without root it
    makes such namespaces itself.
    """
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig", "TERM", "--"]
    return ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation",
            "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]  # fmt: skip


def _environment(scratch: Path) -> dict[str, str]:
    kept = ("http_proxy", "https_proxy", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    if os.geteuid() == 0:
        # What a killed build leaves there goes with the folder, at the next build. In its own
        # namespace mmdebstrap could not enter the caller's private folder.
        environment["TMPDIR"] = str(scratch)
    return environment


def _follow(process: Process, log: list[bytes], show: Callable[[str], None]) -> None:
    """Turn mmdebstrap's log into steps for the user; keep its end for an error."""
    assert process.stderr is not None  # noqa: S101 - asked for above
    for line in process.stderr:
        log.append(line.rstrip())
        del log[:-200]
        for mark, step in _STEPS:
            if mark.encode() in line:
                show(step)
