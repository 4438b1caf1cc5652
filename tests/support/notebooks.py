"""Run a notebook's code cells in order in one process, without Jupyter.

    python tests/support/notebooks.py docs/tour.ipynb

Prints each cell's outputs as JSON; with `--write` puts them into the notebook instead. What a cell prints and the value
of its last line are its outputs, as in Jupyter, of images a JPEG. Magics and top-level `await` are not for it.
"""

import ast
import base64
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

Outputs = list[dict[str, Any]]


def execute(notebook: Path, folder: Path) -> list[Outputs]:
    """Return the outputs of a notebook's code cells, run in a fresh process that stands in `folder`.

    Raises:
        AssertionError: If a cell fails; the message is its traceback.
    """
    command = [sys.executable, "-W", "error", __file__, str(notebook.resolve())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    outputs: list[Outputs] = json.loads(done.stdout)
    return outputs


def code_cells(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells that are run."""
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def run_cells(document: dict[str, Any]) -> list[Outputs]:
    """Run all code cells in this process."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_run(number, "".join(cell["source"]), names) for number, cell in enumerate(code_cells(document), 1)]


def _run(number: int, source: str, names: dict[str, Any]) -> Outputs:
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    value = None
    printed = io.StringIO()
    with redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs: Outputs = []
    if printed.getvalue():
        outputs.append(
            {"name": "stdout", "output_type": "stream", "text": printed.getvalue().splitlines(keepends=True)}
        )
    if value is not None:
        result = {"data": _data(value), "execution_count": number, "metadata": {}, "output_type": "execute_result"}
        outputs.append(result)
    return outputs


def _data(value: Any) -> dict[str, Any]:
    """Return a value in the forms that a notebook stores."""
    if hasattr(value, "_repr_jpeg_"):
        return {
            "image/jpeg": base64.b64encode(value._repr_jpeg_()).decode() + "\n",
            "text/plain": [f"<image of {value.width}x{value.height} pixels>"],
        }
    return {"text/plain": repr(value).splitlines(keepends=True)}


def main() -> None:
    """Run the notebook that is named on the command line."""
    path = Path(sys.argv[1])
    document = json.loads(path.read_text())
    outputs = run_cells(document)
    if "--write" not in sys.argv:
        json.dump(outputs, sys.stdout)
        return
    for number, (cell, given) in enumerate(zip(code_cells(document), outputs, strict=True), 1):
        cell |= {"execution_count": number, "outputs": given}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
