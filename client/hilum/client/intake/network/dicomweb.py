"""Pull a DICOMweb service into the inbox: QIDO-RS says what there is, WADO-RS gives it (PS3.18 sections 10.4, 10.6).

What is in the inbox is not fetched again, so a pull that was killed goes on where it was. Objects come in the transfer
syntax in which the server keeps them. No address, UID or value of the server's is ever shown.
"""

import ipaddress
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from dicomweb_client import DICOMwebClient

from hilum.client.intake.network.bounded_http import (
    BoundedSession,
    FetchError,
    Login,
    ServiceError,
    TransientError,
    retried,
)
from hilum.client.intake.network.multipart import single_object
from hilum.client.intake.network.shutdown import StoppedError
from hilum.client.intake.sources.inbox import Inbox, MismatchError, OversizedError, is_uid
from hilum.common.errors import DataError
from hilum.common.progress import Progress

_PAGE = 500
_MAX_RESULTS = 2_000_000  # of one query: a server that never ends its list is not believed
_WORKERS = 4
_WINDOW = 64
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_STUDY, _SERIES, _SOP, _MODALITY = "0020000D", "0020000E", "00080018", "00080060"
_DATES = re.compile(r"\d{8}(-(\d{8})?)?|-\d{8}")

ProgressOf = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Wanted:
    """What to pull.

    Attributes:
        modalities: Codes such as `CT` (0008,0060); empty takes every one.
        study_date: `YYYYMMDD`, `YYYYMMDD-`, `-YYYYMMDD` or a range of two (0008,0020); empty takes every one.
        limit: Most objects to fetch in this call, or None.
    """

    modalities: tuple[str, ...] = ()
    study_date: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        if not all(re.fullmatch(r"[A-Z0-9_]{1,16}", code) for code in self.modalities):
            raise DataError("--modality takes DICOM's codes in capitals, such as CT, MR, DX or CR")
        if self.study_date and not _DATES.fullmatch(self.study_date):
            raise DataError(
                "--study-date takes YYYYMMDD, or a range such as 20240101-20241231, 20240101- or -20241231"
            )
        if self.limit is not None and self.limit < 1:
            raise DataError("--limit takes a whole number above 0")


@dataclass(frozen=True)
class PullReport:
    """What one call did.

    Attributes:
        listed: Objects that the server named.
        had: Of those, in the inbox before.
        fetched: Of those, fetched now.
        failed: Of those, how many could not be had, by code.
        fetched_bytes: Size of what was fetched.
    """

    listed: int
    had: int
    fetched: int
    failed: dict[str, int]
    fetched_bytes: int


@dataclass(frozen=True)
class _Object:
    study: str
    series: str
    sop: str


