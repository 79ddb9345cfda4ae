"""python -m demo"""

import gc
from unittest.mock import patch

if __name__ == "__main__":
    gc.disable()  # until the app is built, which creates no garbage worth the second that collecting takes
    # Gradio writes type stubs for its components, a third of its import time, unless it does not find their source
    with patch("inspect.getfile", side_effect=OSError):
        import gradio  # noqa: F401
    from demo.app import main

    main()
