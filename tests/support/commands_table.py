"""The table of `docs/reference/commands.md`, made of the command line itself.

    python tests/support/commands_table.py

prints it.
"""

import click
import typer

from hilum.common.cli import build


def commands_of_hilum() -> dict[str, click.Command]:
    """Every command by its full name."""

    def walk(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
        inner = getattr(command, "commands", None)
        if not inner:
            return [(name, command)]
        return [found for word, one in inner.items() for found in walk(one, f"{name} {word}")]

    return dict(sorted(walk(typer.main.get_command(build()), "hilum")))


def row(name: str, command: click.Command) -> str:
    """One line: arguments in capitals, options that can be left out in brackets."""
    words = [name]
    for parameter in command.params:
        optional = not parameter.required
        if parameter.param_type_name == "argument":
            word = (parameter.metavar or parameter.name or "").strip("[]").upper().rstrip(".")
        else:
            word = next((option for option in parameter.opts if option.startswith("--")), "")
            if word == "--help":
                continue
        words.append(f"[{word}]" if optional else word)
    help_line = " ".join((command.help or "").split("\n\n")[0].split())
    return f"| `{' '.join(words)}` | {help_line} |"


def table() -> str:
    """All rows."""
    return "\n".join(row(name, command) for name, command in commands_of_hilum().items())


if __name__ == "__main__":
    print(table())
