import os
import stat
from pathlib import Path

import pytest

from sefa_runtime.files import check_output, input_problem, replacing, write_whole


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


def test_a_failure_before_anything_was_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "never"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_partial_file_has_the_suffix_that_writers_choose_a_format_by(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.webp") as partial:
        assert partial.suffix == ".webp"
        partial.write_bytes(b"")


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


def test_a_folder_that_may_not_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not bind root, as whom containers run their tests; the question put to the system does the work.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="not writable"):
        check_output(tmp_path / "x")
