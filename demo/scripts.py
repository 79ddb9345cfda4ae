"""The scripts that many components run when they are mounted, sent to the browser once."""

from pathlib import Path

SHARED = ("tab", "touch", "take_home")


def on_mount(name: str) -> str:
    """A component's `js_on_load` that runs `name`.js, one of `SHARED`."""
    return f"onMount.{name}(element, trigger);"


def to_head() -> str:
    """HTML for the page's head, which Gradio runs before it mounts the components."""
    sources = {name: (Path(__file__).parent / f"{name}.js").read_text(encoding="utf-8") for name in SHARED}
    functions = ",\n".join(f"{name}(element, trigger) {{\n{source}}}" for name, source in sources.items())
    return f"<script>\nwindow.onMount = {{\n{functions}\n}};\n</script>"
