"""Score: every site of a round is asked how good the encoder that it gave is on validation patients."""

import logging
import math
from collections.abc import Callable, Sequence

from flwr.app import RecordDict
from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.config import StudyConfig
from hilum.common.errors import FederationError, UpdateRefused
from hilum.server.federation.exchange import Closing, Presence, content_of, exchange
from hilum.server.federation.roster import Site

_log = logging.getLogger(__name__)


def collect_scores(
    grid: Grid,
    sites: Sequence[Site],
    request: RecordDict,
    number: int,
    *,
    study: StudyConfig,
    poll_s: float,
    presence: Presence,
    on_poll: Callable[[], None],
) -> dict[str, float]:
    """Return the score of a round's encoder at each site that could measure it.

    Args:
        grid: Reaches the sites.
        sites: Who is asked.
        request: To score, with the weights after the round.
        number: The round's.
        study: How long to wait, and for how many.
        poll_s: How often to look.
        presence: Tells who is lost and back.
        on_poll: Called at each look; what it raises ends the round.

    Raises:
        FederationError: If fewer than the quorum could.
    """
    names = {site.node_id: site.name for site in sites}
    scores: dict[str, float] = {}
    missing: dict[str, str] = {}
    for answer in exchange(
        grid,
        {node_id: lambda: request for node_id in names},
        records.SCORE,
        deadline_s=study.federation.deadline_s,
        poll_s=poll_s,
        presence=presence,
        closing=Closing(lambda: len(scores) >= study.quorum, study.federation.return_s),
        on_poll=on_poll,
    ):
        name = names[answer.node_id]
        try:
            scores[name] = _admitted(records.unpack_score_reply(content_of(answer)), name, number)
        except UpdateRefused as refused:
            missing[name] = str(refused)
            _log.warning("round %d: no score of %s: %s", number, name, str(refused))
    if len(scores) < study.quorum:
        why = "; ".join(f"{name}: {words}" for name, words in sorted(missing.items())) or "no answer"
        raise FederationError(
            f'round {number} has {len(scores)} of the {study.quorum} scores that training.select = "knn" needs ({why}); '
            "mend the cause and go on with --resume"
        )
    return dict(sorted(scores.items()))


def _admitted(reply: records.ScoreReply, name: str, number: int) -> float:
    """Return a score that counts.

    Raises:
        UpdateRefused: `wrong_site`, `stale`, `not_finite` or `out_of_range`.
    """
    if reply.site != name:
        raise UpdateRefused("wrong_site", f"expected {name}, the score says it is another site's")
    if reply.round_number != number:
        raise UpdateRefused("stale", f"expected a score of round {number}")
    if not math.isfinite(reply.score):
        raise UpdateRefused("not_finite", "the score is a NaN or an infinity")
    if not records.MIN_SCORE <= reply.score <= records.MAX_SCORE:
        raise UpdateRefused("out_of_range", f"the score is {reply.score:.6g}")
    return reply.score
