"""What a study starts from: read once, by who signs it, and known by its hash from there on."""

import json
import time
import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from foreign_weights import timm_vit, written
from hilum.common.config import load_study, study_to_toml
from hilum.common.errors import DamagedError, RequestRefused, RunError
from hilum.common.export import Provenance, read_encoder, write_encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated
from hilum.common.signing import changes, sign_study, verify_study
from hilum.common.start import read_start, seeded_start, start_from_file, write_start
from hilum.common.weights import flat_sha256
from studies import study_table

KEY, SITES = Ed25519PrivateKey.generate(), ["site-0", "site-1", "site-2"]


@pytest.fixture
def warm(tmp_path):
    """A study file beside the weights that it starts from."""
    (tmp_path / "weights").mkdir()
    sha256 = written(timm_vit(grid=2, patch=8, head=0), tmp_path / "weights" / "vit.safetensors")
    table = study_table(
        encoder={"positions": "learned", "init": {"file": "weights/vit.safetensors", "sha256": sha256}}
    )
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def signed(study, start, **more):
    facts = {"run": "run", "sites": SITES, "days": 1, "now": time.time(), "key": KEY, **more}
    return sign_study(study, start=start, **facts)


def verified(document):
    return verify_study(document, KEY.public_key(), now=time.time(), site="site-1")


def test_the_encoder_is_the_files_and_all_else_the_seeds(warm):
    study = load_study(warm)
    start = start_from_file(study)
    assert start is not None
    seeded = get_federated(build_method(study))
    manifest = federated_manifest(build_method(study))
    for name, array in manifest.unflatten(start.weights).items():
        same = np.array_equal(array, manifest.unflatten(seeded)[name])
        assert same == name.startswith("decoder."), name
    assert np.array_equal(start_from_file(study).weights, start.weights)
    assert start.sha256 == flat_sha256(start.weights)


def test_a_study_without_a_file_starts_as_before(make_study):
    study = make_study()
    assert start_from_file(study) is None
    assert np.array_equal(seeded_start(study), get_federated(build_method(study)))


def test_a_study_with_a_file_starts_from_nothing_else(warm):
    with pytest.raises(
        RunError, match=r"starts from the weights of a file \(encoder.init\), and they were not given"
    ):
        seeded_start(load_study(warm))


def test_a_start_is_kept_whole(warm, tmp_path):
    start = start_from_file(load_study(warm))
    path = tmp_path / "kept.safetensors"
    write_start(path, start)
    found = read_start(path, start.sha256)
    assert np.array_equal(found.weights, start.weights)
    assert found.report == start.report
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(DamagedError, match="not those that were signed"):
        read_start(path, "0" * 64)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="not those that were signed"):
        read_start(path, start.sha256)
    with pytest.raises(RunError, match="are not here; submit the study again"):
        read_start(tmp_path / "none", start.sha256)


def test_what_is_signed_names_the_file_the_hash_of_the_start_and_no_folder(warm, tmp_path):
    study = load_study(warm)
    start = start_from_file(study)
    assert study.encoder.init.file == str(tmp_path / "weights" / "vit.safetensors")
    travels = signed(study, start.sha256)
    assert str(tmp_path).encode() not in travels.document
    order = verified(travels)
    assert order.start_sha256 == start.sha256
    assert order.study.encoder.init.file == "vit.safetensors"
    assert order.sends_start
    stored = tomllib.loads(study_to_toml(order.study))
    assert stored["encoder"]["init"] == {"file": "vit.safetensors", "sha256": study.encoder.init.sha256}


def test_a_start_without_a_file_and_a_file_without_a_start_are_refused(warm, make_study):
    for study, start in ((load_study(warm), None), (make_study(), "0" * 64)):
        document = json.loads(signed(make_study(), None).document)
        document["study"] = study.model_dump(mode="json")
        if start:
            document["start"] = start
        from signed import KEY as ADMIN
        from signed import sign_bytes

        with pytest.raises(RequestRefused) as caught:
            verify_study(
                sign_bytes(json.dumps(document).encode()), ADMIN.public_key(), now=time.time(), site=None
            )
        assert caught.value.code == "wrong_format"


