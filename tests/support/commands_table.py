"""The tables of `docs/reference/commands.md`, made of the command line itself.

    python tests/support/commands_table.py

prints them.
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
        own = [(name, command)] if getattr(command, "invoke_without_command", False) else []
        return own + [found for word, one in inner.items() for found in walk(one, f"{name} {word}")]

    return dict(sorted(walk(typer.main.get_command(build()), "hilum")))


def table() -> str:
    """All commands in one table, then each with its arguments and options."""
    commands = commands_of_hilum()
    rows = [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {_help(command)[0]} |"
        for name, command in commands.items()
    ]
    overview = "\n".join(["| command | what it does |", "| --- | --- |", *rows])
    return "\n\n".join([overview, *(_section(name, command) for name, command in commands.items())])


def _section(name: str, command: click.Command) -> str:
    parameters = [one for one in command.params if "--help" not in one.opts]
    usage = " ".join([name, *(_word(one) for one in parameters if _is_argument(one)), "[OPTIONS]"])
    if all(_is_argument(one) for one in parameters):
        usage = usage.removesuffix(" [OPTIONS]")
    parts = [f"## {name}", f"    {usage}", *_help(command)]
    if parameters:
        parts.append(
            "\n".join(["| | what it says | default |", "| --- | --- | --- |", *map(_row, parameters)])
        )
    return "\n\n".join(parts)


def _row(parameter: click.Parameter) -> str:
    if _is_argument(parameter):
        names = _word(parameter).strip("[]").rstrip(".")
    else:
        names = ", ".join(one for one in parameter.opts if one.startswith("--"))
    said = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    if isinstance(parameter.type, click.Choice):
        said = f"{said} One of {', '.join(f'`{one}`' for one in parameter.type.choices)}.".strip()
    if parameter.multiple and "again" not in said and "repeatable" not in said:
        said = f"{said} May be given again."
    return f"| `{names}` | {said} | {_default(parameter)} |"


def _default(parameter: click.Parameter) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, False, (), []) or callable(parameter.default):
        return ""
    return f"`{parameter.default}`"


def _word(parameter: click.Parameter) -> str:
    """An argument in capitals, in brackets where it can be left out."""
    word = (parameter.metavar or parameter.name or "").strip("[]").upper().rstrip(".")
    return word if parameter.required else f"[{word}]"


def _is_argument(parameter: click.Parameter) -> bool:
    return parameter.param_type_name == "argument"


def _help(command: click.Command) -> list[str]:
    """The help's paragraphs, each in one line."""
    return [" ".join(one.split()) for one in (command.help or "").split("\n\n")]


if __name__ == "__main__":
    print(table())
