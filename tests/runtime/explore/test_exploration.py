import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import Editor, InputError
from sefa_runtime.explore import Exploration, exploration, explore, save_exploration
from sefa_runtime.explore.resume_cache import ResumeCache
from sefa_runtime.explore.samples import ImageCache
from sefa_runtime.images import to_pillow
from sefa_runtime.inputs.batches import Feeds


@pytest.fixture
def explored(tiny: Editor) -> Exploration:
    return explore(tiny, samples=12, seeds=[5, 9])


def test_the_frames_are_what_the_editor_renders(tiny: Editor, explored: Exploration) -> None:
    assert explored.titles == ("seed 5", "seed 9")
    assert explored.frames.shape == (4, 2, 7, *tiny.info.image_shape)
    for direction, effect in enumerate(explored.effects):
        alphas = explored.alphas(direction)
        assert (alphas[0], alphas[3], alphas[6]) == (effect.alpha_range[0], 0, effect.alpha_range[1])
        np.testing.assert_array_equal(
            explored.frames[direction], tiny.sweep(seed=[5, 9], direction=direction, alphas=alphas)
        )


def test_the_numbers_are_those_of_the_images(tiny: Editor, explored: Exploration) -> None:
    # Another route: all images at once, from Editor.edit.
    still = tiny.edit(seed=range(12)).astype(float)
    reference = np.mean([np.abs(still[row] - still[row - 1]).mean() for row in range(12)])
    assert explored.reference == pytest.approx(reference)
    effect = explored.effects[2]
    low, high = effect.alpha_range
    ends = [np.abs(tiny.edit(seed=range(12), edits={2: alpha}) - still) for alpha in (low, high)]
    assert effect.change == pytest.approx(np.mean(ends))
    np.testing.assert_allclose(explored.change_maps[2], np.mean(ends, axis=(0, 1, 4)), rtol=1e-5)
    # At the ends of its range it has changed half as much as images differ; the alphas have two digits.
    assert effect.ends == ("change", "change")
    assert effect.change == pytest.approx(reference / 2, rel=0.05)


