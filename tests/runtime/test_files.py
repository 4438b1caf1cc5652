import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sefa_runtime import files
from sefa_runtime.files import check_output, input_problem, replacing, staging, write_whole

KILLED = """
import os, sys
from pathlib import Path
from sefa_runtime.files import replacing
with replacing(Path(os.fsdecode(sys.argv[1]))) as partial:
    partial.write_bytes(b"half of the n")
    os.kill(os.getpid(), 9)
"""


def leave_part(path: Path) -> Path:
    """Let a process be killed that writes to `path`; what it leaves."""
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    (part,) = set(path.parent.iterdir()) - before
    return part


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    write_whole(tmp_path / "new", b"content")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "new").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept.onnx"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with replacing(path) as partial:
            partial.write_bytes(b"half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing was written") as error_info, replacing(tmp_path / "never"):
        pass
    assert error_info.value.filename == str(tmp_path / "never")
    assert not list(tmp_path.iterdir())


def test_the_partial_file_has_the_suffix_that_writers_choose_a_format_by(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.webp") as partial:
        assert partial.suffix == ".webp"
        partial.write_bytes(b"content")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_outputs_that_cannot_be_are_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_output(tmp_path / "missing" / "x")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        check_output(tmp_path / "file" / "x")
    with pytest.raises(IsADirectoryError, match="file name was expected"):
        check_output(tmp_path)


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="not a regular file"):
        write_whole(tmp_path / "pipe", b"")
    assert input_problem(tmp_path / "pipe") == "is not a regular file"


def test_why_an_input_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    assert input_problem(tmp_path / "file") is None
    assert input_problem(tmp_path) == "is a folder, a file was expected"
    assert input_problem(tmp_path / "file" / "x") == "no such file"
    assert input_problem(tmp_path / "a\0b") == "no such file"
    assert input_problem(tmp_path / ("x" * 300)) == "cannot be read: File name too long"
    assert input_problem(tmp_path / "loop") == "cannot be read: Too many levels of symbolic links"


def test_an_input_is_not_replaced_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "only_copy").write_bytes(b"weights")
    (tmp_path / "link").symlink_to(tmp_path / "only_copy")
    with pytest.raises(FileExistsError, match="is an input"):
        check_output(tmp_path / "link", None, tmp_path / "only_copy")
    check_output(tmp_path / "other", None, tmp_path / "only_copy")


def test_a_failing_write_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"the longest name that the system takes")
    with pytest.raises(OSError, match="too long") as error_info:
        write_whole(tmp_path / ("x" * 256), b"")
    assert error_info.value.filename == str(tmp_path / ("x" * 256))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make a file")
def test_a_file_that_cannot_be_begun_is_named_as_asked_for() -> None:
    with pytest.raises(OSError, match="No such file") as error_info:
        write_whole(Path("/proc/x.png"), b"x")
    assert error_info.value.filename == "/proc/x.png"


def test_a_folder_that_may_not_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not bind root, as whom containers run their tests; the question put to the system does the work.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="not writable"):
        check_output(tmp_path / "x")


@pytest.mark.parametrize(
    "name", ["model.onnx", "ä.onnx", os.fsdecode(b"\xff\xfe.onnx"), "x" * 250 + ".onnx", "a." + "b" * 250]
)
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path, name: str) -> None:
    path, other = tmp_path / name, tmp_path / "other.onnx"
    path.write_bytes(b"old")
    for _ in range(2):
        leave_part(path)
    kept = leave_part(other)
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert set(tmp_path.iterdir()) == {path, kept}  # Not what was for another file.


def test_a_part_that_is_being_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with replacing(path) as first, replacing(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
        subprocess.run(
            [sys.executable, "-c", "import sys; from pathlib import Path; from sefa_runtime.files import write_whole;"
             "write_whole(Path(sys.argv[1]), b'third')", path],
            check=True,
        )  # fmt: skip
        assert path.read_bytes() == b"third"
        assert first.read_bytes() == b"first"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_of_another_machine_stays_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    part = leave_part(path)
    monkeypatch.setattr("platform.node", lambda: "another machine")
    write_whole(path, b"new")
    assert set(tmp_path.iterdir()) == {path, part}
    os.utime(part, (time.time() - files.ABANDONED_AFTER_S - 1,) * 2)
    write_whole(path, b"newer")
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_that_cannot_be_locked_stays_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    part = leave_part(path)

    def flock(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    write_whole(path, b"new")
    assert set(tmp_path.iterdir()) == {path, part}
    os.utime(part, (time.time() - files.ABANDONED_AFTER_S - 1,) * 2)
    write_whole(path, b"newer")
    assert list(tmp_path.iterdir()) == [path]


def test_other_things_that_are_called_like_a_part_stay(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    part = leave_part(path)
    part.unlink()
    (tmp_path / "precious").write_bytes(b"content")
    part.symlink_to(tmp_path / "precious")
    os.mkfifo(part.with_name(part.name.replace("-", "-0")[: len(part.name)]))
    write_whole(path, b"new")
    assert (tmp_path / "precious").read_bytes() == b"content"


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664, 0o640])
def test_a_file_that_is_replaced_passes_on_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    path.chmod(mode)
    with replacing(path) as partial:
        assert mode_of(partial) == mode | 0o600  # Not readable for others meanwhile either.
        partial.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert mode_of(path) == mode


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "new", b"content")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new") == 0o666 & ~umask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_a_file_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.chown(path, 1234, 2345)
    write_whole(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid, mode_of(path)) == (1234, 2345, 0o640)


def test_what_a_group_may_is_not_passed_on_to_another_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    path.chmod(0o664)
    if os.geteuid() == 0:  # Who is bound by nothing; others cannot even make such a file.
        os.chown(path, -1, 2345)
    else:
        pytest.skip("needs a file of another group")

    def fchown(handle: int, user: int, group: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.fchown", fchown)
    write_whole(path, b"new")
    assert mode_of(path) == 0o644


def test_other_hard_links_keep_the_old_contents(tmp_path: Path) -> None:
    path, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    path.write_bytes(b"old")
    os.link(path, other)
    write_whole(path, b"new")
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")


def test_another_users_file_in_a_sticky_folder_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sticky"
    folder.mkdir()
    (folder / "theirs").write_bytes(b"old")
    folder.chmod(0o1777)
    check_output(folder / "theirs")
    monkeypatch.setattr("os.geteuid", lambda: 4321)
    with pytest.raises(PermissionError, match="another user's"):
        check_output(folder / "theirs")
    check_output(folder / "new")


def test_a_staging_folder_of_a_killed_process_is_rescued_from_and_removed(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from sefa_runtime.files import staging
with staging(Path(sys.argv[1]), print) as part:
    (part / "model").write_bytes(b"content")
    os.kill(os.getpid(), 9)
"""
    target = tmp_path / "repository"
    subprocess.run([sys.executable, "-c", program, target], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    rescued = []
    with staging(target, lambda part: rescued.append((part / "model").read_bytes())) as part:
        with staging(target, lambda part: rescued.append(b"of a living one")):
            pass
        shutil.copytree(part, target)
    assert rescued == [b"content"]
    assert list(tmp_path.iterdir()) == [target]
