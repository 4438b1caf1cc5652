"""What `sefa tune -o` writes, read by whoever runs a model."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import InputError
from sefa_runtime.model.reading import read_info
from sefa_runtime.model.renaming import rename_directions
from sefa_runtime.session.tuned import OPTIONS, Setting, choose, content_of, relative_files, unsafe_options
from support.tuned_files import tuned_document

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def tuned(golden: Path, tmp_path: Path) -> Path:
    """A tuned file beside its model, `tiny.onnx`."""
    shutil.copy(golden / "tiny.onnx", tmp_path)
    (tmp_path / "tuned.json").write_text(json.dumps(tuned_document()))
    return tmp_path / "tuned.json"


def test_each_caller_gets_what_is_best_for_it(golden: Path, tuned: Path) -> None:
    one = choose(tuned, golden / "tiny.onnx")  # The same content in another place.
    assert one.path == golden / "tiny.onnx"
    assert (one.setting.instances, one.setting.threads, one.setting.batch, one.max_batch) == (1, 2, 1, 1)
    assert one.setting.arguments["styles_on_cpu"]
    assert not one.warning
    many = choose(tuned, golden / "tiny.onnx", "many_callers")
    assert many.setting == Setting("tiny.onnx", "cpu", 2, 1)
    assert many.max_batch == 4
    with pytest.raises(InputError, match="callers must be"):
        choose(tuned, golden / "tiny.onnx", "nobody")


def test_a_model_is_loaded_as_it_was_tuned(golden: Path, tuned: Path, tiny: sefa_runtime.Editor) -> None:
    editor = sefa_runtime.load(golden / "tiny.onnx", tuned=tuned)
    assert editor.session.entries["session.intra_op.spin_duration_us"] == "2000"
    assert (editor.provider, editor.session.threads, editor.info.batch) == ("cpu", 2, 1)
    np.testing.assert_allclose(editor.edit([1, 2]).astype(int), tiny.edit([1, 2]), atol=1)
    with pytest.raises(InputError, match="tuned decides provider"):
        sefa_runtime.load(golden / "tiny.onnx", "cpu", tuned=tuned)
    with pytest.raises(InputError, match="load the model by its path"):
        sefa_runtime.load((golden / "tiny.onnx").read_bytes(), tuned=tuned)


def test_a_variant_is_found_beside_the_file(golden: Path, tmp_path: Path) -> None:
    """The variant here is another model, which `sefa tune` would refuse: only its content is looked at."""
    content = tuned_document()
    variant = content_of(read_info(golden / "tiny_float32.onnx"))
    content["models"].append({"file": "more/variant.onnx", "content_sha256": variant})
    content["one_caller"]["setting"]["model"] = "more/variant.onnx"
    tuned = tmp_path / "tuned.json"
    tuned.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"the fastest is the variant .*more/variant.onnx: no such file"):
        choose(tuned, golden / "tiny.onnx")
    (tmp_path / "more").mkdir()
    shutil.copy(golden / "style_z.onnx", tmp_path / "more" / "variant.onnx")
    with pytest.raises(InputError, match="is not the variant that was tuned"):
        choose(tuned, golden / "tiny.onnx")
    shutil.copy(golden / "tiny_float32.onnx", tmp_path / "more" / "variant.onnx")
    assert choose(tuned, golden / "tiny.onnx").path == tmp_path / "more" / "variant.onnx"
    # Who asks for the variant itself gets it from where it is.
    assert choose(tuned, golden / "tiny_float32.onnx").path == golden / "tiny_float32.onnx"
    rename_directions(tmp_path / "more" / "variant.onnx", {0: "another"})
    with pytest.raises(InputError, match="are not named as those of"):
        choose(tuned, golden / "tiny.onnx")


def test_another_model_and_another_machine(golden: Path, tuned: Path) -> None:
    with pytest.raises(InputError, match=r"tuned.json: made for tiny.onnx, and .*style_z.onnx is another model"):
        choose(tuned, golden / "style_z.onnx")
    content = tuned_document()
    content["machine"]["cores"] = 999
    tuned.write_text(json.dumps(content))
    assert "made on another machine" in choose(tuned, golden / "tiny.onnx").warning
    with pytest.warns(UserWarning, match="999 cores"):
        sefa_runtime.load(golden / "tiny.onnx", tuned=tuned)


def _set(*keys: str, value: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


ONE = ("one_caller", "setting")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("tuned_version", value=2), "has version 2, this sefa reads 1"),
        (lambda content: content.pop("tuned_version"), "no tuned_version"),
        (lambda content: content.pop("many_callers"), "'many_callers' is missing"),
        (_set("machine", value=[]), "machine is"),
        (_set("models", value=["tiny.onnx"]), "an entry is"),
        (_set("models", value=[]), "'tiny.onnx' is not among its models"),
        (_set(*ONE, "provider", value="../x"), "provider is '../x'"),
        (_set(*ONE, "provider", value="auto"), "provider is 'auto'"),
        (_set(*ONE, "instances", value=10**9), r"instances must be in 1\.\.1024"),
        (_set(*ONE, "threads", value=True), "threads must be in"),
        (_set(*ONE, "batch", value=1.5), "batch must be in"),
        (_set(*ONE, "styles_on_cpu", value=1), "expected true or false"),
        (_set(*ONE, "surprise", value=1), "which is unknown"),
        (_set(*ONE, "options", value={"trt_extra_plugin_lib_paths": "evil.so"}), "is not one that `sefa tune` tries"),
        (_set(*ONE, "options", value={"session.register_custom_ops": "evil.so"}), "is not one that `sefa tune` tries"),
        (_set(*ONE, "options", value={"load_config": "/etc/passwd"}), "is not one that `sefa tune` tries"),
        (_set(*ONE, "options", value={"device_id": 1}), "is not one that `sefa tune` tries"),
        (_set(*ONE, "model", value="a\nb"), "model is"),
    ],
)
def test_damaged_files(golden: Path, tuned: Path, change: Change, message: str) -> None:
    content = copy.deepcopy(tuned_document())
    change(content)
    tuned.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as refused:
        choose(tuned, golden / "tiny.onnx")
    assert str(refused.value).startswith(str(tuned))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe", b"[" * 100_000, b'{"tuned_version": ' + b"9" * 9999])
def test_what_is_no_tuned_file(golden: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tuned.json").write_bytes(content)
    with pytest.raises(InputError, match="not a file that `sefa tune -o` wrote"):
        choose(tmp_path / "tuned.json", golden / "tiny.onnx")
    with pytest.raises(InputError, match="no such file"):
        choose(tmp_path / "nothing.json", golden / "tiny.onnx")


def test_no_option_names_a_file() -> None:
    for path in ("/tmp/x.so", "x.so", "C:\\x.dll", '{"CPU": {"CACHE_DIR": "/tmp"}}'):
        assert unsafe_options(dict.fromkeys(OPTIONS, path)) == list(OPTIONS)


def test_files_are_named_relative_to_the_file(tmp_path: Path) -> None:
    assert relative_files([tmp_path / "a.onnx", tmp_path / "b" / "c.onnx"], tmp_path / "b" / "tuned.json") == [
        "../a.onnx",
        "c.onnx",
    ]
