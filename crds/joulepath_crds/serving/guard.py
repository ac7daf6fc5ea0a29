"""Who may read metrics: whoever's bearer token the API server knows, and allows to get /metrics.

As controller-runtime's `WithAuthenticationAndAuthorization` does: a TokenReview, then a SubjectAccessReview for the
path. What was said of a token holds for a minute.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

__all__ = ["PATH", "Guard", "Review"]

log = logging.getLogger(__name__)

PATH: Final = "/metrics"
_KEPT_S: Final = 60.0
_KEPT_TOKENS: Final = 256

Review = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Has the API server make a review of this kind and spec; the review's status. Raises whatever it fails with."""


class Guard:
    """Certificate and judgement; threads may share it."""

    def __init__(self, folder: Path, review: Review) -> None:
        """`folder` has tls.crt and tls.key, as a Secret is mounted.

        Raises:
            OSError: They can't be read, or aren't a certificate and its key.
        """
        self._pair = folder / "tls.crt", folder / "tls.key"
        self._review = review
        self._lock = threading.Lock()
        self._judged: dict[bytes, tuple[float, HTTPStatus]] = {}
        """By the token's digest; oldest first."""
        self._loaded = self._changed()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """With the certificate as it is now."""
        with suppress(OSError):  # half-written: the old one serves on
            if (changed := self._changed()) != self._loaded:
                self._context, self._loaded = self._load(), changed
        return self._context

    def judge(self, token: str) -> HTTPStatus:
        """OK, or why not; asks the API server at most once a minute for a token."""
        if not token:
            return HTTPStatus.UNAUTHORIZED
        key, now = hashlib.sha256(token.encode()).digest(), time.monotonic()
        with self._lock:
            if (known := self._judged.get(key)) and known[0] > now:
                return known[1]
        try:
            status = self._ask(token)
        except Exception as error:
            log.warning("who reads metrics can't be asked of the API server: %s", error)
            return HTTPStatus.SERVICE_UNAVAILABLE
        with self._lock:
            self._judged.pop(key, None)
            self._judged[key] = now + _KEPT_S, status
            while len(self._judged) > _KEPT_TOKENS:
                del self._judged[next(iter(self._judged))]
        return status

    def _ask(self, token: str) -> HTTPStatus:
        told = self._review("TokenReview", {"token": token})
        if told.get("authenticated") is not True:
            return HTTPStatus.UNAUTHORIZED
        user = told["user"]
        who = {"user": user.get("username", ""), "uid": user.get("uid") or "", "groups": user.get("groups") or []}
        what = {"path": PATH, "verb": "get"}
        told = self._review(
            "SubjectAccessReview", {**who, "extra": user.get("extra") or {}, "nonResourceAttributes": what}
        )
        return HTTPStatus.OK if told.get("allowed") is True else HTTPStatus.FORBIDDEN

    def _changed(self) -> float:
        return self._pair[0].stat().st_mtime

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._pair)
        return context
