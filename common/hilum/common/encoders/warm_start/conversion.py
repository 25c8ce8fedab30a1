"""What a style makes of a file: tensors for the encoder, and what became of each of the file's own."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.warm_start.report import KeyOutcome
from hilum.common.encoders.warm_start.source import Source

Facts = Mapping[str, object]
"""What sets a network apart from others of its family, in words: width, depth, and so on."""


@dataclass
class Conversion:
    """The work of one style, as it goes on.

    Attributes:
        source: The file.
        tensors: By the encoder's names.
        keys: What became of the file's.
        homeless: Names of tensors that change what the file's network computes, and have no place in the encoder.
        optional: The encoder's tensors that a network of this kind may lack.
        notes: What no single tensor tells.
    """

    source: Source
    tensors: dict[str, Tensor] = field(default_factory=dict)
    keys: list[KeyOutcome] = field(default_factory=list)
    homeless: list[str] = field(default_factory=list)
    optional: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def take(self, name: str, target: str, tensor: Tensor | None = None, how: str = "") -> None:
        """Take a tensor of the file, as it is or in another form."""
        self.tensors[target] = self.source.tensor(name) if tensor is None else tensor
        outcome: Literal["matched", "adapted"] = "adapted" if how else "matched"
        self.keys.append(KeyOutcome(self.source.stored(name), target, outcome, how))

    def fold(self, name: str, target: str | None, how: str) -> None:
        """Note that a tensor of the file is in what another one became."""
        self.keys.append(KeyOutcome(self.source.stored(name), target, "adapted", how))

    def leave(self, name: str, why: str) -> None:
        """Note that a tensor is not taken."""
        self.keys.append(KeyOutcome(self.source.stored(name), None, "left", why))

    def reform(self, target: str, tensor: Tensor, how: str) -> None:
        """Change what was taken once more."""
        self.tensors[target] = tensor
        self.keys = [
            replace(one, outcome="adapted", how=f"{one.how}; {how}" if one.how else how)
            if one.target == target
            else one
            for one in self.keys
        ]


@dataclass(frozen=True)
class Style:
    """One way of naming the tensors of a network.

    Attributes:
        kind: Whose it is.
        family: The encoder that it may fit.
        recognises: Tells by the names whether a file is of this style.
        facts: Gives what sets the file's network apart; how to read a patch may need the study's network.
        target: Gives the encoder's name of a tensor, None if it has none.
        convert: Makes tensors for an encoder of the same facts.
    """

    kind: str
    family: Literal["vit", "resnet"]
    recognises: Callable[[Collection[str]], bool]
    facts: Callable[[Source, Encoder | None], Facts]
    target: Callable[[str, Encoder], str | None]
    convert: Callable[[Conversion, Encoder], None]
