"""What is taken as input, under which name, and what is refused before any work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_cli.inputs.discovery import Found, InputRequest, discover
from fcn_cli.inputs.file_lists import parse_list

from ..conftest import SMALL, Fcn, MakeImages, command, need, run_line, tree


def found(
    inputs: Sequence[str | Path] = (),
    listed: Sequence[str] | None = None,
    root: str | None = None,
    **options: Any,
) -> Found:
    given = [str(one) for one in inputs]
    narrowing = {name: options.pop(name) for name in ("include", "exclude") if name in options}
    return discover(InputRequest(given, listed, root, **narrowing), output="fcn_output", **options)


def outputs(*args: Any, **options: Any) -> list[str]:
    return [source.output for source in found(*args, **options).sources]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_gives_what_is_below_it_in_sorted_order() -> None:
    touch("d/b.JPG", "d/a.png", "d/sub/deep/c.webp", "d/notes.txt", "d/x.tiff", "d/none")
    got = found(["d"])
    assert [source.image for source in got.sources] == ["a.png", "b.JPG", "sub/deep/c.webp", "x.tiff"]
    assert [source.output for source in got.sources] == ["a.png", "b.png", "sub/deep/c.png", "x.png"]
    assert got.ignored == {".txt": 1, "without a suffix": 1}


def test_several_folders_keep_their_own_names() -> None:
    touch("one/a.jpg", "two/a.jpg")
    assert outputs(["one", "two"]) == ["one/a.png", "two/a.png"]
    assert outputs(["one/", "./two"]) == ["one/a.png", "two/a.png"]


def test_files_and_patterns() -> None:
    touch("d/a.jpg", "d/sub/b.jpg", "d/c.png")
    assert outputs(["d/a.jpg", "d/c.png"]) == ["a.png", "c.png"]
    assert outputs(["d/*.jpg"]) == ["a.png"]
    assert outputs(["d/**/*.jpg"]) == ["a.png", "sub/b.png"]
    assert outputs(["d/a.jpg", "d/a.jpg"]) == ["a.png"]
    touch("d/[1].jpg")
    assert outputs(["d/[1].jpg"]) == ["[1].png"]


def test_what_systems_keep_beside_images_is_ignored_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    touch(
        "d/a.jpg",
        "d/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "d/@eaDir/a.jpg@SynoResource",
        "d/sub/@eadir/b.jpg",
        "d/#recycle/old/c.png",
        "d/$Recycle.Bin/S-1-5/d.png",
        "d/__MACOSX/d/._a.jpg",
        "d/System Volume Information/e.jpg",
        "d/#snapshot/GMT-01/d/a.jpg",
        "d/my #recycle/f.jpg",
        "d/.Trash-1000/files/g.jpg",
    )
    listed, real = [], os.scandir

    def scandir(path: str) -> object:
        listed.append(path)
        if Path(path).name == "System Volume Information":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    got = found(["d"])
    assert [source.image for source in got.sources] == ["a.jpg", "my #recycle/f.jpg"]
    assert not [source for source in got.sources if source.problem]
    assert got.ignored_text() == (
        "ignored 9 paths: 1 hidden, 1 in #recycle, 1 in $Recycle.Bin, 2 in @eaDir, 1 in @eadir, "
        "1 in System Volume Information, 1 in __MACOSX, 1 snapshot directory"
    )
    assert not any("GMT-01" in path for path in listed)
    # What is given itself is searched, and a list says what it wants.
    assert outputs(["d/@eaDir"]) == ["a.jpg/SYNOPHOTO_THUMB_M.png"]
    assert outputs(["d/#snapshot"]) == ["GMT-01/d/a.png"]
    assert outputs(["d/#recycle/**/*.png"]) == ["old/c.png"]
    assert outputs(["d/**/*.png"]) == []
    assert outputs([], ["d/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg"]) == ["d/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.png"]


def test_listed_files_are_named_below_the_root() -> None:
    touch("d/a.jpg", "d/sub/b.jpg")
    assert outputs([], ["d/a.jpg", "./d/sub/../sub/b.jpg"]) == ["d/a.png", "d/sub/b.png"]
    assert outputs([], ["d/a.jpg"], root="d") == ["a.png"]
    assert outputs([], [os.path.abspath("d/a.jpg")]) == ["d/a.png"]
    assert outputs(["d/a.jpg"], root=".") == ["d/a.png"]


def test_a_listed_file_outside_the_root_is_refused(fcn: Fcn) -> None:
    touch("d/a.jpg", "e/b.jpg")
    Path("list").write_text("d/a.jpg\n../b.jpg\n")
    done = fcn("segment", "--files-from", "list", code=2)
    assert "../b.jpg" in done.stderr
    assert "--root" in done.stderr
    assert not Path("fcn_output").exists()


def test_hidden_files_and_other_outputs_are_not_taken(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png", ".hidden.png", ".cache/b.png"])
    fcn("segment", "made", *SMALL, "-o", "made/earlier", "--write", "masks,color,overlay")
    got = found(["made"])
    assert [source.image for source in got.sources] == ["a.png"]
    assert got.ignored["hidden"] == 2
    for inside in ("made/earlier", "made/earlier/color"):
        assert "output directory" in fcn("segment", inside, *SMALL, code=3).stderr
    assert "output directory" in fcn("segment", "made/earlier/overlay/a.jpg", *SMALL, code=3).stderr


def test_segmenting_here_twice_does_not_segment_its_own_output(fcn: Fcn, make_images: MakeImages) -> None:
    folder = make_images(["a.png", "b.png"])
    fcn("segment", ".", *SMALL, "--write", "masks,color,overlay", cwd=folder)
    before = tree(folder / "fcn_output/masks")
    assert (
        "nothing to do: all 2"
        in fcn("segment", ".", *SMALL, "--write", "masks,color,overlay", cwd=folder).stderr
    )
    assert tree(folder / "fcn_output/masks") == before


def test_the_output_directory_may_hold_the_images_folder(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"])
    assert ".: holds files that fcn did not write" in fcn("segment", "made", *SMALL, "-o", ".", code=2).stderr
    fcn("segment", "made", *SMALL, "-o", "out")
    Path("made").rename("out/made")
    assert "nothing to do" in fcn("segment", "out/made", *SMALL, "-o", "out").stderr
    assert Path("out/masks/a.png").is_file()


def test_links_loops_and_dangling_ones() -> None:
    touch("d/real/a.jpg", "elsewhere/b.jpg")
    Path("d/loop").symlink_to(Path("d").absolute())
    Path("d/up").symlink_to(Path().absolute())
    Path("d/alias").symlink_to(Path("d/real").absolute())
    Path("d/other").symlink_to(Path("elsewhere").absolute())
    Path("d/dangling.jpg").symlink_to("nowhere")
    assert [source.image for source in found(["d"]).sources] == ["dangling.jpg", "other/b.jpg", "real/a.jpg"]


def test_names_that_would_collide_stop_the_run_before_any_work(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.jpg", "a.png"])
    done = fcn("segment", "made/a.jpg", "made/a.png", *SMALL, "-o", "out", code=2)
    assert "made/a.jpg" in done.stderr
    assert "made/a.png" in done.stderr
    assert "--keep-extension" in done.stderr
    assert not Path("out").exists()
    make_images(["b.jpg", "b.png", "B.gif", "c.png"])
    done = fcn("segment", "made", *SMALL, "-o", "out", code=2)
    assert "made/a.jpg and made/a.png" in done.stderr
    assert "made/B.gif and made/b.jpg" in done.stderr
    assert "made/B.gif and made/b.png" in done.stderr
    assert "3 images have the output names of others" in done.stderr
    for image in Path("made").glob("[bBc]*"):
        image.unlink()
    fcn("segment", "made", *SMALL, "-o", "out", "--keep-extension", "--write", "masks,overlay")
    assert sorted(tree(Path("out/masks"))) == ["a.jpg.png", "a.png.png"]
    assert sorted(tree(Path("out/overlay"))) == ["a.jpg.jpg", "a.png.jpg"]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("d/Cat.jpg", "d/cat.jpg", "differ only in upper and lower case"),
        ("d/STRASSE.jpg", "d/straße.jpg", "differ only in upper and lower case"),
        ("d/caf\u00e9.jpg", "d/cafe\u0301.jpg", "look alike: they differ only in Unicode form, NFC or NFD"),
        ("d/\u00e9/a.jpg", "d/e\u0301/a.jpg", "look alike: they differ only in Unicode form, NFC or NFD"),
        ("d/caf\u00e9.jpg", "d/CAFE\u0301.jpg", "differ only in upper and lower case and in Unicode form"),
        ("d/caf\u00e9.jpg", "d/cafe\u0301.png", None),
        ("d/x.jpg", "d/x.png/y.jpg", None),
        ("d/Sub/a.jpg", "d/sub/A.png", None),
    ],
)
def test_case_normal_forms_and_folders_collide_too(
    fcn: Fcn, first: str, second: str, why: str | None
) -> None:
    touch(first, second)
    done = fcn("segment", "d", code=2)
    assert "would both be written as" in done.stderr
    assert ("differ only" in done.stderr) == (why is not None)
    assert (why or "") in done.stderr


@pytest.mark.long
def test_a_second_run_never_overwrites_the_masks_of_other_images(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"], folder="one")
    make_images(["b.png", "a.png"], folder="two")
    fcn("segment", "one", *SMALL)
    before = tree(Path("fcn_output/masks"))
    done = fcn("segment", "two", *SMALL, code=1)
    assert f"belongs to {Path('one/a.png').absolute()}" in done.stderr
    assert "2 images: 1 done, 1 failed" in done.stderr
    after = tree(Path("fcn_output/masks"))
    assert after.pop("b.png")
    assert after == before
    # The same images under a new path are the same images.
    Path("one").rename("moved")
    assert "nothing to do" in fcn("segment", "moved", *SMALL).stderr


@pytest.mark.long
def test_a_converted_image_takes_over_from_the_one_it_replaced(fcn: Fcn, make_images: MakeImages) -> None:
    folder = make_images(["a.jpg"])
    fcn("segment", "made", *SMALL)
    Image.open(folder / "a.jpg").save(folder / "a.png")
    assert "would both be written" in fcn("segment", "made", *SMALL, code=1).stderr
    assert f"belongs to {folder / 'a.jpg'}" in fcn("segment", "made/a.png", *SMALL, code=1).stderr
    (folder / "a.jpg").unlink()
    fcn("segment", "made", *SMALL)
    assert {row.split(",")[0] for row in Path("fcn_output/stats.csv").read_text().splitlines()[1:]} == {
        "a.png"
    }


@pytest.mark.long
def test_lists_from_a_file_and_from_stdin(make_images: MakeImages, fcn: Fcn) -> None:
    make_images(["a.png", "sub/b.png", "with\nnewline.png"])
    listing = subprocess.run(["find", "made", "-print0"], capture_output=True, check=True).stdout
    done = subprocess.run(
        command("segment", *SMALL, "--files-from", "-", "--null"),
        input=listing,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(tree(Path("fcn_output/masks"))) == [
        "made/a.png",
        "made/sub/b.png",
        "made/with\nnewline.png",
    ]
    Path("list").write_text("made/a.png\nmade/gone.png\n\n")
    done2 = fcn("segment", "--files-from", "list", *SMALL, "-o", "two", code=1)
    assert "made/gone.png: no such file" in done2.stderr


@pytest.mark.long
def test_stdin_is_left_alone_unless_it_is_asked_for(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"])
    fcn("segment", "made", *SMALL)
    script = " ".join(command("segment", "made", *SMALL, "-q")) + "; cat"
    done = subprocess.run(
        ["sh", "-c", script], input=b"for the next command", capture_output=True, check=False
    )
    assert done.stdout == b"for the next command"


def test_what_cannot_be_right_is_said_in_one_line(fcn: Fcn) -> None:
    touch("b.txt")
    Path("empty").mkdir()
    for arguments, code, text in [
        (["segment"], 2, "--files-from"),
        (["segment", "nowhere"], 2, "nowhere: no such file or directory"),
        (["segment", "no*.jpg"], 2, "matches nothing"),
        (["segment", "foo://bucket/x"], 2, "not a supported store"),
        (["segment", "memory://folder"], 2, "only the process that wrote it can read it"),
        (["segment", "https://me:pass@localhost/a.jpg"], 2, "a URL must not contain a password"),
        (["segment", "http://127.0.0.1:9/folder/"], 2, "a web server cannot be searched"),
        (["segment", "http://127.0.0.1:9/a.jpg"], 2, "no connection to the server"),
        (["segment", "empty"], 3, "empty: the directory is empty; is its disk mounted?"),
        (["segment", ""], 2, "an input name is empty"),
        (["segment", "b.txt", ""], 2, "an input name is empty"),
        (["segment", ".", "--root", ""], 2, "--root: the name is empty"),
        (["segment", "--files-from", ""], 2, "--files-from: the name is empty"),
        (["segment", "--files-from", "nolist"], 2, "nolist: cannot be read"),
        (["segment", ".", "--null"], 2, "--files-from"),
        (["segment", ".", "--resize", "0"], 2, "none"),
        (["segment", ".", "--write", "masks,paint"], 2, "paint"),
        (["segment", ".", "--write", ""], 2, "masks"),
        (["segment", ".", "--batch-size", "0"], 2, "auto"),
        (["segment", ".", "--backbone", "vgg"], 2, "resnet50"),
    ]:
        done = fcn(*arguments, code=code)
        assert text in done.stderr, (arguments, done.stderr)
        assert not Path("fcn_output").exists()


def test_options_come_from_the_environment_too(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(["a.png"])
    for name, value in {
        "BACKBONE": "efficientnet_lite0",
        "RESIZE": "64",
        "OUTPUT": "there",
        "WRITE": "masks",
    }.items():
        monkeypatch.setenv(f"FCN_{name}", value)
    fcn("segment", "made")
    assert sorted(path.name for path in Path("there").iterdir() if path.is_dir()) == ["masks"]
    # What destroys is never taken from the environment.
    monkeypatch.setenv("FCN_OVERWRITE", "1")
    monkeypatch.setenv("FCN_RETRY_FAILED", "1")
    assert "nothing to do" in fcn("segment", "made").stderr


@pytest.mark.long
def test_an_unlistable_folder_is_a_failure_that_is_told(make_images: MakeImages) -> None:
    folder = make_images(["a.png", "closed/b.png"])
    (folder / "closed").chmod(0)
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    prefix = drop if os.geteuid() == 0 else []
    if prefix:
        need("setpriv")
    try:
        if (
            subprocess.run([*prefix, "ls", folder / "closed"], capture_output=True, check=False).returncode
            == 0
        ):
            pytest.skip("cannot give up root's right to read everything here")
        done = run_line([*prefix, *command("segment", "made", *SMALL)], code=1)
    finally:
        (folder / "closed").chmod(0o755)
    assert "closed: this directory cannot be listed (Permission denied)" in done.stderr
    assert "2 images: 1 done, 1 failed" in done.stderr


@pytest.mark.long
def test_a_named_file_is_tried_by_its_content(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.jpg", "b.png"])
    names = ["noext", "photo.v2", ".hidden", "a.heic", "b.weird.JPG", ".dir/x"]
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((folder / ("a.jpg" if name == "noext" else "b.png")).read_bytes())
    (folder / "text").write_text("Dear diary")
    paths = [f"made/{name}" for name in names]
    masks = {"noext.png", "photo.v2.png", ".hidden.png", "a.png", "b.weird.png", "x.png"}
    fcn("segment", *paths, *SMALL, "-o", "out", "--write", "masks")
    assert set(tree(tmp_path / "out/masks")) == masks
    (tmp_path / "list").write_text("\n".join([*paths, "made/text", "made"]))
    done = fcn("segment", "--files-from", "list", "--root", "made", *SMALL, "-o", "two", "--json", code=1)
    assert {record["status"] for record in done.records if record["image"] != "text"} == {"ok"}
    assert set(tree(tmp_path / "two/masks")) == {".dir/x.png", *masks - {"x.png"}}
    assert "made/text: not an image" in done.stderr
    assert "ignored 1 path: 1 directory in the list" in done.stderr
    # Found by searching, what is hidden or has no image's suffix is not for us.
    got = found(["made"], keep_extension=True)
    assert {source.image for source in got.sources} >= {"a.jpg", "b.png", "b.weird.JPG"}
    assert got.ignored["hidden"] == 2
    assert got.ignored["without a suffix"] == 2


def test_hidden_directories_can_be_named() -> None:
    touch(".one/a.jpg", ".two/b.jpg", ".two/.c.jpg")
    assert outputs([".one"]) == ["a.png"]
    assert outputs([".one", ".two"]) == [".one/a.png", ".two/b.png"]


def test_output_names_do_not_depend_on_what_is_installed() -> None:
    names = ["a.heic", "b.avif", "c.webp", "d.tga", "e.eps", "f.tar.gz", "g.", "h"]
    touch(*names)
    expected = ["a.png", "b.png", "c.png", "d.png", "e.eps.png", "f.tar.gz.png", "g..png", "h.png"]
    assert outputs(names) == expected
    assert outputs(names, keep_extension=True) == [f"{name}.png" for name in names]


@pytest.mark.long
def test_an_empty_list_is_nothing_to_do_and_an_empty_directory_is_a_mistake(
    fcn: Fcn, make_images: MakeImages
) -> None:
    make_images(["a.png"])
    for content in (b"", b"\n\n", b"\r\n", b"\xef\xbb\xbf\n"):
        Path("list").write_bytes(content)
        assert "nothing to do: the list is empty" in fcn("segment", "--files-from", "list", *SMALL).stderr
    assert fcn("segment", "--files-from", "list", "-q", *SMALL).stderr == ""
    assert not Path("fcn_output").exists()
    Path("empty").mkdir()
    assert "empty: the directory is empty" in fcn("segment", "empty", "--files-from", "list", code=3).stderr
    assert "1 images: 1 done" in fcn("segment", "made", "--files-from", "list", *SMALL).stderr.replace(
        "1 image:", "1 images:"
    )


@pytest.mark.parametrize("options", [(), ("--null",)])
def test_what_is_no_list_of_names_is_refused(fcn: Fcn, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "list").write_bytes(b"x" * (100 << 20))
    done = fcn("segment", "--files-from", "list", *SMALL, *options, code=2)
    assert done.stderr == "fcn: --files-from list: not a list of names: a name has more than 16 KiB\n"


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory")
@pytest.mark.parametrize(
    ("byte", "options"), [("\\n", ()), pytest.param("\\0", ("--null",), marks=pytest.mark.slow)]
)
def test_a_list_of_nothing_needs_no_memory(tmp_path: Path, byte: str, options: tuple[str, ...]) -> None:
    line = [
        "sh",
        "-c",
        f"head -c 300000000 /dev/zero | tr '\\0' '{byte}' | (ulimit -v 2500000; exec \"$@\")",
        "sh",
    ]
    line += command("segment", "--files-from", "-", *SMALL, *options)
    assert "nothing to do: the list is empty" in run_line(line, cwd=tmp_path).stderr


def test_lists_as_other_programs_write_them(fcn: Fcn, make_images: MakeImages) -> None:
    for content in (
        b"\xef\xbb\xbfmade/a.png\nmade/b.png\n",
        b"\xef\xbb\xbfmade/a.png\r\n\r\nmade/b.png\r\n",
        b"made/a.png\r\nmade/b.png",
        b"\n\nmade/a.png\n\nmade/b.png",
    ):
        assert parse_list(content, null=False) == ["made/a.png", "made/b.png"]
    assert parse_list(b"ends in\r\nx\n", null=False) == ["ends in\r", "x"]
    make_images(["a.png", "b.png"])
    Path("list").write_bytes(b"\xef\xbb\xbfmade/a.png\r\nmade/b.png\r\n")
    fcn("segment", "--files-from", "list", *SMALL, "--write", "masks")
    assert sorted(tree(Path("fcn_output/masks"))) == ["made/a.png", "made/b.png"]
    for content, text in (
        (b"made/a.png\0made/b.png\0", "use --null"),
        (b"\xff\xfe" + "made/a.png\r\n".encode("utf-16-le"), "UTF-16 text; save it as UTF-8"),
        (b"\xfe\xff" + "made/a.png\n".encode("utf-16-be"), "UTF-16 text; save it as UTF-8"),
    ):
        Path("list").write_bytes(content)
        done = fcn("segment", "--files-from", "list", *SMALL, code=2)
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("fcn: --files-from list: the list")
        assert text in done.stderr


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("", "the name is empty"),
        ("  ", "the name is empty"),
        ("file", "--output file: this is a file, not a directory"),
        ("file/below/it", "--output file/below/it: file is a file, not a directory"),
        ("link", "--output link: this is a file, not a directory"),
    ],
)
def test_an_output_that_can_be_no_directory_is_refused(
    fcn: Fcn, make_images: MakeImages, output: str, text: str
) -> None:
    make_images(["a.png"])
    Path("file").write_text("keep")
    Path("link").symlink_to("nowhere")
    before = tree(Path())
    done = fcn("segment", "made", *SMALL, "-o", output, code=2)
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert tree(Path()) == before


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name), max_size=5))
def test_any_bytes_make_a_null_separated_name(names: list[bytes]) -> None:
    assert [os.fsencode(name) for name in parse_list(b"\0".join(names), null=True)] == names


@pytest.mark.long
def test_the_output_directory_as_input(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """By whatever name; an output inside the input is fine, and is no input."""
    made = make_images(["a.png"])
    (tmp_path / "link").symlink_to("made")
    before = tree(made)
    for name, output in (("made", "made"), ("made/", "./made"), ("link", "made"), ("made", str(made))):
        for more in ((), ("--watch",), ("--dry-run",)):
            done = fcn("segment", name, *SMALL, "-o", output, *more, code=2)
            assert done.stderr == (
                f"fcn: {name}: is also the --output; use another --output (it may be inside the input)\n"
            )
    assert tree(made) == before
    for _ in range(2):
        fcn("segment", "made", *SMALL, "-o", "made/out")
    assert set(tree(made / "out/masks")) == {"a.png"}
    assert "is also the --output" in fcn("segment", "made/out", *SMALL, "-o", "made/out", code=2).stderr
    assert "is also the --output" in fcn("segment", "s3://b/x", "-o", "s3://b/x/", code=2).stderr
    # A shell's `*` names the output directory beside others: it is ignored, as ever.
    make_images(["b.png"], folder="more")
    fcn("segment", "made", "more", *SMALL, "-o", "out")
    done = fcn("segment", "made", "more", "out", *SMALL, "-o", "out")
    assert "ignored 1 path: 1 output directory of fcn (out)" in done.stderr
