"""One file an idea: run(…) → a frozen result of arrays; figure(result) → a matplotlib Figure.

Nothing here changes the network it is given, neither its mode nor its buffers: each function works on a private copy,
so that one network can serve many users at once. The same arguments give the same result.
"""
