"""Run the real command line on real files; the network is the small bundled one unless a test needs more."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from fcn_cli.__main__ import run
from fcn_cli.common import stores
from fcn_cli.common.signals import ENDING_SIGNALS
from fcn_cli.models.request import ModelRequest
from fcn_cli.models.weights import LoadedModel

if TYPE_CHECKING:
    from .cluster.running import RayCluster
    from .s3_server import S3Server

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # One CPU for each of the workers, and for what they start: two processes' OpenMP threads on the same
    # CPUs wait for each other most of the time.
    _cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cpus[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(_cpus)]})

for _number in ENDING_SIGNALS:
    # Started by nohup or in the background of a script, commands would ignore what tests send them.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

SAMPLES = Path(__file__).parent.parent / "sample_images"
PREVIEW = ("--backbone", "efficientnet_lite0")
SMALL = (*PREVIEW, "--resize", "64")
"""Fast settings for tests that do not look at what the network sees."""

# Each command that a test starts would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says more about the machine than about the code.
settings.register_profile("fcn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fcn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--official-weights",
        action="store_true",
        help="fetch the official weights (350 MB) for test_official_weights.py, which else has stand-ins",
    )


@dataclass
class Finished:
    code: int
    stdout: str
    stderr: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


class Fcn(Protocol):
    def __call__(self, *arguments: str | Path, code: int | None = 0, cwd: Path | None = None) -> Finished: ...


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        # Unbuffered streams are rare outside of containers, and hide what buffers do.
        if name.startswith("FCN_") or name == "PYTHONUNBUFFERED":
            monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "torch_home"))
    # Where one test has used an object store in this process, the next one may fork again.
    monkeypatch.setattr(stores, "_file_systems", {})


@pytest.fixture
def fcn(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fcn:
    """Run the entry point in this process; fail on an unexpected exit code (None: any) or a traceback."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path, code: int | None = 0, cwd: Path | None = None) -> Finished:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            if cwd is not None:
                patch.chdir(cwd)
            got = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return _checked(Finished(got, out, err), code)

    return call


_TABLE = re.compile(r"class +images +pixels +share|\S.* +[\d,]+ +[\d,]+ +\d+\.\d%")


def stray_lines(stderr: str) -> list[str]:
    """Return lines on stderr that are neither a message nor a row of the table of classes."""
    lines = stderr.splitlines()
    return [line for line in lines if not line.startswith("fcn: ") and not _TABLE.fullmatch(line)]


def untimed(stderr: str) -> str:
    """Return lines of messages without their time of day."""
    return re.sub(r"^\d{4}-\d\d-\d\dT[\d:+-]+ fcn: ", "fcn: ", stderr, flags=re.MULTILINE)


def _checked(finished: Finished, code: int | None) -> Finished:
    finished.stderr = untimed(finished.stderr)
    assert code in {None, finished.code}, (
        f"exit code {finished.code}, not {code}\n{finished.stdout}\n{finished.stderr}"
    )
    assert "Traceback" not in finished.stderr
    return finished


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "fcn_cli", *map(str, arguments)]


def run_process(*arguments: str | Path, code: int = 0, cwd: Path | None = None, **options: Any) -> Finished:
    """Run the command in a process of its own."""
    return run_line(command(*arguments), code=code, cwd=cwd, **options)


def run_line(
    line: Sequence[str | Path], *, code: int | None = 0, cwd: Path | None = None, **options: Any
) -> Finished:
    """Run a whole command line that has `command` in it."""
    done = subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=150, check=False, **options)
    return _checked(Finished(done.returncode, done.stdout, done.stderr), code)


