"""The endpoints for people."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import sefa_runtime
from support.named_classes import NAMES, write_named
from support.paths import GOLDEN
from support.serving import Running, Start, infer_body


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """A server of models of each kind of latent, and of one whose classes have names."""
    names = ("tiny", "tiny_float32", "style_z", "style_w", "style_w+", "style_static")
    named = write_named(tmp_path_factory.mktemp("named"))
    return start(*(GOLDEN / f"{name}.onnx" for name in names), named, max_batch=4)


def editor(model: str = "tiny") -> sefa_runtime.Editor:
    return sefa_runtime.load(GOLDEN / f"{model}.onnx", provider="cpu")


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def test_the_models_and_what_they_take(server: Running) -> None:
    models = server.http.get("/models").json()["models"]
    assert [(model["name"], model["ready"]) for model in models][:2] == [("tiny", True), ("tiny_float32", True)]
    described = server.http.get("/models/style_z").json()
    info = editor("style_z").info
    assert described["resolution"] == [32, 32]
    assert (described["latent"], described["takes_label"], described["truncation"]) == ("z", True, None)
    assert [tuple(entry.values()) for entry in described["directions"]] == [
        (index, direction.name, list(direction.alpha_range)) for index, direction in enumerate(info.directions)
    ]
    assert server.http.get("/models/nobody").status_code == 404


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("model", ["tiny", "tiny_float32"])
def test_an_image_of_a_seed(server: Running, model: str, kind: str) -> None:
    answer = server.http.get(f"/models/{model}/image?seed=7&edit=pose:2.5&edit=3:-1&format={kind}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind}")
    np.testing.assert_array_equal(pixels(answer.content), editor(model).edit(7, edits={"pose": 2.5, 3: -1})[0])


def test_a_jpeg_and_a_larger_image(server: Running) -> None:
    answer = server.http.get("/models/tiny/image?format=jpeg&scale=4")
    assert answer.headers["content-type"] == "image/jpeg"
    assert pixels(answer.content).shape == (32, 16, 3)


def test_label_and_truncation(server: Running) -> None:
    answer = server.http.get("/models/style_z/image?seed=3&label=2&truncation=0.5&format=png")
    expected = editor("style_z").edit(3, label=2, truncation=0.5)[0]
    np.testing.assert_array_equal(pixels(answer.content), expected)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("seed=-1", "seed: "),
        ("seed=x", "seed: "),
        ("edit=pose", "an edit looks like pose:2.5 or 3:-1, got 'pose'"),
        ("edit=pose:x", "an edit looks like"),
        ("edit=pose:nan", "an edit looks like"),
        ("edit=smile:1", "direction must be in 0..3 or a name (pose, light, direction-2, direction-3), got 'smile'"),
        ("edit=pose:1&edit=0:1", "a direction is given twice"),
        ("edit=pose:1&edit=pose:2", "direction pose is given twice"),
        ("label=1", "not class-conditional"),
        ("truncation=0.5", "truncation is not an input of this model"),
        ("sead=7", "no such parameter: 'sead'; there are edit, format, label, labels, scale, seed, truncation"),
        ("scale=33", "scale: "),
        ("format=bmp", "format: "),
    ],
)
def test_a_query_that_cannot_be_taken(server: Running, query: str, message: str) -> None:
    answer = server.http.get(f"/models/tiny/image?{query}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def edit(server: Running, model: str = "tiny", **body: Any) -> np.ndarray[Any, Any]:
    answer = server.http.post(f"/models/{model}/edit", json={"format": "png"} | body)
    assert answer.status_code == 200, answer.text
    return pixels(answer.content)


def test_several_seeds_side_by_side(server: Running) -> None:
    got = edit(server, seeds=list(range(6)), edits={"pose": 2, "3": [0, 1, 2, 3, 4, 5]})  # More than fit into one run.
    expected = editor().edit(range(6), edits={"pose": 2, 3: [0, 1, 2, 3, 4, 5]})
    np.testing.assert_array_equal(got, np.concatenate(list(expected), axis=1))


@pytest.mark.parametrize(
    ("model", "name"), [("tiny", "z"), ("style_w", "w"), ("style_w+", "codes"), ("style_static", "codes")]
)
def test_latents_and_codes(server: Running, model: str, name: str) -> None:
    loaded = editor(model)
    latents = np.random.default_rng(0).standard_normal((3, *loaded.info.latent_shape), np.float32)
    expected = loaded.edit(**{name: latents}, edits={0: 2})  # type: ignore[arg-type]
    got = edit(server, model, **{name: latents.tolist()}, edits={"0": 2})
    np.testing.assert_array_equal(got, np.concatenate(list(expected), axis=1))
    one = edit(server, model, **{name: latents[0].tolist()}, edits={"0": 2})
    np.testing.assert_array_equal(one, expected[0])


def test_a_sweep_of_edited_images(server: Running) -> None:
    got = edit(server, seeds=[1, 2], edits={"light": 1.5}, sweep={"direction": "pose", "alphas": [-2, 0, 2]})
    rows = [
        np.concatenate([editor().edit(seed, edits={"light": 1.5, "pose": alpha})[0] for alpha in (-2, 0, 2)], axis=1)
        for seed in (1, 2)
    ]
    np.testing.assert_array_equal(got, np.concatenate(rows))


def test_a_sweep_over_the_suggested_range(server: Running) -> None:
    expected = editor().sweep(0, direction=2)[0]
    np.testing.assert_array_equal(edit(server, sweep={"direction": 2}), np.concatenate(list(expected), axis=1))


def words(editor: sefa_runtime.Editor, seeds: list[int], labels: list[int], **edits: Any) -> list[Any]:
    """The images of some classes side by side, one of each seed."""
    return [np.concatenate(list(editor.edit(seed=seed, label=labels, **edits)), axis=1) for seed in seeds]


def test_a_class_by_name_and_several_side_by_side(server: Running) -> None:
    named = editor("style_z")
    for query, labels in (("label=dog", [5]), ("labels=SeF,dog", [0, 1, 2, 5]), ("labels=S", [0])):
        answer = server.http.get(f"/models/named/image?seed=3&edit=0:2&format=png&{query}")
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(pixels(answer.content), words(named, [3], labels, edits={0: 2})[0])
    answer = server.http.get("/models/style_z/image?seed=3&edit=0:2&format=png&labels=0-2,5")
    np.testing.assert_array_equal(pixels(answer.content), words(named, [3], [0, 1, 2, 5], edits={0: 2})[0])
    assert server.http.get("/models/named").json()["class_names"] == list(NAMES)


def test_several_classes_of_several_seeds(server: Running) -> None:
    named = editor("style_z")
    z = sefa_runtime.latents_from_seeds([7, 8], 24)
    rows = words(named, [7, 8], [0, 1, 5], edits={0: 1.5})
    for which in ({"seeds": [7, 8]}, {"z": z.tolist()}):
        for labels in ("Se,dog", ["S", "e", "dog"], [0, 1, 5]):
            got = edit(server, "named", **which, labels=labels, edits={"0": 1.5})
            gap = 32 // 4
            np.testing.assert_array_equal(got[:32], rows[0])
            np.testing.assert_array_equal(got[32 + gap :], rows[1])
    one = edit(server, "named", z=z[0].tolist(), labels="Se,dog", edits={"0": 1.5})
    np.testing.assert_array_equal(one, rows[0])
    # A label for each image, and one latent in each of several classes.
    got = edit(server, "named", seeds=[7, 8], label=["dog", 1])
    np.testing.assert_array_equal(got, np.concatenate(list(named.edit([7, 8], label=[5, 1])), axis=1))
    got = edit(server, "named", seeds=7, label="Se")
    np.testing.assert_array_equal(got, words(named, [7], [0, 1])[0])


def test_a_sweep_of_several_classes(server: Running) -> None:
    sweep = {"direction": 0, "alphas": [-2, 2]}
    got = edit(server, "named", seeds=[7, 8], labels="Se", sweep=sweep)
    assert got.shape == (2 * 32 + 8, 2 * 64 + 8, 3)
    expected = [words(editor("style_z"), [7, 8], [0, 1], edits={0: alpha}) for alpha in (-2, 2)]
    for row in range(2):
        for column in range(2):
            cell = got[row * 40 :][:32, column * 72 :][:, :64]
            np.testing.assert_array_equal(cell, expected[column][row])
    body = {"seeds": [7, 8, 9], "labels": "Se", "sweep": sweep, "format": "gif"}
    with Image.open(io.BytesIO(server.http.post("/models/named/edit", json=body).content)) as image:
        assert image.size == (64, 3 * 32)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("label=x", "there is no class 'x': there are S, e, F, a, 5, dog"),
        ("labels=Sx", "there is no class 'Sx'"),
        ("label=Se", "label is one class, got 'Se'; several, side by side, are labels"),
        ("labels=", "there is no class ''"),
        ("label=S&labels=S", "give label or labels, not both"),
        ("labels=" + "S" * 257, "at most 256 images in a request, got 257"),
        ("labels=" + "S" * 200 + "&scale=32", "million pixels are too many"),
        ("", "a label is needed, the index or name of a class: S, e, F"),
    ],
)
def test_classes_that_cannot_be_taken(server: Running, query: str, message: str) -> None:
    answer = server.http.get(f"/models/named/image?{query}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"labels": ["S", "x"]}, "there is no class 'x'"),
        ({"labels": []}, "labels"),
        ({"labels": [6]}, "label must be in 0..5, got 6"),
        ({"labels": [True]}, "labels"),
        ({"labels": "S", "label": 0}, "give label or labels, not both"),
        ({"labels": "SeF", "seeds": list(range(100))}, "at most 256 images in a request, got 300"),
        ({"labels": "S", "z": []}, "z must have shape"),
        ({"label": [0] * 300}, "at most 256 images in a request, got 300"),
        ({"label": [0, 1, 2], "seeds": [1, 2]}, "label must be one number or one for each of 2 images"),
    ],
)
def test_a_body_whose_classes_cannot_be_taken(server: Running, body: dict[str, Any], message: str) -> None:
    answer = server.http.post("/models/named/edit", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation(server: Running, kind: str) -> None:
    body = {"seeds": [1, 2], "sweep": {"direction": 0, "steps": 5}, "format": kind, "animate": True, "scale": 3}
    answer = server.http.post("/models/tiny/edit", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind}")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (2 * 4 * 3, 8 * 3)
        assert len(list(ImageSequence.Iterator(image))) == 2 * 5 - 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"seeds": 7, "z": [0] * 6}, "give either seed or z, got seed and z"),
        ({"codes": [[0] * 6]}, "give either seed or z, got codes"),
        ({"z": [0] * 5}, "z must have shape [batch, 6], got [5]"),
        ({"z": ["a"] * 6}, "z must be lists of numbers"),
        ({"z": [[1], [2, 3]]}, "z must be an array of numbers, got rows of unequal length"),
        ({"z": []}, "z must have shape"),
        ({"seeds": "7"}, "seeds: Input should be a valid integer or a valid list"),
        ({"edits": {"light": "7"}}, "edits.light: Input should be a valid number or a valid list"),
        ({"seeds": [1, 1.5]}, "seeds.1: Input should be a valid integer"),
        ({"sweep": {"direction": 0, "alpha": [1]}}, "no such field: 'sweep.alpha'"),
        ({"seeds": list(range(257))}, "at most 256"),
        ({"seeds": [1] * 200, "sweep": {"direction": 0, "steps": 2}}, "at most 256 images in a request, got 400"),
        ({"seeds": [1] * 200, "scale": 32}, "webp cannot hold 25600x256 pixels"),
        ({"z": [[0] * 6] * 300}, "at most 256 images"),
        ({"edits": {"smile": 1}}, "direction must be in 0..3 or a name"),
        ({"edits": {"pose": [1, 2]}}, "alpha of direction pose must be one number"),
        ({"edits": {str(index): 1 for index in range(100)}}, "at most 64 edits of an image, got 100"),
        ({"format": "gif"}, "gif is an animation"),
        ({"animate": True}, "an animation needs a sweep"),
        ({"sweep": {"direction": 9}}, "direction must be in 0..3"),
        ({"sweep": {"direction": 0, "alphas": []}}, "sweep.alphas"),
        ({"sead": 7}, "no such field: 'sead'; there are "),
        ({"label": 1}, "not class-conditional"),
    ],
)
def test_a_body_that_cannot_be_taken(server: Running, body: dict[str, Any], message: str) -> None:
    answer = server.http.post("/models/tiny/edit", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_too_many_pixels(server: Running) -> None:
    answer = server.http.post("/models/style_z/edit", json={"seeds": [1] * 40, "label": 0, "scale": 32})
    assert (answer.status_code, answer.json()["error"]) == (400, "42 million pixels are too many, at most 32 million")


def test_nan_is_an_error_of_the_request_that_got_it(server: Running) -> None:
    too_large = {"z": [3e38] * 6, "edits": {"pose": 3.0}, "format": "png"}
    for model in ("tiny", "tiny_float32"):
        answer = server.http.post(f"/models/{model}/edit", json=too_large)
        assert (answer.status_code, answer.json()["error"][:40]) == (500, "NaN or infinity in 1 of 1 images, the fi")
    inputs = {"z": np.full((1, 6), 3e38), "direction": np.zeros((1, 1), int), "alpha": np.full((1, 1), 3.0)}
    for model in ("tiny", "tiny_float32"):
        answer = server.http.post(f"/v2/models/{model}/infer", json=infer_body(inputs))
        assert (answer.status_code, "NaN or infinity" in answer.text) == (500, True)
    answer = server.http.post("/models/tiny_float32/edit", json={"seeds": 7, "format": "png"})
    np.testing.assert_array_equal(pixels(answer.content), editor("tiny_float32").edit(7)[0])
