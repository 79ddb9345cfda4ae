"""What the README says works."""

import re
from pathlib import Path

import pytest

from benchmarks.readme import filled

README = Path("README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=[snippet.strip().splitlines()[-1][:40] for snippet in SNIPPETS])
def test_a_snippet_runs_as_it_stands(snippet, tmp_path):
    exec(compile(snippet.replace("build/mine", str(tmp_path)), "README.md", "exec"), {})


def test_every_file_of_the_tree_exists():
    tree = README.split("## The house")[1].split("```")[1].strip().splitlines()
    folder, missing = "", []
    for line in tree:
        name = line.split()[0].rstrip(",")
        folder = folder if line.startswith(" ") else name
        path = folder + name if line.startswith(" ") else name
        missing += [] if list(Path().glob(path.rstrip("/"))) else [path]
    assert not missing


def test_the_test_command_is_the_one_that_ci_runs():
    assert "make test" in README
    assert "make test" in Path(".ci/run").read_text()


def test_the_tables_are_those_of_the_benchmarks_results():
    assert filled(README) == README
