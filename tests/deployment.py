"""A whole deployment on loopback: a SuperLink and a SuperNode for each site, over TLS with node keys.

    python tests/deployment.py STUDY.toml ARCHIVES OUT [--kill-site 1] [--kill-server]

It indexes every site into a home of its own, submits the study, waits, and fetches the run into OUT/run. With
--kill-site all processes of that site get SIGKILL while a round is under way, and are started again. With
--kill-server the server's processes do, and the study is submitted again with --resume. Prints the encoder's SHA-256.
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
    """Every Flower process has the switches off, and no process talks to anything but loopback."""
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
            if b"flower-" in command or b"flwr-" in command:
                seen += 1
                for switch in (
                    "TELEMETRY_ENABLED=0",
                    "DISABLE_UPDATE_CHECK=1",
                    "DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1",
                ):
                    assert f"FLWR_{switch}".encode() in environ, f"{switch} is not set in {command!r}"
            for link in links:
                remote = remote_of.get(link.removeprefix("socket:[").removesuffix("]"))
                assert remote is None or remote in loopback, f"{command!r} is connected to {remote}"
    assert seen >= 2 * len(homes), f"only {seen} Flower processes were seen"
    print("outbound connections are off in", seen, "Flower processes", flush=True)


def rounds_done(server_home: Path) -> int:
    files = list((server_home / "runs").glob("*/rounds.jsonl"))
    return len(files[0].read_text().splitlines()) if files else 0


def wait_until(what: str, condition, patience_s: float = 180) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"gave up waiting for {what}")
        time.sleep(0.1)


def site_files(archives: Path, keys: Path, out: Path) -> list[tuple[Path, Path]]:
    """A home and a site file for each archive; the archives are indexed."""
    made = []
    for index, folder in enumerate(sorted(path for path in archives.iterdir() if (path / "dicom").is_dir())):
        home = out / f"home-{folder.name}"
        hilum("site", "index", folder / "dicom", home=home)
        link = (keys / f"site-{index}.link.toml").read_text()
        text = (
            f'[site]\nname = "{folder.name}"\n[data]\ndicom = "{folder / "dicom"}"\n'
            f'labels = "{folder / "labels.csv"}"\n[state]\nfolder = "{home / "site"}"\n{link}'
        )
        path = out / f"{folder.name}.toml"
        path.write_text(text)
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
    options = parser.parse_args()
    out, archives = options.out.absolute(), options.archives.absolute()
    out.mkdir(parents=True)
    keys, port, server_home = out / "keys", free_port(), out / "home-server"
    folders = [path for path in archives.iterdir() if (path / "dicom").is_dir()]
    hilum("admin", "dev-keys", keys, "--sites", len(folders), "--port", port, home=server_home)
    sites = site_files(archives, keys, out)
    server = ("--server", f"127.0.0.1:{port}", "--root-certificate", keys / "root.crt")
    running: list[Process] = []
    try:
        link = Process("admin", "serve", keys, "--port", port, home=server_home, log=out / "server.log")
        running.append(link)
        wait_until("the server", lambda: "serving on" in (out / "server.log").read_text())
        nodes = [
            Process("site", "start", path, home=home, log=out / f"{path.stem}.log") for home, path in sites
        ]
        running += nodes
        began = time.monotonic()
        submitted = hilum(
            "admin", "submit", options.study, *server, "--run", "study", "--json", home=server_home
        )
        print("submitted as Flower run", json.loads(submitted)["flower_run"], flush=True)
        wait_until("a connection", lambda: all("SuperNode ID" in node.log.read_text() for node in nodes))
        check_outbound([server_home, *[home for home, _ in sites]])
        if options.kill_site is not None:
            wait_until("the first round", lambda: rounds_done(server_home) >= 1)
            time.sleep(3.5)  # into the next round
            print("killed", nodes[options.kill_site].kill_all(), "processes of a site", flush=True)
            nodes[options.kill_site].start()
        if options.kill_server:
            wait_until("the first round", lambda: rounds_done(server_home) >= 1)
            print("killed", link.kill_all(), "processes of the server", flush=True)
            time.sleep(1)
            (out / "server.log").rename(out / "server.before.log")
            link.start()
            wait_until(
                "the server",
                lambda: (out / "server.log").exists() and "serving on" in (out / "server.log").read_text(),
            )
            hilum("admin", "submit", options.study, *server, "--run", "study", "--resume", home=server_home)
        results = server_home / "runs" / "study" / "results.json"
        wait_until("the results", results.exists, patience_s=3000)
        print(f"finished {time.monotonic() - began:.0f} s after submission", flush=True)
        hilum("admin", "fetch", "study", "--out", out / "run", home=server_home)
    finally:
        for process in reversed(running):
            process.stop()
    manifest = json.loads((out / "run" / "encoder" / "manifest.json").read_text())
    print("encoder_sha256", manifest["encoder_sha256"])
    shutil.rmtree(out / "keys")


if __name__ == "__main__":
    main()
