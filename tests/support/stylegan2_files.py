"""StyleGAN2 checkpoints of any size in each format's layout, and what the published formulas make of them.

The weights are random. The images come by another route than the generator's: one convolution per sample, with that
sample's own modulated weights, and two-dimensional filters of zero-stuffed images.
"""

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SQRT2 = 2**0.5
Convolve = Callable[[Tensor, Tensor], Tensor]
MAPPING_LR = 0.01


@dataclass(frozen=True)
class Spec:
    """The sizes of a generator; `channels` has one entry per resolution."""

    channels: tuple[int, ...] = (6, 5, 4)
    w_dim: int = 7
    z_dim: int = 7
    widths: tuple[int, ...] = (7, 7)
    num_classes: int = 0
    embed_dim: int = 7
    joint_label: bool = False
    image_channels: int = 3
    architecture: str = "skip"
    const_size: tuple[int, int] = (4, 4)
    taps: Tensor = field(default_factory=lambda: torch.tensor([1.0, 3.0, 3.0, 1.0]))
    clamp: float | None = None
    noise: bool = True

    @property
    def num_layers(self) -> int:
        return 2 * len(self.channels)

    def size(self, block: int) -> tuple[int, int]:
        """Return height and width of a resolution."""
        return self.const_size[0] << block, self.const_size[1] << block

    @property
    def kernel(self) -> Tensor:
        """The upsampling filter of sum 1 as NVIDIA stores it: 1-D if it has 8 taps or more."""
        taps = self.taps if self.taps.ndim > 1 or len(self.taps) >= 8 else torch.outer(self.taps, self.taps)
        return taps / taps.sum()

    def conv_names(self) -> list[tuple[str, int, int]]:
        """Return name, input and output channels of each convolution, in the order of the codes."""
        names = []
        for block, channels in enumerate(self.channels):
            if block:
                names.append((f"synthesis.b{4 << block}.conv0", self.channels[block - 1], channels))
            names.append((f"synthesis.b{4 << block}.conv1", channels, channels))
        return names

    def has_rgb(self, block: int) -> bool:
        return self.architecture == "skip" or block == len(self.channels) - 1


# Configuration F for images of 256x256.
CONFIG_F_256 = Spec(channels=(512, 512, 512, 512, 512, 256, 128), w_dim=512, z_dim=512, widths=(512,) * 8)


