"""Compare SeFa with GANSpace: python benchmarks/methods.py [-o RECORD.json]

There are two generators: the demo's trained faces generator, a DCGAN, and a StyleGAN2 of configuration F for 256x256
with random weights, whose times and memory are those of a trained one but whose directions mean nothing. Measured are
what `sefa compare-methods` measures, and GANSpace as its authors compute it: scikit-learn's IncrementalPCA, with 80
components in batches of 2000, of the first layer's outputs or of w, from the same latents, and for the DCGAN a
least-squares fit back to z. Each generator is measured in its own process.

The authors analyse a million samples, and so does their way here on the StyleGAN2, once. On the DCGAN, with its 8192
outputs, a million would take most of an hour: it is given 10,000, three times.

Exit code 1 if SeFa is less than 100 times as fast as the authors' way. It takes about five minutes on two cores, most
of them for the million samples; `--quick` is a rehearsal with few.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import IncrementalPCA

import sefa
from generators import make_generator
from records import Record, make_parser
from sefa.linear_algebra import principal_angles
from sefa.method_comparison.methods import compare_methods
from sefa.method_comparison.peak_memory import peak_memory

TOP, COMPONENTS, BATCH, CHUNK = 8, 80, 2000, 1000
SAMPLES = {"faces": 50_000, "stylegan2-256": 50_000}
AUTHORS_SAMPLES = {"faces": 10_000, "stylegan2-256": 1_000_000}
AUTHORS_RUNS = {"faces": 3, "stylegan2-256": 1}
QUICK_SAMPLES = 4000
IMAGES = {"faces": 16, "stylegan2-256": 2}
# Times are medians of this many runs.
REPEATS = 3
# How many times as fast as the authors' way SeFa must be.
MIN_RATIO = 100


def main() -> None:
    """Measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--measure", choices=list(SAMPLES), help=argparse.SUPPRESS)  # for the fresh processes
    parser.add_argument("--quick", action="store_true", help="few samples, for a rehearsal")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.quick)))
        return
    record = Record(
        "finding the first 8 directions with SeFa, from the weights, and with GANSpace, from samples",
        ("torch", "scikit-learn"),
    )
    results = {}
    for name in SAMPLES:
        command = [sys.executable, __file__, "--measure", name, *(["--quick"] if arguments.quick else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[name] = json.loads(done.stdout)
    problems = [
        f"{name}: SeFa is {result['authors_over_sefa']} times as fast as the authors' way, {MIN_RATIO} is wanted"
        for name, result in results.items()
        if result["authors_over_sefa"] < MIN_RATIO
    ]
    record.finish({"results": results}, arguments.output, problems)


def measure(name: str, quick: bool) -> dict[str, Any]:
    """Measure everything on one generator."""
    generator = make_generator(name)
    ours, samples = (QUICK_SAMPLES,) * 2 if quick else (SAMPLES[name], AUTHORS_SAMPLES[name])
    comparison = compare_methods(generator, top=TOP, samples=ours, images=IMAGES[name], repeats=REPEATS).to_dict()
    authors_s = []
    for _ in range(AUTHORS_RUNS[name]):
        with peak_memory(torch.device("cpu")) as peak:
            started = time.perf_counter()
            directions = authors_ganspace(generator, samples)
            authors_s.append(time.perf_counter() - started)
    seconds = statistics.median(authors_s)
    exact = sefa.factorize(generator, top=TOP, method="ganspace", samples=samples)
    angles = principal_angles(exact.vectors, torch.from_numpy(directions[:TOP]))
    sefa_seconds = comparison["methods"][0]["seconds"]
    return {
        "generator": comparison["generator"],
        "threads": comparison["threads"],
        "top": TOP,
        "images": comparison["images"],
        "methods": [rounded(method) for method in comparison["methods"]],
        "authors_way": {
            "samples": samples,
            "seconds": round(seconds, 1),
            "runs_s": [round(run, 1) for run in authors_s],
            "peak_mib": None if peak.bytes is None else round(peak.bytes / 2**20),
            "angle_to_exact_deg": round(float(angles.max().rad2deg()), 3),
        },
        "agreements": [
            {key: np.round(value, 3).tolist() if key != "a" and key != "b" else value for key, value in pair.items()}
            for pair in comparison["agreements"]
        ],
        "chance": round(comparison["chance"], 4),
        "ganspace_over_sefa": round(comparison["sefa_is_faster"], 1),
        "authors_over_sefa": round(seconds / sefa_seconds),
    }


@torch.no_grad()
def authors_ganspace(generator: sefa.Generator, samples: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Find components of the latent as GANSpace's authors do; return unit rows [COMPONENTS, D]."""
    pca = IncrementalPCA(COMPONENTS)
    for batch in latents(generator, samples):
        pca.partial_fit(activations(generator, batch))
    if generator.has_style_codes:
        return np.asarray(pca.components_)
    batches = list(latents(generator, samples))
    z = torch.cat(batches)
    coordinates = [pca.transform(activations(generator, batch)) for batch in batches]
    scaled = np.concatenate(coordinates) / np.sqrt(pca.explained_variance_)
    directions: np.ndarray[Any, np.dtype[Any]] = np.linalg.lstsq(scaled, z.numpy(), rcond=None)[0]
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))


def latents(generator: sefa.Generator, samples: int) -> Iterator[torch.Tensor]:
    """Yield batches of the latents that our GANSpace analyses, too."""
    random = torch.Generator().manual_seed(0)
    for _ in range(samples // BATCH):
        yield torch.cat([torch.randn(CHUNK, generator.z_dim, generator=random) for _ in range(BATCH // CHUNK)])


def activations(generator: sefa.Generator, z: torch.Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the values that are analysed, [N, features]."""
    code = generator.encode(z)[:, 0]
    return (code if generator.has_style_codes else code @ generator.affines()[0].T).numpy()


def rounded(method: dict[str, Any]) -> dict[str, Any]:
    """Round one method's measurements to a meaningful number of digits."""
    peak, seconds = method["peak_bytes"], method["seconds"]
    return {
        "name": method["name"],
        "samples": method["samples"],
        "seconds": None if seconds is None else round(seconds, 4),
        "runs_s": [round(run, 4) for run in method["runs_s"]],
        "peak_mib": None if peak is None else round(peak / 2**20, 1),
        "change": [round(change, 2) for change in method["change"]],
    }


if __name__ == "__main__":
    main()
