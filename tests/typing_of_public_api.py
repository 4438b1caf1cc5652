"""The public interface as its users call it, for type checkers: `make check` has mypy and pyright read this file.

Nothing here is ever run. Every argument is given once, and `assert_type` says what comes out.
"""

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from starlette.types import ASGIApp
from torch import Tensor, nn

import sefa
import sefa_export
import sefa_runtime
from sefa.bank.comparison import BankComparison, Pair, compare_banks
from sefa.bank.direction_bank import DirectionSource
from sefa.bank.editing import change, merge, subset
from sefa.bank.naming import Change, parse_change, parse_range, resolve
from sefa.bank_files import export_bank, import_bank
from sefa.choices import ImageLayout, Method
from sefa.custom import build_module, load_torchscript, load_weights
from sefa.demo import find_faces
from sefa.directions.compatibility import Likeness, check_fits, likeness
from sefa.method_comparison.methods import MethodComparison, MethodResult, compare_methods
from sefa_runtime.deploy.kserve import KServeOptions, inference_service, to_yaml
from sefa_runtime.deploy.triton import TritonOptions, write_repository
from sefa_runtime.explore import Effect, Exploration, explore, save_exploration
from sefa_runtime.images import contact_sheet, enlarge, grid, mosaic, save_animation, save_image, to_pillow
from sefa_runtime.images.video import save_video
from sefa_runtime.inputs.code_files import load_codes, load_latents
from sefa_runtime.instances import load_instances
from sefa_runtime.latency import BatchResult, Comparison, LatencyRecord, compare_records, measure, read_record
from sefa_runtime.latency.tuning import Tuning, tune
from sefa_runtime.model.info import Seal
from sefa_runtime.model.reading import read_info
from sefa_runtime.model.renaming import rename_directions
from sefa_runtime.sealing import seal
from sefa_runtime.server.app import create_app
from sefa_runtime.server.models import HostedModel, Models
from sefa_runtime.server.run import serve
from sefa_runtime.server.settings import Settings
from sefa_runtime.session.doctor import Check, examine
from sefa_runtime.session.session import Session
from sefa_runtime.session.tuned import Choice, choose
from sefa_runtime.verification import Finding, Verification, verify


def show(share: float) -> None:
    """Take how much is done, 0 to 1."""


def checkpoints() -> sefa.Generator:
    assert_type((sefa.__version__, sefa_runtime.__version__), tuple[str, str])
    sefa.laod("netG.pth")  # type: ignore[attr-defined]
    sefa_runtime.laod("netG.onnx")  # type: ignore[attr-defined]
    sefa.load("netG.pth")
    generator = sefa.load(
        Path("netG.pth"), num_classes=10, noise="none", entry="g_ema", assume={"stride": 2, "norm": "batch"}
    )
    assert_type(generator, sefa.Generator)
    assert_type(generator.family, str)
    assert_type(generator.resolution, tuple[int, int])
    assert_type(generator.latent_dim, int)
    assert_type(generator.assumptions, tuple[str, ...])
    codes = generator.encode(torch.zeros(1, 512), torch.tensor([3]), 0.7, 8)
    assert_type(codes, Tensor)
    assert_type(generator.decode(codes), Tensor)
    assert_type(generator.affines(), list[Tensor])
    assert_type(sefa.parse_layers("0,2-4", 14, default=(0, 1)), tuple[int, ...])
    assert_type(find_faces(), Path)
    return generator


def own_generators() -> sefa.Generator:
    module = build_module("my_package.models:Generator", {"channels": 64})
    assert_type(module, nn.Module)
    assert_type(load_weights(module, "netG.pth", "g_ema"), str)
    assert_type(load_torchscript(Path("mine.ts"), run_code=True), nn.Module)
    generator: sefa.Generator = sefa.wrap(
        module,
        latent_dim=100,
        layers=["main.0"],
        num_classes=10,
        label_format="onehot",
        image_range=(0.0, 1.0),
        image_layout=ImageLayout.NHWC,
        output_key="image",
        call="z, label, psi=0.7",
        freeze_noise=7,
    )
    return generator