def random_tensors(spec: Spec, seed: int = 0) -> dict[str, Tensor]:
    """Return raw weights, before any gain, under NVIDIA's names and in its layout."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=random) * scale

    tensors: dict[str, Tensor] = {"mapping.w_avg": normal(spec.w_dim)}
    inputs = spec.z_dim
    if spec.num_classes:
        inputs += spec.embed_dim
        tensors["mapping.embed.weight"] = normal(spec.embed_dim, spec.num_classes)
        tensors["mapping.embed.bias"] = normal(spec.embed_dim)
    for index, width in enumerate(spec.widths):
        tensors[f"mapping.fc{index}.weight"] = normal(width, inputs, scale=1 / MAPPING_LR)
        tensors[f"mapping.fc{index}.bias"] = normal(width, scale=0.1 / MAPPING_LR)
        inputs = width

    def affine(name: str, outputs: int) -> None:
        tensors[f"{name}.affine.weight"] = normal(outputs, spec.w_dim)
        tensors[f"{name}.affine.bias"] = 1 + normal(outputs, scale=0.1)

    tensors["synthesis.b4.const"] = normal(spec.channels[0], *spec.const_size)
    for name, in_channels, out_channels in spec.conv_names():
        tensors[f"{name}.weight"] = normal(out_channels, in_channels, 3, 3)
        tensors[f"{name}.bias"] = normal(out_channels, scale=0.3)
        affine(name, in_channels)
        tensors[f"{name}.resample_filter"] = spec.kernel
        if spec.noise:
            size = spec.size((int(name.split(".")[1][1:]) // 4).bit_length() - 1)
            tensors[f"{name}.noise_const"] = normal(*size)
            tensors[f"{name}.noise_strength"] = normal()
    for block, channels in enumerate(spec.channels):
        name = f"synthesis.b{4 << block}"
        tensors[f"{name}.resample_filter"] = spec.kernel
        if spec.has_rgb(block):
            tensors[f"{name}.torgb.weight"] = normal(spec.image_channels, channels, 1, 1)
            tensors[f"{name}.torgb.bias"] = normal(spec.image_channels)
            affine(f"{name}.torgb", channels)
        if block and spec.architecture == "resnet":
            tensors[f"{name}.skip.weight"] = normal(channels, spec.channels[block - 1], 1, 1)
            tensors[f"{name}.skip.resample_filter"] = spec.kernel
    return tensors


# What the formulas make of the tensors.


def reference_w(spec: Spec, tensors: dict[str, Tensor], z: Tensor, label: Tensor | None = None) -> Tensor:
    """Return w of each latent, [N, w_dim]."""
    x = z
    if label is not None:
        onehot = F.one_hot(label, spec.num_classes).to(z)
        if spec.joint_label:
            x = _normalized(torch.cat([z, onehot @ tensors["mapping.embed.weight"].T], dim=1))
        else:
            weight = tensors["mapping.embed.weight"] / spec.num_classes**0.5
            y = _normalized(onehot @ weight.T + tensors["mapping.embed.bias"])
            x = torch.cat([_normalized(z), y], dim=1)
    else:
        x = _normalized(z)
    for index in range(len(spec.widths)):
        weight = tensors[f"mapping.fc{index}.weight"] * MAPPING_LR / x.shape[1] ** 0.5
        x = F.leaky_relu(x @ weight.T + tensors[f"mapping.fc{index}.bias"] * MAPPING_LR, 0.2) * SQRT2
    return x


def reference_image(
    spec: Spec, tensors: dict[str, Tensor], codes: Tensor, noise: bool = True, convolve: Convolve | None = None
) -> Tensor:
    """Return the image of codes [N, L, D], with a convolution per sample; `convolve` applies the filters."""
    convolve = convolve or convolve_grouped
    x = tensors["synthesis.b4.const"].repeat(len(codes), 1, 1, 1)
    image: Tensor | None = None
    for block in range(len(spec.channels)):
        name = f"synthesis.b{4 << block}"
        first = x
        residual = f"{name}.skip.weight" in tensors
        if block:
            x = _reference_conv(spec, tensors, f"{name}.conv0", x, codes[:, 2 * block - 1], 1.0, noise, convolve)
        scale = 0.5**0.5 if residual else 1.0
        x = _reference_conv(spec, tensors, f"{name}.conv1", x, codes[:, 2 * block], scale, noise)
        if residual:
            weight = tensors[f"{name}.skip.weight"] / first.shape[1] ** 0.5
            x = x + _up2(F.conv2d(first, weight), spec.kernel, convolve) * 0.5**0.5
        if image is not None:
            image = _up2(image, spec.kernel, convolve)
        if f"{name}.torgb.weight" in tensors:
            s = _style(tensors, f"{name}.torgb", codes[:, 2 * block + 1]) / x.shape[1] ** 0.5
            weight = tensors[f"{name}.torgb.weight"][None] * s[:, None, :, None, None]
            rgb = _per_sample(x, weight, padding=0) + tensors[f"{name}.torgb.bias"][:, None, None]
            rgb = rgb if spec.clamp is None else rgb.clamp(-spec.clamp, spec.clamp)
            image = rgb if image is None else image + rgb
    assert image is not None
    return image


def _reference_conv(
    spec: Spec,
    tensors: dict[str, Tensor],
    name: str,
    x: Tensor,
    w: Tensor,
    scale: float,
    noise: bool,
    up: Convolve | None = None,
) -> Tensor:
    weight = tensors[f"{name}.weight"][None] * _style(tensors, name, w)[:, None, :, None, None]  # [N, O, I, 3, 3]
    weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    if up is not None:
        # A transposed convolution, one per sample, and the filter of its result.
        grouped = weight.transpose(1, 2).reshape(-1, weight.shape[1], 3, 3)
        height, width = x.shape[2:]
        y = F.conv_transpose2d(x.reshape(1, -1, height, width), grouped, stride=2, groups=len(x))
        taps = len(spec.kernel)
        pads = ((taps + 1) // 2 - 1, (taps - 2) // 2)
        x = _filtered(y.reshape(len(x), -1, 2 * height + 1, 2 * width + 1), spec.kernel, pads, up)
    else:
        x = _per_sample(x, weight, padding=1)
    if noise and f"{name}.noise_const" in tensors:
        x = x + tensors[f"{name}.noise_const"] * tensors[f"{name}.noise_strength"]
    x = F.leaky_relu(x + tensors[f"{name}.bias"][:, None, None], 0.2).mul(SQRT2 * scale)
    return x if spec.clamp is None else x.clamp(-spec.clamp * scale, spec.clamp * scale)


def _style(tensors: dict[str, Tensor], name: str, w: Tensor) -> Tensor:
    weight = tensors[f"{name}.affine.weight"]
    return F.linear(w, weight / weight.shape[1] ** 0.5, tensors[f"{name}.affine.bias"])


def _per_sample(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Correlate sample n with weight[n]."""
    count, outputs, _, kernel_height, kernel_width = weight.shape
    y = F.conv2d(
        x.reshape(1, -1, *x.shape[2:]),
        weight.reshape(count * outputs, -1, kernel_height, kernel_width),
        padding=padding,
        groups=count,
    )
    return y.reshape(count, outputs, *x.shape[2:])


