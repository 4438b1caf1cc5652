import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Command = Callable[..., Any]


def test_a_report_is_printed_drawn_and_recorded(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    checkpoint = golden / "checkpoints/dcgan_small_64/netG.pth"
    image, record = tmp_path / "report.png", tmp_path / "report.json"
    options = ("--samples", "500", "--top", "3", "--images", "1", "--repeats", "2")
    result = sefa_command("compare-methods", checkpoint, "-o", image, "-o", record, *options)
    assert result.code == 0, result.err
    assert "SeFa needs no samples" in result.out
    with Image.open(image) as opened:
        assert opened.format == "PNG"
    document = json.loads(record.read_text())
    assert [method["name"] for method in document["methods"]] == ["sefa", "sefa, rows", "ganspace", "random"]
    assert document["machine"]["cores"]
    assert len(document["methods"][2]["runs_s"]) == 2
    assert re.search(r"load average [\d.]+ at the start, [\d.]+ at the end", result.out)
    assert re.search(r"ganspace +500 +\S+ m?s \(\S+ m?s to \S+ m?s\)", result.out)
    printed = json.loads(sefa_command("compare-methods", checkpoint, "--json", *options).out)
    assert printed.keys() == document.keys()


def test_mistakes_are_told_before_anything_is_computed(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    checkpoint = golden / "checkpoints/dcgan_small_64/netG.pth"
    for options, message in (
        (("-o", tmp_path / "report.pdf"), "must end in .png or .json"),
        (("--samples", "2"), "samples must be more than 20"),
        (("--repeats", "0"), "repeats must be in 1..1000"),
        (("--images", "0"), "images must be in 1..1000"),
        (("--top", "99"), "top must be in 1..20"),
    ):
        result = sefa_command("compare-methods", checkpoint, *options)
        assert result.code == 1
        assert message in result.err
    assert not list(tmp_path.iterdir())
