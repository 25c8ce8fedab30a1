"""What a site never says."""

import logging

from asked_site import ask, first_weights, refused
from hilum.client.app import make_app
from hilum.common import records
from hilum.server.federation.exchange import exchange
from hilum.simulations.grid import InProcessGrid
from signed import sign, sign_table


def test_a_site_without_a_label_table_says_so_by_a_code(site, study):
    bare = site.model_copy(update={"data": site.data.model_copy(update={"labels": None})})
    request = records.pack_request(sign(study), weights={"federated": first_weights(study)})
    assert refused(bare, request, records.EVALUATE) == "no_labels"


def test_a_wrong_label_table_leaves_as_a_code_and_the_cause_stays_in_the_log(site, study, tmp_path, caplog):
    table = tmp_path / "ZZFILE.csv"
    table.write_text("file,patient,label\nnowhere.dcm,ZZPATIENT,1\n")
    wrong = site.model_copy(update={"data": site.data.model_copy(update={"labels": table})})
    content = ask(wrong, records.pack_request(sign(study)))
    assert records.unpack_refusal(content) == records.Refusal("site-0", "data")
    assert "line 2" in caplog.text
    assert "ZZPATIENT" not in caplog.text


def test_classes_that_are_spelled_in_two_ways_are_refused_without_a_cell_of_the_table_in_the_log(
    site, study, tmp_path, caplog
):
    lines = site.data.labels.read_text().splitlines()
    cells = ("ZZlabel", "zzLABEL")
    table = tmp_path / "labels.csv"
    table.write_text(
        "\n".join(
            [lines[0], *(f"{line.rsplit(',', 1)[0]},{cells[n % 2]}" for n, line in enumerate(lines[1:]))]
        )
    )
    wrong = site.model_copy(update={"data": site.data.model_copy(update={"labels": table})})
    content = ask(wrong, records.pack_request(sign(study)))
    assert records.unpack_refusal(content) == records.Refusal("site-0", "data")
    assert "write each class in one way" in caplog.text
    assert "zzlabel" not in caplog.text.casefold()


def test_an_unexpected_failure_leaves_as_a_code_and_its_text_stays_nowhere(site, study, monkeypatch, caplog):
    import hilum.client.data.site_data

    def fails(*_words):
        raise KeyError("ZZPHI in the text of an exception")

    monkeypatch.setattr(hilum.client.data.site_data, "open_site", fails)
    with caplog.at_level(logging.DEBUG):
        content = ask(site, records.pack_request(sign(study)))
    assert records.unpack_refusal(content) == records.Refusal("site-0", "failed")
    assert "KeyError at test_never_said.py" in caplog.text
    assert "ZZPHI" not in caplog.text


def test_what_was_asked_is_quoted_in_one_bounded_line_of_the_log(site, study, caplog):
    table = study.model_dump(mode="json")
    signed = sign_table({**table, "extra\n\x1b[31m" + "x" * 20_000: 1})
    assert refused(site, records.pack_request(signed)) == "config"
    [line] = [record.getMessage() for record in caplog.records if "config" in record.getMessage()]
    assert len(line) < 600
    assert line.isprintable()


def test_a_wrong_site_file_leaves_as_a_code(study):
    def site_of(context):
        raise KeyError("no such file: /ZZPATH")

    with InProcessGrid(make_app(site_of), nodes=1, workers=1) as grid:
        [node] = grid.get_node_ids()
        content = records.pack_request(sign(study))
        [answer] = exchange(grid, {node: lambda: content}, records.HELLO, deadline_s=60, poll_s=0.01)
    assert records.unpack_refusal(answer.content) == records.Refusal("unknown", "failed")
