"""Check the requested address and port of the app before Gradio reads them."""

import errno
import socket
from collections.abc import MutableMapping

NAME, PORT = "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"
LARGEST_PORT = 65535
DEFAULT_NAME = "127.0.0.1"


def mistake(environment: MutableMapping[str, str]) -> str:
    """What is wrong with the variables, or "". Removes empty ones, which Gradio would not treat as unset."""
    for variable in (NAME, PORT):
        if not environment.get(variable, "").strip():
            environment.pop(variable, None)
    port = environment.get(PORT, "")
    if port and not (port.strip().isdecimal() and len(port.strip()) <= 5 and 1 <= int(port) <= LARGEST_PORT):
        return f"{PORT}: expected a whole number from 1 to {LARGEST_PORT}, received {port!r}; for example {PORT}=7860"
    return _unusable(environment.get(NAME, DEFAULT_NAME), int(port or 0))


def _unusable(name: str, port: int) -> str:
    """Why the app cannot listen there, or "". Port 0 stands for any: only the address is tested."""
    try:
        with socket.socket() as trial:  # IPv4, as Gradio's own trial
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((name, port))
    except (OSError, UnicodeError) as error:  # a name that IDNA cannot encode
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            return (
                f"{PORT}: expected a free port, received {port}, on which another program listens; choose another one, "
                f"or leave {PORT} out for the first free port from 7860 on"
            )
        if number == errno.EACCES:
            return f"{PORT}: expected a port that you may use, received {port}; choose one from 1024 to {LARGEST_PORT}"
        return (
            f"{NAME}: expected an IPv4 address or name of this machine, received {name!r} ({error}); "
            f"{DEFAULT_NAME} for this machine only, 0.0.0.0 for others too"
        )
    return ""
