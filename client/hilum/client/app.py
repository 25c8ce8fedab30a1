"""Thin Flower ClientApp: message -> checks -> policy -> ledger -> work -> message.

The learning is in plain functions that know nothing of Flower. A handler keeps nothing in memory: all state lies in the
site's folder. Whatever goes wrong at a site leaves it as a code of `hilum.common.refusals`; what exactly it was stands
in the site's own log, without text of foreign exceptions, which may quote an identifier.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hilum.client.disclosure import outgoing
from hilum.client.disclosure.leaves import Limits
from hilum.client.disclosure.run_ledger import Budget, Charge, RunLedger
from hilum.client.incoming import Asked, check_request
from hilum.client.policy import check_policy, check_size
from hilum.client.state.workspace import Workspace
from hilum.common import records
from hilum.common.config import SiteConfig
from hilum.common.errors import DataError, HilumError, LabelError, RequestRefused
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.common.machine import machine_problem
from hilum.common.signing import public_key_of

SiteOf = Callable[[Context], SiteConfig]
StudyKeyOf = Callable[[SiteConfig], Ed25519PublicKey]
Work = Callable[[SiteConfig, Asked], RecordDict]
_MAX_LOGGED = 500
_log = logging.getLogger(__name__)


def study_key_of_link(site: SiteConfig) -> Ed25519PublicKey:
    """Return the key of the admin whose studies this site takes: from its own file, never from a message.

    Raises:
        RequestRefused: `unsigned`, if the file names none.
    """
    if site.link is None:
        raise RequestRefused("unsigned", "the site file has no [link] table, so no study key is pinned")
    return public_key_of(site.link.study_key)


def make_app(site_of: SiteOf, study_key_of: StudyKeyOf = study_key_of_link) -> ClientApp:
    """Make the client app.

    Args:
        site_of: Tells which site a message has reached.
        study_key_of: Gives the public key that the site has pinned.
    """
    made = ClientApp()

    def answer(message: Message, context: Context, kind: str, work: Work) -> Message:
        return Message(_answer(message.content, context, site_of, study_key_of, kind, work), reply_to=message)

    @made.query()
    def hello(message: Message, context: Context) -> Message:
        return answer(message, context, records.HELLO, _hello)

    @made.query("score")
    def score(message: Message, context: Context) -> Message:
        return answer(message, context, records.SCORE, _score)

    @made.train()
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, records.TRAIN, _train)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return answer(message, context, records.EVALUATE, _evaluate)

    return made


def _answer(
    content: RecordDict, context: Context, site_of: SiteOf, study_key_of: StudyKeyOf, kind: str, work: Work
) -> RecordDict:
    """Check the request, do the work, and turn any failure into a refusal."""
    close_outbound()
    configure_logging()
    name = "unknown"
    try:
        site = site_of(context)
        name = site.site.name
        asked = check_request(kind, content, site=name, key=study_key_of(site), now=time.time())
        if site.policy is not None:
            check_policy(site.policy, asked.study)
        _check_size(site, asked)
        return work(site, asked)
    except RequestRefused as error:
        _log.warning("%s refused (%s): %s", name, error.code, _plain(str(error)))
        return outgoing.refusal(name, error.code)
    except HilumError as error:
        code = "data" if isinstance(error, DataError) else "failed"
        said = error.message if isinstance(error, LabelError) else str(error)
        _log.warning("%s refused (%s): %s", name, code, _plain(said))
        return outgoing.refusal(name, code)
    except Exception as error:
        if (problem := machine_problem(error)) is not None:
            _log.error("%s failed: %s", name, problem)
            return outgoing.refusal(name, "machine")
        _log.error("%s failed: %s at %s", name, type(error).__name__, _where(error))
        return outgoing.refusal(name, "failed")


def _check_size(site: SiteConfig, asked: Asked) -> None:
    """Bound memory and disk before the images are even counted, and again with their number."""
    from hilum.client.data.prepared import holding_of

    check_size(site, asked.study)
    held = holding_of(Workspace(site.state.folder), asked.study.data)
    check_size(
        site, asked.study, held.images, packed_bytes=held.packed_bytes, lacking_bytes=held.lacking_bytes
    )


def _hello(site: SiteConfig, asked: Asked) -> RecordDict:
    from hilum.client.data.site_data import open_run

    with _charged(site, asked, sent_bytes=0) as (ledger, _):
        data = open_run(site, asked.study, asked.order.run)
        for note in data.notes:
            _log.warning("%s: %s", site.site.name, note)
        examples = ledger.examples(asked.order.run, data.examples(_threshold(asked)))
        return outgoing.hello(site.site.name, examples, Limits.of(asked.study))


def _train(site: SiteConfig, asked: Asked) -> RecordDict:
    from hilum.client.data.site_data import open_run
    from hilum.client.pretraining.compiling import keep_compiled_in
    from hilum.client.pretraining.group import group_of
    from hilum.client.pretraining.site import site_round
    from hilum.common.weights import sha256_of

    study, run = asked.study, asked.order.run
    with _charged(site, asked, sent_bytes=asked.base.nbytes) as (ledger, charge):
        ledger.ask_round(run, asked.round_number, sha256_of({"base": asked.base}), _budget(site))
        data = open_run(site, study, run)
        examples = ledger.examples(run, data.examples(_threshold(asked)))
        workspace = Workspace(site.state.folder)
        keep_compiled_in(workspace.compiled)
        sent = site_round(
            data,
            study,
            asked.base,
            asked.round_number,
            workspace.run(run),
            device=site.compute.device,
            devices=site.compute.devices,
            group=group_of(site),
            progress=charge,
        )
        reply = outgoing.training_reply(
            site.site.name,
            round_number=asked.round_number,
            base_sha256=sent.base_sha256,
            examples=examples,
            loss=sent.outcome.loss,
            seconds=sent.outcome.seconds,
            health=sent.health,
            update=sent.update,
            limits=Limits.of(study, asked.base.size),
        )
        charge.sent_bytes = outgoing.size_bytes(reply)
        if not study.tasks.given and asked.round_number == study.federation.rounds:
            ledger.finish(run)  # before the answer leaves
        return reply


def _score(site: SiteConfig, asked: Asked) -> RecordDict:
    from hilum.client.data.site_data import open_run
    from hilum.client.evaluation.selection import score_weights, validation_patients
    from hilum.common.weights import sha256_of

    study, run = asked.study, asked.order.run
    if study.training.select != "knn":
        raise RequestRefused("wrong_format", "the study asks for no scores")
    if site.data.labels is None:
        raise RequestRefused("no_labels", "the site file names no label table (`data.labels`)")
    with _charged(site, asked, sent_bytes=0) as (ledger, charge):
        ledger.ask_score(run, asked.round_number, sha256_of({"base": asked.base}), _budget(site))
        data = open_run(site, study, run)
        patients = validation_patients(data, study)
        if patients < _threshold(asked):
            raise RequestRefused("too_few_patients", f"{patients} patients would stand behind the score")
        charge.advance(0)
        score = score_weights(asked.base, data, study, device=site.compute.device)
        reply = outgoing.score_reply(
            site.site.name,
            round_number=asked.round_number,
            score=score,
            patients=patients,
            limits=Limits.of(study),
        )
        charge.sent_bytes = outgoing.size_bytes(reply)
        return reply


def _evaluate(site: SiteConfig, asked: Asked) -> RecordDict:
    from hilum.client.evaluation.answered import answer_evaluation
    from hilum.client.pretraining.compiling import keep_compiled_in

    if not asked.study.tasks.given:
        raise RequestRefused("wrong_format", "the study names no task, so there is nothing to evaluate")
    if site.data.labels is None:
        raise RequestRefused("no_labels", "the site file names no label table (`data.labels`)")
    with _charged(site, asked, sent_bytes=0) as (ledger, charge):
        keep_compiled_in(Workspace(site.state.folder).compiled)
        table = answer_evaluation(site, asked, charge)
        reply = outgoing.evaluation_reply(site.site.name, table, Limits.of(asked.study))
        charge.sent_bytes = outgoing.size_bytes(reply)
        ledger.finish(asked.order.run)  # before the answer leaves
        return reply


@contextmanager
def _charged(site: SiteConfig, asked: Asked, *, sent_bytes: int) -> Iterator[tuple[RunLedger, Charge]]:
    """Enter the run in the ledger, and count what the work inside the block uses of its budget."""
    with closing(RunLedger(Workspace(site.state.folder).runs)) as ledger:
        ledger.enter(asked.order.run, asked.order.terms)
        with ledger.charging(asked.order.run, sent_bytes, _budget(site)) as charge:
            yield ledger, charge


def _budget(site: SiteConfig) -> Budget:
    policy = site.policy
    return Budget() if policy is None else Budget(policy.max_hours, policy.max_sent_mb, policy.max_repeats)


def _threshold(asked: Asked) -> int:
    return asked.study.privacy.min_patients


def _plain(text: str) -> str:
    """Return one bounded line of printable characters: what was asked may be quoted in it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_MAX_LOGGED])


def _where(error: Exception) -> str:
    """Return where an exception was raised, the innermost places first, without its text."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
