"""Inside a pod: ask the API server, by its Service's name, with the mounted token and certificate, for its version."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

here = Path("/var/run/secrets/kubernetes.io/serviceaccount")
headers = {"Authorization": f"Bearer {(here / 'token').read_text()}"}
request = urllib.request.Request("https://kubernetes.default.svc/version", headers=headers)
trust = ssl.create_default_context(cafile=str(here / "ca.crt"))
with urllib.request.urlopen(request, context=trust, timeout=5) as answer:
    print(answer.read().decode())
