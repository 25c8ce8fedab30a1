"""A DICOMweb service of the tests' own, which can also misbehave, and what `hilum site pull` leaves behind."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pydicom


class Service(ThreadingHTTPServer):
    """Serves a folder.

    `fault(path, count)` may give another answer: a status, (type, iterable of bytes), or one of `hang up`, `too short` and
    `not gzip`.
    """

    daemon_threads = True

    def __init__(self, folder, *, fault=lambda path, count: None, page=3, bare=False, wait_s=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault, self.page, self.bare, self.wait_s = fault, page, bare, wait_s
        self.headers, self.counts, self.sent = [], Counter(), Counter()
        self.rows, self.secured = {}, False
        for path in sorted(folder.rglob("*.dcm")):
            d = pydicom.dcmread(path, stop_before_pixels=True)
            self.rows[d.SOPInstanceUID] = (
                d.StudyInstanceUID, d.SeriesInstanceUID, d.SOPInstanceUID, d.Modality, d.get("StudyDate", ""), path,
            )  # fmt: skip
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        scheme = "https" if self.secured else "http"
        return f"{scheme}://127.0.0.1:{self.server_address[1]}/dicom-web"

    def secure(self, context):
        """Speak TLS from now on; gives this service."""
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.secured = True
        return self

    def handle_error(self, *_):
        self.counts["broken"] += 1

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        address = urlsplit(self.path)
        path, query = address.path, parse_qs(address.query)
        self.server.headers.append(dict(self.headers))
        self.server.counts[path] += 1
        wrong = self.server.fault(path, self.server.counts[path])
        if isinstance(wrong, int):
            self.send_response(wrong)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif wrong == "hang up":
            self.close_connection = True
        elif isinstance(wrong, str):
            self.damaged(wrong)
        elif wrong is not None:
            self.stream(*wrong)
        elif re.fullmatch(r".*/instances/[0-9.]+", path):
            self.instance(path.split("/"))
        else:
            self.query(path.split("/")[2:], query)

    def stream(self, kind, parts):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for part in parts:
                self.wfile.write(part)
        except OSError:
            self.server.counts["broken"] += 1

    def damaged(self, how):
        """An answer whose headers promise something else than its body."""
        name, value = {"too short": ("Content-Length", "9999"), "not gzip": ("Content-Encoding", "gzip")}[how]
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom")
        self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b"DICM" * 100)

    def query(self, words, query):
        rows = [row for row in self.server.rows.values() if all(uid in row for uid in words[1::2])]
        if "StudyDate" in query:
            first, last = query["StudyDate"][0].split("-")
            rows = [row for row in rows if first <= row[4] <= last]
        if "ModalitiesInStudy" in query:
            rows = [row for row in rows if row[3] in query["ModalitiesInStudy"]]
        depth = len(words) // 2
        unique = list({row[depth]: row for row in rows}.values())
        offset = int(query.get("offset", ["0"])[0])
        tags = ("0020000D", "0020000E", "00080018", "00080060")
        page = [
            {tag: {"vr": "UI", "Value": [value]} for tag, value in zip(tags, row[:4], strict=True)}
            for row in unique[offset : offset + self.server.page]
        ]
        body = json.dumps(page).encode()
        self.send_response(200 if page else 204)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body) if page else 0))
        self.end_headers()
        if page:
            self.wfile.write(body)

    def instance(self, words):
        time.sleep(self.server.wait_s)
        content = self.server.rows[words[-1]][5].read_bytes()
        kind = "application/dicom"
        if not self.server.bare:
            kind = 'multipart/related; type="application/dicom"; boundary="ab--c"'
            content = b"--ab--c\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--ab--c--\r\n"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.server.sent[words[-1]] += 1


def one_error(done, *expected):
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 3, done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for text in expected:
        assert text in lines[0], lines[0]


def stored(tmp_path):
    return sorted((tmp_path / "hilum-home" / "site" / "inbox").rglob("*.dcm"))
