"""The recipes of docs/your-own-generator.md, run as they stand on the modules that the page shows."""

import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import sefa
import sefa_runtime
from support.paths import ROOT

TEXT = (ROOT / "docs" / "your-own-generator.md").read_text()
MARK = "# gan.py\n"
# How the page's modules are called without this toolkit: what the exported model is compared with.
CALLS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "generator.onnx": lambda gan, z: gan.loaded(gan.Generator())(z),
    "large.onnx": lambda gan, z: gan.seeded(lambda: gan.Generator(16))(z),
    "lightning.onnx": lambda gan, z: gan.loaded(gan.Generator())(z),
    "parallel.onnx": lambda gan, z: gan.loaded(gan.Generator())(z),
    "whole.onnx": lambda gan, z: gan.loaded(gan.Generator())(z),
    "conditional.onnx": lambda gan, z: 0.7 * gan.seeded(gan.Generator)(z),
    "classes.onnx": lambda gan, z: gan.seeded(gan.ByClass)(torch.eye(10)[[3] * len(z)], z),
    "sample.onnx": lambda gan, z: gan.seeded(gan.Generator)(z),
    "in_a_dict.onnx": lambda gan, z: gan.seeded(gan.Generator)(z),
    "nhwc.onnx": lambda gan, z: gan.seeded(gan.Generator)(z),
    "noisy.onnx": lambda gan, z: gan.seeded(gan.Generator)(z),
    "from_torchscript.onnx": lambda gan, z: gan.loaded(gan.Generator())(z),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's modules in gan.py, and the weights that it speaks of."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "gan.py").write_text("\n\n".join(one for one in blocks("python") if one.startswith(MARK)))
    path = list(sys.path)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export.
        patch.chdir(folder)
        sys.path.insert(0, str(folder))
        import gan  # type: ignore[import-not-found]

        torch.manual_seed(1)
        trained = gan.Generator()
        state = trained.state_dict()
        torch.save(state, "netG.pth")
        other = {f"discriminator.{key}": tensor for key, tensor in nn.Linear(3, 1).state_dict().items()}
        lightning = {f"generator.{key}": tensor for key, tensor in state.items()} | other
        torch.save({"epoch": 1, "state_dict": lightning, "optimizer_states": []}, "last.ckpt")
        save_file(nn.DataParallel(trained).state_dict(), "parallel.safetensors")
        torch.save(trained, "whole_module.pt")
        torch.jit.trace(trained, torch.randn(3, 32)).save("generator.ts")  # type: ignore[no-untyped-call]

        def loaded(module: nn.Module) -> nn.Module:
            module.load_state_dict(state)
            return module

        def seeded(make: Callable[[], nn.Module]) -> nn.Module:
            torch.manual_seed(0)  # As a command does if there are no weights.
            return make()

        gan.loaded, gan.seeded = loaded, seeded
        yield folder
    sys.path[:] = path
    del sys.modules["gan"]


def commands() -> list[list[str]]:
    lines = "".join(blocks("bash")).splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def test_every_recipe_is_tried() -> None:
    exports = [command for command in commands() if command[:2] == ["sefa", "export"]]
    assert [command[-1] for command in exports] == list(CALLS)
    assert [command[1] for command in commands() if command not in exports] == ["inspect"]


def test_inspect_prints_the_command_that_follows(
    folder: Path, sefa_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (inspect,) = [command for command in commands() if command[1] == "inspect"]
    result = sefa_command(*inspect[1:])
    assert result.code == 0, result.err
    assert shlex.split(result.out.splitlines()[-1].removeprefix("next: ")) == commands()[1]


@pytest.mark.parametrize("model", CALLS)
def test_a_recipe_gives_the_modules_own_images(
    folder: Path, sefa_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.chdir(folder)
    (command,) = [command for command in commands() if command[-1] == model]
    result = sefa_command(*command[1:], "--output-type", "float32")
    assert result.code == 0, result.err
    editor = sefa_runtime.load(Path(model), "cpu")
    z = np.random.default_rng(0).standard_normal((4, 32), np.float32)
    labels = {"label": 3} if editor.info.num_classes else {}
    image = editor.run(z, 1, 0.5, **labels)
    bank = sefa.factorize(wrapped_again(model))
    with torch.no_grad():
        expected = CALLS[model](sys.modules["gan"], torch.from_numpy(z) + 0.5 * bank.vectors[1, :32])
    if model == "noisy.onnx":  # The same constants in every image, a tenth of normal numbers.
        noise = image - expected.numpy()
        assert 0.08 < noise.std() < 0.12
        np.testing.assert_allclose(noise, np.broadcast_to(noise[:1, :1], noise.shape), atol=1e-5)
        return
    np.testing.assert_allclose(image, expected.numpy(), atol=1e-5)


def wrapped_again(model: str) -> sefa.Generator:
    """The generator whose first layer the model's directions are of."""
    gan = sys.modules["gan"]
    if model == "classes.onnx":
        module = gan.seeded(gan.ByClass)
        return sefa.wrap(
            module, latent_dim=32, layers=["main.0"], num_classes=10, label_format="onehot", call="label,z"
        )
    with_weights = model in ("generator.onnx", "lightning.onnx", "parallel.onnx", "whole.onnx", "from_torchscript.onnx")
    module = (
        gan.loaded(gan.Generator())
        if with_weights
        else gan.seeded(lambda: gan.Generator(16 if "large" in model else 8))
    )
    return sefa.wrap(module, latent_dim=32, layers=["main.0"])


def test_the_python_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (example,) = [one for one in blocks("python") if "freeze_noise=7" in one]
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["bank"].vectors.shape == (5, 32)
    assert names["generator"].noise == "constants of seed 7"
