"""Virtual GPUs: real NVML and CUDA driver libraries over GPUs that exist only as a model in a shared file.

What a program sees is NVIDIA's own interface (`libnvidia-ml.so.1`, `libcuda.so.1`); what answers is a model of
an A100: clocks with lag, power, energy, heat, and kernels that take the time and draw the power that the model
gives at the clock in force. README.md says what is modelled and what is not.
"""

from __future__ import annotations

__all__ = ["build", "device_plugin", "model", "state", "stream"]
