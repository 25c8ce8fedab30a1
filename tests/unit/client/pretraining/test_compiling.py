"""Blocks that are compiled: when, and what it changes."""

import functools
import os
import subprocess
import sys

import pytest
import torch

from hilum.client.pretraining import compiling
from hilum.client.pretraining.compiling import LateCompiler, pays
from hilum.common.encoders.blocks import Blocks, compile_blocks, recompute
from hilum.common.methods import Views, build_method

METHODS = [
    {},
    {"method": {"name": "simclr"}, "encoder": {"name": "resnet", "size": "tiny"}},
]


@pytest.fixture
def quick(monkeypatch):
    """The graph is taken and its gradient derived as ever; making kernels of it takes half a minute."""
    compiles = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiles)


def step_of(study, batch, *, compiled, recomputed=False):
    method = build_method(study)
    recompute(method, recomputed)
    if compiled:
        assert compile_blocks(method) > 1
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 2, 1, 16, 16, generator=rng)
    views = Views({"image": images}, {}, None, torch.arange(batch))
    loss = method(views, method.draw(batch, rng)).per_image.mean()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in method.parameters()])


@pytest.mark.parametrize("changes", METHODS)
def test_compiled_blocks_give_the_loss_and_the_gradient_of_those_that_are_not(make_study, changes, quick):
    study = make_study(**changes)
    for batch, recomputed in ((6, False), (5, False), (4, False), (4, True)):
        loss, gradient = step_of(study, batch, compiled=False)
        again, same = step_of(study, batch, compiled=True, recomputed=recomputed)
        assert again == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(same, gradient, atol=1e-5, rtol=1e-4)


def test_only_a_training_step_takes_the_compiled_ones_and_no_name_changes(make_study):
    method = build_method(make_study())
    names = list(method.state_dict())
    blocks = next(inner for inner in method.modules() if isinstance(inner, Blocks))
    called = []
    blocks.compiled = tuple(lambda x, seen: called.append(1) or x for _ in blocks)
    tokens = torch.rand(1, 4, method.encoder.width)
    with torch.no_grad():
        assert not torch.equal(blocks(tokens), tokens)
    assert not called
    assert torch.equal(blocks(tokens), tokens)
    assert len(called) == len(blocks)
    assert list(method.state_dict()) == names


def test_it_pays_where_a_fifth_of_what_is_left_is_more_than_it_takes():
    half_a_second = [0.0, 0.5, 1.0, 4.0, 4.5]  # one step was slow
    assert not pays(half_a_second, 899, is_known=False)
    assert pays(half_a_second, 901, is_known=False)
    assert pays(half_a_second, 151, is_known=True)
    assert not pays(half_a_second, 149, is_known=True)


class Watched:
    """A GPU that is not there: what a compiler asks of it."""

    def __init__(self, monkeypatch, tmp_path, second_a_step):
        self.compiled, self.now = [], 0.0
        self.a_step = second_a_step
        monkeypatch.setattr(compiling, "_done_here", set())
        monkeypatch.setattr(compiling, "why_not", lambda device: None)
        monkeypatch.setattr(compiling, "compile_blocks", lambda module: self.compiled.append(module) or 1)
        monkeypatch.setattr(compiling.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))

    def steps_until_compiled(self, study, steps, device="cuda", further=0):
        """Return in which step the compiler compiled, None if in none; then so many steps are taken."""
        before = len(self.compiled)
        compiler = LateCompiler(torch.nn.Linear(1, 1), study, torch.device(device), steps)
        for index in range(steps):
            compiler.step_begins(index)
            if len(self.compiled) > before:
                for later in range(index + 1, index + further):
                    compiler.step_begins(later)
                return index
            self.now += self.a_step
        return None


def test_a_long_study_is_compiled_after_a_few_steps_and_a_short_one_never(make_study, tmp_path, monkeypatch):
    gpu, study = Watched(monkeypatch, tmp_path, 0.1), make_study()
    assert gpu.steps_until_compiled(study, 4000) is None
    assert gpu.steps_until_compiled(study, 5000, further=2) == 17
    assert not compiling._done_here, "killed while it compiled, it has nothing to remember"
    assert gpu.steps_until_compiled(study, 5000, further=4) == 17
    # What this process has compiled costs nothing more.
    assert gpu.steps_until_compiled(study, 30) == 0
    # Another process finds the code on disk, and compiles for less.
    monkeypatch.setattr(compiling, "_done_here", set())
    assert gpu.steps_until_compiled(study, 800) == 17
    monkeypatch.setattr(compiling, "_done_here", set())
    assert gpu.steps_until_compiled(study, 700) is None


def test_no_clock_decides_where_the_same_bits_are_wanted(make_study, tmp_path, monkeypatch):
    gpu = Watched(monkeypatch, tmp_path, 0.1)
    assert gpu.steps_until_compiled(make_study(training={"deterministic": True}), 20) == 0


def test_neither_a_processor_nor_a_study_that_says_no_compiles(make_study, tmp_path, monkeypatch):
    gpu = Watched(monkeypatch, tmp_path, 10.0)
    assert gpu.steps_until_compiled(make_study(), 5000, device="cpu") is None
    assert gpu.steps_until_compiled(make_study(training={"compile": False}), 5000) is None


def test_a_machine_without_a_compiler_trains_on_and_says_so(make_study, tmp_path, monkeypatch, caplog):
    gpu = Watched(monkeypatch, tmp_path, 10.0)
    monkeypatch.setattr(compiling, "why_not", lambda device: "InvalidCxxCompiler: no working C++ compiler")
    assert gpu.steps_until_compiled(make_study(), 100) is None
    assert "without compiled kernels, more slowly (InvalidCxxCompiler: no working" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("changes", METHODS)
def test_kernels_that_inductor_makes_give_the_same(make_study, changes, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    loss, gradient = step_of(make_study(**changes), 6, compiled=False)
    again, same = step_of(make_study(**changes), 6, compiled=True)
    assert again == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(same, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_no_compiler_is_told_for_what_it_is(tmp_path):
    asks = "import torch; from hilum.client.pretraining.compiling import why_not; print(why_not(torch.device('cpu')))"
    lacking = {"PATH": "/nowhere", "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", asks], env=os.environ | lacking, capture_output=True, text=True, check=True
    )
    assert "No working C++ compiler" in told.stdout
