"""The tab “Your model”: findings of an ONNX file, which is deleted afterwards."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from demo.tabs.your_model import EXAMPLES, EXPLAINED, NAMES, report, uploaded

ERRORS = {"sound": set(), "train-mode": {"training-mode", "batch-dependent"}, "never-updated": {"never-updated"}}


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_have_the_faults_they_are_named_after(name: str) -> None:
    html = report(EXAMPLES / f"{name}.onnx", f"{name}.onnx")
    assert ("is <b>sound</b>" in html) == (not ERRORS[name])
    assert ("data-done" in html) == bool(ERRORS[name])
    for code in ERRORS[name]:
        assert f"({code})" in html
        assert f'href="?tab={EXPLAINED[code]}"' in html


@pytest.mark.parametrize("name", NAMES)
def test_as_many_errors_are_announced_as_are_listed(name: str) -> None:
    html = report(EXAMPLES / f"{name}.onnx", f"{name}.onnx")
    count = html.count('<li class="error">')
    assert count == len(ERRORS[name])
    assert not count or f"<b>not sound</b>: {count} error{'' if count == 1 else 's'}." in html


def test_the_calls_in_a_remedy_are_code_and_its_prose_is_not() -> None:
    html = report(EXAMPLES / "train-mode.onnx", "train-mode.onnx")
    assert "Remedy: export the eval copy: <code>torch.onnx.export(model.eval(), …)</code>." in html


def test_an_uploaded_file_is_deleted_also_when_it_is_no_model(tmp_path: Path) -> None:
    for content in (None, b"no model"):
        path = tmp_path / "mine.onnx"
        if content is None:
            shutil.copy(EXAMPLES / "sound.onnx", path)
        else:
            path.write_bytes(content)
        html, cleared = uploaded({"path": str(path), "orig_name": "mine.onnx"})
        assert "mine.onnx" in html
        assert cleared is None
        assert not path.exists()


def test_a_picture_in_place_of_a_model_is_refused_and_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "seven.png"
    path.write_bytes(b"a picture")
    html, _ = uploaded({"path": str(path), "orig_name": "seven.png"})
    assert "Not analysed" in html
    assert path.exists()


def test_a_pytorch_checkpoint_is_refused_with_how_to_export_it(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    html, _ = uploaded({"path": str(path), "orig_name": "<b>best.pt"})
    assert "&lt;b&gt;best.pt: expected an ONNX file" in html
    assert "torch.onnx.export(" in html


def test_names_and_messages_of_a_file_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no model")
    assert "<script>" not in report(path, "<script>.onnx")


def test_the_page_inspects_an_example_and_an_own_file(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()  # not the fixture: Gradio's upload of a small file logs a 404 of its own
    page.goto(f"{app_url}?tab=your-model")
    page.get_by_role("button", name=NAMES["train-mode"]).click()
    expect(page.locator("#inspection")).to_contain_text("training-mode", timeout=60_000)
    page.locator("#your-model input[type=file]").set_input_files(str(EXAMPLES / "sound.onnx"))
    expect(page.locator("#inspection")).to_contain_text("sound.onnx, with 2 batch norms, is sound", timeout=60_000)
    page.locator("#your-model input[type=file]").set_input_files(
        {"name": "best.pt", "mimeType": "application/octet-stream", "buffer": b"weights"}
    )
    expect(page.locator("#inspection")).to_contain_text("best.pt: expected an ONNX file")
    page.close()