def directions(generator: sefa.Generator) -> sefa.DirectionBank:
    bank = sefa.factorize(
        generator,
        layers=[4, 5],
        edit_layers="4-7",
        top=8,
        method=Method.GANSPACE,
        normalize="rows",
        samples=20_000,
        seed=1,
        label=3,
        progress=show,
    )
    assert_type(bank, sefa.DirectionBank)
    assert_type(sefa.factorize(generator), sefa.DirectionBank)
    return bank


def banks(generator: sefa.Generator, bank: sefa.DirectionBank) -> None:
    assert_type(bank.save("faces.safetensors"), Path)
    assert_type(sefa.DirectionBank.load(Path("faces.safetensors")), sefa.DirectionBank)
    assert_type(sefa.DirectionBank.build(bank.description(), bank.tensors()), sefa.DirectionBank)
    assert_type(bank.vectors, Tensor)
    assert_type(bank.eigenvalues, Tensor)
    assert_type(bank.names, tuple[str, ...])
    assert_type(bank.code_dim, int)
    assert_type(bank.steps(), Tensor)
    assert_type(bank.lengths(0), Tensor)
    assert_type(bank.has_own_vectors, bool)
    assert_type(bank.origin(0), DirectionSource)
    assert_type(len(bank), int)

    told = [parse_change("0=pose:-1"), parse_range("1=-4:4")]
    assert_type(resolve(bank.names, told), dict[int, Change])
    assert_type(change(bank, {1: Change(name="turn", flip=True, alpha_range=(-3.0, 3.0))}), sefa.DirectionBank)
    assert_type(subset(bank, [0, 2]), sefa.DirectionBank)
    merged = merge([bank, bank], ["a-", "b-"], allow_other_checkpoint=True)
    assert_type(merged, sefa.DirectionBank)

    comparison = compare_banks(bank, merged)
    assert_type(comparison, BankComparison)
    assert_type(comparison.pairs, tuple[Pair, ...])
    check_fits(bank, generator, allow_other_checkpoint=True)
    assert_type(likeness(bank, generator), Likeness | None)

    assert_type(
        import_bank("bank.npz", generator, "4-7", [4], allow_other_checkpoint=True, report=print), sefa.DirectionBank
    )
    assert_type(sefa.import_factor("factor.pt", generator), sefa.DirectionBank)
    assert_type(export_bank(bank, "faces.npz"), Path)

    methods = compare_methods(generator, "all", top=8, samples=1000, seed=1, images=4, progress=show, repeats=3)
    assert_type(methods, MethodComparison)
    assert_type(methods.methods, tuple[MethodResult, ...])
    assert_type(methods.to_dict(), dict[str, Any])


def files(generator: sefa.Generator, bank: sefa.DirectionBank) -> None:
    graph = sefa_export.bake(
        generator, bank, output_type="float32", latent="w", truncation=None, allow_other_checkpoint=True
    )
    assert_type(graph, sefa_export.EditGraph)
    assert_type(graph.input_names, tuple[str, ...])
    assert_type(sefa_export.export_onnx(generator, bank, "netG.onnx"), Path)
    onnx = sefa_export.export_onnx(
        generator,
        bank,
        Path("netG.onnx"),
        output_type="uint8",
        latent="w+",
        truncation=0.7,
        allow_other_checkpoint=True,
        precision="fp16",
        batch=4,
        num_edits=2,
        external_data="netG.weights",
    )
    assert_type(onnx, Path)
    pt2 = sefa_export.export_pt2(
        generator,
        bank,
        "netG.pt2",
        output_type="uint8",
        latent="z",
        truncation=0.7,
        allow_other_checkpoint=True,
        batch=4,
        num_edits=2,
        compiled=True,
    )
    assert_type(pt2, Path)
    torchscript = sefa_export.export_torchscript(
        generator, bank, "netG.ts", output_type="uint8", latent="z", truncation=0.7, allow_other_checkpoint=True
    )
    assert_type(torchscript, Path)


