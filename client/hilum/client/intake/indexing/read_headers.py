"""The headers of many files: walked here, and where the walker is not sure, read by pydicom in a bounded process."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from hilum.client.intake.formats.not_dicom import what_it_is
from hilum.client.intake.headers.read_instance import NeedsPydicom, walk
from hilum.client.intake.instance import Instance
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import HeaderRead, ReadHeader, Refused
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.scan import FoundFile

_BATCH = 512


@dataclass(frozen=True)
class ReadFile:
    """One file and what its header says, or why it is set aside."""

    key: str
    file: FoundFile
    header: Instance | Skip = field(repr=False)


def read_headers(files: Iterable[tuple[str, FoundFile]], pool: DecodePool) -> Iterator[ReadFile]:
    """Read headers in the order of the files.

    Args:
        files: Key and file.
        pool: Takes what only pydicom can read.
    """
    rest = iter(files)
    while batch := list(islice(rest, _BATCH)):
        yield from _read_batch(batch, pool)


def _read_batch(batch: list[tuple[str, FoundFile]], pool: DecodePool) -> Iterator[ReadFile]:
    walked = [_walked(file) for _key, file in batch]
    asked = (
        ReadHeader(file.path)
        for (_key, file), found in zip(batch, walked, strict=True)
        if isinstance(found, NeedsPydicom)
    )
    with closing(pool.map(asked)) as answers:
        headers = [_answer(next(answers)) if isinstance(found, NeedsPydicom) else found for found in walked]
    for (key, file), header in zip(batch, headers, strict=True):
        yield ReadFile(key, file, header)


def _walked(file: FoundFile) -> Instance | Skip | NeedsPydicom:
    if file.set_aside is not None:
        return Skip(file.set_aside)
    try:
        return walk(file.path)
    except Skip as skip:
        return Skip(what_it_is(file.path)) if skip.reason == Reason.NOT_DICOM else skip


def _answer(result: object) -> Instance | Skip:
    if isinstance(result, Refused):
        return Skip(result.reason, result.uids)
    assert isinstance(result, HeaderRead)
    return result.instance
