"""The shipped files in other runtimes: how far off, how fast, how large, and why not."""
