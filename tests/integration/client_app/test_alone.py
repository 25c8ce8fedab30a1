"""The commands that need no federation."""

import json
import subprocess
import sys


def test_a_site_alone_pretrains_and_measures_from_the_command_line(site, run_hilum, study_file, tmp_path):
    path = study_file(evaluation={"protocols": ["linear"], "arms": ["federated", "local", "random", "raw"]})
    (tmp_path / "site.toml").write_text(
        f'[site]\nname = "site-0"\n[data]\ndicom = "{site.data.dicom}"\nlabels = "{site.data.labels}"\n'
        f'[state]\nfolder = "{site.state.folder}"\n[compute]\ndevice = "cpu"\n'
    )
    done = run_hilum("site", "pretrain", path, "site.toml", "--out", "mine", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] % 11, "the site itself is told the exact number"
    again = run_hilum("site", "pretrain", path, "site.toml", "--out", "mine")
    assert again.returncode == 4
    measured = run_hilum("site", "evaluate", path, "site.toml", "--encoder", "mine")
    assert measured.returncode == 0, measured.stderr
    for arm in ("federated", "random", "raw"):
        assert arm in measured.stdout
    assert "the arm local was left out: `hilum site pretrain`" in measured.stdout
    missing = run_hilum("site", "evaluate", path, "site.toml", "--encoder", "nowhere")
    assert missing.returncode == 4
    assert "no encoder in this folder" in missing.stderr


def test_the_clients_process_imports_no_torch_until_it_is_asked():
    code = "import sys, hilum.client.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
