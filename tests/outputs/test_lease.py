"""The lock of an object store has one holder, also where clocks differ and machines sleep."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from fcn_cli.common import processes
from fcn_cli.common.errors import OutputLocked, OutputLost
from fcn_cli.common.processes import ProcessIdentity
from fcn_cli.common.shard import Shard
from fcn_cli.common.stores import Content
from fcn_cli.outputs import lease, lock_object
from fcn_cli.outputs.bucket_store import BucketStore
from fcn_cli.outputs.lease import Lease, LeaseTimes
from fcn_cli.outputs.lock import OutputLock

from ..conftest import wait_until
from .memory_bucket import MemoryBucket, install

LOCK = "bucket/out/.fcn.lock"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    return install(monkeypatch)


def new_lease(bucket: MemoryBucket, times: LeaseTimes | None = None) -> Lease:
    return bucket.store(times=times).lock(".fcn.lock")


def write_lock_of(bucket: MemoryBucket, process: ProcessIdentity, table: str | None) -> None:
    content = {"token": "other", "count": 1, "process_table": table, **process.as_json()}
    bucket.write(LOCK, json.dumps(content).encode())


def test_one_process_at_a_time_holds_it(bucket: MemoryBucket) -> None:
    first, second = new_lease(bucket), new_lease(bucket)
    assert first.acquire()
    assert not second.acquire()
    assert second.is_taken()
    first.release()
    assert LOCK not in bucket.objects
    assert not second.is_taken()
    assert second.acquire()
    first.check()
    second.check()
    second.release()


@pytest.mark.parametrize("skew", [-90_000, 0, 90_000])
def test_it_is_taken_over_after_its_time_by_the_stores_own_clock(bucket: MemoryBucket, skew: int) -> None:
    bucket.clock = lambda: time.time() + skew
    killed = new_lease(bucket)
    assert killed.acquire()
    bucket.clock = lambda: time.time() + skew + 590
    assert not new_lease(bucket).acquire()
    bucket.clock = lambda: time.time() + skew + 610
    second = new_lease(bucket)
    assert second.acquire()
    # No probe of the clock stays.
    assert list(bucket.objects) == [LOCK]
    killed._refresh()
    with pytest.raises(OutputLost, match="has lost its lock; after 10 minutes"):
        killed.check()
    killed.release()
    assert second._object.is_mine(second._object.read())
    second.release()


def test_two_cannot_take_it_over_at_once(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, one, two = new_lease(bucket), new_lease(bucket), new_lease(bucket)
    assert killed.acquire()
    bucket.clock = lambda: time.time() + 1000
    real, results = one._has_expired, []

    def both_look_first(found: Content) -> bool:
        expired = real(found)
        results.append(two.acquire())
        return expired

    monkeypatch.setattr(one, "_has_expired", both_look_first)
    assert not one.acquire()
    assert results == [True]
    for each in (killed, one, two):
        each.release()


def test_a_store_that_cannot_compare_and_write_in_one_step_is_asked_again(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.replaces_in_one_step = False
    times = LeaseTimes(settle=3)
    killed, one, two = new_lease(bucket), new_lease(bucket, times), new_lease(bucket, times)
    assert killed.acquire()
    bucket.clock = lambda: time.time() + 1000
    waits = []

    def another_writes(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            # It compared before the first one wrote.
            bucket.write(LOCK, two._object._content())

    monkeypatch.setattr("fcn_cli.outputs.lease.time.sleep", another_writes)
    assert not one.acquire()
    assert two._object.is_mine(two._object.read())
    bucket.clock = lambda: time.time() + 2000
    three = new_lease(bucket, times)
    assert three.acquire()
    assert waits == [3, 3]
    for each in (killed, one, two, three):
        each.release()


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = ProcessIdentity.current()
    dead = ProcessIdentity(me.pid, me.host, -1)
    table = processes.process_table()
    if table is None:
        pytest.skip("this system does not tell its tables of processes apart")
    # A container has equal numbers, and perhaps an equal name, but another table.
    for other in (None, "another boot pid:[1]"):
        write_lock_of(bucket, dead, other)
        assert not new_lease(bucket).acquire()
    write_lock_of(bucket, me, table)
    assert not new_lease(bucket).acquire()
    write_lock_of(bucket, dead, table)
    mine = new_lease(bucket)
    assert mine.acquire()
    mine.release()


def test_a_damaged_lock_expires_like_any_other(bucket: MemoryBucket) -> None:
    bucket.write(LOCK, b"\xff[")
    assert not new_lease(bucket).acquire()
    bucket.clock = lambda: time.time() + 601
    mine = new_lease(bucket)
    assert mine.acquire()
    mine.release()


def test_it_is_refreshed_while_it_is_held(bucket: MemoryBucket) -> None:
    held = new_lease(bucket, LeaseTimes(refresh=0.01))
    assert held.acquire()
    wait_until(lambda: bucket.log.count(("replace", LOCK)) > 3)
    held.check()
    held.release()
    assert LOCK not in bucket.objects
    count = len(bucket.log)
    time.sleep(0.05)
    assert len(bucket.log) == count


@pytest.mark.parametrize("lost", ["replaced", "deleted"])
def test_a_holder_notices_at_its_next_refresh_that_the_lock_is_anothers(
    bucket: MemoryBucket, lost: str
) -> None:
    store = bucket.store(times=LeaseTimes(refresh=0.01))
    held = store.lock(".fcn.lock")
    assert held.acquire()
    store.write_text("a", "before")
    if lost == "deleted":
        bucket.remove(LOCK)
    else:
        write_lock_of(bucket, ProcessIdentity(1, "other"), None)
    wait_until(lambda: held._lost)
    works: list[Callable[[], object]] = [
        lambda: store.write_text("a", "after"),
        lambda: store.write_if("b", b"after", None),
        lambda: store.remove("a"),
    ]
    for work in works:
        with pytest.raises(OutputLost):
            work()
    assert bucket.names("bucket/out")["a"] == b"before"
    held.release()
    assert (LOCK in bucket.objects) == (lost == "replaced")


def test_a_machine_that_slept_asks_before_it_writes(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket.store()
    held = store.lock(".fcn.lock")
    assert held.acquire()
    later = now_after(lock_object.now, 100_000)
    monkeypatch.setattr(lease, "now", later)
    # Nobody has taken it over.
    store.write_text("a", "still ours")
    monkeypatch.setattr(lease, "now", now_after(later, 100_000))
    write_lock_of(bucket, ProcessIdentity(1, "other"), None)
    with pytest.raises(OutputLost):
        store.write_text("a", "not ours")
    held.release()


def test_a_holder_that_cannot_reach_the_store_stops_before_others_may_begin(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket.store()
    held = store.lock(".fcn.lock")
    assert held.acquire()

    def unreachable(*_: object) -> None:
        raise ConnectionError(111, "no connection")

    monkeypatch.setattr(bucket, "replace", unreachable)
    monkeypatch.setattr(lease, "now", now_after(lock_object.now, 500))
    held.check()
    monkeypatch.setattr(lease, "now", now_after(lock_object.now, 545))
    with pytest.raises(OutputLost):
        held.check()
    held.release()


def now_after(clock: Callable[[], float], seconds: float) -> Callable[[], float]:
    return lambda: clock() + seconds


def test_an_answer_that_got_lost_costs_no_lock(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    create, replace = bucket.create, bucket.replace

    def create_twice(path: str, data: bytes) -> str | None:
        create(path, data)
        return create(path, data)

    def replace_twice(path: str, data: bytes, etag: str | None) -> str | None:
        replace(path, data, etag)
        return replace(path, data, etag)

    monkeypatch.setattr(bucket, "create", create_twice)
    monkeypatch.setattr(bucket, "replace", replace_twice)
    held = new_lease(bucket)
    assert held.acquire()
    for _ in range(3):
        assert held._refresh()
    held.check()
    held.release()
    assert not bucket.objects


def test_a_plain_run_and_shards_keep_each_other_out(bucket: MemoryBucket) -> None:
    def refused(shard: Shard | None) -> str:
        with pytest.raises(OutputLocked) as caught, OutputLock(quick(bucket), shard=shard):
            pass
        return str(caught.value)

    with OutputLock(quick(bucket)):
        assert "another run is writing there (process" in refused(None)
        assert "a run that was killed elsewhere holds it for 10 more minutes" in refused(Shard(1, 2))
    with OutputLock(quick(bucket), shard=Shard(1, 2)) as first:
        first.let_others_in()
        with OutputLock(quick(bucket), shard=Shard(2, 2)) as second:
            assert list(second.others()) == [Shard(1, 2)]
            second.let_others_in()
        assert "shard 1/2" in refused(None)
        assert "shard 1/2" in refused(Shard(1, 2))
        assert "shard 1/2" in refused(Shard(1, 3))
    assert not bucket.objects


def quick(bucket: MemoryBucket) -> BucketStore:
    store = bucket.store()
    store.poll_seconds = store.passing_seconds = 0.01
    return store
