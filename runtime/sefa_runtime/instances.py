"""One model loaded several times, to make concurrent runs that share the cores."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sefa_runtime.editor import PREFIX_MB, Editor, load
from sefa_runtime.inputs.examples import neutral_inputs
from sefa_runtime.machine.cores import usable_cores


def load_instances(
    path: str | Path,
    count: int,
    provider: str = "auto",
    provider_options: Mapping[str, object] | None = None,
    threads: int | None = None,
    *,
    allow_cpu_fallback: bool = False,
    prefix_mb: float = PREFIX_MB,
    warm: bool = True,
    batch: int | None = None,
    styles_on_cpu: bool = False,
    convolutions_on_cpu: int = 0,
) -> list[Editor]:
    """Load a model for `count` concurrent runs, and generate an image with each instance.

    A session without its own threads runs on the threads that call it, any number at a time, so instances of one thread
    on the CPU share one copy of the weights.

    Args:
        path: As for `load`, which also lists the errors.
        count: Number of instances, each to be called by one thread.
        provider: As for `load`.
        provider_options: As for `load`.
        threads: Threads per instance; None gives each its share of the cores.
        allow_cpu_fallback: As for `load`.
        prefix_mb: As for `load`, but of all instances together.
        warm: Whether to generate the images; if not, call `warm_up` afterwards.
        batch: As for `load`.
        styles_on_cpu: As for `load`.
        convolutions_on_cpu: As for `load`.

    Returns:
        One editor per instance; the same one repeated if they share it.
    """
    if count > 1 and threads is None:
        threads = max(1, usable_cores() // count)

    one_for_all = threads == 1 and provider.lower() in ("auto", "cpu")
    each_mb = prefix_mb if one_for_all else prefix_mb / count

    def load_one() -> Editor:
        return load(
            path,
            provider,
            provider_options,
            threads,
            allow_cpu_fallback=allow_cpu_fallback,
            prefix_mb=each_mb,
            batch=batch,
            styles_on_cpu=styles_on_cpu,
            convolutions_on_cpu=convolutions_on_cpu,
        )

    first = load_one()
    shared = first.provider == "cpu" and threads == 1
    editors = [first, *(first if shared else load_one() for _ in range(count - 1))]
    if warm:
        warm_up(editors)
    return editors


def warm_up(editors: Iterable[Editor]) -> None:
    """Generate an image with each of a model's instances.

    Before the first request, this finds out whether runs fail, and brings in the memory and code that they need.

    Raises:
        RunError: As `Editor.run`.
    """
    for editor in {id(editor): editor for editor in editors}.values():
        editor.infer(neutral_inputs(editor.info.signature))