def editing() -> sefa_runtime.Editor:
    sefa_runtime.load("netG.onnx")
    editor = sefa_runtime.load(
        Path("netG.onnx"),
        "cuda",
        {"device_id": 0},
        4,
        allow_cpu_fallback=True,
        binding=True,
        cuda_graph=True,
    )
    sefa_runtime.load("netG.onnx", "openvino", batch=1, num_edits=2, styles_on_cpu=True)
    sefa_runtime.load("netG.onnx", tuned="tuned.json")
    sefa_runtime.load(b"contents", "cpu")
    sefa_runtime.load(bytearray(b"contents"))
    sefa_runtime.load(memoryview(b"contents"))
    with Path("netG.onnx").open("rb") as file:
        sefa_runtime.load(file)
    sefa_runtime.load(io.BytesIO(b"contents"))
    sefa_runtime.load(io.StringIO("text"))  # type: ignore[arg-type]
    assert_type(editor, sefa_runtime.Editor)
    assert_type(editor.path, Path | None)
    assert_type(editor.name, str)
    assert_type(editor.session, Session)
    assert_type(editor.session.reason, str)
    assert_type(editor.provider, str)
    assert_type(editor.info, sefa_runtime.ModelInfo)
    assert_type(editor.info.names, tuple[str, ...])
    assert_type(editor.info.directions, tuple[sefa_runtime.DirectionInfo, ...])
    assert_type(editor.info.parity, sefa_runtime.Parity)
    assert_type(editor.direction_index("turn"), int)

    z = sefa_runtime.latents_from_seeds([7, 8], 512)
    assert_type(z, NDArray[np.float32])
    assert_type(editor.run(z, [[0], [1]], [[2.5], [1.0]], [3, 4], [0.7, 0.7]), NDArray[Any])
    editor.run(w=z, direction=np.array([[0]]), alpha=np.array([[1.5]]))
    editor.run(codes=np.zeros((1, 14, 512), np.float32))
    images = editor.edit(seed=[7, 8], edits={"turn": 2.5, 1: [-1.0, 1.0]}, label=[3, 4], truncation=0.7)
    assert_type(images, NDArray[np.uint8])
    editor.edit(seed=7)
    editor.edit(z=z, edits={"turn": 2})
    editor.edit(w=z)
    editor.edit(codes=[[[0.0] * 512] * 14])
    sweep = editor.sweep(seed=[7], direction="turn", alphas=[-3, 0, 3], label=3, truncation=0.7, progress=show)
    assert_type(sweep, NDArray[np.uint8])
    editor.sweep(z=z, direction=1)
    editor.sweep(w=z)
    editor.sweep(codes=np.zeros((1, 14, 512)))
    assert_type(
        load_instances("netG.onnx", 2, "cpu", {}, 1, allow_cpu_fallback=False, prefix_mb=64, warm=True),
        list[sefa_runtime.Editor],
    )
    return editor


def errors() -> tuple[Sequence[type[sefa.SefaError]], Sequence[type[sefa_runtime.SefaRuntimeError]]]:
    assert_type(sefa_runtime.ProviderError("no such device", remedy="sefa doctor").remedy, str)
    preparing = (
        sefa.ArgumentError,
        sefa.BankError,
        sefa.CheckpointError,
        sefa_export.ExportError,
        sefa_export.VerificationError,
    )
    running = (
        sefa_runtime.InputError,
        sefa_runtime.ModelFileError,
        sefa_runtime.NotFiniteError,
        sefa_runtime.ProviderError,
        sefa_runtime.RunError,
    )
    return preparing, running


def images(sweep: NDArray[np.uint8]) -> None:
    sheet = contact_sheet(sweep, ["seed 7"], ["turn"], ["-3", "0", "3"])
    assert_type(sheet, NDArray[np.uint8])
    assert_type(grid(sweep), NDArray[np.uint8])
    assert_type(mosaic(sweep), NDArray[np.uint8])
    assert_type(enlarge(sweep, 3), NDArray[np.uint8])
    to_pillow(sheet).save("sheet.png")
    save_image(sheet, Path("sheet.webp"))
    save_animation(sweep[0], Path("turn.gif"), frames_per_second=12.0)
    save_video(sweep[0], Path("turn.mp4"), frames_per_second=24.0)


