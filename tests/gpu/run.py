"""What only a real GPU can tell, in six minutes on one rented machine: `run.sh` starts this. Standard library only.

    python tests/gpu/run.py --out DIR [--virtual] [--leave-clocks] [--only STEP ...]

Each step has its own time limit, and one that fails stops none after it. Everything goes into one JSON,
benchmarks/results/gpu-MODEL.json (and DIR), which is written anew after each step; logs go to DIR. With --virtual it is
a dry run on virtual GPUs, with torch on the CPU: nothing of it is a measurement of a GPU, and it stays in DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT_S = 345.0
PLAIN_STEPS = 20
NEEDED = ("pynvml", "torch", "numpy", "pydantic", "prometheus_client", "yaml")
DRY = "a dry run on virtual GPUs, torch on the CPU with gloo: no figure of it is a GPU's"
FACTS = "name,driver_version,uuid,pstate,clocks.sm,clocks.max.sm,power.limit,persistence_mode,mig.mode.current"


class Run:
    """The steps, and what they found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        # Sockets have short names: not in a folder that may be deep down.
        self.work = Path(f"/tmp/joulepath-gpu-{os.getpid()}")
        (self.work / "state").mkdir(parents=True)
        self.begun_s = time.monotonic()
        self.patience = float(os.environ.get("PATIENCE") or 1)
        self.environment = dict(os.environ)
        self.gpus: list[str] = []
        self.warden: subprocess.Popen[bytes] | None = None
        self.found: dict[str, Any] = {
            "what": DRY if options.virtual else "measured on a GPU",
            "virtual": options.virtual,
            "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "steps": {},
        }

    @property
    def left_s(self) -> float:
        """Until all has to be over."""
        return self.patience * LIMIT_S - (time.monotonic() - self.begun_s)

    def step(self, name: str, limit_s: float, action: Callable[[float], Any]) -> None:
        """Does one, within a limit that it keeps itself; notes what it found, or why it failed."""
        if self.options.only and name not in self.options.only:
            return
        begun_s, limit_s = time.monotonic(), min(self.patience * limit_s, self.left_s - 10)
        print(f"== {name} (at most {limit_s:.0f} s)", flush=True)
        told: dict[str, Any] = {}
        try:
            if limit_s < 5:
                raise TimeoutError("no time was left for it")
            self.found[name] = action(limit_s)
            told["done"] = True
        except Exception as error:
            told |= {"done": False, "why": f"{type(error).__name__}: {error}"}
            print(f"   failed: {told['why']}", flush=True)
        told["seconds"] = round(time.monotonic() - begun_s, 1)
        self.found["steps"][name] = told
        self.write()

    def command(self, name: str, limit_s: float, *command: str, more: Mapping[str, str] | None = None) -> str:
        """Runs a program for so long at most, its words in a log; what it printed.

        Raises:
            RuntimeError: It failed or took too long, with its last words.
        """
        log = self.out / f"{name}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, env={**self.environment, **(more or {})}, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            try:
                output, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)  # what it has found so far is worth having
                try:
                    output, _ = process.communicate(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    output, _ = process.communicate()
        (self.out / f"{name}.out").write_text(output)
        if process.returncode and not output.strip():
            raise RuntimeError(f"{shlex.join(command[:4])}: {process.returncode}, {log.read_text()[-600:].strip()}")
        return output

    def write(self) -> None:
        """All that was found so far."""
        self.found["seconds"] = round(time.monotonic() - self.begun_s, 1)
        text = json.dumps(self.found, indent=1) + "\n"
        model = re.sub(r"[^a-z0-9]+", "-", str(self.found.get("model", "unknown")).lower().replace("nvidia", "")).strip(
            "-"
        )
        name = "gpu-dry-run.json" if self.options.virtual else f"gpu-{model}.json"
        (self.out / name).write_text(text)
        if not self.options.virtual and "model" in self.found:
            (ROOT / "benchmarks/results" / name).write_text(text)

    # the steps

    def machine(self, limit_s: float) -> dict[str, Any]:
        """What is here; where something is missing, which steps that costs."""
        if self.options.virtual:
            self.lay_virtual_gpus()
        told: dict[str, Any] = {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "uid": os.geteuid(),
            "capabilities": status_of("CapEff"),
        }
        probe = (
            "import importlib.util, json, sys; print(json.dumps({n: importlib.util.find_spec(n) is not None "
            f"for n in {NEEDED!r}}}))"
        )
        told["packages"] = json.loads(self.command("packages", limit_s, sys.executable, "-c", probe))
        nvml = (
            "import json, pynvml as n; n.nvmlInit(); h = [n.nvmlDeviceGetHandleByIndex(i) for i in "
            "range(n.nvmlDeviceGetCount())]; print(json.dumps([[n.nvmlDeviceGetUUID(x), n.nvmlDeviceGetName(x)] "
            "for x in h]))"
        )
        gpus = json.loads(self.command("nvml", limit_s, sys.executable, "-c", nvml))
        self.gpus = [uuid for uuid, _ in gpus][:2]
        self.found["model"] = told["model"] = gpus[0][1]
        told["gpus"] = len(gpus)
        if not self.options.virtual:
            torch = (
                "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, "
                "torch.cuda.is_available(), torch.cuda.nccl.version()]))"
            )
            told["torch"] = json.loads(self.command("torch", limit_s, sys.executable, "-c", torch))
            query = ["nvidia-smi", f"--query-gpu={FACTS}", "--format=csv"]
            told["nvidia_smi"] = self.command("nvidia-smi", limit_s, *query) if shutil.which("nvidia-smi") else "absent"
        return told

    def lay_virtual_gpus(self) -> None:
        """Two virtual GPUs, and the environment in which all find them."""
        spec, state = self.work / "spec.json", self.work / "gpus"
        spec.write_text(json.dumps({"seconds": {"F": 0.05, "B": 0.1, "I": 0.05, "W": 0.05, "K": 0.0002}}))
        self.environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(ROOT / "lab"), os.environ.get("PYTHONPATH")))
        )
        base = (sys.executable, "-m", "virtual_gpus")
        gpus = ("--gpus", str(self.options.virtual_gpus), "--time-scale", "0.5", "--no-root-only")
        self.command(
            "virtual", 60, *base, "init", "--state", str(state), "--model", "parametric", "--spec", str(spec), *gpus
        )
        library = self.command("virtual", 60, *base, "build").strip()
        self.environment |= {
            "VIRTUAL_GPUS_STATE": str(state),
            "NVIDIA_VISIBLE_DEVICES": "all",
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (library, os.environ.get("LD_LIBRARY_PATH")))),
            "JOULEPATH_LOAD": f"{shlex.quote(sys.executable)} -m virtual_gpus.load",
        }

    def start_warden(self, limit_s: float) -> dict[str, Any]:
        """The warden, until the end of all."""
        command = [sys.executable, "-m", "joulepath_warden", "--state-dir", str(self.work / "state")]
        with (self.out / "warden.log").open("w") as log:
            self.warden = subprocess.Popen(command, env=self.environment, stderr=log)
        begun_s = time.monotonic()
        while not (self.work / "state/doctor/warden.sock").exists():
            if self.warden.poll() is not None or time.monotonic() - begun_s > limit_s:
                raise RuntimeError(f"it doesn't lease clocks: {(self.out / 'warden.log').read_text()[-400:]}")
            time.sleep(0.05)
        return {"ready_s": time.monotonic() - begun_s}

    def doctor(self, limit_s: float) -> dict[str, Any]:
        """The doctor; its table goes to its own output."""
        command = [sys.executable, "-m", "joulepath_agent.doctor", "--state-dir", str(self.work / "state")]
        command += [
            "--limit",
            str(max(10.0, limit_s - 20 * self.patience)),
            "--pace",
            str(self.options.pace),
            *self.clocks,
        ]
        print(self.command("doctor", limit_s, *command), flush=True)
        record = self.work / "state/doctor/record.json"
        if not record.exists():
            raise RuntimeError(f"no record: {(self.out / 'doctor.log').read_text()[-600:]}")
        return dict(json.loads(record.read_text()))

    def plain(self, limit_s: float) -> dict[str, Any]:
        """The training without anything of ours."""
        command = [sys.executable, str(HERE / "train.py"), "--device", self.device, "--steps", str(PLAIN_STEPS)]
        command += ["--alone"] if len(self.gpus) == 1 else []
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533", "OMP_NUM_THREADS": "1"}
        log = (self.out / "plain.rank1.log").open("w")
        other = subprocess.Popen(
            command,
            env={**self.environment, **common, "RANK": "1", "LOCAL_RANK": "1"},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            more = {**common, "RANK": "0", "LOCAL_RANK": "0"}
            output = self.command("plain", limit_s, *command, more=more)
        finally:
            other.kill()
            other.wait()
            log.close()
        seconds = [json.loads(line)["seconds"] for line in output.splitlines() if line.startswith("{")]
        if len(seconds) < PLAIN_STEPS:
            raise RuntimeError(f"{len(seconds)} steps ran: {(self.out / 'plain.log').read_text()[-600:]}")
        return {"step_s": statistics.median(seconds[5:]), "steps": len(seconds)}

    def training(self, limit_s: float) -> dict[str, Any]:
        """The training under the agent: see drive.py."""
        command = [sys.executable, str(HERE / "drive.py"), "--work", str(self.work), "--device", self.device]
        for uuid in self.gpus:
            command += ["--gpu", uuid]
        try:
            output = self.command("training", limit_s, *command, *self.clocks)
        finally:
            for log in self.work.glob("*.log*"):
                shutil.copy(log, self.out)
            for log in self.work.glob("observed.rank*"):
                shutil.copy(log, self.out)
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"it found nothing: {(self.out / 'training.log').read_text()[-600:]}")
        found: dict[str, Any] = json.loads(lines[-1])
        if "failed" in found:
            self.found["training"] = found
            raise RuntimeError(found["failed"])
        return found

    def aftermath(self, limit_s: float) -> dict[str, Any]:
        """Ends the warden; whether it leaves anything locked."""
        told: dict[str, Any] = {}
        if self.warden is not None:
            self.warden.terminate()
            told["warden_exit"] = self.warden.wait(limit_s)
        journal = self.work / "state/locked-gpus"
        told["journal"] = journal.read_text().split("\n")[:-2] if journal.exists() else []
        return told

    @property
    def device(self) -> str:
        """Of the training."""
        return "virtual" if self.options.virtual else "cuda"

    @property
    def clocks(self) -> list[str]:
        """The option to leave them alone, if asked for."""
        return ["--leave-clocks"] if self.options.leave_clocks else []


