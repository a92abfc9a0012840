"""Who may work in an output directory at the same time, and what a killed shard's files become."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from fcn_cli.common.errors import OutputLocked, SettingsMismatch
from fcn_cli.common.processes import ProcessIdentity
from fcn_cli.common.shard import Shard
from fcn_cli.outputs import lock as locks
from fcn_cli.outputs.lock import Claim, FileLock, Holder, OutputLock
from fcn_cli.outputs.output_store import LocalStore

from ..conftest import wait_until

DEAD = ProcessIdentity(2**31 - 1, ProcessIdentity.current().host)


def hold(output: Path, shard: Shard | None = None, settings: str = "") -> OutputLock:
    return OutputLock(LocalStore(output), claim=Claim(shard, settings))


def refused(output: Path, shard: Shard | None = None) -> str:
    with pytest.raises(OutputLocked) as caught, hold(output, shard):
        pass
    return str(caught.value)


def names(output: Path) -> set[str]:
    return {path.name for path in output.iterdir()}


def test_who_works_beside_whom(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with hold(out, Shard(1, 2)):
        with hold(out, Shard(2, 2)):
            assert "shard 1/2 is writing there (process" in refused(out, Shard(1, 2))
            for other in (Shard(1, 3), Shard(2, 1), None):
                assert "shard 1/2 is writing there (process" in refused(out, other)
        assert "shard 1/2 is writing there (process" in refused(out)
        assert ".fcn.lock" not in names(out)
    with hold(out):
        assert "another run is writing there (process" in refused(out, Shard(1, 2))
        assert "another run is writing there (process" in refused(out)
    with hold(out, Shard(1, 3)):
        pass
    assert names(out) == {".fcn.lock"}


def test_whoever_excludes_each_other_never_works_at_once(tmp_path: Path) -> None:
    """Threads stand for processes: a lock belongs to an open file."""
    out, store = tmp_path / "out", LocalStore(tmp_path / "out")
    (out / "masks").mkdir(parents=True)
    at_work: set[Claim] = set()
    mutex, seen, wrong = threading.Lock(), list[Claim](), list[str]()

    def work(claim: Claim) -> None:
        for _ in range(5):
            with OutputLock(LocalStore(out), 60, claim=claim):
                with mutex:
                    wrong.extend(f"{claim} beside {other}" for other in at_work if claim.excludes(other))
                    at_work.add(claim)
                    seen.append(claim)
                time.sleep(0.001)
                with mutex:
                    at_work.remove(claim)

    claims = [Claim(), Claim(Shard(1, 2)), Claim(Shard(2, 2)), Claim(Shard(1, 3))]
    threads = [threading.Thread(target=work, args=(claim,)) for claim in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert len(seen) == 20
    assert next(store.lock(Claim()).others(), None) is None


@pytest.mark.parametrize("between", ["it looked", "it took its lock"])
def test_a_lock_that_came_in_between_is_seen(
    between: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard takes its lock just when a plain run has looked, or has taken its own."""
    shard = FileLock(tmp_path, Claim(Shard(1, 2)))
    real, taken = FileLock.take, []

    def take(lock: FileLock) -> bool:
        if lock.claim.shard is None and between == "it looked":
            taken.append(real(shard))
            shard.tell(Holder.current(merging=False))
        done = real(lock)
        if lock.claim.shard is None and between == "it took its lock":
            taken.append(real(shard))
            shard.tell(Holder.current(merging=False))
        return done

    monkeypatch.setattr(FileLock, "take", take)
    assert "shard 1/2 is writing there (process" in refused(tmp_path)
    assert taken == [True]
    shard.let_go()


def test_a_merge_is_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with OutputLock(LocalStore(tmp_path), 0, waiting.append, Claim(Shard(1, 2))):
            begun.set()

    with OutputLock(LocalStore(tmp_path), merging=True):
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: waiting)
        assert not begun.is_set()
    thread.join(30)
    assert begun.is_set()
    monkeypatch.setattr(locks, "MERGE_SECONDS", 0.2)
    with OutputLock(LocalStore(tmp_path), merging=True):
        assert "is it suspended?" in refused(tmp_path, Shard(1, 2))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
def test_only_who_may_write_there_can_lock(umask: int, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / ".fcn.lock").touch(0o644)
    before = os.umask(umask)
    try:
        for output in (tmp_path / "new", old):
            with hold(output):
                mode = stat.S_IMODE((output / ".fcn.lock").stat().st_mode)
                assert mode == (0o660 if output != old and not umask & 0o020 else 0o600)
    finally:
        os.umask(before)


def test_forged_holders_keep_nobody_out(tmp_path: Path) -> None:
    for name in (".fcn.holder.json", ".fcn.holder.1-of-1000000000.json", ".fcn.holder.1-of-2.json"):
        (tmp_path / name).write_text('{"pid": 1, "host": "elsewhere", "ticks": 1, "merging": true}')
    (tmp_path / ".fcn.lock.1-of-1000000000").touch()
    began = time.monotonic()
    for shard in (None, Shard(2, 2)):
        with hold(tmp_path, shard):
            pass
    assert time.monotonic() - began < 5


def test_only_a_killed_shards_own_temporary_files_go(tmp_path: Path) -> None:
    def killed(shard: Shard, prefix: str) -> None:
        lock = FileLock(tmp_path, Claim(shard))
        lock.tell(Holder(DEAD, prefix))
        (tmp_path / f".fcn.lock.{shard.index}-of-{shard.count}").touch()

    killed(Shard(1, 2), ".fcn-7-aaaa-")
    (tmp_path / "masks").mkdir()
    mine, other = tmp_path / "masks/.fcn-7-aaaa-3.tmp", tmp_path / "masks/.fcn-7-bbbb-3.tmp"
    mine.touch()
    other.touch()
    with hold(tmp_path, Shard(2, 2)):
        assert mine.exists()
    with hold(tmp_path, Shard(1, 2)):
        assert not mine.exists()
        assert other.exists()
    killed(Shard(2, 2), ".fcn-7-bbbb-")
    with hold(tmp_path):
        assert not other.exists()
        assert not list(tmp_path.glob("*2-of-2*"))


def test_shards_at_the_same_time_have_the_same_settings(tmp_path: Path) -> None:
    """Before either has written the settings file, too."""
    with hold(tmp_path, Shard(1, 3), "a" * 16), hold(tmp_path, Shard(2, 3), "a" * 16):
        message = "shard 1/3 is using other settings there"
        with pytest.raises(SettingsMismatch, match=message), hold(tmp_path, Shard(3, 3), "b" * 16):
            pass
    with hold(tmp_path, Shard(3, 3), "b" * 16):
        pass
