"""The way to an API server, over real HTTPS: who it is sure of, by which name it asks, and what it makes of answers."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from joulepath_agent.cluster.objects import _TIMEOUT_S, _WRITTEN_S, ApiServer
from tests.agent.room import wait_until
from tests.json_server import JsonHandler

STATUS = {"kind": "Status", "message": "set NODE_NAME to the name of its node"}


@dataclass
class Server:
    """One that answers as it is told, and what it was asked."""

    folder: Path
    port: int = 0
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """By path: status, and body or, as bytes, what is no JSON."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and `Authorization`."""
    retry_after_s: int = 0
    heard: threading.Event = field(default_factory=threading.Event)
    """A watch ends once the event in it was heard."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.port}"


def certified(folder: Path) -> None:
    """A token, and a certificate that vouches for itself."""
    folder.mkdir(exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "tls.key"), "-out", str(folder / "ca.crt")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "token").write_text("first\n")


@contextmanager
def serving(made: Server) -> Iterator[Server]:
    """Serves with the certificate of its folder."""

    class Handler(JsonHandler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers["Authorization"]))
            if "watch=true" in self.path:
                self._watch()
                return
            status, body = made.answers.get(self.path, (404, STATUS))
            if isinstance(body, dict):
                self.answer(status, body)
                return
            self.send_response(status)
            self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Retry-After", str(made.retry_after_s))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_PATCH(self) -> None:
            self.do_POST()

        def _watch(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b'{"type": "AD', b'DED"}\n'):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            if made.heard.wait(60):
                self.wfile.write(b"0\r\n\r\n")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.folder / "ca.crt", made.folder / "tls.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        made.port = server.server_port
        yield made
        server.shutdown()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    certified(tmp_path)
    with serving(Server(tmp_path)) as made:
        yield made


def test_a_pod_asks_the_server_of_its_cluster_with_its_token_and_with_the_next_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    server.answers["/api/v1/nodes/a%2Fb"] = 200, {"kind": "Node"}
    api = ApiServer.connect("", server.folder)
    assert api.read("api", "v1", "nodes", "a/b") == {"kind": "Node"}
    (server.folder / "token").write_text("second\n")
    api.read("api", "v1", "nodes", "a/b")
    assert server.asked == [("/api/v1/nodes/a%2Fb", "Bearer first"), ("/api/v1/nodes/a%2Fb", "Bearer second")]


def test_who_is_not_vouched_for_hears_no_token(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certified(other)
    with pytest.raises(OSError, match="certificate verify failed"):
        ApiServer.connect(server.url, other).read("version")
    assert not server.asked


def test_without_a_cluster_or_credentials_it_is_said_what_is_missing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(OSError, match="set --api-server"):
        ApiServer.connect("", server.folder)
    with pytest.raises(OSError, match="nowhere"):
        ApiServer.connect(server.url, tmp_path / "nowhere")


def test_a_token_that_is_gone_does_not_say_that_an_object_is(server: Server) -> None:
    api = ApiServer.connect(server.url, server.folder)
    (server.folder / "token").unlink()
    with pytest.raises(OSError, match="token") as said:
        api.read("plans")
    assert not isinstance(said.value, FileNotFoundError)


def test_what_is_not_there_and_what_is_forbidden_are_told_in_the_servers_words(server: Server) -> None:
    api = ApiServer.connect(server.url, server.folder)
    with pytest.raises(FileNotFoundError, match=r"404 .*set NODE_NAME"):
        api.read("gone")
    server.answers["/forbidden"] = 403, STATUS
    with pytest.raises(OSError, match=r"403 .*set NODE_NAME") as said:
        api.read("forbidden")
    assert not isinstance(said.value, FileNotFoundError)


def test_a_server_that_sends_elsewhere_is_not_followed(server: Server) -> None:
    server.answers["/here"] = 302, f"{server.url}/there".encode()
    server.answers["/there"] = 200, {}
    with pytest.raises(OSError, match="302"):
        ApiServer.connect(server.url, server.folder).read("here")
    assert [path for path, _ in server.asked] == ["/here"]


@pytest.mark.parametrize("status", [413, 429, 503])
def test_a_server_that_wants_to_be_left_alone_for_an_hour_keeps_nobody_waiting(server: Server, status: int) -> None:
    server.answers["/busy"] = status, b"later"
    server.retry_after_s = 3600
    api, raised = ApiServer.connect(server.url, server.folder), list[OSError]()

    def ask() -> None:
        try:
            api.read("busy")
        except OSError as error:
            raised.append(error)

    threading.Thread(target=ask, daemon=True).start()  # it isn't waited for where it fails
    wait_until(lambda: bool(raised), "it is told")
    assert str(raised[0]).startswith(f"{status} ")
    assert len(server.asked) == 1


def test_an_answer_that_is_no_json_is_an_oserror(server: Server) -> None:
    server.answers["/page"] = 200, b"<html>"
    with pytest.raises(OSError, match="the answer to GET /page is no JSON"):
        ApiServer.connect(server.url, server.folder).read("page")


def test_what_a_watch_tells_is_heard_while_it_lasts(server: Server) -> None:
    with ApiServer.connect(server.url, server.folder).watch("7", 60, 15.0, "apis", "plans") as watch:
        events = iter(watch)
        assert next(events) == {"type": "ADDED"}
        server.heard.set()
        assert list(events) == []
        watch.end()
    asked = "/apis/plans?watch=true&resourceVersion=7&timeoutSeconds=60"
    assert server.asked[0][0] == asked


def test_a_write_is_over_on_the_server_before_who_sent_it_gives_it_up(server: Server) -> None:
    """Who sends again what is still under way has a server that is late do all of it twice."""
    server.answers["/reports/node?timeout=8s"] = server.answers["/reports?timeout=8s"] = 200, {}
    api = ApiServer.connect(server.url, server.folder)
    api.create({}, "reports")
    api.patch({}, "reports", "node")
    assert {path.partition("?")[2] for path, _ in server.asked} == {f"timeout={_WRITTEN_S}s"}
    assert _TIMEOUT_S[1] > _WRITTEN_S


@pytest.mark.parametrize(("status", "wait_s"), [(429, 7.0), (503, 7.0), (413, None)])
def test_how_long_a_busy_server_wants_to_be_left_alone_is_told(
    server: Server, status: int, wait_s: float | None
) -> None:
    server.answers["/busy"], server.retry_after_s = (status, b"later"), 7
    with pytest.raises(OSError, match=str(status)) as said:
        ApiServer.connect(server.url, server.folder).read("busy")
    assert getattr(said.value, "wait_s", None) == wait_s
