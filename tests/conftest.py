"""What all tests share: the virtual GPUs and, for tests marked ``cluster``, the real cluster."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["virtual_gpus.fixtures", "real_cluster.fixtures"]

settings.register_profile("any machine", deadline=None)  # how long an example takes is the host's affair
settings.register_profile("inner loop", deadline=None, max_examples=25)  # make test-fast
settings.load_profile("any machine")
