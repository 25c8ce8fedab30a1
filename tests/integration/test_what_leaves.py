"""Every byte that leaves a site is held against the list of what may, and searched for what may not.

A hospital whose label table, files and columns carry markers answers each kind of message, and refuses in many ways;
a recording grid keeps what was sent as it would go over the wire.
"""

import csv
import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from hilum.client.app import make_app
from hilum.client.data.site_data import open_site
from hilum.client.disclosure.leaves import LEAVES, REFUSAL, Limits
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common import records
from hilum.common.config.site import PolicySection
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.progress import NullProgress
from hilum.common.refusals import REFUSALS
from hilum.server.federation.exchange import exchange
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.grid import InProcessGrid
from hilum.simulations.phantoms import write_phantoms
from signed import KEY, STRANGER, sign

COLUMN = "zzcolumn"
CLASSES = ("zzbenign", "zzmalignant")
TYPES = {str: str, int: int, float: float, np.ndarray: Array}


class RecordingGrid(InProcessGrid):
    """Keeps the content of every reply."""

    def __init__(self, *words, **more):
        super().__init__(*words, **more)
        self.sent = []

    def pull_messages(self, message_ids):
        replies = list(super().pull_messages(message_ids))
        self.sent += [reply.content for reply in replies]
        return replies


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zzhospital")
    write_phantoms(folder / "archives", sites=1, patients=47, size=64, seed=6)
    [site] = find_sites(folder / "archives", folder / "home")
    index_sites([site], NullProgress())
    with site.data.labels.open() as file:
        rows = list(csv.DictReader(file))
    table = folder / "zztable.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], COLUMN])
        writer.writeheader()
        writer.writerows({**row, COLUMN: CLASSES[int(row["label"])]} for row in rows)
    policy = PolicySection(labels=("label", COLUMN))
    data = site.data.model_copy(update={"labels": table})
    return site.model_copy(update={"policy": policy, "data": data})


@pytest.fixture(scope="module")
def study(request):
    from hilum.common.config import parse_study
    from studies import study_table

    return parse_study(
        study_table(
            privacy={"min_patients": 11},
            tasks={"classification": {"label": COLUMN}},
            evaluation={"protocols": ["knn", "linear"], "label_fractions": [0.5, 1.0]},
            training={"select": "knn"},
        )
    )


@pytest.fixture(scope="module")
def sent(site, study):
    """What left, by kind of message; refusals of every kind under `refusal`."""
    base = get_federated(build_method(study))
    found = {kind: [] for kind in (records.HELLO, records.SCORE, records.TRAIN, records.EVALUATE, REFUSAL)}
    bare = site.model_copy(update={"data": site.data.model_copy(update={"labels": None})})
    wrong = site.data.labels.with_name("zzwrong.csv")
    wrong.write_text(f"file,patient,{COLUMN}\nzzfile.dcm,zzperson,zzbenign\n")
    unfit = site.model_copy(update={"data": site.data.model_copy(update={"labels": wrong})})
    strict = site.model_copy(update={"policy": PolicySection(labels=("label",))})
    evaluation = records.pack_request(sign(study), weights={"federated": base})
    asked = [
        (site, records.HELLO, records.pack_request(sign(study))),
        (site, records.TRAIN, records.pack_training_request(sign(study), 1, base)),
        (site, records.TRAIN, records.pack_training_request(sign(study), 2, base)),
        (site, records.SCORE, records.pack_training_request(sign(study), 1, base)),
        (site, records.EVALUATE, evaluation),
        (site, records.EVALUATE, evaluation),
        (site, records.TRAIN, records.pack_training_request(sign(study), 1, base + 1)),
        (site, records.HELLO, records.pack_request(sign(study, key=STRANGER))),
        (bare, records.EVALUATE, evaluation),
        (bare, records.SCORE, records.pack_training_request(sign(study), 2, base)),
        (unfit, records.HELLO, records.pack_request(sign(study))),
        (strict, records.HELLO, records.pack_request(sign(study))),
        (site, records.TRAIN, RecordDict({"zz": ConfigRecord({"zz": "zz"})})),
    ]
    for who, kind, content in asked:
        app = make_app(lambda context, who=who: who, lambda site: KEY.public_key())
        with RecordingGrid(app, nodes=1, workers=1) as grid:
            [node] = grid.get_node_ids()
            list(exchange(grid, {node: lambda: content}, kind, deadline_s=300, poll_s=0.01))  # noqa: B023 - asked at once
        [reply] = grid.sent
        found[REFUSAL if "refused" in reply["facts"] else kind].append(reply)
    return found


