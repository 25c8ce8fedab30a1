"""Every error that Hilum raises on purpose.

    HilumError
    ├── ConfigError        a study or site file is wrong: it names the key and what to write instead
    ├── DataError          the images or labels can't serve this study
    │   └── LabelError     a label table is wrong
    ├── RunError           a run directory can't be used as asked
    │   └── DamagedError   a stored file's hash does not match its content
    ├── FederationError    the federation can't go on (too few sites, too late)
    ├── UpdateRefused      an update failed admission; carries a reason code
    └── RequestRefused     a site does not do what was asked; carries a code of `refusals.REFUSALS`
        └── PolicyRefused  its policy does not allow it

A message says what was expected, what was found and what to do. It never holds a patient's identifier, nor a
file name from inside an archive.
"""


class HilumError(Exception):
    """The root: anything below it is shown to the user as one line."""

    exit_code = 1


class ConfigError(HilumError):
    """A study or site file is wrong. `problems` holds one line for each thing to mend."""

    exit_code = 2

    def __init__(self, source: str, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more: `hilum study check` lists all)" if len(problems) > 1 else ""
        super().__init__(f"{source}: {problems[0]}{more}")
        self.source = source
        self.problems = problems

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, list[str]]]:
        """Rebuild from both arguments, so that the error survives a trip through a worker process."""
        return ConfigError, (self.source, self.problems)


class DataError(HilumError):
    """The images or labels at hand can't serve what was asked."""

    exit_code = 3


class LabelError(DataError):
    """A label table names an unknown image, lacks a column, or contradicts itself.

    Args:
        message: What is wrong, without any cell of the table.
        cells: The cells in question, for the one who asked on the spot. A log gets `message` alone.
    """

    def __init__(self, message: str, cells: str = "") -> None:
        super().__init__(f"{message}: {cells}" if cells else message)
        self.message = message
        self.cells = cells

    def __reduce__(self) -> tuple[type["LabelError"], tuple[str, str]]:
        """Rebuild from both arguments, so that the error survives a trip through a worker process."""
        return LabelError, (self.message, self.cells)


class RunError(HilumError):
    """A run directory can't be used as asked; nothing in it was changed."""

    exit_code = 4


class DamagedError(RunError):
    """A stored file does not have the content it was written with."""


class FederationError(HilumError):
    """The federation can't go on."""

    exit_code = 5


class UpdateRefused(HilumError):  # noqa: N818 - the field's word for what happened to the update
    """An update failed admission.

    Args:
        reason: A stable code, such as `not_finite` or `wrong_size`.
        detail: What was expected and what was found; numbers only.
    """

    exit_code = 5

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UpdateRefused"], tuple[str, str]]:
        """Rebuild from both arguments, so that the error survives a trip through a worker process."""
        return UpdateRefused, (self.reason, self.detail)


class RequestRefused(HilumError):  # noqa: N818 - likewise
    """A site does not do what was asked.

    Args:
        code: Of `hilum.common.refusals.REFUSALS`: all that leaves the site.
        detail: For the site's own log.
    """

    exit_code = 6

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type["RequestRefused"], tuple[str, str]]:
        """Rebuild from both arguments, so that the error survives a trip through a worker process."""
        return type(self), (self.code, self.detail)


class PolicyRefused(RequestRefused):
    """The site's policy does not allow what was asked; the message names the limit."""