def models_as_files() -> None:
    info = rename_directions("netG.onnx", {0: "turn"}, {0: (-2.0, 2.0)}, output="named.onnx")
    assert_type(info, sefa_runtime.ModelInfo)
    assert_type(info.to_json(), str)
    assert_type(read_info(Path("netG.onnx")), sefa_runtime.ModelInfo)
    sealed = seal("small.onnx", Path("netG.onnx"), output="sealed.onnx", least_psnr_db=30)
    assert_type(sealed.seal, Seal | None)
    assert_type(load_codes(Path("w.npz"), (14, 512), layers=14, report=print), NDArray[np.float32])
    assert_type(load_latents(Path("z.npy")), NDArray[Any])

    verification = verify("netG.onnx", "cpu", {}, 2, checkpoint="netG.pth")
    assert_type(verification, Verification)
    assert_type(verification.ok, bool)
    assert_type(verification.findings, tuple[Finding, ...])
    assert_type(examine(), list[Check])


def exploring(editor: sefa_runtime.Editor) -> None:
    exploration = explore(
        editor,
        model="netG",
        samples=16,
        seeds=[1, 2],
        latents=np.zeros((2, 512), np.float32),
        label=3,
        truncation=0.7,
        alpha_range=(-3.0, 3.0),
        quick=True,
        progress=show,
        estimate=show,
    )
    assert_type(exploration, Exploration)
    assert_type(exploration.effects, tuple[Effect, ...])
    assert_type(exploration.effects[0].alpha_range, tuple[float, float])
    assert_type(exploration.to_dict(), dict[str, Any])
    save_exploration(exploration, "sheet.html")


def latency(editor: sefa_runtime.Editor) -> None:
    record = measure(editor, batches=[1, 8], edits=1, seconds=2.0, scenario="server", rate=100.0, seed=0, progress=show)
    assert_type(record, LatencyRecord)
    assert_type(record.results, tuple[BatchResult, ...])
    assert_type(record.to_dict(samples=True), dict[str, Any])
    before = read_record(Path("latency.json"))
    assert_type(compare_records(before, before, across_machines=True, across_models=True), Comparison)
    tuning = tune("netG.onnx", "cpu", {}, seconds=0.2, progress=show, estimate=show)
    assert_type(tuning, Tuning)
    tune("netG.onnx", ["cpu", "openvino"], variants=["half.onnx"], min_psnr_db=45, batches=[1])
    assert_type(tuning.many_callers.setting.threads, int | None)
    choice = choose("tuned.json", "netG.onnx", "many_callers")
    assert_type(choice, Choice)
    assert_type(choice.setting.arguments, dict[str, Any])


def serving() -> ASGIApp:
    settings = Settings(
        host="0.0.0.0",
        port=8000,
        grpc_port=8001,
        provider="cpu",
        provider_options={"use_tf32": "0"},
        instances=2,
        threads=1,
        allow_cpu_fallback=True,
        max_batch=16,
        max_delay_ms=2.0,
        max_queue=256,
        timeout_s=30.0,
        max_edits=64,
        max_body_mb=8.0,
        token="secret",
        cors=("https://example.org",),
        root_path="/faces",
        forwarded_allow_ips="127.0.0.1",
    )
    models = Models([HostedModel("faces", Path("faces.onnx"), settings)])
    asyncio.run(models.load())
    assert_type(models.get("faces"), HostedModel)
    assert_type(models.ready, bool)
    application = create_app(models, settings)
    asyncio.run(models.drain())
    serve(["faces=faces.onnx"], settings, report=print)
    return application


def deploying() -> None:
    triton = TritonOptions(
        gpus=1,
        cpu=False,
        instances=2,
        threads=1,
        max_batch=8,
        max_delay_ms=2.0,
        preferred_batch=(4, 8),
        max_queue=256,
        timeout_s=30.0,
        tensorrt=True,
        precision="fp16",
        engine_cache="/cache",
    )
    written = write_repository({"faces": Path("faces.onnx")}, Path("repository"), triton, force=True)
    assert_type(written, tuple[Path, ...])
    kserve = KServeOptions(
        runtime="triton",
        storage_uri="s3://models/faces",
        image=None,
        runtime_version="24.10-py3",
        gpus=1,
        cpus="2",
        memory="4Gi",
        min_replicas=0,
        max_replicas=4,
        concurrency=8,
    )
    assert_type(to_yaml(inference_service(Path("faces.onnx"), kserve, name="faces")), str)
