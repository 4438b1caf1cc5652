"""StyleGAN2 in all its formats, against the published formulas computed another way, on generators of odd sizes."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import sefa
import sefa_export
from sefa.directions.compatibility import check_fits
from support.exported_archives import load_torchscript
from support.golden_checkpoints import GoldenCheckpoint
from support.stylegan2_files import (
    Spec,
    genforce_state,
    nvidia_network,
    random_tensors,
    reference_image,
    reference_w,
    rosinality_state,
    tensorflow_network,
    tensorflow_variables,
    write_nvidia,
    write_tensorflow,
)

# Sums of a few hundred float32 products against float64, on images of magnitude 10; seen: 3.6e-5.
ATOL = 1e-4
Write = Callable[[Path, Spec, dict[str, Tensor]], Path]


def nvidia(path: Path, spec: Spec, tensors: dict[str, Tensor]) -> Path:
    return write_nvidia(path, nvidia_network(spec, tensors))


def genforce(path: Path, spec: Spec, tensors: dict[str, Tensor]) -> Path:
    torch.save({"generator_smooth": genforce_state(spec, tensors), "generator": {}}, path)
    return path


def rosinality(path: Path, spec: Spec, tensors: dict[str, Tensor]) -> Path:
    torch.save({"g_ema": rosinality_state(spec, tensors), "latent_avg": tensors["mapping.w_avg"]}, path)
    return path


def decoder(path: Path, spec: Spec, tensors: dict[str, Tensor]) -> Path:
    """As pSp saves it: below the encoder's tensors, with a centre for each layer, all equal."""
    state = {"encoder.styles.0.linear.weight": torch.ones(2, 2)}
    state |= {f"decoder.{key}": tensor for key, tensor in rosinality_state(spec, tensors).items()}
    centers = tensors["mapping.w_avg"].repeat(spec.num_layers, 1)
    torch.save({"state_dict": state, "latent_avg": centers, "opts": {"output_size": 16}}, path)
    return path


def tensorflow(path: Path, spec: Spec, tensors: dict[str, Tensor]) -> Path:
    variables = tensorflow_variables(spec, tensors)
    settings = {"conv_clamp": spec.clamp, "resample_kernel": spec.taps.tolist(), "architecture": spec.architecture}
    return write_tensorflow(path, tensorflow_network(variables, **settings))


def taps(*values: float) -> Tensor:
    return torch.tensor(values)


LABELLED = Spec(num_classes=3, z_dim=5, embed_dim=4, widths=(9, 7))
CASES: dict[str, tuple[Write, Spec]] = {
    "nvidia skip, labels, clamp, gray, 1:2": (
        nvidia,
        replace(LABELLED, clamp=0.8, image_channels=1, const_size=(4, 2)),
    ),
    "nvidia resnet, clamp": (nvidia, Spec(architecture="resnet", clamp=0.8)),
    "nvidia orig, RGBA, 1 mapping layer": (nvidia, Spec(architecture="orig", image_channels=4, widths=(7,))),
    "nvidia label alone": (nvidia, Spec(z_dim=0, num_classes=4)),
    "nvidia one block, no mapping layers": (nvidia, Spec(channels=(6,), widths=())),
    "nvidia without noise, 9 lopsided taps": (nvidia, Spec(noise=False, taps=taps(1, 2, 5, 6, 4, 3, 2, 1, 1))),
    "nvidia 3 lopsided taps": (nvidia, Spec(taps=taps(1, 3, 2))),
    "nvidia resnet, filter that is not separable": (
        nvidia,
        Spec(architecture="resnet", taps=torch.arange(16.0).reshape(4, 4).sin().abs()),
    ),
    "genforce, 5:3, 4 blocks": (genforce, Spec(channels=(3, 6, 5, 4), const_size=(5, 3))),
    "genforce, labels": (genforce, replace(LABELLED, joint_label=True)),
    "rosinality, 4:6": (rosinality, Spec(const_size=(4, 6), widths=(7, 7, 7))),
    "a decoder, 4:2": (decoder, Spec(const_size=(4, 2))),
    "tensorflow skip, joint labels": (tensorflow, replace(LABELLED, joint_label=True)),
    "tensorflow resnet, labels, clamp": (tensorflow, replace(LABELLED, architecture="resnet", clamp=0.7)),
    "tensorflow orig, lopsided taps": (tensorflow, Spec(architecture="orig", taps=taps(1, 3, 2, 0.5))),
}


