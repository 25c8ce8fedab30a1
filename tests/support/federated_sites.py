"""Sites that answer a server's rounds as a test says, on the in-process grid."""

from types import SimpleNamespace

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp

from health import HEALTHY
from hilum.common import records
from hilum.common.weights import sha256_of
from hilum.server.federation.run_spec import Polling
from hilum.simulations.grid import InProcessGrid

PACE = Polling(poll_s=0.005, gather_s=30.0)
EXAMPLES = {"site-0": 10, "site-1": 30, "site-2": 20}
NAMES = tuple(EXAMPLES)


class LazyPool:
    """Sites work when their answers are taken, so that none waits in the grid."""

    def submit(self, work, *facts):
        return SimpleNamespace(done=lambda: True, result=lambda: work(*facts))

    def shutdown(self, **_how):
        return


class NamedGrid(InProcessGrid):
    """Knows names, as the gate does, and can lose sites."""

    def __init__(self, client, names=NAMES):
        super().__init__(client, nodes=len(names), workers=len(names))
        self.names = dict(zip(sorted(self._contexts), names, strict=True))
        self.limits, self.withdrawn, self.gone = {}, [], set()

    def get_node_ids(self):
        return [node for node, name in self.names.items() if name not in self.gone]

    def reply_limit(self, message_type, size_bytes):
        self.limits[message_type] = size_bytes

    def withdraw(self, message_ids):
        self.withdrawn += message_ids


def honest(name, request):
    """Moves every weight by the site's number of examples, in thousandths."""
    base = request.base
    named = {"a": base[: base.size // 2], "b": base[base.size // 2 :].reshape(2, -1)}
    return records.TrainReply(
        name, request.round_number, sha256_of(named), EXAMPLES[name], 1.0, 0.1, HEALTHY,
        np.full_like(base, EXAMPLES[name] / 1024),
    )  # fmt: skip


def make_client(train=None, names=NAMES, hello=None, score=None):
    """A client app whose sites answer as `train`, `hello` and `score` say, by name."""
    app = ClientApp()

    def name_of(context):
        return names[context.node_config["partition-id"]]

    def message_of(answer, message, pack):
        if isinstance(answer, Error):
            return Message(answer, reply_to=message)
        if isinstance(answer, records.Refusal):
            answer = records.pack_refusal(answer)
        content = answer if isinstance(answer, RecordDict) else pack(answer)
        return Message(content, reply_to=message)

    @app.query()
    def greet(message, context):
        name = name_of(context)
        answer = (hello or {}).get(name, lambda: records.Hello(name, EXAMPLES[name]))()
        return message_of(answer, message, records.pack_hello)

    @app.train()
    def do_train(message, context):
        name = name_of(context)
        request = records.unpack_request(message.content)
        answer = (train or {}).get(name, honest)(name, request)
        return message_of(answer, message, records.pack_training_reply)

    @app.query("score")
    def do_score(message, context):
        name = name_of(context)
        request = records.unpack_request(message.content)
        answer = (score or {}).get(name, middling)(name, request)
        return message_of(answer, message, records.pack_score_reply)

    return app


def middling(name, request):
    """Finds every encoder as good as the others."""
    return records.ScoreReply(name, request.round_number, 0.5)


def changed(**facts):
    def answer(name, request):
        reply = honest(name, request)
        return records.TrainReply(**{**{f: getattr(reply, f) for f in reply.__dataclass_fields__}, **facts})

    return answer
