"""How kopf works: what it may write by itself, how much at a time, how long it waits."""

from __future__ import annotations

import kopf

__all__ = ["settings"]


def settings() -> kopf.OperatorSettings:
    """Pages instead of everything at once, no Kubernetes events, one worker for each object and not too many."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.watching.chunk_size = 25
    chosen.watching.server_timeout = 600
    chosen.queueing.worker_limit = 64
    # A worker waits so long for more of its object before it takes another one. There may be Jobs by the thousand, and
    # kopf reads on meanwhile: where workers are slower than lists, all that is listed waits in memory.
    chosen.queueing.idle_timeout = 0.01
    chosen.networking.request_timeout = 30
    # No handler needs progress; should one come, it is kept in the status.
    chosen.persistence.progress_storage = kopf.StatusProgressStorage()
    chosen.persistence.diffbase_storage = kopf.StatusDiffBaseStorage()
    return chosen
