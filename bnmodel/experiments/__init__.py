"""Experiments, one module each: run(…) → a frozen result of arrays; figure(result) → a matplotlib Figure.

No experiment changes the network it is given, neither its mode nor its buffers: each works on a copy, so that one
network can serve many users at once. The same arguments give the same result.
"""
