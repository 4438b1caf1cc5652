"""How modules want to be called, and where the image is in what they give."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa import ArgumentError
from sefa.custom.custom_generator import CustomGenerator

D = 10
Named = namedtuple("Named", "features image")


@dataclass
class Output:
    sample: Tensor
    loss: Tensor | None = None


class Net(nn.Module):
    """Square colour images, which `give` works on."""

    def __init__(self, give: Callable[[Tensor], Any] = lambda image: image, height: int = 8, width: int = 8) -> None:
        super().__init__()
        self.first, self.size, self.give = nn.Linear(D, 3 * height * width), (3, height, width), give

    def forward(self, z: Tensor) -> Any:
        return self.give(torch.tanh(self.first(z)).view(-1, *self.size))


def wrapped(module: nn.Module, **options: Any) -> CustomGenerator:
    options = {"image_range": (-1, 1)} | options
    return sefa.wrap(module, latent_dim=D, layers=["first"], **options)


def check(module: Net, generator: sefa.Generator, *inputs: Any) -> None:
    """The generator draws the module's images, also edited."""
    z = torch.randn(4, D)
    give, module.give = module.give, lambda image: image
    with torch.no_grad():
        expected = Net.forward(module.eval(), z)
        moved = Net.forward(module, z + 2 * sefa.factorize(generator).vectors[1])
        torch.testing.assert_close(generator.decode(generator.encode(z)), expected, atol=1e-6, rtol=0)
        bank = sefa.factorize(generator)
        torch.testing.assert_close(
            generator.decode(generator.encode(z) + 2 * bank.vectors[1]), moved, atol=1e-5, rtol=0
        )
    module.give = give
    assert (generator.channels, generator.resolution) == (3, module.size[1:])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def hwc(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("give", "assumed"),
    [
        (lambda x: x, ()),
        (lambda x: (x,), ("the image is its output 0",)),
        (lambda x: (x, x.mean((1, 2, 3))), ("the image is its output 0",)),
        (lambda x: [x.flatten(1), x], ("the image is its output 1",)),
        (lambda x: {"image": x, "latent": x[:, 0, 0]}, ("the image is its output image",)),
        (lambda x: Output(x), ("the image is its output sample",)),
        (lambda x: SimpleNamespace(sample=x), ("the image is its output sample",)),
        (lambda x: {"out": {"rgb": [x]}}, ("the image is its output out.rgb.0",)),
        (hwc, ("images [N, H, W, C]",)),
        (lambda x: {"image": hwc(x)}, ("the image is its output image", "images [N, H, W, C]")),
        (lambda x: hwc(x).contiguous(memory_format=torch.channels_last).permute(0, 3, 1, 2), ()),
    ],
)
def test_the_only_image_is_found_and_it_is_said(give: Callable[[Tensor], Any], assumed: tuple[str, ...]) -> None:
    module = Net(give)
    generator = wrapped(module)
    assert generator.assumptions == assumed
    check(module, generator)


@pytest.mark.parametrize(
    ("give", "key"),
    [
        (lambda x: {"image": x, "mask": -x}, "image"),
        (lambda x: (-x, x), 1),
        (lambda x: (-x, x), "1"),
        (lambda x: (-x, x), "-1"),
        (lambda x: {0: x, 1: -x, "z": [x, x]}, "0"),
        (lambda x: Named(-x, x), "image"),
        (lambda x: {"a": Output(x, -x), "b": x}, "a.sample"),
        (lambda x: Output(x, -x), ".sample"),
    ],
)
def test_of_several_the_key_tells(give: Callable[[Tensor], Any], key: str | int) -> None:
    module = Net(give)
    with pytest.raises(ArgumentError, match=r"Net gives several outputs .*float32 \[3, 3, 8, 8\].*: --output-key \w"):
        wrapped(module)
    generator = wrapped(module, output_key=key)
    assert generator.assumptions == ()
    check(module, generator)
    with pytest.raises(ArgumentError, match=r"Net gives no output 'picture', but .* float32 \[3, 3, 8, 8\]"):
        wrapped(module, output_key="picture")


