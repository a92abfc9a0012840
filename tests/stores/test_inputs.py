"""Images in a bucket are segmented as on a disk, and done once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import SAMPLES, SMALL, Finished, MakeImages, journal_of, run_process, tree
from tests.s3_server import SECRET, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.long]

ODD_NAMES = [
    "a b.png",
    "#1.png",
    "what?.png",
    "100%25.png",
    "50%.png",
    "[x].png",
    "x.png",
    "star*.png",
    "ü.png",
    "a+b&c=d;e.png",
    "?versionId=1.png",
    "deep/er/[1]/#?.png",
]


def segment(*arguments: str | Path, code: int = 0, cwd: Path) -> Finished:
    """Run the command; whatever it says and writes holds no secret."""
    done = run_process("segment", *arguments, *SMALL, code=code, cwd=cwd)
    for text in (done.stdout, done.stderr):
        assert SECRET not in text
    return done


def upload(s3: S3Server, folder: Path, prefix: str = "") -> None:
    s3.put("photos", {f"{prefix}{name}": data for name, data in tree(folder).items()})


def masks(output: Path) -> dict[str, bytes]:
    return tree(output / "masks")


def actions(done: Finished) -> dict[str, str]:
    """Return image → action of a dry run."""
    return {
        fields[1].rpartition("/")[2]: fields[0]
        for fields in (line.split("\t") for line in done.stdout.splitlines())
    }


@pytest.fixture
def local(make_images: MakeImages, tmp_path: Path) -> Path:
    """A folder of images under odd names, segmented from there into ``local``."""
    folder = make_images(ODD_NAMES)
    shutil.copy(SAMPLES / "chelsea.png", folder / "ü.png")
    segment(folder, "-o", "local", cwd=tmp_path)
    return folder


def test_masks_are_those_of_local_files(s3: S3Server, local: Path, tmp_path: Path) -> None:
    upload(s3, local, "in/")
    segment("s3://photos/in", "-o", "out", "--workers", "2", cwd=tmp_path)
    assert masks(tmp_path / "out") == masks(tmp_path / "local") != {}
    records, expected = journal_of(tmp_path / "out"), journal_of(tmp_path / "local")
    assert sorted(records) == sorted(expected) == sorted(ODD_NAMES)
    for image, record in records.items():
        head = s3.client.head_object(Bucket="photos", Key=f"in/{image}")
        assert record["path"] == record["source"] == f"s3://photos/in/{image}"
        assert (record["size_bytes"], record["etag"]) == (head["ContentLength"], head["ETag"].strip('"'))
        assert record["mtime_ns"] is None
        assert record["classes"] == expected[image]["classes"]
        assert "etag" not in expected[image]
    for data in tree(tmp_path / "out").values():
        assert SECRET.encode() not in data
    again = segment("s3://photos/in", "-o", "out", cwd=tmp_path)
    assert f"{len(ODD_NAMES)} done before" in again.stderr or "nothing to do" in again.stderr


def test_images_that_change_or_come_are_done_and_only_those(
    s3: S3Server, make_images: MakeImages, tmp_path: Path
) -> None:
    folder = make_images(["a.png", "b.png", "c.png"])
    upload(s3, folder)
    segment("s3://photos", "-o", "out", cwd=tmp_path)
    # Written again with the same content: the time changes, the ETag does not.
    s3.put("photos", {"a.png": (folder / "a.png").read_bytes()})
    changed = make_images(["large.png"], "other", (90, 70)) / "large.png"
    s3.put("photos", {"b.png": changed.read_bytes(), "new.png": changed.read_bytes()})
    planned = segment("s3://photos", "-o", "out", "--dry-run", cwd=tmp_path)
    assert actions(planned) == {"a.png": "skip", "b.png": "segment", "c.png": "skip", "new.png": "segment"}
    before = masks(tmp_path / "out")
    segment("s3://photos", "-o", "out", cwd=tmp_path)
    after = masks(tmp_path / "out")
    assert after["b.png"] == after["new.png"] != before["b.png"]
    assert set(after) - set(before) == {"new.png"}


def test_a_list_of_objects_and_one_that_is_missing(s3: S3Server, local: Path, tmp_path: Path) -> None:
    upload(s3, local, "in/")
    expected = masks(tmp_path / "local")
    names = ["a b.png", "ü.png", "deep/er/[1]/#?.png"]
    lines = [f"s3://photos/in/{name}\n" for name in (*names, "none.png")]
    (tmp_path / "list").write_text("".join(lines))
    listed = ("--files-from", "list", "--root", "s3://photos/in", "-o", "listed")
    done = segment(*listed, code=1, cwd=tmp_path)
    assert masks(tmp_path / "listed") == {name: expected[name] for name in names}
    assert "s3://photos/in/none.png: no such object" in done.stderr
