"""The app attacked over HTTP, as a stranger would: `python -m benchmarks.fuzzing`, and `tests/demo/test_fuzzing.py`.

`values` are what requests are made of, `files` what is uploaded; `calls` and `requests` are the kinds of attacks, each
an iterator without end, the same for the same generator; `attack` sends them and judges the answers.
"""
