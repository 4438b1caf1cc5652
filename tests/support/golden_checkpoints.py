"""How far our generators are from what the original code computed, for each checkpoint in tests/golden/checkpoints.

    PYTHONPATH=tests python -m support.golden_checkpoints -o benchmarks/results/formats.json [NAME ...]

measures all of them, or those named, whose entries in the record are made anew; the tests assert the same measurements.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

import sefa
import sefa_export
from sefa.generators.stylegan3 import StyleGAN3
from support.paths import CHECKPOINTS
from support.trained_generators import trained_eyes, trained_faces

MANIFEST: dict[str, Any] = json.loads((CHECKPOINTS / "MANIFEST.json").read_text())
# Relative distance of neighbouring eigenvalues below which their float32 eigenvectors may mix.
SEPARATED = 1e-5
PSI = re.compile(r"(?P<what>ws|img|imgcrop)_psi(?P<psi>0\d+)(?:_cut(?P<cut>\d+))?")
EDIT = re.compile(r"(?P<what>img|imgcrop)_edit(?P<everywhere>_all_ws|_all_layers)?__(?P<set>\w+)")


@dataclass
class GoldenCheckpoint:
    """One checkpoint, and what the original code computed from it."""

    name: str
    errors: dict[str, float] = field(default_factory=dict)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        facts: dict[str, Any] = MANIFEST[self.name]
        return facts

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The recorded arrays; MANIFEST.json's README explains their names."""
        with np.load(CHECKPOINTS / self.name / "golden.npz") as arrays:
            return dict(arrays)

    @property
    def recorded(self) -> list[str]:
        """Names of the recorded arrays."""
        with np.load(CHECKPOINTS / self.name / "golden.npz") as arrays:
            return list(arrays.files)

    @property
    def path(self) -> Path:
        """The checkpoint file."""
        if self.name == "dcgan_real_face_64":
            return trained_faces()
        if self.name == "dcgan_real_eye_cond_128":
            return trained_eyes()
        return CHECKPOINTS / self.name / str(self.facts["checkpoint"])

    @property
    def num_classes(self) -> int | None:
        """Given by hand where no tensor's shape tells."""
        if self.name in ("sefa_pggan_cond_16", "dcgan_real_eye_cond_128"):
            return int(self.arrays["c"].shape[1])
        return None

    def load(self, noise: str = "const") -> sefa.Generator:
        """Return our generator, with the original's centre of truncation where it estimated one."""
        generator = sefa.load(self.path, num_classes=self.num_classes, noise=noise, assume=self.facts.get("assume"))
        center = self.arrays.get("truncation_latent", self.arrays.get("truncation_mean"))
        if center is not None:
            generator.center = torch.from_numpy(center[0])
        return generator

    @cached_property
    def generator(self) -> sefa.Generator:
        """Our generator."""
        return self.load()

    @property
    def z(self) -> Tensor:
        """Latents, [4, z_dim]."""
        return torch.from_numpy(self.arrays["z"])

    @property
    def label(self) -> Tensor | None:
        """Class indices, [4], of a conditional generator."""
        return torch.from_numpy(self.arrays["label"]).long() if self.generator.num_classes else None

    def encode(self, psi: float = 1.0, cut: int | None = None) -> Tensor:
        """Return our codes of all latents."""
        with torch.no_grad():
            return self.generator.encode(self.z, self.label, psi, cut)

    def render(self, codes: Tensor, rows: NDArray[Any], noise: str = "const") -> Tensor:
        """Return our images of codes, in the original's range; `rows` are the latents they came from."""
        generator = self.generator if noise == "const" else self.load(noise)
        if "noise" in self.arrays:  # lucidrains: uniform noise drawn for each image, and images from 0 to 1.
            generator = self.load(noise)
            generator.noise_map = torch.from_numpy(self.arrays["noise"][rows])
        with torch.no_grad():
            images = generator.decode(codes)
        return (images + 1) / 2 if "noise" in self.arrays else images

    def compare_image(self, key: str, images: Tensor) -> None:
        """Note how far images are from the recorded ones, or from the recorded window of them."""
        expected = self.arrays[key]
        if key.startswith("imgcrop"):
            top, bottom, left, right = self.arrays["crop_box"]
            images = images[..., top:bottom, left:right]
        self.errors[key] = float(np.abs(images.numpy() - expected).max())

    def measure_codes(self) -> None:
        """Compare w and ws, truncated and not."""
        if "w" in self.arrays:
            self.errors["w"] = float((self.encode()[:, 0] - torch.from_numpy(self.arrays["w"])).abs().max())
        for key, expected in self.arrays.items():
            match = PSI.fullmatch(key)
            if key == "ws" or (match and match["what"] == "ws"):
                codes = self.encode(*_psi(match)) if match else self.encode()
                self.errors[key] = float((codes - torch.from_numpy(expected)).abs().max())

    def measure_images(self) -> None:
        """Compare unedited images: truncated or not, with noise and without."""
        for key, expected in self.arrays.items():
            match = PSI.fullmatch(key)
            rows = np.arange(len(expected)) if expected.ndim else np.arange(0)
            if key in ("img", "imgcrop", "img_none", "imgcrop_none"):
                noise = "none" if key.endswith("_none") else "const"
                self.compare_image(key, self.render(self.encode(self.psi)[: len(rows)], rows, noise))
            elif match and match["what"] in ("img", "imgcrop"):
                self.compare_image(key, self.render(self.encode(*_psi(match))[: len(rows)], rows))
        for index, truncation in enumerate(self.arrays.get("truncations", ())):
            if index:
                rows = np.arange(len(self.arrays[f"img_trunc{index}"]))
                self.compare_image(f"img_trunc{index}", self.render(self.encode(float(truncation))[: len(rows)], rows))

        if "user_transform" in self.arrays:
            transformed = self.load()
            assert isinstance(transformed, StyleGAN3)
            transformed.input.transform = torch.from_numpy(self.arrays["user_transform"])
            with torch.no_grad():
                count = len(self.arrays["img_user_transform"])
                self.compare_image("img_user_transform", transformed.decode(self.encode()[:count]))

    @property
    def psi(self) -> float:
        """The truncation of `img` and of edits in z."""
        return float(self.arrays["truncations"][0]) if "truncations" in self.arrays else 1.0

    def layers_of(self, name: str) -> str:
        """Return the layer specification of a recorded set of directions."""
        facts = self.facts["sets"][name]
        if "layers" in facts:
            return ",".join(map(str, facts["layers"]))
        block = re.fullmatch(r"block(\d+)", name)
        if block:
            return str(int(block[1]) + 1)
        return "0" if name == "linear" else "all"

    def bank(self, name: str, normalize: str = "none") -> sefa.DirectionBank:
        """Return all our directions of a recorded set."""
        layers = self.layers_of(name)
        parts = 1 if self.generator.layers_share_latent else len(sefa.parse_layers(layers, self.generator.num_layers))
        return sefa.factorize(self.generator, layers, top=self.generator.latent_dim * parts, normalize=normalize)

    def in_z(self, bank: sefa.DirectionBank) -> Tensor:
        """Return our directions in the coordinates of the recorded ones: of z, or of w."""
        size = self.generator.latent_dim
        if self.generator.layers_share_latent:
            return bank.vectors[:, :size]
        parts = bank.edited_layers[:, :, None] * bank.vectors[:, None, :size]  # [K, L, latent_dim]
        return parts.flatten(1)

    def measure_directions(self) -> None:
        """Compare directions that are defined: below the rank, with eigenvalues of their own."""
        for name in self.facts["sets"]:
            expected = torch.from_numpy(self.arrays[f"dirs__{name}"]).double()
            eigenvalues = self.arrays[f"eigvals__{name}"].astype(np.float64)
            rank = int(self.arrays[f"rank__{name}"])
            gaps = np.abs(np.diff(eigenvalues)) / eigenvalues[0]
            separated = np.minimum(np.append(gaps, np.inf), np.insert(gaps, 0, np.inf))[: len(expected)] > SEPARATED
            rows = np.flatnonzero(separated & (np.arange(len(expected)) < rank))
            if len(rows) < rank / 2:
                raise AssertionError(f"{self.name} {name}: only {len(rows)} of {rank} directions can be compared")
            ours = self.in_z(self.bank(name)).double()
            cosines = torch.nn.functional.cosine_similarity(ours[rows], expected[rows], dim=1).abs()
            self.errors[f"1-|cos| {name}"] = float((1 - cosines).max())

    def measure_released_directions(self) -> None:
        """Match the released code's directions, which it leaves unsorted, with `normalize="rows"`."""
        for key, expected in self.arrays.items():
            if not key.startswith("sefa_dirs__"):
                continue
            name = key.removeprefix("sefa_dirs__")
            eigenvalues = self.arrays[f"sefa_eigvals__{name}"].astype(np.float64)
            distances = np.abs(eigenvalues[:, None] - eigenvalues) + np.eye(len(eigenvalues)) * 1e9
            defined = (distances.min(axis=1) > 1e-4 * eigenvalues.max()) & (eigenvalues > 1e-6 * eigenvalues.max())
            layers = name if name in self.facts["sets"] else next(iter(self.facts["sets"]))
            ours = self.in_z(self.bank(layers, "rows")).double()
            cosines = (torch.from_numpy(expected[defined]).double() @ ours.T).abs().max(dim=1).values
            self.errors[f"1-|cos| released {name}"] = float((1 - cosines).max())

    def measure_edits(self) -> None:
        """Compare images edited along our own directions."""
        for key in self.arrays:
            match = EDIT.fullmatch(key)
            if match:
                images = [
                    self.render(codes, self.arrays["edit_batch"])
                    for codes in self.edited(match["set"], match["everywhere"])
                ]
                self.compare_image(key, torch.stack(images[: len(self.arrays[key])]))

    def edited(self, name: str, everywhere: str | None = None) -> Iterator[Tensor]:
        """Return our codes of each recorded edit."""
        bank = self.bank(name)
        base = self.encode(0.7 if "edit_base" in self.arrays else self.psi)[self.arrays["edit_batch"]]
        expected = torch.from_numpy(self.arrays[f"dirs__{name}"])
        for index, alpha in zip(self.arrays[f"edit_index__{name}"], self.arrays["edit_alpha"], strict=True):
            # A recorded direction may have the other sign where two components are about equally large.
            sign = torch.sign(self.in_z(bank)[index] @ expected[index])
            mask = torch.ones(bank.edited_layers.shape[1]) if everywhere else bank.edited_layers[index].float()
            yield base + sign * float(alpha) * mask[:, None] * bank.vectors[index]

    def measure_imported_factor(self) -> None:
        """Compare rosinality's own directions, and its edit before truncation, with psi times it after."""
        if "rosi_eigvec" not in self.arrays:
            return
        bank = sefa.import_factor(self.path.with_name("factor.pt"), self.generator)
        self.errors["imported factor"] = float(np.abs(bank.vectors.numpy() - self.arrays["rosi_eigvec"].T).max())
        index, degree = self.arrays["rosi_apply_index_degree"]
        rows = self.arrays["edit_batch"]
        codes = self.encode(0.7)[rows] + 0.7 * float(degree) * bank.vectors[int(index)]
        key = next(key for key in self.arrays if key.endswith("_rosi_apply"))
        self.compare_image(key, self.render(codes, rows))

    def measure_onnx(self) -> None:
        """Compare the exported graph with PyTorch on the recorded latents and edits."""
        name = next(name for name in self.facts["sets"] if f"edit_index__{name}" in self.arrays)
        bank = self.bank(name)
        direction = np.repeat(self.arrays[f"edit_index__{name}"][None], len(self.z), axis=0).astype(np.int64)
        alpha = np.repeat(self.arrays["edit_alpha"][None], len(self.z), axis=0).astype(np.float32)
        feeds = {"z": self.arrays["z"], "direction": direction, "alpha": alpha}
        if self.label is not None:
            feeds["label"] = self.label.numpy()
        with tempfile.TemporaryDirectory() as folder:
            path = sefa_export.export_onnx(self.generator, bank, Path(folder, "model.onnx"), output_type="float32")
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            (image,) = session.run(None, feeds)
        graph = sefa_export.bake(self.generator, bank, output_type="float32")
        with torch.no_grad():
            expected = graph(**{name: torch.from_numpy(value) for name, value in feeds.items()})
        self.errors["onnx"] = float(np.abs(image - expected.numpy()).max())

    def measure_all(self) -> dict[str, float]:
        """Return every measurement."""
        self.measure_codes()
        self.measure_images()
        self.measure_directions()
        self.measure_released_directions()
        self.measure_edits()
        self.measure_imported_factor()
        self.measure_onnx()
        return self.errors


