"""`forensic fsck`: an inspection in which the file systems are checked, and only that is shown."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.check import Checking
from appliance.protocol import Wanted
from controller.errors import UsageError
from controller.interruption import taken_down
from controller.options import (
    Accel,
    Add,
    AllowDir,
    ForceLogZeroing,
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
    Output,
    OverlaySize,
    Quiet,
    Repair,
    RequireKvm,
    SaveOverlay,
    SectorSize,
    Snapshot,
    Verbose,
    Verify,
)


def fsck(  # noqa: PLR0913, PLR0917 - a command has its options
    images: Images,
    add: Add = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="ADDRESS", help="Check only what is on this layer."),
    ] = None,
    no_trial: Annotated[
        bool,
        typer.Option("--no-trial", help="Do not try a repair before calling something clean."),
    ] = False,
    repair: Repair = False,
    save_overlay: SaveOverlay = None,
    output: Output = None,
    overlay_size: OverlaySize = None,
    force_log_zeroing: ForceLogZeroing = False,
    open_: Open = None,
    allow_dir: AllowDir = None,
    snapshot: Snapshot = None,
    key: Keys = None,
    keys_from_stdin: KeysFromStdin = False,
    header: Headers = None,
    hash_: HashChoice = "files",
    verify: Verify = False,
    live: Live = False,
    sector_size: SectorSize = 512,
    json: Json = False,
    memory: Memory = None,
    accel: Accel = "auto",
    require_kvm: RequireKvm = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time limit for one run of a checker.")
    ] = 600.0,
    keep_log: KeepLog = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check file systems: forced, without writing, and without trusting a flag.

    --repair repairs on an overlay; the images stay as they are. Exit status, added up as by
    fsck(8): 0 clean, 1 errors corrected on the overlay, 4 errors left, 8 something could not be
    checked or the host or the guest failed, 16 usage, 32 cancelled.
    """
    from controller import fsck as checks  # noqa: PLC0415 - not for --help
    from controller.fsck_results import CANCELLED  # noqa: PLC0415
    from controller.inspection import Inspecting  # noqa: PLC0415

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
        wanted=Wanted(
            open=open_ or [], check=Checking(layer or [], trial=not no_trial, seconds=timeout)
        ),
        json=json,
        memory=memory,
        accelerator=accel,
        require_kvm=require_kvm,
        timeout=checks.whole_time(timeout),
        keep_log=keep_log,
        quiet=quiet,
        verbose=verbose,
    )
    repairing = checks.options(
        save_overlay, output, overlay_size, timeout, zero_log=force_log_zeroing, repair=repair
    )
    if repairing and snapshot is not None and save_overlay:
        raise UsageError("--save-overlay: an overlay cannot lie on an internal snapshot")
    with taken_down(CANCELLED):
        raise typer.Exit(checks.run(order, repairing))
