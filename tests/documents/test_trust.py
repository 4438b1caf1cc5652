"""The figures of docs/trust.md are those of the records, and what is counted in the tests."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.hostile_files import FILES
from support.paths import ROOT

PAGE = " ".join((ROOT / "docs" / "trust.md").read_text().split())


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return found


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def thousands(number: int) -> str:
    return f"{number:,}"


def test_the_corpus_is_as_large_as_the_page_says() -> None:
    commands = module(ROOT / "tests" / "test_hostile_corpus.py").COMMANDS
    files = sum(map(len, FILES.values()))
    assert f"`make test` builds {files} files in {len(FILES)} families" in PAGE
    assert (
        f"through every command that reads a file, {len({name.partition(' --')[0] for name in commands})} in all"
        in PAGE
    )


def test_the_fuzzers_record() -> None:
    fuzz = record("fuzz")
    readers = fuzz["readers"].values()
    refused, read = (sum(counts[verdict] for counts in readers) for verdict in ("refused", "read"))
    assert fuzz["failures"] == []
    assert (
        f"{thousands(fuzz['files'])} files in {fuzz['seconds']} seconds, {len(fuzz['failures'])} failures; "
        f"{thousands(refused)} were refused, {thousands(read)} were still whole enough to be read."
    ) in PAGE
    assert f"was {fuzz['worst']['cpu_s']:g} s of processor time and {fuzz['worst']['peak_mb']} MB." in PAGE


def test_the_kills() -> None:
    kills = module(ROOT / "tests" / "faults" / "test_kills.py")
    assert f"`kill -9` at {kills.KILLS} random moments in each of {len(kills.WRITERS)} ways of writing a file" in PAGE


def test_the_soaks_record() -> None:
    soak = record("soak")
    memory, replaced, rests = soak["memory"], soak["replaced_under_load"], soak["at_rest"]
    assert soak["problems"] == []
    assert {one["threads"] for one in rests} == {rests[0]["threads"]}
    assert {one["descriptors"] for one in rests} == {rests[0]["descriptors"]}
    for figure in (
        f"busy for {soak['minutes']:g} minutes",
        f"(load average {soak['machine']['load_average'][0]:.0f} to {soak['load_average_after'][0]:.0f})",
        f"| requests | {thousands(soak['requests'])}, of which {thousands(soak['left'])} left in the middle and "
        f"{thousands(soak['hardly_http'])} were hardly HTTP |",
        f"| {thousands(soak['images'])}, none wrong |",
        f"than they should | {soak['errors']} |",
        f"| {memory['first_mb']:.1f} and {memory['last_mb']:.1f} MB; "
        f"trend {memory['trend_mb_per_hour']:.1f} MB an hour |",
        f"| {rests[0]['threads']} and {rests[0]['descriptors']}, each time |",
        f"replaced under load, {len(replaced['exit_codes'])} times",
        f"asked again {thousands(replaced['asked_again'])} times in all",
    ):
        assert figure in PAGE, figure


def test_the_formats() -> None:
    assert f"for {len(record('formats'))} checkpoints" in PAGE


@pytest.mark.parametrize("word", ["fuzz", "soak", "test-faults", "audit", "test"])
def test_the_commands_are_there(word: str) -> None:
    assert re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"`make {word}" in PAGE
