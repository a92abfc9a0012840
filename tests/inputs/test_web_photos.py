"""Photos from a web server: names, identity, failures, and that nothing secret is written down."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from fcn_cli import Segmenter
from fcn_cli.inputs import remote_photos
from tests.conftest import (
    SAMPLES,
    SMALL,
    Fcn,
    Finished,
    MakePhotos,
    command,
    journal_of,
    run_process,
    tree,
)
from tests.web_server import WebServer, web_server

pytest.importorskip("aiohttp")

HERE = (*SMALL, "--workers", "0")
"""Decode in this process: no workers to start."""


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def photo(make_photos: MakePhotos) -> bytes:
    return (make_photos(["a.png"]) / "a.png").read_bytes()


def actions(dry_run: Finished) -> dict[str, str]:
    """Return the last part of each image's URL → what is planned for it."""
    lines = [line.split("\t") for line in dry_run.stdout.splitlines()]
    return {image.rpartition("/")[2].partition("?")[0]: action for action, image, *_ in lines}


@pytest.mark.long
def test_a_photo_is_fetched_named_and_done_once(fcn: Fcn, web: WebServer, tmp_path: Path) -> None:
    data = (SAMPLES / "grace_hopper.jpg").read_bytes()
    (tmp_path / "ü #1?.jpg").write_bytes(data)
    web.files["/some/ü #1?.jpg"] = data
    url = f"{web.url}/some/{quote('ü #1?.jpg')}"
    fcn("segment", "ü #1?.jpg", *HERE, "-o", "local")
    fcn("segment", url, *HERE, "-o", "out")
    assert tree(tmp_path / "out/masks") == tree(tmp_path / "local/masks")
    record = journal_of(tmp_path / "out")["ü #1?.jpg"]
    assert (record["path"], record["source"]) == (url, url)
    assert (record["size_bytes"], record["etag"]) == (len(data), hashlib.md5(data).hexdigest())
    web.requests.clear()
    fcn("segment", url, *HERE, "-o", "out")
    assert web.requests == [("HEAD", "/some/ü #1?.jpg")]


@pytest.mark.slow
@pytest.mark.long
def test_one_that_changes_is_done_again(fcn: Fcn, web: WebServer, photo: bytes) -> None:
    def action() -> str:
        return actions(fcn("segment", f"{web.url}/a.png", *SMALL, "-o", "out", "--dry-run"))["a.png"]

    web.files["/a.png"] = photo
    dates = ("Tue, 24 Nov 2026 03:00:00 GMT", "Tue, 24 Nov 2026 03:00:01 GMT")
    for before, after in (
        ({"ETag": '"1"'}, {"ETag": '"2"'}),
        ({"Last-Modified": dates[0]}, {"Last-Modified": dates[1]}),
    ):
        web.headers = before
        fcn("segment", f"{web.url}/a.png", *HERE, "-o", "out")
        assert action() == "skip"
        web.headers = after
        assert action() == "segment"
    # Where the server tells nothing, nobody knows.
    web.headers = {}
    fcn("segment", f"{web.url}/a.png", *HERE, "-o", "out")
    assert action() == "segment"


@pytest.mark.long
def test_a_signature_is_not_written_down(fcn: Fcn, web: WebServer, photo: bytes, tmp_path: Path) -> None:
    web.files["/a.png"] = web.files["/b.png"] = photo
    web.status["/b.png"] = 403
    urls = [f"{web.url}/{name}?X-Amz-Signature=5ecret&v=1\n" for name in ("a.png", "b.png")]
    (tmp_path / "list").write_text("".join(urls))
    listed = ("segment", "--files-from", "list", "--root", web.url, "-o", "out")
    said = fcn(*listed, *HERE, "-v", "--json", code=1)
    assert "access denied" in said.stderr
    assert "5ecret" not in said.stdout + said.stderr
    assert not [name for name, data in tree(tmp_path / "out").items() if b"5ecret" in data]
    assert journal_of(tmp_path / "out")["a.png"]["path"] == f"{web.url}/a.png?v=1"
    # Signed anew, it is the same photo; what was denied is tried again.
    (tmp_path / "list").write_text("".join(urls).replace("5ecret", "0ther"))
    del web.status["/b.png"]
    assert actions(fcn(*listed, *SMALL, "--dry-run")) == {"a.png": "skip", "b.png": "segment"}