def test_a_key_of_something_else_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"output 'z' is float32 \[3, 3\], no images; it gives image float32"):
        wrapped(Net(lambda x: {"image": x, "z": x[:, 0, 0, :3]}), output_key="z")


@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [
        ((3, 64, 64), False),
        ((1, 28, 28), False),
        ((64, 64, 3), True),
        ((64, 48, 1), True),
        ((3, 32, 16), False),
        ((16, 16, 4), True),
        ((3, 4, 4), False),
        ((4, 4, 3), True),
        ((6, 16, 16), False),
        ((16, 16, 6), True),
        ((3, 8, 4), None),
        ((4, 8, 3), None),
        ((3, 3, 3), None),
        ((16, 16, 16), None),
        ((5, 8, 16), None),
    ],
)
def test_where_the_channels_are_shows_in_the_shape_or_is_asked(
    shape: tuple[int, int, int], channels_last: bool | None
) -> None:
    class Shaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(D, shape[0] * shape[1] * shape[2])

        def forward(self, z: Tensor) -> Tensor:
            return torch.tanh(self.first(z)).view(-1, *shape)

    first, second, third = shape
    found = {False: (first, (second, third)), True: (third, (first, second))}
    if channels_last is None:
        with pytest.raises(ArgumentError, match=r"gives images \[3, .* say it: --image-layout nchw or nhwc"):
            wrapped(Shaped())
    else:
        generator = wrapped(Shaped())
        assert (generator.channels, generator.resolution) == found[channels_last]
        assert generator.assumptions == (("images [N, H, W, C]",) if channels_last else ())
    for layout, last in (("nchw", False), ("nhwc", True)):
        generator = wrapped(Shaped(), image_layout=layout)
        assert (generator.channels, generator.resolution) == found[last]
        assert generator.assumptions == ()


def as_bytes(image: Tensor) -> Tensor:
    return (image * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def test_bytes_are_images_of_0_to_255() -> None:
    module = Net(as_bytes)
    generator = sefa.wrap(module, latent_dim=D, layers=["first"])
    assert generator.assumptions == ("images of 0 to 255",)
    z = torch.randn(2, D)
    with torch.no_grad():
        image = generator.decode(generator.encode(z))
        torch.testing.assert_close(image, module(z) / 127.5 - 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_other_floats_become_float32(dtype: torch.dtype) -> None:
    module = Net(lambda x: x.to(dtype))
    z = torch.randn(2, D)
    generator = wrapped(module)
    with torch.no_grad():
        image = generator.decode(generator.encode(z))
        assert image.dtype == torch.float32
        torch.testing.assert_close(image, module(z).float())


def test_a_module_in_double_precision_is_run_in_float32() -> None:
    module = Net().double()
    z = torch.randn(2, D)
    generator = wrapped(module)
    with torch.no_grad():
        torch.testing.assert_close(generator.decode(generator.encode(z)), module(z.double()).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda x: x.flatten(1), r"gives float32 \[3, 192\] for 3 latents; images .*: end its forward with a reshape"),
        (lambda x: x.mean(1), r"gives float32 \[3, 8, 8\] for 3 latents; .*reshape"),
        (lambda x: torch.complex(x, x), r"complex64 \[3, 3, 8, 8\] .* with their real part"),
        (lambda x: x.long(), r"int64 \[3, 3, 8, 8\] .* with \.float\(\)"),
        (lambda x: x.mean(0, keepdim=True), r"float32 \[1, 3, 8, 8\] .* one for each latent"),
        (lambda x: None, "gives a NoneType without tensors"),
        (lambda x: {"z": x[:, 0, 0], "w": x[:, 0]}, r"gives z float32 \[3, 8\], w float32 \[3, 8, 8\] for"),
        (lambda x: x * 127 + 127, r"values lie beyond -1 to 1: .* with --image-range LOW,HIGH"),
    ],
)
def test_what_is_no_image_is_described_with_a_way_on(give: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as error:
        wrapped(Net(give), image_range=None)
    assert "\n" not in str(error.value)


def test_the_range_that_nobody_gave_is_said() -> None:
    assert wrapped(Net(), image_range=None).assumptions == ("images of -1 to 1",)


class Sequence(Net):
    """z [N, 1, D], as a step of a sequence."""

    def forward(self, z: Tensor) -> Any:
        return super().forward(z.unbind(1)[0]) if z.ndim == 3 else None


class Image(Net):
    """z [N, D, 1, 1]."""

    def forward(self, z: Tensor) -> Any:
        return super().forward(z.squeeze(3).squeeze(2))


@pytest.mark.parametrize(("build", "axes"), [(Sequence, "sequence"), (Image, "image"), (Net, "flat")])
def test_z_is_given_in_the_shape_that_it_takes(build: type[Net], axes: str) -> None:
    module = build()
    generator = wrapped(module)
    assert generator.form.z_axes == axes
    check(module, generator)


class WithClass(Net):
    """NVlabs' generators are called with None where there are no classes."""

    def forward(self, z: Tensor, c: Tensor | None, psi: float = 1.0) -> Any:  # type: ignore[override]
        return super().forward(z) if c is None else super().forward(z) * 0.5


class MayHaveClass(Net):
    def forward(self, z: Tensor, label: Tensor | None = None) -> Any:
        return super().forward(z if label is None else z + label[:, None])


class NeedsClass(Net):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, D)

    def forward(self, z: Tensor, c: Tensor) -> Any:  # type: ignore[override]
        return super().forward(z + self.embed(c))


