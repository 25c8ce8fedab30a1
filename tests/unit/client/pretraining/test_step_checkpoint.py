"""A round's state, written by time and beside the training."""

import pytest
import torch

from hilum.client.pretraining import step_checkpoint
from hilum.client.pretraining.step import StepOutcome
from hilum.client.pretraining.step_checkpoint import StepCheckpoints


@pytest.fixture
def trained():
    method = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)
    method(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return method, optimizer


def test_one_is_due_after_its_minutes_and_not_before(tmp_path, trained, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(step_checkpoint.time, "monotonic", lambda: now[0])
    kept = StepCheckpoints(tmp_path / "step.pt", 1, "start", minutes=10.0)
    seen = []
    for now[0] in (100.0, 699.0, 700.0):
        seen.append(kept.is_due())
    kept.keep(*trained, 3, [])
    for now[0] in (701.0, 1299.0, 1300.0):
        seen.append(kept.is_due())
    kept.finish()
    assert seen == [False, False, True, False, False, True]
    assert not StepCheckpoints(None, 1, "start", minutes=0.0).is_due(), "nowhere to keep it"


def test_what_is_kept_is_what_was_there_when_it_was_kept(tmp_path, trained):
    method, optimizer = trained
    was = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    moments = optimizer.state[method.weight]["exp_avg"].clone()
    with StepCheckpoints(tmp_path / "step.pt", 1, "start", minutes=0.0) as kept:
        kept.keep(method, optimizer, 5, [StepOutcome(0.5, {}, {"alignment": 0.25}, 1.0)])
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.zero_()
            optimizer.state[method.weight]["exp_avg"].zero_()
    found = StepCheckpoints(tmp_path / "step.pt", 1, "start", minutes=0.0).restore(method, optimizer)
    assert found == (5, [StepOutcome(0.5, {}, {"alignment": 0.25}, 1.0)])
    assert all(torch.equal(method.state_dict()[name], tensor) for name, tensor in was.items())
    assert torch.equal(optimizer.state[method.weight]["exp_avg"], moments)


def test_moments_lie_as_the_weights_do_where_it_goes_on(tmp_path):
    """Written on a processor and gone on with on a GPU, or the other way: a fused optimizer reads both in one order."""

    def at(memory_format):
        torch.manual_seed(0)
        method = torch.nn.Conv2d(3, 4, 3)
        method.weight.data = method.weight.data.contiguous(memory_format=memory_format)
        return method, torch.optim.AdamW(method.parameters(), lr=0.1, fused=True)

    def step(method, optimizer):
        optimizer.zero_grad()
        method(torch.arange(75.0).view(1, 3, 5, 5)).square().mean().backward()
        optimizer.step()

    method, optimizer = at(torch.contiguous_format)
    step(method, optimizer)
    with StepCheckpoints(tmp_path / "step.pt", 1, "start", minutes=0.0) as kept:
        kept.keep(method, optimizer, 1, [])
    other, others = at(torch.channels_last)
    step(other, others)
    StepCheckpoints(tmp_path / "step.pt", 1, "start", minutes=0.0).restore(other, others)
    assert others.state[other.weight]["exp_avg"].stride() == other.weight.stride()
    for one in ((method, optimizer), (other, others)):
        step(*one)
    torch.testing.assert_close(other.weight, method.weight, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("number", "start"), [(2, "start"), (1, "other")])
def test_one_of_another_round_or_start_is_not_taken_up(tmp_path, trained, number, start):
    with StepCheckpoints(tmp_path / "step.pt", 1, "start", minutes=0.0) as kept:
        kept.keep(*trained, 5, [])
    assert StepCheckpoints(tmp_path / "step.pt", number, start, minutes=0.0).restore(*trained) == (0, [])


def test_one_that_cannot_be_written_ends_the_training_at_the_next_step(tmp_path, trained):
    (tmp_path / "file").write_text("no folder")
    kept = StepCheckpoints(tmp_path / "file" / "step.pt", 1, "start", minutes=60.0)
    kept.keep(*trained, 1, [])
    kept._writing.join()
    with pytest.raises(FileExistsError):
        kept.is_due()
    kept.finish()  # told once


def test_a_round_that_is_done_leaves_none(tmp_path, trained):
    kept = StepCheckpoints(tmp_path / "step.pt", 1, "start", minutes=0.0)
    kept.keep(*trained, 1, [])
    kept.drop()
    assert list(tmp_path.iterdir()) == []
