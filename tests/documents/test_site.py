"""The documentation's links, which lead to files in the repository and to pages in the site."""

import pytest

from document_links import spaced, to_site

PAGES = {
    "README.md": "readme.md",
    "examples/letters/README.md": "letters.md",
    "docs/reference/commands.md#sefa-edit": "reference/commands/edit.md",
}


@pytest.mark.parametrize(
    ("source", "page", "text", "expected"),
    [
        ("README.md", "readme.md", "[serve](docs/serve.md#limits)", "[serve](serve.md#limits)"),
        ("README.md", "readme.md", "![a sheet](docs/sheet.webp)", "![a sheet](sheet.webp)"),
        ("docs/serve.md", "serve.md", "[all](../README.md)", "[all](readme.md)"),
        ("docs/guides/gpu.md", "guides/gpu.md", "[all](../../README.md#x)", "[all](../readme.md#x)"),
        ("docs/serve.md", "serve.md", "[`sefa`](../sefa/) and [`x`](deploy.md)", "`sefa` and [`x`](deploy.md)"),
        ("docs/serve.md", "serve.md", "[here](#limits), [there](https://example.org)", None),
        ("docs/serve.md", "serve.md", "`a[0](README.md)`", None),
        ("docs/serve.md", "serve.md", "```python\na[0](../README.md)\n```\n", None),
        ("README.md", "readme.md", "[![b](docs/page.webp)](docs/serve.md)", "[![b](page.webp)](serve.md)"),
        ("README.md", "a/b.md", "[e](docs/reference/commands.md#sefa-edit)", "[e](../reference/commands/edit.md)"),
        ("README.md", "b.md", "[e](docs/reference/commands.md#exit-codes)", "[e](reference/commands.md#exit-codes)"),
        ("docs/serve.md", "serve.md", "[no](nowhere.md)", None),
    ],
)
def test_links(source: str, page: str, text: str, expected: str | None) -> None:
    assert to_site(text, source, page, PAGES) == (text if expected is None else expected, set())


def test_linked_files_of_the_repository_come_along() -> None:
    text, files = to_site("[r](../benchmarks/results/README.md) [l](../LICENSE)", "docs/a/b.md", "a/b.md", PAGES)
    assert files == set()
    text, files = to_site("[l](../../LICENSE) [m](../../Makefile)", "docs/a/b.md", "a/b.md", PAGES)
    assert (text, files) == ("[l](../files/LICENSE) [m](../files/Makefile)", {"LICENSE", "Makefile"})


def test_lists_after_text_are_lists() -> None:
    assert spaced("For StyleGANs:\n- one\n- two\n\n```\na\n- b\n```\n") == (
        "For StyleGANs:\n\n- one\n- two\n\n```\na\n- b\n```\n"
    )
    assert spaced("**Bold** (`a`).\n1. one\n2. two\n") == "**Bold** (`a`).\n\n1. one\n2. two\n"
    for unchanged in ("- one\n- two\n", "- one\n  goes on\n- two\n", "| a |\n|---|\n- x\n", "# Title\n- one\n"):
        assert spaced(unchanged) == unchanged
