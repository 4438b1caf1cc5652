"""What MkDocs calls while it builds the site: pages from outside docs/, links, and a look at what the pages load."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

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
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*stylesheet))\b[^>]*\b(?:src|href)="(?:https?:)?//[^>]*>"""
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and the files that documents link to."""
    linked = set[str]()
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for file in list(files.documentation_pages()):
        linked |= to_site(file.content_string, _source(file.src_uri), file.src_uri, OUTSIDE)[1]
    for path in sorted(linked):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a document lead to pages."""
    uri = page.file.src_uri
    return to_site(spaced(markdown), _source(uri), uri, OUTSIDE)[0]


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would load anything from elsewhere."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        for element in LOADED.findall(path.read_text()):
            raise PluginError(f"{path.relative_to(config.site_dir)} loads something from elsewhere: {element}")


def _source(page: str) -> str:
    return SOURCES.get(page, f"docs/{page}")
