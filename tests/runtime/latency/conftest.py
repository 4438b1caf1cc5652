from collections.abc import Callable
from importlib.resources import files
from json import loads
from typing import Any

import jsonschema
import pytest

from sefa_runtime import Editor
from sefa_runtime.latency import LatencyRecord, measure


@pytest.fixture
def quick(tiny: Editor, steady_clock: None) -> Callable[..., LatencyRecord]:
    """Measure the tiny model for an instant."""

    def run(**arguments: Any) -> LatencyRecord:
        return measure(tiny, seconds=0.05, **arguments)

    return run


@pytest.fixture
def validate() -> Callable[[Any], None]:
    """Check a document against the schema of latency records."""
    schema = loads((files("sefa_runtime.latency") / "record.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())

    def check(document: Any) -> None:
        validator.validate(document)

    return check
