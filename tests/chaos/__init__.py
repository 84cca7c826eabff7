"""The fault campaign: things are broken while jobs run, and at the end nothing may be lost.

`python -m tests.chaos --seed 7` (or `make chaos ARGS="--seed 7"`); docs/reliability.md tells what it showed.
"""