def wait_until(
    happened: Callable[[], object], running: subprocess.Popen[str] | None = None, seconds: float = 60
) -> None:
    """Wait for a file, a journal line, a process; fail when `running` ends before, or time is up."""
    deadline = time.monotonic() + seconds
    while not happened():
        if running is not None:
            assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def start_and_wait_for_records(
    cwd: Path, count: int, images: str = "made", *, line: Sequence[str] = (), **options: Any
) -> subprocess.Popen[str]:
    """Start a run into ``out``, of a folder of images or by a line; return when its journal has records."""
    running = subprocess.Popen(
        line or command("segment", images, *SMALL, "-o", "out"),
        cwd=cwd,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        **options,
    )
    journal = cwd / "out/manifest.jsonl"
    wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= count, running)
    return running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the sample images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.jpg"):
        shutil.copy(SAMPLES / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Return a Ray cluster of one node with 2 CPUs, for all tests of a session; they are slow ones."""
    from .cluster.running import running_cluster

    with running_cluster(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@pytest.fixture(scope="session")
def running_s3() -> Iterator[S3Server]:
    """Return a real S3 server on loopback, for all tests of a session; they are slow ones."""
    from .s3_server import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def s3(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A server with two empty buckets, ``photos`` and ``results``, that this process and its children use."""
    from .s3_server import reset

    reset(running_s3)
    for name in ("photos", "results"):
        running_s3.client.create_bucket(Bucket=name)
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    return running_s3


MakeImages = Callable[..., Path]


@pytest.fixture
def make_images(tmp_path: Path) -> MakeImages:
    """Make a folder of small, different images, cut from the samples."""

    def make(names: Sequence[str], folder: str = "made", size: tuple[int, int] = (60, 48)) -> Path:
        with Image.open(SAMPLES / "astronaut.png") as opened:
            whole = opened.convert("RGB")
        for number, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            left, top = 7 * number % 300, 11 * number % 300
            whole.crop((left, top, left + size[0] + number % 3, top + size[1])).save(path)
        return tmp_path / folder

    return make


# A PNG decoder that says when it has a file of such a name open, and waits for leave.
HELD = """
import os, time
from PIL import PngImagePlugin
real = PngImagePlugin.PngImageFile.load
def load(self):
    name = os.path.basename(getattr(self.fp, "name", "") or "")
    if name.startswith("held"):
        touch = os.environ["TOUCH"]
        open(os.path.join(touch, "opened"), "w").close()
        while not os.path.exists(os.path.join(touch, "go")):
            time.sleep(0.005)
    return real(self)
PngImagePlugin.PngImageFile.load = load
"""


def python_with(code: str, folder: Path) -> dict[str, str]:
    """Return an environment in which Python starts by running some code."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(site), str(Path(__file__).parent.parent)])
    return {**os.environ, "PYTHONPATH": path, "TOUCH": str(folder)}


def need(tool: str) -> None:
    """Skip a test on a machine without a program it needs."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")


def run_on_a_small_disk(line: Sequence[str], cwd: Path, kilobytes: int = 200, **options: Any) -> Finished:
    """Run a command line whose ``out`` is a small disk; or skip.

    Temporary files, and other sizes than the journal says, are a failure. ``copy`` has what is left.
    """
    need("unshare")
    (cwd / "out").mkdir()
    script = (
        f"mount -t tmpfs -o size={kilobytes}k fcn-full out || exit 99\n"
        '"$@"; code=$?; find out -name "*.tmp" | grep -q . && exit 98; cp -r out copy; exit $code'
    )
    whole = ["unshare", "--mount", "sh", "-c", script, "sh", *line]
    done = run_line(whole, code=None, cwd=cwd, **options)
    refused = "unshare failed", "Operation not permitted"
    if done.code == 99 or any(text in done.stderr for text in refused):
        pytest.skip("cannot mount a small disk here")
    for record in journal_of(cwd / "copy").values():
        for name, size in zip(record["outputs"], record["output_bytes"], strict=True):
            assert (cwd / "copy" / name).stat().st_size == size
    return done


def without_roots_rights(folder: Path) -> list[str]:
    """Return what to put before a command so that file modes hold for it, below `folder`; or skip."""
    if os.geteuid() != 0:
        return []
    need("setpriv")
    folder.chmod(0o755)
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    secret = folder / "secret"
    secret.touch(mode=0)
    probe = subprocess.run([*prefix, "cat", secret], capture_output=True, check=False)
    secret.unlink()
    if probe.returncode == 0 or b"Permission denied" not in probe.stderr:
        pytest.skip("cannot give up root's right to read everything here")
    return prefix


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def preview_network() -> LoadedModel:
    """Return the bundled network, loaded."""
    model = ModelRequest("efficientnet_lite0").resolve()
    return model.load(model.weights_file())


def journal_of(output: Path) -> dict[str, dict[str, Any]]:
    """Return the last record of each image."""
    records = map(json.loads, (output / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return {record["image"]: record for record in map(exact_names, records)}


def exact_names(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the names of its files as the system has them, UTF-8 or not."""

    def name(data: str) -> str:
        return os.fsdecode(base64.b64decode(data))

    exact: dict[str, Any] = {
        key: name(record[f"{key}_bytes"]) for key in ("image", "path") if f"{key}_bytes" in record
    }
    if "output_names_bytes" in record:
        exact["outputs"] = [name(data) for data in record["output_names_bytes"]]
    return {**record, **exact}
