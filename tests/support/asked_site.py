"""A site that is asked what a server may ask: anything. `KEY` is the admin's, whom the site trusts."""

from hilum.client.app import make_app
from hilum.common import records
from hilum.common.config import SiteConfig
from hilum.common.config.site import PolicySection
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.server.federation.exchange import exchange
from hilum.simulations.grid import InProcessGrid
from signed import KEY, sign

HOUR_S = 3600


def with_policy(site: SiteConfig, **policy) -> SiteConfig:
    return site.model_copy(update={"policy": PolicySection(**policy)})


def ask(site, content, kind=records.HELLO):
    app = make_app(lambda context: site, lambda site: KEY.public_key())
    with InProcessGrid(app, nodes=1, workers=1) as grid:
        [node] = grid.get_node_ids()
        [answer] = exchange(grid, {node: lambda: content}, kind, deadline_s=120, poll_s=0.01)
    return answer.content


def refused(site, content, kind=records.HELLO):
    refusal = records.unpack_refusal(ask(site, content, kind))
    assert refusal is not None, "the site did as it was told"
    assert refusal.site == site.site.name
    return refusal.code


def first_weights(study):
    return get_federated(build_method(study))


def training(study, round_number=1, base=None, **signing):
    base = first_weights(study) if base is None else base
    return records.pack_training_request(sign(study, **signing), round_number, base)
