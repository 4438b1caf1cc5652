"""What is built to do harm meets everything that reads files: it is refused in one line, or read without effect.

Every file of `support.hostile_files` goes through the readers that its kind could reach, and one of some families
through every command. `make test-faults` takes every file through every reader and some commands, other ones each time,
in processes with a limit on their addresses and a watchdog. The limits, and what must not happen, are those of the
fuzzer (`fuzz.attempt`): no process, no socket, no name looked up by Python's pickle, nothing written, no descriptor
left open, 5 s of processor time and 1 GB.
"""

import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fuzz import ADDRESSES, READERS, SILENCE_S, Watch, attempt
from sefa_cli import main
from sefa_runtime.errors import InputError
from sefa_runtime.printable import printable
from support.hostile_files import CALLING, FILES, INERT, OPCODES, TEXTS, names
from support.paths import CHECKPOINTS, GOLDEN, TINY

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")

ALL_READERS = tuple(READERS)  # of the library; commands are added to the table
# The readers that each family could reach; others: all of them.
REACHED: dict[str, tuple[str, ...]] = {
    "pickles": ("checkpoint", "codes"),
    "archives": ("checkpoint", "codes", "model"),
    "tensors": ("checkpoint", "codes"),
    "safetensors": ("checkpoint", "bank", "codes"),
    "numpy files": ("codes", "directions"),
    "models": ("model",),
    "json files": ("record", "checkpoint", "tuned"),
}
# These are odd, and do no harm: what is odd is not looked at, or means nothing. Descriptions end with these.
HARMLESS = (
    "a member that is a device",
    "a member whose name is an absolute path",
    "a member whose name goes up",
    "a member whose name is a path of Windows",
    "a member whose name ends with a zero",
    "a member whose name clears the screen",
    "a member whose name has two lines",
    "a member that unpacks to a thousand times as much",
    "a member with more entries than it has",
    "that is a device",
    "with more entries than it has",
    "safetensors of eight bits",
    "with a weight of exabytes",  # that no node reads
    "with a weight of a negative shape",
    "with a weight of fewer bytes",
    "with two descriptions",  # of which the last counts, as in all of protobuf
    "a record of a key 100,000 times",
    "a record of UTF-16",
    "a record of results of infinity",
    "a record of a scenario that clears the screen",
)  # fmt: skip
STYLE_CODES = GOLDEN / "style_w+.onnx"
CHECKPOINT = CHECKPOINTS / "dcgan_small_64" / "netG.pth"
FILE, OUT = "FILE", "OUT"
# Every command that reads a file; each must refuse what it is given.
COMMANDS: dict[str, tuple[str | Path, ...]] = {
    "inspect": ("inspect", FILE),
    "inspect --json": ("inspect", FILE, "--json"),
    "factorize": ("factorize", FILE, "-o", OUT),
    "export": ("export", FILE, "-o", OUT),
    "export --bank": ("export", CHECKPOINT, "--bank", FILE, "-o", OUT),
    "export --weights": ("export", "torch.nn:Identity", "--weights", FILE, "--latent-dim", "4", "-o", OUT),
    "explore": ("explore", FILE, "-o", OUT),
    "name": ("name", FILE, "0=a"),
    "compare-methods": ("compare-methods", FILE),
    "bank show": ("bank", "show", FILE),
    "bank merge": ("bank", "merge", FILE, FILE, "-o", OUT),
    "bank subset": ("bank", "subset", FILE, "0", "-o", OUT),
    "bank compare": ("bank", "compare", FILE, FILE),
    "bank import": ("bank", "import", FILE, "-o", OUT),
    "bank export": ("bank", "export", FILE, "-o", OUT),
    "edit": ("edit", FILE, "-o", OUT),
    "edit --z": ("edit", TINY, "--z", FILE, "-o", OUT),
    "edit --codes": ("edit", STYLE_CODES, "--codes", FILE, "-o", OUT),
    "edit --tuned": ("edit", TINY, "--tuned", FILE, "-o", OUT),
    "sweep": ("sweep", FILE, "-o", OUT),
    "serve": ("serve", FILE, "--port", "0"),
    "bench": ("bench", FILE),
    "bench compare": ("bench", "compare", FILE, FILE),
    "tune": ("tune", FILE),
    "triton": ("triton", FILE, "-o", OUT),
    "kserve": ("kserve", FILE, "-o", OUT),
    "verify": ("verify", FILE),
    "verify --checkpoint": ("verify", TINY, "--checkpoint", FILE),
    "seal": ("seal", FILE, "--like", TINY),
    "seal --like": ("seal", TINY, "--like", FILE),
}
SUFFIXES = {"edit": ".png", "sweep": ".png", "export": ".onnx", "explore": ".html", "kserve": ".yaml"}


