"""Fuzzing of the app over HTTP: `python -m benchmarks.fuzzing`, and a part of it in `tests/demo/test_fuzzing.py`.

`values` draws values, `files` makes uploads; `calls` and `requests` are the kinds of requests, as infinite iterators
determined by a random generator; `attack` sends them and checks the answers.
"""