class NeedsMore(Net):
    def forward(self, z: Tensor, noise: Tensor, step: int) -> Any:  # type: ignore[override]
        return super().forward(z)


def test_a_second_argument_may_be_none_and_it_is_said() -> None:
    module = WithClass()
    generator = wrapped(module)
    assert generator.assumptions == ("None as its second argument, c",)
    check(module, generator)


def test_a_class_that_is_left_out_is_said() -> None:
    assert wrapped(MayHaveClass()).assumptions == ("no label, which its forward may be given",)
    assert wrapped(MayHaveClass(), num_classes=3).assumptions == ()


def test_an_argument_that_is_missing_is_named_with_the_way_on() -> None:
    with pytest.raises(ArgumentError, match=r"its forward\(z, c\) wants c besides the latent: with --num-classes N it"):
        wrapped(NeedsClass())
    assert wrapped(NeedsClass(), num_classes=4).num_classes == 4
    with pytest.raises(
        ArgumentError, match=r"NeedsMore\.forward\(z, noise, step\) wants 3 arguments, where .* z alone: "
    ):
        wrapped(NeedsMore())
    with pytest.raises(
        ArgumentError,
        match=r"forward\(z, noise, step\) wants 3 arguments, where .* z and a label: .*--call z,label,step=1",
    ):
        wrapped(NeedsMore(), num_classes=4)


class ByName(Net):
    def forward(self, *, z: Tensor) -> Any:  # type: ignore[override]
        return super().forward(z)


class ClassFirst(NeedsClass):
    def forward(self, label: Tensor, z: Tensor) -> Any:  # type: ignore[override]
        return super().forward(z, label)


def test_how_it_is_called_is_said_where_it_wants_another_way() -> None:
    with pytest.raises(
        ArgumentError, match=r"positional argument.*; --call says which arguments it wants, as in --call x=z"
    ):
        wrapped(ByName())
    with pytest.raises(
        ArgumentError, match=r"; it is called as forward\(z, label\), with classes of 0 to 3; with --call"
    ):
        wrapped(ClassFirst(), num_classes=4)


