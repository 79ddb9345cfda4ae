"""python -m demo"""

import argparse
import gc
import os
from unittest.mock import patch

from demo.server.address import NAME, PORT, mistake

if __name__ == "__main__":
    # the variables are Gradio's; without a parser, `--help` and `--port` would be ignored
    usage = f"[{NAME}=ADDRESS] [{PORT}=PORT] python -m demo"
    about = "Start the app, by default at http://localhost:7860"
    parser = argparse.ArgumentParser(prog="python -m demo", usage=usage, description=about)
    parser.parse_args()
    if wrong := mistake(os.environ):
        parser.error(wrong)
    gc.disable()  # until the app is built, which creates no garbage worth the second that collecting takes
    # Gradio writes type stubs for its components, a third of its import time, unless it does not find their source
    with patch("inspect.getfile", side_effect=OSError):
        import gradio  # noqa: F401
    from demo.app import main

    main()
