"""What a decoding process answers is believed only where it fits the question."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.client.intake.formats.folder_volume import volumes_read
from hilum.client.intake.formats.ipc import as_bytes
from hilum.client.intake.instance import Frame, Instance, PixelFormat
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox import pool as sandbox_pool
from hilum.client.intake.sandbox.annotation_handlers import labels_read, object_read
from hilum.client.intake.sandbox.jobs import (
    DecodeImage,
    DecodePlanes,
    ImageDecoded,
    ReadLabels,
    ReadObject,
    Refused,
)
from hilum.client.intake.sandbox.limits import more_seconds
from hilum.client.intake.sandbox.pool import DecodePool

ULTRASOUND_CLIP = "1.2.840.10008.5.1.4.1.1.3.1"


def instance(shape=(2, 3), frames=1, bits=16):
    """What a header says of a grey image."""
    syntax = "1.2.840.10008.1.2.1"
    pixels = PixelFormat(syntax, *shape, frames, 1, "MONOCHROME2", False, bits, bits, bits - 1, False)
    return Instance("1", "2", "3", "4", "", "5", "ultrasound", (), pixels, tuple(map(Frame, range(frames))))


def test_a_clip_comes_back_whole_from_one_job(tmp_path, dicom):
    clip = np.random.default_rng(0).integers(0, 255, (7, 6, 5)).astype(np.uint8)
    dicom(tmp_path / "a", clip.reshape(42, 5), sop_class=ULTRASOUND_CLIP, Rows=6, NumberOfFrames=7)
    facts = instance((6, 5), frames=7, bits=8)
    with DecodePool(1) as pool:
        (whole, part, absent) = pool.map(
            DecodeImage(tmp_path / "a", facts, indices) for indices in (tuple(range(7)), (2, 4), (2, 7))
        )
    assert isinstance(whole, ImageDecoded)
    assert whole.image.shape == (7, 6, 5)
    np.testing.assert_array_equal(part.image, whole.image[[2, 4]])
    assert absent == Refused(Reason.MISSING_ATTRIBUTE)


def test_many_frames_and_a_search_are_given_more_time():
    one = DecodeImage(Path("a"), instance((1000, 1000)))
    assert more_seconds(one) == 0
    clip = replace(one, indices=tuple(range(100)))
    searched = replace(clip, search=(0, 0, 1000, 1000))
    assert 0 < more_seconds(clip) < more_seconds(searched)
    assert more_seconds(DecodePlanes(Path("a"), instance((1000, 1000)), tuple(range(100)))) == more_seconds(
        clip
    )


LABELS = {"shape": [2, 3, 4], "affine": [1.0] * 16, "values": [1, 7]}
SEG = {
    "kind": "seg",
    "shape": [3, 4],
    "source": "seg",
    "segments": [{"number": 1, "text": "a", "code": None}],
    "sources": [],
    "instances": [],
    "series": [],
    "undecodable": [],
    "bits": True,
}
STRUCTURES = {
    "kind": "structures",
    "regions": [{"name": "a", "code": None, "contours": 2, "sources": []}, "empty_annotation"],
    "series": ["1.2"],
}


def numbers(highest, shape=(2, 3, 4)):
    return np.full(shape, highest, np.uint8)


def contours(*counts, of=1.0):
    points = np.full((sum(counts), 3), of)
    return [as_bytes(points)[None], as_bytes(np.array(counts, np.int64))[None]]


def places(frames):
    return as_bytes(np.ones((frames, 13)))[None]


def test_true_answers_about_annotations_are_taken():
    assert labels_read(ReadLabels(Path("a")), [numbers(2)], LABELS).values == (1, 7)
    read = object_read(ReadObject(Path("a")), [np.full((5, 2), 255, np.uint8), places(5)], SEG)
    assert read.shown(1, 4).all()
    assert read.planes[0].position_mm == (1, 1, 1)
    region, reason = object_read(ReadObject(Path("a")), contours(3, 4), STRUCTURES).regions
    assert ([len(one) for one in region.contours], reason) == ([3, 4], Reason.EMPTY_ANNOTATION)


@pytest.mark.parametrize(
    ("take", "runs", "facts"),
    [
        (labels_read, [numbers(3)], LABELS),
        (labels_read, [numbers(2, (2, 3, 5))], LABELS),
        (labels_read, [numbers(2)], {**LABELS, "values": [0, 1]}),
        (labels_read, [numbers(2)], {**LABELS, "affine": [1.0] * 4}),
        (labels_read, [], LABELS),
        (object_read, [np.zeros((5, 3), np.uint8), places(5)], SEG),
        (object_read, [np.zeros((5, 2), np.uint8), places(4)], SEG),
        (object_read, [np.zeros((5, 2), np.int16), places(5)], SEG),
        (object_read, [np.zeros((5, 2), np.uint8)], SEG),
        (object_read, [np.zeros((5, 2), np.uint8), places(5)], {**SEG, "source": "csv"}),
        (object_read, [np.zeros((5, 2), np.uint8), places(5)], {**SEG, "kind": "another"}),
        (object_read, contours(3, 2), STRUCTURES),
        (object_read, contours(3), STRUCTURES),
        (object_read, contours(3, 4, of=np.nan), STRUCTURES),
        (object_read, contours(3, 4, of=1e7), STRUCTURES),
        (object_read, [contours(3, 4)[0], contours(3, 5)[1]], STRUCTURES),
        (volumes_read, [np.zeros((5, 3, 4), np.int16)], {**LABELS, "times": 1, "spacing_mm": [1, 1, 1]}),
        (volumes_read, [np.zeros((4, 3, 4), np.int16)], {**LABELS, "times": 1, "spacing_mm": [1, 1, 1]}),
        (volumes_read, [np.zeros((2, 3, 4), np.uint8)], {**LABELS, "times": 1, "spacing_mm": [1, 1, 1]}),
    ],
)
def test_an_answer_that_contradicts_itself_is_none(take, runs, facts):
    facts = json.loads(json.dumps(facts))
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's are among them
        take(None, runs, facts)


def test_a_worker_that_gives_other_frames_than_were_asked_for_is_not_believed(monkeypatch):
    lying = """
import numpy as np
from hilum.client.intake.sandbox import handlers, worker
old = handlers.KINDS["image"]
def lie(job, write):
    for _ in range(int(job.path.name)):
        write(np.arange(6, dtype=np.uint16).reshape(2, 3))
    return {"has_text": 1 if job.search else None}
handlers.KINDS["image"] = handlers.Kind(old.job, lie, old.result, old.failed)
worker.main()
"""
    monkeypatch.setattr(sandbox_pool, "_WORKER", ("-c", lying))
    with DecodePool(1) as pool:
        right, fewer, more, no_answer = pool.map(
            [
                DecodeImage(Path("2"), instance(frames=2), (0, 1)),
                DecodeImage(Path("1"), instance(frames=2), (0, 1)),
                DecodeImage(Path("3"), instance(frames=2), (0, 1)),
                DecodeImage(Path("1"), instance(), search=(0, 0, 2, 3)),
            ]
        )
    assert right.image.shape == (2, 2, 3)
    assert fewer == more == no_answer == Refused(Reason.DECODER_DIED)
