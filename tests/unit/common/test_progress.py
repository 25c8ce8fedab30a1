"""Progress where stderr is not a terminal."""

from types import SimpleNamespace

import pytest

from hilum.common import progress


@pytest.mark.parametrize(
    ("seconds", "pace"), [(0.0, ""), (0.5, ", 6.0/s"), (3.0, ", 1.0/s"), (150.0, ", 50.0 s each")]
)
def test_a_line_says_how_fast_it_goes(seconds, pace, capsys, monkeypatch):
    clock = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress.progress_bar("rounds", 10, interval_s=0.0) as bar:
        bar.advance(3, "loss 1.0")
    assert capsys.readouterr().err == f"rounds: 3/10{pace} loss 1.0\n"
