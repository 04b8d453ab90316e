"""Run the tools that write test images. A missing tool raises: tests that need it must fail."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ToolError(Exception):
    """A tool ended with an error."""


def run(
    *argv: str | bytes | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> bytes:
    """Run a tool and return its output; ToolError says what it printed if it failed."""
    result = execute(*argv, stdin=stdin, env=env)
    if result.returncode != 0:
        text = (result.stdout + result.stderr).decode(errors="replace")
        raise ToolError(f"{argv!r} ended with {result.returncode}: {text}")
    return result.stdout


def execute(
    *argv: str | bytes | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a tool and return everything about it, whatever its exit code."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": path, **(env or {})}
    return subprocess.run(argv, input=stdin, env=environment, capture_output=True, check=False)
