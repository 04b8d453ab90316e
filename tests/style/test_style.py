"""The rules that a program can check: linters, who may import what, and what no code may contain.

A tool that is missing is a failure, not a reason to skip.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
PACKAGES = ("appliance", "controller", "images")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BUILD_TIME = "appliance/recipe/assemble.py"
"""Runs while the appliance is built, in mmdebstrap's chroot, before there is any evidence."""

MAX_LINES = 300


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(
    *argv: str | Path, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / argv[0], *argv[1:]],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def succeeds(*argv: str | Path) -> None:
    done = run(*argv)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


# --- linters ------------------------------------------------------------------------------------


def test_ruff_check() -> None:
    succeeds("ruff", "check", "--quiet", ".")


def test_ruff_format() -> None:
    succeeds("ruff", "format", "--check", "--quiet", ".")


def test_mypy() -> None:
    succeeds("mypy")


def test_import_contracts() -> None:
    succeeds("lint-imports", "--no-cache")


PLANTED: dict[str, tuple[str, str, str]] = {
    # name: module, the line that is put into it, the contract that must break
    "guest uses the host": (
        "appliance/agent/mapper.py",
        "import controller.errors",
        "host above guest above image formats",
    ),
    "images use the guest": (
        "images/raw.py",
        "import appliance.layer",
        "host above guest above image formats",
    ),
    "host uses the agent": (
        "controller/report.py",
        "import appliance.agent.mapper",
        "the host knows of the guest only layer and protocol",
    ),
    "guest has the exporter": (
        "appliance/agent/content.py",
        "import images.exporter",
        "what runs in the guest has none of the host's tools",
    ),
    "guest has the process": (
        "appliance/agent/lvm.py",
        "from images import process",
        "what runs in the guest has none of the host's tools",
    ),
    "library in the guest": (
        "appliance/layer.py",
        "import msgspec",
        "images and appliance use the standard library alone",
    ),
    "library in images": (
        "images/qcow2.py",
        "import rich.console",
        "images and appliance use the standard library alone",
    ),
    "libvirt elsewhere": (
        "controller/core.py",
        "import libvirt",
        "libvirt only behind controller.guest",
    ),
    "paramiko elsewhere": (
        "controller/core.py",
        "def late():\n    import paramiko",
        "paramiko only in the channel",
    ),
    "cryptography elsewhere": (
        "controller/store.py",
        "from cryptography.hazmat import primitives",
        "cryptography only in the channel",
    ),
    "typer elsewhere": (
        "controller/inspection.py",
        "import typer",
        "typer only in the command line",
    ),
    "rich elsewhere": (
        "controller/layer_rows.py",
        "from rich.text import Text",
        "rich only where something is shown",
    ),
    "platformdirs elsewhere": (
        "controller/base.py",
        "import platformdirs",
        "platformdirs only where something is kept",
    ),
    "controller upside down": (
        "controller/wire.py",
        "import controller.case",
        "inside the controller",
    ),
    "controller sideways": (
        "controller/agent_client.py",
        "import controller.guest",
        "inside the controller",
    ),
    "images upside down": ("images/detect.py", "import images.qcow2", "inside images"),
    "agent upside down": (
        "appliance/agent/filesystem/ext.py",
        "import appliance.agent.mapper",
        "inside the agent",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_planted_violation_breaks_its_contract(tmp_path: Path, case: str) -> None:
    module, line, contract = PLANTED[case]
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = run("lint-imports", "--no-cache", cwd=tmp_path, PYTHONPATH=str(tmp_path), COLUMNS="200")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


# --- imports, read from the source --------------------------------------------------------------


def imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every module that is imported at run time, wherever in the file: not for types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            yield node.module or "", node


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name, _ in imports(path)}


@pytest.mark.parametrize("package", ["appliance", "images"])
def test_standard_library_alone(package: str) -> None:
    """Every other library too, not only those that import-linter is told of."""
    allowed = {*sys.stdlib_module_names, *PACKAGES}
    for path in MODULES:
        if path.is_relative_to(ROOT / package):
            assert tops(path) <= allowed, name_of(path)


STARTS_PROCESSES = {"images/process.py", "appliance/agent/command.py", BUILD_TIME}


def test_processes_start_in_one_place_on_each_side() -> None:
    found = {name_of(path) for path in MODULES if "subprocess" in tops(path)}
    for name in found - STARTS_PROCESSES:
        # The type of a process may be named elsewhere, never be called or looked into.
        tree = ast.parse((ROOT / name).read_text())
        names = [
            alias.name
            for module, node in imports(ROOT / name)
            if module == "subprocess"
            for alias in (node.names if isinstance(node, ast.ImportFrom) else [])
        ]
        assert names == ["Popen"], name
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "Popen" for call in calls), name
    assert found >= STARTS_PROCESSES


FORBIDDEN_MODULES = {
    "tarfile", "zipfile", "pickle", "marshal", "shelve", "pty", "multiprocessing", "telnetlib",
    "ftplib", "http", "urllib", "ssl", "xmlrpc", "smtplib",
}  # fmt: skip
"""Unpackers of archives, decoders that run code, and ways out to a network."""


def test_forbidden_modules() -> None:
    for path in MODULES:
        assert tops(path).isdisjoint(FORBIDDEN_MODULES), name_of(path)


FORBIDDEN_TEXT = re.compile(
    r"tarfile|zipfile|shutil\.unpack|AutoAddPolicy|WarningPolicy|pickle|shell=True|os\.system"
    r"|os\.popen|os\.exec|os\.spawn|\beval\(|\bexec\(|allow_agent|verify=False|xml\.dom|lxml"
)


@pytest.mark.parametrize(
    "line",
    [
        "import tarfile",
        "x = shutil.unpack_archive(y)",
        "run(a, shell=True)",
        "os.system('x')",
        "client.set_missing_host_key_policy(paramiko.AutoAddPolicy)",
        "pickle.loads(x)",
    ],
)
def test_pattern_finds_what_it_should(line: str) -> None:
    assert FORBIDDEN_TEXT.search(line)


def test_forbidden_text() -> None:
    for path in [*MODULES, ROOT / "forensic"]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            assert not FORBIDDEN_TEXT.search(line), f"{name_of(path)}:{number}: {line.strip()}"


def test_modules_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: count for name, count in lengths.items() if count >= MAX_LINES} == {}


def test_modules_say_what_they_are_for() -> None:
    for path in MODULES:
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), name_of(path)


def test_suppressed_warnings_are_named() -> None:
    """`# noqa` and `# type: ignore` each with the code that they are about."""
    bare = re.compile(r"#\s*noqa(?!:)|#\s*type:\s*ignore(?!\[)")
    for path in MODULES:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            assert not bare.search(line), f"{name_of(path)}:{number}"
