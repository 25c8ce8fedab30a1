"""Pages that tell how something is added, carried out on a copy of the sources.

A fenced block with a title is a file: `python` and `toml` blocks are new ones, `diff` blocks change a file that is there.
A line of `@@` in a diff stands for anything. A `console` block holds commands, each after `$`, and words that they print.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from places import ROOT

PORTIONS = ("common", "client", "server", "simulations")
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """What a page has one do.

    Attributes:
        files: New files by name, relative to the sources or, without a folder, to where commands run.
        changes: Diffs by name of the file.
        commands: Each command, and the lines that it prints among others.
    """

    files: dict[str, str]
    changes: dict[str, str]
    commands: list[tuple[list[str], list[str]]]


def read_page(path: Path) -> Page:
    """Read the blocks of a page."""
    files, changes, commands = {}, {}, []
    for kind, title, content in _BLOCK.findall(path.read_text()):
        if kind == "console":
            for line in content.splitlines():
                if line.startswith("$ "):
                    commands.append((line[2:].split(), []))
                else:
                    commands[-1][1].append(line)
        elif kind == "diff":
            assert title not in changes, f"{title} is changed in two blocks"
            changes[title] = content
        elif title:
            files[title] = content
    return Page(files, changes, commands)


def apply_to_copy(page: Page, folder: Path) -> Path:
    """Copy the sources into a folder and change them as the page says; return the copy."""
    for portion in PORTIONS:
        shutil.copytree(ROOT / portion, folder / portion, ignore=shutil.ignore_patterns("__pycache__"))
    for name, content in page.files.items():
        path = folder / name
        assert not path.exists(), f"{name} is there already"
        path.write_text(content)
    for name, diff in page.changes.items():
        path = folder / name
        path.write_text(changed(path.read_text(), diff, name))
    return folder


def changed(text: str, diff: str, name: str) -> str:
    """Apply a diff without line numbers; what it expects must be there once."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
        assert text.count(before) == 1, f"{name} has this {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    return text
