"""Copies of a picture are found however they were made; pictures of different people are not taken for copies."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from hilum.client.data.twins import ALIKE, fingerprint, twins_between
from hilum.common.seeding import generator
from hilum.simulations.phantoms import write_phantoms


def picture(seed, edge=160):
    """Smooth structure at several scales, as anatomy has."""
    rng = np.random.default_rng(seed)
    image = np.zeros((edge, edge))
    for cells in (5, 11, 23, 40):
        coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        image += np.asarray(coarse.resize((edge, edge), Image.BICUBIC))
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


COPIES = {
    "jpeg": lambda image: jpeg(image, 40),
    "half the size": lambda image: np.asarray(Image.fromarray(image).resize((80, 80), Image.BILINEAR)),
    "other proportions": lambda image: np.asarray(Image.fromarray(image).resize((200, 150), Image.BICUBIC)),
    "16 bits": lambda image: image.astype(np.uint16) * 257,
    "a window": lambda image: np.clip((image.astype(float) - 30) * 1.3, 0, 255),
    "inverted": lambda image: 255 - image,
    "mirrored": lambda image: image[:, ::-1],
    "noise": lambda image: image + np.random.default_rng(1).normal(0, 3, image.shape),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found(how):
    images = [picture(seed) for seed in range(5)]
    prints = np.stack([fingerprint(image) for image in images])
    copies = np.stack([fingerprint(COPIES[how](image)) for image in images])
    found = twins_between((list("abcde"), prints), (list("fghij"), copies))
    assert found.tolist() == [[n, n] for n in range(5)]


def test_equal_contents_are_twins_even_where_nothing_is_seen_in_them():
    nothing = np.stack([fingerprint(np.full((9, 9), 7)), fingerprint(np.full((9, 9), 8))])
    assert not nothing.any()
    assert twins_between((["a", "b"], nothing), (["b", "c"], nothing)).tolist() == [[1, 0]]


def test_a_volume_and_its_mirror_are_twins_and_another_is_not():
    rng = generator(1, "volumes")
    one, other = rng.normal(size=(2, 12, 20, 24))
    prints = np.stack([fingerprint(one), fingerprint(other)])
    copies = np.stack([fingerprint(one[..., ::-1]), fingerprint(-other)])
    assert twins_between((["a", "b"], prints), (["c", "d"], copies)).tolist() == [[0, 0], [1, 1]]


def test_phantoms_of_different_patients_are_no_twins(tmp_path):
    import pydicom

    write_phantoms(tmp_path / "a", sites=3, patients=20, size=96, seed=4)
    files = sorted((tmp_path / "a").rglob("*.dcm"))
    prints = np.stack([fingerprint(pydicom.dcmread(path).pixel_array) for path in files])
    names = [str(path) for path in files]
    assert len(twins_between((names, prints), (names, prints))) == len(files), "each is only its own"


def test_films_of_different_people_are_no_twins_and_their_copies_are(shared_data):
    folder = shared_data / "data" / "cxr_nih_a"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    films = [np.asarray(Image.open(folder / row["file"]).convert("L")) for row in rows]
    prints = np.stack([fingerprint(film) for film in films])
    names = [row["file"] for row in rows]
    products = np.abs(prints @ prints.T)
    other = np.array([[a["patient_id"] != b["patient_id"] for b in rows] for a in rows])
    assert products[other].max() < ALIKE - 0.1
    some = films[::30]
    copies = np.stack(
        [fingerprint(np.asarray(Image.fromarray(jpeg(film, 30)).resize((150, 150)))) for film in some]
    )
    found = twins_between((names, prints), ([f"copy {n}" for n in range(len(some))], copies))
    assert found.tolist() == [[30 * n, n] for n in range(len(some))]
