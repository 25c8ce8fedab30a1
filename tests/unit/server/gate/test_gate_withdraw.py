"""What the round loop takes back when a round goes on without a site."""

from flwr.app import ConfigRecord, Message, RecordDict

from hilum.server.federation.exchange import BoundedGrid, NamingGrid, WithdrawingGrid
from hilum.server.gate.bounds import GateBounds
from hilum.server.gate.grid import GateGrid
from hilum.server.gate.mailbox import Mailbox


def message(node_id, value):
    return Message(RecordDict({"facts": ConfigRecord({"value": value})}), node_id, "train", ttl=60.0)


def test_a_site_that_comes_back_is_not_handed_what_was_withdrawn():
    mailbox = Mailbox(GateBounds())
    mailbox.saw("site-0")
    with GateGrid(mailbox, "run", ["site-0"]) as grid:
        [node_id] = grid.get_node_ids()
        old, new = grid.push_messages([message(node_id, 1), message(node_id, 2)])
        assert mailbox.next_message("site-0").message_id == old
        mailbox.activate("site-0")
        grid.withdraw([old, "unknown"])
        assert mailbox.next_message("site-0").message_id == new
        assert mailbox.next_message("site-0") is None
        assert list(grid.pull_messages([old])) == []
        grid.withdraw([new])
        assert len(mailbox._objects) == 0


def test_a_run_can_not_withdraw_anothers_messages():
    mailbox = Mailbox(GateBounds())
    mailbox.saw("site-0")
    one, other = GateGrid(mailbox, "one", ["site-0"]), GateGrid(mailbox, "other", ["site-0"])
    [node_id] = one.get_node_ids()
    [kept] = one.push_messages([message(node_id, 1)])
    other.withdraw([kept])
    assert mailbox.next_message("site-0").message_id == kept


def test_the_gates_grid_has_all_that_the_round_loop_makes_use_of():
    grid = GateGrid(Mailbox(GateBounds()), "run", ["site-0"])
    assert isinstance(grid, NamingGrid)
    assert isinstance(grid, BoundedGrid)
    assert isinstance(grid, WithdrawingGrid)
