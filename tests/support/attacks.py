"""Attacks on a deployment of three sites on loopback: what a stranger, a site and a server can reach, tried for real.

    python tests/support/attacks.py STUDY ARCHIVES OUT [--expect SHA256] [--quick]

Three acts. First an honest study runs at the three sites, while strangers with the port and `root.crt`, an approved site
that takes no part and a revoked one attack its server. Then a hostile server, with the server's own key, attacks a site.
Last an approved site attacks the studies it takes part in. Each line of the table says what was tried, what became of it,
and whether that is what should. Ends with exit code 1 if anything is not refused, or the honest study's encoder is not
the one given with --expect. --quick leaves out what only repeats another attack in other words.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import attacks_by_readers
import attacks_by_server
import attacks_by_site
import attacks_by_strangers
import peaks
from deployment import Process, free_port, hilum, processes, site_files, wait_until


@dataclass
class Table:
    """What was tried, and what became of it."""

    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def note(self, who: str, what: str, outcome: str, held: bool) -> None:
        self.rows.append((who, what, outcome, held))
        print(f"{'held  ' if held else 'BROKEN'} | {who} | {what} | {outcome}", flush=True)

    def attempt(self, who: str, what: str, attack: Callable[[], str], wanted: str) -> None:
        """Note an attack whose outcome must contain a text."""
        outcome = attack()
        self.note(who, what, outcome, wanted in outcome)


class Federation:
    """A server and its papers, played by the admin's own commands."""

    def __init__(self, out: Path, archives: Path, port: int) -> None:
        self.out, self.port = out, port
        self.keys = out / "keys"
        self.home = self.keys / "server"
        self.root = self.home / "federation" / "root.crt"
        folders = sorted(path for path in archives.iterdir() if (path / "dicom").is_dir())
        hilum("admin", "dev-keys", self.keys, "--sites", len(folders), "--port", port, home=self.home)
        self.sites = site_files(folders, self.keys, out)
        self.log = self.home / "federation" / "server.log"

    def admit(self, name: str) -> Path:
        """Let another site in; give the folder of its papers."""
        papers = self.keys / name
        hilum("site", "enroll", "--name", name, "--out", papers, home=self.home)
        link = papers / f"{name}.link.toml"
        hilum("admin", "approve", papers / "site.csr", "--out", link, home=self.home)
        hilum("site", "join", link, "--out", papers, home=self.home)
        return papers

    @contextmanager
    def serving(self) -> Iterator[Process]:
        server = Process("admin", "serve", home=self.home, log=self.out / "server.out")
        try:
            wait_until("the server", lambda: self.log.exists() and "serving" in self.log.read_text())
            yield server
        finally:
            server.stop()

    @contextmanager
    def working(self, indices: tuple[int, ...]) -> Iterator[list[Process]]:
        """Sites that take part."""
        nodes = [
            Process("site", "start", self.sites[i][1], home=self.sites[i][0], log=self.out / f"site-{i}.out")
            for i in indices
        ]
        try:
            yield nodes
        finally:
            for node in nodes:
                node.stop()

    def submit(self, study: Path, run: str, sites: list[str]) -> None:
        hilum("admin", "submit", study, "--run", run, "--sites", ",".join(sites), home=self.home)

    def state(self, run: str) -> tuple[str, str]:
        [found] = [
            one for one in json.loads(hilum("admin", "runs", "--json", home=self.home)) if one["run"] == run
        ]
        return found["state"], found.get("reason") or ""

    def ended(self, run: str, patience_s: float = 300) -> tuple[str, str]:
        wait_until(f"run {run}", lambda: self.state(run)[0] in ("finished", "failed", "stopped"), patience_s)
        return self.state(run)

    def forget_peak(self) -> None:
        """Let the peak of the server's memory count from here."""
        peaks.forget_peak(self._process())

    def peak_mib(self) -> float:
        """The peak of the memory of the server's process."""
        return peaks.peak_bytes(self._process()) / 2**20

    def _process(self) -> str:
        for entry in processes(self.home):
            if b"\0hilum.server.process\0" in (entry / "cmdline").read_bytes():
                return entry.name
        raise SystemExit("the server's process was not found")


def encoder_of(run: Path) -> str:
    return str(json.loads((run / "encoder" / "manifest.json").read_text())["encoder_sha256"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("archives", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--expect", help="the encoder of an undisturbed run")
    parser.add_argument("--quick", action="store_true", help="a part of it, for each day")
    options = parser.parse_args()
    out, began = options.out.absolute(), time.monotonic()
    out.mkdir(parents=True)
    table = Table()
    archives = attacks_by_readers.hospitals(options.archives.absolute(), out / "archives")
    federation = Federation(out, archives, free_port())
    mallory, revoked = federation.admit("mallory"), federation.admit("revoked")
    hilum("admin", "revoke", "revoked", home=federation.home)
    with federation.serving():
        with federation.working((0, 1, 2)):
            federation.submit(options.study, "honest", ["site-0", "site-1", "site-2"])
            attacks_by_strangers.attack(
                table, federation.port, federation.root, mallory, revoked, out, quick=options.quick
            )
            state, reason = federation.ended("honest")
            table.note("", "the honest study beside it", f"{state} {reason}".strip(), state == "finished")
            encoder = encoder_of(federation.home / "runs" / "honest")
            if options.expect:
                table.note(
                    "", "its encoder is that of an undisturbed run", encoder, encoder == options.expect
                )
            attacks_by_readers.attack(table, federation, archives, options.study)
        attacks_by_server.attack(table, federation, options.study)
        with federation.working((0, 1)):
            attacks_by_site.attack(table, federation, options.study, mallory, quick=options.quick)
    broken = [row for row in table.rows if not row[3]]
    print(f"encoder_sha256 {encoder}")
    print(f"{len(table.rows)} attacks, {len(broken)} not held, {time.monotonic() - began:.0f} s")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
