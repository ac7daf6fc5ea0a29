"""Which nodes offer GPUs whose clocks may be set: whole ones.

A clock is the whole GPU's, so instances (MIG) and shares (time-slicing, MPS) are refused by the agent; by which names
it knows them stands in `docs/security.md`. Here resources and labels tell:

- NVIDIA's plugin offers `nvidia.com/gpu`, MIG's strategy "mixed" `nvidia.com/mig-PROFILE`, "single" `nvidia.com/gpu`
  with the label `nvidia.com/gpu.product: ...-MIG-1g.5gb`
  (https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md).
- Shares are `nvidia.com/gpu.shared`, or `nvidia.com/gpu` with `nvidia.com/gpu.replicas` over 1
  (https://github.com/NVIDIA/k8s-device-plugin#shared-access-to-gpus).
- GKE labels such nodes `cloud.google.com/gke-gpu-sharing-strategy` and `cloud.google.com/gke-gpu-partition-size`
  (https://cloud.google.com/kubernetes-engine/docs/concepts/timesharing-gpus).
"""

from __future__ import annotations

from typing import Final

from joulepath_cli.commands.preflight.facts import Facts, Node, Slice, Unread
from joulepath_cli.commands.preflight.finding import Finding, Verdict, counted, names, unread

__all__ = ["PRESENT", "gpu_nodes", "offered"]

PRESENT: Final = "nvidia.com/gpu.present"
"""The label that the chart's agents ask of a node, set by GPU feature discovery."""
_GPU: Final = "nvidia.com/gpu"
_CHECK: Final = "GPU nodes"
_LABELS: Final = frozenset({PRESENT, "cloud.google.com/gke-accelerator"})
_GKE_PARTS: Final = frozenset({"cloud.google.com/gke-gpu-sharing-strategy", "cloud.google.com/gke-gpu-partition-size"})


def gpu_nodes(facts: Facts) -> tuple[Node, ...]:
    """Nodes that have a whole GPU to offer, by a device plugin or by DRA."""
    if isinstance(facts.nodes, Unread):
        return ()
    claimed = {one.node for one in _slices(facts) if one.gpus}
    return tuple(one for one in facts.nodes if _whole(one) or one.name in claimed)


def offered(facts: Facts) -> Finding:
    """Whether there is a node with whole GPUs."""
    if isinstance(facts.nodes, Unread):
        return unread(_CHECK, facts.nodes)
    divided = {one.name for one in facts.nodes if _parts(one)} | {one.node for one in _slices(facts) if one.instances}
    refused = f"Parts of GPUs are refused (MIG, time-slicing, MPS), as {names(divided)} offers." if divided else ""
    if whole := gpu_nodes(facts):
        by_plugin, claimed = sum(map(_whole, whole)), [one.name for one in whole if not _whole(one)]
        count = by_plugin + sum(one.gpus for one in _slices(facts) if one.node in claimed)
        seen = [f"{counted(count, 'whole GPU')} on {counted(len(whole), 'node')}: {names(one.name for one in whole)}."]
        if claimed:
            seen.append(f"By DRA alone on {names(claimed)}: the training operator 1.8.1 drops a PyTorchJob's claims.")
        return Finding(_CHECK, Verdict.OK, " ".join(filter(None, [*seen, refused])))
    if isinstance(facts.slices, Unread):
        return unread(_CHECK, facts.slices)
    if divided:
        remedy = "Give a node whole GPUs: nvidia.com/mig.config=all-disabled, and no replicas in the device plugin."
        return Finding(_CHECK, Verdict.LACKS, refused, remedy)
    seen = [f"Of {counted(len(facts.nodes), 'node')} none offers {_GPU}, nor a GPU by DRA."]
    if labelled := [one.name for one in facts.nodes if _LABELS & one.labels.keys()]:
        seen.append(f"By their labels there are some on {names(labelled)}: see its driver and device plugin.")
    return Finding(_CHECK, Verdict.LACKS, " ".join(seen), "Install NVIDIA's GPU operator, or driver and device plugin.")


def _slices(facts: Facts) -> tuple[Slice, ...]:
    return () if isinstance(facts.slices, Unread) else facts.slices


def _whole(node: Node) -> int:
    """How many whole GPUs a device plugin offers there."""
    return 0 if _is_divided(node) else node.resources.get(_GPU, 0)


def _parts(node: Node) -> bool:
    """Whether a device plugin offers instances or shares there."""
    return any(name.startswith("nvidia.com/mig-") or name.endswith(".shared") for name in node.resources) or (
        _GPU in node.resources and _is_divided(node)
    )


def _is_divided(node: Node) -> bool:
    """Whether what is called a GPU there is a part of one."""
    replicas, product = node.labels.get(f"{_GPU}.replicas", ""), node.labels.get(f"{_GPU}.product", "")
    return (
        (replicas.isdecimal() and int(replicas) > 1)
        or "-MIG-" in product
        or product.endswith("-SHARED")
        or bool(_GKE_PARTS & node.labels.keys())
    )
