"""One file a tab, one tab an idea: controls and wiring, no computation. Each has a `build(page)`."""
