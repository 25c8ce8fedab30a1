"""The answers that a site has given about itself, so that two of them can't be played against each other (SQLite).

**Descriptions.** A new answer must differ in at least `k` patients from each earlier one; closer than that, the earlier
answer is given again. Whoever asks, adds a patient and asks again therefore learns nothing of that patient. New answers
are counted against a budget.

**Evaluations.** The same question (one study, the same weights) about the same patients, or about all but fewer than
`k` of them, gets the earlier answer. A description can refuse a second question, since all of them can be asked at
once; an evaluation can't, for each new encoder is a new question about the same patients. So two evaluations can be
played against each other, and what they tell is bounded by their number. What two of them tell:

- With another seed or another share of test patients, the sets of test patients overlap, and the difference of two
  metrics is that of the patients whom only one set holds. Between shares of 0.30 and 0.31 that may be one patient: the
  difference says whether the encoder ranked that patient right. It does not say who it is, nor what the label was.
- The numbers of test patients under many shares narrow down the number of labelled patients.
- With weights that differ in one direction only, the difference says on which side of it the test patients lie, in the
  mean over at least `k` of them.

None of that is an image or a name, and each costs one of `policy.max_evaluations`, a study under the admin's signature,
and an entry here. What would bound it by proof is noise on the metrics; none is added yet.

The ledger stays at the site and holds pseudonyms only.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, func, select, update

from hilum.common.database import Database
from hilum.common.errors import PolicyRefused

DEFAULT_BUDGET = 20
FORGET = (
    "with the consent of the site's data protection officer, move it away; what was answered and used up is then "
    "forgotten"
)

_VERSION = 2  # of the tables below
_UPGRADES = {1: "ALTER TABLE answers ADD COLUMN kind VARCHAR NOT NULL DEFAULT 'description'"}
_DESCRIPTION, _EVALUATION = "description", "evaluation"
_NOT_YET = ""  # instead of an answer: it was asked for, and is not measured

_metadata = MetaData()
_answers = Table(
    "answers",
    _metadata,
    Column("answer", Integer, primary_key=True),
    Column("question", String, nullable=False),
    Column("text", String, nullable=False),
    Column("kind", String, nullable=False),
)
_patients = Table(
    "patients",
    _metadata,
    Column("answer", Integer, primary_key=True),
    Column("patient_key", String, primary_key=True),
    Column("images_digest", String, nullable=False),
    Column("labels_digest", String, nullable=False),
)


@dataclass(frozen=True)
class Facts:
    """What an answer takes from one patient, as digests: of the images, and of the labels that were asked for."""

    images: str
    labels: str = ""


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        new: False where an earlier answer is given again.
        left: How many new answers the budget still holds.
    """

    content: dict[str, Any]
    new: bool
    left: int


