"""A DICOMweb service as a pull sees it: QIDO-RS says what there is, WADO-RS gives it (PS3.18 sections 10.4, 10.6).

Objects come in the transfer syntax in which the server keeps them. No address, UID or value of the server's is ever
shown.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from dicomweb_client import DICOMwebClient

from hilum.client.intake.network.bounded_http import BoundedSession, ServiceError
from hilum.client.intake.network.pull_options import Wanted
from hilum.client.intake.network.shutdown import StoppedError
from hilum.client.intake.sources.inbox import is_uid

_PAGE = 500
_MAX_RESULTS = 2_000_000  # of one query: a server that never ends its list is not believed
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_STUDY, _SERIES, _SOP, _MODALITY = "0020000D", "0020000E", "00080018", "00080060"


@dataclass(frozen=True)
class ServedObject:
    """One object that the service names: its study, series and SOP instance UID."""

    study: str
    series: str
    sop: str


class DicomwebService:
    """Asks one service.

    Args:
        address: Of the service.
        session: For the queries and the objects.

    Attributes:
        bad_uids: Entries of its lists that were left out, for what they hold is not a UID.
    """

    def __init__(self, address: str, session: BoundedSession) -> None:
        self.bad_uids = 0
        self._address, self._session = address, session
        self._client = DICOMwebClient(address, session=session, permissive_uid=True)
        self._client.set_http_retry_params(retry=False)

    def objects(self, wanted: Wanted) -> Iterator[ServedObject]:
        """Give what the service names; an object may come twice.

        Raises:
            ServiceError: If it does not answer, or not with what was asked for.
            StoppedError: If the session is to end.
        """
        for study in self._studies(wanted):
            for series in self._series(study, wanted):
                yield from self._instances(study, series)

    def _studies(self, wanted: Wanted) -> Iterator[str]:
        dates = {"StudyDate": wanted.study_date} if wanted.study_date else {}
        seen: set[str] = set()
        for modality in wanted.modalities or ("",):
            filters = {**dates, "ModalitiesInStudy": modality} if modality else dates
            search = partial(self._client.search_for_studies, search_filters=filters)
            for entry in self._paged(search, _STUDY):
                uid = _value(entry, _STUDY)
                if uid not in seen:
                    seen.add(uid)
                    yield uid

    def _series(self, study: str, wanted: Wanted) -> Iterator[str]:
        for entry in self._paged(partial(self._client.search_for_series, study), _SERIES):
            if not wanted.modalities or _value(entry, _MODALITY) in wanted.modalities:
                yield _value(entry, _SERIES)

    def _instances(self, study: str, series: str) -> Iterator[ServedObject]:
        for entry in self._paged(partial(self._client.search_for_instances, study, series), _SOP):
            yield ServedObject(study, series, _value(entry, _SOP))

    def _paged(self, search: Callable[..., Any], tag: str) -> Iterator[dict[str, Any]]:
        """Return all pages of a query. A page without anything new ends it, so a server that knows no offset does no harm."""
        seen: set[str] = set()
        offset = 0
        while True:
            if self._session.stop.is_set():
                raise StoppedError
            page = _entries(search, offset)
            fresh = []
            for entry in page:
                uid = _value(entry, tag)
                if not is_uid(uid):
                    self.bad_uids += 1
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

    def check_answers(self) -> None:
        """See whether the service is there at all, or only one object of it is never sent whole.

        Raises:
            ServiceError: If it is not.
        """
        _entries(self._client.search_for_studies, 0, limit=1)

    def opened(
        self, one: ServedObject, max_bytes: int
    ) -> AbstractContextManager[tuple[str, Iterator[bytes]]]:
        """Open an object; as `BoundedSession.opened_object`."""
        url = f"{self._address}/studies/{one.study}/series/{one.series}/instances/{one.sop}"
        return self._session.opened_object(url, _ACCEPT, max_bytes)


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