def _psi(match: re.Match[str] | None) -> tuple[float, int | None]:
    if match is None:
        return 1.0, None
    digits = match["psi"]  # "07" or "075"
    return float(f"{digits[0]}.{digits[1:]}"), int(match["cut"]) if match["cut"] else None


KINDS = {
    "w, codes": re.compile("w|ws.*"),
    "image": re.compile("img(?!.*edit).*|imgcrop_psi.*"),
    "edited image": re.compile("img(crop)?_(edit|rosi).*"),
    "directions": re.compile(r"1-\|cos\|.*"),
    "onnx": re.compile("onnx"),
}


def table(record: dict[str, dict[str, float]]) -> str:
    """Return the record as rows of Markdown: the worst of each kind for each checkpoint."""
    rows = ["| checkpoint | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for name, errors in record.items():
        worst = [
            max((error for key, error in errors.items() if pattern.fullmatch(key)), default=None)
            for pattern in KINDS.values()
        ]
        cells = ["" if error is None else f"{error:.0e}" for error in worst]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure every checkpoint and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("names", nargs="*", default=list(MANIFEST))
    arguments = parser.parse_args()
    known = set(arguments.names) < set(MANIFEST) and arguments.output and arguments.output.exists()
    record = json.loads(arguments.output.read_text()) if known else {}
    for name in arguments.names:
        errors = GoldenCheckpoint(name).measure_all()
        record[name] = {key: float(f"{value:.2e}") for key, value in errors.items()}
        print(name, json.dumps(record[name]), flush=True)
    record = {name: record[name] for name in MANIFEST if name in record}
    print(table({name: record[name] for name in arguments.names}))
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
