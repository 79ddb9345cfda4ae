"""Fixtures for the tests of the app."""

from playwright.sync_api import expect

expect.set_options(timeout=30_000)  # ms, for a busy machine
