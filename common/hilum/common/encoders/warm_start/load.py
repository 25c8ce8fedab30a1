"""From a file to an encoder's first weights, or to one line that says why not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.common.config.encoders.resnet import SIZES as RESNET_SIZES
from hilum.common.config.encoders.vit import SIZES as VIT_SIZES
from hilum.common.encoders.base import Encoder
from hilum.common.encoders.resnet import BasicBlock, ResNet
from hilum.common.encoders.transformer import Block
from hilum.common.encoders.vit import ViT
from hilum.common.encoders.warm_start.conversion import Conversion, Facts, Style
from hilum.common.encoders.warm_start.dino import DINO
from hilum.common.encoders.warm_start.mae import MAE
from hilum.common.encoders.warm_start.own import OWN
from hilum.common.encoders.warm_start.report import KeyOutcome, WarmStartReport
from hilum.common.encoders.warm_start.source import WHERE, Source, open_source
from hilum.common.encoders.warm_start.timm import TIMM
from hilum.common.encoders.warm_start.torchvision import TORCHVISION
from hilum.common.errors import ConfigError

STYLES = (*OWN, MAE, DINO, TIMM, TORCHVISION)
"""In the order in which they are asked: timm's names are in DINO's and MAE's files too."""

_PREFIXES = (
    "",
    *(
        f"{outer}{inner}"
        for outer in ("", "teacher.", "model.", "module.", "student.")
        for inner in (
            "",
            "module.",
            "backbone.",
            "module.backbone.",
            "encoder.",
            "encoder_q.",
            "base_encoder.",
        )
    ),
)
"""What may stand before all names, those of a teacher before those of its student."""

_SHOWN = 3
_ALONE = {"patch_embed.weight", "position_table.weight", "stem.weight"}
"""Whose shapes may differ: they are adapted."""


@dataclass(frozen=True)
class Found:
    """What a file is, before any study.

    Attributes:
        file: Its name.
        sha256: Of its bytes.
        size_bytes: How large it is.
        tensors: How many it has.
        kind: Whose names it has; None if they are not known.
        family: The encoder that it may fit.
        facts: What sets its network apart, in words.
        fits: The keys of `[encoder]` that it fits; None if no size does.
    """

    file: str
    sha256: str
    size_bytes: int
    tensors: int
    kind: str | None
    family: str | None
    facts: dict[str, object]
    fits: dict[str, object] | None


def inspect_file(path: Path) -> Found:
    """Tell what a file of tensors is; arguments and errors as of `open_source`."""
    with open_source(path, None) as source, _fitting(path):
        style, inner = _style_of(source)
        facts = dict(style.facts(inner, None)) if style else {}
        return Found(
            file=path.name,
            sha256=source.sha256,
            size_bytes=path.stat().st_size,
            tensors=len(source.names),
            kind=style.kind if style else None,
            family=style.family if style else None,
            facts=facts,
            fits=_fits(style, facts) if style else None,
        )


