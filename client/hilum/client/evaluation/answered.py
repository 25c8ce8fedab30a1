"""An evaluation as it may leave: over enough patients, entered in the ledger of answers, rounded."""

from contextlib import closing
from typing import Any

from hilum.client.data.site_data import open_run
from hilum.client.disclosure import outgoing
from hilum.client.disclosure.answers import AnswerLedger
from hilum.client.disclosure.leaves import Limits
from hilum.client.evaluation.site import evaluate_arms
from hilum.client.incoming import Asked
from hilum.client.pretraining.group import group_of
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig
from hilum.common.errors import RequestRefused
from hilum.common.progress import Progress
from hilum.common.weights import sha256_of


def answer_evaluation(site: SiteConfig, asked: Asked, progress: Progress) -> dict[str, Any]:
    """Measure what was asked, or give the earlier answer to the same question.

    In a simulation (no policy) everything is measured every time: there is nobody to hide from, and a researcher who
    mends three labels wants to see what changed.

    Args:
        site: The site.
        asked: The request, checked.
        progress: Told as the work goes on; it may stop it.

    Returns:
        What `outgoing.evaluation_table` gives.

    Raises:
        RequestRefused: `too_few_patients`, if fewer patients than the threshold are tested for every task.
        PolicyRefused: `policy_evaluations`, if the budget is spent.
    """
    study = asked.study
    threshold = study.privacy.min_patients
    workspace = Workspace(site.state.folder)
    data = open_run(site, study, asked.order.run)
    tested = max(data.of_task(task.kind).test_patients for task in study.tasks.given)
    if tested < threshold:
        raise RequestRefused(
            "too_few_patients", f"{tested} patients would be tested, privacy.min_patients is {threshold}"
        )

    def measure() -> dict[str, Any]:
        folder = workspace.run(asked.order.run) / "alone"
        found = evaluate_arms(
            data,
            study,
            asked.weights,
            folder,
            start=asked.start,
            device=site.compute.device,
            devices=site.compute.devices,
            group=group_of(site),
            progress=progress,
            training=progress,
            steps=progress,
        )
        return outgoing.evaluation_table(found, Limits.of(study))

    if site.policy is None:
        return measure()
    question = {
        "terms": asked.order.terms,
        "weights": {arm: sha256_of({"weights": flat}) for arm, flat in sorted(asked.weights.items())},
    }
    with closing(AnswerLedger(workspace.answers)) as answers:
        return answers.evaluate(
            question, data.facts, measure, threshold=threshold, budget=site.policy.max_evaluations
        ).content