def status_of(name: str) -> str:
    """A line of this process's status."""
    return next(
        (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)), ""
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Everything that only a real GPU can tell, in six minutes.")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-out"))
    parser.add_argument("--virtual", action="store_true", help="a dry run on virtual GPUs")
    parser.add_argument("--virtual-gpus", type=int, default=2, help="how many of these")
    parser.add_argument("--leave-clocks", action="store_true", help="set no clock: measure what can be seen without")
    parser.add_argument("--pace", type=float, default=1.0, help="of the doctor")
    parser.add_argument("--only", nargs="*", default=[], help="these steps")
    run = Run(parser.parse_args())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("its time is over"))
    try:
        run.step("machine", 60, run.machine)
        run.step("warden", 15, run.start_warden)
        run.step("doctor", 150, run.doctor)
        run.step("plain", 50, run.plain)
        run.step("training", 160, run.training)
        run.step("aftermath", 20, run.aftermath)
    finally:
        if run.warden is not None and run.warden.poll() is None:
            run.warden.terminate()
            run.warden.wait(30)
        shutil.rmtree(run.work, ignore_errors=True)
    failed = [name for name, told in run.found["steps"].items() if not told["done"]]
    print(f"== {run.found['seconds']} s; {'all done' if not failed else 'failed: ' + ', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
