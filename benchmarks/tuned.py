"""What `sefa tune` gains: python benchmarks/tuned.py [--openvino PYTHON] [--quick] [-o FILE]

StyleGAN2 in configuration F for 256x256, random weights, one image, on the CPU; of letters and faces with --model. The
export, of the StyleGAN2 with two variants (Winograd's form, and transposed convolutions kept), is tuned twice: with a
parity budget that only float32 keeps to, and with the usual one. Both winners then run in turn with the default export
on the CPU provider and, of the StyleGAN2, with the arithmetic of the released PyTorch code (benchmarks/
stylegan2_256.py). PYTHON is the interpreter of an environment with onnxruntime-openvino, which offers OpenVINO beside
the CPU; without it, onnxruntime's own providers are tried. The winners run there, in a process that takes turns with
this one; a turn through its pipe costs 0.1 ms.

On a quiet machine with two cores it takes about 10 minutes; --quick, to see that it works, half of that.

Exit code 1 if, with OpenVINO, a target does not hold: float32 3.3 times, reduced precision 6 times as fast as the
released form.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sefa
import sefa_runtime
from generators import make_generator, stylegan2_spec
from records import Record, alternate, check_same, make_parser, p50_ms, rates_of, ratio, roofline_of
from sefa_export import export_onnx
from sefa_export.bake import quantize
from sefa_runtime.latency.measure import example_inputs
from sefa_runtime.latency.tuning_settings import described
from sefa_runtime.session.tuned import Setting
from sefa_runtime.verification import MIN_PSNR_DB
from support.stylegan2_files import convolve_apart, random_tensors, reference_image, reference_w

ROOT = Path(__file__).parents[1]
STYLEGAN2 = "stylegan2-256"
ROUNDS, QUICK_ROUNDS = 15, 3
SECONDS, QUICK_SECONDS = 3.0, 0.01
DEFAULT, RELEASED = "default export, CPU provider", "released form in PyTorch"
# What is tuned for: its name, the parity budget in dB, and how many times as fast as the released form it must be.
# Providers that add up float32 in another order stay above 80 dB.
TARGETS = (("float32", 60.0, 3.3), ("reduced precision", MIN_PSNR_DB, 6.0))


def main() -> None:
    """Tune, measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--openvino", metavar="PYTHON", help="interpreter of an environment with onnxruntime-openvino")
    parser.add_argument("--model", default=STYLEGAN2, choices=(STYLEGAN2, "letters", "faces"))
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    given = parser.parse_args()
    record = Record(f"p50 of one image of {given.model}, from latents to pixels, as exported and tuned", ("torch",))
    generator = make_generator(given.model)
    with tempfile.TemporaryDirectory() as folder, worker(given.openvino or sys.executable) as ask:
        bank = sefa.factorize(generator)
        path = export_onnx(generator, bank, Path(folder, "model.onnx"))
        variants = []
        if given.model == STYLEGAN2:
            variants.append(export_onnx(generator, bank, Path(folder, "winograd.onnx"), winograd=True))
            variants.append(export_onnx(generator, bank, Path(folder, "transposed.onnx"), keep_layers=True))
        seconds, rounds = (QUICK_SECONDS, QUICK_ROUNDS) if given.quick else (SECONDS, ROUNDS)
        found = measure(path, variants, ask, given.model, seconds, rounds)
    has_openvino = any(trial["setting"]["provider"] == "openvino" for trial in found["tuned"]["float32"]["trials"])
    problems = [
        f"{name}: {times} times as fast as the released form, {wanted} is wanted"
        for name, _, wanted in TARGETS
        if has_openvino and given.model == STYLEGAN2
        if (times := found["tuned"][name]["released_form_over_it"]["ratio"]) < wanted
    ]
    record.finish(found, given.output, problems)


def measure(
    path: Path,
    variants: Sequence[Path],
    ask: Callable[..., dict[str, Any]],
    name: str,
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """Tune for each target and time the winners in turns with the others.

    Args:
        path: The export.
        variants: Further exports.
        ask: Asks the worker.
        name: The generator's.
        seconds: Time for each setting.
        rounds: Turns of each.
    """
    editor = sefa_runtime.load(path, "cpu", prefix_mb=0)
    torch.set_num_threads(editor.session.threads)
    inputs = example_inputs(editor.info, 1, 1)
    runs: dict[str, Callable[[], object]] = {DEFAULT: partial(editor.run, **inputs)}
    if name == STYLEGAN2:
        released = run_of_released_form(inputs["z"])
        check_same(released(), editor.run(inputs["z"]))
        runs[RELEASED] = released
    tuned: dict[str, Any] = {}
    for target, budget, _ in TARGETS:
        others = [str(variant) for variant in variants]
        tuning = ask("tune", path=str(path), variants=others, seconds=seconds, min_psnr_db=budget, batches=[1])
        best = tuning["one_caller"]
        setting = Setting(**best["setting"])
        ask("load", name=target, path=setting.model, arguments=setting.arguments)
        runs[f"tuned, {target}"] = partial(ask, "run", name=target)
        kept = ("failures", "load_average_after", "versions")
        tuned[target] = {
            "min_psnr_db": budget,
            "file": Path(setting.model).name,
            "setting": described(setting),
            "psnr_db": best["psnr_db"],
            **{key: tuning[key] for key in kept},
            "trials": [
                trial | {"setting": trial["setting"] | {"model": Path(trial["setting"]["model"]).name}}
                for trial in tuning["trials"]
            ],
        }
    times = alternate(runs, rounds)
    for target in tuned:
        for other, key in ((DEFAULT, "default_over_it"), (RELEASED, "released_form_over_it")):
            if other in times:
                tuned[target][key] = ratio(times, other, f"tuned, {target}")
    if RELEASED in times:
        tuned["default"] = {"released_form_over_it": ratio(times, RELEASED, DEFAULT)}
    p50 = p50_ms(times)
    return {
        "threads": editor.session.threads,
        "rounds": rounds,
        "p50_ms": p50,
        "tuned": tuned,
        "roofline_of_default": roofline_of(editor, 1, p50[DEFAULT]),
        "rates": rates_of(editor),
    }


def run_of_released_form(z: "np.ndarray[Any, np.dtype[np.float32]]") -> Callable[[], "np.ndarray[Any, Any]"]:
    """Return a run of the released arithmetic, which does not edit."""
    spec = stylegan2_spec(STYLEGAN2)
    tensors = random_tensors(spec)

    def run() -> "np.ndarray[Any, Any]":
        with torch.inference_mode():
            w = reference_w(spec, tensors, torch.from_numpy(z))
            codes = w[:, None].repeat(1, spec.num_layers, 1)
            return np.asarray(quantize(reference_image(spec, tensors, codes, convolve=convolve_apart)))

    return run


@contextmanager
def worker(python: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Start a worker, yield what asks it, and end it."""
    process = subprocess.Popen(
        [python, str(ROOT / "benchmarks" / "tuned_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "runtime")},
    )

    def ask(what: str, **request: Any) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"what": what, **request}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit(f"the worker ended with {process.wait()} while it was to {what}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    try:
        yield ask
    finally:
        process.communicate()


if __name__ == "__main__":
    main()
