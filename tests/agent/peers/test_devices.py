"""What a device of the kubelet is, by the names of the plugins that there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_agent.peers.devices import NodeGpu, granted

A, B, C = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")
MIG = "MIG-12345678-0000-0000-0000-000000000000"
OF_MIG = MIG.replace("MIG", "GPU")
GPUS = (NodeGpu(A, index=0, minor=1, mig=False), NodeGpu(B, index=1, minor=0, mig=False), NodeGpu(C, 2, 2, mig=False))
GPU, DRA = "nvidia.com/gpu", "gpu.nvidia.com"


def told(resource: str, device: str, gpus: tuple[NodeGpu, ...] = GPUS) -> dict[str, str]:
    """The code of each GPU that the device may be."""
    return {grant.uuid: grant.code for grant in granted(resource, device, gpus)}


@pytest.mark.parametrize(
    ("resource", "device", "uuid"),
    [
        (GPU, A, A),  # NVIDIA's plugin, whatever DEVICE_ID_STRATEGY says
        ("nvidia.com/h200", A, A),
        ("example.com/gpu", A, A),
        (GPU, "nvidia1", A),  # GKE's plugin: by the minor number, not by NVML's order
        (GPU, "nvidia0", B),
        ("nvidia.com/gke", "nvidia2", C),
        (DRA, "gpu-1", A),
        (DRA, "gpu-0", B),
        (GPU, "2", C),  # a number that means one GPU either way
    ],
)
def test_a_whole_gpu_is_its_holders(resource: str, device: str, uuid: str) -> None:
    assert told(resource, device) == {uuid: ""}


@pytest.mark.parametrize(
    ("resource", "device", "uuid"),
    [
        (GPU, f"{A}::0", A),  # NVIDIA's replicas: time-slicing and MPS
        ("nvidia.com/gpu.shared", f"{A}::3", A),
        ("nvidia.com/gpu.shared", A, A),
        ("example.com/gpu", f"{A}::3", A),
        (GPU, f"{A}-3", A),  # a form that isn't known
        (GPU, "nvidia0/vgpu1", B),  # GKE's shares
        (DRA, "gpu-0::8f0c", B),  # a share of a device (consumable capacity)
    ],
)
def test_a_share_of_a_gpu_is_refused_for_that_gpu(resource: str, device: str, uuid: str) -> None:
    assert told(resource, device) == {uuid: "SharedGpu"}


@pytest.mark.parametrize(
    ("resource", "device", "uuid"),
    [
        ("nvidia.com/mig-1g.5gb", MIG, OF_MIG),
        (GPU, MIG, OF_MIG),  # MIG_STRATEGY=single
        (GPU, f"{MIG}::7", OF_MIG),  # a replica of an instance
        ("nvidia.com/mig-1g.5gb", f"MIG-{A}/1/0", A),  # drivers before R470
        (GPU, "nvidia0/gi1", B),
        (GPU, "nvidia0/gi1/vgpu2", B),
        (DRA, "gpu-0-mig-1g5gb-19-0", B),
    ],
)
def test_a_mig_instance_is_refused_for_its_gpu_or_by_its_own_name(resource: str, device: str, uuid: str) -> None:
    assert told(resource, device) == {uuid: "MigGpu"}


def test_a_gpu_in_mig_mode_is_refused_though_a_plugin_offers_it_whole() -> None:
    gpus = (NodeGpu(A, 0, 0, mig=True),)
    assert told(GPU, A, gpus) == told(GPU, "nvidia0", gpus) == told(DRA, "gpu-0", gpus) == {A: "MigGpu"}


def test_a_number_that_may_mean_two_gpus_is_refused_for_both() -> None:
    assert told(GPU, "0") == told(GPU, "1") == {A: "AmbiguousGpu", B: "AmbiguousGpu"}
    assert told(GPU, "0", (NodeGpu(A, 0, None, mig=False),)) == {A: "AmbiguousGpu"}


@pytest.mark.parametrize(
    ("resource", "device"),
    [
        (GPU, "GPU-of-another-node"),
        (GPU, "nvidia7"),
        (GPU, "7"),
        (GPU, "tty"),
        ("example.com/fpga", "1"),
        ("example.com/fpga", "nvidia1"),
        ("gpu.example.com", "gpu-1"),
        ("compute-domain.nvidia.com", "channel-0"),
        (DRA, "gpu-vfio-0"),
        (DRA, "nvidia1"),
    ],
)
def test_what_names_no_gpu_of_the_node_is_none(resource: str, device: str) -> None:
    assert told(resource, device) == {}


@given(
    resource=st.sampled_from([GPU, "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb", "example.com/x", DRA]),
    base=st.sampled_from([A, B, MIG, f"MIG-{A}/1/0", "nvidia0", "nvidia1/gi2", "0", "2", "gpu-1", "gpu-0-mig-x-1-2"]),
    suffix=st.sampled_from(["", "::0", "::x", "/vgpu0", "-1"]),
    minors=st.permutations([0, 1, 2]),
    mig=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_only_one_holder_of_a_whole_gpu_may_set_its_clock(
    resource: str, base: str, suffix: str, minors: list[int], mig: list[bool]
) -> None:
    gpus = tuple(NodeGpu(uuid, i, minors[i], mig[i]) for i, uuid in enumerate((A, B, C)))
    grants = granted(resource, base + suffix, gpus)
    whole = [grant for grant in grants if not grant.code]
    assert len(grants) == 1 if whole else all(grant.why for grant in grants)
    for grant in whole:
        (gpu,) = (gpu for gpu in gpus if gpu.uuid == grant.uuid)
        assert not gpu.mig
        assert not suffix
        assert not resource.endswith(".shared")
