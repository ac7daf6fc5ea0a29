"""What to do where the API server can't be reached: its failures as the errors of a file, and work that goes on."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import urllib3
from kubernetes import client

__all__ = ["failures_as_oserror", "repeat"]

log = logging.getLogger(__name__)

_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 10.0
_LONGEST_SENTENCE: Final = 1000
_LONGEST_ANSWER: Final = 300
_LASTED_S: Final = 60.0
"""Work that went well for so long has not failed again and again."""


@contextmanager
def failures_as_oserror() -> Iterator[None]:
    """Turns the client's errors into OSError; into FileNotFoundError where the object isn't there."""
    try:
        yield
    except client.ApiException as error:
        kind = FileNotFoundError if error.status == 404 else OSError
        raise kind(f"{error.status} {error.reason}: {_said(error)}") from None
    except urllib3.exceptions.HTTPError as error:
        raise OSError(str(error)) from None


def _said(error: client.ApiException) -> str:
    """The sentence of the Status that the API server answers with: a policy's has the remedy at its end."""
    body = str(error.body)
    try:
        return str(json.loads(body)["message"])[:_LONGEST_SENTENCE]
    except (ValueError, TypeError, KeyError):
        return body[:_LONGEST_ANSWER]


def repeat(name: str, work: Callable[[], None], stop: threading.Event) -> None:
    """Does the work again and again until it is to stop; after a failure a little later, up to ten seconds."""
    backoff_s = _BACKOFF_S
    while not stop.is_set():
        begun = time.monotonic()
        try:
            with failures_as_oserror():
                work()
            backoff_s = _BACKOFF_S
            continue
        except OSError as error:
            log.warning("%s: the API server said %s; the agent goes on and tries again", name, error)
        except Exception:
            log.exception("%s failed; trying again", name)
        if time.monotonic() - begun > _LASTED_S:
            backoff_s = _BACKOFF_S
        stop.wait(backoff_s)
        backoff_s = min(_LONGEST_BACKOFF_S, 2 * backoff_s)
