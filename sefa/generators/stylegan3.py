"""StyleGAN3: sinusoids, filtered so that details move with the objects they belong to.

StyleGAN-XL has the same layers.

Source: Karras, Aittala, Laine, Härkönen, Hellsten, Lehtinen & Aila, "Alias-Free Generative Adversarial Networks",
NeurIPS 2021; Sauer, Schwarz & Geiger, "StyleGAN-XL: Scaling StyleGAN to Large Diverse Datasets", SIGGRAPH 2022.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.common.mapping import Mapping, StyleBasedGenerator
from sefa.generators.common.polyphase import FilteredActivation, Resampling, pad
from sefa.generators.common.scaling import scale
from sefa.generators.common.to_rgb import ToRGB

# onnxruntime's vectorized convolutions want channels in multiples of 16 (AVX-512) or 8: channels of zeros are added.
CHANNEL_BLOCK = 16
# Keeps rsqrt(0) finite. The original scales styles to unit mean square, averaged over the whole batch, before it
# demodulates with an epsilon of 1e-8. That scale cancels except for the epsilon, so it is left out here: an image must
# not depend on its batch-mates. The inverse of its root must fit float16, too: channels of zeros are multiplied by it.
LEAST_ENERGY = 2.0**-31


def padded(channels: int) -> int:
    """Return the number of channels that `channels` becomes inside the network, zeros included."""
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK


class SynthesisInput(nn.Module):
    """An image of sinusoids, rotated and translated by a transform computed from w, then by the user's transform.

        x_o(p) = Σ_c weight_oc · amplitude_c · sin(2π(f_c·p + phase_c))

    Attributes:
        affine: From w to cosine, sine and translation, [4, w_dim]; all four are divided by the length of the first two.
        freqs: Frequencies f_c in cycles per unit of length, [C, 2]; the image without its margin has length 1.
        phases: Phases in cycles, [C].
        weight: Effective weight, [C', C, 1, 1].
        transform: Inverse of the transform that the user wants to apply to the image, [3, 3]; may be replaced freely.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, channels: int, size: int, sampling_rate: float, bandwidth: float, w_dim: int) -> None:
        """Build without values.

        Args:
            channels: Number of sinusoids, C.
            size: Height and width in pixels, margin included.
            sampling_rate: Pixels per unit of length.
            bandwidth: Frequency up to which sinusoids keep their amplitude; at half the sampling rate they are zero.
            w_dim: Length of w.
        """
        super().__init__()
        self.size = size
        self.sampling_rate = sampling_rate
        self.bandwidth = bandwidth
        self.affine = nn.Linear(w_dim, 4)
        self.weight = nn.Parameter(torch.empty(padded(channels), channels, 1, 1))
        self.register_buffer("freqs", torch.empty(channels, 2))
        self.register_buffer("phases", torch.empty(channels))
        self.register_buffer("transform", torch.empty(3, 3))

    def forward(self, w: Tensor) -> Tensor:
        """[N, w_dim] -> [N, C', size, size]."""
        t = self.affine(w)  # [N, 4]
        t = t * t[:, :2].square().sum(dim=1, keepdim=True).rsqrt()
        # Transposed, so that the constant is on the right: for one on the left of a batch, onnxruntime's CUDA provider
        # copies addresses from the host in each run.
        rotation = torch.stack([t[:, 0], t[:, 1], -t[:, 1], t[:, 0]], dim=1).reshape(-1, 2, 2)
        moved = self.transform[:2].T - self.transform[2, :, None] * t[:, None, 2:]  # [N, 3, 2]
        fx, fy, shift = F.linear(moved @ rotation, self.freqs).unbind(dim=1)  # [N, C]: frequencies, added phase
        # Fade out frequencies that the transform made too fine for the pixels.
        excess = ((fx.square() + fy.square()).sqrt() - self.bandwidth) / (self.sampling_rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)  # [N, C]
        positions = (torch.arange(self.size, device=w.device) + (0.5 - self.size / 2)) / self.sampling_rate
        fx, fy, phases = (values[:, :, None, None] for values in (fx, fy, self.phases + shift))  # [N, C, 1, 1]
        cycles = fx * positions + (fy * positions[:, None] + phases)  # [N, C, size, size]
        # Keep angles within half a cycle of zero, where every runtime's sine is accurate.
        features = torch.sin((cycles - cycles.round()) * (2 * math.pi)) * amplitudes[:, :, None, None]
        return F.conv2d(features, self.weight)


