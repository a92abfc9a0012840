"""A decoding worker that dies or hangs costs the image it holds, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fcn_cli.common import resources

from ..conftest import SMALL, Fcn, MakeImages, command, journal_of, need, run_line, run_process, wait_until

SLOW = """
import os, time, signal, sys
from PIL import PngImagePlugin

real = PngImagePlugin.PngImageFile.load

def load(self):
    name = os.path.basename(getattr(self.fp, "name", "") or "")
    if name.startswith("stuck"):
        open(os.path.join(os.environ["TOUCH"], name), "w").write(str(os.getpid()))
        while True:
            time.sleep(1)
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return real(self)

PngImagePlugin.PngImageFile.load = load
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Python with a PNG decoder that crashes or never returns, for files of such names."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOW)
    touch = tmp_path / "touch"
    touch.mkdir()
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{root}", "TOUCH": str(touch)}


def pid_in(path: Path, running: subprocess.Popen[str]) -> int:
    """Return the process that a stuck decoder has noted."""
    wait_until(lambda: path.exists() and path.read_text(), running)
    return int(path.read_text())


@pytest.mark.long
def test_a_worker_killed_while_it_decodes_fails_that_image_by_name(
    make_images: MakeImages, environment: dict[str, str], tmp_path: Path
) -> None:
    make_images([*(f"p{i}.png" for i in range(8)), "stuck.png", "z.png"])
    running = subprocess.Popen(
        command("segment", "made", *SMALL, "-o", "out"),
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    worker = pid_in(tmp_path / "touch/stuck.png", running)
    assert worker != running.pid
    os.kill(worker, signal.SIGKILL)
    _, errors = running.communicate(timeout=90)
    assert running.returncode == 1, errors
    assert "no mask for made/stuck.png: the decoder crashed (SIGKILL)" in errors
    assert "10 images: 9 done, 1 failed" in errors
    assert "Traceback" not in errors
    record = journal_of(tmp_path / "out")["stuck.png"]
    assert record["error"]["kind"] == "DecoderDied"
    assert record["size_bytes"] == (tmp_path / "made/stuck.png").stat().st_size


@pytest.mark.long
def test_a_stuck_decoder_fails_that_image_by_name(
    make_images: MakeImages, environment: dict[str, str], tmp_path: Path
) -> None:
    make_images(["a.png", "stuck1.png", "m.png", "stuck2.png", "z.png"])
    done = run_process(
        "segment", "made", *SMALL, "-o", "out", "--decode-timeout", "2", code=1, cwd=tmp_path, env=environment
    )
    for name in ("stuck1.png", "stuck2.png"):
        assert (
            f"no mask for made/{name}: the decoder did not finish within 2 s; a longer --decode-timeout"
            in done.stderr
        )
        # The stuck processes are gone.
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "touch" / name).read_text()), 0)
    assert "5 images: 3 done, 2 failed" in done.stderr


@pytest.mark.slow
def test_a_decoder_that_dies_costs_none_of_the_images_sent_with_its_own(
    make_images: MakeImages, environment: dict[str, str], tmp_path: Path
) -> None:
    names = [f"p{i:02}.png" for i in range(60)]
    # In one group with their neighbours, at its beginning, and two in one.
    bad = ["crash05.png", "crash16.png", "crash33.png", "crash34.png", "stuck50.png"]
    names = [next((other for other in bad if other[5:] == name[1:]), name) for name in names]
    folder = make_images([f"{i:02}/{name}" for i, name in enumerate(names)])
    done = run_process(
        "segment", folder, *SMALL, "-j", "2", "-o", "out", "--decode-timeout", "3",
        code=1, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert "60 images: 55 done, 5 failed" in done.stderr
    failed = [name for name, record in journal_of(tmp_path / "out").items() if record["status"] != "ok"]
    assert sorted(name.partition("/")[2] for name in failed) == bad


@pytest.mark.long
@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "spawn"))]
)
def test_crashing_decoders_under_every_start_method(
    method: str, make_images: MakeImages, environment: dict[str, str], tmp_path: Path
) -> None:
    make_images(["a.png", "crash1.png", "m.png", "z.png"])
    (tmp_path / "main.py").write_text(
        textwrap.dedent(f"""
            import multiprocessing, sys
            from fcn_cli.__main__ import run
            if __name__ == "__main__":
                multiprocessing.set_start_method("{method}")
                sys.exit(run(sys.argv[1:]))
        """)
    )
    line = [sys.executable, "main.py", "segment", "made", *SMALL, "-o", "out"]
    done = run_line(line, code=1, cwd=tmp_path, env=environment)
    assert "no mask for made/crash1.png: the decoder crashed (SIGSEGV)" in done.stderr
    assert "4 images: 3 done, 1 failed" in done.stderr


@pytest.mark.slow
def test_a_tiny_dev_shm_is_no_matter(make_images: MakeImages, tmp_path: Path) -> None:
    need("unshare")
    make_images([f"p{i}.png" for i in range(6)], size=(900, 800))
    isolated = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=64k fcn-shm /dev/shm && exec "$@"',
        "sh",
    ]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small /dev/shm here")
    line = command("segment", "made", "--backbone", "efficientnet_lite0", "--resize", "none", "-o", "out")
    done = run_line([*isolated, *line], cwd=tmp_path)
    assert "6 done, 0 failed" in done.stderr


@pytest.mark.filterwarnings("error:This DataLoader")
def test_more_workers_than_cpus_are_the_users_choice(fcn: Fcn, make_images: MakeImages) -> None:
    names = [f"{number}.png" for number in range(resources.affinity() + 1)]
    fcn("segment", make_images(names), *SMALL, "-j", str(len(names)), "-o", "out")


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(
    make_images: MakeImages, environment: dict[str, str], tmp_path: Path
) -> None:
    make_images(["stuck.png"])
    running = subprocess.Popen(command("segment", "made", *SMALL), cwd=tmp_path, env=environment, text=True)
    worker = pid_in(tmp_path / "touch/stuck.png", running)
    running.kill()
    running.wait()
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), seconds=10)


@pytest.mark.long
def test_nothing_natives_print_reaches_stderr(make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png"])
    # libtiff complains of this on its own.
    good = (folder / "a.png").read_bytes()
    (folder / "odd.tif").write_bytes(b"II*\0" + b"\xff" * 64)
    (folder / "other.png").write_bytes(good[:40] + b"\0" * 20 + good[60:])
    done = run_process("segment", "made", *SMALL, "-q", code=1, cwd=tmp_path)
    assert all(line.startswith("fcn: no mask for") for line in done.stderr.splitlines())
    assert json.dumps(done.stdout) == '""'


@pytest.mark.parametrize("output", ["out", "one.png"])
def test_no_more_processes(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    image = next(make_images(["a.png"]).iterdir())

    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refused)
    errors = fcn("segment", image, *SMALL, "-o", output, code=2).stderr
    assert errors.endswith(
        "fcn: cannot start decoding workers (Resource temporarily unavailable); fewer --workers may help\n"
    )
