"""One model loaded several times, for runs at the same time on shares of the cores."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sefa_runtime.editor import Editor, load
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
    warm: bool = True,
) -> list[Editor]:
    """Load a model for `count` runs at the same time, and generate an image with each.

    A session without threads of its own runs on the threads that call it, any number at a time: instances of one thread
    on the CPU share one copy of the weights.

    Args:
        path: As `load`, which also says what this raises.
        count: Number of instances, each to be called by one thread.
        provider: As `load`.
        provider_options: As `load`.
        threads: Of one instance; None gives each its share of the cores.
        allow_cpu_fallback: As `load`.
        warm: Whether to generate images; if not, `warm_up` should follow.

    Returns:
        An editor for each instance; the same one again if they share it.
    """
    if count > 1 and threads is None:
        threads = max(1, usable_cores() // count)

    def load_one() -> Editor:
        return load(path, provider, provider_options, threads, allow_cpu_fallback=allow_cpu_fallback)

    first = load_one()
    shared = first.provider == "cpu" and threads == 1
    editors = [first, *(first if shared else load_one() for _ in range(count - 1))]
    if warm:
        warm_up(editors)
    return editors


def warm_up(editors: Iterable[Editor]) -> None:
    """Generate an image with each of a model's instances.

    A run that fails, and the memory and code that only a run brings in, belong before the first request.

    Raises:
        RunError: As `Editor.run`.
    """
    for editor in {id(editor): editor for editor in editors}.values():
        editor.infer(neutral_inputs(editor.info.signature))
