"""What of the project's code is in the guest: all that it imports, and no tool of the host."""

from __future__ import annotations

import ast
from pathlib import Path

from controller.state import guest_code

HOST_ONLY = ("sandbox", "exporter", "process", "qmp", "blockgraph")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return {each for each in found if each.startswith(("appliance.", "images."))}


def test_everything_that_it_imports_is_there() -> None:
    code = guest_code()
    root = Path(__file__).parents[3]
    for name, path in code.items():
        for module in imports(path):
            file = f"{module.replace('.', '/')}.py"
            if (root / file).is_file():
                assert file in code, f"{name} imports {module}"


def test_nothing_of_the_host() -> None:
    code = guest_code()
    assert "appliance/agent/__main__.py" in code
    assert "images/reader/__main__.py" in code
    for name in HOST_ONLY:
        assert f"images/{name}.py" not in code
    assert not any("recipe" in name for name in code)