def seeded_inputs(spec: Spec) -> tuple[Tensor, Tensor | None]:
    z = torch.randn(3, spec.z_dim, generator=torch.Generator().manual_seed(1))
    return z, torch.arange(3) if spec.num_classes else None


@pytest.mark.parametrize("case", CASES)
def test_codes_and_images_are_those_of_the_formulas(case: str, tmp_path: Path) -> None:
    write, spec = CASES[case]
    tensors = random_tensors(spec)
    generator = sefa.load(write(tmp_path / "file", spec, tensors))
    z, label = seeded_inputs(spec)

    codes = generator.encode(z, label)
    assert (codes[:, 0] - reference_w(spec, tensors, z, label)).abs().max() < 1e-5
    codes = codes + torch.randn_like(codes)  # Another code for each layer: none may read its neighbour's.
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    image = generator.decode(codes)
    assert (image - reference_image(spec, exact, codes.double())).abs().max() < ATOL

    assert generator.resolution == spec.size(len(spec.channels) - 1)
    assert image.shape == (3, spec.image_channels, *generator.resolution)
    assert (generator.num_layers, generator.code_dim, generator.z_dim) == (spec.num_layers, spec.w_dim, spec.z_dim)
    assert generator.truncation_center == "stored"
    truncated = generator.encode(z, label, truncation=0.25)
    expected = tensors["mapping.w_avg"] + 0.25 * (generator.encode(z, label) - tensors["mapping.w_avg"])
    assert torch.allclose(truncated, expected, atol=1e-6)


@pytest.mark.parametrize("write", [nvidia, genforce, tensorflow])
@pytest.mark.parametrize("classes", [3, 6])  # Six is also the number of layers.
def test_each_class_may_have_a_center_of_its_own(write: Write, classes: int, tmp_path: Path) -> None:
    spec = replace(LABELLED, num_classes=classes)
    centers = torch.randn(classes, spec.w_dim)
    generator = sefa.load(write(tmp_path / "file", spec, random_tensors(spec) | {"mapping.w_avg": centers}))
    z, label = seeded_inputs(spec)
    w = generator.encode(z, label)
    psi = torch.tensor([0.25, 0.0, 1.0])
    expected = centers[label][:, None] + psi[:, None, None] * (w - centers[label][:, None])
    torch.testing.assert_close(generator.encode(z, label, psi), expected)
    torch.testing.assert_close(generator.encode(z, label, 0.0, 2)[:, 2:], w[:, 2:])
    assert generator.truncation_center == "stored, one for each class"


@pytest.mark.parametrize("write", [nvidia, genforce, rosinality, decoder, tensorflow])
def test_noise_can_be_left_out(write: Write, tmp_path: Path) -> None:
    spec = Spec()
    tensors = random_tensors(spec)
    generator = sefa.load(write(tmp_path / "file", spec, tensors), noise="none")
    codes = generator.encode(seeded_inputs(spec)[0])
    assert generator.noise == "none"
    assert (generator.decode(codes) - reference_image(spec, tensors, codes, noise=False)).abs().max() < ATOL


def test_affines_are_the_convolutions_and_the_last_torgbs(tmp_path: Path) -> None:
    spec = Spec()
    tensors = random_tensors(spec)
    affines = sefa.load(nvidia(tmp_path / "file", spec, tensors)).affines()
    names = [*(name for name, _, _ in spec.conv_names()), "synthesis.b16.torgb"]
    assert len(affines) == len(names) == spec.num_layers
    for affine, name in zip(affines, names, strict=True):
        assert torch.allclose(affine, tensors[f"{name}.affine.weight"] / spec.w_dim**0.5)


