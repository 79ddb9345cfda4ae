"""Start the app. A Hugging Face Space runs this file."""

import runpy

if __name__ == "__main__":
    runpy.run_module("demo", run_name="__main__")
