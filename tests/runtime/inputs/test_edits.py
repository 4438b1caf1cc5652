from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.mark.parametrize(
    ("half", "message"),
    [
        ({"alpha": 1.0}, "alpha without direction: an edit is both"),
        ({"direction": 0}, "direction without alpha: an edit is both"),
    ],
)
def test_half_an_edit_is_refused(style_z: Editor, half: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        style_z.run(np.ones((1, style_z.info.z_dim)), label=0, truncation=1.0, **half)
