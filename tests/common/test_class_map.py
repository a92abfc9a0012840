"""Maps of classes, as ``--truth-map`` takes them."""

from __future__ import annotations

import pytest

from fcn_cli.common.class_map import ClassMap, Indices
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.errors import RequestError

TREES = {3: "oak", 7: "fir", 90: "7", 255: "void"}


@pytest.mark.parametrize(
    ("text", "named", "rest"),
    [
        ("1=person", {1: 15}, None),
        ("1=person,2+3=cat,*=255", {1: 15, 2: 8, 3: 8}, 255),
        (" 1 = Person , *=background ", {1: 15}, 0),
        ("255=1,65535=void", {255: 1, 65535: 255}, None),
        ("*=0", {}, 0),
    ],
)
def test_numbers_become_classes(text: str, named: dict[int, int], rest: int | None) -> None:
    assert ClassMap.parse(text).indices("--map", None, VOC_CLASSES) == Indices(named, rest)


def test_sources_have_names_or_indices() -> None:
    found = ClassMap.parse("oak+FIR=1,7=2,void=0").indices("--map", TREES, VOC_CLASSES)
    # A class that is called 7 comes before the one with that index.
    assert found == Indices({3: 1, 7: 1, 90: 2, 255: 0}, None)
    assert str(ClassMap.parse("oak+fir=1, *=0")) == "oak=1,fir=1,*=0"


@pytest.mark.parametrize("text", ["", ",", "person", "=1", "person=", "a++b=1", "a=1,a=2", "*=1,*=2"])
def test_what_is_no_map(text: str) -> None:
    with pytest.raises(ValueError, match="no rule"):
        ClassMap.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("oka=1", "--map: there is no class 'oka'; did you mean oak?"),
        ("oak=pearson", "--map: there is no class 'pearson'; did you mean person?"),
        ("4=1", "--map: there is no class '4'; the classes are oak, fir, 7, void"),
        ("oak=21", "--map: there is no class '21'"),
        ("oak=1,3=2", "--map: 3 is class 3, which is listed twice"),
    ],
)
def test_unknown_classes_are_refused_with_suggestions(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        ClassMap.parse(text).indices("--map", TREES, VOC_CLASSES)
    assert said in str(caught.value)


def test_a_class_that_is_called_void_is_that_class() -> None:
    assert ClassMap.parse("void=1,255=2").indices("--map", {0: "oak", 1: "void"}, VOC_CLASSES) == Indices(
        {1: 1, 255: 2}, None
    )


def test_a_target_may_be_any_index() -> None:
    assert ClassMap.parse("oak=200,*=0").indices("--map", TREES, None) == Indices({3: 200}, 0)
    with pytest.raises(RequestError, match="300 is more than 255"):
        ClassMap.parse("oak=300").indices("--map", TREES, None)


def test_a_name_needs_names() -> None:
    with pytest.raises(RequestError, match="'oak' is not an index"):
        ClassMap.parse("oak=1").indices("--map", None, VOC_CLASSES)