def warm_start(encoder: Encoder, path: Path, sha256: str | None) -> WarmStartReport:
    """Give an encoder the weights of a file, as far as they fit.

    Args:
        encoder: With its first values; what the file has nothing for keeps them. Changed in place.
        path: A safetensors file.
        sha256: Of the file; None takes any.

    Raises:
        ConfigError: If there is no such file, it is a pickle, has another hash, nothing in it is known, or it is of another
            architecture.
        DamagedError: If it is not a whole safetensors file, or holds a NaN or an infinity.
    """
    with open_source(path, sha256) as source:
        style, inner = _style_of(source)
        if style is None:
            shown = ", ".join(source.names[:_SHOWN])
            problem = (
                f"nothing in {path.name} matches: none of its {len(source.names)} tensors ({shown}, ...) has a name of timm, DINO, "
                "MAE, torchvision or Hilum; `hilum encoders inspect` says what a file is"
            )
            raise ConfigError(WHERE, [problem])
        with _fitting(path):
            numbers, tensors = _architecture(style, inner, encoder)
            if numbers or tensors:
                raise _another(path, style, inner, numbers + tensors, numbers=bool(numbers))
            out = Conversion(inner)
            style.convert(out, encoder)
        for name in inner.outside:
            out.keys.append(KeyOutcome(name, None, "left", "outside of the encoder"))
        own = encoder.state_dict()
        missing = [name for name in own if name not in out.tensors and name not in out.optional]
        found = [f"{inner.stored(name)} has no place in the study's network" for name in out.homeless]
        found += [f"{name} has nothing in the file" for name in missing]
        found += [
            f"{name} would be {tuple(tensor.shape)}, is {tuple(own[name].shape)} in the study"
            for name, tensor in out.tensors.items()
            if tensor.shape != own[name].shape
        ]
        if found:
            raise _another(path, style, inner, found, numbers=False)
    encoder.load_state_dict({**own, **out.tensors})
    return WarmStartReport(
        path.name,
        source.sha256,
        style.kind,
        tuple(sorted(out.keys, key=lambda one: one.source)),
        tuple(name for name in own if name not in out.tensors),
        tuple(out.notes),
    )


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Refuse a file whose names are known, over shapes that no network of theirs has.

    Raises:
        ConfigError: If something inside the block stumbles over them.
    """
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, ValueError):
        problem = f"{path.name}: its tensors do not fit each other; take another file"
        raise ConfigError(WHERE, [problem]) from None


def _style_of(source: Source) -> tuple[Style | None, Source]:
    """Return the style of a file, and the file under the prefix that its names have."""
    for prefix in dict.fromkeys(_PREFIXES):
        inner = source.under(prefix)
        for style in STYLES:
            if style.recognises(inner.names):
                return style, inner
    return None, source


def _architecture(style: Style, source: Source, encoder: Encoder) -> tuple[list[str], list[str]]:
    """Return what sets the file's network apart from the encoder, in numbers, and tensor by tensor."""
    family, own = facts_of(encoder)
    if style.family != family:
        return [f'encoder.name = "{style.family}" in the file, "{family}" in the study'], []
    numbers, found, facts = [], [], style.facts(source, encoder)
    for word, value in facts.items():
        inflated = word == "dimensions" and (value, own[word]) == (2, 3)
        if value != own[word] and not inflated:
            numbers.append(f"{word} {_words(value)} in the file, {_words(own[word])} in the study")
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    for name in source.names:
        target = style.target(name, encoder)
        if target is None or target in _ALONE or target.endswith(("running_mean", "running_var")):
            continue
        shape, wanted = source.shape(name), shapes.get(target)
        if wanted is None:
            found.append(f"{source.stored(name)} has no place in the study's network")
        elif shape != wanted[: len(shape)]:
            found.append(f"{source.stored(name)} is {shape} in the file, {wanted} in the study")
    return numbers, found


def facts_of(encoder: Encoder) -> tuple[str, Facts]:
    """Return an encoder's name, and what sets it apart from others of that name.

    Raises:
        ConfigError: If there is no style for it.
    """
    if isinstance(encoder, ViT):
        first = encoder.blocks[0]
        assert isinstance(first, Block)
        return "vit", {
            "width": encoder.width,
            "depth": len(encoder.blocks),
            "patch size": encoder.patch_size,
            "dimensions": encoder.dims,
            "width of the MLP": 4 * encoder.width,
            "heads": first.attention.heads,
        }
    if not isinstance(encoder, ResNet):
        raise ConfigError(
            WHERE, ["no kind of file is known that this encoder could start from; leave [encoder.init] out"]
        )
    return "resnet", {
        "width": encoder.stem.out_channels,
        "blocks in each stage": tuple(encoder.depths),
        "convolutions in a block": 2 if encoder.block is BasicBlock else 3,
        "dimensions": encoder.dims,
    }


def _fits(style: Style, facts: Facts) -> dict[str, object] | None:
    """Return the keys of `[encoder]` for a network of these facts; None if no size is like it."""
    if style.family == "vit":
        for size, (width, depth, _) in VIT_SIZES.items():
            if (width, depth) == (facts["width"], facts["depth"]):
                return {"name": "vit", "size": size, "patch_size": facts["patch size"]}
        return None
    for size, shape in RESNET_SIZES.items():
        own = (shape.stem_width, shape.depths, len(shape.kernels))
        if own == (facts["width"], facts["blocks in each stage"], facts["convolutions in a block"]):
            return {"name": "resnet", "size": size}
    return None


def _another(path: Path, style: Style, source: Source, found: list[str], *, numbers: bool) -> ConfigError:
    """Say which network a file holds instead, by the first differences, and what to write for it.

    Args:
        path: The file.
        style: Its style.
        source: The file, opened.
        found: The differences.
        numbers: Whether there are some in width, depth and their like, so that another size may do.
    """
    more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
    fits = _fits(style, style.facts(source, None))
    if not numbers:
        advice = "take another file"
    elif fits is None:
        advice = f'no size of encoder.name = "{style.family}" is like it; take another file'
    else:
        keys = ((key, f'"{value}"' if isinstance(value, str) else value) for key, value in fits.items())
        advice = "write " + ", ".join(f"encoder.{key} = {value}" for key, value in keys)
    problem = f"{path.name} is of another architecture: {'; '.join(found[:_SHOWN])}{more}; {advice}"
    return ConfigError(WHERE, [problem])


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
