"""What MkDocs calls while it builds the site: pages from outside docs/, links, and a look at what the pages load."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import command_reference
import http_reference
from document_links import ROOT, spaced, to_site

# Documents outside docs/, and where their pages lie in the site.
OUTSIDE = {
    "README.md": "readme.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/results/README.md": "measurements.md",
    "examples/letters/README.md": "training-letters.md",
    "examples/letters/sources.md": "training-letters-sources.md",
}
SOURCES = {page: source for source, page in OUTSIDE.items()}
# What a document in the repository calls reference/commands.md#sefa-bank-show is a page of its own in the site.
PAGES = OUTSIDE | {
    f"docs/{command_reference.OVERVIEW}#sefa-{name.replace(' ', '-')}": command_reference.place_of(name)
    for name in command_reference.commands()
}
# And what it calls reference/python.md#sefa.load is a part of one of the pages below.
PYTHON = "reference/python"
PAGES |= {
    f"docs/{PYTHON}.md#{name}": f"{PYTHON}/{path.name}#{name}"
    for path in sorted((ROOT / "docs" / PYTHON).glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", path.read_text(), re.MULTILINE)
}
SHORT_CODE = re.compile(r"<code>([^<\s]{1,28})</code>")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*stylesheet))\b[^>]*\b(?:src|href)="(?:https?:)?//[^>]*>"""
)


def on_config(config: MkDocsConfig) -> None:
    """Put the commands' pages below their overview."""
    config.nav = _with_commands(config.nav)


def _with_commands(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_with_commands(one) for one in entry]
    if not isinstance(entry, dict):
        return entry
    ((title, content),) = entry.items()
    if content != command_reference.OVERVIEW:
        return {title: _with_commands(content)}
    groups = command_reference.panels().items()
    pages = [
        {panel.partition(" (")[0]: [{name: command_reference.place_of(name)} for name in names]}
        for panel, names in groups
    ]
    return {title: [{"All commands": content}, *pages]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and the files that documents link to."""
    linked = set[str]()
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for name in command_reference.commands():
        files.append(File.generated(config, command_reference.place_of(name), content=command_reference.page(name)))
    for file in list(files.documentation_pages()):
        linked |= to_site(file.content_string, _source(file.src_uri), file.src_uri, PAGES)[1]
    for path in sorted(linked):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a document lead to pages."""
    uri = page.file.src_uri
    if uri == command_reference.OVERVIEW:
        markdown = markdown.replace(command_reference.LIST_HERE, command_reference.overview())
    if uri == http_reference.PAGE:
        markdown = markdown.replace(http_reference.ENDPOINTS_HERE, http_reference.endpoints())
    return to_site(spaced(markdown), _source(uri), uri, PAGES)[0]


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark code that is one short word, such as an option, so that the style can keep it on one line."""
    return SHORT_CODE.sub(r'<code class="word">\1</code>', html)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would load anything from elsewhere."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        for element in LOADED.findall(path.read_text()):
            raise PluginError(f"{path.relative_to(config.site_dir)} loads something from elsewhere: {element}")


def _source(page: str) -> str:
    """Return where the document of a page lies in the repository."""
    return SOURCES.get(page, f"docs/{page}")
