import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError
from sefa_runtime.inputs.code_files import load_codes, looks_like_latents

CODES = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)


def test_a_projectors_npz_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "projected_w.npz", w=CODES[:1])
    np.testing.assert_array_equal(load_codes(tmp_path / "projected_w.npz", (4, 5)), CODES[:1])


@pytest.mark.parametrize("array", [CODES, CODES.astype(np.float64), CODES[0]])
def test_an_npy_is_read(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "codes.bin", array)
    Path(tmp_path / "codes.bin.npy").rename(tmp_path / "codes")
    np.testing.assert_array_equal(load_codes(tmp_path / "codes", (4, 5)), CODES[: len(array) if array.ndim == 3 else 1])


def test_a_style_code_becomes_that_of_every_layer(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", CODES[:, 0])
    np.testing.assert_array_equal(load_codes(tmp_path / "w.npy", (4, 5)), np.repeat(CODES[:, :1], 4, axis=1))


def test_equal_layers_become_one_style_code(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.repeat(CODES[:, :1], 4, axis=1))
    np.testing.assert_array_equal(load_codes(tmp_path / "w.npy", (5,)), CODES[:, 0])
    np.save(tmp_path / "w.npy", CODES)
    with pytest.raises(InputError, match=r"codes of shape \[3, 4, 5\], \[N, 5\] was expected"):
        load_codes(tmp_path / "w.npy", (5,))


def read(path: Path, content: Any, shape: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], list[str]]:
    """What is read for a model of 4 layers of 5, and what is said of it."""
    said: list[str] = []
    np.savez(path, **content) if isinstance(content, dict) else np.save(path, content)
    return load_codes(path, shape, 4, said.append), said


W, ALL_EQUAL = CODES[:, 0], np.repeat(CODES[:, :1], 4, axis=1)


@pytest.mark.parametrize(
    ("content", "expected", "said"),
    [
        (CODES, CODES, ""),
        (CODES[0], CODES[:1], ""),
        (W[0], ALL_EQUAL[:1], "[5] is read as one image's w, for all 4 layers"),
        (W, ALL_EQUAL, "[3, 5] is read as 3 images' w, for all 4 layers"),
        (W[:, None], ALL_EQUAL, "[3, 1, 5] is read as 3 images' w, for all 4 layers"),
        (np.repeat(W[:, None], 7, axis=1), ALL_EQUAL, "[3, 7, 5] is read as 3 images' w, for all 4 layers"),
    ],
)
def test_what_is_read_for_all_layers_is_said(tmp_path: Path, content: Any, expected: Any, said: str) -> None:
    codes, told = read(tmp_path / "codes.npy", content, (4, 5))
    np.testing.assert_array_equal(codes, expected)
    assert told == ([said] if said else [])


@pytest.mark.parametrize(
    ("content", "expected", "said"),
    [
        (W, W, ""),
        (W[0], W[:1], ""),
        (W[:, None], W, ""),
        (ALL_EQUAL, W, "[3, 4, 5] is 3 images' w, 4 times the same"),
        (ALL_EQUAL[0], W[:1], "[4, 5] is one image's w, 4 times the same"),
    ],
)
def test_what_is_one_code_is_read_as_one(tmp_path: Path, content: Any, expected: Any, said: str) -> None:
    codes, told = read(tmp_path / "codes.npy", content, (5,))
    np.testing.assert_array_equal(codes, expected)
    assert told == ([said] if said else [])


@pytest.mark.parametrize(
    ("content", "shape", "message"),
    [
        (CODES[0], (5,), r"is it one image's code of each layer, .* or 4 images' w\? Save the latter as \[4, 1, 5\]"),
        (CODES[:1], (5,), r"codes that differ from layer to layer need a model of w\+"),
        (CODES[:, :3], (4, 5), "codes of 3 layers, the model has 4"),
        (np.zeros((2, 6)), (4, 5), "codes of shape"),
        ({"w": W, "latents": W}, (4, 5), "codes under several names: w, latents"),
    ],
)
def test_what_may_be_either_is_refused(tmp_path: Path, content: Any, shape: tuple[int, ...], message: str) -> None:
    name = "codes.npz" if isinstance(content, dict) else "codes.npy"
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        read(tmp_path / name, content, shape)


def test_noise_that_is_left_out_is_said(tmp_path: Path) -> None:
    codes, told = read(tmp_path / "a.npz", {"w": CODES[:1], "noise_b4.conv1": np.zeros((4, 4))}, (4, 5))
    np.testing.assert_array_equal(codes, CODES[:1])
    assert len(told) == 1
    assert told[0].startswith("the noise in it is not used")
    torch = pytest.importorskip("torch")
    images = {f"{name}.png": {"latent": torch.zeros(4, 5), "noise": [torch.zeros(1, 1, 4, 4)] * 2} for name in "ab"}
    torch.save(images, tmp_path / "a.pt")
    said: list[str] = []
    assert load_codes(tmp_path / "a.pt", (4, 5), 4, said.append).shape == (2, 4, 5)
    assert said == told
    torch.save({name: {"latent": torch.zeros(5)} for name in "abc"}, tmp_path / "w.pt")
    said.clear()
    assert load_codes(tmp_path / "w.pt", (4, 5), 4, said.append).shape == (3, 4, 5)
    assert said == ["[5] is read as one image's w, for all 4 layers"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensor: tensor,
        lambda tensor: {"latents": tensor, "image": tensor[0]},
        lambda tensor: [tensor[:1], tensor[1:]],
        lambda tensor: {"a.jpg": {"latent": tensor[:2], "img": tensor}, "b.jpg": {"latent": tensor[2:]}},
        lambda tensor: OrderedDict(w=tensor.transpose(0, 1).contiguous().transpose(0, 1)),
        lambda tensor: tensor.half().float()[:, :, :].requires_grad_(),
    ],
)
def test_what_torch_saved_is_read_without_it(tmp_path: Path, wrap: Any) -> None:
    torch = pytest.importorskip("torch")
    codes = torch.from_numpy(CODES).half().float()
    torch.save(wrap(codes), tmp_path / "latents.pt")
    np.testing.assert_array_equal(load_codes(tmp_path / "latents.pt", (4, 5)), codes.numpy())


