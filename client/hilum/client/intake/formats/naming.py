"""Which names an annotation may carry into the catalogue.

Text in a DICOM object may name a person, so it never enters. What enters is a name that the site chose in its label map,
a code of a standard vocabulary, or a whole number. Names in the site's own tables (CSV, COCO) are the site's choice
already and enter as they are.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hilum.client.intake.reasons import Reason, Skip
from hilum.common.errors import ConfigError

_NAME = re.compile(r"[\w .:/+()-]{1,64}")
_MAX_MAP_BYTES = 1 << 20
# The form of a code in each standard scheme (PS3.16 table 8-1), so that no free text passes as a code. A SNOMED CT
# concept ends in a partition 00 or 10 and a check digit.
_CODES = {
    "SCT": re.compile(r"\d{3,15}[01]0\d"),
    "SRT": re.compile(r"[A-Z]-[0-9A-F]{4,6}"),
    "SNM3": re.compile(r"[A-Z]-[0-9A-F]{4,6}"),
    "DCM": re.compile(r"\d{6}"),
    "FMA": re.compile(r"\d{1,6}"),
    "RADLEX": re.compile(r"RID\d{1,6}"),
    "NCIt": re.compile(r"C\d{1,6}"),
}


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8.8), not yet trusted.

    Attributes:
        modifier: What narrows it, such as the side of the body, or None.
    """

    scheme: str
    value: str
    modifier: "Code | None" = None

    @property
    def standard(self) -> bool:
        """Whether it has the form of a code of a standard scheme."""
        form = _CODES.get(self.scheme)
        return form is not None and form.fullmatch(self.value) is not None

    @property
    def written(self) -> str:
        """As label maps have it: `scheme:value`, and `+scheme:value` of a standard modifier."""
        side = self.modifier
        return f"{self.scheme}:{self.value}" + (
            f"+{side.written}" if side is not None and side.standard else ""
        )


@dataclass(frozen=True)
class LabelMap:
    """Names as found, folded to lower case, to the names that the site wants."""

    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def of_object(self, text: str, code: Code | None) -> str:
        """Return the label of a segment or region of interest: its code mapped, its text mapped, or the standard code.

        Raises:
            Skip: If there is only text, and the map does not name it.
        """
        plain = f"{code.scheme}:{code.value}" if code is not None else ""
        for name in (code.written if code is not None else "", plain, text):
            if name.strip() and _folded(name) in self.names:
                return self.names[_folded(name)]
        if code is not None and code.standard:
            return code.written
        raise Skip(Reason.UNMAPPED_LABEL)

    def of_value(self, value: int) -> str:
        """Return the label of a voxel value: as mapped, or the number."""
        return self.names.get(str(value), str(value))

    def of_table(self, text: str) -> str:
        """Return the label of a row in the site's own table: as mapped, or as written.

        Raises:
            Skip: If it is not a short name.
        """
        mapped = self.names.get(_folded(text), text.strip())
        if _NAME.fullmatch(mapped) is None:
            raise Skip(Reason.UNMAPPED_LABEL)
        return mapped


def read_label_map(path: Path) -> LabelMap:
    """Read the `[labels]` table of a TOML file: found name to wanted name.

    Raises:
        ConfigError: If it can't be read or is no such table.
    """
    try:
        if path.stat().st_size > _MAX_MAP_BYTES:
            raise ConfigError(path.name, ["a label map has at most 1 MiB"])
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path.name, [f"the label map can't be read ({error.strerror})"]) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        raise ConfigError(
            path.name, ['the label map is not TOML; write [labels] and lines of "found" = "name"']
        ) from None
    labels = table.get("labels")
    if set(table) != {"labels"} or not isinstance(labels, dict) or not labels:
        raise ConfigError(path.name, ["a label map has one table, [labels], with at least one line"])
    for number, wanted in enumerate(labels.values(), start=1):
        if not isinstance(wanted, str) or _NAME.fullmatch(wanted) is None:
            raise ConfigError(
                path.name,
                [f"entry {number} of [labels]: write a name of at most 64 letters, digits or signs"],
            )
    folded = {_folded(found): wanted for found, wanted in labels.items()}
    if len(folded) != len(labels):
        raise ConfigError(path.name, ["two entries of [labels] differ only in case or spaces; keep one"])
    return LabelMap(folded)


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()
