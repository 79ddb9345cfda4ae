"""The page's scripts and styles; those that many components run when they are mounted are sent only once."""

from pathlib import Path

SHARED = ("tab", "touch", "take_home")


def source(name: str) -> str:
    """The text of a file in this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def on_mount(name: str) -> str:
    """A component's `js_on_load` that runs `name`.js, one of `SHARED`."""
    return f"onMount.{name}(element, trigger);"


def to_head() -> str:
    """HTML for the page's head, which Gradio runs before it mounts the components."""
    sources = {name: source(f"{name}.js") for name in SHARED}
    functions = ",\n".join(f"{name}(element, trigger) {{\n{text}}}" for name, text in sources.items())
    return f"<script>\nwindow.onMount = {{\n{functions}\n}};\n</script>"