def test_each_kind_of_message_was_sent(sent):
    assert {kind: len(replies) for kind, replies in sent.items()} == {
        records.HELLO: 1,
        records.SCORE: 1,
        records.TRAIN: 2,
        records.EVALUATE: 2,
        REFUSAL: 7,
    }
    codes = {reply["facts"]["refused"] for reply in sent[REFUSAL]}
    assert codes == {"run_over", "unsigned", "no_labels", "data", "policy_labels", "wrong_format"}
    assert codes <= set(REFUSALS)


def test_every_byte_is_a_value_of_the_list_that_keeps_its_rule(sent, study):
    """What the list does not name is left out of a copy; the copy is the same, byte for byte."""
    kinds = {"facts": ConfigRecord, "numbers": MetricRecord, "arrays": ArrayRecord}
    limits = Limits.of(study, get_federated(build_method(study)).size)
    for kind, replies in sent.items():
        for reply in replies:
            listed = RecordDict()
            for one in LEAVES:
                if one.message != kind or ": " in one.key:
                    continue
                value = reply[one.record][one.key]
                assert type(value) is TYPES[one.kind], one
                assert one.holds(
                    np.frombuffer(value.data, "<f4") if one.kind is np.ndarray else value, limits
                ), one
                listed.setdefault(one.record, kinds[one.record]())[one.key] = value
            assert wire(listed) == wire(reply)


def wire(content):
    """The bytes of a reply, without regard to the order of its parts."""
    parts = []
    for name in sorted(content):
        record = content[name]
        same = type(record)({key: record[key] for key in sorted(record)})
        parts.append(recorddict_to_proto(RecordDict({name: same})).SerializeToString(deterministic=True))
    return b"".join(parts)


def test_every_cell_of_the_results_is_on_the_list_and_keeps_its_rule(sent, study):
    limits = Limits.of(study)
    rules = {one.key: one for one in LEAVES if one.message == records.EVALUATE}
    for reply in sent[records.EVALUATE]:
        table = json.loads(reply["facts"]["evaluation"])
        assert set(table) == {"rows", "comparisons"}
        assert table["rows"]
        assert table["comparisons"]
        for name, rows in table.items():
            columns = {key.split(": ")[2] for key in rules if key.startswith(f"evaluation: {name}: ")}
            for row in rows:
                assert set(row) == columns
                for column, value in row.items():
                    rule = rules[f"evaluation: {name}: {column}"]
                    assert type(value) is rule.kind
                    assert rule.holds(value, limits), (column, value)


def test_the_numbers_are_those_of_the_site_made_harmless(sent, site, study):
    """Computed here from the data themselves, not by what made the replies."""
    data = open_site(site, study)
    groups = data.split.group[data.split.pretrain]
    counts = sorted((int((groups == g).sum()) for g in set(groups.tolist())), reverse=True)
    limit = counts[10]
    band = sum(min(count, limit) for count in counts) // 11 * 11
    tested = len(set(data.split.group[data.split.test].tolist()))
    assert band != len(data.split.pretrain)
    assert tested % 11
    [hello] = sent[records.HELLO]
    assert hello["numbers"]["examples"] == band
    for reply in sent[records.TRAIN]:
        assert reply["numbers"]["examples"] == band
        assert reply["numbers"]["seconds"] == int(reply["numbers"]["seconds"])
        assert len(f"{reply['numbers']['loss']:.12g}".replace(".", "").lstrip("0")) <= 4
    first, second = (reply["facts"]["evaluation"] for reply in sent[records.EVALUATE])
    assert first == second
    assert {row["n_patients"] for row in json.loads(first)["rows"]} == {tested // 11 * 11}
    for row in json.loads(first)["rows"]:
        assert all(len(str(row[key]).partition(".")[2]) <= 3 for key in ("value", "ci_low", "ci_high"))


def test_no_name_of_a_file_column_label_or_patient_is_in_any_byte(sent, site):
    catalogue = Catalogue(Workspace(site.state.folder).catalogue)
    items = catalogue.items()
    catalogue.close()
    with site.data.labels.open() as file:
        rows = list(csv.DictReader(file))
    secrets = {"zz", "dicom", str(site.data.dicom), str(site.state.folder), site.data.labels.name}
    secrets |= {value for row in rows for key, value in row.items() if len(value) > 3 and key != "label"}
    secrets |= {key for item in items for key in (item.item_key, item.patient_key, item.content_sha256)}
    texts = [
        wire(RecordDict({name: part for name, part in reply.items() if name != "arrays"}))
        for replies in sent.values()
        for reply in replies
    ]
    assert len(texts) == 13
    for secret in secrets:
        assert not [text for text in texts if secret.encode() in text.lower() + text], secret
