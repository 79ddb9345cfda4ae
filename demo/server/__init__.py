"""Checks of requests, limits of resources, and live training."""
