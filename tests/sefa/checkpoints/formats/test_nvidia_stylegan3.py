"""Checkpoints of other designs than the recorded ones, against the formulas followed literally."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sefa
from sefa import CheckpointError
from sefa.checkpoints.checkpoint import Checkpoint, LoadOptions
from sefa.checkpoints.formats.nvidia import nvidia_stylegan3, nvidia_stylegan_xl
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.generators import StyleGAN3
from sefa_runtime.pickles.placeholders import Placeholder

CRITICAL = 2  # layers at the end that are sampled as coarsely as their content allows
MARGIN = 10  # pixels around the image
FILTER_SIZE = 6  # taps per factor


@dataclass(frozen=True)
class Design:
    """A configuration, from which the original derives all sizes and filters."""

    resolution: int
    num_layers: int = 14
    channel_base: int = 256
    channel_max: int = 12
    conv_kernel: int = 3
    radial: bool = False
    z_dim: int = 7
    w_dim: int = 9
    classes: int = 0
    mapping_layers: int = 2
    channels: int = 3
    xl_embed: int = 0  # of StyleGAN-XL: length of a class's pretrained embedding
    xl_rows: int = 0  # and how many classes have one, where not those of the network
    conv_clamp: float | None = 256


def lowpass(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor | None:
    """A Kaiser-windowed low-pass filter, [taps] or [taps, taps]; None for one that changes nothing."""
    if taps == 1:
        return None
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation > 21 else 0.0
    window = np.kaiser(taps, beta)
    time = (np.arange(taps) - (taps - 1) / 2) / rate
    if not radial:
        taps_1d = np.sinc(2 * cutoff * time) * window
        return torch.from_numpy(taps_1d / taps_1d.sum()).float()
    radius = torch.from_numpy(np.hypot(*np.meshgrid(time, time)))
    jinc = torch.special.bessel_j1(2 * cutoff * math.pi * radius) / (math.pi * radius)
    taps_2d: Tensor = jinc * torch.from_numpy(np.outer(window, window))
    return (taps_2d / taps_2d.sum()).float()


def persisted(
    class_name: str, attributes: dict[str, Any], parameters: dict[str, Any], **modules: Any
) -> PersistedModule:
    """A module as NVlabs' persistence pickles it."""
    return PersistedModule(class_name, {**attributes, "_parameters": parameters, "_buffers": {}, "_modules": modules})


def dense(
    outputs: int, inputs: int, multiplier: float = 1, bias: float = 0, activation: str = "linear"
) -> PersistedModule:
    """A fully connected layer with random weights."""
    attributes = {
        "activation": activation,
        "weight_gain": np.float64(multiplier / math.sqrt(inputs)),
        "bias_gain": multiplier,
    }
    weight = torch.randn(outputs, inputs) / multiplier
    return persisted("FullyConnectedLayer", attributes, {"weight": weight, "bias": torch.randn(outputs) * 0.1 + bias})


