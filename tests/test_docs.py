"""README and docs: snippets run, commands parse, tables are up to date, links are valid, and the pages build."""

import re
import shlex
import subprocess
import sys
from functools import partial, wraps
from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmarks import layout
from benchmarks.readme import documents, filled
from bnmodel import __main__ as command_line
from bnmodel import commands
from bnmodel.deploy import command as deploy_command
from bnmodel.deploy.checks import Check

ROOT = Path(__file__).parent.parent
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in documents()}
NEEDS_THE_APP = "docs/http-api.md"  # tests/demo/test_app.py runs its snippets
SNIPPETS = [
    pytest.param(code, id=f"{name}: {code.strip().splitlines()[-1][:40]}")
    for name, text in TEXTS.items()
    for code in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    if name != NEEDS_THE_APP
]
COMMANDS = [
    (name, line)
    for name, text in TEXTS.items()
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if re.match(r"(python -m )?bnmodel ", line)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_runs(code: str, tmp_path: Path) -> None:
    exec(compile(code.replace("build/", f"{tmp_path.as_posix()}/"), "snippet", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_a_command_has_only_options_that_exist(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_effect(function):
        return wraps(function)(lambda *_, **__: 0)

    for command, function in command_line.FUNCTIONS.items():
        parse = partial(command_line._parse, command, without_effect(function))
        monkeypatch.setitem(command_line.COMMANDS, command, parse)
    monkeypatch.setattr(commands, "train", without_effect(commands.train))
    monkeypatch.setitem(command_line.COMMANDS, "train", command_line._parse_train)
    monkeypatch.setitem(command_line.COMMANDS, "diagnose", lambda _: 0)
    monkeypatch.setitem(command_line.COMMANDS, "inspect", deploy_command.inspect_file)
    monkeypatch.setitem(command_line.COMMANDS, "verify", deploy_command.verify_folder)
    monkeypatch.setattr(deploy_command, "inspect", lambda *_, **__: Mock(sound=True, to_dict=dict))
    monkeypatch.setattr(deploy_command, "verify", lambda _: [Check("checksum", "certificate.json", True, "")])
    words = shlex.split(line, comments=True)
    if "--help" in words:
        words.remove("--help")
    assert command_line.main(words[words.index("bnmodel") + 1 :]) == 0, name


@pytest.mark.parametrize("name", TEXTS)
def test_the_tables_are_up_to_date(name: str) -> None:
    assert filled(TEXTS[name]) == TEXTS[name], "write them with: python -m benchmarks.readme"


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file(name: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", TEXTS[name], flags=re.DOTALL))
    files = [target.partition("#")[0] for target in targets if not re.match(r"\w+:", target)]
    assert [file for file in files if file and not (ROOT / name).parent.joinpath(file).exists()] == []


def test_every_picture_is_shown_on_some_page() -> None:
    pages = "\n".join(text for name, text in TEXTS.items() if name != "README.md")
    assert [picture.name for picture in (ROOT / "docs").glob("*.png") if f"({picture.name}" not in pages] == []


def test_the_layout_describes_every_file() -> None:
    listed = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", layout.listing(ROOT), flags=re.MULTILINE))
    sources = [path for folder in layout.FOLDERS for path in layout.files(ROOT / folder)]
    names = [path.relative_to(ROOT).as_posix().partition("/")[2] for path in sources]
    assert [name for name in names if name not in listed] == []
    assert [name for name, sentence in listed.items() if not sentence] == []


def test_the_files_named_in_the_layout_exist() -> None:
    table = TEXTS["docs/layout.md"].split("## Packages")[0]
    places = re.findall(r"`([\w./]+)`", table)
    assert len(places) > 10
    assert [place for place in places if "/" in place and not (ROOT / place).exists()] == []


def test_the_pages_and_the_api_reference_build_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = "".join(page.read_text(encoding="utf-8") for page in (tmp_path / "reference").glob("*.html"))
    modules = (path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / "bnmodel").glob("*/*.py"))
    public = [".".join(parts) for parts in modules if not any(part.startswith("_") for part in parts)]
    assert [module for module in public if f'id="{module}"' not in reference] == []
    assert 'id="bnmodel.nn.batchnorm.CustomBatchNorm"' in reference
    assert "http" not in "".join(re.findall(r'<(?:script|link)[^>]+(?:src|href)="([^"]+)"', reference))
