"""The command line: takes words, calls the case, prints, and says with its status how it went."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.protocol import Wanted
from controller import cli_fsck, cli_os
from controller.errors import ExitCode, ForensicError, GuestFailed
from controller.interruption import taken_down
from controller.options import (
    Accel,
    Add,
    AllowDir,
    HashChoice,
    Headers,
    Images,
    Json,
    KeepLog,
    Keys,
    KeysFromStdin,
    Live,
    Memory,
    Open,
    Quiet,
    RequireKvm,
    SectorSize,
    Snapshot,
    Timeout,
    Verbose,
    Verify,
    View,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Look into disk images that nobody should trust, in a disposable virtual machine.",
)
appliance_app = typer.Typer(
    no_args_is_help=True, help="Build, check and remove the virtual machine's own files."
)
app.add_typer(appliance_app, name="appliance")
app.command("fsck")(cli_fsck.fsck)
app.command("os")(cli_os.show)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"forensic {importlib.metadata.version('forensic-appliance')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def inspect(  # noqa: PLR0913, PLR0917 - a command has its options
    images: Images,
    add: Add = None,
    allow_dir: AllowDir = None,
    snapshot: Snapshot = None,
    key: Keys = None,
    keys_from_stdin: KeysFromStdin = False,
    header: Headers = None,
    hash_: HashChoice = "files",
    verify: Verify = False,
    live: Live = False,
    sector_size: SectorSize = 512,
    view: View = "as-found",
    nested: Annotated[
        bool, typer.Option("--nested", help="List disk images that are files in file systems.")
    ] = False,
    open_: Open = None,
    systems: Annotated[
        bool, typer.Option("--os", help="Show which operating systems are installed.")
    ] = False,
    json: Json = False,
    memory: Memory = None,
    accel: Accel = "auto",
    require_kvm: RequireKvm = False,
    timeout: Timeout = 300.0,
    keep_log: KeepLog = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what is on disk images: partitions, volumes, file systems, and every byte between.

    Exit status: 0 all read, 1 something was left out or is wrong, 2 usage, 3 evidence refused
    or unreadable, 4 the host or the guest failed, 5 the evidence changed during the run.
    """
    from controller.inspection import Inspecting, run  # noqa: PLC0415 - not for --help

    order = Inspecting(
        images=[*images, *(add or [])],
        allowed=allow_dir or [],
        snapshot=snapshot,
        keys=key or [],
        keys_from_stdin=keys_from_stdin,
        headers=header or [],
        hash=hash_,
        verify=verify,
        live=live,
        sector_size=sector_size,
        wanted=Wanted(view, nested, open_ or [], systems),
        json=json,
        memory=memory,
        accelerator=accel,
        require_kvm=require_kvm,
        timeout=timeout,
        keep_log=keep_log,
        quiet=quiet,
        verbose=verbose,
    )
    with taken_down():
        raise typer.Exit(run(order))


@app.command()
def info(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Disk images.", readable=False)
    ],
    allow_dir: AllowDir = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what containers say about themselves, and every file that belongs to them.

    No guest is started. Exit status: 0 all told, 1 a part could not be told, 2 usage, 3 evidence
    refused or unreadable, 4 the host failed, 5 the evidence changed meanwhile.
    """
    from controller import info_report  # noqa: PLC0415 - not for --help

    with taken_down():
        raise typer.Exit(info_report.run(images, allow_dir or [], json=json, verbose=verbose))


@app.command()
def doctor(json: Json = False) -> None:
    """Check this host, and say for each problem which command mends it."""
    from controller import doctor as checks  # noqa: PLC0415

    with taken_down():
        raise typer.Exit(checks.run(json=json))


@appliance_app.command("build")
def appliance_build(
    force: Annotated[bool, typer.Option("--force", help="Build again what is there.")] = False,
    memory: Annotated[int, typer.Option(metavar="MIB", help="Memory of the guest.")] = 512,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="Debian mirror to build from.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Build the appliance and a saved state of it, as the first inspection would."""
    from controller import upkeep  # noqa: PLC0415

    with taken_down():
        upkeep.build(force=force, memory=memory, mirror=mirror, quiet=quiet)


@appliance_app.command("status")
def appliance_status(json: Json = False) -> None:
    """Show what is built, for what, how large it is, and what would make it be rebuilt."""
    from controller import upkeep  # noqa: PLC0415

    raise typer.Exit(upkeep.status(json=json))


@appliance_app.command("verify")
def appliance_verify() -> None:
    """Compare every file of the appliance with its SHA-256."""
    from controller import upkeep  # noqa: PLC0415

    raise typer.Exit(upkeep.verify())


@appliance_app.command("remove")
def appliance_remove() -> None:
    """Remove everything that was built; the next inspection builds it again."""
    from controller import upkeep  # noqa: PLC0415

    upkeep.remove()


def main() -> None:
    """Entry point: one place where errors become words and a status."""
    is_fsck = sys.argv[1:2] == ["fsck"]
    try:
        app()
    except ForensicError as error:
        _complain(error)
        sys.exit(_as_fsck(error.exit_code) if is_fsck else error.exit_code)
    except SystemExit as end:
        # No check ends with 2: that bit of fsck(8) is for a host that has to be booted anew.
        if is_fsck and end.code == ExitCode.USAGE:
            sys.exit(_as_fsck(ExitCode.USAGE))
        raise


def _as_fsck(code: ExitCode) -> int:
    """The same in the words of fsck(8)."""
    from controller.fsck_results import OPERATIONAL, USAGE  # noqa: PLC0415

    return USAGE if code is ExitCode.USAGE else OPERATIONAL


def _complain(error: ForensicError) -> None:
    """Print an error: what failed, the guest's last words where there are some, what to do."""
    from controller.logbook import keep, last_lines  # noqa: PLC0415
    from images.quoting import shown  # noqa: PLC0415

    sys.stderr.write(f"forensic: error: {_printable(error.message)}\n")
    if isinstance(error, GuestFailed) and error.console:
        sys.stderr.write("  the guest's last words:\n")
        for line in last_lines(error.console, 8):
            sys.stderr.write(f"    {line}\n")
        try:
            sys.stderr.write(f"  the whole console is in {shown(str(keep(error.console)))}\n")
        except ForensicError as second:
            sys.stderr.write(f"  the console could not be kept: {_printable(second.message)}\n")
    if error.hint:
        sys.stderr.write(f"  hint: {_printable(error.hint)}\n")


def _printable(text: str) -> str:
    """Nothing but printable characters and line ends; what came from evidence is escaped before,
    this is for what nobody thought of."""
    return "".join(
        character if character.isprintable() or character == "\n" else "?" for character in text
    )
