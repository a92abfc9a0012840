"""The lock of an object store has one holder, also where clocks differ and machines sleep."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

from fcn_cli.cluster.shared_output import OpenedOutput, SharedOutput
from fcn_cli.common import files, processes
from fcn_cli.common.errors import OutputLocked, OutputLost
from fcn_cli.common.processes import ProcessIdentity
from fcn_cli.common.shard import Shard
from fcn_cli.outputs import lease
from fcn_cli.outputs.bucket_store import BucketStore
from fcn_cli.outputs.lease import Lease, LeaseTimes
from fcn_cli.outputs.lock import Claim, Holder, OutputLock

from ..conftest import wait_until
from .memory_bucket import MemoryBucket, install

LOCK = "bucket/out/.fcn.lock"
SETTINGS = "0123456789abcdef"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    return install(monkeypatch)


def new_lease(bucket: MemoryBucket, times: LeaseTimes | None = None) -> Lease:
    return bucket.store(times=times).lock(Claim())


def write_lock_of(
    bucket: MemoryBucket, process: ProcessIdentity, table: str | None, name: str = f"{LOCK}.1"
) -> None:
    content = {"token": "other", "count": 1, "process_table": table, "works": True, **process.as_json()}
    bucket.write(name, json.dumps(content).encode())


def sizes(bucket: MemoryBucket) -> dict[str, bool]:
    """Return the locks, and whether somebody holds them."""
    return {
        path.removeprefix("bucket/out/.fcn.lock"): bool(data) for path, (data, _) in bucket.objects.items()
    }


def test_one_process_at_a_time_holds_it(bucket: MemoryBucket) -> None:
    first, second = new_lease(bucket), new_lease(bucket)
    assert first.take()
    assert not second.take()
    assert [held.claim for held in second.others()] == [Claim()]
    first.let_go()
    assert sizes(bucket) == {".1": False}
    assert not list(second.others())
    assert second.take()
    first.check()
    second.check()
    second.let_go()
    # No number comes twice, and one object stays.
    assert sizes(bucket) == {".2": False}


@pytest.mark.parametrize("skew", [-90_000, 0, 90_000])
def test_it_is_taken_over_after_its_time_by_the_stores_own_clock(bucket: MemoryBucket, skew: int) -> None:
    bucket.clock = lambda: time.time() + skew
    killed = new_lease(bucket)
    assert killed.take()
    bucket.clock = lambda: time.time() + skew + 590
    assert not new_lease(bucket).take()
    bucket.clock = lambda: time.time() + skew + 610
    second = new_lease(bucket)
    assert second.take()
    # No probe of the clock stays, nor what was taken over.
    assert sizes(bucket) == {".2": True}
    killed._refresh()
    with pytest.raises(OutputLost, match="has lost its lock: it could not renew it for 10 minutes"):
        killed.check()
    killed.let_go()
    second.check()
    assert second._refresh()
    second.let_go()


def test_two_cannot_take_it_over_at_once(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, one, two = new_lease(bucket), new_lease(bucket), new_lease(bucket)
    assert killed.take()
    bucket.clock = lambda: time.time() + 1000
    real, results = one._follow, []

    def both_look_first(*arguments: object) -> int | None:
        results.append(two.take())
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(one, "_follow", both_look_first)
    assert not one.take()
    assert results == [True]
    for each in (killed, one, two):
        each.let_go()


def test_a_number_that_is_behind_is_given_up(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that slept between its look and its write creates a number that was used and removed."""
    late, others = new_lease(bucket), [new_lease(bucket) for _ in range(3)]
    real, held = late._follow, []

    def meanwhile_others_work(*arguments: object) -> int | None:
        for other in others[:2]:
            assert other.take()
            other.let_go()
        held.append(others[2].take())
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(late, "_follow", meanwhile_others_work)
    assert not late.take()
    assert held == [True]
    assert sizes(bucket) == {".3": True}
    others[2].check()
    others[2].let_go()


