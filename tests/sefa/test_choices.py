"""What may be chosen by name."""

import subprocess
import sys

import pytest

from sefa.choices import LabelFormat, Method, choice_of
from sefa.errors import ArgumentError
from sefa_runtime.model.choices import Latent


def test_a_choice_is_given_as_a_member_or_by_its_name() -> None:
    assert choice_of(Method, "ganspace", "method") is Method.GANSPACE
    assert choice_of(Method, Method.SEFA, "method") is Method.SEFA
    assert f"{Method.SEFA} {LabelFormat.ONEHOT}" == "sefa onehot"


def test_the_message_of_a_wrong_choice_names_all() -> None:
    with pytest.raises(ArgumentError, match=r"latent must be z, w or w\+, got 'x'"):
        choice_of(Latent, "x", "latent")


def test_choices_are_known_without_torch() -> None:
    code = "import sys, sefa.choices, sefa_runtime.model.choices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
