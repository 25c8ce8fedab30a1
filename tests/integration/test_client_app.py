"""What a site answers when a study is not its own, and what it never says."""

import subprocess
import sys

import pytest

from hilum.client.app import make_app
from hilum.common import records
from hilum.common.config import SiteConfig
from hilum.common.config.site import PolicySection
from hilum.common.progress import Quiet
from hilum.server.federation.exchange import exchange
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.grid import InProcessGrid


@pytest.fixture(scope="module")
def site(archives, tmp_path_factory):
    sites = find_sites(archives, tmp_path_factory.mktemp("home"))[:1]
    index_sites(sites, Quiet())
    return sites[0]


def ask(site, content, kind=records.HELLO):
    with InProcessGrid(make_app(lambda context: site), nodes=1, workers=1) as grid:
        [node] = grid.get_node_ids()
        [answer] = exchange(grid, {node: lambda: content}, kind, deadline_s=60, poll_s=0.01)
    return answer.content


def with_policy(site: SiteConfig, **policy) -> SiteConfig:
    return site.model_copy(update={"policy": PolicySection(**policy)})


def test_a_site_says_who_it_is_and_how_many_images_it_has(site, make_study):
    hello = records.unpack_hello(ask(site, records.pack_request(make_study(), "run")))
    assert hello.site == "site-0"
    assert 0 < hello.examples < 13


@pytest.mark.parametrize(
    ("policy", "detail"),
    [
        ({"methods": ("simclr",)}, "site-0 runs simclr, the study asks for mae"),
        ({"max_rounds": 1}, "site-0 allows max_rounds = 1, the study asks for 2"),
        ({"max_local_epochs": 1}, "site-0 allows max_local_epochs = 1, the study asks for 3"),
    ],
)
def test_a_study_beyond_the_sites_policy_is_refused(site, make_study, policy, detail):
    study = make_study(training={"local_epochs": 3})
    refusal = records.unpack_refusal(ask(with_policy(site, **policy), records.pack_request(study, "run")))
    assert refusal.reason == "policy"
    assert detail in refusal.detail


def test_another_version_is_refused(site, make_study, monkeypatch):
    monkeypatch.setattr(records, "__version__", "0.0.1")
    refusal = records.unpack_refusal(ask(site, records.pack_request(make_study(), "run")))
    assert "the server runs Hilum 0.0.1" in refusal.detail


def test_what_is_no_study_is_refused(site, make_study):
    content = records.pack_request(make_study(), "run")
    content.config_records["facts"]["study"] = '{"study": 3}'
    assert records.unpack_refusal(ask(site, content)).reason == "config"


def test_an_unexpected_failure_leaves_as_its_type_alone(site, make_study, monkeypatch, caplog):
    import hilum.client.site_data

    def fails(*_words):
        raise KeyError("ZZPHI in the text of an exception")

    monkeypatch.setattr(hilum.client.site_data, "open_site", fails)
    refusal = records.unpack_refusal(ask(site, records.pack_request(make_study(), "run")))
    assert refusal == records.Refusal("site-0", "failed", "site-0 failed with KeyError; see the site's log")


def test_a_site_alone_pretrains_and_measures_from_the_command_line(site, run_hilum, study_file, tmp_path):
    path = study_file(evaluation={"protocols": ["linear"], "arms": ["federated", "random", "raw"]})
    (tmp_path / "site.toml").write_text(
        f'[site]\nname = "site-0"\n[data]\ndicom = "{site.data.dicom}"\nlabels = "{site.data.labels}"\n'
        f'[state]\nfolder = "{site.state.folder}"\n[compute]\ndevice = "cpu"\n'
    )
    done = run_hilum("site", "pretrain", path, "site.toml", "--out", "mine", "--json")
    assert done.returncode == 0, done.stderr
    again = run_hilum("site", "pretrain", path, "site.toml", "--out", "mine")
    assert again.returncode == 4
    measured = run_hilum("site", "evaluate", path, "site.toml", "--encoder", "mine")
    assert measured.returncode == 0, measured.stderr
    for arm in ("federated", "random", "raw"):
        assert arm in measured.stdout
    missing = run_hilum("site", "evaluate", path, "site.toml", "--encoder", "nowhere")
    assert missing.returncode == 4
    assert "no encoder in this folder" in missing.stderr


def test_the_clients_process_imports_no_torch_to_say_hello():
    code = "import sys, hilum.client.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
