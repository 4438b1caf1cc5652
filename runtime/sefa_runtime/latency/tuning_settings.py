"""The settings that `sefa tune` tries."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from sefa_runtime.session.tuned import Setting

# What OpenVINO's `precision=BF16` would be, which it refuses on CPUs: it is a setting of its own library.
BF16 = {"load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}})}
# CPUs with one of these multiply in bfloat16.
BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
EXHAUSTIVE = {"cudnn_conv_algo_search": "EXHAUSTIVE"}
NHWC = {"prefer_nhwc": "1"}
CUDA_GRAPH = {"enable_cuda_graph": "1"}
SPIN = {"session.intra_op.spin_duration_us": "2000"}
# Of a StyleGAN2, the layers up to 8x8 or 16x16 pixels, a few percent of the work.
CONVOLUTIONS_ON_CPU = (8, 4, 0)
# In words, where the option's own name says little.
WORDS = {tuple(BF16.items()): "bf16"}
# The order of preference among equals: `auto` takes CUDA where it works, else the CPU.
PREFERENCE = ("cuda", "cpu", "tensorrt", "openvino")


def kinds(provider: str, model: str, extensions: Collection[str]) -> list[Setting]:
    """Return the ways in which a provider can compute a model, the default first.

    Args:
        provider: Its short name.
        model: The model's file.
        extensions: The CPU's vector and matrix instructions.
    """
    plain = Setting(model, provider)
    match provider:
        case "cpu":  # Static shapes change nothing, and it has no other precision.
            return [plain]
        case "cuda":
            choices = (EXHAUSTIVE, NHWC, CUDA_GRAPH, NHWC | EXHAUSTIVE, NHWC | EXHAUSTIVE | CUDA_GRAPH)
            faster = [replace(plain, options=options) for options in choices]
            return [
                plain,
                *faster,
                *(replace(kind, options={**kind.options, "use_tf32": "1"}) for kind in (plain, faster[-1])),
            ]
        case "tensorrt":
            half = replace(plain, options={"trt_fp16_enable": "1"})
            return [plain, replace(plain, batch=1), half, replace(half, batch=1)]
        case "openvino":
            static = replace(plain, batch=1)
            found = [plain, static]
            if BF16_INSTRUCTIONS & set(extensions):  # Of equals, the first is taken: the one that is more precise.
                half = replace(static, options=BF16)
                first = [replace(half, styles_on_cpu=True, convolutions_on_cpu=count) for count in CONVOLUTIONS_ON_CPU]
                found += [*first, half]
            return found
    return [plain, replace(plain, batch=1)]


def arrangements(kind: Setting, cores: int) -> list[Setting]:
    """Return a kind with different numbers of threads and instances, the default first.

    Args:
        kind: One of `kinds`.
        cores: How many cores the process may use.
    """
    if kind.provider not in ("cpu", "openvino"):
        return [kind, replace(kind, instances=2)]
    counts = [*(1 << power for power in range(16) if 1 << power < cores), cores]
    settings = [replace(kind, threads=threads) for threads in reversed(counts)]
    if kind.provider == "cpu" and cores > 1 and not set(SPIN) & set(kind.options):
        settings.append(replace(kind, threads=cores, options={**kind.options, **SPIN}))
    more = [replace(kind, instances=count, threads=max(1, cores // count)) for count in counts if count > 1]
    return settings + more


def in_order(providers: Sequence[str]) -> list[str]:
    """Return providers in the order in which `auto` would prefer them."""
    return sorted(providers, key=lambda name: PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE))


def in_words(setting: Setting) -> str:
    """Describe how a setting computes: `static shapes, bf16, styles on the CPU`; empty for the default."""
    options = setting.options
    known = [words for items, words in WORDS.items() if set(items) <= set(options.items())]
    hidden = {key for items, words in WORDS.items() if words in known for key, _ in items}
    words = ["static shapes"] if setting.batch else []
    words += known + [f"{key}={value}" for key, value in options.items() if key not in hidden]
    first = f" and {setting.convolutions_on_cpu} convolutions" if setting.convolutions_on_cpu else ""
    words += [f"styles{first} on the CPU"] if setting.styles_on_cpu else []
    return ", ".join(words)


def described(setting: Setting) -> str:
    """Describe a setting in words: `openvino, bf16, 2 instances of 1 thread`."""
    words = f"{setting.instances} instance{'s' if setting.instances > 1 else ''}"
    if setting.threads is not None:
        words += f" of {setting.threads} thread{'s' if setting.threads > 1 else ''}"
    return ", ".join(filter(None, [setting.provider, in_words(setting), words]))
