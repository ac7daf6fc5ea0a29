"""Certificates, tokens and kubeconfigs, made once a cluster by openssl; they go with the run folder."""

from __future__ import annotations

import secrets
from base64 import b64encode
from pathlib import Path
from typing import Final

import yaml

from .commands import run
from .kept import kept
from .layout import API_ADDRESS, API_PORT, API_SERVICE_ADDRESS, OTHER_NODE, NodeLayout, run_folder

__all__ = ["folder", "kubeconfig", "make"]


_DAYS: Final = "365"
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_API_NAMES: Final = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


def folder() -> Path:
    """Where keys and kubeconfigs are, readable by root only."""
    return run_folder() / "pki"


def kubeconfig(user: str) -> Path:
    """The kubeconfig of `admin`, `scheduler`, `proxy` or a node's name."""
    return folder() / f"{user}.kubeconfig"


def _signed(here: Path, name: str, subject: str, extension: str) -> None:
    key, request, extensions = here / f"{name}.key", here / f"{name}.csr", here / f"{name}.ext"
    extensions.write_text(extension)
    run(["openssl", "req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", subject])
    authority: list[str | Path] = ["-CA", here / "ca.crt", "-CAkey", here / "ca.key", "-CAcreateserial"]
    certificate: list[str | Path] = ["-extfile", extensions, "-out", here / f"{name}.crt"]
    run(["openssl", "x509", "-req", "-days", _DAYS, "-in", request, *authority, *certificate])


def _user(here: Path, file: str, user: str, group: str) -> str:
    token = secrets.token_hex(16)
    cluster = {
        "server": f"https://{API_ADDRESS}:{API_PORT}",
        "certificate-authority-data": b64encode((here / "ca.crt").read_bytes()).decode(),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "joulepath",
        "contexts": [{"name": "joulepath", "context": {"cluster": "joulepath", "user": user}}],
        "clusters": [{"name": "joulepath", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
    }
    path = here / f"{file}.kubeconfig"
    path.write_text(yaml.safe_dump(content))
    path.chmod(0o600)
    return f'{token},{user},{user},"{group}"\n'


def _make(here: Path) -> None:
    here.chmod(0o700)
    authority: list[str | Path] = [
        "-keyout",
        here / "ca.key",
        "-out",
        here / "ca.crt",
        "-days",
        _DAYS,
        "-subj",
        "/CN=joulepath-ca",
    ]
    run(["openssl", "req", "-x509", *_NEW_KEY, *authority])
    # SEC1, as this command writes it: the API server refuses an EC key in PKCS8
    run(["openssl", "ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", here / "service-account.key"])
    addresses = ("127.0.0.1", API_ADDRESS, API_SERVICE_ADDRESS)
    names = [*(f"IP:{address}" for address in addresses), *(f"DNS:{name}" for name in _API_NAMES)]
    _signed(here, "api", "/CN=kube-apiserver", f"subjectAltName={','.join(names)}")
    _signed(here, "kubelet-client", "/O=system:masters/CN=apiserver", "extendedKeyUsage=clientAuth")
    users = [
        _user(here, "admin", "admin", "system:masters"),
        _user(here, "scheduler", "system:kube-scheduler", ""),
        _user(here, "proxy", "system:kube-proxy", ""),
    ]
    for index in range(OTHER_NODE + 1):  # the API server reads the tokens once, at its start: also for nodes to come
        name = NodeLayout(index).name
        users.append(_user(here, name, f"system:node:{name}", "system:nodes"))
    (here / "tokens.csv").write_text("".join(users))


def make() -> None:
    """Make all keys, if there are none."""
    kept(folder(), _make)
