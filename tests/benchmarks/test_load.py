"""The load benchmark: simultaneous visitors get the same answers as a single one."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from benchmarks.load import App, Seen, crowd, growth, new_sessions, quantiles, with_comment
from bnmodel.data import load_sample
from demo.images import as_ink, decode_canvas, enlarge, png_url


def together(*arguments: Any, **options: Any) -> Seen:
    """Run `visit_together` in its own thread, since Playwright's event loop may run in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(visit_together(*arguments, **options))).result()


async def visit_together(url: str, visitors: int, seconds: float, spoil: bool = False) -> Seen:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        app = await App.open(client)
        drawings = await app.alone(visitors)
        if spoil:  # one visitor's answers for those of another
            names, answers = list(drawings), list(drawings.values())
            drawings = dict(zip(names, answers[1:] + answers[:1], strict=True))
        return await crowd(app, new_sessions(visitors), drawings, seconds, hurried=True)


def test_simultaneous_answers_equal_sequential_ones(app_url: str) -> None:
    seen = together(app_url, visitors=8, seconds=3)
    assert seen.errors == []
    assert len(seen.pad) >= 8 * 8
    assert len(seen.tab) >= 8


def test_an_answer_to_another_visitor_is_an_error(app_url: str) -> None:
    seen = together(app_url, visitors=2, seconds=0.1, spoil=True)
    assert set(seen.errors) == {"another answer than alone", "another picture than alone"}


def test_steady_growth_of_memory_is_distinguished_from_initial_growth() -> None:
    assert growth([100, 500, 500, 500]) == pytest.approx(0)
    assert growth([100, 110, 120, 130]) == pytest.approx(30)


def test_quantiles_are_in_milliseconds() -> None:
    assert quantiles([second / 1000 for second in range(101)]) == {"p50": 50, "p95": 95, "p99": 99}


def test_a_comment_leaves_the_pixels_as_they_are() -> None:
    canvas = enlarge(as_ink(load_sample(train=False).images[0, 0].numpy()))
    commented = with_comment(png_url(canvas), "first")
    assert commented != with_comment(png_url(canvas), "second")
    assert (decode_canvas(commented) == canvas).all()
