"""Images from a web server: names, identity, failures, and that nothing secret is written down."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest

from fcn_cli import Segmenter
from fcn_cli.common import limits
from tests.conftest import (
    SAMPLES,
    SMALL,
    Fcn,
    Finished,
    MakeImages,
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
def content(make_images: MakeImages) -> bytes:
    return (make_images(["a.png"]) / "a.png").read_bytes()


def actions(dry_run: Finished) -> dict[str, str]:
    """Return the last part of each image's URL → what is planned for it."""
    lines = [line.split("\t") for line in dry_run.stdout.splitlines()]
    return {image.rpartition("/")[2].partition("?")[0]: action for action, image, *_ in lines}


@pytest.mark.long
def test_an_image_is_fetched_named_and_done_once(fcn: Fcn, web: WebServer, tmp_path: Path) -> None:
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
def test_one_that_changes_is_done_again(fcn: Fcn, web: WebServer, content: bytes) -> None:
    def action() -> str:
        return actions(fcn("segment", f"{web.url}/a.png", *SMALL, "-o", "out", "--dry-run"))["a.png"]

    web.files["/a.png"] = content
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
def test_a_signature_is_not_written_down(fcn: Fcn, web: WebServer, content: bytes, tmp_path: Path) -> None:
    web.files["/a.png"] = web.files["/b.png"] = content
    web.status["/b.png"] = 403
    secrets = "X-Amz-Signature=5ecret&apikey=5ecret&access_token=5ecret&v=1&note=5ecret2#5ecret"
    urls = [f"{web.url}/{name}?{secrets}\n" for name in ("a.png", "b.png")]
    (tmp_path / "list").write_text("".join(urls))
    listed = ("segment", "--files-from", "list", "--root", web.url, "-o", "out")
    assert "5ecret" not in str(fcn(*listed, *SMALL, "--dry-run", "--json"))
    said = fcn(*listed, *HERE, "-v", "--json", "--log-file", "log", code=1)
    assert "access denied" in said.stderr
    assert "5ecret" not in said.stdout + said.stderr + (tmp_path / "log").read_text()
    assert not [name for name, data in tree(tmp_path / "out").items() if b"5ecret" in data]
    note = hashlib.sha256(b"5ecret2").hexdigest()[:16]
    assert journal_of(tmp_path / "out")["a.png"]["path"] == f"{web.url}/a.png?v=1&note=~{note}"
    # Signed anew, it is the same image; what was denied is tried again.
    (tmp_path / "list").write_text("".join(urls).replace("=5ecret&", "=0ther&"))
    del web.status["/b.png"]
    assert actions(fcn(*listed, *SMALL, "--dry-run")) == {"a.png": "skip", "b.png": "segment"}


