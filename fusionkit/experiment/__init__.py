"""Train an operator on data, record the result, compare results: ``fusionkit run``, ``leaderboard`` and ``load``."""