def test_an_image_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    spec = Spec(architecture="resnet")
    generator = sefa.load(nvidia(tmp_path / "file", spec, random_tensors(spec)))
    codes = torch.randn(5, spec.num_layers, spec.w_dim)
    alone = torch.cat([generator.decode(code[None]) for code in codes])
    assert torch.allclose(generator.decode(codes), alone, atol=ATOL)


def test_weights_stored_channels_last_are_the_same_weights(tmp_path: Path) -> None:
    spec = Spec()
    tensors = random_tensors(spec)
    channels_last = {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
    }
    one, other = (
        sefa.load(nvidia(tmp_path / str(index), spec, stored)) for index, stored in enumerate((tensors, channels_last))
    )
    assert channels_last["synthesis.b8.conv0.weight"].stride() != tensors["synthesis.b8.conv0.weight"].stride()
    for name, tensor in one.state_dict().items():
        assert torch.allclose(tensor, other.state_dict()[name], rtol=1e-6)  # Sums in another order.


@pytest.mark.parametrize("state", [genforce_state, rosinality_state])
def test_a_state_dict_without_its_container_is_recognised(
    state: Callable[[Spec, dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path
) -> None:
    spec = Spec()
    torch.save(state(spec, random_tensors(spec)), tmp_path / "file")
    assert sefa.load(tmp_path / "file").family == "stylegan2"


def test_what_old_files_lack_is_made_the_same_every_time_and_recorded(tmp_path: Path) -> None:
    spec = Spec()
    state = rosinality_state(spec, random_tensors(spec))
    torch.save({"g_ema": {key: value for key, value in state.items() if "noises" not in key}}, tmp_path / "file")
    one, other = sefa.load(tmp_path / "file"), sefa.load(tmp_path / "file")
    assert "seed" in one.noise
    assert "seed" in one.truncation_center
    codes = one.encode(seeded_inputs(spec)[0], truncation=0.5)
    assert torch.equal(codes, other.encode(seeded_inputs(spec)[0], truncation=0.5))
    assert torch.equal(one.decode(codes), other.decode(codes))
    assert not torch.allclose(one.decode(codes), sefa.load(tmp_path / "file", noise="none").decode(codes), atol=0.1)


BASICSR = {
    "input.input": "constant_input.weight",
    "noises.noise_": "noises.noise",
    ".noise.weight": ".weight",
    ".conv.": ".modulated_conv.",
    "style.": "style_mlp.",
}


def test_basicsrs_names_mean_the_same(tmp_path: Path) -> None:
    spec = Spec(channels=(6, 5, 4, 3), widths=(7, 7, 7), image_channels=1, const_size=(4, 2))
    state = rosinality_state(spec, random_tensors(spec))
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for ours, theirs in BASICSR.items():
            key = key.replace(ours, theirs)
        if "kernel" not in key:
            renamed[re.sub("^conv(?=[1s])", "style_conv", key)] = tensor
    torch.save({"params": {}, "params_ema": renamed}, tmp_path / "file")
    safetensors.torch.save_file(renamed, tmp_path / "file.safetensors")
    torch.save(state, tmp_path / "original")
    for name, noise in (("file", "const"), ("file", "none"), ("file.safetensors", "const")):
        generator = sefa.load(tmp_path / name, noise=noise)
        assert generator.checkpoint_format == "BasicSR StyleGAN2"
        original = sefa.load(tmp_path / "original", noise=noise)
        codes = torch.randn(2, spec.num_layers, spec.w_dim)
        torch.testing.assert_close(generator.decode(codes), original.decode(codes))
        assert torch.equal(generator.encode(codes[0], truncation=0), original.encode(codes[0], truncation=0))


@pytest.mark.parametrize("beside", [True, False])
def test_layers_with_centers_of_their_own_are_truncated_each_to_its_own(tmp_path: Path, beside: bool) -> None:
    spec = Spec()
    tensors = random_tensors(spec)
    content = torch.load(decoder(tmp_path / "file", spec, tensors), weights_only=True)
    del content["latent_avg"]
    centers = torch.randn(spec.num_layers, spec.w_dim)
    (content if beside else content["state_dict"])["latent_avg"] = centers
    torch.save(content, tmp_path / "file")
    generator = sefa.load(tmp_path / "file")
    assert generator.truncation_center == "stored, one for each layer"
    z, _ = seeded_inputs(spec)
    codes = generator.encode(z)
    expected = centers + 0.25 * (codes - centers)
    torch.testing.assert_close(generator.encode(z, truncation=0.25), expected)
    expected[:, 2:] = codes[:, 2:]
    psi = torch.full((len(z),), 0.25)
    torch.testing.assert_close(generator.encode(z, truncation=psi, truncation_layers=2), expected)


def without(key: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.pop(key)


def renamed(key: str, name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.update({name: state.pop(key)})


def replaced(key: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.update({key: tensor})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("synthesis.layer3.filter.kernel"), "missing synthesis.layer3.filter.kernel"),
        (without("synthesis.output1.style.bias"), "missing synthesis.output1.style.bias"),
        (
            renamed("synthesis.layer1.bias", "synthesis.layer1.shift"),
            "missing synthesis.layer1.bias for blocks.1.up; not understood synthesis.layer1.shift beside blocks.1.up",
        ),
        (replaced("synthesis.layer2.weight", torch.zeros(5, 5, 1, 1)), "wrong shape synthesis.layer2.weight"),
        (replaced("synthesis.upsample.kernel", torch.zeros(2, 1, 4, 4)), "wrong shape synthesis.upsample.kernel"),
        (
            replaced("mapping.dense1.weight", torch.zeros(6, 7)),
            r"wrong shape mapping\.dense1\.bias \[7\] for mapping\.layers\.1 where \[6\] was expected, ",
        ),
        (replaced("synthesis.skip_layer0.weight", torch.zeros(5, 6, 1, 1)), "its architecture is resnet"),
    ],
)
def test_a_genforce_file_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path
) -> None:
    spec = Spec()
    state = genforce_state(spec, random_tensors(spec))
    change(state)
    torch.save({"generator": state}, tmp_path / "file")
    with pytest.raises(sefa.CheckpointError, match=message):
        sefa.load(tmp_path / "file")


def test_genforces_origin_architecture_is_refused(tmp_path: Path) -> None:
    spec = Spec()
    state = genforce_state(spec, random_tensors(spec))
    torch.save({key: value for key, value in state.items() if not key.startswith("synthesis.output0")}, tmp_path / "a")
    with pytest.raises(sefa.CheckpointError, match=r"missing synthesis\.output0\.weight"):
        sefa.load(tmp_path / "a")
    torch.save(
        {key: value for key, value in state.items() if "output0" not in key and "output1" not in key}, tmp_path / "b"
    )
    with pytest.raises(sefa.CheckpointError, match="its architecture is origin"):
        sefa.load(tmp_path / "b")


def test_tensorflow_configurations_that_grow_are_refused(tmp_path: Path) -> None:
    spec = Spec()
    variables = tensorflow_variables(spec, random_tensors(spec))
    growing = {name.replace("16x16/ToRGB", "ToRGB_lod0"): tensor for name, tensor in variables.items()}
    with pytest.raises(sefa.CheckpointError, match="grow progressively"):
        sefa.load(write_tensorflow(tmp_path / "file", tensorflow_network(growing)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nonlinearity": "relu"}, "nonlinearity = 'relu'"),
        ({"conv_clamp": "a"}, "conv_clamp = 'a'"),
        ({"resample_kernel": [0, 0]}, "resample_kernel"),
    ],
)
def test_tensorflow_settings_without_a_counterpart_are_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    spec = Spec()
    network = tensorflow_network(tensorflow_variables(spec, random_tensors(spec)), **settings)
    with pytest.raises(sefa.CheckpointError, match=message):
        sefa.load(write_tensorflow(tmp_path / "file", network))


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
@pytest.mark.parametrize("write", [nvidia, tensorflow])
def test_a_generator_without_its_last_torgb_is_refused(write: Write, architecture: str, tmp_path: Path) -> None:
    spec = Spec(architecture=architecture)
    tensors = {name: tensor for name, tensor in random_tensors(spec).items() if "b16.torgb" not in name}
    with pytest.raises(sefa.CheckpointError, match="its last resolution has no ToRGB"):
        sefa.load(write(tmp_path / "file", spec, tensors))


def test_an_nvidia_network_with_something_unknown_is_refused(tmp_path: Path) -> None:
    spec = Spec()
    tensors = random_tensors(spec)
    network = nvidia_network(spec, tensors)
    network.modules["synthesis"].modules["b8"].modules["conv1"].state["activation"] = "relu"
    with pytest.raises(sefa.CheckpointError, match=r"b8\.conv1 has the activation relu, lrelu was expected"):
        sefa.load(write_nvidia(tmp_path / "a", network))
    network = nvidia_network(spec, tensors | {"synthesis.b8.conv1.surprise": torch.ones(1)})
    with pytest.raises(sefa.CheckpointError, match=r"not understood synthesis\.b8\.conv1\.surprise"):
        sefa.load(write_nvidia(tmp_path / "b", network))
    del network.modules["synthesis"].modules["b8"].modules["conv0"]
    with pytest.raises(sefa.CheckpointError, match=r"missing the module synthesis\.b8\.conv0"):
        sefa.load(write_nvidia(tmp_path / "c", network))
    with pytest.raises(sefa.CheckpointError, match="mapping network ends in 6 features, its styles read 7"):
        sefa.load(nvidia(tmp_path / "d", Spec(widths=(7, 6)), random_tensors(Spec(widths=(7, 6)))))


def test_torchscript_draws_the_same(tmp_path: Path) -> None:
    spec = replace(LABELLED, architecture="resnet", clamp=0.8)
    generator = sefa.load(nvidia(tmp_path / "file", spec, random_tensors(spec)))
    bank = sefa.factorize(generator)
    path = sefa_export.export_torchscript(generator, bank, tmp_path / "model.ts", output_type="float32")
    z, label = seeded_inputs(spec)
    assert label is not None
    direction, alpha = torch.tensor([[0], [1], [6]]), torch.tensor([[2.0], [0.0], [-1.0]])
    model = load_torchscript(path)
    image = model(z=z, direction=direction, alpha=alpha, label=label)
    codes = generator.encode(z, label) + alpha[:, :, None] * bank.vectors[direction]
    assert (image - generator.decode(codes)).abs().max() < ATOL


@pytest.mark.parametrize("name", ["rosi_convert_32", "rosi_train_64"])
def test_rosinalitys_directions_and_edits_are_imported(name: str) -> None:
    case = GoldenCheckpoint(name)
    case.measure_imported_factor()
    assert max(case.errors.values()) < 1e-5
    bank = sefa.import_factor(case.path.with_name("factor.pt"), case.generator)
    assert bank.edited_layers.all()
    assert bank.eigenvalues.diff().max() <= 0  # of the matrix that rosinality analysed, in its order
    check_fits(bank, case.generator)


def test_a_factor_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    spec = Spec()
    generator = sefa.load(rosinality(tmp_path / "file", spec, random_tensors(spec)))
    with pytest.raises(sefa.BankError, match="it has no matrix eigvec"):
        sefa.import_factor(tmp_path / "file", generator)
    for matrix, message in (
        (torch.eye(6), r"shape \[6, 6\], this generator's w has 7 entries"),
        (torch.ones(7, 7), "not of unit length"),
    ):
        torch.save({"ckpt": "x", "eigvec": matrix}, tmp_path / "factor.pt")
        with pytest.raises(sefa.BankError, match=message):
            sefa.import_factor(tmp_path / "factor.pt", generator)
    with pytest.raises(sefa.BankError, match=r"nothing\.pt: no such file"):
        sefa.import_factor(tmp_path / "nothing.pt", generator)