def test_another_start_is_another_study(warm, make_study):
    study = load_study(warm)
    one, other = signed(study, "0" * 64), signed(study, "1" * 64)
    assert verified(one).terms != verified(other).terms
    assert changes(one.document, other.document) == f"start weights was '{'0' * 64}', is '{'1' * 64}'"
    assert b'"start"' not in signed(make_study(), None).document, "a study of before is signed as before"


def test_an_encoder_tells_what_it_started_from_and_serves_studies_that_do_not(warm, make_study, tmp_path):
    study = load_study(warm)
    start = start_from_file(study)
    folder = tmp_path / "encoder"
    made = Provenance(2, 3, start.report)
    write_encoder(folder, study, federated_manifest(build_method(study)), start.weights, made)
    facts = json.loads((folder / "manifest.json").read_text())
    assert facts["start"] == {
        "file": "vit.safetensors",
        "sha256": study.encoder.init.sha256,
        "kind": "timm",
        "matched": 147,
        "adapted": 2,
        "left": 1,
        "first_values": 0,
    }
    card = (folder / "MODEL_CARD.md").read_text()
    assert "147 tensors matched, 2 adapted, 1 left" in card
    plain = make_study(encoder={"positions": "learned"})
    assert read_encoder(folder, plain).sha256 == facts["encoder_sha256"]
    with pytest.raises(RunError, match=r"another \[encoder\]"):
        read_encoder(folder, make_study())


def test_an_encoder_of_before_there_was_a_choice_of_positions_is_read(make_study, tmp_path):
    study = make_study()
    method = build_method(study)
    write_encoder(tmp_path, study, federated_manifest(method), get_federated(method), Provenance(1, 1))
    facts = json.loads((tmp_path / "manifest.json").read_text())
    assert "init" not in facts["encoder"]
    del facts["encoder"]["positions"]
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    read_encoder(tmp_path, study)


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ({"file": "x"}, "the key `encoder.init.sha256` is missing"),
        ({"file": "x", "sha256": "abc"}, "`encoder.init.sha256 = 'abc'`"),
        ({"file": "", "sha256": "0" * 64}, "`encoder.init.file = ''`"),
        ({"fiel": "x", "sha256": "0" * 64}, "unknown key `encoder.init.fiel`; did you mean `file`?"),
    ],
)
def test_a_wrong_table_is_told_what_to_write(tmp_path, init, words, run_hilum):
    from hilum.common.config import parse_study
    from hilum.common.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        parse_study(study_table(encoder={"init": init}))
    assert any(words in problem for problem in caught.value.problems)


def test_a_file_is_inspected_before_a_run(warm, run_hilum, tmp_path):
    file = tmp_path / "weights" / "vit.safetensors"
    sha256 = load_study(warm).encoder.init.sha256
    done = run_hilum("encoders", "inspect", file, "--study", warm)
    assert done.returncode == 0, done.stderr
    for words in (
        sha256,
        'size = "tiny", patch_size = 8',
        "147 matched, 2 adapted, 1 left",
        "[encoder.init]",
    ):
        assert words in done.stdout
    report = json.loads(run_hilum("encoders", "inspect", file, "--study", warm, "--json").stdout)
    assert report["kind"] == "timm"
    assert report["study"]["counts"]["matched"] == 147
    assert json.loads(run_hilum("encoders", "inspect", file, "--json").stdout)["study"] is None
    torch.save({}, tmp_path / "vit.pth")
    refused = run_hilum("encoders", "inspect", tmp_path / "vit.pth")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: encoder.init: vit.pth is a pickle")
    assert refused.stderr.count("\n") == 1
