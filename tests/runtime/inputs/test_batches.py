from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError, load
from support.comparing import assert_same

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def static(golden: Path) -> Editor:
    """The same for batches of 2 with 3 edits."""
    return load(golden / "style_static.onnx", "cpu")


def test_fixed_sizes_are_filled_up(static: Editor, style_codes: Editor, style_arrays: Arrays) -> None:
    for count in (1, 2, 3):
        for edits in (0, 1, 2):
            inputs = {
                "codes": style_arrays["codes"][:count],
                "direction": style_arrays["direction"][:count, :edits],
                "alpha": style_arrays["alpha"][:count, :edits],
            }
            assert_same(static.run(**inputs), style_codes.run(**inputs))
    assert_same(
        static.edit(codes=style_arrays["codes"], edits={1: [1.0, 2.0, 3.0]}),
        style_codes.edit(codes=style_arrays["codes"], edits={1: [1.0, 2.0, 3.0]}),
    )


def test_more_edits_than_were_fixed_are_refused(static: Editor, style_arrays: Arrays) -> None:
    with pytest.raises(InputError, match="takes 3 edits at once, got 4"):
        static.run(codes=style_arrays["codes"], direction=np.zeros((3, 4), int), alpha=np.zeros((3, 4)))
