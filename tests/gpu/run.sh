#!/bin/bash
# Everything that only a real GPU can tell, on one rented machine in six minutes; no Kubernetes, no internet.
#
#   [PYTHON=python3] [WHEELS=DIR] [OUT=DIR] tests/gpu/run.sh [--leave-clocks] [--virtual]
#
# Needs: NVIDIA's driver; Python 3.11 or newer with torch (CUDA), pynvml (nvidia-ml-py), numpy, pyyaml, pydantic and
# prometheus-client. What is missing may lie as wheels in WHEELS; the doctor alone needs torch and pynvml. Clocks are set
# only as root (CAP_SYS_ADMIN): without it, all that can be seen is measured, and the JSON says so.
# PATIENCE=N allows N times six minutes, for dry runs on a busy machine.
set -u
cd "$(dirname "$0")/../.."
python=${PYTHON:-$(test -x .venv/bin/python && echo .venv/bin/python || echo python3)}
export OUT=${OUT:-$PWD/gpu-out} PYTHONUNBUFFERED=1
mkdir -p "$OUT"
path=$PWD/agent:$PWD/crds
if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl && path=$path:$site
fi
export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH}
timeout --signal=TERM --kill-after=10 $((360 * ${PATIENCE:-1})) "$python" tests/gpu/run.py "$@" 2>&1 | tee "$OUT/run.log"
exit "${PIPESTATUS[0]}"
