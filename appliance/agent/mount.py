"""Mounts file systems: read-only, without what in them could act, and by default as found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from appliance.agent import btrfs_mount
from appliance.agent.device import DeviceError, open_device
from appliance.agent.dm import MappingError
from appliance.agent.drivers import DRIVERS, Driver
from appliance.agent.filesystem.reading import BadSuperblock
from appliance.agent.mount_call import MountError as MountError
from appliance.agent.mount_call import attached
from appliance.agent.overlay import overlay
from appliance.agent.slice import with_node
from appliance.agent.user_space import shown_by
from appliance.agent.volume import Volume

RECOVERED = "recovered"
"""The view in which journals are replayed; otherwise a file system is shown as it was found."""


@contextmanager
def mounted(volume: Volume, blkid_type: str, view: str) -> Iterator[Path]:
    """Yield the folder where the file system of that type on the volume can be read.

    In the recovered view it is mounted on an overlay, whose writes are lost. Raises MountError.
    """
    driver = DRIVERS.get(blkid_type)
    if driver is None:
        raise MountError(f"nothing in the guest opens {blkid_type}")
    with ExitStack() as stack:
        try:
            nodes = [with_node(volume, stack).node or "", *volume.companions]
            for node in nodes:
                open_device(node).close()  # refuses what could be written to
            if view == RECOVERED and driver.replays:
                nodes = [stack.enter_context(overlay(node)) for node in nodes]
            options = options_of(volume, driver, view)
        except (MappingError, DeviceError, BadSuperblock) as error:
            raise MountError(str(error)) from error
        if driver.name == "btrfs":
            stack.callback(btrfs_mount.forget)
            options = ",".join([*filter(None, [options]), *btrfs_mount.options(volume, nodes[1:])])
        yield _mount(replace(volume, node=nodes[0]), driver, (options, view), stack)


def options_of(volume: Volume, driver: Driver, view: str) -> str:
    """What the driver is told in that view. Raises BadSuperblock."""
    options = [driver.options]
    if view != RECOVERED and driver.unreplayed:
        options.append(driver.unreplayed)
    if driver.found:
        options.append(driver.found(volume))
    return ",".join(option for option in options if option)


def _mount(volume: Volume, driver: Driver, how: tuple[str, str], stack: ExitStack) -> Path:
    """By the kernel; where it has no driver or refuses, by what else there is for the type."""
    options, view = how
    if driver.name is None:
        return _by_program(volume, driver, stack)
    try:
        return stack.enter_context(attached(volume.node or "", driver.name, options))
    except MountError as error:
        try:
            if driver.hide and view != RECOVERED:
                return _without_journal(volume, driver, options, stack)
            if driver.program:
                return _by_program(volume, driver, stack)
        except (MountError, MappingError, BadSuperblock, OSError) as second:
            raise MountError(f"{error}; {second}") from second
        raise


def _by_program(volume: Volume, driver: Driver, stack: ExitStack) -> Path:
    argv = driver.program(volume) if driver.program else []
    return stack.enter_context(shown_by(argv, volume.node or ""))


def _without_journal(volume: Volume, driver: Driver, options: str, stack: ExitStack) -> Path:
    """As found, where the kernel would replay: on an overlay on which there is nothing to."""
    node = stack.enter_context(overlay(volume.node or ""))
    if driver.hide:
        driver.hide(node, volume.size)
    return stack.enter_context(attached(node, driver.name or "", options))
