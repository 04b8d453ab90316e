"""docs/reference/inspect.* say exactly what `forensic inspect --json` prints."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from referencing import Registry, Resource

from appliance import image, layer, system
from appliance.layer import Kind, Severity, Status
from controller import results
from controller.results import SCHEMA, Inspection
from tests.unit.controller.generated import ENCODABLE, inspections
from tests.unit.controller.inspections import SAMPLES, office

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs/reference"
GOLDEN = ROOT / "tests/golden/report"
DOCUMENT: dict[str, Any] = json.loads((REFERENCE / "inspect.schema.json").read_text())
PAGE = (REFERENCE / "inspect.md").read_text()
BOTH_PAGES = PAGE + (REFERENCE / "os.md").read_text()
VALIDATOR = jsonschema.Draft202012Validator(DOCUMENT)

OBJECTS: dict[str, Any] = {
    "evidence_file": results.EvidenceFile,
    "evidence_link": results.EvidenceLink,
    "evidence_header": results.EvidenceHeader,
    "stored_hash": results.StoredHash,
    "evidence": results.Evidence,
    "layer": layer.Layer,
    "content": layer.Content,
    "ext": layer.ExtState,
    "table": layer.Table,
    "partition": layer.PartitionEntry,
    "group": layer.GroupFacts,
    "volume": layer.VolumeFacts,
    "encryption": layer.Encryption,
    "keyslot": layer.Keyslot,
    "subvolume": layer.SubvolumeFacts,
    "shadow_copy": layer.ShadowCopyFacts,
    "array": layer.ArrayFacts,
    "array_member": layer.ArrayMember,
    "finding": layer.Finding,
    "image": image.ImageFacts,
    "image_file": image.ImageFile,
    "nested_image": image.NestedImage,
    "system": system.System,
    "application": system.Application,
    "user": system.User,
    "service": system.Service,
    "mount": system.MountEntry,
    "interface": system.Interface,
}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT)
    assert DOCUMENT["properties"]["schema"]["const"] == SCHEMA
    assert set(DOCUMENT["$defs"]) == set(OBJECTS)


def fields_of(kind: Any) -> list[str]:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return [field.name for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize("name", [*OBJECTS, "inspection"])
def test_every_field_is_required_and_described(name: str) -> None:
    part = DOCUMENT["$defs"].get(name, DOCUMENT)
    fields = fields_of(OBJECTS.get(name, Inspection))
    assert list(part["properties"]) == fields
    assert part["required"] == fields
    for field, schema in part["properties"].items():
        assert schema.get("description"), field
        assert f"`{field}`" in BOTH_PAGES, f"no page explains {field}"


def test_enumerations() -> None:
    kinds = DOCUMENT["$defs"]["layer"]["properties"]
    assert kinds["kind"]["enum"] == [each.value for each in Kind]
    assert kinds["status"]["enum"] == [each.value for each in Status]
    severity = DOCUMENT["$defs"]["finding"]["properties"]["severity"]
    assert severity["enum"] == [each.value for each in Severity]
    for value in [*Kind, *Status, *Severity]:
        assert f"`{value.value}`" in PAGE


@pytest.mark.parametrize("name", [each for each in SAMPLES if each != "hostile"])
def test_samples_follow_it(name: str) -> None:
    VALIDATOR.validate(json.loads(SAMPLES[name]().to_json()))


@settings(max_examples=100, deadline=None)
@given(inspections(ENCODABLE))
def test_whatever_the_types_allow_follows_it(result: Inspection) -> None:
    VALIDATOR.validate(json.loads(result.to_json()))


@settings(max_examples=30, deadline=None)
@given(inspections(ENCODABLE))
def test_the_document_of_os_follows_its_schema(result: Inspection) -> None:
    document = json.loads((REFERENCE / "os.schema.json").read_text())
    registry = Registry().with_resources(
        [(each["$id"], Resource.from_contents(each)) for each in (DOCUMENT, document)]
    )
    validator = jsonschema.Draft202012Validator(document, registry=registry)
    printed = json.loads(results.Systems.of(result).to_json())
    validator.validate(printed)
    assert list(document["properties"]) == document["required"] == list(printed)
    del printed["systems"]
    assert not validator.is_valid(printed)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each key of each object in a document is, but for the open maps."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, each in items:
        if isinstance(value, dict) and (not path or path[-1] not in {"tools", "timings"}):
            yield (*path, key)
        yield from paths(each, (*path, key))


def test_a_missing_or_wrong_value_does_not_follow_it() -> None:
    whole = json.loads(office().to_json())
    for *above, key in paths(whole):
        for change in ("remove", "replace"):
            document = copy.deepcopy(whole)
            place = document
            for step in above:
                place = place[step]
            if change == "remove":
                del place[key]
            else:
                place[key] = [{"nothing": "like it"}]
            assert not VALIDATOR.is_valid(document), (change, *above, key)


def test_later_fields_are_allowed_where_they_will_come() -> None:
    document = json.loads(office().to_json())
    for place in (
        document,
        document["evidence"][0],
        document["evidence"][0]["files"][0],
        document["layers"][0],
        document["layers"][2]["content"],
    ):
        place["later"] = {"x": 1}
    VALIDATOR.validate(document)


def test_the_example_of_the_page_is_true() -> None:
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example
    document = json.loads(example[1])
    VALIDATOR.validate(document)
    whole = json.loads(office().to_json())
    chosen = {each["address"] for each in document["layers"]}
    whole["layers"] = [each for each in whole["layers"] if each["address"] in chosen]
    assert document == whole
    report = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert report
    assert report[1] == (GOLDEN / "office.pipe.txt").read_text()


POSITIONS = {"Finding": (3, 2), "_closed": (4, 2), "Problem": (2, 1), "find": (4, 2)}
"""Name of what is called -> arguments that it has at least, and which of them is the code."""


def codes_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        # (Severity.X, "code", text), before it becomes a Finding
        if isinstance(node, ast.Tuple) and re.match(
            r"\(Severity\.\w+, '[a-z-]+'", ast.unparse(node)
        ):
            yield from [e.value for e in node.elts[1:2] if isinstance(e, ast.Constant)]
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        least, index = POSITIONS.get(name, (99, 0))
        if len(node.args) >= least and isinstance(node.args[index], ast.Constant):
            yield node.args[index].value


def test_every_finding_code_is_explained() -> None:
    sources = [*(ROOT / "appliance/agent").rglob("*.py"), *(ROOT / "controller").glob("*.py")]
    codes = {code for path in sources for code in codes_in(path)}
    explained = set(re.findall(r"^\| `([a-z-]+)` \| (?:info|warning|error) \|", PAGE, re.MULTILINE))
    assert len(codes) > 20
    assert codes == explained
