from typing import Any

import numpy as np
import pytest

from sefa_runtime import InputError, latents_from_seeds


def test_a_seed_means_the_same_latent_everywhere() -> None:
    # Written down once: numpy's legacy stream is frozen, so these numbers hold on every machine.
    assert latents_from_seeds([7], 4)[0] == pytest.approx([1.6905257, -0.46593737, 0.03282016, 0.40751627], abs=1e-7)


def test_a_seeds_latent_does_not_depend_on_the_batch_it_is_in() -> None:
    np.testing.assert_array_equal(latents_from_seeds([3, 7, 5], 100)[1], latents_from_seeds([7], 100)[0])


@pytest.mark.parametrize("seeds", [(1, 2), range(1, 3), np.array([1, 2]), iter([1, 2]), [np.uint8(1), np.int64(2)]])
def test_seeds_come_in_any_sequence_of_integers(seeds: Any) -> None:
    np.testing.assert_array_equal(latents_from_seeds(seeds, 5), latents_from_seeds([1, 2], 5))


def test_latents_are_float32_rows() -> None:
    z = latents_from_seeds(range(3), 20)
    assert z.shape == (3, 20)
    assert z.dtype == np.float32


@pytest.mark.parametrize("seeds", [[], [-1], [2**32], [True], [0.5], [None], ["7"], [[1]]])
def test_what_is_no_seed_is_refused(seeds: Any) -> None:
    with pytest.raises(InputError, match="seed"):
        latents_from_seeds(seeds, 4)