@pytest.mark.parametrize("moment", ["before the number", "after it"])
def test_a_holder_that_slept_and_one_that_takes_over_never_both_go_on(
    moment: str, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept, taker = new_lease(bucket), new_lease(bucket)
    assert slept.take()
    slept._refreshed -= 1000
    bucket.clock = lambda: time.time() + 1000
    create, refreshed = bucket.create, []

    def wakes(path: str, data: bytes) -> str | None:
        if moment == "before the number":
            refreshed.append(slept._refresh())
        etag = create(path, data)
        if moment == "after it":
            refreshed.append(slept._refresh())
        return etag

    monkeypatch.setattr(bucket, "create", wakes)
    assert not taker.take()
    monkeypatch.setattr(bucket, "create", create)
    assert refreshed == [moment == "before the number"]
    if moment == "after it":
        with pytest.raises(OutputLost):
            slept.check()
    slept.let_go()


def test_what_a_holder_writes_late_changes_nothing(bucket: MemoryBucket) -> None:
    hung, successor = new_lease(bucket), new_lease(bucket)
    assert hung.take()
    late = hung._content()
    bucket.clock = lambda: time.time() + 1000
    assert successor.take()
    bucket.write(f"{LOCK}.1", late)
    assert successor._refresh()
    successor.check()
    assert [held.claim for held in new_lease(bucket).others()] == [Claim()]
    successor.let_go()
    third = new_lease(bucket)
    assert third.take()
    assert sizes(bucket) == {".3": True}
    third.let_go()
    hung.let_go()


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(bucket: MemoryBucket) -> None:
    me = ProcessIdentity.current()
    dead = ProcessIdentity(me.pid, me.host, -1)
    table = processes.process_table()
    if table is None:
        pytest.skip("this system does not tell its tables of processes apart")
    # A container has equal numbers, and perhaps an equal name, but another table.
    for other in (None, "another boot pid:[1]"):
        write_lock_of(bucket, dead, other)
        assert not new_lease(bucket).take()
    write_lock_of(bucket, me, table)
    assert not new_lease(bucket).take()
    write_lock_of(bucket, dead, table)
    mine = new_lease(bucket)
    assert mine.take()
    mine.let_go()


@pytest.mark.parametrize("name", [LOCK, f"{LOCK}.1-of-2"])
def test_a_lock_of_0_2_counts(name: str, bucket: MemoryBucket) -> None:
    content = {"token": "x", "count": 7, "process_table": "elsewhere", "pid": 7, "host": "h", "ticks": 1}
    bucket.write(name, json.dumps(content).encode())
    bucket.write("bucket/out/.fcn.holder.json", b"{}")
    bucket.write("bucket/out/.fcn.clock-of-a-killed-run", b"")
    with pytest.raises(OutputLocked, match="process 7 on h"), OutputLock(quick(bucket)):
        pass
    bucket.clock = lambda: time.time() + 601
    with OutputLock(quick(bucket)):
        assert name not in bucket.objects
    assert not any(sizes(bucket).values())
    assert all(path.startswith(LOCK) for path in bucket.objects)


def test_a_damaged_lock_expires_like_any_other(bucket: MemoryBucket) -> None:
    bucket.write(f"{LOCK}.1", b"\xff[")
    assert not new_lease(bucket).take()
    bucket.clock = lambda: time.time() + 601
    mine = new_lease(bucket)
    assert mine.take()
    mine.let_go()


def test_it_is_refreshed_while_it_is_held(bucket: MemoryBucket) -> None:
    held = new_lease(bucket, LeaseTimes(refresh=0.01))
    assert held.take()
    wait_until(lambda: bucket.log.count(("put", f"{LOCK}.1")) > 3)
    held.check()
    held.let_go()
    assert sizes(bucket) == {".1": False}
    count = len(bucket.log)
    time.sleep(0.05)
    assert len(bucket.log) == count


@pytest.mark.parametrize("lost", ["taken over", "replaced", "deleted"])
def test_a_holder_notices_at_its_next_refresh_that_the_lock_is_anothers(
    bucket: MemoryBucket, lost: str
) -> None:
    store = bucket.store(times=LeaseTimes(refresh=0.01))
    held = store.lock(Claim())
    assert held.take()
    store.write_text("a", "before")
    if lost == "deleted":
        bucket.remove(f"{LOCK}.1")
    else:
        number = 1 if lost == "replaced" else 2
        write_lock_of(bucket, ProcessIdentity(1, "other"), None, f"{LOCK}.{number}")
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
    before = sizes(bucket)
    held.let_go()
    assert sizes(bucket) == before


def test_actors_stop_writing_after_the_driver_has_lost_its_lock(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OutputLock(quick(bucket)) as driver:
        nonce = SharedOutput.of_driver(driver.output).nonce
        actor = OpenedOutput(bucket.store(), nonce)
        assert actor.is_held()
        monkeypatch.setattr(time, "monotonic", now_after(time.monotonic, 31))
        actor.check()
        bucket.clock = lambda: time.time() + 1000
        successor = new_lease(bucket)
        assert successor.take()
        monkeypatch.setattr(time, "monotonic", now_after(time.monotonic, 31))
        with pytest.raises(OutputLost, match="an actor stops writing there"):
            actor.check()
        successor.tell(Holder(ProcessIdentity(1, "other"), ".fcn-1-aaaa-"))
        with pytest.raises(OutputLost):
            actor.check()
        successor.let_go()
    assert files.temporary_prefix() == nonce


def test_a_machine_that_slept_asks_before_it_writes(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket.store()
    held = store.lock(Claim())
    assert held.take()
    later = now_after(lease.now, 100_000)
    monkeypatch.setattr(lease, "now", later)
    # Nobody has taken it over.
    store.write_text("a", "still ours")
    monkeypatch.setattr(lease, "now", now_after(later, 100_000))
    write_lock_of(bucket, ProcessIdentity(1, "other"), None, f"{LOCK}.2")
    with pytest.raises(OutputLost):
        store.write_text("a", "not ours")
    held.let_go()


def test_a_holder_that_cannot_reach_the_store_stops_before_others_may_begin(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket.store()
    held = store.lock(Claim())
    assert held.take()

    def unreachable(*_: object) -> None:
        raise ConnectionError(111, "no connection")

    monkeypatch.setattr(bucket, "write", unreachable)
    monkeypatch.setattr(lease, "now", now_after(lease.now, 500))
    held.check()
    monkeypatch.setattr(lease, "now", now_after(lease.now, 45))
    with pytest.raises(OutputLost):
        held.check()
    held.let_go()


def now_after(clock: Callable[[], float], seconds: float) -> Callable[[], float]:
    return lambda: clock() + seconds


def test_an_answer_that_got_lost_costs_no_lock(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    create = bucket.create

    def create_twice(path: str, data: bytes) -> str | None:
        create(path, data)
        return create(path, data)

    monkeypatch.setattr(bucket, "create", create_twice)
    held = new_lease(bucket)
    assert held.take()
    for _ in range(3):
        assert held._refresh()
    held.check()
    held.let_go()
    assert sizes(bucket) == {".1": False}


def test_a_plain_run_and_shards_keep_each_other_out(bucket: MemoryBucket) -> None:
    def refused(shard: Shard | None) -> str:
        with pytest.raises(OutputLocked) as caught, hold(bucket, shard):
            pass
        return str(caught.value)

    with hold(bucket):
        assert "another run is writing there (process" in refused(None)
        assert "a run that was killed elsewhere holds it for 10 more minutes" in refused(Shard(1, 2))
    with hold(bucket, Shard(1, 2)), hold(bucket, Shard(2, 2)):
        for other in (None, Shard(1, 2), Shard(1, 3)):
            assert "shard 1/2 is writing there (process" in refused(other)
    assert not any(sizes(bucket).values())


def test_an_expired_shard_is_deposed_by_whoever_works_in_its_stead(bucket: MemoryBucket) -> None:
    slept = bucket.store().lock(Claim(Shard(1, 2), SETTINGS))
    assert slept.take()
    bucket.clock = lambda: time.time() + 1000
    with hold(bucket):
        assert not slept._refresh()
        with pytest.raises(OutputLost):
            slept.check()


def test_shards_begin_with_a_constant_number_of_requests(bucket: MemoryBucket) -> None:
    """However many there are, and all at once."""
    requests = {}
    for count in (4, 32):
        bucket.objects.clear()
        before = bucket.requests
        at_work = threading.Barrier(count)
        failed: list[BaseException] = []

        def work(
            shard: Shard, at_work: threading.Barrier = at_work, failed: list[BaseException] = failed
        ) -> None:
            try:
                with hold(bucket, shard):
                    at_work.wait(30)
            except BaseException as error:  # noqa: BLE001 - shown below
                failed.append(error)

        threads = [threading.Thread(target=work, args=(shard,)) for shard in Shard(1, count).all()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failed
        requests[count] = (bucket.requests - before) / count
    assert requests[32] == requests[4] < 12


def hold(bucket: MemoryBucket, shard: Shard | None = None) -> OutputLock:
    return OutputLock(quick(bucket), claim=Claim(shard, SETTINGS if shard is not None else ""))


def quick(bucket: MemoryBucket) -> BucketStore:
    store = bucket.store()
    store.poll_seconds = store.passing_seconds = 0.01
    return store
