"""Compare our exports with other people's generators: python benchmarks/peers.py [--clones FOLDER] [-o FILE]

The same latents and the same weights go through the exported graph on each provider, our module in PyTorch, eager and
under torch.compile, and whatever else a user would run: clones of genforce, NVlabs/stylegan2-ada-pytorch,
rosinality/stylegan2-pytorch and ajbrock/BigGAN-PyTorch, each in the folder that git gives it under FOLDER or in one of
its own, and the packages stylegan2_pytorch, stylegan2-torch and pytorch-pretrained-biggan, if they are installed.

The images are compared first: one that is more than 1 of 255 levels from ours is reported and its code not timed;
bfloat16 must be within 40 dB. Each runs in a process of its own, with the same number of threads; they take turns, in
rounds, and the ratio of each round counts. What cannot run here is in the record with the reason. The record is written
as it grows. With the default options it takes about 10 minutes; `--quick` has small models and one round, for a
rehearsal.

`--chart RECORD.json -o FILE.webp` draws a record.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import sefa_runtime
from peer_comparison.contest import LEAST_ROUNDS, MAX_LEVELS, Entry, Worker, WorkerError, compete, each_ready
from peer_comparison.models import MODELS, Model
from peer_comparison.networks import AJBROCK, CLONES, GENFORCE, NVLABS, PACKAGES, ROSINALITY
from records import Record, make_parser, rates_of, roofline_of
from sefa_runtime.files import write_whole
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.machine.description import describe_machine

CPU, OPENVINO, BF16 = "SeFa, onnxruntime", "SeFa, OpenVINO", "SeFa, OpenVINO bf16"
EAGER, COMPILED = "SeFa in PyTorch", "SeFa, torch.compile"
# As `sefa tune` finds it: the styles in float32, the rest in bfloat16, where the CPU multiplies in it.
BF16_OPTIONS = {"load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}})}
BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
BF16_LEAST_DB = 40.0
OPTIONS = {GENFORCE: "genforce", NVLABS: "nvlabs", ROSINALITY: "rosinality", AJBROCK: "biggan"}
BATCHES = (1, 4)
NO_CLONE = "no folder with a clone was given"
SECONDS = 15.0


def main() -> None:
    """Compare and write the record, or draw one."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--clones", type=Path, metavar="FOLDER", help="folder with clones, in the folders that git gives them"
    )
    for author, option in OPTIONS.items():
        parser.add_argument(f"--{option}", type=Path, metavar="FOLDER", help=f"clone of {author}'s {CLONES[author]}")
    parser.add_argument("--openvino", metavar="PYTHON", help="interpreter of an environment with onnxruntime-openvino")
    parser.add_argument("--models", nargs="+", choices=[model.name for model in MODELS], help="only these")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="for each model and batch (default: %(default)g)"
    )
    parser.add_argument(
        "--compile",
        choices=("none", "some", "all"),
        help="torch.compile for no model, all but those that take long (the default), or all",
    )
    parser.add_argument("--quick", action="store_true", help="small models, one round, --compile none")
    parser.add_argument("--chart", type=Path, metavar="RECORD.json", help="draw this record")
    given = parser.parse_args()
    if given.chart:
        from peer_comparison.chart import save_chart

        save_chart(json.loads(given.chart.read_text()), given.output or given.chart.with_suffix(".webp"), given.models)
        return
    clones = {
        author: getattr(given, option) or (given.clones / CLONES[author] if given.clones else None)
        for author, option in OPTIONS.items()
    }
    comparison = Comparison(
        clones,
        given.openvino,
        quick=given.quick,
        compiling=given.compile or ("none" if given.quick else "some"),
        seconds=0.0 if given.quick else given.seconds,
        output=given.output,
    )
    for model in MODELS:
        if not given.models or model.name in given.models:
            comparison.add(model)
    print(json.dumps(comparison.contents(), indent=2))


