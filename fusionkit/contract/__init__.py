"""The conformance kit: proves that a fusion operator, or a fabrication, keeps its contract.

A check is a function ``check_<name>(subject)`` with one rule; see ``docs/contract.md`` for the list.
"""
