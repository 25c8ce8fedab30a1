"""Every family that the intake takes is indexed, prepared and trained on, from DICOM where it has it, else from pictures."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from hilum.client.data.site_data import open_site
from hilum.client.pretraining.site import site_round
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.preparation.encoder_input import encoder_input
from hilum.common.pretrained import load_encoder
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.research_folders import look_at
from modality_phantoms import phantom

STORAGE = "1.2.840.10008.5.1.4.1.1."
COUNT = 4
RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}


@pytest.fixture
def one_update(tmp_path, make_study):
    """Index one site and train one round on it; gives the site's data, and what it would send."""

    def run(**data):
        study = make_study(data=data, federation={"rounds": 1, "sites": 1})
        sites = find_sites(tmp_path / "sites", tmp_path / "home")
        index_sites(sites, NullProgress(), [look_at(site, study, None).images for site in sites])
        opened = open_site(sites[0], study)
        base = get_federated(build_method(study))
        return opened, site_round(opened, study, base, 1, tmp_path / "run", device="cpu")

    return run


@pytest.mark.parametrize(
    ("modality", "sop_class", "attributes"),
    [
        ("mammogram", "1.2", {}),
        ("ultrasound", "6.1", {}),
        ("ultrasound", "6.1", RGB),
        ("ultrasound", "3.1", {"NumberOfFrames": 3}),
        ("angiogram", "12.1", {"NumberOfFrames": 3}),
        ("photograph", "77.1.4", RGB),
        ("fundus", "77.1.5.1", RGB),
        ("fundus", "77.1.5.1", {}),
        ("pathology", "77.1.2", RGB),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "grey",
)
def test_images_of_dicom_are_trained_on(modality, sop_class, attributes, dicom, one_update, tmp_path):
    for number in range(COUNT):
        image = phantom(modality, number)
        shown = image if image.dtype == np.uint8 else (image // 257).astype(np.uint8)
        if "SamplesPerPixel" in attributes:
            shown = np.repeat(shown[..., None], 3, 2) if shown.ndim == 2 else shown
        elif shown.ndim == 3:
            shown = shown[..., 1]
        blurred = [
            gaussian_filter(one, 4) for one in np.moveaxis(np.atleast_3d(shown), 2, 0)
        ]  # no letter is seen in it
        shown = np.ascontiguousarray(np.stack(blurred, 2).squeeze())
        frames = [shown] * attributes.get("NumberOfFrames", 1)
        dicom(
            tmp_path / "sites" / "s" / "dicom" / f"{number}.dcm",
            np.concatenate(frames),
            sop_class=STORAGE + sop_class,
            PatientID=f"P{number}",
            **{"Rows": shown.shape[0], **attributes},
        )
    opened, sent = one_update(modality=modality)
    channels = 3 if modality in {"photograph", "fundus", "pathology"} else 1
    assert opened.images.shape == (COUNT, channels, 20, 20)
    assert opened.images.std() > 1000
    assert np.isfinite(sent.outcome.loss)
    assert np.linalg.norm(sent.update) > 0


def test_volumes_of_pet_are_trained_on(one_update, tmp_path):
    for number in range(COUNT):
        volume = np.stack([phantom("pet", number)[::8, ::8] * share for share in (0.2, 0.6, 1, 1, 0.6, 0.2)])
        path = tmp_path / "sites" / "s" / f"{number}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume.T, np.diag([4.0, 4.0, 16.0, 1.0])), path)
    opened, sent = one_update(modality="pet", dims=3, cut="whole")
    assert opened.images.shape == (COUNT, 1, 20, 20, 20)
    assert np.linalg.norm(sent.update) > 0


def test_a_study_of_colour_pictures_gives_an_encoder_of_three_channels_and_previews_in_colour(
    run_hilum, study_file, tmp_path
):
    for site in range(2):
        for number in range(8):
            path = tmp_path / "sites" / f"s{site}" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = phantom("fundus", 100 * site + number)
            Image.fromarray(picture[..., ::-1] if number % 2 else picture).save(path)
    study = study_file(
        data={"modality": "fundus"},
        views={"allow": ["horizontal_flip"], "crop": {"horizontal_flip": 0.5}},
        federation={"sites": 2, "rounds": 1},
    )
    done = run_hilum("simulate", study, "--archives", tmp_path / "sites", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "8 pictures and NIfTI files are taken as photograph" in done.stderr
    raw = [row["value"] for row in json.loads(done.stdout)["evaluation"] if row["arm"] == "raw"]
    assert max(raw) > 0.9  # only colours tell the classes apart
    pretrained = load_encoder(tmp_path / "run")
    batch = encoder_input(phantom("fundus"), pretrained.data)
    assert pretrained.encoder(batch).shape == (1, 192)
    preview = np.asarray(Image.open(tmp_path / "run" / "preview" / "s0.png"))
    assert preview.ndim == 3
    assert np.ptp(preview, axis=2).max() > 50
    assert 'allow = [\n    "horizontal_flip",\n]' in (tmp_path / "run" / "study.resolved.toml").read_text()
