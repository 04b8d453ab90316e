"""`forensic appliance …`: the virtual machine's own files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from controller import base, state
from controller.domain_xml import Accelerator
from controller.errors import ApplianceInvalid, ExitCode
from controller.progress import Progress
from controller.provide import provide, provide_base
from controller.settings import Settings
from controller.state import Variant
from controller.store import Store, damaged_files, read_manifest, size_of
from controller.store import remove as remove_folder


def build(*, force: bool, memory: int, mirror: str | None, quiet: bool) -> None:
    """Build base and saved state; with `force`, remove what is there first."""
    settings = Settings(memory=memory)
    store = Store()
    if force:
        with store.lock():
            for folder in [*store.folders("state"), *store.folders("base")]:
                remove_folder(folder)
    with Progress(quiet=quiet) as progress:
        provide_base(store, progress.step, mirror or base.MIRROR)
        provided = provide(settings, progress.step)
    if not quiet:
        sys.stdout.write(f"built {provided.base.name} and {provided.state.name} in {store.root}\n")


def status(*, json: bool) -> ExitCode:
    """Print what is there. 0 if a case could start at once, else 4."""
    store = Store()
    document = describe(store)
    if json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    else:
        sys.stdout.write(_as_text(document))
    return ExitCode.COMPLETE if document["ready"] else ExitCode.ENVIRONMENT


def describe(store: Store) -> dict[str, Any]:
    """What is built, as `forensic appliance status --json` prints it."""
    present = base.find(store)
    folders = [*store.folders("base"), *store.folders("state")]
    entries = [_entry(folder, present) for folder in folders]
    return {
        "schema": "forensic.appliance/1",
        "folder": str(store.root),
        "ready": any(entry["kind"] == "state" and entry["current"] for entry in entries),
        "entries": entries,
    }


def _entry(folder: Path, present: Path | None) -> dict[str, Any]:
    kind = folder.name.split("-")[0]
    manifest = read_manifest(folder)
    made_from = manifest.made_from
    wanted = _wanted(kind, made_from, present)
    return {
        "name": folder.name,
        "kind": kind,
        "size": size_of(folder),
        "current": made_from == wanted,
        "outdated_by": sorted(
            name for name in made_from | wanted if made_from.get(name) != wanted.get(name)
        ),
        "made_from": made_from,
        "tools": manifest.tools,
        "timings": manifest.timings,
        "packages": _packages(folder),
    }


def _wanted(kind: str, made_from: dict[str, str], present: Path | None) -> dict[str, str]:
    """What a folder of this kind would be made from today."""
    if kind == "base":
        return base.ingredients()
    if present is None:
        return {}
    accelerator: Accelerator = "kvm" if made_from.get("accelerator") == "kvm" else "tcg"
    return state.ingredients(present, Variant(accelerator, int(made_from.get("memory", "0"))))


def _packages(folder: Path) -> dict[str, str]:
    path = folder / "packages.txt"
    if not path.is_file():
        return {}
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _as_text(document: dict[str, Any]) -> str:
    lines = [f"appliance folder: {document['folder']}"]
    for entry in document["entries"]:
        condition = (
            "current" if entry["current"] else "outdated: " + ", ".join(entry["outdated_by"])
        )
        lines.append(f"{entry['name']}  {entry['size'] / (1 << 20):.0f} MiB  {condition}")
        if entry["kind"] == "state":
            made = entry["made_from"]
            tools = ", ".join(f"{name} {version}" for name, version in entry["tools"].items())
            lines.append(f"  saved guest: {made['accelerator']}, {made['memory']} MiB, {tools}")
            lines.append("  rebuilt when one of these changes: " + ", ".join(sorted(made)))
        else:
            lines.append(
                f"  {len(entry['packages'])} packages; built from {entry['made_from']['suite']}"
            )
    if not document["ready"]:
        lines.append("not ready: run `forensic appliance build`")
    return "\n".join(lines) + "\n"


def verify() -> ExitCode:
    """Hash everything. Raises ApplianceInvalid where a file is not what was built."""
    store = Store()
    folders = [*store.folders("base"), *store.folders("state")]
    if not folders:
        raise ApplianceInvalid("no appliance has been built", hint="run `forensic appliance build`")
    problems = []
    for folder in folders:
        damaged = damaged_files(folder)
        if damaged:
            problems.append(f"{folder.name}: not what was built: {', '.join(damaged)}")
        else:
            sys.stdout.write(f"{folder.name}: all files are what was built\n")
    if problems:
        hint = "run `forensic appliance build --force`"
        raise ApplianceInvalid("; ".join(problems), hint=hint)
    return ExitCode.COMPLETE


def remove() -> None:
    """Remove all bases and states, and the verdict on KVM."""
    store = Store()
    with store.lock():
        for folder in [*store.folders("state"), *store.folders("base")]:
            remove_folder(folder)
            sys.stdout.write(f"removed {folder.name}\n")
        (store.root / "kvm.json").unlink(missing_ok=True)
