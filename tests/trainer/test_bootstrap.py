"""Python starts as it would without us, whichever it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest

from tests.trainer.conftest import BOOTSTRAP
from tests.trainer.pythons import PYTHONS, Python, found

REPORT: Final = """
import json, os, sys
def ours(name): return name.startswith("joulepath")
print(json.dumps({
    "path": sys.path, "environment": os.environ.get("PYTHONPATH"), "flags": str(sys.flags), "warn": sys.warnoptions,
    "modules": sorted(name for name in sys.modules if not ours(name)),
    "ours": sorted(filter(ours, sys.modules)), "argv": sys.argv, "optimized": not __debug__,
    "finders": [type(finder).__name__ for finder in sys.meta_path if not ours(type(finder).__module__)],
    "hooks": [type(finder).__name__ for finder in sys.meta_path if ours(type(finder).__module__)],
    "sitecustomize": getattr(sys.modules.get("sitecustomize"), "__file__", None),
}))
"""
OURS: Final = ("ours", "hooks", "environment")
"""What may differ."""


QUICK: Final = ("2.7", "3.11")
"""One that is too old, and one that isn't."""


@pytest.fixture(params=[one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in PYTHONS])
def python(request: pytest.FixtureRequest) -> Python:
    return found(request.param)


def run(python: Python, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs it with us and the hook, unless the environment says otherwise."""
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(BOOTSTRAP), "JOULEPATH_SOCKET": "/nowhere", **environment}
    clean["PYTHONDONTWRITEBYTECODE"] = "1"  # as in a pod, where the files can't be written to
    given = {name: value for name, value in clean.items() if value}
    return subprocess.run([python.path, *arguments], env=given, capture_output=True, text=True, check=False, timeout=60)


def report(python: Python, *options: str, **environment: str) -> dict[str, Any]:
    done = run(python, *options, "-c", REPORT, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def facts(told: dict[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in told.items() if name not in OURS}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image whose ENV PYTHONPATH holds two folders; the file says so."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in_{name}.py").touch()
    (tmp_path / "pythonpath").write_text(f"{tmp_path}/first:{tmp_path}/second")
    return tmp_path


# any Python


def test_each_python_reads_the_bootstrap(python: Python, tmp_path: Path) -> None:
    code = "import sys; [compile(open(path).read(), path, 'exec') for path in sys.argv[1:]]"
    files = sorted(map(str, BOOTSTRAP.glob("*.py")))
    assert len(files) == 4
    subprocess.run([python.path, "-bb", "-W", "error", "-c", code, *files], check=True, cwd=tmp_path)


def test_the_hook_is_all_that_is_there_beside_what_would_be(python: Python) -> None:
    plain, hooked = report(python, PYTHONPATH=""), report(python)
    assert facts(hooked) == facts(plain)
    if python.is_old:
        assert (hooked["hooks"], hooked["ours"]) == (["Watch"], ["joulepath_bootstrap", "joulepath_old_python"])
    else:
        brought = ["joulepath_bootstrap", "joulepath_trainer", "joulepath_trainer.hook"]
        assert (hooked["hooks"], hooked["ours"]) == (["PostImportHook"], brought)


def test_without_a_socket_there_is_no_hook(python: Python) -> None:
    plain, bootstrapped = report(python, PYTHONPATH=""), report(python, JOULEPATH_SOCKET="")
    assert facts(bootstrapped) == facts(plain)
    assert (bootstrapped["hooks"], bootstrapped["ours"]) == ([], ["joulepath_bootstrap"])


OPTIONS: Final = ("-O", "-OO", "-B", "-s", "-u", "-bb", "-Werror", "-Xdev", "-Xutf8", "-P", "-3", "-Qwarnall", "-tt")
SINCE: Final = {"-Xdev": (3, 7), "-Xutf8": (3, 7), "-P": (3, 11)}


@pytest.mark.slow
def test_options_mean_what_they_mean_and_nothing_is_said(python: Python) -> None:
    for option in OPTIONS:
        of_two = option in ("-3", "-Qwarnall", "-tt")
        if python.version < SINCE.get(option, (0, 0)) or (of_two and python.version > (3, 0)):
            continue
        plain, hooked = (run(python, option, "-c", REPORT, **path) for path in ({"PYTHONPATH": ""}, {}))
        assert (hooked.returncode, hooked.stderr) == (plain.returncode, plain.stderr), option
        assert facts(json.loads(hooked.stdout)) == facts(json.loads(plain.stdout)), option


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_isolated_pythons_are_untouched(python: Python, option: str) -> None:
    if option == "-I" and python.version < (3, 4):
        pytest.skip("Python 2 has no -I")
    done = report(python, option)
    assert (done["hooks"], done["ours"]) == ([], [])


def test_the_import_of_modules_is_timed(python: Python) -> None:
    if python.is_pypy or python.version < (3, 7):
        pytest.skip("this Python times none")
    done = run(python, "-Ximporttime", "-c", "print(1)")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert all(line.startswith("import time:") for line in done.stderr.splitlines())


@pytest.mark.parametrize("end", ["raise SystemExit(7)", "1/0", "import os; os.kill(os.getpid(), 9)", "import nothing"])
def test_a_process_ends_as_it_would(python: Python, end: str) -> None:
    plain, hooked = run(python, "-c", end, PYTHONPATH=""), run(python, "-c", end)
    assert (hooked.returncode, hooked.stdout, hooked.stderr) == (plain.returncode, plain.stdout, plain.stderr)


def shell(python: Python, script: str, folder: Path) -> list[tuple[int, str, str]]:
    """Without us and with us; `$PY` is the Python, `$REPORT` what reports."""
    done = []
    for path in ({}, {"PYTHONPATH": str(BOOTSTRAP)}):
        environment = {"PATH": os.environ["PATH"], **path, "JOULEPATH_SOCKET": "/nowhere"}
        environment |= {"PY": python.path, "REPORT": REPORT, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/proc"}
        one = subprocess.run(
            ["sh", "-c", script], env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60
        )
        done.append((one.returncode, one.stdout, one.stderr))
    return done


PLACES: Final = {
    "a folder that is gone": 'mkdir gone; cd gone; rmdir ../gone; "$PY" -c "$REPORT"',
    "no standard error": '"$PY" -c "$REPORT" 2>&-',
    "no standard files": '"$PY" -c "$REPORT" >out 2>&- <&-; cat out',
    "a script": 'echo "$REPORT" >script.py; "$PY" script.py x',
    "standard input": 'echo "$REPORT" | "$PY" -',
    "a module": 'echo "$REPORT" >module.py; "$PY" -m module x',
    "an archive": '"$PY" archive x',
    "a safe path": 'PYTHONSAFEPATH=1 "$PY" -c "$REPORT"',
    "optimized": 'PYTHONOPTIMIZE=2 "$PY" -c "$REPORT"',
    "a home of its own": 'PYTHONHOME="$("$PY" -c "import sys; print(sys.prefix)")" "$PY" -c "$REPORT"',
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_different_in(python: Python, place: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("__main__.py", REPORT)
    plain, hooked = shell(python, PLACES[place], tmp_path)
    assert (hooked[0], hooked[2]) == (plain[0], plain[2])
    if plain[1]:
        assert facts(json.loads(hooked[1])) == facts(json.loads(plain[1]))
        assert json.loads(hooked[1])["hooks"], "it was there"


STARTED: Final = """
import multiprocessing, sys
def path(_): return [one for one in sys.path if one], sorted(one for one in sys.modules if one.startswith("joulepath"))
if __name__ == "__main__":
    print(multiprocessing.get_context(sys.argv[1]).Pool(1).map(path, [0]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_python_starts_have_the_path_of_those_that_start_them(
    python: Python, method: str, tmp_path: Path
) -> None:
    if python.version < (3, 4):
        pytest.skip("Python 2 only forks")
    (tmp_path / "started.py").write_text(STARTED)
    arguments = str(tmp_path / "started.py"), method
    plain, hooked = run(python, *arguments, PYTHONPATH="/x"), run(python, *arguments, PYTHONPATH=f"{BOOTSTRAP}:/x")
    assert (plain.returncode, hooked.returncode, hooked.stderr) == (0, 0, plain.stderr)
    assert hooked.stdout.partition("], [")[0] == plain.stdout.partition("], [")[0]
    assert "joulepath_bootstrap" in hooked.stdout


@pytest.mark.slow
def test_a_virtual_environment_is_one(python: Python, tmp_path: Path) -> None:
    if python.version < (3, 4):
        pytest.skip("Python 2 makes none")
    subprocess.run([python.path, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    within = Python(str(tmp_path / "venv/bin/python"), python.version, python.is_pypy)
    assert facts(report(within)) == facts(report(within, PYTHONPATH=""))


EMBEDDING: Final = """
#include <Python.h>
int main(int count, char **words) {
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    if (count > 2) Py_InitializeFromConfig(&config); else Py_Initialize();
    return PyRun_SimpleString(words[1]) || Py_FinalizeEx();
}
"""


@pytest.mark.slow
def test_a_program_that_embeds_python_begins_as_it_would(python: Python, tmp_path: Path) -> None:
    config = Path(os.path.realpath(python.path)).with_name("python{}.{}-config".format(*python.version))
    if python.is_pypy or python.version < (3, 8) or not config.exists():
        pytest.skip("this Python can't be embedded so, or not here")
    (tmp_path / "main.c").write_text(EMBEDDING)
    flags = subprocess.run(
        [str(config), "--includes", "--ldflags", "--embed"], capture_output=True, text=True, check=True
    )
    compiler = ["cc", "main.c", "-o", "main", *flags.stdout.split()]
    if subprocess.run(compiler, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("its library isn't here")
    for isolated in ((), ("isolated",)):
        told = []
        for path in ({}, {"PYTHONPATH": str(BOOTSTRAP)}):
            environment = {"PATH": os.environ["PATH"], "JOULEPATH_SOCKET": "/nowhere", **path}
            command = [str(tmp_path / "main"), REPORT.replace('"argv": sys.argv, ', ""), *isolated]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            assert not done.stderr
            told.append(json.loads(done.stdout))
        assert facts(told[0]) == facts(told[1])
        assert bool(told[1]["hooks"]) == (not isolated)


# the image's path


def test_the_path_of_the_image_is_what_it_would_be_without_the_pods_variable(python: Python, image: Path) -> None:
    ours = report(python, JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"))
    images = report(python, PYTHONPATH=f"{image}/first:{image}/second")
    assert facts(ours) == facts(images)
    assert ours["environment"] == f"{BOOTSTRAP}:{image}/first:{image}/second"


def test_a_child_process_has_the_path_of_the_image_once(python: Python, image: Path) -> None:
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {REPORT!r}]))"
    done = run(python, "-c", code, JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"))
    child = json.loads(done.stdout)
    assert child["path"] == report(python, PYTHONPATH=f"{image}/first:{image}/second")["path"]
    assert child["environment"] == f"{BOOTSTRAP}:{image}/first:{image}/second"
    assert child["hooks"]


@pytest.mark.parametrize("by_node", [True, False])
def test_a_pth_file_may_import_from_the_image_where_the_node_injects(
    python: Python, image: Path, by_node: bool
) -> None:
    """With volumes it can't: Python reads these files before it comes to ours."""
    base = {"PYTHONUSERBASE": str(image / "base")}
    site = Path(run(python, "-c", "import site; print(site.getusersitepackages())", **base).stdout.strip())
    site.mkdir(parents=True)
    (site / "a.pth").write_text("import in_first\n")
    injected = {"PYTHONPATH": f"{BOOTSTRAP}:{image}/first"}
    if not by_node:
        injected = {"JOULEPATH_IMAGE_PYTHONPATH_FILE": str(image / "pythonpath")}
    done = run(python, "-c", "import sys; print('in_first' in sys.modules)", **base, **injected)
    assert (done.returncode, done.stdout) == (0, f"{by_node}\n")
    assert ("No module named" in done.stderr) != by_node


@pytest.mark.slow
def test_whatever_others_have_put_into_the_path_stays(python: Python, image: Path) -> None:
    base = {"PYTHONUSERBASE": str(image / "base")}
    site = Path(run(python, "-c", "import site; print(site.getusersitepackages())", **base).stdout.strip())
    site.mkdir(parents=True)
    (site / "a.pth").write_text("import sys; sys.path += [None, 1, b'/bytes', u'/text', b'\\xff']\n")
    code = "import sys; print(sys.path, '|', [type(one).__name__ for one in sys.meta_path])"
    plain, hooked = (run(python, "-bb", "-c", code, **base, **path) for path in ({"PYTHONPATH": ""}, {}))
    assert (hooked.returncode, hooked.stderr) == (plain.returncode, plain.stderr)
    assert hooked.stdout.partition("|")[0] == plain.stdout.partition("|")[0]
    assert "/bytes" in hooked.stdout
    assert "Watch" in hooked.stdout or "PostImportHook" in hooked.stdout


def test_an_unset_path_of_the_image_changes_nothing(python: Python, image: Path) -> None:
    (image / "pythonpath").write_text("")
    told = report(python, JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"))
    assert facts(told) == facts(report(python, PYTHONPATH=""))


def test_a_file_that_was_never_written_is_nothing_to_speak_of(python: Python, tmp_path: Path) -> None:
    """As where somebody's webhook has taken out the init container that writes it."""
    missing = report(python, JOULEPATH_IMAGE_PYTHONPATH_FILE=str(tmp_path / "none"))
    assert facts(missing) == facts(report(python))


def test_a_file_that_cannot_be_read_is_said_in_one_line_and_python_runs(python: Python, tmp_path: Path) -> None:
    done = run(python, "-c", "print(1)", JOULEPATH_IMAGE_PYTHONPATH_FILE=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert len(done.stderr.splitlines()) == 1
    assert "PYTHONPATH" in done.stderr


def test_files_that_a_link_leads_to_stay_those_of_a_process_when_it_leads_elsewhere(
    python: Python, tmp_path: Path
) -> None:
    for name in ("old", "new"):
        shutil.copytree(BOOTSTRAP.parent, tmp_path / name / "joulepath_trainer")
    (tmp_path / "current").symlink_to("old")
    code = f"""if True:
        import os, sys
        os.unlink({str(tmp_path / "current")!r})
        os.symlink("new", {str(tmp_path / "current")!r})
        module = "joulepath_old_python" if "joulepath_old_python" in sys.modules else "joulepath_trainer.session"
        __import__(module)
        print(sys.modules[module].__file__)
    """
    bootstrap = str(tmp_path / "current/joulepath_trainer/bootstrap")
    done = run(python, "-c", code, PYTHONPATH=bootstrap)
    assert done.stdout.startswith(f"{tmp_path}/old/joulepath_trainer/")
    assert not done.stderr


# other tools


@pytest.mark.parametrize("where", ["pod", "image"])
def test_a_shadowed_sitecustomize_runs_and_is_the_one_that_python_knows(
    python: Python, image: Path, where: str
) -> None:
    shadowed = image / "first" / "sitecustomize.py"
    shadowed.write_text("import sys; sys.greeting = 'hello'; sys.path.append('/added')")
    if where == "image":
        done = report(python, "-B", JOULEPATH_IMAGE_PYTHONPATH_FILE=str(image / "pythonpath"))
    else:
        done = report(python, "-B", PYTHONPATH=f"{BOOTSTRAP}:{image}/first")
    assert done["sitecustomize"] == str(shadowed)
    assert done["path"][-1] == "/added"
    assert done["hooks"]


@pytest.mark.parametrize(
    "failing",
    ["raise KeyError('theirs')", "import nothing", "raise SystemExit(3)", "raise ImportError('theirs')", "1+"],
)
def test_a_shadowed_sitecustomize_that_fails_is_reported_as_python_reports_it(
    python: Python, image: Path, failing: str
) -> None:
    (image / "first" / "sitecustomize.py").write_text(failing)
    with_us = run(python, "-c", "print(1)", PYTHONPATH=f"{BOOTSTRAP}:{image}/first")
    without = run(python, "-c", "print(1)", PYTHONPATH=f"{image}/first")
    assert (with_us.returncode, with_us.stdout) == (without.returncode, without.stdout)
    if "SystemExit" in failing:  # Python shows how it came to it
        assert with_us.stderr[-30:] == without.stderr[-30:]
    else:
        assert with_us.stderr == without.stderr


def test_behind_a_sitecustomize_that_runs_no_other_ours_comes_by_usercustomize(python: Python, image: Path) -> None:
    (image / "first" / "sitecustomize.py").write_text("import sys; sys.greeting = 'hello'")
    (image / "second" / "usercustomize.py").write_text("import sys; sys.path.append('/added')")
    done = report(python, "-B", PYTHONPATH=f"{image}/first:{BOOTSTRAP}:{image}/second")
    assert done["hooks"]
    assert done["path"][1:3] == [f"{image}/first", f"{image}/second"]
    assert done["path"][-1] == "/added"
    assert done["sitecustomize"] == str(image / "first/sitecustomize.py")


def test_before_a_sitecustomize_that_moves_itself_to_the_front_children_are_led_in_as_well(
    python: Python, image: Path
) -> None:
    """As OpenTelemetry's does."""
    front = "import os; p = os.environ['PYTHONPATH'].split(':'); h = os.path.dirname(os.path.abspath(__file__))\n"
    front += "os.environ['PYTHONPATH'] = ':'.join([h] + [one for one in p if one != h])\n"
    (image / "first" / "sitecustomize.py").write_text(front)
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {REPORT!r}]))"
    done = run(python, "-c", code, PYTHONPATH=f"{BOOTSTRAP}:{image}/first")
    child = json.loads(done.stdout)
    assert child["environment"] == f"{image}/first:{BOOTSTRAP}"
    assert child["hooks"]
    assert child["path"] == report(python, PYTHONPATH=f"{image}/first")["path"]


@pytest.mark.parametrize("order", ["{tool}:{ours}", "{ours}:{tool}"])
def test_a_sitecustomize_that_runs_the_one_behind_it_runs_ours_or_is_run(
    python: Python, image: Path, order: str
) -> None:
    """As ddtrace's does."""
    (image / "first" / "sitecustomize.py").write_text(CHAINING)
    (image / "second" / "sitecustomize.py").write_text("import sys; sys.path.append('/behind')")
    path = order.format(tool=image / "first", ours=BOOTSTRAP)
    done, plain = (
        report(python, PYTHONPATH=f"{path}:{image}/second"),
        report(python, PYTHONPATH=f"{image}/first:{image}/second"),
    )
    assert facts(done) == facts(plain)
    assert done["hooks"]
    assert done["path"][-2:] == ["/behind", "/tool"]
    assert facts(report(python, PYTHONPATH=path)) == facts(report(python, PYTHONPATH=f"{image}/first"))


CHAINING: Final = """
import os, sys
here = os.path.dirname(os.path.abspath(__file__))
at, own = sys.path.index(here), sys.modules.pop("sitecustomize")
del sys.path[at]
try:
    import sitecustomize
except ImportError:
    sys.modules["sitecustomize"] = own
finally:
    sys.path.insert(at, here)
sys.path.append("/tool")
"""
