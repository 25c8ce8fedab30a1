"""Sending objects to a DICOMweb service (STOW-RS, PS3.18 section 10.5), one a request: so each has an answer of its own."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from dicomweb_client import DICOMwebClient

from hilum.client.intake.network.bounded_http import (
    BoundedSession,
    FetchError,
    Login,
    ServiceError,
    TransientError,
    retried,
)
from hilum.client.intake.network.sending import Sent, word_of
from hilum.common.progress import Progress

_UNTOLD = "not_confirmed"


@dataclass(frozen=True)
class StowTarget:
    """A service.

    Attributes:
        address: Without a slash at its end.
    """

    address: str
    login: Login = field(default_factory=Login)


def stow(paths: Sequence[Path], target: StowTarget, stop: threading.Event, progress: Progress) -> list[Sent]:
    """Send files, and tell what became of each.

    Raises:
        ServiceError: If the service can't be used at all; nothing more is sent then.
    """
    sent = []
    with BoundedSession(target.login, stop) as session:
        client = DICOMwebClient(target.address, session=session, permissive_uid=True)
        client.set_http_retry_params(retry=False)
        client.set_chunk_size(1 << 40)  # a request that is cut into chunks of HTTP is refused by some servers
        for number, path in enumerate(paths, 1):
            sent.append(Sent(path, _store(client, path, stop)))
            progress.advance(number)
    return sent


def _store(client: DICOMwebClient, path: Path, stop: threading.Event) -> str:
    """Send one file; empty, or why it is not there."""
    dataset = pydicom.dcmread(path)
    uid = str(dataset.SOPInstanceUID)
    try:
        answer = retried(lambda: client.store_instances([dataset]), stop)
    except FetchError as error:
        return str(error)
    except TransientError as error:
        if error.status is None:
            raise ServiceError(
                "the server did not answer, or broke off; check host, port and https:// or http://, and whether it runs"
            ) from None
        return f"http_{error.status}"
    except (ValueError, KeyError, TypeError):
        return _UNTOLD  # its answer is not DICOM JSON
    for one in answer.get("FailedSOPSequence") or ():
        return word_of(int(one.get("FailureReason") or 0x0110)) or "refused"
    stored = {str(one.get("ReferencedSOPInstanceUID")) for one in answer.get("ReferencedSOPSequence") or ()}
    return "" if uid in stored else _UNTOLD
