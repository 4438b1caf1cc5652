"""StyleGAN2 as NVlabs' PyTorch code pickles it: stylegan2-ada-pytorch, stylegan3's StyleGAN2 configuration."""

from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts.assembly import Weights, combine, shape_of, source
from sefa.checkpoints.parts.stylegan2_layers import (
    RGB,
    SQRT2,
    Block,
    Conv,
    Kernel,
    MappingParts,
    build,
    dense,
    kernel,
    scaled,
)
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2

FIRST = "synthesis.b4"
CENTER = "mapping.w_avg"
# Registered by every layer, used by those that change the size alone.
UNUSED_KERNELS = r"synthesis\.b\d+\.(conv1\.)?resample_filter"


def recognises(checkpoint: Checkpoint) -> bool:
    """A synthesis network that begins with a block for 4x4."""
    synthesis = checkpoint.persisted.modules.get("synthesis") if checkpoint.persisted else None
    return isinstance(synthesis, PersistedModule) and isinstance(synthesis.modules.get("b4"), PersistedModule)


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    network = checkpoint.persisted
    assert network is not None
    tensors = clean(network.tensors())
    w_dim = network.attribute("w_dim", int)
    channels, height, width = shape_of(tensors, f"{FIRST}.const", 3)
    reader = _Reader(network, tensors)
    blocks = reader.blocks()
    ignored = [UNUSED_KERNELS]
    if options.noise == "none":
        ignored.append(r"synthesis\.b\d+\.conv[01]\.noise_(const|strength)")
    return build(
        tensors,
        reader.mapping(),
        (source(f"{FIRST}.const", convert=lambda const: const[None]), (channels, height, width)),
        blocks,
        w_dim,
        source(CENTER) if CENTER in tensors else None,
        options.noise,
        ignored,
    )


class _Reader:
    """The parts of a pickled generator."""

    def __init__(self, network: PersistedModule, tensors: dict[str, Tensor]) -> None:
        self.network = network
        self.tensors = tensors

    def mapping(self) -> MappingParts:
        z_dim, classes = (self.network.attribute(name, int) for name in ("z_dim", "c_dim"))
        modules = self.network.module("mapping").modules
        layers: list[Weights] = []
        widths: list[int] = []
        while f"fc{len(layers)}" in modules:
            name = f"mapping.fc{len(layers)}"
            self._expect_activation(name, "lrelu")
            layers.append(self._dense(name, gain=SQRT2))
            widths.append(shape_of(self.tensors, f"{name}.weight", 2)[0])
        embedding = None
        if classes:
            self._expect_activation("mapping.embed", "linear")
            embed = self._dense("mapping.embed")
            embed_dim = shape_of(self.tensors, "mapping.embed.weight", 2)[0]
            rows = combine(embed.weight, embed.bias, convert=lambda weight, bias: weight.T + bias)
            embedding = (rows, (classes, embed_dim))
        return MappingParts(z_dim, widths, layers, embedding)

    def blocks(self) -> list[Block]:
        modules = self.network.module("synthesis").modules
        names = ["b4"]
        while f"b{4 << len(names)}" in modules:
            names.append(f"b{4 << len(names)}")
        return [self._block(f"synthesis.{name}") for name in names]

    def _block(self, name: str) -> Block:
        modules = self.network.module(name).modules
        is_first, has_rgb = name == FIRST, "torgb" in modules
        channels = shape_of(self.tensors, f"{name}.conv1.weight", 4)[0]
        shortcut = None
        if "skip" in modules and not is_first:
            gain = self.network.module(f"{name}.skip").attribute("weight_gain", float)
            weight = scaled(source(f"{name}.skip.weight"), gain)
            shortcut = (weight, self._kernel(f"{name}.skip.resample_filter"))
        sums_images = not is_first and "torgb" in self.network.module(FIRST).modules
        return Block(
            channels,
            up=None if is_first else self._conv(f"{name}.conv0", up=True),
            conv=self._conv(f"{name}.conv1", up=False),
            rgb=self._rgb(f"{name}.torgb") if has_rgb else None,
            image_kernel=self._kernel(f"{name}.resample_filter") if sums_images else None,
            shortcut=shortcut,
        )

    def _conv(self, name: str, up: bool) -> Conv:
        module = self.network.module(name)
        self._expect_activation(name, "lrelu")
        noise = None
        if module.attribute("use_noise", bool):
            noise = source(f"{name}.noise_const", f"{name}.noise_strength", convert=_noise)
        return Conv(
            inputs=shape_of(self.tensors, f"{name}.weight", 4)[1],
            weight=source(f"{name}.weight"),
            bias=source(f"{name}.bias"),
            affine=self._dense(f"{name}.affine"),
            noise=noise,
            clamp=_clamp(module),
            kernel=self._kernel(f"{name}.resample_filter") if up else None,
        )

    def _rgb(self, name: str) -> RGB:
        module = self.network.module(name)
        weight = scaled(source(f"{name}.weight"), module.attribute("weight_gain", float))
        channels = shape_of(self.tensors, f"{name}.weight", 4)[0]
        return RGB(channels, weight, source(f"{name}.bias"), self._dense(f"{name}.affine"), _clamp(module))

    def _dense(self, name: str, gain: float = 1.0) -> Weights:
        module = self.network.module(name)
        weight_gain, bias_gain = (module.attribute(which, float) for which in ("weight_gain", "bias_gain"))
        return dense(source(f"{name}.weight"), source(f"{name}.bias"), gain * weight_gain, gain * bias_gain)

    def _kernel(self, key: str) -> Kernel:
        return kernel(self.tensors.get(key), source(key), 4.0)

    def _expect_activation(self, name: str, expected: str) -> None:
        activation = self.network.module(name).attribute("activation", str)
        if activation != expected:
            raise CheckpointError(f"{name} has the activation {activation}, {expected} was expected")


def _clamp(module: PersistedModule) -> float | None:
    return None if module.attribute("conv_clamp") is None else float(module.attribute("conv_clamp", float))


def _noise(noise: Tensor, strength: Tensor) -> Tensor:
    return (noise * strength)[None, None]


FORMAT = Format("NVIDIA StyleGAN2", recognises, load)