def run(name: str, path: Path) -> None:
    """Run a command in this process; raise what it says if it refuses the file."""
    words = COMMANDS[name]
    output = path.with_name("output" + SUFFIXES.get(str(words[0]), ".safetensors"))
    found = {FILE: path, OUT: output}
    said = command(*(found.get(str(word), word) for word in words))
    assert said.isprintable() or all(printable(line) == line for line in said.split("\n")), repr(said[:300])


def command(*words: object) -> str:
    """Run a command in this process; return what it printed, or raise an InputError of its one line."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    argv, sys.argv = sys.argv, ["sefa", *map(str, words)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as error:
        code = error.code
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert code in (0, 1, None), err.getvalue()  # 2: the test does not know the command.
    if code:
        # `verify` lists its findings.
        failed = [f"sefa: {line}" for line in out.getvalue().split("\n") if line.startswith("FAIL")]
        lines = failed or err.getvalue().rstrip("\n").split("\n")
        assert lines[-1].startswith("sefa: "), err.getvalue()[-1000:]
        assert not any("Traceback" in line for line in lines)
        raise InputError(lines[-1])
    return out.getvalue()


# These take what a model says of itself and leave its graph alone; all others also refuse the graph.
GRAPH_IS_NOT_READ = ("inspect", "inspect --json", "name", "triton", "kserve")
FEW = 6  # commands that a file meets in the long run, in turn
# Of these families one file meets every command also in `make test`.
TRIED = {
    "pickles": "opcode REDUCE, in an archive of torch",
    "archives": "an .npz with a member that says it is larger",
    "models": "a model with weights in '/etc/passwd'",
    "json files": "a record of results that are texts",
}


def warmed_up(path: Path) -> Watch:
    """Return a watch in a process whose readers and commands have imported what they need."""
    watch = Watch()
    readers = {name: lambda path, name=name: run(name, path) for name in COMMANDS}
    READERS.update(readers)
    for content in (b"noise", TINY.read_bytes()):
        path.write_bytes(content)
        for reader in [*READERS, "bench compare"] if content == b"noise" else ["model", "verify --checkpoint"]:
            attempt(reader, path, watch)
    return watch


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Notices what a reader must not do."""
    before = dict(READERS)
    yield warmed_up(tmp_path_factory.mktemp("warm") / "file")
    READERS.clear()
    READERS.update(before)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file is put: in the working directory, alone."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "file"


def listing(path: Path) -> set[str]:
    """Return the names of what is in the file's folder."""
    return {one.name for one in path.parent.iterdir()}


def wrong(family: str, what: str, reader: str, path: Path, watch: Watch) -> list[str]:
    """Read the file; return what is wrong about it, if anything is."""
    outcome = attempt(reader, path, watch)
    may_be_read = what.endswith(HARMLESS) or (family == "models" and reader in GRAPH_IS_NOT_READ)
    found = []
    if outcome.verdict != "refused" and not (outcome.verdict == "read" and may_be_read):
        found.append(f"{what}, {reader}: {outcome.verdict}")
    if other := listing(path) - {path.name}:
        found.append(f"{what}, {reader}: made {other}")
    return found


def commands_for(family: str) -> list[str]:
    """Return the commands that refuse everything of a family."""
    # `seal` takes a model's graph, and gives it another description.
    others = (*GRAPH_IS_NOT_READ[2:], "seal") if family == "models" else ()
    return [name for name in COMMANDS if name not in others]


def test_every_opcode_of_pickle_is_known_to_call_or_not_to() -> None:
    assert set(CALLING) | INERT == OPCODES
    assert not set(CALLING) & INERT


def test_every_command_that_reads_a_file_is_tried() -> None:
    known = json.loads((Path(__file__).parent / "cli" / "commands.json").read_text())
    wanted = {f"bank {name}" for name in known.pop("bank")} | {*known}
    assert {name.partition(" --")[0] for name in COMMANDS} == wanted - {"demo", "doctor"}


@pytest.mark.parametrize("family", FILES)
def test_every_file_is_refused_by_what_reads_its_kind(family: str, path: Path, watch: Watch) -> None:
    found = []
    for what, build in FILES[family].items():
        path.write_bytes(build())
        for reader in REACHED.get(family, ALL_READERS):
            found += wrong(family, what, reader, path, watch)
    assert not found


