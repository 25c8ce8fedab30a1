"""`hilum site receive` in a process of its own, and a sender to it."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context

CT, CR, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.88.11"
VERIFICATION = "1.2.840.10008.1.1"


class Running:
    """The receiver in a process of its own."""

    def __init__(self, home, *words):
        command = [str(Path(sys.executable).parent / "hilum"), "site", "receive", "--port", "0", "--json"]
        self.site = home / "site"
        self.process = subprocess.Popen(
            [*command, "--bind", "127.0.0.1", "--home", str(home), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.first = self.process.stderr.readline()
        found = re.search(r"port (\d+)", self.first)
        assert found, self.first + self.process.stderr.read()
        self.port = int(found.group(1))

    def associate(self, title="SENDER", *, classes=(CT, CR, VERIFICATION), called="HILUM", **options):
        ae = AE(ae_title=title)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        contexts = [build_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]) for uid in classes]
        return ae.associate("127.0.0.1", self.port, contexts=contexts, ae_title=called, **options)

    def stored(self):
        return sorted((self.site / "inbox").rglob("*.dcm"))

    def incoming(self):
        return [path for path in (self.site / "incoming").rglob("*") if path.is_file()]

    def stop(self, number=signal.SIGTERM):
        """End it, and give its report and all that it said."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert "Traceback" not in err
        return (json.loads(out) if out else None), self.first + err

    def wait_for(self, text):
        """Read on until a line has a text."""
        for line in self.process.stderr:
            self.first += line
            if text in line:
                return
        raise AssertionError(self.first)


@contextlib.contextmanager
def association(*arguments, **options):
    made = arguments[0].associate(*arguments[1:], **options)
    assert made.is_established
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def send(running, paths, **options):
    with association(running, **options) as made:
        return [made.send_c_store(pydicom.dcmread(path)).get("Status") for path in paths]
