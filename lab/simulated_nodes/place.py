"""A control plane for simulated nodes: real etcd and kube-apiserver, in a place of their own.

Both listen on free ports of 127.0.0.1 and keep all in a folder that is given, so that the test cluster may run beside
them; no setting of the machine is changed. No scheduler or kubelet runs, and no controller but those that are asked
for: what they would make is made bare.
Requests' limits and priorities are the API server's own defaults.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from joulepath_agent.cluster.objects import ApiServer
from real_cluster.binaries import program
from real_cluster.commands import run, until

__all__ = ["Place", "free_port", "place", "process"]

_READY_S: Final = 180
_SESSION_NICE: Final = -9
"""A session of processes with it gets 8 times as much of a busy core as another, as on the test cluster."""
_END_S: Final = 10
_PAGE: Final = 25
_ADMIN: Final = "system:masters"
"""A group whose requests are neither limited nor queued, so that whoever looks on takes nobody's turn."""


@dataclass(frozen=True, slots=True)
class Place:
    """A control plane that runs."""

    folder: Path
    url: str
    etcd_url: str
    token: str
    etcd_pid: int
    api_server_pid: int

    @property
    def authority(self) -> Path:
        """The certificates that the API server is known by."""
        return self.folder / "keys" / "apiserver.crt"

    def api(self, token: str = "") -> ApiServer:
        """A way to the API server, as its administrator or by another's token."""
        return ApiServer(self.url, lambda: token or self.token, ca_certs=str(self.authority))

    def kubeconfig(self, name: str, token: str = "") -> Path:
        """A file for programs that want one."""
        authority = base64.b64encode(self.authority.read_bytes()).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"token": token or self.token}}],
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        path.chmod(0o600)
        return path

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """What kubectl prints, as the administrator."""
        return run([program("kubectl"), "--kubeconfig", self.kubeconfig("admin"), *arguments], stdin=stdin)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys below a prefix and the bytes that etcd keeps of each, asked of etcd itself."""
        key, end = prefix.encode(), prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1])
        while True:
            asked = {"key": base64.b64encode(key).decode(), "range_end": base64.b64encode(end).decode(), "limit": _PAGE}
            request = urllib.request.Request(f"{self.etcd_url}/v3/kv/range", json.dumps(asked).encode())
            with urllib.request.urlopen(request) as answer:
                found = json.load(answer).get("kvs", [])
            for one in found:
                key = base64.b64decode(one["key"])
                yield key.decode(), len(base64.b64decode(one["value"]))
            if len(found) < _PAGE:
                return
            key += b"\0"


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(
    argv: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that writes to a log, in a session of its own with its children; all are ended at the end.

    Where the one that starts it is killed, so is it.
    """
    with log.open("wb") as written:
        started = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *(str(word) for word in argv)],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    with suppress(OSError):  # a kernel without autogroups, or a program that has ended at once
        Path(f"/proc/{started.pid}/autogroup").write_text(str(_SESSION_NICE))
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(_END_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


@contextmanager
def place(folder: Path, controllers: Sequence[str] = ()) -> Iterator[Place]:
    """Starts both, and a controller manager with these of Kubernetes' own controllers; ends them."""
    keys, token = folder / "keys", secrets.token_hex(16)
    keys.mkdir(parents=True, mode=0o700)
    key = keys / "service-account.key"
    run(["openssl", "ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", key])
    (keys / "tokens.csv").write_text(f'{token},admin,admin,"{_ADMIN}"\n')
    ports = [free_port() for _ in range(3)]
    etcd, peer, url = (f"{way}://127.0.0.1:{port}" for way, port in zip(("http", "http", "https"), ports, strict=True))
    with (
        process([program("etcd"), *_etcd(folder, etcd, peer)], folder / "etcd.log") as store,
        process([program("kube-apiserver"), *_api_server(keys, etcd, ports[2])], folder / "api-server.log") as server,
    ):
        here = Place(folder, url, etcd, token, store.pid, server.pid)
        until("the API server", _READY_S, lambda: here.authority.exists(), pause_s=0.5)
        until("the API server", _READY_S, lambda: here.kubectl("get", "--raw", "/readyz"), pause_s=0.5)
        with ExitStack() as stack:
            if controllers:
                manager = [program("kube-controller-manager"), *_controller_manager(here, controllers)]
                stack.enter_context(process([str(word) for word in manager], folder / "controller-manager.log"))
            yield here


def _flags(values: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def _etcd(folder: Path, url: str, peer: str) -> list[str]:
    return _flags(
        {
            "data-dir": folder / "etcd",
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
    )


def _controller_manager(here: Place, controllers: Sequence[str]) -> list[str]:
    return _flags(
        {
            "kubeconfig": here.kubeconfig("controller-manager"),
            "controllers": ",".join(controllers),
            "bind-address": "127.0.0.1",
            "secure-port": 0,
            "leader-elect": "false",
        }
    )


def _api_server(keys: Path, etcd: str, port: int) -> list[str]:
    return _flags(
        {
            "etcd-servers": etcd,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "secure-port": port,
            "cert-dir": keys,
            "token-auth-file": keys / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-cluster-ip-range": "10.0.0.0/24",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": keys / "service-account.key",
            "service-account-signing-key-file": keys / "service-account.key",
            "v": 1,
        }
    )
