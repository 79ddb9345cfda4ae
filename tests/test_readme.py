"""The README is short, and its two commands are the ones that CI runs."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_has_at_most_9_kb() -> None:
    assert len(README.encode()) <= 9000


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    assert "make test " in README
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text()


def test_it_names_every_page_of_the_docs_that_a_reader_may_start_with() -> None:
    for page in (
        "install",
        "layer",
        "diagnosis",
        "export",
        "training",
        "experiments",
        "recogniser",
        "http-api",
        "layout",
    ):
        assert f"(docs/{page}.md)" in README, page
