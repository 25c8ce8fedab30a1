"""Pull a DICOMweb service into the inbox. What is there is not fetched again, so a pull that was killed goes on where it was."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

from hilum.client.intake.network.bounded_http import BoundedSession, FetchError, TransientError, retried
from hilum.client.intake.network.dicomweb import DicomwebService, ServedObject
from hilum.client.intake.network.multipart import single_object
from hilum.client.intake.network.pull_options import PullRequest, Wanted
from hilum.client.intake.network.shutdown import StoppedError
from hilum.client.intake.sources.inbox import Inbox, MismatchError, OversizedError
from hilum.common.progress import Progress

_WORKERS = 4
_WINDOW = 64

ProgressOf = Callable[[str, int], AbstractContextManager[Progress]]


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


def pull(request: PullRequest, inbox: Inbox, show: ProgressOf, stop: threading.Event) -> PullReport:
    """List what the service has, and fetch what the inbox lacks.

    Args:
        request: What to pull, and from where.
        inbox: Where it goes.
        show: Gives a progress bar for a title and a total.
        stop: Ends the pull between two objects.

    Raises:
        ServiceError: If the service can't be used; what was fetched stays.
        NoRoomError: If the disk is nearly full.
        StoppedError: If `stop` was set.
    """
    with BoundedSession(request.login, stop) as session:
        puller = _Puller(DicomwebService(request.address, session), inbox, stop)
        missing = puller.list_missing(request.wanted)
        with show("fetching", len(missing)) as progress:
            puller.fetch_all(missing, progress)
    return puller.report()


class _Puller:
    def __init__(self, service: DicomwebService, inbox: Inbox, stop: threading.Event) -> None:
        self.service, self.inbox, self.stop = service, inbox, stop
        self.listed = self.had = self.fetched = self.fetched_bytes = 0
        self.failed: Counter[str] = Counter()

    def report(self) -> PullReport:
        failed = dict(sorted((self.failed + Counter(bad_uid=self.service.bad_uids)).items()))
        return PullReport(self.listed, self.had, self.fetched, failed, self.fetched_bytes)

    def list_missing(self, wanted: Wanted) -> list[ServedObject]:
        """Everything that the service names and the inbox lacks, up to the limit."""
        missing: list[ServedObject] = []
        seen: set[str] = set()
        for one in self.service.objects(wanted):
            if one.sop in seen:
                continue
            seen.add(one.sop)
            self.listed += 1
            if self.inbox.has(one.sop):
                self.had += 1
            else:
                missing.append(one)
            if len(missing) == wanted.limit:
                break
        return missing

    def fetch_all(self, objects: Sequence[ServedObject], progress: Progress) -> None:
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

    def _fetch_or_count(self, one: ServedObject) -> tuple[int, str]:
        """Return the size of what was fetched, and the code of why it was not."""
        if self.stop.is_set():
            raise StoppedError
        try:
            return retried(lambda: self._fetch(one), self.stop), ""
        except FetchError as error:
            return 0, str(error)
        except OversizedError:
            return 0, "too_large"
        except MismatchError:
            return 0, "another_object"
        except TransientError as error:
            if error.status is not None:
                return 0, "server_error"
            self.service.check_answers()
            return 0, "broken_off"

    def _fetch(self, one: ServedObject) -> int:
        size_bytes = 0

        def counted(parts: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal size_bytes
            for part in parts:
                size_bytes += len(part)
                yield part

        # The frame around the object is small beside it; the inbox has the last word on the size.
        most = self.inbox.max_bytes + (1 << 20)
        with self.service.opened(one, most) as (content_type, body):
            self.inbox.store(one.sop, counted(single_object(content_type, body)))
        return size_bytes