@pytest.mark.parametrize("family", TRIED)
def test_every_command_refuses_in_one_line(family: str, path: Path, watch: Watch) -> None:
    path.write_bytes(FILES[family][TRIED[family]]())
    assert not [line for name in commands_for(family) for line in wrong(family, TRIED[family], name, path, watch)]


ALL_TEXTS = "".join(text for name, text in TEXTS.items() if name not in ("is long", "ends with a zero"))


def check_text(text: str, place: str, path: Path) -> None:
    """Let it be shown, and check that a text is all that it is."""
    path.write_bytes(dict(names())[place](text))
    for reader in ("inspect", "inspect --json", "bench compare"):
        with contextlib.suppress(InputError):
            run(reader, path)
    with contextlib.suppress(InputError):
        json.loads(command("inspect", path, "--json"))
    assert listing(path) == {path.name}


@pytest.mark.parametrize("place", dict(names()))
def test_text_in_a_name_stays_a_text(place: str, path: Path, watch: Watch) -> None:
    check_text(ALL_TEXTS, place, path)


@pytest.mark.parametrize("kind", [kind for kind, text in TEXTS.items() if "/" not in text and "\0" not in text])
def test_a_files_own_name_stays_a_text(kind: str, path: Path, watch: Watch) -> None:
    name = TEXTS[kind].encode("utf-8", "replace").decode()[:200]
    if not name:
        pytest.skip("a file has a name")
    named, output = path.with_name(name + ".onnx"), path.with_name(name + ".png")
    named.write_bytes(TINY.read_bytes())
    said = command("edit", named, "-o", output) + command("inspect", named)
    assert all(printable(line) == line for line in said.split("\n"))
    assert listing(path) == {named.name, output.name}


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a device"])
def test_what_is_no_file_is_not_waited_for(kind: str, path: Path, watch: Watch) -> None:
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link to a device":
            path.symlink_to("/dev/zero")
    for reader in COMMANDS:
        assert attempt(reader, path, watch).verdict == "refused", reader


@pytest.mark.parametrize(
    ("checkpoint", "config"), [("hf_biggan_deep_32", "config.json"), ("lucidrains_32", ".config.json")]
)
def test_a_configuration_beside_a_checkpoint_is_no_better(
    checkpoint: str, config: str, path: Path, watch: Watch
) -> None:
    for file in (CHECKPOINTS / checkpoint).iterdir():
        (path.parent / file.name).symlink_to(file)
    (weights,) = (one for one in path.parent.iterdir() if one.suffix in (".bin", ".pt"))
    beside = path.parent / config
    whole = json.loads(beside.read_text())
    numbers = ("NaN", "-1", "1e999", "9" * 400, '"x"', "[]", "[[[]]]", "null", "true", "{}")
    texts = [f'{{"eps": {value}, "lr_mlp": {value}, "layers": {value}}}' for value in numbers]
    others: tuple[object, ...] = (None, -1, 10**9, [], "x")
    texts += [json.dumps(whole | {key: value}) for key in whole for value in others]
    for text in ["", "[", "[]", "7", "[" * 100_000, '{"a":' * 100_000, *texts]:
        beside.unlink()
        beside.write_text(text)
        assert attempt("checkpoint", weights, watch).verdict in ("read", "refused"), text[:200]


# All of it, where a reader may end its process or never come back.


def work(pipe: Connection, folder: str, family: str) -> None:
    """Give every file of a family to every reader and the next few commands; say which before each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    os.chdir(folder)
    path = Path(folder, "file")
    watch, commands = warmed_up(path), cycle(commands_for(family))
    for what, build in FILES[family].items():
        path.write_bytes(build())
        pipe.send((what, []))
        few = islice(commands, 0 if what.endswith(HARMLESS) else FEW)  # A command that reads a file also writes.
        for reader in (*ALL_READERS, *few):
            pipe.send((f"{what}, {reader}", wrong(family, what, reader, path, watch)))
    for kind, text in TEXTS.items() if family == "others" else ():
        for place, _ in names():
            pipe.send((f"{place} that {kind}", []))
            check_text(text, place, path)
    pipe.send((None, []))


@pytest.mark.faults
@pytest.mark.parametrize("family", FILES)
def test_every_file_meets_every_reader_and_some_commands(family: str, tmp_path: Path) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, str(tmp_path), family))
    process.start()
    theirs.close()
    what: str | None = "the beginning"
    found: list[str] = []
    try:
        while what is not None:
            assert ours.poll(SILENCE_S), f"{what}: it hangs"
            try:
                what, more = ours.recv()
            except EOFError:
                pytest.fail(f"{what}: the process ended; before that: {found}")
            found += more
    finally:
        process.kill()
        process.join()
    assert not found
