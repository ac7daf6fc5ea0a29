"""The way to the real cluster's API server that an agent would have, as its administrator or with another's token."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import yaml

from joulepath_agent.cluster.objects import ApiServer

__all__ = ["api_server"]


def api_server(kubeconfig: Path, token: str = "", url: str = "") -> ApiServer:
    """By the kubeconfig of its administrator, but for what is given."""
    settings = yaml.safe_load(kubeconfig.read_text())
    server, user = settings["clusters"][0]["cluster"], settings["users"][0]["user"]
    authority = b64decode(server["certificate-authority-data"]).decode()
    return ApiServer(url or server["server"], lambda: token or user["token"], ca_cert_data=authority)
