"""One object out of a multipart answer, as it comes, without ever holding it whole (PS3.18 section 8.6, RFC 2046)."""

from collections.abc import Iterator
from email.message import Message

from hilum.client.intake.network.bounded_http import FetchError, TransientError

_MAX_HEAD_BYTES = 1 << 16


def single_object(content_type: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Return the bytes of the one DICOM object in an answer.

    Args:
        content_type: `multipart/related` with a boundary, or `application/dicom` from servers that send it bare.
        chunks: The body.

    Raises:
        FetchError: If it is no such answer, or holds more than one object.
        TransientError: If it ends too early.
    """
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_type() == "application/dicom":
        yield from chunks
        return
    boundary = message.get_boundary("")
    if message.get_content_type() != "multipart/related" or not 0 < len(boundary) <= 70:  # noqa: PLR2004 - RFC 2046
        raise FetchError("not_dicom")
    try:
        delimiter = b"--" + boundary.encode("ascii")
    except UnicodeEncodeError:
        raise FetchError("not_dicom") from None
    first = _behind_head(chunks, delimiter)
    yield from _until(first, chunks, b"\r\n" + delimiter)


def _behind_head(chunks: Iterator[bytes], delimiter: bytes) -> bytes:
    """Skip the first delimiter and the part's own headers."""
    held = b""
    for chunk in chunks:
        held += chunk
        start = held.find(delimiter)
        end = held.find(b"\r\n\r\n", start)
        if start >= 0 and end >= 0:
            return held[end + 4 :]
        if len(held) > _MAX_HEAD_BYTES + len(chunk):
            raise FetchError("not_dicom")
    raise TransientError


def _until(held: bytes, chunks: Iterator[bytes], delimiter: bytes) -> Iterator[bytes]:
    """Give everything before the delimiter, which may lie across two chunks."""
    while True:
        end = held.find(delimiter)
        if end >= 0:
            yield held[:end]
            _check_last(held[end + len(delimiter) :], chunks)
            return
        safe = max(0, len(held) - len(delimiter) + 1)
        if safe:
            yield held[:safe]
        try:
            held = held[safe:] + next(chunks)
        except StopIteration:
            raise TransientError from None


def _check_last(held: bytes, chunks: Iterator[bytes]) -> None:
    """Two dashes close the message; anything else starts another part."""
    while len(held) < 2:  # noqa: PLR2004 - two dashes
        try:
            held += next(chunks)
        except StopIteration:
            raise TransientError from None
    if held[:2] != b"--":
        raise FetchError("several_objects")
