"""What all tests share: the virtual GPUs and, for tests marked ``cluster``, the real cluster."""

from __future__ import annotations

pytest_plugins = ["virtual_gpus.fixtures", "real_cluster.fixtures"]
