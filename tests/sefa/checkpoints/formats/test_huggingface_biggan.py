"""Hugging Face's BigGAN-deep of sizes that no published checkpoint has, against its formula applied image by image."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sefa
import sefa_export
from sefa.errors import ArgumentError, CheckpointError
from support.biggan_images import convolved, double, latents
from support.exported_archives import load_torchscript

State = dict[str, Tensor]

# float32 images in [-1, 1] of a few layers, against float64.
ATOL = 1e-5


HUGGING_FACE_CONFIG = {
    "attention_layer_position": 1,
    "channel_width": 8,
    "eps": 1e-4,
    "layers": [[False, 4, 4], [True, 4, 2], [True, 2, 1]],
    "n_stats": 11,
    "num_classes": 3,
    "output_dim": 16,
    "z_dim": 6,
}


def draw_hugging_face(config: dict[str, Any], ready: bool = False) -> State:
    """The state dict of a Hugging Face BigGAN-deep, as new files have it or as those of torch 1.0."""
    random = torch.Generator().manual_seed(0)
    state: State = {}
    width, rows, condition_dim = config["channel_width"], config["n_stats"], 2 * config["z_dim"]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    def weight(name: str, *shape: int) -> None:
        W = normal(*shape)
        u = F.normalize(normal(shape[0]) @ W.flatten(1) @ W.flatten(1).T, dim=0)
        # Not of unit length: a reader that normalises it, or takes half a step from u, would be found out.
        v = 0.8 * F.normalize(u @ W.flatten(1), dim=0)
        state[f"{name}.weight_orig"], state[f"{name}.weight_u"] = W, u
        if ready:
            state[f"{name}.weight"] = W / (u @ W.flatten(1) @ v)
        else:
            state[f"{name}.weight_v"] = v

    def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
        weight(name, outputs, inputs, kernel, kernel)
        state[f"{name}.bias"] = normal(outputs) / 4

    def statistics(name: str, channels: int) -> None:
        state[f"{name}.running_means"] = normal(rows, channels)
        state[f"{name}.running_vars"] = normal(rows, channels).square() + 0.5

    state["embeddings.weight"] = normal(config["z_dim"], config["num_classes"])
    first = width * config["layers"][0][1]
    weight("generator.gen_z", 16 * first, condition_dim)
    state["generator.gen_z.bias"] = normal(16 * first)
    index = 0
    for i, (_, taken, given) in enumerate(config["layers"]):
        if i == config["attention_layer_position"]:
            channels = taken * width
            state[f"generator.layers.{index}.gamma"] = torch.tensor([0.6])
            for part, inputs, outputs in (
                ("theta", channels, channels // 8),
                ("phi", channels, channels // 8),
                ("g", channels, channels // 2),
                ("o_conv", channels // 2, channels),
            ):
                weight(f"generator.layers.{index}.snconv1x1_{part}", outputs, inputs, 1, 1)
            index += 1
        hidden = taken * width // 4
        sizes = ((taken * width, hidden, 1), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, given * width, 1))
        for j, (inputs, outputs, kernel) in enumerate(sizes):
            conv(f"generator.layers.{index}.conv_{j}", inputs, outputs, kernel)
            statistics(f"generator.layers.{index}.bn_{j}", inputs)
            for part in ("scale", "offset"):
                weight(f"generator.layers.{index}.bn_{j}.{part}", inputs, condition_dim)
        index += 1
    state["generator.bn.weight"], state["generator.bn.bias"] = normal(width) / 8, normal(width) / 8
    statistics("generator.bn", width)
    conv("generator.conv_to_rgb", width, width, 3)
    return state


def hugging_face_image(state: State, config: dict[str, Any], z: Tensor, label: int, truncation: float) -> Tensor:
    """One image by the formulas, in float64."""
    weights = {key: tensor.double() for key, tensor in state.items()}
    fraction, row = math.modf(truncation / (1 / (config["n_stats"] - 1)))
    i = int(row)

    def weight(name: str) -> Tensor:
        if f"{name}.weight" in weights:
            return weights[f"{name}.weight"]
        W, u, v = (weights[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
        return W / (u @ W.flatten(1) @ v)

    def conv(name: str, x: Tensor) -> Tensor:
        return convolved(x, weight(name), weights.get(f"{name}.bias"))

    def norm(name: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        tables = [weights[f"{name}.running_{part}"] for part in ("means", "vars")]
        picked = [
            table[i] if fraction == 0 else table[i] * fraction + table[i + 1] * (1 - fraction) for table in tables
        ]
        mean, variance, gain, bias = (tensor[None, :, None, None] for tensor in (*picked, gain, bias))
        normed: Tensor = (x - mean) / (variance + config["eps"]).sqrt() * gain + bias
        return normed

    y = torch.cat([z, weights["embeddings.weight"][:, label]])

    def conditional(name: str, x: Tensor) -> Tensor:
        return norm(name, x, 1 + weight(f"{name}.scale") @ y, weight(f"{name}.offset") @ y).relu()

    h = (weight("generator.gen_z") @ y + weights["generator.gen_z.bias"]).reshape(4, 4, -1).permute(2, 0, 1)[None]
    index = 0
    for block, (up, taken, given) in enumerate(config["layers"]):
        name = f"generator.layers.{index}"
        if block == config["attention_layer_position"]:
            theta, phi, g = (conv(f"{name}.snconv1x1_{part}", h) for part in ("theta", "phi", "g"))
            phi, g = (F.max_pool2d(tensor, 2).flatten(2)[0] for tensor in (phi, g))
            beta = torch.softmax(theta.flatten(2)[0].T @ phi, dim=-1)
            attended = (g @ beta.T).reshape(1, -1, *h.shape[2:])
            h = h + weights[f"{name}.gamma"] * conv(f"{name}.snconv1x1_o_conv", attended)
            index += 1
            name = f"generator.layers.{index}"
        a = conv(f"{name}.conv_0", conditional(f"{name}.bn_0", h))
        a = conditional(f"{name}.bn_1", a)
        shortcut = h if taken == given else h[:, : h.shape[1] // 2]
        if up:
            a, shortcut = double(a), double(shortcut)
        a = conv(f"{name}.conv_1", a)
        a = conv(f"{name}.conv_2", conditional(f"{name}.bn_2", a))
        h = conv(f"{name}.conv_3", conditional(f"{name}.bn_3", a)) + shortcut
        index += 1
    h = norm("generator.bn", h, weights["generator.bn.weight"], weights["generator.bn.bias"]).relu()
    return torch.tanh(conv("generator.conv_to_rgb", h)[0, :3])


def write_hugging_face(folder: Path, config: dict[str, Any], state: State) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


@pytest.mark.parametrize("ready", [False, True], ids=["new", "torch 1.0"])
@pytest.mark.parametrize("position", [0, 1, 9])
def test_hugging_face_biggan_is_its_formulas(tmp_path: Path, position: int, ready: bool) -> None:
    config = HUGGING_FACE_CONFIG | {"attention_layer_position": position}
    state = draw_hugging_face(config, ready)
    generator = sefa.load(write_hugging_face(tmp_path, config, state))
    assert (generator.family, generator.checkpoint_format) == ("biggan-deep", "Hugging Face BigGAN-deep")
    assert (generator.resolution, generator.z_dim, generator.num_layers) == ((16, 16), 6, 4)
    z, label = latents(generator, 1)
    for truncation in (1.0, 0.5, 0.43, 0.3):  # 0.3 / 0.1 is a little less than 3 in double precision.
        with torch.no_grad():
            (image,) = generator.decode(generator.encode(z, label, truncation))
        expected = hugging_face_image(state, config, z[0].double(), int(label), truncation)
        torch.testing.assert_close(image.double(), expected, atol=ATOL, rtol=0)


def test_truncation_is_an_input_of_the_exported_graph(tmp_path: Path) -> None:
    config = HUGGING_FACE_CONFIG | {"attention_layer_position": 9, "layers": [[True, 2, 1]], "output_dim": 8}
    generator = sefa.load(write_hugging_face(tmp_path, config, draw_hugging_face(config)))
    assert generator.truncation_center
    bank = sefa.factorize(generator, top=2)
    path = sefa_export.export_onnx(generator, bank, tmp_path / "model.onnx", "float32", truncation=None)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    z, label = latents(generator)
    truncation = np.array([0.3, 0.43, 1.0], np.float32)
    none = {"direction": np.zeros((3, 0), np.int64), "alpha": np.zeros((3, 0), np.float32)}
    (images,) = session.run(None, {"z": z.numpy(), "label": label.numpy(), "truncation": truncation, **none})
    for index, psi in enumerate((0.3, 0.43, 1.0)):
        one = slice(index, index + 1)
        with torch.no_grad():
            expected = generator.decode(generator.encode(z[one], label[one], psi))
        np.testing.assert_allclose(images[one], expected, atol=ATOL)


def test_truncation_of_some_layers_is_refused(tmp_path: Path) -> None:
    state = draw_hugging_face(HUGGING_FACE_CONFIG)
    generator = sefa.load(write_hugging_face(tmp_path, HUGGING_FACE_CONFIG, state))
    with pytest.raises(ArgumentError, match="all layers"):
        generator.encode(*latents(generator), 0.5, truncation_layers=2)


def test_a_torchscript_archive_takes_truncation(tmp_path: Path) -> None:
    generator = sefa.load(write_hugging_face(tmp_path, HUGGING_FACE_CONFIG, draw_hugging_face(HUGGING_FACE_CONFIG)))
    bank = sefa.factorize(generator, top=2)
    path = sefa_export.export_torchscript(generator, bank, tmp_path / "model.pt", truncation=None)
    graph = load_torchscript(path)
    z, label = latents(generator)
    image = graph(z, torch.zeros(3, 1).long(), torch.zeros(3, 1), label, torch.tensor([0.3, 0.3, 0.3]))
    with torch.no_grad():
        expected = generator.decode(generator.encode(z, label, 0.3))
    # Of 255 levels, a border between two may lie in between.
    assert ((expected * 127.5 + 128).permute(0, 2, 3, 1) - image).abs().max() < 1 + 1e-3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"config\.json is missing: which blocks double the size stands there"),
        ("{", "no configuration of a BigGAN"),
        ("[]", "no configuration of a BigGAN"),
        (json.dumps({**HUGGING_FACE_CONFIG, "layers": [[True, 4]]}), "no configuration of a BigGAN"),
        (json.dumps({**HUGGING_FACE_CONFIG, "eps": 0}), "eps is 0.0"),
        (json.dumps({**HUGGING_FACE_CONFIG, "num_classes": 1000}), "num_classes is 1000, not 3"),
        (json.dumps({**HUGGING_FACE_CONFIG, "attention_layer_position": 2}), r"attention is \[2\], not \[1\]"),
        (json.dumps({**HUGGING_FACE_CONFIG, "output_dim": 128}), "output_dim is 128, not 16"),
        (json.dumps({**HUGGING_FACE_CONFIG, "layers": [[True, 4, 4]]}), "channels is"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_said(tmp_path: Path, config: str | None, message: str) -> None:
    path = write_hugging_face(tmp_path, HUGGING_FACE_CONFIG, draw_hugging_face(HUGGING_FACE_CONFIG))
    if config is None:
        path.with_name("config.json").unlink()
    else:
        path.with_name("config.json").write_text(config)
    with pytest.raises(CheckpointError, match=f"recognised as Hugging Face BigGAN-deep, but .*{message}"):
        sefa.load(path)


@pytest.mark.parametrize("key", ["embeddings.weight", "generator.layers.2.bn_1.scale.weight_u", "generator.bn.bias"])
def test_a_renamed_key_of_hugging_faces_is_named(tmp_path: Path, key: str) -> None:
    state = draw_hugging_face(HUGGING_FACE_CONFIG)
    state["renamed"] = state.pop(key)
    with pytest.raises(CheckpointError, match="generator.gen_z" if key.startswith("embed") else f"missing {key}"):
        sefa.load(write_hugging_face(tmp_path, HUGGING_FACE_CONFIG, state))


def test_the_configuration_may_have_the_models_prefix(tmp_path: Path) -> None:
    path = write_hugging_face(tmp_path, HUGGING_FACE_CONFIG, draw_hugging_face(HUGGING_FACE_CONFIG))
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).rename(tmp_path / f"biggan-deep-16-{name}")
    assert sefa.load(path.with_name("biggan-deep-16-pytorch_model.bin")).resolution == (16, 16)