class Comparison:
    """The comparison, and its record so far."""

    def __init__(
        self,
        clones: dict[str, Path | None],
        openvino: str | None,
        *,
        quick: bool,
        compiling: str,
        seconds: float,
        output: Path | None,
    ) -> None:
        self.clones, self.openvino, self.output = clones, openvino, output
        self.quick, self.compiling, self.seconds = quick, compiling, seconds
        self.started = time.monotonic()
        self.threads = usable_cores()
        self.models: list[Entry] = []
        self.record = Record(
            "p50 of one batch, from latents to uint8 images; ratios to our export in onnxruntime on the CPU; the first "
            "run includes compiling; peak_mib is the process's resident memory",
            ("torch", *PACKAGES.values()),
        )

    def contents(self) -> Entry:
        """Return the record so far."""
        results = {
            "quick": self.quick,
            "threads": self.threads,
            "largest_difference_that_is_timed": MAX_LEVELS,
            "clones": {author: commit_of(folder) for author, folder in self.clones.items()},
            "seconds": round(time.monotonic() - self.started, 1),
            "models": self.models,
        }
        return self.record.contents(results)

    def add(self, model: Model) -> None:
        """Compare everyone who renders a model."""
        entry: Entry = {"model": model.name, "title": model.title, "exported": {}, "not_run": [], "results": []}
        self.models.append(entry)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

            def start(name: str, way: str, python: str = sys.executable, **task: Any) -> Worker:
                task |= {"way": way, "model": model.name, "folder": folder, "threads": self.threads}
                worker = Worker(name, task | {"quick": self.quick} | entry["exported"], python)
                stack.callback(worker.close)
                return worker

            maker = start("export", "make", clone=self._folder(model.maker))
            try:
                if model.maker in self.clones and self.clones[model.maker] is None:
                    raise WorkerError(NO_CLONE)
                maker.wait_until_ready()
            except WorkerError as error:
                whose = f"the weights are {model.maker}'s to make: " if model.maker else ""
                self._leave_out(entry, "all", f"{whose}{error}")
                return
            entry["exported"] = maker.facts
            maker.close()
            self._tell(f"{model.name}: exported")

            workers = [start(CPU, "export", provider="cpu")]
            if self.openvino:
                workers.append(start(OPENVINO, "export", self.openvino, provider="openvino"))
                if BF16_INSTRUCTIONS & set(describe_machine()["cpu_extensions"] or ()):
                    half: Entry = {"provider": "openvino", "provider_options": BF16_OPTIONS, "styles_on_cpu": True}
                    workers.append(start(BF16, "export", self.openvino, **half))
                    workers[-1].least_db = BF16_LEAST_DB
            workers.append(start(EAGER, "module"))
            if self.compiling == "none" or (model.compiles_long and self.compiling != "all"):
                self._leave_out(entry, COMPILED, f"--compile {self.compiling}")
            else:
                workers.append(start(COMPILED, "module", compile=True))
            for peer in model.peers:
                if peer in self.clones and self.clones[peer] is None:
                    self._leave_out(entry, peer, NO_CLONE)
                else:
                    workers.append(start(peer, "peer", peer=peer, clone=self._folder(peer)))
            ready = each_ready(workers, lambda worker, reason: self._leave_out(entry, worker.name, reason))
            entry["used"] = {worker.name: worker.facts for worker in ready}
            for batch in BATCHES:
                try:
                    entry["results"] += compete(ready, batch, self.seconds, 1 if self.quick else LEAST_ROUNDS)
                except WorkerError as error:
                    self._leave_out(entry, f"batch {batch}", str(error))
                self._tell(f"{model.name}, batch {batch}: " + summary(entry["results"], batch))
            self._add_roofline(entry, Path(folder, "model.onnx"))

    def _add_roofline(self, entry: Entry, path: Path) -> None:
        """Hold our export on the CPU against the machine's rates, while nobody else runs."""
        editor = sefa_runtime.load(path, "cpu", threads=self.threads)
        entry["rates"] = rates_of(editor)
        for result in entry["results"]:
            if result["name"] == CPU and "p50_ms" in result:
                result["roofline"] = roofline_of(editor, result["batch"], result["p50_ms"])
        self._tell(f"{entry['model']}: held against the machine's rates")

    def _folder(self, peer: str | None) -> str | None:
        folder = self.clones.get(peer or "")
        return str(folder.resolve()) if folder else None

    def _leave_out(self, entry: Entry, name: str, reason: str) -> None:
        entry["not_run"].append({"name": name, "reason": reason})
        self._tell(f"{entry['model']}: without {name}: {reason}")

    def _tell(self, line: str) -> None:
        """Write the record so far, and say what is done."""
        print(f"{time.monotonic() - self.started:6.0f} s  {line}", file=sys.stderr, flush=True)
        if self.output is not None:
            write_whole(self.output, (json.dumps(self.contents(), indent=1) + "\n").encode())


def summary(results: list[Entry], batch: int) -> str:
    """Return one line of a batch's results."""
    parts = [
        f"{result['name']} {result['ms_per_image']:g} ms ({result['ratio']:g}x)"
        if "ratio" in result
        else f"{result['name']}: {result['status']}"
        for result in results
        if result["batch"] == batch
    ]
    return ", ".join(parts)


def commit_of(folder: Path | None) -> str | None:
    """Return the commit of a clone; None if there is none, or it is no git tree."""
    if folder is None or not (folder / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


if __name__ == "__main__":
    main()
