import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import InputError, ModelFileError
from sefa_runtime.model.protobuf import bytes_field
from sefa_runtime.model.reading import check_payload, read_info
from sefa_runtime.model.renaming import rename_directions


@pytest.fixture
def model(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(golden / "tiny.onnx", tmp_path / "model.onnx"))


def test_the_new_names_are_what_an_editor_knows(model: Path) -> None:
    before = sefa_runtime.load(model, provider="cpu")
    rename_directions(model, {0: "light", 1: "pose", 3: "ärger 怒り"}, {3: (-5.0, 2.5)})
    after = sefa_runtime.load(model, provider="cpu")
    assert after.info.names == ("light", "pose", "direction-2", "ärger 怒り")
    assert after.info.directions[3].alpha_range == (-5.0, 2.5)
    np.testing.assert_array_equal(after.edit(seed=3, edits={"light": 2.0}), before.edit(seed=3, edits={"pose": 2.0}))


def test_graph_and_weights_stay_byte_for_byte(golden: Path, model: Path) -> None:
    original, info = (golden / "tiny.onnx").read_bytes(), read_info(model)
    assert info.payload is not None
    renamed = rename_directions(model, {2: "a name that is much longer than the one before"})
    assert renamed == read_info(model)
    assert renamed.payload == info.payload
    assert model.read_bytes()[: info.payload.bytes] == original[: info.payload.bytes]
    assert hashlib.sha256(model.read_bytes()[: info.payload.bytes]).hexdigest() == info.payload.sha256
    check_payload(model, renamed)
    rename_directions(model, {2: "direction-2"})
    assert model.read_bytes() == original


def test_what_others_wrote_into_the_file_stays(model: Path) -> None:
    entry = bytes_field(1, b"author") + bytes_field(2, b"somebody")
    producer = bytes_field(6, b"a doc string")
    model.write_bytes(model.read_bytes() + bytes_field(14, entry) + producer)
    rename_directions(model, {0: "smile"})
    assert sefa_runtime.load(model, provider="cpu").info.names[0] == "smile"
    onnx = pytest.importorskip("onnx")
    found = onnx.load(model)
    metadata = {item.key: item.value for item in found.metadata_props}
    assert metadata["author"] == "somebody"
    assert len(found.metadata_props) == 3
    assert found.doc_string == "a doc string"


def test_another_file_is_written_on_request(golden: Path, model: Path, tmp_path: Path) -> None:
    rename_directions(model, {0: "smile"}, output=tmp_path / "other.onnx")
    assert model.read_bytes() == (golden / "tiny.onnx").read_bytes()
    assert read_info(tmp_path / "other.onnx").names[0] == "smile"


@pytest.mark.parametrize(
    ("names", "ranges", "message"),
    [
        ({4: "a"}, {}, r"direction must be in 0\.\.3, got 4"),
        ({-1: "a"}, {}, r"direction must be in 0\.\.3, got -1"),
        ({0: "7"}, {}, "'7' is not a name"),
        ({0: "a\nb"}, {}, "is not a name"),
        ({0: "light"}, {}, "two directions have the same name 'light'"),
        ({}, {0: (2.0, 1.0)}, "from low to high, got 2 to 1"),
        ({}, {0: (float("nan"), 1.0)}, "from low to high"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    golden: Path, model: Path, tmp_path: Path, names: Any, ranges: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rename_directions(model, names, ranges)
    assert model.read_bytes() == (golden / "tiny.onnx").read_bytes()
    assert list(tmp_path.iterdir()) == [model]


def test_the_file_of_the_weights_is_not_replaced(golden: Path, tmp_path: Path) -> None:
    for name in ("style_w.onnx", "style.safetensors"):
        shutil.copy(golden / name, tmp_path / name)
    (tmp_path / "link.onnx").symlink_to("style.safetensors")
    for output in ("style.safetensors", "link.onnx"):
        with pytest.raises(FileExistsError, match="is an input"):
            rename_directions(tmp_path / "style_w.onnx", {0: "smile"}, output=tmp_path / output)
    assert (tmp_path / "style.safetensors").read_bytes() == (golden / "style.safetensors").read_bytes()


def test_a_model_that_only_its_owner_may_read_stays_so(model: Path) -> None:
    model.chmod(0o600)
    rename_directions(model, {0: "smile"})
    assert model.stat().st_mode & 0o777 == 0o600


def test_a_model_that_changes_while_it_is_copied_is_not_written(
    golden: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_other(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:4000] + b"x" + source.read_bytes()[4001:])

    monkeypatch.setattr("sefa_runtime.model.renaming.shutil.copyfile", copy_other)
    with pytest.raises(ModelFileError, match=r"model\.onnx: was changed while it was read"):
        rename_directions(model, {0: "smile"})
    assert model.read_bytes() == (golden / "tiny.onnx").read_bytes()


def test_a_damaged_model_is_not_renamed(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 3] ^= 0x10
    model.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        rename_directions(model, {0: "smile"})
    assert model.read_bytes() == content


def test_a_disk_that_is_full_leaves_the_model_as_it_was(
    golden: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: Path, target: Path) -> None:
        target.write_bytes(b"a part")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("sefa_runtime.model.renaming.shutil.copyfile", fill)
    with pytest.raises(OSError, match="No space left"):
        rename_directions(model, {0: "smile"})
    assert model.read_bytes() == (golden / "tiny.onnx").read_bytes()
    assert list(tmp_path.iterdir()) == [model]


def test_a_disk_that_is_full_is_told_of_the_file_that_was_to_be(model: Path, tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from sefa_runtime.model.renaming import rename_directions
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    rename_directions(sys.argv[1], {0: "smile"}, output=sys.argv[2])
except OSError as error:
    print(error.filename)
"""
    command = [sys.executable, "-c", program, str(model), str(tmp_path / "new.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'new.onnx'}\n"
    assert list(tmp_path.iterdir()) == [model]
