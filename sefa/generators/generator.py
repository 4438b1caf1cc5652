"""The interface of every generator family."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from sefa.errors import ArgumentError
from sefa_runtime.model.signature import OptionalInput

Truncation = float | Tensor


class Generator(nn.Module, ABC):
    """A trained generator in two steps: `encode` turns a latent into codes, `decode` turns codes into an image.

    An edit is added to the codes between the two steps.

    Attributes:
        family: Name of the architecture: "dcgan", "stylegan2", ...
        tolerance: How far a value of an image in [-1, 1] may move when float32 numbers are summed in another order;
            1e-4 is 1/80 of a grey level.
        z_dim: Length of the latent z.
        code_dim: Length D of one layer's code.
        class_dim: How many of a code's last entries hold the class; no direction changes them.
        latent_dim: How many of a code's first entries are latent: all but the last `class_dim`.
        num_layers: Number L of layers that read a code of their own.
        resolution: Height and width of the image.
        channels: Channels of the image.
        num_classes: Number of classes of a conditional generator; 0 if there are none.
        class_names: Their names, in the order of their indices, which exported files take over; empty if there are
            none. They may be set.
        layers_share_latent: Whether all layers' codes are the same latent. If not, z is split between the layers, and a
            direction belongs to one of them.
        edits_all_layers: Whether an edit changes all layers by default, whichever were analysed. If not, the default is
            to edit the analysed layers.
        layer_names: Names of the layers, which may stand for their indices; empty if they have none.
        default_layers: The layers that `all` means.
        has_style_codes: Whether the codes are style codes w, which are the same for all layers and which a graph may
            take instead of z.
        normalizes_codes: Whether the codes are normalised before the first transforms read them.
        runs_user_code: Whether it runs code of the user's own, which some exporters may not accept.
        truncation_center: Where the centre of truncation comes from; empty if the family has no truncation.
        noise: What the noise inputs hold: "const" or "none"; empty if the family has none.
        checkpoint_format: Format of the checkpoint file; empty if the generator was not loaded from a file.
        source_sha256: sha256 of the checkpoint file, in hex; empty if the generator was not loaded from a file.
        source_entry: Which of the file's entries was read; empty if there was nothing to choose.
        optional_inputs: Numbers that `decode` takes for each image besides the codes, by name.
        assumptions: What the file does not say and was assumed, a few words each: "tanh at the end".
        license: The generator's licence, if the file says it; else empty.
        note: What else the file says of the generator in words; else empty.

    Examples:
        >>> generator = sefa.load("netG.pth")
        >>> codes = generator.encode(torch.randn(2, generator.z_dim))
        >>> codes.shape, generator.decode(codes).shape
        (torch.Size([2, 1, 20]), torch.Size([2, 3, 64, 64]))
    """

    family: ClassVar[str]
    tolerance: ClassVar[float] = 1e-4
    has_style_codes: ClassVar[bool] = False
    normalizes_codes: bool = False
    runs_user_code: ClassVar[bool] = False
    z_dim: int
    code_dim: int
    class_dim: int = 0
    num_layers: int
    resolution: tuple[int, int]
    channels: int
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    layer_names: tuple[str, ...] = ()
    layers_share_latent: bool = True
    edits_all_layers: bool = False
    truncation_center: str = ""
    noise: str = ""
    checkpoint_format: str = ""
    source_sha256: str = ""
    source_entry: str = ""
    assumptions: tuple[str, ...] = ()
    license: str = ""
    note: str = ""
    optional_inputs: tuple[OptionalInput, ...] = ()

    @property
    def latent_dim(self) -> int:
        return self.code_dim - self.class_dim

    @property
    def default_layers(self) -> tuple[int, ...]:
        return tuple(range(self.num_layers))

    def latent_size(self, layers: Sequence[int]) -> int:
        """Return the number of latent dimensions that these layers read."""
        return self.latent_dim * (1 if self.layers_share_latent else len(layers))

    @property
    def supports_truncation(self) -> bool:
        """Whether `encode` takes a truncation psi other than 1."""
        return bool(self.truncation_center)

    @property
    def has_noise(self) -> bool:
        """Whether the family has noise inputs, which may be left out."""
        return bool(self.noise)

    def encode(
        self,
        z: Tensor,
        label: Tensor | None = None,
        truncation: Truncation = 1.0,
        truncation_layers: int | None = None,
    ) -> Tensor:
        """Turn latents into the codes that the layers read.

        Args:
            z: Shape [N, z_dim].
            label: Class indices, int64 [N]; None for an unconditional generator.
            truncation: Truncation psi, a number or float32 [N]; 1 is off.
            truncation_layers: How many layers it applies to, from the first; None: all.

        Returns:
            codes: Shape [N, L, D].

        Raises:
            ArgumentError: If the family has no such input, or a label is needed.
        """
        if self.num_classes and label is None:
            raise ArgumentError(f"class-conditional: a label in 0..{self.num_classes - 1} is needed")
        if not self.num_classes and label is not None:
            raise ArgumentError("not class-conditional: it takes no label")
        off = not isinstance(truncation, Tensor) and truncation == 1
        if not self.supports_truncation and not off:
            raise ArgumentError(f"{self.family} has no truncation: psi must be 1, got {truncation}")
        return self._encode(z, label, truncation, truncation_layers)

    @abstractmethod
    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        """Compute the codes of inputs that `encode` has checked."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes into images.

        Args:
            codes: Shape [N, L, D].

        Returns:
            image: Shape [N, C, H, W], nominally in [-1, 1].
        """

    @abstractmethod
    def affines(self) -> list[Tensor]:
        """Return the weight with which each layer first transforms its code.

        Returns:
            One effective (gain-applied) weight A per layer, shape [out_features, D].
        """

    def normalize_codes(self, codes: Tensor) -> Tensor:
        """Return a layer's codes [N, D] as its first transform reads them: unchanged unless `normalizes_codes`."""
        return codes

    def code_rms(self) -> tuple[float, float] | None:
        """Return the smallest and largest root mean square of a style code; None if there are no style codes."""
        return None


def check_generator(given: object) -> None:
    """Check that an argument is a generator, not the path of one or a module that is not wrapped.

    Raises:
        ArgumentError: If it is not; the message says what makes a generator of it.
    """
    if hasattr(given, "affines"):  # A compiled generator is no instance of the class.
        return
    how = "sefa.wrap makes one of a torch.nn.Module" if isinstance(given, nn.Module) else "sefa.load reads one"
    raise ArgumentError(f"a generator was expected, got {type(given).__name__}: {how}")