def convolve_grouped(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate each channel with `kernel`, in one convolution of as many groups as channels."""
    return F.conv2d(x, kernel.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])


def convolve_apart(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate each channel with `kernel`, as an image of its own: so do the released PyTorch generators."""
    images = F.conv2d(x.reshape(-1, 1, *x.shape[2:]), kernel[None, None])
    return images.reshape(*x.shape[:2], *images.shape[2:])


def _filtered(x: Tensor, kernel: Tensor, pads: tuple[int, int], convolve: Convolve) -> Tensor:
    """Convolve each channel with 4 times the kernel, after padding (or cropping) each axis."""
    square = (kernel if kernel.ndim > 1 else torch.outer(kernel, kernel)).to(x) * 4
    return convolve(F.pad(x, (*pads, *pads)), square.flip(0, 1))


def _up2(x: Tensor, kernel: Tensor, convolve: Convolve) -> Tensor:
    count, channels, height, width = x.shape
    stuffed = x.new_zeros(count, channels, 2 * height, 2 * width)
    stuffed[..., ::2, ::2] = x
    return _filtered(stuffed, kernel, ((len(kernel) + 1) // 2, (len(kernel) - 2) // 2), convolve)


def _normalized(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


# The same tensors in other layouts.


def genforce_state(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of genforce's generator."""
    state = {
        "truncation.w_avg": tensors["mapping.w_avg"],
        "synthesis.upsample.kernel": _stored_kernel(spec)[None, None],
    }
    if spec.num_classes:
        state["mapping.label_weight"] = tensors["mapping.embed.weight"].T.contiguous()
    for index in range(len(spec.widths)):
        for which in ("weight", "bias"):
            state[f"mapping.dense{index}.{which}"] = tensors[f"mapping.fc{index}.{which}"]
    state["synthesis.early_layer.const"] = tensors["synthesis.b4.const"][None]

    def style(ours: str, theirs: str) -> None:
        state[f"{theirs}.style.weight"] = tensors[f"{ours}.affine.weight"]
        state[f"{theirs}.style.bias"] = tensors[f"{ours}.affine.bias"] - 1

    for index, (name, _, _) in enumerate(spec.conv_names()):
        theirs = f"synthesis.layer{index}"
        weight = tensors[f"{name}.weight"]
        state[f"{theirs}.weight"] = weight.flip(2, 3) if index % 2 else weight
        state[f"{theirs}.bias"] = tensors[f"{name}.bias"]
        state[f"{theirs}.noise"] = tensors[f"{name}.noise_const"][None, None]
        state[f"{theirs}.noise_strength"] = tensors[f"{name}.noise_strength"]
        if index % 2:
            state[f"{theirs}.filter.kernel"] = _stored_kernel(spec)[None, None]
        style(name, theirs)
    for block in range(len(spec.channels)):
        name, theirs = f"synthesis.b{4 << block}.torgb", f"synthesis.output{block}"
        state[f"{theirs}.weight"], state[f"{theirs}.bias"] = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        style(name, theirs)
    return state


def rosinality_state(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of rosinality's generator."""
    state = {"input.input": tensors["synthesis.b4.const"][None]}
    for index in range(len(spec.widths)):
        for which in ("weight", "bias"):
            state[f"style.{index + 1}.{which}"] = tensors[f"mapping.fc{index}.{which}"]

    def modulation(ours: str, theirs: str) -> None:
        state[f"{theirs}.conv.weight"] = tensors[f"{ours}.weight"][None]
        state[f"{theirs}.conv.modulation.weight"] = tensors[f"{ours}.affine.weight"]
        state[f"{theirs}.conv.modulation.bias"] = tensors[f"{ours}.affine.bias"]

    for index, (name, _, _) in enumerate(spec.conv_names()):
        theirs = f"convs.{index - 1}" if index else "conv1"
        modulation(name, theirs)
        if index % 2:
            state[f"{theirs}.conv.blur.kernel"] = _stored_kernel(spec)
        state[f"{theirs}.noise.weight"] = tensors[f"{name}.noise_strength"].reshape(1)
        state[f"{theirs}.activate.bias"] = tensors[f"{name}.bias"]
        state[f"noises.noise_{index}"] = tensors[f"{name}.noise_const"][None, None]
    for block in range(len(spec.channels)):
        name, theirs = f"synthesis.b{4 << block}.torgb", f"to_rgbs.{block - 1}" if block else "to_rgb1"
        modulation(name, theirs)
        state[f"{theirs}.bias"] = tensors[f"{name}.bias"].reshape(1, -1, 1, 1)
        if block:
            state[f"{theirs}.upsample.kernel"] = _stored_kernel(spec)
    return state


def tensorflow_variables(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the variables of a TensorFlow generator by full name."""
    variables = {
        "dlatent_avg": tensors["mapping.w_avg"],
        "synthesis/4x4/Const/const": tensors["synthesis.b4.const"][None],
    }
    if spec.num_classes and spec.joint_label:
        variables["mapping/LabelConcat/weight"] = tensors["mapping.embed.weight"].T
    elif spec.num_classes:
        variables["mapping/LabelEmbed/weight"] = tensors["mapping.embed.weight"].T
        variables["mapping/LabelEmbed/bias"] = tensors["mapping.embed.bias"]
    for index in range(len(spec.widths)):
        variables[f"mapping/Dense{index}/weight"] = tensors[f"mapping.fc{index}.weight"].T
        variables[f"mapping/Dense{index}/bias"] = tensors[f"mapping.fc{index}.bias"]

    def layer(ours: str, theirs: str, flip: bool) -> None:
        weight = tensors[f"{ours}.weight"]
        variables[f"{theirs}/weight"] = (weight.flip(2, 3) if flip else weight).permute(2, 3, 1, 0)
        variables[f"{theirs}/bias"] = tensors[f"{ours}.bias"]
        variables[f"{theirs}/mod_weight"] = tensors[f"{ours}.affine.weight"].T
        variables[f"{theirs}/mod_bias"] = tensors[f"{ours}.affine.bias"] - 1

    for index, (name, _, _) in enumerate(spec.conv_names()):
        scope = f"synthesis/{4 << (index + 1) // 2}x{4 << (index + 1) // 2}"
        theirs = f"{scope}/Conv0_up" if index % 2 else f"{scope}/Conv1" if index else f"{scope}/Conv"
        layer(name, theirs, flip=index % 2 == 1)
        variables[f"{theirs}/noise_strength"] = tensors[f"{name}.noise_strength"]
        variables[f"synthesis/noise{index}"] = tensors[f"{name}.noise_const"][None, None]
    for block in range(len(spec.channels)):
        name, scope = f"synthesis.b{4 << block}", f"synthesis/{4 << block}x{4 << block}"
        if f"{name}.torgb.weight" in tensors:
            layer(f"{name}.torgb", f"{scope}/ToRGB", flip=False)
        if f"{name}.skip.weight" in tensors:
            variables[f"{scope}/Skip/weight"] = tensors[f"{name}.skip.weight"].permute(2, 3, 1, 0)
    return variables


def _stored_kernel(spec: Spec) -> Tensor:
    return (spec.kernel if spec.kernel.ndim > 1 else torch.outer(spec.kernel, spec.kernel)) * 4


# NVIDIA's pickles: the names they refer to stand for modules that exist only while one is written.


def reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    """Only its name is used."""


reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
reconstruct_persistent_obj.__name__ = "_reconstruct_persistent_obj"
reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"


class Persisted:
    """Pickles as `torch_utils.persistence` pickles a module."""

    def __init__(
        self,
        class_name: str,
        tensors: dict[str, Tensor] | None = None,
        buffers: tuple[str, ...] = (),
        **attributes: Any,
    ) -> None:
        self.class_name = class_name
        tensors = tensors or {}
        self.state: dict[str, Any] = {
            "training": False,
            "_parameters": OrderedDict(
                (name, torch.nn.Parameter(tensor, requires_grad=False))
                for name, tensor in tensors.items()
                if name not in buffers
            ),
            "_buffers": OrderedDict((name, tensor) for name, tensor in tensors.items() if name in buffers),
            "_non_persistent_buffers_set": set(),
            "_modules": OrderedDict(),
            **attributes,
        }

    @property
    def modules(self) -> dict[str, "Persisted"]:
        """Submodules by name."""
        modules: dict[str, Persisted] = self.state["_modules"]
        return modules

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {"type": "class", "version": 6, "module_src": "", "class_name": self.class_name, "state": self.state}
        return reconstruct_persistent_obj, (meta,)


def nvidia_network(spec: Spec, tensors: dict[str, Tensor]) -> Persisted:
    """Return a generator as NVIDIA's pickles hold it."""

    def own(name: str) -> dict[str, Tensor]:
        return {key[len(name) + 1 :]: tensor for key, tensor in tensors.items() if key.rpartition(".")[0] == name}

    def dense(name: str, activation: str, lr: float) -> Persisted:
        gain = lr / tensors[f"{name}.weight"].shape[1] ** 0.5
        return Persisted(
            "FullyConnectedLayer", own(name), activation=activation, weight_gain=gain, bias_gain=lr if lr != 1 else 1
        )

    root = Persisted(
        "Generator",
        z_dim=spec.z_dim,
        c_dim=spec.num_classes,
        w_dim=spec.w_dim,
        img_resolution=spec.size(len(spec.channels) - 1)[0],
        img_channels=spec.image_channels,
        num_ws=spec.num_layers,
    )
    mapping = root.modules["mapping"] = Persisted("MappingNetwork", own("mapping"), ("w_avg",))
    if spec.num_classes:
        mapping.modules["embed"] = dense("mapping.embed", "linear", 1)
    for index in range(len(spec.widths)):
        mapping.modules[f"fc{index}"] = dense(f"mapping.fc{index}", "lrelu", MAPPING_LR)
    synthesis = root.modules["synthesis"] = Persisted("SynthesisNetwork")
    for block in range(len(spec.channels)):
        name = f"synthesis.b{4 << block}"
        module = Persisted("SynthesisBlock", own(name), ("resample_filter",), architecture=spec.architecture)
        synthesis.modules[f"b{4 << block}"] = module
        for conv in ("conv0", "conv1") if block else ("conv1",):
            layer = module.modules[conv] = Persisted(
                "SynthesisLayer",
                own(f"{name}.{conv}"),
                ("resample_filter", "noise_const"),
                use_noise=spec.noise,
                activation="lrelu",
                conv_clamp=spec.clamp,
            )
            layer.modules["affine"] = dense(f"{name}.{conv}.affine", "linear", 1)
        for extra, class_name in (("torgb", "ToRGBLayer"), ("skip", "Conv2dLayer")):
            if f"{name}.{extra}.weight" in tensors:
                gain = 1 / spec.channels[block if extra == "torgb" else block - 1] ** 0.5
                module.modules[extra] = Persisted(
                    class_name, own(f"{name}.{extra}"), ("resample_filter",), weight_gain=gain, conv_clamp=spec.clamp
                )
        if "torgb" in module.modules:
            module.modules["torgb"].modules["affine"] = dense(f"{name}.torgb.affine", "linear", 1)
    return root


class Network:
    """Pickles as TensorFlow networks of NVIDIA's code do."""

    __module__ = "dnnlib.tflib.network"

    def __init__(
        self,
        variables: dict[str, Tensor] | None = None,
        components: dict[str, "Network"] | None = None,
        static_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.version = 4
        self.name = "Gs"
        self.static_kwargs = static_kwargs or {}
        self.components = components or {}
        self.build_module_src = ""
        self.build_func_name = "G_main"
        self.variables = [(name, tensor.contiguous().numpy()) for name, tensor in (variables or {}).items()]


def tensorflow_network(variables: dict[str, Tensor], **static_kwargs: Any) -> Network:
    """Return a generator whose components hold the variables of their scopes."""
    scopes: dict[str, dict[str, Tensor]] = {"": {}, "synthesis": {}, "mapping": {}}
    for name, tensor in variables.items():
        scope, _, rest = name.partition("/")
        scopes[scope if rest else ""][rest or scope] = tensor
    own = scopes.pop("")
    return Network(own, {scope: Network(inner) for scope, inner in scopes.items()}, static_kwargs)


def write_nvidia(path: Path, generator: Persisted, protocol: int = 4) -> Path:
    """Write an NVIDIA PyTorch pickle of this averaged generator alone."""
    with importable(reconstruct_persistent_obj), path.open("wb") as file:
        pickle.dump({"G": None, "D": None, "G_ema": generator}, file, protocol)
    return path


def write_tensorflow(path: Path, generator: Network) -> Path:
    """Write a TensorFlow pickle of three networks, the third of which is this one."""
    with importable(Network), path.open("wb") as file:
        pickle.dump((Network(), Network(), generator), file, 4)
    return path


@contextmanager
def importable(item: Any) -> Iterator[None]:
    """Let pickle find something in the module that it says it is from."""
    parts = item.__module__.split(".")
    names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    sys.modules.update({name: ModuleType(name) for name in names})
    setattr(sys.modules[item.__module__], item.__name__, item)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
