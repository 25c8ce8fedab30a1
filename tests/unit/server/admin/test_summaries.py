"""What the commands and a console show comes from plain functions that give frozen values."""

import time
from dataclasses import FrozenInstanceError, fields

import pytest

from hilum.common.security.keys import read_study_key
from hilum.common.signing import sign_study
from hilum.server.admin.authority import FederationFolder, make_trial
from hilum.server.admin.queue import FAILED, RunQueue
from hilum.server.admin.runs import all_runs
from hilum.server.admin.sites import all_sites, site_list
from hilum.server.commands.runs import run_lines
from hilum.server.commands.sites import site_lines
from hilum.server.sites import RegisteredSite


@pytest.fixture
def folder(tmp_path):
    make_trial(tmp_path / "trial", 2, ["127.0.0.1"], 9443)
    return FederationFolder(tmp_path / "trial" / "server")


def test_sites_are_told_with_or_without_a_server(folder):
    found = all_sites(folder)
    assert [(site.name, site.status, site.seen_s_ago) for site in found.sites] == [
        ("site-0", "approved", None),
        ("site-1", "approved", None),
    ]
    assert not found.serving
    with pytest.raises(FrozenInstanceError):
        found.sites[0].status = "revoked"
    assert site_lines(found)[-1] == "no server runs on this state folder"
    assert [field.name for field in fields(found.sites[0])] == [
        *(field.name for field in fields(RegisteredSite)),
        "seen_s_ago",
    ]


def test_a_site_is_seen_by_the_server_alone(folder):
    registered = [
        RegisteredSite(f"site-{n}", "approved", "aa:bb", 0.0, 86_400.0, first_seen_at)
        for n, first_seen_at in enumerate((5.0, 5.0, None))
    ]
    found = site_list(registered, {"site-0": 3.4})
    assert found.serving
    assert [site.seen_s_ago for site in found.sites] == [3.4, None, None]
    words = ("seen 3 s ago", "not connected, joined 1970-01-01", "not yet seen")
    assert site_lines(found) == [
        f"site-{n}  approved  until 1970-01-02  {word:28}  aa:bb" for n, word in enumerate(words)
    ]
    assert site_lines(site_list([], {})) == ["no site yet; `hilum admin approve site.csr` lets one in"]


def test_runs_are_told_from_the_queue_and_their_folders(folder, make_study):
    study = make_study(federation={"rounds": 4, "sites": 2})
    key = read_study_key(folder.file("study.key"))
    signed = sign_study(study, run="first", sites=["site-0", "site-1"], days=1, now=time.time(), key=key)
    queue = RunQueue(folder.file("runs.sqlite"), clock=lambda: 86_400.0)
    queue.submit("first", "terms", signed, resume=False, exists=False)
    queue.take(lambda run: 0)
    queue.end("first", FAILED, "the disk is full")
    queue.close()
    (folder.runs / "first").mkdir(parents=True)
    (folder.runs / "first" / "rounds.jsonl").write_text("{}\n{}\n{}\n")
    [found] = all_runs(folder)
    assert (found.run, found.state, found.rounds_done, found.rounds) == ("first", "failed", 3, 4)
    assert found.sites == ("site-0", "site-1")
    assert run_lines([found]) == [
        "first  failed    3 of 4 rounds  since 1970-01-02 00:00 UTC",
        "       the disk is full",
    ]
