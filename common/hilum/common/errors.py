"""Every error that Hilum raises on purpose: its name, the exit code of a command that it ends, and its file in `hilum/`.

    HilumError                  1  common/errors.py
    ├── ConfigError             2  common/errors.py         a study or site file is wrong: the key, and what to write instead
    ├── DataError               3  common/errors.py         the images or labels can't serve this study
    │   ├── LabelError          3  common/errors.py         a label table is wrong
    │   ├── NoRoomError         3  client/intake/sources/inbox.py         the disk of the site's state is full
    │   ├── OversizedError      3  client/intake/sources/inbox.py         one object is larger than the limit
    │   ├── MismatchError       3  client/intake/sources/inbox.py         an object is not what it was said to be
    │   └── ServiceError        3  client/intake/network/bounded_http.py  the DICOMweb service can't be used
    ├── RunError                4  common/errors.py         a run directory can't be used as asked
    │   └── DamagedError        4  common/errors.py         a stored file's hash does not match its content
    ├── FederationError         5  common/errors.py         the federation can't go on (too few sites, too late)
    │   ├── NoServerError       5  server/admin/client.py   no server of this federation runs here
    │   ├── NoAnswerError       5  server/admin/client.py   the server ended, or hung, during a call
    │   ├── LinkEnded          77  client/link/loop.py      the link can't work until someone has mended something here
    │   └── CallError           5  client/link/fleet_client.py  a call to the server did not succeed
    │       ├── CallFailed      5  client/link/fleet_client.py  it had no answer
    │       ├── Answered        5  client/link/fleet_client.py  the server refused
    │       ├── NotAServer      5  client/link/fleet_client.py  what answered is not a Hilum server
    │       └── TooLarge        5  client/link/fleet_client.py  the answer has no end
    ├── UpdateRefused           5  common/errors.py         an update failed admission; carries a reason code
    ├── RequestRefused          6  common/errors.py         a site does not do what was asked; a code of `refusals.REFUSALS`
    │   └── PolicyRefused       6  common/errors.py         its policy does not allow it
    ├── StoppedError            1  client/intake/network/shutdown.py    the command was asked to end; each says what it kept
    ├── Skip                    1  client/intake/reasons.py             a file is set aside and counted; none ends a command
    │   └── CopiesDiffer        1  client/intake/planner/assembling.py  planes that were taken for copies differ
    └── _Mend                   1  client/site_check.py     something to mend before the site can start

Outside of the tree, for no person sees them as errors. All but the first stay in their own package:

    Interrupted     common/interrupt.py       a signal ends the process (128 + its number); held up by no `except Exception`
    Refused         server/gate/refused.py    becomes an answer over HTTP, as do these two
    Malformed       server/gate/objects.py
    TooLarge        server/gate/objects.py
    _Gone           server/gate/app.py        a caller hung up
    Malformed       client/link/letters.py    a message is not worked on: dropped, or answered with a code
    TrainerDied     client/link/trainer.py    the loop starts it again, or answers with a code
    TrainerLate     client/link/trainer.py    as the three below: the answer is dropped
    _Closed         client/link/loop.py
    _NotTaken       client/link/loop.py
    _Over           client/link/loop.py
    FetchError      client/intake/network/bounded_http.py      one object is counted, and the pull goes on
    TransientError  client/intake/network/bounded_http.py      it is tried again
    UncertainValue  client/intake/headers/parsing.py           pydicom is asked
    _NoFactor       client/intake/headers/suv.py               a PET image has no SUV, and a code says why
    _Enough         client/pretraining/speed.py                a measurement has lasted long enough
    EndOfWindow     client/intake/headers/element_headers.py   the window is moved
    _Unsure         client/intake/assembly/direct_read.py      the general way of reading is taken
    _NoRoom         client/intake/sandbox/worker.py            a worker's reply says it

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
