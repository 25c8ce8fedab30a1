"""What the documentation site does with the files outside of `docs/`.

README, SECURITY, CONTRIBUTING and CHANGELOG stay where people look for them, and are pages of the site too. A link from a page
to one of them, or back, becomes a link between pages; one to any other file of the repository leads to the repository.

A line `::: hilum.client.tasks.*` in a page of the Python API stands for every module of that package, so a new file is
listed without being named.
"""

import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {
    "README.md": "overview.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?(?=\))")
_PACKAGE = re.compile(r"^::: (?P<package>[a-z_.]+)\.\*$", re.MULTILINE)
_SOURCE_OF = {page: source for source, page in ROOT_PAGES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each of the files outside of `docs/`."""
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn a page's links, which are right in the repository, into those of the site, and name each module."""
    del config, files
    return _PACKAGE.sub(_modules, site_links(markdown, page.file.src_uri))


def _modules(found: re.Match[str]) -> str:
    """Return a line for each module of a package, those of its sub-packages too."""
    package = found["package"]
    folder = ROOT / package.split(".")[1] / package.replace(".", "/")
    names = [
        ".".join([package, *file.relative_to(folder).with_suffix("").parts])
        for file in sorted(folder.rglob("*.py"))
        if not file.name.startswith("__")
    ]
    if not names:
        raise PluginError(f"no modules are found of {package}")
    return "\n\n".join(f"::: {name}" for name in names)


def site_links(markdown: str, page: str) -> str:
    """Return a page's text with the links that the site needs.

    Args:
        markdown: The text as it stands in the repository.
        page: The page's path in the site.
    """
    source = _SOURCE_OF.get(page, f"docs/{page}")

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["path"]))
        anchor = found["anchor"] or ""
        inside = ROOT_PAGES.get(target) or (
            target.removeprefix("docs/") if target.startswith("docs/") else None
        )
        if inside is not None:
            return posixpath.relpath(inside, posixpath.dirname(page) or ".") + anchor
        if (ROOT / target).exists():
            return f"{REPOSITORY}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}{anchor}"
        return found[0]  # leads nowhere, and a strict build says so

    return _LINK.sub(link, markdown)
