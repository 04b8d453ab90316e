"""Every hostile container is refused or harmless; every benign one is served.

All are opened and served in one process under strace. What was opened, and what was only asked
for, is told by the kernel, not by the policy that is tested.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import images
from tests.builders.hostile_containers import BENIGN, HOSTILE, make_case
from tests.builders.hostile_place import Place, make_outside
from tests.builders.served_under_strace import Case, Outcome, asked_for, opened_files, serve

PROGRAMS = (
    "/usr/",
    "/lib",
    "/bin/",
    "/sbin/",
    "/proc",
    "/sys/devices/system/",
    "/dev/null",
    "/etc/ld.so.cache",
    str(Path(images.__file__).parents[1]),
    sys.prefix,
    sys.base_prefix,
)
"""What a process needs to run at all, and the program itself."""
SETTING_UP = ("/usr/bin/setpriv", "/usr/bin/bwrap")
NEEDED_FOR_THAT = ("/etc/", "/newroot", "/oldroot")
"""What those look at who only build the sandbox, before anything of the evidence is read."""


@dataclass(frozen=True)
class Suite:
    place: Place
    run: Path
    outcomes: dict[str, Outcome]
    paths: dict[str, Path]
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    place = make_outside(tmp_path_factory.mktemp("containers"))
    run = tmp_path_factory.mktemp("r")
    cases, paths, folders = [], {}, {}
    for number, (name, case) in enumerate((HOSTILE | BENIGN).items()):
        paths[name], folders[name] = make_case(case, place, number)
        cases.append(Case(paths[name], getattr(case, "declared", "")))
    outcomes = serve(cases, run)
    return Suite(place, run, dict(zip(paths, outcomes, strict=True)), paths, folders)


def test_there_are_enough() -> None:
    assert len(HOSTILE) >= 72
    assert len(BENIGN) >= 12
    assert not HOSTILE.keys() & BENIGN.keys()


@pytest.mark.parametrize("name", [name for name, case in HOSTILE.items() if case.refused])
def test_refused(name: str, suite: Suite) -> None:
    outcome = suite.outcomes[name]
    assert outcome.kind == "refused"
    assert re.search(HOSTILE[name].refused, outcome.message)
    assert outcome.message.isprintable()
    assert outcome.seconds < 2


@pytest.mark.parametrize("name", [name for name, case in HOSTILE.items() if not case.refused])
def test_harmless(name: str, suite: Suite) -> None:
    case, outcome = HOSTILE[name], suite.outcomes[name]
    assert outcome.kind == "served"
    assert bool(outcome.error) == bool(case.error)
    assert suite.place.token not in outcome.content
    assert outcome.seconds < 5
    if case.content is not None:
        expected = case.content(suite.paths[name])[: len(outcome.content)]
        assert outcome.content[: len(expected)] == expected


@pytest.mark.parametrize("name", BENIGN)
def test_served(name: str, suite: Suite) -> None:
    outcome = suite.outcomes[name]
    assert (outcome.kind, outcome.error) == ("served", "")
    assert outcome.content == BENIGN[name].content


@pytest.mark.parametrize("name", [*HOSTILE, *BENIGN])
def test_nothing_else_is_opened(name: str, suite: Suite) -> None:
    """By the kernel's own account, of all processes, from this case's start to the next one's."""
    # A link that the user named may lead anywhere; what it leads to is what was named.
    own = (suite.run, suite.folders[name], os.path.realpath(suite.paths[name]))
    others = set()
    for program, path in set(opened_files(suite.outcomes[name].trace)):
        if path.startswith((*PROGRAMS, "/memfd:")) or not path.startswith("/"):
            continue
        inside = any(Path(path).is_relative_to(folder) for folder in own)
        needed = path == "/" or path.startswith(NEEDED_FOR_THAT)
        if not inside and not (program in SETTING_UP and needed):
            others.add((program, path))
    assert others == set()


@pytest.mark.parametrize("name", [*HOSTILE, *BENIGN])
def test_nothing_outside_is_asked_for(name: str, suite: Suite) -> None:
    """Not even whether it is there; only a link that lies in the case may be read."""
    trace = suite.outcomes[name].trace
    secrets = (suite.place.outside.name, "sibling", "passwd", "hostname", "nonexistent")
    asked = {
        path
        for program, path in asked_for(trace)
        if program not in SETTING_UP
        and not Path(path).is_relative_to(suite.folders[name])
        and any(word in path for word in secrets)
    }
    assert asked == set()
    assert not any("AF_INET" in line or "AF_VSOCK" in line for line in trace)


def test_trace_would_show_it(suite: Suite) -> None:
    """The proof works: what was opened is in the trace, and the secret would be."""
    for name in BENIGN:
        assert str(suite.paths[name]) in {
            path for _, path in opened_files(suite.outcomes[name].trace)
        }
    (outcome,) = serve([Case(suite.place.secret)], suite.run)
    assert ("", str(suite.place.secret)) in set(opened_files(outcome.trace))
    assert suite.place.token in outcome.content
    assert any("outside" in path for _, path in asked_for(outcome.trace))
