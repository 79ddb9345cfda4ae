"""The error that every failed export, load or verification ends in."""


class ExportError(Exception):
    """A network or a folder cannot be exported or loaded; the message names what was found and the remedy."""


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's message, or its type where there is none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]
