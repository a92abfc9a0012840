"""One table says what output types there are; a new one is an entry there and a writer."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from typing_extensions import override

from fcn_cli.common import output_layout
from fcn_cli.common.label_map import Segmentation
from fcn_cli.common.output_layout import OutputType
from fcn_cli.outputs import writers
from fcn_cli.outputs.looks import Style

from ..conftest import SMALL, Fcn, MakeImages, journal_of, tree


class InverseWriter(writers.Writer):
    """A label map whose every index is 255 minus that of the mask, as a BMP file."""

    file_format: ClassVar[writers.FileFormat] = {"format": "BMP"}

    @staticmethod
    @override
    def describe(style: Style) -> str:
        return f"inverse beside {style.palette_name}"

    @override
    def image(self, segmentation: Segmentation, original: writers.Original) -> Image.Image:
        return Image.fromarray(255 - segmentation.labels)


@pytest.fixture
def new_type(monkeypatch: pytest.MonkeyPatch) -> None:
    types = (*output_layout.OUTPUT_TYPES[:1], OutputType("inverse", ".bmp"), *output_layout.OUTPUT_TYPES[1:])
    monkeypatch.setattr(output_layout, "OUTPUT_TYPES", types)
    monkeypatch.setitem(output_layout._SUFFIXES, "inverse", ".bmp")
    monkeypatch.setitem(writers.WRITERS, "inverse", InverseWriter)


def assert_inverse_of_masks(output: Path, count: int) -> None:
    assert sorted(path.name for path in (output / "inverse").iterdir()) == [
        f"p{number}.bmp" for number in range(count)
    ]
    for record in journal_of(output).values():
        stem = Path(record["image"]).stem
        file = output / "inverse" / f"{stem}.bmp"
        mask = np.array(Image.open(output / "masks" / f"{stem}.png"))
        assert np.array_equal(np.array(Image.open(file)), 255 - mask)
        recorded = dict(zip(record["outputs"], record["output_bytes"], strict=True))
        assert recorded[f"inverse/{stem}.bmp"] == file.stat().st_size


@pytest.mark.long
@pytest.mark.usefixtures("new_type")
def test_a_new_type_in_the_table_is_written_resumed_and_made_again(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images([f"p{number}.png" for number in range(3)])
    arguments = ("segment", "made", *SMALL, "-o", "out", "--write", "inverse,masks")
    assert "3 done" in fcn(*arguments).stderr
    assert_inverse_of_masks(tmp_path / "out", 3)
    record = journal_of(tmp_path / "out")["p0.png"]
    assert record["outputs"] == ["masks/p0.png", "inverse/p0.bmp"]
    assert record["looks"] == {"inverse": "inverse beside hub"}
    before = tree(tmp_path / "out")
    assert "nothing to do" in fcn(*arguments).stderr
    after = tree(tmp_path / "out")
    of_the_run = ("run.json", "summary.json")
    assert {name: data for name, data in after.items() if name not in of_the_run} == {
        name: data for name, data in before.items() if name not in of_the_run
    }
    (tmp_path / "out/inverse/p1.bmp").unlink()
    assert "inverse/p1.bmp is missing" in fcn(*arguments, "--dry-run").stdout
    assert "3 images: 1 done, 2 done before, 0 failed" in fcn(*arguments).stderr
    assert_inverse_of_masks(tmp_path / "out", 3)


@pytest.mark.long
def test_a_new_type_in_the_table_is_added_to_what_is_done_without_the_network(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_images([f"p{number}.png" for number in range(3)])
    arguments = ("segment", "made", *SMALL, "-o", "out", "--write")
    assert "inverse" in fcn(*arguments, "inverse", code=2).stderr
    fcn(*arguments, "masks")
    request.getfixturevalue("new_type")
    plan = fcn(*arguments, "masks,inverse", "--dry-run").stdout.splitlines()
    assert [line.split("\t")[0] for line in plan] == ["add"] * 3
    masks = tree(tmp_path / "out/masks")
    fcn(*arguments, "masks,inverse", "--quiet")
    assert tree(tmp_path / "out/masks") == masks
    assert_inverse_of_masks(tmp_path / "out", 3)


def test_every_type_in_the_table_has_a_writer_and_its_files_a_place() -> None:
    names = output_layout.output_type_names()
    assert tuple(writers.WRITERS) == names
    assert set(output_layout.DEFAULT_OUTPUT_TYPES) <= set(names)
    assert output_layout.label_types() == ("masks", "color")
    for name in names:
        path = output_layout.output_file("sub/a.b.png", name)
        assert path == f"{name}/sub/a.b{output_layout.find_output_type(name).suffix}"
        assert output_layout.output_type_of(path) == name
    with pytest.raises(KeyError):
        output_layout.find_output_type("mask")
