"""An Editor in other processes than the one that loaded it, and its copies."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sefa_runtime import Editor, ModelFileError, load
from support.patience import PATIENCE_S

# Loads, forks, and compares the child's images with the parent's. The child ends like any program, without `os._exit`.
FORKED = """
import os, sys, threading, time
import numpy as np
from sefa_runtime import load

os.chdir(sys.argv[1])
editor = load("model.onnx", "cpu", threads=3)
expected = editor.edit(seed=[1, 2], edits={0: 2.0})
before = editor.session
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    assert editor.session is before
    sys.exit(os.waitstatus_to_exitcode(status))
os.chdir("/")
if sys.argv[2] == "unused":
    sys.exit(0)
found = {}
def use(number):
    found[number] = editor.edit(seed=[1, 2], edits={0: 2.0}), editor.session
users = [threading.Thread(target=use, args=(number,)) for number in range(4)]
for user in users:
    user.start()
for user in users:
    user.join()
images, sessions = zip(*found.values())
assert all((image == expected).all() for image in images)
assert before not in sessions and len(set(map(id, sessions))) == 1, "one session, of the child's own"
while len(os.listdir("/proc/self/task")) != 3:  # the calling thread, onnxruntime's two, and those that end yet
    time.sleep(0.01)
print("the same images")
"""
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


@needs_fork
@pytest.mark.parametrize("use", ["used", "unused"])
def test_a_forked_child_loads_anew_and_ends(golden: Path, tmp_path: Path, use: str) -> None:
    shutil.copy(golden / "tiny.onnx", tmp_path / "model.onnx")
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path), use]
    # Nothing here takes long; a child that hangs at its end never comes back.
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("the same images\n" if use == "used" else "")


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda editor: pickle.loads(pickle.dumps(editor))])
def test_a_copy_is_loaded_again_with_the_same_arguments(
    golden: Path, monkeypatch: pytest.MonkeyPatch, way: object
) -> None:
    monkeypatch.chdir(golden)
    options = {"session.intra_op.allow_spinning": 0}
    editor = load("tiny.onnx", "cpu", options, threads=2, binding=True)
    monkeypatch.chdir("/")
    again = way(editor)  # type: ignore[operator]
    assert isinstance(again, Editor)
    assert again.session.inference is not editor.session.inference
    assert (again.session.threads, again.session.entries) == (2, editor.session.entries)
    assert again.session.bound is not None
    np.testing.assert_array_equal(again.edit(seed=3, edits={1: 1.0}), editor.edit(seed=3, edits={1: 1.0}))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda editor: pickle.loads(pickle.dumps(editor))])
def test_a_copy_of_what_came_from_bytes_needs_no_file(golden: Path, way: Callable[[Editor], Editor]) -> None:
    editor = load((golden / "tiny.onnx").read_bytes(), "cpu")
    again = way(editor)
    assert again.path is None
    np.testing.assert_array_equal(again.edit(seed=3, edits={1: 1.0}), editor.edit(seed=3, edits={1: 1.0}))


def test_spawned_processes_get_it(golden: Path) -> None:
    program = """
import multiprocessing, sys
from sefa_runtime import load
if __name__ == "__main__":
    editor = load(sys.argv[1], "cpu")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (image,) = pool.map(editor.edit, [7])
    assert (image == editor.edit(7)).all()
"""
    script = [sys.executable, "-c", program, str(golden / "tiny.onnx")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def test_another_model_in_its_place_is_not_taken_for_it(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(golden / "tiny.onnx", path)
    editor = load(path, "cpu")
    shutil.copy(golden / "tiny_float32.onnx", tmp_path / "other.onnx")
    os.replace(tmp_path / "other.onnx", path)  # noqa: PTH105
    with pytest.raises(ModelFileError, match="not the model that was loaded before"):
        copy.copy(editor)
    path.unlink()
    with pytest.raises(ModelFileError, match="no such file"):
        copy.copy(editor)
