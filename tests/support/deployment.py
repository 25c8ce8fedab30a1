"""A whole deployment on loopback: a server and three sites, each with its own key and certificate.

    python tests/support/deployment.py STUDY ARCHIVES OUT [--kill-site 1] [--kill-server] [--proxied]

It plays admin and every site by the commands that they use, indexes every site into a home of its own, submits the
study, waits, and fetches the run into OUT/run. With --kill-site all processes of that site get SIGKILL while a round is
under way, and are started again. With --kill-server the server's processes do, and it is started again: the run goes on
by itself. With --proxied all commands run with proxy variables that lead nowhere. Prints the encoder's SHA-256.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HILUM = str(Path(sys.executable).parent / "hilum")
NOWHERE = "http://127.0.0.1:1"
SWITCHES = (b"FLWR_TELEMETRY_ENABLED=0", b"FLWR_DISABLE_UPDATE_CHECK=1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def hilum(*words: object, home: Path) -> str:
    command = [HILUM, *map(str, words)]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[1:3])} failed: {done.stderr}")
    return done.stdout


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HILUM_HOME": str(home)}


class Process:
    """One long-running command, with its output in a file."""

    def __init__(self, *words: object, home: Path, log: Path) -> None:
        self.words, self.home, self.log = words, home, log
        self.start()

    def start(self) -> None:
        with self.log.open("a") as out:
            self.child = subprocess.Popen(
                [HILUM, *map(str, self.words)], env=environment(self.home), stdout=out, stderr=out
            )

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def kill_all(self) -> int:
        """SIGKILL to every process that carries this home in its environment. Gives how many there were."""
        killed = 0
        for entry in processes(self.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
        self.child.wait()
        return killed


def processes(home: Path) -> list[Path]:
    """The /proc folders of all processes that carry this home in their environment."""
    marker, found = f"HILUM_HOME={home}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(entry)
        except OSError:
            continue
    return found


def check_outbound(homes: list[Path]) -> None:
    """No program of Flower runs, the switches are off in ours, and no process talks to anything but loopback."""
    remote_of = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            columns = line.split()
            remote_of[columns[9]] = columns[2].rsplit(":", 1)[0]
    loopback = {"0100007F", "00000000", "0" * 32, "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}
    seen = 0
    for home in homes:
        for entry in processes(home):
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes()
                links = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
            except OSError:
                continue
            assert b"flower-" not in command, command
            assert b"flwr-" not in command, command
            if b"\0hilum.server.process\0" in command or b"\0hilum.client.link" in command:
                seen += 1
                for switch in SWITCHES:
                    assert switch in environ, f"{switch!r} is not set in {command!r}"
            for link in links:
                remote = remote_of.get(link.removeprefix("socket:[").removesuffix("]"))
                assert remote is None or remote in loopback, f"{command!r} is connected to {remote}"
    assert seen >= len(homes), f"only {seen} processes of the transport were seen"
    print("outbound connections are off in", seen, "processes", flush=True)


def check_private(folder: Path) -> None:
    """Nobody but the owner may look into what a server or site keeps."""
    for path in [folder, *folder.rglob("*")]:
        assert path.is_socket() or not path.stat().st_mode & 0o077, f"{path} is open to others"


def rounds_done(server_home: Path) -> int:
    files = list((server_home / "runs").glob("*/rounds.jsonl"))
    return len(files[0].read_text().splitlines()) if files else 0


def wait_until(what: str, condition, patience_s: float = 180) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"gave up waiting for {what}")
        time.sleep(0.1)


def wait_for_run(server_home: Path, patience_s: float) -> None:
    """Wait until the run has finished, whatever becomes of the server meanwhile."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        (run,) = json.loads(hilum("admin", "runs", "--json", home=server_home))
        if run["state"] == "finished":
            return
        if run["state"] not in ("queued", "running"):
            raise SystemExit(f"the run {run['state']}: {run['reason']}")
        time.sleep(0.5)
    raise SystemExit("gave up waiting for the run")


def site_files(archives: list[Path], keys: Path, out: Path) -> list[tuple[Path, Path]]:
    """A home and a site file for each archive; the archives are indexed."""
    made = []
    for index, folder in enumerate(archives):
        home, papers = out / f"home-{folder.name}", keys / f"site-{index}"
        hilum("site", "index", folder / "dicom", home=home)
        path = papers / "site.toml"
        path.write_text(
            f'[site]\nname = "site-{index}"\n[data]\ndicom = "{folder / "dicom"}"\n'
            f'labels = "{folder / "labels.csv"}"\n[state]\nfolder = "{home / "site"}"\n'
            + (papers / "link.toml").read_text()
        )
        made.append((home, path))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("archives", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kill-site", type=int)
    parser.add_argument("--kill-server", action="store_true")
    parser.add_argument("--proxied", action="store_true")
    options = parser.parse_args()
    out, archives = options.out.absolute(), options.archives.absolute()
    out.mkdir(parents=True)
    if options.proxied:
        os.environ.update({"http_proxy": NOWHERE, "https_proxy": NOWHERE, "HTTPS_PROXY": NOWHERE})
    keys, server_home = out / "keys", out / "keys" / "server"
    folders = sorted(path for path in archives.iterdir() if (path / "dicom").is_dir())
    hilum("admin", "dev-keys", keys, "--sites", len(folders), "--port", free_port(), home=server_home)
    sites = site_files(folders, keys, out)
    log = out / "server.log"
    running: list[Process] = []
    try:
        server = Process("admin", "serve", home=server_home, log=log)
        running.append(server)
        nodes = [
            Process("site", "start", path, home=home, log=out / f"{path.parent.name}.log")
            for home, path in sites
        ]
        running += nodes
        began = time.monotonic()
        submitted = hilum("admin", "submit", options.study, "--run", "study", "--json", home=server_home)
        print("submitted for", ", ".join(json.loads(submitted)["sites"]), flush=True)
        wait_until("a connection", lambda: all("connected to" in node.log.read_text() for node in nodes))
        check_outbound([server_home, *[home for home, _ in sites]])
        if options.kill_site is not None:
            wait_until("the first round", lambda: rounds_done(server_home) >= 1)
            print("killed", nodes[options.kill_site].kill_all(), "processes of a site", flush=True)
            nodes[options.kill_site].start()
        if options.kill_server:
            wait_until("the first round", lambda: rounds_done(server_home) >= 1)
            print("killed", server.kill_all(), "processes of the server", flush=True)
            server.start()
        wait_for_run(server_home, patience_s=3000)
        print(f"finished {time.monotonic() - began:.0f} s after submission", flush=True)
        hilum("admin", "fetch", "study", "--out", out / "run", home=server_home)
        check_private(server_home)
        for home, _ in sites:
            check_private(home / "site")
    finally:
        for process in reversed(running):
            process.stop()
    manifest = json.loads((out / "run" / "encoder" / "manifest.json").read_text())
    print("encoder_sha256", manifest["encoder_sha256"])
    shutil.rmtree(out / "keys")


if __name__ == "__main__":
    main()
