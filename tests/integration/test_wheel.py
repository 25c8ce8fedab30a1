"""The wheel, alone in an empty environment: what a hospital installs."""

import subprocess
import sys
import venv

import pytest

from places import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(*words, cwd):
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_runs_by_itself_and_brings_no_ray(tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    run(*pip, "torch", cwd=tmp_path)
    run(*pip, wheel, cwd=tmp_path)
    hilum = tmp_path / "empty" / "bin" / "hilum"
    assert "simulate" in run(hilum, "--help", cwd=tmp_path)
    run(hilum, "study", "new", "a.toml", cwd=tmp_path)
    run(hilum, "study", "check", "a.toml", cwd=tmp_path)
    run(hilum, "phantom", "archives", "--patients", 8, "--size", 64, cwd=tmp_path)
    packages = run(python, "-m", "pip", "list", cwd=tmp_path).lower()
    assert "ray " not in packages
    assert "opacus" not in packages
    assert "mkdocs" not in packages
    refused = subprocess.run(
        [hilum, "simulate", "a.toml", "--archives", "archives", "--out", "run", "--backend", "ray"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 4
    assert "pip install 'hilum[simulation]'" in refused.stderr