def checkpoint(design: Design) -> PersistedModule:
    """A generator with random weights, its sizes and filters by the design formulas of the paper's appendix."""
    torch.manual_seed(0)
    layers, resolution = design.num_layers, design.resolution
    first_cutoff, first_stop, last_stop = 2.0, 2**2.1, resolution / 2 * 2**0.3
    exponents = [min(i / (layers - CRITICAL), 1) for i in range(layers + 1)]
    cutoffs = [first_cutoff * (resolution / 2 / first_cutoff) ** e for e in exponents]
    stops = [first_stop * (last_stop / first_stop) ** e for e in exponents]
    rates = [2 ** math.ceil(math.log2(min(2 * stop, resolution))) for stop in stops]
    widths = [max(stop, rate / 2) - cutoff for stop, rate, cutoff in zip(stops, rates, cutoffs, strict=True)]
    sizes = [rate + 2 * MARGIN for rate in rates]
    sizes[-2:] = [resolution, resolution]
    channels = [round(min(design.channel_base / 2 / cutoff, design.channel_max)) for cutoff in cutoffs]
    channels[-1] = design.channels
    modules: dict[str, PersistedModule] = {"input": _input(design, channels[0], sizes[0], rates[0], cutoffs[0])}
    for i in range(layers + 1):
        before = max(i - 1, 0)
        is_rgb, is_critical = i == layers, i >= layers - CRITICAL
        fine_rate = max(rates[before], rates[i]) * (1 if is_rgb else 2)
        up, down = fine_rate // rates[before], fine_rate // rates[i]
        up_taps = FILTER_SIZE * up if up > 1 and not is_rgb else 1
        down_taps = FILTER_SIZE * down if down > 1 and not is_rgb else 1
        kernel = 1 if is_rgb else design.conv_kernel
        total = (sizes[i] - 1) * down + 1 - (sizes[before] + kernel - 1) * up + up_taps + down_taps - 2
        low = (total + up) // 2
        radial = design.radial and not is_critical
        attributes = {
            "is_torgb": is_rgb,
            "up_factor": up,
            "down_factor": np.int64(down),
            "padding": [low, total - low, low, total - low],
            "conv_clamp": design.conv_clamp,
        }
        parameters = {
            "weight": torch.randn(channels[i], channels[before], kernel, kernel),
            "bias": torch.randn(channels[i]) * 0.1,
            "magnitude_ema": torch.rand(()) + 0.5,
            "up_filter": lowpass(up_taps, cutoffs[before], 2 * widths[before], fine_rate),
            "down_filter": lowpass(down_taps, cutoffs[i], 2 * widths[i], fine_rate, radial),
        }
        affine = dense(channels[before], design.w_dim, bias=1)
        name = f"L{i}_{sizes[i]}_{channels[i]}"
        modules[name] = persisted("SynthesisLayer", attributes, parameters, affine=affine)
    names = [name for name in modules if name != "input"]
    synthesis = persisted("SynthesisNetwork", {"layer_names": names, "output_scale": 0.25}, {}, **modules)
    attributes = {
        "z_dim": design.z_dim,
        "c_dim": design.classes,
        "w_dim": design.w_dim,
        "img_resolution": resolution,
        "img_channels": design.channels,
        "num_ws": layers + 2,
    }
    return persisted("Generator", attributes, {}, synthesis=synthesis, mapping=_mapping(design))


def _input(design: Design, channels: int, size: int, rate: float, bandwidth: float) -> PersistedModule:
    attributes = {"size": np.array([size, size]), "sampling_rate": np.float64(rate), "bandwidth": bandwidth}
    parameters = {
        "weight": torch.randn(channels, channels),
        "freqs": torch.randn(channels, 2) * bandwidth / 2,
        "phases": torch.rand(channels) - 0.5,
        "transform": torch.eye(3),
    }
    affine = dense(4, design.w_dim)
    affine.parameters["bias"] = torch.tensor([1.0, 0, 0, 0])
    return persisted("SynthesisInput", attributes, parameters, affine=affine)


def _mapping(design: Design) -> PersistedModule:
    modules: dict[str, object] = {}
    inputs = design.z_dim
    if design.xl_embed:
        embedding = Placeholder("torch.nn.modules.sparse.Embedding")
        weight = torch.randn(design.xl_rows or design.classes, design.xl_embed)
        embedding.set_state({"_parameters": {"weight": weight}, "_buffers": {}, "_modules": {}})
        modules["embed"] = embedding
        modules["embed_proj"] = dense(design.z_dim, design.xl_embed, activation="lrelu")
        inputs += design.z_dim if design.classes else 0
    elif design.classes:
        modules["embed"] = dense(design.w_dim, design.classes)
        inputs += design.w_dim
    for index in range(design.mapping_layers):
        modules[f"fc{index}"] = dense(design.w_dim, inputs, 0.01, activation="lrelu")
        inputs = design.w_dim
    center = torch.randn(*([design.classes] if design.xl_embed else []), design.w_dim)
    return persisted("MappingNetwork", {}, {"w_avg": center}, **modules)


def load(network: PersistedModule) -> StyleGAN3:
    """Our generator."""
    file = Checkpoint(Path("synthetic.pkl"), network)
    (format_,) = [one for one in (nvidia_stylegan3.FORMAT, nvidia_stylegan_xl.FORMAT) if one.recognises(file)]
    generator = format_.load(file, LoadOptions())
    assert isinstance(generator, StyleGAN3)
    return generator


def draw_literally(network: PersistedModule, ws: Tensor, transform: Tensor | None = None) -> Tensor:
    """One image of ws [L, w_dim] in float64, each operation as the formulas have it: [C, H, W]."""
    synthesis = network.module("synthesis")
    ws = ws.double()
    x = _literal_input(synthesis.module("input"), ws[0], transform)
    for name, w in zip(synthesis.attributes["layer_names"], ws[1:], strict=True):
        x = _literal_layer(synthesis.module(name), x, w)
    return x * 0.25


