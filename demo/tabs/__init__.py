"""The tabs, one per file: controls and wiring, no computation. Each has a `build(page)`."""