@pytest.mark.long
def test_listed_images_fail_one_by_one(fcn: Fcn, web: WebServer, content: bytes, tmp_path: Path) -> None:
    names = ("good.png", "none.png", "down.png", "empty.png", "text.png", "deep/fine.png", "large.png")
    web.files = {f"/in/{name}": content for name in names if name != "none.png"}
    web.files |= {"/in/empty.png": b"", "/in/text.png": b"no image", "/in/large.png": content + bytes(50_000)}
    web.status["/in/down.png"] = 500
    (tmp_path / "list").write_text("".join(f"{web.url}/in/{name}\n" for name in (*names, "")))
    listed = ("segment", "--files-from", "list", "--root", f"{web.url}/in/", *HERE, "-o", "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "IMAGE_BYTES", 0)
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
    web.files["/in/none.png"] = content
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


@pytest.mark.long
def test_names_that_no_file_can_have_fail_one_by_one(
    fcn: Fcn, web: WebServer, content: bytes, tmp_path: Path
) -> None:
    """Each name stands in a URL with its own escapes; nothing is lost and nothing is written elsewhere."""
    fine = ("good.png", "line%0Aend.png", "esc%1B[31m.png", "in a folder/%20.png", "%25%32%65.png")
    refused = ("a%00b.png", "%00/c.png", "..%2F..%2Fd.png", "%2e%2e/e.png", "x%2F%2Fy.png", "f%2F..%2Fg.png")
    too_long = f"{'%41' * 400}.png"
    urls = [f"{web.url}/in/{name}" for name in (*fine, *refused, too_long)]
    web.files = {unquote(url.removeprefix(web.url)): content for url in urls}
    (tmp_path / "list").write_text("".join(f"{url}\n" for url in urls))
    listed = ("segment", "--files-from", "list", "--root", f"{web.url}/in", *HERE, "-o", "out")
    before = set(tree(tmp_path))
    done = fcn(*listed, "--json", "-v", code=1)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == len(urls)
    assert {record["path"] for record in records if record["status"] == "ok"} == set(urls[: len(fine)])
    assert {r["error"]["kind"] for r in records if r["error"]} == {"OutputRefused"}
    assert "no file can have this name" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    written = {name for name in tree(tmp_path) if name not in before and not name.startswith("out/")}
    assert not written
    masks = {name for name in tree(tmp_path / "out") if name.startswith("masks/")}
    assert masks == {f"masks/{unquote(name)}" for name in fine}
    # The journal holds them all: what is done is not done again.
    assert len(journal_of(tmp_path / "out")) == len(urls)
    assert sorted(actions(fcn(*listed, "--dry-run")).values()).count("skip") == len(fine)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/a.png",
        "http://127.0.0.1:port/a.png",
        "http://[::1/a.png",
        "http://[zz]/a.png",
        "http://:80/a.png",
        "http://a b/a.png",
        f"http://{'h' * 70}.example/a.png",
        "http://\u2100.example/a.png",
        "http://a..b/a.png",
    ],
)
def test_an_address_that_is_none_is_one_clear_line(fcn: Fcn, url: str, tmp_path: Path) -> None:
    done = fcn("segment", url, *SMALL, "-o", "out", code=2)
    assert len(done.stderr.splitlines()) == 1
    assert re.search("not a valid address|has no server|no connection", done.stderr)
    (tmp_path / "list").write_text(f"{url}\n")
    root = url.rpartition("/")[0]
    assert fcn("segment", "--files-from", "list", "--root", root, *HERE, "-o", "out", code=None).code in {
        1,
        2,
    }


@pytest.mark.long
def test_no_image_is_larger_than_the_limit_whatever_its_server_says(
    fcn: Fcn, web: WebServer, content: bytes, tmp_path: Path
) -> None:
    """Without a length, with a wrong one, or compressed a thousand times: at most the limit is read."""
    many = content + bytes(64 << 20)
    told = {
        "untold.png": {},
        "compressed.png": {"Content-Encoding": "gzip"},
        "long.png": {"Content-Length": str(len(content) + 100)},
        "short.png": {"Content-Length": str(len(content) - 100)},
        "good.png": {},
    }
    web.untold = {f"/{name}": headers for name, headers in told.items()}
    web.files = {f"/{name}": content for name in told}
    web.files |= {"/untold.png": many, "/compressed.png": gzip.compress(many)}
    (tmp_path / "list").write_text("".join(f"{web.url}/{name}\n" for name in told))
    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "IMAGE_BYTES", 1 << 20)
        fcn(
            *("segment", "--files-from", "list", "--root", web.url, "-o", "out", *HERE),
            *("--max-image-pixels", "4000"),
            code=1,
        )
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    records = journal_of(tmp_path / "out")
    kinds = {image: (record["error"] or {}).get("kind") for image, record in records.items()}
    # What comes after the announced end is ignored or an error, as the packets come.
    assert kinds.pop("short.png") in {"TruncatedImage", "Unreadable"}
    assert kinds == {
        "untold.png": "TooManyPixels",
        "compressed.png": "TooManyPixels",
        "long.png": "Unreadable",
        "good.png": None,
    }
    assert "a file of more than 1 MiB" in records["untold.png"]["error"]["message"]
    # The server's two texts, which are made here, and no third.
    assert most < 64 << 20


