import json
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import onnxruntime
import pytest
from PIL import Image

from support.descriptions import change_description

Command = Callable[..., Any]
QUICK = ("--seconds", "0.05", "--provider", "cpu")
pytestmark = pytest.mark.usefixtures("steady_clock")


@pytest.fixture
def record(sefa_command: Command, golden: Path, tmp_path: Path) -> Path:
    """A record of batch sizes 1 and 2."""
    path = tmp_path / "a.json"
    result = sefa_command("bench", golden / "tiny.onnx", *QUICK, "--batch", "1,2", "-o", path)
    assert result.code == 0, result.err
    return path


def read(path: Path) -> dict[str, Any]:
    schema = json.loads((files("sefa_runtime.latency") / "record.schema.json").read_text())
    document: dict[str, Any] = json.loads(path.read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def changed(record: Path, **changes: Any) -> Path:
    """A copy of a record with other values."""
    path = record.with_name("b.json")
    path.write_text(json.dumps(json.loads(record.read_text()) | changes))
    return path


def test_a_record_is_written_as_its_schema_says(record: Path) -> None:
    document = read(record)
    assert document["scenario"] == "single_stream"
    assert [result["batch"] for result in document["results"]] == [1, 2]
    assert document["results"][0]["samples_ms"] is None


def test_samples_on_request(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    sefa_command("bench", golden / "tiny.onnx", *QUICK, "--samples", "-o", tmp_path / "a.json")
    (result,) = read(tmp_path / "a.json")["results"]
    assert len(result["samples_ms"]) == result["runs"]


@pytest.fixture
def counted(golden: Path, tmp_path: Path) -> Path:
    """The tiny model, as an exporter that counts multiply-adds would describe it."""
    return change_description(golden / "tiny.onnx", tmp_path / "tiny.onnx", lambda info: info.update(macs=123_456))


def test_a_model_is_held_against_the_machines_rates(
    sefa_command: Command, counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("sefa_runtime.latency.measure"), "SECONDS_WITH_RATES", 0.0)
    path = tmp_path / "a.json"
    out = sefa_command("bench", counted, *QUICK, "--batch", "2", "-o", path).out
    document = read(path)
    (result,), rates = document["results"], document["rates"]
    assert document["model"]["macs"] == 123_456
    milliseconds = result["p50_ms"] or result["mean_ms"]
    assert result["roofline"]["gflops"] == pytest.approx(2 * 2 * 123_456 / milliseconds / 1e6, rel=0.01)
    share = result["roofline"]["gflops"] / rates["convolution_gflops"]
    assert result["roofline"]["of_convolution"] == pytest.approx(share, rel=0.01)
    assert re.search(r"batch 2: \d+% of .*'s rate here: [\d.e-]+ of [\d.]+ G", out)


def test_a_quick_look_measures_no_rates(record: Path) -> None:
    document = read(record)
    assert document["rates"] is None
    assert all(result["roofline"] is None for result in document["results"])


def test_the_table_says_what_matters(sefa_command: Command, golden: Path) -> None:
    out = sefa_command("bench", golden / "tiny.onnx", *QUICK, "--scenario", "offline", "--batch", "1,4").out
    for text in ("cpu, asked for: cpu", "527 parameters", "images/s", "p99 ms", "highest throughput at batch"):
        assert text in out
    assert "falls short of a full measurement:\n  batch 1: " in out


def test_server(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    arguments = ("--scenario", "server", "--rate", "1000", "--seed", "3", "-o", tmp_path / "a.json")
    result = sefa_command("bench", golden / "tiny.onnx", *QUICK, *arguments)
    assert result.code == 0, result.err
    assert "asked/s" in result.out
    arrivals = read(tmp_path / "a.json")["results"][0]["arrivals"]
    assert (arrivals["rate"], arrivals["seed"]) == (1000.0, 3)


def test_plot(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    result = sefa_command("bench", golden / "tiny.onnx", *QUICK, "--plot", tmp_path / "a.png")
    assert result.code == 0, result.err
    assert "a.png: the record as an image" in result.out
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "server"], "the scenario server needs a rate"),
        (["--rate", "5"], "a rate belongs to the scenario server"),
        (["--plot", "a.pdf"], "a.pdf: a plot is a .png file"),
        (["--plot", "missing/a.png"], "missing: no such folder"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    sefa_command: Command,
    golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = sefa_command("bench", golden / "tiny.onnx", *QUICK, *arguments)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def missing() -> str:
    """A provider that the installed onnxruntime does not have."""
    available = onnxruntime.get_available_providers()
    names: list[str] = onnxruntime.get_all_providers()
    return next(name for name in names if name not in available)


def test_another_provider_than_the_one_asked_for_is_a_failure_even_if_it_was_allowed(
    sefa_command: Command, golden: Path, tmp_path: Path, missing: str
) -> None:
    arguments = ("--seconds", "0.05", "--provider", missing, "--allow-cpu-fallback", "-o", tmp_path / "a.json")
    result = sefa_command("bench", golden / "tiny.onnx", *arguments)
    assert result.code == 1
    assert result.err == f"sefa: {missing} was asked for, but cpu ran\n"
    record = read(tmp_path / "a.json")  # It tells what ran.
    assert (record["provider_requested"], record["provider"]) == (missing, "cpu")
    assert "is built without it" in record["provider_reason"]


def test_a_provider_that_is_not_there_is_a_failure(
    sefa_command: Command, golden: Path, tmp_path: Path, missing: str
) -> None:
    result = sefa_command("bench", golden / "tiny.onnx", "--provider", missing, "-o", tmp_path / "a.json")
    assert result.code == 1
    assert not list(tmp_path.iterdir())


def test_provider_options_are_in_the_record(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    options = ("--provider-option", "session.intra_op.allow_spinning=0", "--threads", "1", "-o", tmp_path / "a.json")
    assert sefa_command("bench", golden / "tiny.onnx", *QUICK, *options).code == 0
    record = read(tmp_path / "a.json")
    assert record["session_entries"]["session.intra_op.allow_spinning"] == "0"
    assert record["threads"] == 1


def test_compare(sefa_command: Command, record: Path) -> None:
    results = read(record)["results"]
    for result in results:
        result["p50_ms"] *= 2
    result = sefa_command("bench", "compare", record, changed(record, results=results, threads=77))
    assert result.code == 0, result.err
    assert re.search(r"threads +\d+ -> 77$", result.out, re.MULTILINE)
    (line, _) = [line.split() for line in result.out.splitlines() if "p50_ms" in line]
    assert line[:3] == ["1", "1", "p50_ms"]
    assert line[-1] == "2.0"


def test_compare_as_json(sefa_command: Command, record: Path) -> None:
    comparison = json.loads(sefa_command("bench", "compare", record, record, "--json").out)
    assert {ratio["b_over_a"] for ratio in comparison["ratios"]} == {1.0}


def test_compare_refuses_another_machine_unless_told(sefa_command: Command, record: Path) -> None:
    machine = read(record)["machine"] | {"cpu": "another"}
    other = changed(record, machine=machine)
    result = sefa_command("bench", "compare", record, other)
    assert result.code == 1
    assert "different machines" in result.err
    result = sefa_command("bench", "compare", "--across-machines", record, other)
    assert result.code == 0
    assert "-> another" in result.out


def test_compare_needs_two_records(sefa_command: Command, record: Path, golden: Path) -> None:
    assert sefa_command("bench", "compare", record).code == 2
    result = sefa_command("bench", "compare", record, golden / "tiny.onnx")
    assert (result.code, "not a latency record" in result.err) == (1, True)


def test_a_model_called_compare(
    sefa_command: Command, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(golden / "tiny.onnx", tmp_path / "compare")
    monkeypatch.chdir(tmp_path)
    result = sefa_command("bench", "./compare", *QUICK, "--json")
    assert json.loads(result.out)["model"]["file"] == "compare"


def test_both_have_a_help_text(sefa_command: Command) -> None:
    assert "Usage: sefa bench [OPTIONS]" in sefa_command("bench", "--help").out
    assert "Usage: sefa bench compare [OPTIONS]" in sefa_command("bench", "compare", "--help").out
