"""The fuzzer notices what it is there to notice."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fuzz
from fuzz import READERS, Watch, attempt
from sefa_runtime.errors import InputError

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def refuse(path: Path) -> None:
    raise InputError("one line")


def refuse_in_two_lines(path: Path) -> None:
    raise InputError("one\ntwo")


def fall(path: Path) -> None:
    raise KeyError("bug")


def write(path: Path) -> None:
    path.with_name("beside").write_text("x")


def start_process(path: Path) -> None:
    os.system("true")


def unpickle(path: Path) -> None:
    import pickle

    pickle.loads(pickle.dumps(Path()))


def fill(path: Path) -> None:
    len(b"x" * (2 * 10**8))


@pytest.mark.parametrize(
    ("reader", "verdict"),
    [
        (lambda path: None, "read"),
        (refuse, "refused"),
        (refuse_in_two_lines, "more than one line"),
        (fall, "KeyError at test_fuzz.py"),
        (write, "did open"),
        (start_process, "did os.system"),
        (unpickle, "did pickle.find_class"),
        (fill, "took "),
    ],
)
def test_what_a_reader_did_is_noticed(
    reader: Callable[[Path], None], verdict: str, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, "record", reader)
    monkeypatch.setattr(fuzz, "MAX_MB", 100)
    assert attempt("record", tmp_path / "file", watch).verdict.startswith(verdict)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_another_and_the_same_seed_gives_it_again(seed: int) -> None:
    content, other = bytes(range(256)) * 40, b"other" * 1000
    assert fuzz.mutated(content, other, seed) == fuzz.mutated(content, other, seed)
    assert len({fuzz.mutated(content, other, again) for again in range(20)}) > 15
