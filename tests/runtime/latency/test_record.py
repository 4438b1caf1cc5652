import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from sefa_runtime import InputError
from sefa_runtime.latency import read_record
from sefa_runtime.latency.record import RECORD_VERSION
from sefa_runtime.latency.statistics import PERCENTILES, least_samples
from support.paths import ROOT

SCHEMA: dict[str, Any] = json.loads((files("sefa_runtime.latency") / "record.schema.json").read_text())
DOCUMENT = (ROOT / "docs" / "latency-record.md").read_text()


def properties(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property in a schema, however deep."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for part in schema.values():
            yield from properties(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from properties(part)


def test_the_schema_is_that_of_this_version() -> None:
    assert SCHEMA["properties"]["record_version"]["const"] == RECORD_VERSION


def test_every_field_is_described_in_the_schema_and_named_in_the_document() -> None:
    named = set(re.findall(r"`(\w+)`", DOCUMENT))
    for name, schema in properties(SCHEMA):
        assert schema.get("description"), name
        assert name in named, name


def test_both_tell_how_many_samples_a_percentile_needs() -> None:
    fields = dict(properties(SCHEMA))
    for percent in PERCENTILES:
        least = least_samples(percent)
        assert f"null with fewer than {least}" in fields[f"p{percent}_ms"]["description"]
        assert re.search(rf"p{percent} (needs )?{least}\b", DOCUMENT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "no record_version"),
        (b"[" * 100_000, "no JSON"),
        (b'{"record_version": 2}', "a record of version 2, this sefa reads version 3"),
    ],
)
def test_what_is_no_record(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_record(path)