def _literal_dense(module: PersistedModule, w: Tensor) -> Tensor:
    weight: Tensor = module.parameters["weight"].double()
    bias: Tensor = module.parameters["bias"].double()
    return w @ (weight * float(module.attributes["weight_gain"])).T + bias * float(module.attributes["bias_gain"])


def _literal_input(module: PersistedModule, w: Tensor, transform: Tensor | None) -> Tensor:
    c, s, x, y = _literal_dense(module.module("affine"), w).tolist()
    length = math.hypot(c, s)
    c, s, x, y = c / length, s / length, x / length, y / length
    rotation = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    translation = torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]], dtype=torch.float64)
    user = (module.parameters["transform"] if transform is None else transform).double()
    whole = rotation @ translation @ user
    freqs, phases, weight = (module.parameters[name].double() for name in ("freqs", "phases", "weight"))
    phases = phases + freqs @ whole[:2, 2]
    freqs = freqs @ whole[:2, :2]
    rate, bandwidth, size = float(module.attributes["sampling_rate"]), module.attributes["bandwidth"], 36
    assert list(module.attributes["size"]) == [size, size]
    amplitudes = (1 - (freqs.norm(dim=1) - bandwidth) / (rate / 2 - bandwidth)).clamp(0, 1)
    positions = (torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) / rate
    grid = torch.stack(torch.meshgrid(positions, positions, indexing="xy"), dim=2)  # [y, x, (x, y)]
    features: Tensor = torch.sin(2 * math.pi * (grid @ freqs.T + phases)) * amplitudes  # [H, W, C]
    mixed: Tensor = features @ weight.T / math.sqrt(len(weight))
    return mixed.permute(2, 0, 1)


def _literal_layer(module: PersistedModule, x: Tensor, w: Tensor) -> Tensor:
    facts = module.attributes
    weight, bias, magnitude = (module.parameters[name].double() for name in ("weight", "bias", "magnitude_ema"))
    s = _literal_dense(module.module("affine"), w)
    if facts["is_torgb"]:
        weight = weight * (s / math.sqrt(weight[0].numel()))[:, None, None]
    else:
        weight = weight / weight.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        weight = weight * (s / s.square().mean().sqrt())[:, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
    x = F.conv2d(x[None], weight / magnitude.sqrt(), bias, padding=weight.shape[2] - 1)
    up, down = int(facts["up_factor"]), int(facts["down_factor"])
    stuffed = x.new_zeros(*x.shape[:2], x.shape[2] * up, x.shape[3] * up)
    stuffed[:, :, ::up, ::up] = x
    x = _literal_filter(F.pad(stuffed, facts["padding"]), module.parameters["up_filter"]) * up**2
    if not facts["is_torgb"]:
        x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    if facts["conv_clamp"] is not None:
        x = x.clamp(-facts["conv_clamp"], facts["conv_clamp"])
    return _literal_filter(x, module.parameters["down_filter"])[0, :, ::down, ::down]


def _literal_filter(x: Tensor, taps: Tensor | None) -> Tensor:
    """A true convolution of every channel, without padding."""
    if taps is None:
        return x
    square = (torch.outer(taps, taps) if taps.ndim == 1 else taps).double()
    return F.conv2d(x.transpose(0, 1), square.flip(0, 1)[None, None]).transpose(0, 1)


DESIGNS = {
    "T of 16 px": Design(16, num_layers=5),
    "T of 8 layers, grey, without clamp": Design(32, num_layers=8, channels=1, conv_clamp=None),
    "R, conditional": Design(32, num_layers=6, conv_kernel=1, radial=True, classes=3),
    "R of 64 px": Design(64, num_layers=9, conv_kernel=1, radial=True),
    "RGBA": Design(16, num_layers=4, channels=4, mapping_layers=1),
    "XL": Design(16, num_layers=5, classes=4, xl_embed=6),
}


def inputs(design: Design, batch: int = 3) -> tuple[Tensor, Tensor | None]:
    z = torch.randn(batch, design.z_dim, generator=torch.Generator().manual_seed(1))
    return z, torch.arange(batch) % design.classes if design.classes else None


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS.keys())
def test_images_are_those_of_the_formulas(design: Design) -> None:
    network = checkpoint(design)
    generator = load(network)
    codes = generator.encode(*inputs(design))
    images = generator.decode(codes)
    assert images.shape == (3, design.channels, design.resolution, design.resolution)
    for image, ws in zip(images, codes, strict=True):
        expected = draw_literally(network, ws)
        # float32 against float64, of images that are not confined to [-1, 1].
        assert (image - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    generator = load(checkpoint(DESIGNS["R, conditional"]))
    codes = generator.encode(*inputs(DESIGNS["R, conditional"]))
    alone = torch.cat([generator.decode(code[None]) for code in codes])
    torch.testing.assert_close(generator.decode(codes), alone, atol=2e-5, rtol=0)


def test_the_input_can_be_moved_and_turned() -> None:
    network = checkpoint(DESIGNS["T of 16 px"])
    generator = load(network)
    codes = generator.encode(*inputs(DESIGNS["T of 16 px"], 1))
    generator.input.transform = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.2], [0, 0, 1]])
    expected = draw_literally(network, codes[0], generator.input.transform)
    torch.testing.assert_close(generator.decode(codes)[0], expected.float(), atol=2e-4, rtol=1e-4)


