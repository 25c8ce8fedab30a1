"""Sending objects to an archive by C-STORE (PS3.4 annex B), all in one association."""

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from hilum.client.intake.network.bounded_http import ServiceError
from hilum.client.intake.network.sending import Sent, word_of
from hilum.common.progress import Progress

_CONNECT_S, _ANSWER_S = 10.0, 120.0


@dataclass(frozen=True)
class StoreTarget:
    """An archive.

    Attributes:
        called: Its AE title.
        calling: That of this site.
        tls: How to speak to it, or None for plain DICOM.
    """

    host: str
    port: int
    called: str
    calling: str
    tls: ssl.SSLContext | None = None


def c_store(paths: Sequence[Path], target: StoreTarget, progress: Progress) -> list[Sent]:
    """Send files, and tell what became of each.

    Raises:
        ServiceError: If there is no association.
    """
    if not paths:
        return []
    heads = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    offered = {(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in heads}
    entity = AE(ae_title=target.calling)
    entity.connection_timeout, entity.acse_timeout = _CONNECT_S, _CONNECT_S
    entity.dimse_timeout, entity.network_timeout = _ANSWER_S, _ANSWER_S
    association = entity.associate(
        target.host,
        target.port,
        contexts=[build_context(sop_class, syntax) for sop_class, syntax in sorted(offered)],
        ae_title=target.called,
        tls_args=None if target.tls is None else (target.tls, target.host),
    )
    if not association.is_established:
        raise ServiceError(_why(association, target))
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    try:
        sent = []
        for number, (path, head) in enumerate(zip(paths, heads, strict=True), 1):
            known = str(head.SOPClassUID) in accepted
            sent.append(Sent(path, _store(association, path) if known else "sop_class_not_taken"))
            progress.advance(number)
        return sent
    finally:
        if association.is_established:
            association.release()


def _store(association: Association, path: Path) -> str:
    """Send one file; empty, or why it is not there."""
    if not association.is_established:
        return "connection_lost"
    status = association.send_c_store(str(path)).get("Status")
    return "no_answer" if status is None else word_of(int(status))


def _why(association: Association, target: StoreTarget) -> str:
    if association.is_rejected:
        return (
            f"the archive rejects the association: it must know this site as {target.calling} (--calling) and itself as "
            f"{target.called} (--called)"
        )
    try:
        with socket.create_connection((target.host, target.port), timeout=_CONNECT_S):
            pass
    except OSError as error:
        return f"the archive can't be reached ({error.strerror or 'no answer'}); check host and port of --store, and whether it runs"
    return (
        "the archive broke off while the association was agreed on; check that the port speaks DICOM, with TLS or without "
        "(--store-tls), and that it takes segmentations and structured reports"
    )