@pytest.mark.long
def test_what_an_earlier_version_wrote_of_urls_is_done(fcn: Fcn, web: WebServer, content: bytes) -> None:
    """Records of 0.2.0 before: a query and a fragment as they were, but for what signed them."""
    for url, before in ((f"{web.url}/a.png", ""), (f"{web.url}/b.png?id=5ecret#5ecret", "?id=5ecret#5ecret")):
        web.files["/a.png"] = web.files["/b.png"] = content
        fcn("segment", url, *HERE, "-o", f"out{len(before)}")
        journal = Path(f"out{len(before)}", "manifest.jsonl")
        record = json.loads(journal.read_text())
        record["path"] = record["source"] = url.partition("?")[0] + before
        journal.write_text(json.dumps(record) + "\n")
        assert "nothing to do" in fcn("segment", url, *HERE, "-o", journal.parent).stderr
        assert "5ecret" not in str(fcn("list", journal.parent))


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "https://me:5ecret@host/a.png", "-o", "out"),
        ("segment", "https://me:5e/cr?5ecret@host/a.png", "-o", "out"),
        ("segment", "foo://h/a.png?apikey=5ecret#5ecret", "-o", "out"),
        ("segment", "a.png", "-o", "https://me:5ecret@host/out?token=5ecret"),
        ("segment", "a.png", "-o", "ftp://me:5ecret@host/out"),
        ("segment", "a.png", "-o", "out", "--weights", "https://me:5ecret@host/w.pth#5ecret"),
        ("segment", "a.png", "-o", "out", "--weights", "http://127.0.0.1:1/w.pth?password=5ecret"),
        ("segment", "a.png", "-o", "https://host/out?apikey=5ecret", "--report"),
        ("segment", "--files-from", "https://h/list?apikey=5ecret", "-o", "out"),
        ("segment", "a.png", "-o", "out", "--root", "https://me:5ecret@host/"),
        ("segment", "a.png", "-o", "out", "--palette", "https://h/p.json?key=5ecret"),
        ("export", "https://h/out?apikey=5ecret", "--format", "coco", "-o", "x"),
        ("report", "https://me:5ecret@h/out?apikey=5ecret"),
        ("segment", "a.png", "-o", "out", "--device", "https://h/?apikey=5ecret"),
        ("evaluate", "https://h/?apikey=5ecret", "https://me:5ecret@h/"),
    ],
)
def test_no_message_repeats_a_secret(
    fcn: Fcn, arguments: tuple[str, ...], content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    small = SMALL if arguments[0] == "segment" else ()
    done = fcn(*arguments, *small, code=2)
    assert "5ecret" not in done.stdout + done.stderr


def test_a_mirror_is_named_without_its_password(
    fcn: Fcn, content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://me:5ecret@127.0.0.1:1")
    for mirror in ("http://me:5ecret@127.0.0.1:1/w?key=5ecret", "http://192.0.2.1/5?token=5ecret"):
        monkeypatch.setenv("FCN_WEIGHTS_MIRROR", mirror)
        for arguments in (("weights", "fetch", "resnet50"), ("segment", "a.png", "-o", "out", "-v")):
            done = fcn(*arguments, code=2)
            assert f"http://{urlsplit(mirror).hostname}" in done.stderr
            assert "5ecret" not in done.stdout + done.stderr
        listed = fcn("weights", "list")
        assert f"http://{urlsplit(mirror).hostname}" in listed.stdout
        assert "5ecret" not in listed.stdout


def test_lists_need_a_root_that_is_above(fcn: Fcn, web: WebServer, content: bytes, tmp_path: Path) -> None:
    web.files["/in/a.png"] = content
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
        ("", "a web server cannot be searched"),
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
def test_others_say_that_an_image_is_elsewhere(
    fcn: Fcn, web: WebServer, content: bytes, tmp_path: Path
) -> None:
    web.files["/a.png"] = content
    url = f"{web.url}/a.png"
    fcn("segment", url, *HERE, "-o", "out", "--report")
    rows = "".join(path.read_text() for path in (tmp_path / "out/report").rglob("*.js"))
    assert "only images on this machine are shown" in rows
    assert fcn("list", "out").stdout == f"{url}\n"
    fcn("verify", "out")
    done = fcn("export", "out", "--format", "yolo", "-o", "exported", code=1)
    assert f"{url}: not on this machine" in done.stderr
    done = fcn("segment", url, *HERE, "-o", "out", "--prune", code=2)
    assert "--prune needs a directory on this machine" in done.stderr
    done = fcn("segment", url, *HERE, "-o", "other", "--watch", code=2)
    assert "directories that exist on this machine" in done.stderr


def test_a_file_url_is_a_path(fcn: Fcn, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(content)
    done = fcn("segment", f"file://{tmp_path}/a b.png", *SMALL, "-o", "out", "--dry-run")
    assert done.stdout == "segment\ta b.png\tnew\n"


@pytest.mark.long
def test_python_users_give_urls(web: WebServer, content: bytes) -> None:
    web.files["/a.png"] = content
    segmenter = Segmenter("efficientnet_lite0", resize=64)
    assert np.array_equal(segmenter(f"{web.url}/a.png").labels, segmenter(content).labels)
