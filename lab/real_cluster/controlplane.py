"""The control plane's processes: etcd, API server, controller manager, scheduler, and kube-proxy for all nodes.

All listen on 127.0.0.1 or on the cluster's own bridge. One kube-proxy is enough: the nodes share the machine's network.
Pod Security admission and the admission webhooks are on by default in the API server and stay so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from . import pki
from .commands import run, until
from .layout import API_ADDRESS, API_PORT, CLUSTER_NETWORK, SERVICE_NETWORK, NodeLayout, run_folder
from .processes import Processes

__all__ = ["start_api", "start_controllers", "wait_for_api"]


_ETCD: Final = "http://127.0.0.1:10379"
_ETCD_PEER: Final = "http://127.0.0.1:10380"


def _etcd() -> Mapping[str, object]:
    return {
        "data-dir": run_folder() / "etcd",
        "listen-client-urls": _ETCD,
        "advertise-client-urls": _ETCD,
        "listen-peer-urls": _ETCD_PEER,
        "initial-advertise-peer-urls": _ETCD_PEER,
        "initial-cluster": f"default={_ETCD_PEER}",
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }


def _api_server() -> Mapping[str, object]:
    keys = pki.folder()
    return {
        "etcd-servers": _ETCD,
        "bind-address": API_ADDRESS,
        "advertise-address": API_ADDRESS,
        "secure-port": API_PORT,
        "tls-cert-file": keys / "api.crt",
        "tls-private-key-file": keys / "api.key",
        "cert-dir": run_folder() / "api-server",
        "client-ca-file": keys / "ca.crt",
        "token-auth-file": keys / "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": SERVICE_NETWORK,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": keys / "service-account.key",
        "service-account-signing-key-file": keys / "service-account.key",
        "kubelet-client-certificate": keys / "kubelet-client.crt",
        "kubelet-client-key": keys / "kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP",
        "v": 1,
    }


def _controller_manager() -> Mapping[str, object]:
    return {
        "kubeconfig": pki.kubeconfig("admin"),
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "root-ca-file": pki.folder() / "ca.crt",
        "service-account-private-key-file": pki.folder() / "service-account.key",
        "use-service-account-credentials": "true",
        "flex-volume-plugin-dir": run_folder() / "volume-plugins",  # else a folder in the machine's /usr/libexec
    }


def _scheduler() -> Mapping[str, object]:
    kubeconfig = pki.kubeconfig("scheduler")
    return {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
    }


def _proxy() -> Mapping[str, object]:
    return {
        "kubeconfig": pki.kubeconfig("proxy"),
        "proxy-mode": "nftables",
        "cluster-cidr": CLUSTER_NETWORK,
        "hostname-override": NodeLayout(0).name,
        "healthz-bind-address": "127.0.0.1:10256",
        "metrics-bind-address": "127.0.0.1:10249",
        "conntrack-max-per-core": 0,  # 0: leave the machine's settings alone
        "conntrack-tcp-timeout-established": "0s",
        "conntrack-tcp-timeout-close-wait": "0s",
    }


def _start(processes: Processes, name: str, arguments: Mapping[str, object]) -> bool:
    flags = [f"--{key}={value}" for key, value in arguments.items()]
    return processes.start(name, [processes.path / name, *flags])


def start_api(processes: Processes) -> bool:
    """Start etcd and the API server; True if one was started. It is not ready yet."""
    pki.make()
    return any([_start(processes, "etcd", _etcd()), _start(processes, "kube-apiserver", _api_server())])


def wait_for_api(kubectl: Path) -> None:
    """Wait until the API server is ready."""
    kubeconfig = pki.kubeconfig("admin")
    until("the API server", 60, lambda: run([kubectl, "--kubeconfig", kubeconfig, "get", "--raw", "/readyz"]))


def start_controllers(processes: Processes) -> bool:
    """Start controller manager, scheduler and kube-proxy; True if one was started."""
    parts = {
        "kube-controller-manager": _controller_manager(),
        "kube-scheduler": _scheduler(),
        "kube-proxy": _proxy(),
    }
    return sum(_start(processes, name, arguments) for name, arguments in parts.items()) > 0
