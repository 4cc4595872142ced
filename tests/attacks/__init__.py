"""Hostile input: what arrives from strangers, and machines that fail at the worst moment.

Everything here is held to one rule: no crash, no hang, no partial file, no traceback; one clear line and a non-zero
exit where the work cannot be done. `pytest attacks` runs it all; `python -m tests.attacks.fuzz --cases 10000` goes on.
"""