@pytest.mark.long
def test_listed_photos_fail_one_by_one(fcn: Fcn, web: WebServer, photo: bytes, tmp_path: Path) -> None:
    names = ("good.png", "none.png", "down.png", "empty.png", "text.png", "deep/fine.png", "large.png")
    web.files = {f"/in/{name}": photo for name in names if name != "none.png"}
    web.files |= {"/in/empty.png": b"", "/in/text.png": b"no image", "/in/large.png": photo + bytes(50_000)}
    web.status["/in/down.png"] = 500
    (tmp_path / "list").write_text("".join(f"{web.url}/in/{name}\n" for name in (*names, "")))
    listed = ("segment", "--files-from", "list", "--root", f"{web.url}/in/", *HERE, "-o", "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_photos, "_BYTES", 0)
        done = fcn(*listed, "--max-image-pixels", "4000", code=1)
    assert "1 directory in the list" in done.stderr
    records = journal_of(tmp_path / "out")
    assert {image: (record["error"] or {}).get("kind") for image, record in records.items()} == {
        "good.png": None,
        "deep/fine.png": None,
        "none.png": "NotFound",
        "down.png": "Unreadable",
        "empty.png": "EmptyFile",
        "text.png": "NotAnImage",
        "large.png": "TooManyPixels",
    }
    web.status.clear()
    web.files["/in/none.png"] = photo
    assert actions(fcn(*listed, "--dry-run")) == {
        "good.png": "skip",
        "fine.png": "skip",
        "none.png": "segment",
        "down.png": "segment",
        # The limit is higher now, and may be what was wrong.
        "large.png": "segment",
        "empty.png": "failed",
        "text.png": "failed",
    }


def test_lists_need_a_root_that_is_above(fcn: Fcn, web: WebServer, photo: bytes, tmp_path: Path) -> None:
    web.files["/in/a.png"] = photo
    (tmp_path / "list").write_text(f"{web.url}/in/a.png\n")
    for root in ((), ("--root", "."), ("--root", f"{web.url}/other"), ("--root", "https://elsewhere/in")):
        done = fcn("segment", "--files-from", "list", *root, *SMALL, "-o", "out", code=2)
        assert "a.png: not below" in done.stderr
        assert "set --root to the URL" in done.stderr


def test_what_is_not_there_ends_the_run_before_it_begins(fcn: Fcn, web: WebServer) -> None:
    web.status["/denied.png"] = 403
    for name, text in (
        ("none.png", "none.png: there is no such file on this server"),
        ("denied.png", "denied.png: cannot be listed (access denied)"),
        ("", "web servers have no listings"),
    ):
        done = fcn("segment", f"{web.url}/{name}?sig=5ecret", *SMALL, "-o", "out", code=2)
        assert text in done.stderr
        assert "5ecret" not in done.stderr
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.long
def test_workers_fetch_and_an_overlay_fetches_again(fcn: Fcn, web: WebServer, tmp_path: Path) -> None:
    """In a process of its own: its workers must not be forked, or they would hang."""
    data = (SAMPLES / "coffee.png").read_bytes()
    names = [f"{number}.png" for number in range(4)]
    web.files = {f"/{name}": data for name in names}
    (tmp_path / "coffee.png").write_bytes(data)
    fcn("segment", "coffee.png", *HERE, "-o", "local", "--write", "masks,overlay")
    urls = [f"{web.url}/{name}" for name in names]
    run_process("segment", *urls, *SMALL, "-o", "out", "-j", "2", "--write", "masks,overlay", cwd=tmp_path)
    expected = tree(tmp_path / "local")
    made = tree(tmp_path / "out")
    for name in names:
        assert made[f"masks/{name}"] == expected["masks/coffee.png"]
        assert made[f"overlay/{Path(name).stem}.jpg"] == expected["overlay/coffee.jpg"]
    line = command("segment", urls[0], *HERE, "-o", "-")
    png = subprocess.run(line, cwd=tmp_path, stdout=subprocess.PIPE, check=True, timeout=100).stdout
    assert png == expected["masks/coffee.png"]


@pytest.mark.long
def test_others_say_that_a_photo_is_elsewhere(fcn: Fcn, web: WebServer, photo: bytes, tmp_path: Path) -> None:
    web.files["/a.png"] = photo
    url = f"{web.url}/a.png"
    fcn("segment", url, *HERE, "-o", "out", "--report")
    rows = "".join(path.read_text() for path in (tmp_path / "out/report").rglob("*.js"))
    assert "only photos on this machine are shown" in rows
    assert fcn("list", "out").stdout == f"{url}\n"
    fcn("verify", "out")
    done = fcn("export", "out", "--format", "yolo", "-o", "exported", code=1)
    assert f"{url}: not on this machine" in done.stderr
    done = fcn("segment", url, *HERE, "-o", "out", "--prune", code=2)
    assert "--prune needs a directory on this machine" in done.stderr
    done = fcn("segment", url, *HERE, "-o", "other", "--watch", code=2)
    assert "directories that exist on this machine" in done.stderr


def test_a_file_url_is_a_path(fcn: Fcn, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(photo)
    done = fcn("segment", f"file://{tmp_path}/a b.png", *SMALL, "-o", "out", "--dry-run")
    assert done.stdout == "segment\ta b.png\tnew\n"


@pytest.mark.long
def test_python_users_give_urls(web: WebServer, photo: bytes) -> None:
    web.files["/a.png"] = photo
    segmenter = Segmenter("mobilenet_v2", resize=64)
    assert np.array_equal(segmenter(f"{web.url}/a.png").labels, segmenter(photo).labels)
