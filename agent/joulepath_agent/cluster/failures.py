"""What the Kubernetes client raises, as the errors of a file that can't be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from kubernetes import client

__all__ = ["failures_as_oserror"]


@contextmanager
def failures_as_oserror() -> Iterator[None]:
    """Turns the client's errors into OSError; into FileNotFoundError where the object isn't there."""
    try:
        yield
    except client.ApiException as error:
        kind = FileNotFoundError if error.status == 404 else OSError
        raise kind(f"{error.status} {error.reason}: {str(error.body)[:300]}") from None
    except urllib3.exceptions.HTTPError as error:
        raise OSError(str(error)) from None
