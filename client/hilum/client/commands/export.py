"""`hilum site export`."""

from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, print_json


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="A finished run, the `encoder` folder of one, or the folder of a fine-tuned model.",
            readable=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Where to write; new or empty.", readable=False)],
    to: Annotated[
        list[str],
        typer.Option("--to", help="onnx, torch, monai, timm or safetensors. May be given again."),
    ],
    licence: Annotated[
        str | None, typer.Option("--licence", help="Under which the weights may be used, such as CC-BY-4.0.")
    ] = None,
    description: Annotated[
        list[Path] | None,
        typer.Option(
            "--description",
            help="What `hilum site describe --json` printed, for the card. May be given again.",
            readable=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an encoder or a model as ONNX, a torch program, a MONAI bundle, timm's names or safetensors, each checked."""
    from hilum.client.export.formats import export as write_formats

    said = write_formats(source, out, to, licence=licence, descriptions=description or ())
    if as_json:
        print_json({"out": str(out), "written": said})
        return
    print(f"written to {out}:")
    for line in said:
        print(f"  {line}")