class AnswerLedger:
    """Reads and writes the answers of one site. For `ask`, one process at a time: hold `Workspace.locked`."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _metadata, version=_VERSION, upgrades=_UPGRADES, remedy=FORGET)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def ask(
        self,
        question: Mapping[str, Any],
        patients: Mapping[str, Facts],
        compute: Callable[[], dict[str, Any]],
        *,
        threshold: int,
        budget: int = DEFAULT_BUDGET,
        agree: Callable[[int], None] = lambda _left: None,
    ) -> Answer:
        """Give the earlier answer where there is one that is close enough, else a new one.

        Args:
            question: Everything that shapes the answer but the data.
            patients: What the answer would take from each patient, by pseudonym.
            compute: Makes the answer.
            threshold: In how many patients a new answer must differ from every earlier one.
            budget: New answers all in all.
            agree: Told how many are left before a new one is given; what it raises keeps that one from being spent.

        Raises:
            PolicyRefused: If the budget is spent, or if another question about the same patients was answered.
        """
        asked = json.dumps(question, sort_keys=True)
        given = self._given(_DESCRIPTION)
        close = [row for row in given if self._changed(row, asked, patients) < threshold]
        for row in close:
            if row.question == asked:
                return Answer(json.loads(row.text), new=False, left=max(0, budget - len(given)))
        if close:
            raise PolicyRefused(
                "policy_evaluations",
                "another question about the same patients was answered already, and both answers together could tell "
                f"more than either; ask as before, or again when at least {threshold} patients have changed",
            )
        if len(given) >= budget:
            raise PolicyRefused(
                "policy_evaluations",
                f"the budget of {budget} different answers is spent, and the images have changed since the last one; "
                "show the last answer's file, or let the site's data protection officer agree to a higher --budget",
            )
        agree(budget - len(given))
        content = compute()
        self._record(_DESCRIPTION, asked, json.dumps(content), patients)
        return Answer(content, new=True, left=budget - len(given) - 1)

    def evaluate(
        self,
        question: Mapping[str, Any],
        patients: Mapping[str, Facts],
        compute: Callable[[], dict[str, Any]],
        *,
        threshold: int,
        budget: int,
    ) -> Answer:
        """Give the earlier answer to the same question, unless enough patients have changed since; else a new one.

        A question is counted before it is measured, and once: a measurement that was cut off or failed is repeated at no
        further cost. One that failed tells something too: weights that overflow on one patient's image and on no other
        would ask for that patient, as often as one likes, if only answers counted.

        Args:
            question: The study's terms and the weights' hashes.
            patients: What the measurement would take from each patient, by pseudonym.
            compute: Measures.
            threshold: In how many patients the data must differ for the same question to be a new one.
            budget: Different evaluations all in all.

        Raises:
            PolicyRefused: `policy_evaluations`, if the budget is spent.
        """
        asked = json.dumps(question, sort_keys=True)
        given = self._given(_EVALUATION)
        left = max(0, budget - len(given))
        number: int | None = None
        for row in given:
            if row.question == asked and self._changed(row, asked, patients) < threshold:
                if row.text != _NOT_YET:
                    return Answer(json.loads(row.text), new=False, left=left)
                number = row.answer
                break
        if number is None:
            if len(given) >= budget:
                raise PolicyRefused(
                    "policy_evaluations",
                    f"max_evaluations is {budget}, and {len(given)} were asked for; this one differs",
                )
            number = self._record(_EVALUATION, asked, _NOT_YET, patients)
            left -= 1
        content = compute()
        self._complete(number, content)
        return Answer(content, new=True, left=left)

    def _given(self, kind: str) -> list[Any]:
        """Return the answers of one kind, the newest first."""
        with self._database.transaction() as connection:
            rows = select(_answers).where(_answers.c.kind == kind)
            return list(connection.execute(rows.order_by(_answers.c.answer.desc())))

    def _changed(self, row: Any, asked: str, patients: Mapping[str, Facts]) -> int:
        """In how many patients the data differ from those of an earlier answer."""
        with self._database.transaction() as connection:
            rows = connection.execute(select(_patients).where(_patients.c.answer == row.answer))
            before = {one.patient_key: Facts(one.images_digest, one.labels_digest) for one in rows}
        if row.question != asked:  # labels of another column are no change of the patients
            before = {key: Facts(facts.images) for key, facts in before.items()}
            patients = {key: Facts(facts.images) for key, facts in patients.items()}
        return sum(before.get(key) != patients.get(key) for key in before.keys() | patients.keys())

    def _complete(self, number: int, content: dict[str, Any]) -> None:
        with self._database.transaction() as connection:
            row = update(_answers).where(_answers.c.answer == number)
            connection.execute(row.values(text=json.dumps(content)))

    def _record(self, kind: str, asked: str, text: str, patients: Mapping[str, Facts]) -> int:
        with self._database.writing() as connection:  # a description and an evaluation may come at once
            number = (connection.scalar(select(func.max(_answers.c.answer))) or 0) + 1
            connection.execute(_answers.insert().values(answer=number, question=asked, text=text, kind=kind))
            rows = [
                {
                    "answer": number,
                    "patient_key": key,
                    "images_digest": facts.images,
                    "labels_digest": facts.labels,
                }
                for key, facts in patients.items()
            ]
            if rows:
                connection.execute(_patients.insert(), rows)
        return int(number)
