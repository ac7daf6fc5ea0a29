"""The cluster's network on this machine: bridges with its addresses, and a rule that nothing from outside gets in.

Linux answers on any of its addresses whatever interface a packet comes from; hence the nftables table, which drops
what comes for the cluster's networks from an interface that isn't the cluster's. Forwarding is switched on for our
bridges alone: the machine doesn't become a router for its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .commands import CommandError, run
from .layout import API_ADDRESS, CLUSTER_NETWORK, HOST_BRIDGE, OTHER_NODE, SERVICE_NETWORK, NodeLayout, run_folder
from .machine import MachineError

__all__ = ["make_host_network", "make_node_network", "refuse_foreign_cluster", "remove"]


_TABLE: Final = "joulepath"
_FIREWALL_CHAINS: Final = ("INPUT", "FORWARD")
_RULES: Final = f"""
table inet {_TABLE}
delete table inet {_TABLE}
table inet {_TABLE} {{
  chain outside {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" iifname != "jp-*" ip daddr {{ {CLUSTER_NETWORK}, {SERVICE_NETWORK} }} drop
  }}
}}
"""


def refuse_foreign_cluster() -> None:
    """Raise if another Kubernetes node runs on this machine: one kube-proxy would undo the other's rules."""
    if Path("/sys/class/net", HOST_BRIDGE).exists():
        raise MachineError(
            f"This machine has the network {HOST_BRIDGE}: a cluster of Joulepath's was started here with another cache "
            "folder (JOULEPATH_CACHE, XDG_CACHE_HOME or HOME). Run `make down` with that one first."
        )
    tables = run(["nft", "list", "tables"])
    if "kube-proxy" in tables or run(["ip", "-4", "route", "show", "root", CLUSTER_NETWORK]).strip():
        raise MachineError(
            "This machine has rules of another kube-proxy, or routes in "
            f"{CLUSTER_NETWORK}: it is a node of another cluster. Use another machine, "
            "or remove them (`nft delete table ip kube-proxy`) if they are left over."
        )


def _bridge(name: str, addresses: Sequence[str]) -> None:
    if not Path("/sys/class/net", name).exists():
        run(["ip", "link", "add", name, "type", "bridge"])
    for address in addresses:
        run(["ip", "address", "replace", address, "dev", name])
    run(["ip", "link", "set", name, "up"])


def make_host_network() -> None:
    """The API server's address, and the rule against the outside."""
    _bridge(HOST_BRIDGE, [f"{API_ADDRESS}/32"])
    run(["nft", "-f", "-"], stdin=_RULES)
    _pass_firewall()


def _chain(name: str) -> str:
    try:
        return run(["nft", "--handle", "list", "chain", "ip", "filter", name])
    except CommandError:  # there is none
        return ""


def _pass_firewall() -> None:
    """Let our bridges through a firewall that drops by default, such as Docker's (FORWARD) or ufw's (INPUT)."""
    for name in _FIREWALL_CHAINS:
        rules = _chain(name)
        if "policy drop" in rules and f'comment "{_TABLE}"' not in rules:
            run(["nft", "insert", "rule", "ip", "filter", name, "iifname", "jp-*", "accept", "comment", _TABLE])


def _leave_firewall() -> None:
    for name in _FIREWALL_CHAINS:
        for handle in re.findall(rf'comment "{_TABLE}" # handle (\d+)', _chain(name)):
            run(["nft", "delete", "rule", "ip", "filter", name, "handle", handle])


def make_node_network(node: NodeLayout) -> None:
    """The node's address and the bridge of its pods."""
    _bridge(HOST_BRIDGE, [f"{node.address}/32"])
    _bridge(node.pod_bridge, [f"{node.pod_gateway}/24"])
    Path(f"/proc/sys/net/ipv4/conf/{node.pod_bridge}/forwarding").write_text("1")


def remove() -> None:
    """Remove all bridges and rules, ours and our kube-proxy's."""
    for name in (HOST_BRIDGE, *(NodeLayout(index).pod_bridge for index in range(OTHER_NODE + 1))):
        if Path("/sys/class/net", name).exists():
            run(["ip", "link", "delete", name])
    _leave_firewall()
    tables = [("inet", _TABLE)]
    if run_folder().exists():  # else they would be another cluster's
        tables += [("ip", "kube-proxy"), ("ip6", "kube-proxy")]
    for family, table in tables:
        try:
            run(["nft", "delete", "table", family, table])
        except CommandError as error:
            if "No such file" not in str(error):
                raise