def check_address(url: str, *, insecure_http: bool) -> str:
    """Return the service's address without a slash at its end.

    Raises:
        DataError: If it is not an address, holds a password, or would send the data unencrypted.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise DataError("the address is malformed; expected such as https://pacs.example/dicom-web") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise DataError("the address is malformed; expected such as https://pacs.example/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise DataError(
            "the address holds a user or password, which other users can see; put it in --token-file"
        )
    if parts.scheme == "http" and not insecure_http and not _is_loopback(host):
        raise DataError(
            "http:// sends patient data unencrypted; use https://, or --insecure-http on a network that protects it"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authorization(token: str) -> str:
    """Return the header for a token; `Basic ...` and `Bearer ...` are taken as they stand.

    Raises:
        DataError: If it is empty or has characters that a header can't.
    """
    text = token.strip()
    if not text or not text.isascii() or not text.isprintable():
        raise DataError(
            "the token is empty, or has characters that no token has; it is one line of plain text"
        )
    return text if text.startswith(("Bearer ", "Basic ")) else f"Bearer {text}"


def pull(
    url: str,
    login: Login,
    wanted: Wanted,
    inbox: Inbox,
    show: ProgressOf,
    stop: threading.Event,
) -> PullReport:
    """List what the service has, and fetch what the inbox lacks.

    Args:
        url: From `check_address`.
        login: For the service.
        wanted: What to pull.
        inbox: Where it goes.
        show: Gives a progress bar for a title and a total.
        stop: Ends the pull between two objects.

    Raises:
        ServiceError: If the service can't be used; what was fetched stays.
        NoRoomError: If the disk is nearly full.
        StoppedError: If `stop` was set.
    """
    with BoundedSession(login, stop) as session:
        puller = _Puller(url, session, wanted, inbox)
        missing = puller.list_missing()
        with show("fetching", len(missing)) as progress:
            puller.fetch_all(missing, progress)
    return puller.report()


class _Puller:
    def __init__(self, url: str, session: BoundedSession, wanted: Wanted, inbox: Inbox) -> None:
        self.url, self.session, self.wanted, self.inbox = url, session, wanted, inbox
        self.client = DICOMwebClient(url, session=session, permissive_uid=True)
        self.client.set_http_retry_params(retry=False)
        self.listed = self.had = self.fetched = self.fetched_bytes = 0
        self.failed: Counter[str] = Counter()

    def report(self) -> PullReport:
        failed = dict(sorted(self.failed.items()))
        return PullReport(self.listed, self.had, self.fetched, failed, self.fetched_bytes)

    def list_missing(self) -> list[_Object]:
        """Everything that the service names and the inbox lacks, up to the limit."""
        missing: list[_Object] = []
        seen: set[str] = set()
        for one in self._objects():
            if one.sop in seen:
                continue
            seen.add(one.sop)
            self.listed += 1
            if self.inbox.has(one.sop):
                self.had += 1
            else:
                missing.append(one)
            if len(missing) == self.wanted.limit:
                break
        return missing

    def _objects(self) -> Iterator[_Object]:
        for study in self._studies():
            for series in self._series(study):
                yield from self._instances(study, series)

    def _studies(self) -> Iterator[str]:
        dates = {"StudyDate": self.wanted.study_date} if self.wanted.study_date else {}
        seen: set[str] = set()
        for modality in self.wanted.modalities or ("",):
            filters = {**dates, "ModalitiesInStudy": modality} if modality else dates
            search = partial(self.client.search_for_studies, search_filters=filters)
            for entry in self._paged(search, _STUDY):
                uid = _value(entry, _STUDY)
                if uid not in seen:
                    seen.add(uid)
                    yield uid

    def _series(self, study: str) -> Iterator[str]:
        for entry in self._paged(partial(self.client.search_for_series, study), _SERIES):
            if not self.wanted.modalities or _value(entry, _MODALITY) in self.wanted.modalities:
                yield _value(entry, _SERIES)

    def _instances(self, study: str, series: str) -> Iterator[_Object]:
        for entry in self._paged(partial(self.client.search_for_instances, study, series), _SOP):
            yield _Object(study, series, _value(entry, _SOP))

    def _paged(self, search: Callable[..., Any], tag: str) -> Iterator[dict[str, Any]]:
        """Return all pages of a query. A page without anything new ends it, so a server that knows no offset does no harm."""
        seen: set[str] = set()
        offset = 0
        while True:
            if self.session.stop.is_set():
                raise StoppedError
            page = _entries(search, offset)
            fresh = []
            for entry in page:
                uid = _value(entry, tag)
                if not is_uid(uid):
                    self.failed["bad_uid"] += 1
                elif uid not in seen:
                    seen.add(uid)
                    fresh.append(entry)
            yield from fresh
            offset += len(page)
            if not fresh:
                return
            if len(seen) > _MAX_RESULTS:
                raise ServiceError(
                    f"the server lists more than {_MAX_RESULTS} results; narrow with --study-date"
                )

    def fetch_all(self, objects: Sequence[_Object], progress: Progress) -> None:
        began, queue, done = time.monotonic(), iter(objects), 0
        with ThreadPoolExecutor(_WORKERS) as pool:
            while window := list(islice(queue, _WINDOW)):
                try:
                    for size_bytes, failure in pool.map(self._fetch_or_count, window):
                        done += 1
                        self.fetched_bytes += size_bytes
                        if failure:
                            self.failed[failure] += 1
                        else:
                            self.fetched += 1
                        progress.advance(done, self._note(done, len(objects), time.monotonic() - began))
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def _note(self, done: int, total: int, elapsed_s: float) -> str:
        rate = self.fetched_bytes / 1e6 / max(elapsed_s, 1e-3)
        left_s = round(elapsed_s / done * (total - done))
        return f"{rate:.1f} MB/s, {left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left"

    def _fetch_or_count(self, one: _Object) -> tuple[int, str]:
        """Return the size of what was fetched, and the code of why it was not."""
        if self.session.stop.is_set():
            raise StoppedError
        try:
            return retried(lambda: self._fetch(one), self.session.stop), ""
        except FetchError as error:
            return 0, str(error)
        except OversizedError:
            return 0, "too_large"
        except MismatchError:
            return 0, "another_object"
        except TransientError as error:
            if error.status is not None:
                return 0, "server_error"
            self._check_answers()
            return 0, "broken_off"

    def _check_answers(self) -> None:
        """See whether the service is there at all, or only one object of it is never sent whole.

        Raises:
            ServiceError: If it is not.
        """
        _entries(self.client.search_for_studies, 0, limit=1)

    def _fetch(self, one: _Object) -> int:
        url = f"{self.url}/studies/{one.study}/series/{one.series}/instances/{one.sop}"
        size_bytes = 0

        def counted(parts: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal size_bytes
            for part in parts:
                size_bytes += len(part)
                yield part

        # The frame around the object is small beside it; the inbox has the last word on the size.
        most = self.inbox.max_bytes + (1 << 20)
        with self.session.opened_object(url, _ACCEPT, most) as (content_type, body):
            self.inbox.store(one.sop, counted(single_object(content_type, body)))
        return size_bytes


def _entries(search: Callable[..., Any], offset: int, limit: int = _PAGE) -> list[dict[str, Any]]:
    try:
        found = search(limit=limit, offset=offset)
    except (ValueError, RecursionError):
        raise ServiceError("the server's answer to a query is not DICOM JSON") from None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ServiceError("the server's answer to a query is not a list of DICOM JSON objects")
    return found


def _value(entry: dict[str, Any], tag: str) -> str:
    """Return the first value of an attribute, or an empty text (PS3.18 section F.2)."""
    attribute = entry.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    first = values[0] if isinstance(values, list) and values else None
    return first if isinstance(first, str) else ""
