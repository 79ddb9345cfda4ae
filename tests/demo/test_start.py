"""Start of the app: what it loads before the page is usable, and errors in its options."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ROOT
from demo.page import DEFAULT, Page
from demo.server.address import NAME, PORT, mistake
from export.recogniser import load

WHEN_NEEDED = ("matplotlib", "onnx", "scipy", "sklearn", "torchvision", "bnmodel.deploy.certification")


def test_the_app_starts_without_what_only_its_tabs_need() -> None:
    lines = f"""
import sys
from demo.app import CHECKPOINTS, build_app
build_app(CHECKPOINTS)
print(*(name for name in {WHEN_NEEDED!r} if name in sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_the_numbers_file_is_loaded_when_it_is_first_needed(tmp_path: Path) -> None:
    folder = ROOT / "checkpoints" / DEFAULT
    for name in ("digits.onnx", "sketch.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "numbers.onnx").write_bytes(b"")
    recognizer = load(tmp_path)
    (tmp_path / "numbers.onnx").write_bytes((folder / "numbers.onnx").read_bytes())
    example = Page(ROOT / "checkpoints").example
    assert recognizer.read_numbers(example).text == str(recognizer.read(example).label)


def test_an_option_that_does_not_exist_is_refused_with_the_variables_that_do() -> None:
    ended = subprocess.run([sys.executable, "-m", "demo", "--port", "80"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "GRADIO_SERVER_PORT=PORT" in ended.stderr


def test_a_wrong_port_is_refused_with_a_message_before_anything_is_loaded() -> None:
    command, environment = [sys.executable, "-m", "demo"], {**os.environ, PORT: "abc"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert f"{PORT}: expected a whole number from 1 to 65535, received 'abc'; for example" in ended.stderr


@pytest.mark.parametrize("port", ["0", "65536", "-1", "7860.0", "²", "7_860"])
def test_invalid_ports_are_refused(port: str) -> None:
    assert f"received {port!r}" in mistake({PORT: port})


def test_a_port_in_use_is_refused_and_a_free_one_accepted() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = str(other.getsockname()[1])
        other.listen()
        assert f"expected a free port, received {port}" in mistake({PORT: port})
    assert mistake({PORT: port}) == ""


def test_addresses_of_other_machines_or_of_none_are_refused() -> None:
    for name in ("192.0.2.1", "no such machine", "long" * 20):
        assert f"{NAME}: expected an IPv4 address or name of this machine, received {name!r}" in mistake({NAME: name})


def test_an_empty_variable_counts_as_unset() -> None:
    environment = {NAME: "", PORT: " "}
    assert mistake(environment) == ""
    assert environment == {}