class Counted:
    """How often each image was rendered: by latent, direction and alpha; direction -1 is unedited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: Counter[tuple[bytes, int, float]] = Counter()
        infer = Editor.infer

        def counted(editor: Editor, feeds: Feeds) -> Any:
            for z, direction, alpha in zip(feeds["z"], feeds["direction"], feeds["alpha"], strict=True):
                unedited = alpha[0] == 0
                self.images[z.tobytes(), -1 if unedited else int(direction[0]), float(alpha[0])] += 1
            return infer(editor, feeds)

        monkeypatch.setattr(Editor, "infer", counted)


@pytest.mark.parametrize("quick", [False, True])
def test_no_image_is_rendered_twice(tiny: Editor, monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    counted = Counted(monkeypatch)
    explore(tiny, samples=5, quick=quick)
    assert set(counted.images.values()) == {1}
    assert sum(direction == -1 for _, direction, _ in counted.images) == (16 if quick else 5)


def test_directions_are_measured_on_as_many_images_as_it_takes(tiny: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    found = explore(tiny)
    assert set(counted.images.values()) == {1}
    assert sum(direction == -1 for _, direction, _ in counted.images) == 64
    for effect, entry in zip(found.effects, found.to_dict()["directions"], strict=True):
        assert effect.is_precise or effect.images == 16
        assert 8 <= effect.images <= 16
        same = explore(tiny, samples=effect.images, alpha_range=effect.alpha_range).effects[effect.direction]
        assert (same.strength, same.change, same.area) == (effect.strength, effect.change, effect.area)
        assert entry["images"] == effect.images
        assert entry["standard_errors"]["strength"] == pytest.approx(effect.errors.strength, abs=1e-4)
    # The shown seeds, 0 to 3, are among those measured: no image was rendered only to be shown.
    assert found.titles == ("seed 0", "seed 1", "seed 2", "seed 3")
    latents = {z for z, direction, _ in counted.images if direction >= 0}
    assert len(latents) == 16


def test_what_no_edit_reaches_is_computed_once_for_each_latent(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = sefa_runtime.load(golden / "style_late.onnx", provider="cpu")
    assert editor.session.prefix is not None
    inference, computed = editor.session.prefix.inference, Counter[bytes]()
    run = inference.run

    def counted(outputs: Any, feeds: Any, options: Any) -> Any:
        computed.update(w.tobytes() for w in feeds["w"])
        return run(outputs, feeds, options)

    monkeypatch.setattr(inference, "run", counted)
    explore(editor, latents=np.random.RandomState(0).randn(20, 24).astype(np.float32))
    assert set(computed.values()) == {1}
    assert len(computed) == 20


def test_without_room_images_are_rendered_again_and_the_same(tiny: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = explore(tiny, samples=5)
    monkeypatch.setattr(exploration, "ImageCache", partial(ImageCache, _room=300))
    cramped = explore(tiny, samples=5)
    assert cramped.to_dict() == whole.to_dict()
    np.testing.assert_array_equal(cramped.frames, whole.frames)


def test_large_images_are_rendered_a_few_at_once(tiny: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = explore(tiny, samples=5)
    monkeypatch.setattr("sefa_runtime.explore.samples.BYTES_AT_ONCE", 3 * int(np.prod(tiny.info.image_shape)))
    batches: set[int] = set()
    infer = Editor.infer

    def watched(editor: Editor, feeds: Feeds) -> Any:
        batches.add(len(feeds["z"]))
        return infer(editor, feeds)

    monkeypatch.setattr(Editor, "infer", watched)
    assert explore(tiny, samples=5).to_dict() == whole.to_dict()
    assert max(batches) == 3


def test_a_quick_look_renders_little_and_finds_about_the_same(tiny: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = explore(tiny, samples=16)
    counted = Counted(monkeypatch)
    look = explore(tiny, quick=True)
    assert look.is_quick
    assert not whole.is_quick
    assert (look.samples, look.titles) == (2, ("seed 0", "seed 1"))
    assert look.reference == pytest.approx(whole.reference)  # Of 16 unedited images.
    # On two images each: six alphas to measure and to show, and a few to find the range.
    assert len(counted.images) - 16 <= 4 * 2 * (6 + 6)
    for direction, (quick, full) in enumerate(zip(look.effects, whole.effects, strict=True)):
        # Its own images change by what is wanted, within what a quick look is content with.
        assert quick.ends == full.ends == ("change", "change")
        assert quick.change == pytest.approx(look.reference / 2, rel=0.15)
        np.testing.assert_allclose(quick.alpha_range, full.alpha_range, rtol=0.4)
        alphas = look.alphas(direction)
        assert len(alphas) == 7
        expected = tiny.sweep(seed=[0, 1], direction=direction, alphas=alphas)
        np.testing.assert_array_equal(look.frames[direction], expected)


def test_a_quick_look_measures_the_images_that_are_asked_for(tiny: Editor, golden: Path) -> None:
    assert explore(tiny, quick=True, seeds=[7, 8, 9]).titles == ("seed 7", "seed 8", "seed 9")
    assert explore(tiny, quick=True, seeds=[7, 8, 9]).samples == 3
    look = explore(tiny, quick=True, samples=6)
    assert (look.samples, len(look.titles)) == (6, 4)
    codes = np.random.RandomState(0).randn(6, 8, 24).astype(np.float32)
    editor = sefa_runtime.load(golden / "style_w+.onnx", provider="cpu")
    assert explore(editor, quick=True, latents=codes).titles == ("latent 0", "latent 1")


def test_it_is_said_how_long_it_takes_and_how_far_it_is(tiny: Editor, tmp_path: Path) -> None:
    estimates: list[float] = []
    shares: list[float] = []
    resume_cache = ResumeCache(tmp_path / "a")
    explore(tiny, samples=40, resume_cache=resume_cache, progress=shares.append, estimate=estimates.append)
    (seconds,) = estimates
    assert seconds > 0
    assert shares == sorted(shares)
    assert len(set(shares)) > 4 * 3  # Also within a direction.
    assert (min(shares) > 0, max(shares)) == (True, 1)


@pytest.mark.parametrize(
    "settings", [{}, {"quick": True}, {"samples": 40}, {"seeds": [5, 9]}, {"alpha_range": (-1.0, 1.0)}]
)
def test_the_estimate_is_near(tiny: Editor, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    counted = Counted(monkeypatch)
    # A clock by which every image takes a second.
    monkeypatch.setattr("sefa_runtime.explore.exploration.time.perf_counter", lambda: sum(counted.images.values()))
    said: list[tuple[float, float]] = []
    explore(tiny, **settings, estimate=lambda seconds: said.append((sum(counted.images.values()), seconds)))
    ((before, estimated),) = said
    assert before <= 10
    assert estimated == pytest.approx(sum(counted.images.values()) - before, rel=0.3)


def test_a_range_can_be_given(tiny: Editor) -> None:
    found = explore(tiny, samples=3, alpha_range=(-1.0, 2.0))
    assert {effect.alpha_range for effect in found.effects} == {(-1.0, 2.0)}
    with pytest.raises(InputError, match="around 0, got 1 to 2"):
        explore(tiny, alpha_range=(1.0, 2.0))


def test_label_and_truncation_go_to_the_model(golden: Path) -> None:
    editor = sefa_runtime.load(golden / "style_z.onnx", provider="cpu")
    found = explore(editor, samples=4, seeds=[3], label=2, truncation=0.5)
    assert (found.label, found.truncation, found.to_dict()["truncation"]) == (2, 0.5, 0.5)
    expected = editor.sweep(seed=3, direction=1, alphas=found.alphas(1), label=2, truncation=0.5)
    np.testing.assert_array_equal(found.frames[1], expected)
    with pytest.raises(InputError, match=r"a label in 0\.\.5 is needed"):
        explore(editor, samples=4)
    with pytest.raises(InputError, match="all the same"):
        explore(editor, samples=4, label=2, truncation=0.0)


def test_codes_are_explored_where_the_model_takes_them(golden: Path) -> None:
    editor = sefa_runtime.load(golden / "style_w+.onnx", provider="cpu")
    codes = np.random.RandomState(0).randn(6, *editor.info.latent_shape).astype(np.float32)
    found = explore(editor, latents=codes)
    assert found.samples == 6
    assert found.titles == ("latent 0", "latent 1", "latent 2", "latent 3")
    np.testing.assert_array_equal(found.frames[0, 3, 3], editor.edit(codes=codes[3])[0])
    for arguments, message in (
        ({}, r"the model takes w\+: codes are needed, \[N, 8, 24\]"),
        ({"latents": codes[:1]}, "at least 2 latents are needed"),
        ({"latents": codes[:, 0]}, r"codes must have shape \[batch, 8, 24\]"),
        ({"latents": codes, "seeds": [1]}, "seeds or latents"),
    ):
        with pytest.raises(InputError, match=message):
            explore(editor, **arguments)


def test_large_images_are_shown_reduced() -> None:
    image = np.random.RandomState(0).randint(0, 256, (256, 512, 3)).astype(np.uint8)
    assert exploration.thumbnail_size((256, 512)) == (128, 64)
    reduced = exploration._thumbnails(image)
    assert reduced.shape == (64, 128, 3)
    assert abs(float(reduced.mean()) - float(image.mean())) < 1
    assert exploration._thumbnails(image[..., :1]).shape == (64, 128, 1)


def test_the_measures_and_the_sheet_are_files(explored: Exploration, tmp_path: Path) -> None:
    from PIL import Image

    save_exploration(explored, tmp_path / "effects.json")
    document = json.loads((tmp_path / "effects.json").read_text())
    assert document == json.loads(json.dumps(explored.to_dict()))
    assert document["directions"][1]["name"] == "light"
    assert document["directions"][1]["alpha_range"] == list(explored.effects[1].alpha_range)
    assert document["similarity"][0][0] == 1
    save_exploration(explored, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        found = np.asarray(sheet)
    # The image at the upper end of the last direction is at the right, above the margin.
    height, width, _ = explored.info.image_shape
    last = np.asarray(to_pillow(explored.frames[-1, -1, -1]).convert("RGB"))
    gap = max(4, width // 8)
    np.testing.assert_array_equal(found[-gap - height : -gap, -gap - width : -gap], last)
    with pytest.raises(InputError, match=r"must end in \.html, \.json"):
        save_exploration(explored, tmp_path / "sheet.svg")


def test_further_inputs_are_checked_as_the_editor_does(tiny: Editor) -> None:
    with pytest.raises(InputError, match="noise_strength is not an input of this model; it takes "):
        explore(tiny, samples=5, noise_strength=1.0)
    with pytest.raises(InputError, match="it takes no label"):
        explore(tiny, samples=5, label=0)
