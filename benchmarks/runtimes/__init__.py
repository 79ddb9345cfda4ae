"""The shipped files in other runtimes: their accuracy, speed and size, or the reason why they do not run."""
