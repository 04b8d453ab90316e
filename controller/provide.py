"""Finds the appliance that a case needs, and builds what of it is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller import accelerator, base, state
from controller.settings import Settings
from controller.state import Variant
from controller.store import Store, remove, touch, unused_for

KEEP_SECONDS = 7 * 24 * 3600
"""Another version of this program may be in use beside this one, so not at once."""

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Provided:
    """Base and saved state to restore; `fallback` says why the processor is emulated."""

    base: Path
    state: Path
    variant: Variant
    fallback: str


def provide(settings: Settings, show: Show) -> Provided:
    """Return what is there, building it first where it is not. Raises ForensicError.

    A second command that finds a build under way waits for its result.
    """
    store = Store(settings.store)
    base_folder = provide_base(store, show)
    kind, fallback = accelerator.choose(
        settings.accelerator,
        store,
        lambda: state.prove_kvm(base_folder, settings.memory),
        show,
        require_kvm=settings.require_kvm,
    )
    variant = Variant(kind, settings.memory)
    state_folder = provide_state(store, base_folder, variant, show)
    touch(base_folder)
    touch(state_folder)
    return Provided(base_folder, state_folder, variant, fallback)


def provide_base(store: Store, show: Show, mirror: str = base.MIRROR) -> Path:
    """The base, built if need be."""
    found = base.find(store)
    if found:
        return found
    with store.lock():
        return base.find(store) or base.build(store, show, mirror)


def provide_state(store: Store, base_folder: Path, variant: Variant, show: Show) -> Path:
    """The saved state, made if need be."""
    found = state.find(store, base_folder, variant)
    if found:
        return found
    with store.lock():
        found = state.find(store, base_folder, variant) or state.make(
            store, base_folder, variant, show
        )
        prune(store, base_folder)
    return found


def prune(store: Store, base_folder: Path) -> list[Path]:
    """Remove what no longer fits and has not been used for a week; call it under the lock.

    A case that still runs on such a state keeps it: its files are open and bound into its cell.
    """
    states = [each for each in store.folders("state") if not state.is_current(each, base_folder)]
    bases = [each for each in store.folders("base") if each != base_folder]
    outdated = [each for each in [*states, *bases] if unused_for(each) > KEEP_SECONDS]
    for folder in outdated:
        remove(folder)
    return outdated
