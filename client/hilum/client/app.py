"""Thin Flower ClientApp: message -> policy -> loop -> message.

The learning is in plain functions that know nothing of Flower. A handler keeps nothing in memory: a deployment gives
each message a process of its own, so all state lies in the site's folder. Whatever goes wrong at a site leaves it as a
reason code and a message that was made to be shown, never as a traceback.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hilum.client.policy import check_policy, check_version
from hilum.common import records
from hilum.common.config import SiteConfig, StudyConfig, load_site
from hilum.common.errors import ConfigError, DataError, HilumError, PolicyRefused
from hilum.common.quiet import close_outbound, configure_logging

SiteOf = Callable[[Context], SiteConfig]
Work = Callable[[SiteConfig, StudyConfig, records.Request], RecordDict]
_log = logging.getLogger(__name__)


def site_from_node_config(context: Context) -> SiteConfig:
    """A deployed SuperNode names its site file in its own node config; the server can't."""
    return load_site(Path(str(context.node_config["site"])))


def make_app(site_of: SiteOf) -> ClientApp:
    """The client app; `site_of` tells which site a message has reached."""
    made = ClientApp()

    @made.query()
    def hello(message: Message, context: Context) -> Message:
        return _answer(message, context, site_of, _hello)

    @made.train()
    def train(message: Message, context: Context) -> Message:
        return _answer(message, context, site_of, _train)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return _answer(message, context, site_of, _evaluate)

    return made


def _answer(message: Message, context: Context, site_of: SiteOf, work: Work) -> Message:
    """Check the request against version and policy, do the work, and turn any failure into a refusal."""
    close_outbound()
    configure_logging()
    name = "unknown site"
    try:
        site = site_of(context)
        name = site.site.name
        request = records.unpack_request(message.content)
        check_version(request.version)
        study = request.config()
        check_policy(site, study)
        content = work(site, study, request)
    except HilumError as error:
        _log.warning("%s refused: %s", name, error)
        content = records.pack_refusal(records.Refusal(name, _reason(error), str(error)))
    except Exception as error:
        # The text of a foreign exception may quote a path or an identifier: the type alone goes out.
        _log.exception("%s failed", name)
        refusal = records.Refusal(
            name, "failed", f"{name} failed with {type(error).__name__}; see the site's log"
        )
        content = records.pack_refusal(refusal)
    return Message(content, reply_to=message)


def _reason(error: HilumError) -> str:
    if isinstance(error, PolicyRefused):
        return "policy"
    if isinstance(error, DataError):
        return "data"
    return "config" if isinstance(error, ConfigError) else "failed"


def _hello(site: SiteConfig, study: StudyConfig, request: records.Request) -> RecordDict:
    from hilum.client.site_data import open_site

    del request
    data = open_site(site, study)
    return records.pack_hello(records.Hello(site.site.name, len(data.split.pretrain)))


def _train(site: SiteConfig, study: StudyConfig, request: records.Request) -> RecordDict:
    from hilum.client.pretraining.site import site_round
    from hilum.client.site_data import open_site
    from hilum.client.workspace import Workspace

    data = open_site(site, study)
    folder = Workspace(site.state.folder).run(request.run)
    base = request.base
    sent = site_round(data, study, base, request.round_number, folder, device=site.compute.device)
    return records.pack_training_reply(
        records.TrainReply(
            site=site.site.name,
            round_number=request.round_number,
            base_sha256=sent.base_sha256,
            examples=sent.examples,
            loss=sent.outcome.loss,
            seconds=sent.outcome.seconds,
            update=sent.update,
        )
    )


def _evaluate(site: SiteConfig, study: StudyConfig, request: records.Request) -> RecordDict:
    from hilum.client.evaluation.site import evaluate_arms
    from hilum.client.site_data import open_site
    from hilum.client.workspace import Workspace

    data = open_site(site, study)
    folder = Workspace(site.state.folder).run(request.run) / "alone"
    found = evaluate_arms(data, study, request.weights, folder, device=site.compute.device)
    return records.pack_evaluation_reply(records.EvaluateReply(site.site.name, found.to_json()))


app = make_app(site_from_node_config)