LISTS = {"a.jpg": list(CODES[:2]), "b.jpg": list(CODES[2:])}


@pytest.mark.parametrize(
    "content",
    [
        LISTS,  # ReStyle: one for each step
        {f"{index}.png": code for index, code in enumerate(CODES)},  # HyperStyle
        {f"{index}.png": list(code) for index, code in enumerate(CODES)},  # a row for each layer
        {"a.jpg": CODES.tolist()[0], "b.jpg": CODES[1], "c.jpg": CODES[2]},
        {index: code[None, None] for index, code in enumerate(CODES)},
        list(CODES),
        CODES.reshape(3, 20),
        CODES[:, None, None],
        CODES.astype(object),
    ],
    ids=["lists", "by name", "rows", "numbers", "by number", "list", "flat", "five axes", "objects"],
)
@pytest.mark.parametrize("kind", ["npy", "pkl", "torch", "old torch"])
def test_codes_are_read_from_pickles_without_running_them(tmp_path: Path, content: Any, kind: str) -> None:
    path = tmp_path / "latents"
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.array(content, object) if isinstance(content, list) else content)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        pytest.importorskip("torch").save(content, path, _use_new_zipfile_serialization=kind == "torch")
    codes = load_codes(path, (4, 5))
    np.testing.assert_allclose(codes, CODES, rtol=1e-6)
    assert codes.dtype == np.float32


def test_more_than_one_code_for_an_image_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    np.save(tmp_path / "a.npy", np.array(LISTS, object))
    load_codes(tmp_path / "a.npy", (4, 5), report=said.append)
    assert len(said) == 1
    assert said[0].startswith("up to 2 codes for one image, all of which are read")


def test_frames_of_an_npz_are_read_in_turn(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{f"frame_{index:04}": code for index, code in enumerate(CODES)})
    np.testing.assert_array_equal(load_codes(tmp_path / "a.npz", (4, 5)), CODES)


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["w", "anything"])
def test_safetensors_are_read_without_the_package(tmp_path: Path, kind: str, name: str) -> None:
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    codes = torch.from_numpy(CODES).to(getattr(torch, kind))
    safetensors.save_file({name: codes}, tmp_path / "w.safetensors", {"of": "somebody"})
    np.testing.assert_array_equal(load_codes(tmp_path / "w.safetensors", (4, 5)), codes.float().numpy())
    torch.save(codes, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(load_codes(tmp_path / "w.pt", (4, 5)), codes.float().numpy())


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("canary"),)


@pytest.mark.parametrize("position", ["alone", "beside"])
def test_a_pickle_that_wants_more_than_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: str
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile() if position == "alone" else {"w": torch.ones(4, 5), "x": Hostile()}, "latents.pt")
    with pytest.raises(InputError, match=r"latents\.pt: a pickle that wants .*: refused"):
        load_codes(Path("latents.pt"), (4, 5))
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not a \.npz, \.npy, \.pt, \.pkl or \.safetensors file"),
        (b"\x93NUMPY nothing", "not a file of numbers"),
        (b"PK\x03\x04 nothing", "not a file of numbers"),
    ],
)
def test_a_file_without_codes_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "codes").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_codes(tmp_path / "codes", (4, 5))


def test_several_arrays_without_a_usual_name_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=CODES, y=CODES)
    with pytest.raises(InputError, match="no codes in it"):
        load_codes(tmp_path / "a.npz", (4, 5))
    np.save(tmp_path / "a.npy", np.array(["text"]))
    with pytest.raises(InputError, match="codes of shape"):
        load_codes(tmp_path / "a.npy", (4, 5))


@pytest.mark.parametrize(
    ("codes", "code_rms", "latents"),
    [
        (lambda random: random.standard_normal((2, 4, 512)), (0.3, 0.6), True),
        (lambda random: random.standard_normal((2, 1, 512)), (1.5, 3.0), True),
        (lambda random: random.standard_normal((2, 4, 512)), (0.9, 1.3), False),  # Its w are as large: nobody can tell.
        (lambda random: 0.45 * random.standard_normal((2, 4, 512)), (0.3, 0.6), False),
        (lambda random: 0.7 * random.standard_normal((2, 4, 512)), (0.3, 0.6), False),  # A photograph's, beyond any w.
        (lambda random: random.exponential(0.7, (2, 4, 512)), (0.3, 0.6), False),  # Its RMS is 1, its mean is not 0.
        (lambda random: random.standard_normal((2, 4, 512)), None, False),
    ],
)
def test_latents_are_told_from_codes(
    tiny: Editor, codes: Any, code_rms: tuple[float, float] | None, latents: bool
) -> None:
    info = replace(tiny.info, code_dim=512, code_rms=code_rms)
    for seed in range(20):
        assert looks_like_latents(codes(np.random.default_rng(seed)).astype(np.float32), info) == latents
