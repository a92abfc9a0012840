"""Who may work in an output directory at the same time, and what a killed shard's files become."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fcn_cli.common.errors import OutputLocked, SettingsMismatch
from fcn_cli.common.processes import ProcessIdentity
from fcn_cli.common.shard import Shard
from fcn_cli.outputs.holder import Holder
from fcn_cli.outputs.lock import OutputLock
from fcn_cli.outputs.output_store import LocalStore
from fcn_cli.outputs.settings import LabelSettings, RequestedSettings
from fcn_cli.runs.merging import begin_shard

from ..conftest import wait_until


def refused(output: Path, shard: Shard | None = None) -> str:
    with pytest.raises(OutputLocked) as caught, OutputLock(output, shard=shard):
        pass
    return str(caught.value)


def test_who_works_beside_whom(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with OutputLock(out, shard=Shard(1, 2)) as first:
        first.let_others_in()
        with OutputLock(out, shard=Shard(2, 2)) as second:
            assert list(second.others()) == [Shard(1, 2)]
            second.let_others_in()
            assert "shard 1/2 is writing there" in refused(out, Shard(1, 2))
            for other in (Shard(1, 3), Shard(2, 1), None):
                assert "shard 1/2 is writing there" in refused(out, other)
        assert "shard 1/2 is writing there" in refused(out)
        first.keep_others_out()
        assert not list(first.others())
    with OutputLock(out):
        assert "another run is writing there" in refused(out, Shard(1, 2))
    with OutputLock(out, shard=Shard(1, 3)):
        pass
    assert [path.name for path in out.iterdir()] == [".fcn.lock"]


def test_a_shard_waits_for_a_merge(tmp_path: Path) -> None:
    merging = OutputLock(tmp_path)
    waiting: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with OutputLock(tmp_path, 0, waiting.append, Shard(1, 2)):
            begun.set()

    with merging:
        merging.announce(merging=True)
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: waiting)
        assert not begun.is_set()
    thread.join(30)
    assert begun.is_set()


def test_only_a_killed_shards_own_temporary_files_go(tmp_path: Path) -> None:
    dead = ProcessIdentity(2**31 - 1, ProcessIdentity.current().host)
    Holder(dead, ".fcn-7-aaaa-").save(LocalStore(tmp_path), Shard(1, 2))
    (tmp_path / ".fcn.lock.1-of-2").touch()
    (tmp_path / "masks").mkdir()
    mine, other = tmp_path / "masks/.fcn-7-aaaa-3.tmp", tmp_path / "masks/.fcn-7-bbbb-3.tmp"
    mine.touch()
    other.touch()
    with OutputLock(tmp_path, shard=Shard(2, 2)):
        assert mine.exists()
    with OutputLock(tmp_path, shard=Shard(1, 2)):
        assert not mine.exists()
        assert other.exists()
    Holder(dead, ".fcn-7-bbbb-").save(LocalStore(tmp_path), Shard(2, 2))
    (tmp_path / ".fcn.lock.2-of-2").touch()
    with OutputLock(tmp_path):
        assert not other.exists()
        assert not list(tmp_path.glob("*2-of-2*"))


def test_shards_at_the_same_time_have_the_same_settings(tmp_path: Path) -> None:
    """Before either has written the settings file, too."""

    def settings(resize: int) -> RequestedSettings:
        return RequestedSettings(LabelSettings("mobilenet_v2", "0", resize, "auto", "auto", None))

    with OutputLock(tmp_path, shard=Shard(1, 3)) as first:
        begin_shard(first, settings(64), overwrite=False)
        with OutputLock(tmp_path, shard=Shard(2, 3)) as second:
            begin_shard(second, settings(64), overwrite=False)
            with (
                pytest.raises(SettingsMismatch, match="shard 1/3 works there with other settings"),
                OutputLock(tmp_path, shard=Shard(3, 3)) as third,
            ):
                begin_shard(third, settings(32), overwrite=True)
