"""What the benchmarks share, one small module each.

``arguments`` of the command line, the ``machine`` they ran on, ``timing`` in turns, medians and ratios with their
``spread``, ``results`` kept as JSON and resumed, the loop over ``parts``; ``images``, ``setting`` and ``made_up``: what
is measured.
"""