def test_all_leaves_the_inputs_layer_out() -> None:
    generator = load(checkpoint(DESIGNS["T of 16 px"]))
    assert (generator.num_layers, generator.default_layers) == (7, (1, 2, 3, 4, 5, 6))
    assert not sefa.factorize(generator).edited_layers[:, 0].any()
    assert sefa.factorize(generator, "0", top=4).edited_layers[0].tolist() == [True] + [False] * 6


@pytest.mark.parametrize("rows", [4, 1000])
def test_an_xl_has_the_classes_of_its_network_however_many_were_pretrained(rows: int) -> None:
    design = Design(16, num_layers=5, classes=4, xl_embed=6, xl_rows=rows)
    network = checkpoint(design)
    generator = load(network)
    assert generator.num_classes == 4
    z, label = inputs(design, 4)
    mapping = network.module("mapping")
    embed: Tensor = mapping.modules["embed"].state["_parameters"]["weight"]
    y = F.leaky_relu(_literal_dense(mapping.module("embed_proj"), embed[label].double()), 0.2) * 2**0.5
    x = torch.cat([part / part.square().mean(dim=1, keepdim=True).sqrt() for part in (z.double(), y)], dim=1)
    for index in range(design.mapping_layers):
        x = F.leaky_relu(_literal_dense(mapping.module(f"fc{index}"), x), 0.2) * 2**0.5
    torch.testing.assert_close(generator.encode(z, label)[:, 0], x.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("center", [(9,), (1, 9), (0, 9), (1000, 9)])
def test_an_xl_of_no_classes_has_no_use_for_what_was_pretrained(center: tuple[int, ...]) -> None:
    network = checkpoint(Design(16, num_layers=5, xl_embed=6, xl_rows=1000))
    network.module("mapping").parameters["w_avg"] = torch.full(center, 0.5)
    del network.module("mapping").modules["embed_proj"]
    generator = load(network)
    assert generator.num_classes == 0
    stored = center in ((9,), (1, 9))
    assert generator.truncation_center == ("stored" if stored else "mean of 4096 latents, seed 0")
    codes = generator.encode(torch.randn(2, 7), None, 0.0)
    assert not stored or torch.equal(codes, torch.full_like(codes, 0.5))


def test_an_xl_with_fewer_embeddings_than_classes_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has 3 rows for 4 classes"):
        load(checkpoint(Design(16, num_layers=5, classes=4, xl_embed=6, xl_rows=3)))


def test_xl_truncates_towards_the_class() -> None:
    design = DESIGNS["XL"]
    network = checkpoint(design)
    z, label = inputs(design)
    codes = load(network).encode(z, label, 0.0)
    torch.testing.assert_close(codes[:, 2], network.module("mapping").parameters["w_avg"][label])


@pytest.mark.parametrize("name", ["weight", "magnitude_ema", "bias"])
def test_a_layer_without_a_parameter_is_named(name: str) -> None:
    network = checkpoint(DESIGNS["T of 16 px"])
    layer = next(module for module in network.module("synthesis").modules if module.startswith("L2_"))
    del network.module(f"synthesis.{layer}").parameters[name]
    with pytest.raises(CheckpointError, match=rf"missing .*{layer}\.{name}"):
        load(network)


def test_a_parameter_nobody_asked_for_is_named() -> None:
    network = checkpoint(DESIGNS["T of 16 px"])
    network.module("synthesis.input").parameters["velocity"] = torch.ones(2)
    with pytest.raises(CheckpointError, match=r"not understood synthesis\.input\.velocity"):
        load(network)
