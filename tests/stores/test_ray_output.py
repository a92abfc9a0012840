"""``--ray`` with images and the output directory in buckets: what the actors read and write."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import SMALL, Fcn, MakeImages, command, run_line, tree
from ..s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_actors_read_from_a_bucket_and_write_into_one(
    s3: S3Server, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray")
    made = make_images([f"sub/p{number} #%.png" for number in range(20)])
    s3.put("photos", {f"in/{name}": data for name, data in tree(made).items()})
    fcn("segment", made, *SMALL, "-o", "plain", "--threads", "1")
    line = command(
        "segment", "s3://photos/in", *SMALL, "-o", "s3://results/out", "--ray", "local", "--threads", "1"
    )
    assert run_line(line, cwd=tmp_path).code == 0
    written = {key.removeprefix("out/"): data for key, data in s3.objects("results", "out/").items()}
    masks = {name: data for name, data in tree(tmp_path / "plain").items() if name.endswith(".png")}
    assert {name: data for name, data in written.items() if name.endswith(".png")} == masks
    assert written["stats.csv"] == (tmp_path / "plain/stats.csv").read_bytes()
    assert run_line(line, cwd=tmp_path).stderr.startswith("fcn: nothing to do: all 20 images")