class SynthesisLayer(nn.Module):
    """x = filtered_lrelu(demodulate(conv(s·x)) + bias), s = affine(w).

    Per-sample weights W·s would need a convolution per sample. Instead the activations are scaled by s, convolved with
    the constant W, and scaled by rsqrt(Σ_i s_i²·Σ_yx W²), which gives the same result. The √2 after lrelu, which
    commutes with it, and the average magnitude by which training divided are multiplied into energy and bias.

    Attributes:
        affine: The style's transform, [in', w_dim].
        weight: [out', in', k, k], of any scale.
        energy: Σ_yx W² with these two factors folded in, [in', out'].
        bias: Effective bias, [out'].
        activation: lrelu on a fine enough grid, from the convolution's output to the layer's.
    """

    energy: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        resampling: Resampling,
        clamp: float | None,
        radial: bool,
        w_dim: int,
    ) -> None:
        """Build without values.

        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            kernel: Height and width of the convolution's kernel.
            resampling: From the convolution's output, larger than its input by kernel - 1, to the layer's output.
            clamp: Largest magnitude of an activation; None: no limit.
            radial: Whether the downsampling filter is radial, and so not a column times a row.
            w_dim: Length of w.
        """
        super().__init__()
        self.inputs = inputs
        self.outputs = outputs
        self.out_size = resampling.out_size
        self.affine = nn.Linear(w_dim, padded(inputs))
        self.weight = nn.Parameter(torch.empty(padded(outputs), padded(inputs), kernel, kernel))
        self.register_buffer("energy", torch.empty(padded(inputs), padded(outputs)))
        self.bias = nn.Parameter(torch.empty(padded(outputs)))
        self.activation = FilteredActivation(padded(outputs), resampling, clamp, radial)
        # Pad by kernel - 1 on both sides, less the border that upsampling leaves out.
        before, after = (kernel - 1 - side for side in resampling.crop)
        self.padding = (before, after, before, after)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in', size, size] and [N, w_dim] -> [N, out', out_size, out_size]."""
        s = self.affine(w)  # [N, in']
        demodulation = (s.square() @ self.energy).clamp_min(LEAST_ENERGY).rsqrt()  # [N, out']
        x = F.conv2d(pad(scale(x, s), self.padding), self.weight)
        image: Tensor = self.activation(scale(x, demodulation) + self.bias[:, None, None])
        return image


class StyleGAN3(StyleBasedGenerator):
    """A StyleGAN3 or StyleGAN-XL of any configuration (t, r), depth and width.

        x = sinusoids(w_0);  x = layer_l(x, w_l) for all layers;  image = ToRGB(x, w_last)

    L = 1 + layers + 1. The first code rotates and translates the whole image, so `all` leaves it out; choose it by its
    index, 0.
    """

    family = "stylegan3"
    # Images pass through dozens of filters at twice their size; summing in another order gives errors of up to 1e-4.
    tolerance = 5e-4

    def __init__(
        self,
        mapping: Mapping,
        first: SynthesisInput,
        layers: Sequence[SynthesisLayer],
        rgb: ToRGB,
        w_dim: int,
        center_per_class: bool = False,
    ) -> None:
        """Build from parts.

        Args:
            mapping: The mapping network.
            first: The sinusoids.
            layers: From coarse to fine.
            rgb: The last layer.
            w_dim: Length of w.
            center_per_class: Whether each class has its own centre of truncation.
        """
        super().__init__(mapping, w_dim, center_per_class)
        self.input = first
        self.layers = nn.ModuleList(layers)
        self.rgb = rgb
        self.num_layers = len(layers) + 2
        self.resolution = rgb.size
        self.channels = rgb.weight.shape[0]

    @property
    def default_layers(self) -> tuple[int, ...]:
        return tuple(range(1, self.num_layers))

    def decode(self, codes: Tensor) -> Tensor:
        x = self.input(codes[:, 0])
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x, codes[:, index])
        image: Tensor = self.rgb(x, codes[:, -1])
        return image

    def affines(self) -> list[Tensor]:
        layers = [layer for layer in self.layers if isinstance(layer, SynthesisLayer)]
        # Leave out the rows of padding channels.
        rows = [self.input.affine.out_features, *(layer.inputs for layer in layers), layers[-1].outputs]
        affines = [self.input.affine, *(layer.affine for layer in layers), self.rgb.affine]
        return [affine.weight[:count].detach() for affine, count in zip(affines, rows, strict=True)]
