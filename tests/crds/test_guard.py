"""Metrics over real TLS, for whom a double of the API server's reviews lets in."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from joulepath_crds.serving import guard as guarding
from joulepath_crds.serving import pages
from joulepath_crds.serving.guard import Guard
from joulepath_crds.serving.pages import Page, PageServer

GROUPS = ["system:authenticated"]
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Reviews:
    """Knows the tokens `good` and `poor`, of whom the first may read."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.answers = threading.Event()
        self.answers.set()
        self.broken = False

    def __call__(self, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((kind, spec))
        self.answers.wait(60)
        if self.broken:
            raise OSError("403 Forbidden")
        if kind == "TokenReview":
            user = {"username": spec["token"], "groups": GROUPS, "uid": "1"}
            return {"authenticated": True, "user": user} if spec["token"] in ("good", "poor") else {"error": "no"}
        return {"allowed": spec["user"] == "good"}


@pytest.fixture
def reviews() -> Reviews:
    return Reviews()


def certificate(folder: Path, name: str = "metrics") -> None:
    command = ["openssl", "req", "-x509", *KEY, "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder)
    return folder


@pytest.fixture
def server(made: Path, reviews: Reviews) -> Iterator[PageServer]:
    served: dict[str, Callable[[], Page]] = {"/metrics": lambda: Page(b"a 1\n" * 100_000)}
    one = PageServer("metrics", "127.0.0.1", 0, served, Guard(made, reviews))
    yield one
    one.close()


def ask(server: PageServer, folder: Path, token: str | None, path: str = "/metrics") -> tuple[int, bytes]:
    trusting = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=trusting)
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("good", "/metrics", 200),
        ("good", "/else", 404),
        ("poor", "/metrics", 403),
        ("unknown", "/metrics", 401),
        ("", "/metrics", 401),
        (None, "/metrics", 401),
        ("unknown", "/else", 401),
    ],
)
def test_only_whom_the_api_server_knows_and_allows_reads_metrics(
    server: PageServer, made: Path, token: str | None, path: str, status: int
) -> None:
    told, body = ask(server, made, token, path)
    assert told == status
    assert (body == b"a 1\n" * 100_000) == (status == 200)


def test_the_reviews_ask_for_the_token_and_then_for_its_user_and_the_path(
    server: PageServer, made: Path, reviews: Reviews
) -> None:
    for _ in range(3):
        ask(server, made, "good")
    who = {"user": "good", "uid": "1", "groups": GROUPS, "extra": {}}
    what = {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    assert reviews.asked == [("TokenReview", {"token": "good"}), ("SubjectAccessReview", who | what)]


def test_what_was_said_of_a_token_is_asked_again_when_it_is_old(
    made: Path, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "_KEPT_S", 0.0)
    judge = Guard(made, reviews).judge
    assert [judge("poor"), judge("poor")] == [HTTPStatus.FORBIDDEN] * 2
    assert len(reviews.asked) == 4


def test_an_api_server_that_fails_lets_nobody_in_and_is_asked_again(made: Path, reviews: Reviews) -> None:
    judge = Guard(made, reviews).judge
    reviews.broken = True
    assert judge("good") is HTTPStatus.SERVICE_UNAVAILABLE
    reviews.broken = False
    assert judge("good") is HTTPStatus.OK


def test_ever_new_tokens_are_not_all_remembered(made: Path, reviews: Reviews) -> None:
    guard = Guard(made, reviews)
    for number in range(2 * guarding._KEPT_TOKENS):
        assert guard.judge(str(number)) is HTTPStatus.UNAUTHORIZED
    assert len(guard._judged) == guarding._KEPT_TOKENS


def test_metrics_are_read_while_others_stall_in_their_handshake(server: PageServer, made: Path) -> None:
    hello = bytes.fromhex("16030100fa010000f60303")
    with ExitStack() as stack:
        for index in range(100):
            other = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            other.send(hello[: index % 12])
        assert ask(server, made, "good")[0] == 200


def test_whoever_waits_for_the_api_server_keeps_nobody_else_from_an_answer(
    server: PageServer, made: Path, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(server, made, "good")[0] == 200
    reviews.answers.clear()
    waiting = [threading.Thread(target=ask, args=(server, made, "unknown"), daemon=True) for _ in range(2)]
    for one in waiting:
        one.start()
    while len(reviews.asked) < 4:
        time.sleep(0.01)
    assert ask(server, made, "good")[0] == 200
    reviews.answers.set()
    for one in waiting:
        one.join()


def test_whoever_stalls_while_it_is_asked_about_is_hung_up_on(
    server: PageServer, made: Path, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_WHOLE_S", 1.0)
    reviews.answers.clear()
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected, ssl.SSLError)):
        ask(server, made, "unknown")
    reviews.answers.set()
    assert ask(server, made, "good")[0] == 200


def test_a_renewed_certificate_is_taken_up(tmp_path: Path, reviews: Reviews) -> None:
    certificate(tmp_path, "old")
    guard = Guard(tmp_path, reviews)
    before = guard.context()
    assert guard.context() is before
    (tmp_path / "tls.crt").write_text("half of it")
    assert guard.context() is before
    certificate(tmp_path, "new")
    assert guard.context() is not before


def test_a_folder_without_a_certificate_is_an_error(tmp_path: Path, reviews: Reviews) -> None:
    with pytest.raises(OSError, match=r"tls\.crt"):
        Guard(tmp_path, reviews)
