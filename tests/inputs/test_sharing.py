"""Every image is in exactly one share, whatever else there is."""

from __future__ import annotations

import unicodedata
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.common.shard import Shard
from fcn_cli.inputs.collisions import is_in_shard
from fcn_cli.inputs.discovery import Source

NAMES = st.text(
    st.characters(exclude_categories=()) | st.sampled_from("\udce9éÉß\u017f\u0131İ\u0301"), max_size=12
)
COUNTS = st.integers(1, 200)


def source(name: str, output: str | None = None) -> Source:
    return Source(name, f"/{name}", name, f"{name}.png" if output is None else output, 1, 2)


def share(one: Source, count: int) -> int:
    shares = [shard.index for shard in Shard(1, count).all() if is_in_shard(one, shard)]
    assert len(shares) == 1
    return shares[0]


@given(NAMES, COUNTS)
def test_shares_are_disjoint_and_complete_and_do_not_depend_on_anything_else(name: str, count: int) -> None:
    first = share(source(name), count)
    assert share(Source("other", "/x/y", "given", f"{name}.png", None, 7), count) == first
    assert 1 <= share(source(name, ""), count) <= count


@given(NAMES, COUNTS)
def test_names_that_collide_are_in_one_share(name: str, count: int) -> None:
    def normal(form: str) -> str:
        return unicodedata.normalize(form, name)  # type: ignore[arg-type]

    alike = {name, normal("NFC"), normal("NFD"), normal("NFC").casefold()}
    if name.isascii():
        alike |= {name.upper(), name.lower()}
    assert len({share(source(one), count) for one in alike}) == 1


def test_shares_are_about_equal() -> None:
    sizes = Counter(share(source(f"album/IMG_{number:05}"), 8) for number in range(4000))
    assert min(sizes.values()) > 400
    assert max(sizes.values()) < 600