class Truncated(Net):
    """As NVlabs' generators are called: a class that may be None, a factor, and a word."""

    def forward(  # type: ignore[override]
        self, styles: list[Tensor], c: Tensor | None, *, psi: float = 0.5, mode: str = "random", size: Any = None
    ) -> Any:
        assert (c, mode, size) == (None, "const", {"height": (8, 8)})
        return psi * super().forward(styles[0])


def test_constants_are_given_by_call() -> None:
    module = Truncated()
    generator = wrapped(module, call="[z], c=None, psi=-.25, mode='const', size={'height': (8, 8)}")
    assert generator.assumptions == ()
    z = torch.randn(2, D)
    with torch.no_grad():
        expected = module([z], None, psi=-0.25, mode="const", size={"height": (8, 8)})
        torch.testing.assert_close(generator.decode(generator.encode(z)), expected, atol=1e-6, rtol=0)
    with pytest.raises(ArgumentError, match=r"cannot be called for \(\[z\],c=0\) with z \[3, 10\] or .* --call says"):
        wrapped(module, call="[z],c=0")


@pytest.mark.parametrize("call", ["label,z", "z=z,label=label", "label, z=z"])
def test_the_label_goes_where_call_says(call: str) -> None:
    module = ClassFirst()
    generator = wrapped(module, num_classes=4, call=call)
    z, label = torch.randn(4, D), torch.tensor([3, 0, 1, 2])
    with torch.no_grad():
        torch.testing.assert_close(generator.decode(generator.encode(z, label)), module(label, z), atol=1e-6, rtol=0)
    assert sefa.factorize(generator).vectors.shape == (D, D + 4)
    with pytest.raises(ArgumentError, match="--call names a label: say how many classes there are with --num-classes"):
        wrapped(module, call=call)
    with pytest.raises(ArgumentError, match="--call names no label: leave out --num-classes, or write label"):
        wrapped(module, call="z", num_classes=4)


@pytest.mark.parametrize("classes", [5, 6, 40])
def test_more_classes_than_it_has_are_refused(classes: int) -> None:
    with pytest.raises(ArgumentError, match=f"index out of range.*({classes - 1}, the last|of 0 to {classes - 1})"):
        wrapped(NeedsClass(), num_classes=classes)


def test_a_module_that_has_no_shape_yet_is_refused() -> None:
    module = Net()
    module.first = nn.LazyLinear(3 * 8 * 8)
    with pytest.raises(
        ArgumentError, match=r"Net's first\.weight has no shape before the first call: give its weights"
    ):
        wrapped(module)
    module(torch.randn(1, D))
    check(module, wrapped(module))


def test_a_module_of_one_image_at_a_time_says_so() -> None:
    class Single(Net):
        def forward(self, z: Tensor) -> Any:
            return super().forward(z.view(1, D))

    with pytest.raises(ArgumentError, match="Single renders one image at a time: let its forward take a batch"):
        wrapped(Single())


def test_an_error_that_every_call_raises_is_said_once() -> None:
    class Failing(Net):
        def forward(self, z: Tensor) -> Any:
            raise KeyError("no table")

    with pytest.raises(ArgumentError, match=r"z \[3, 10\] or z \[3, 10, 1, 1\] or z \[3, 1, 10\]: KeyError") as error:
        wrapped(Failing())
    assert str(error.value).count("no table") == 1


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (lambda z: z.cuda(), r"it is run on the CPU: let its forward take the device of z"),
        (lambda z: z.double(), r"it is run in float32: let its forward keep the dtype of z"),
        (lambda z: z.half(), r"it is run in float32: let its forward keep the dtype of z"),
    ],
)
def test_a_forward_that_names_device_or_dtype_is_told_so(before: Callable[[Tensor], Tensor], message: str) -> None:
    class Moved(Net):
        def forward(self, z: Tensor) -> Any:
            return super().forward(before(z))

    if torch.cuda.is_available() and "CPU" in message:
        pytest.skip("the words are those of a machine without a GPU")
    with pytest.raises(ArgumentError, match=message) as error:
        wrapped(Moved())
    assert "\n" not in str(error.value)
