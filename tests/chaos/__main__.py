"""``python -m tests.chaos``: one campaign; exit code 0 when every invariant held, 1 when not."""

import argparse
import random
import sys

from tests.chaos.campaign import Options, run


def main() -> int:
    """Read the options, run, report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Breaks PostgreSQL, Neo4j, SQS, the cache, the network and the workers at random while jobs run,"
        " heals everything, and checks that nothing was lost. The same seed makes the same plan.",
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long things are broken (default: 600)")
    parser.add_argument("--seed", type=int, help="of the plan (default: a random one, which is printed)")
    parser.add_argument("--workers", type=int, default=3, help="how many run at once (default: 3)")
    parser.add_argument("--rate", type=float, default=40, help="segments a second that are asked for (default: 40)")
    parser.add_argument("--drain", type=float, default=300, help="limit for finishing afterwards, in s (default: 300)")
    parser.add_argument("--only", default="", help="only faults whose name begins so, several with commas")
    parser.add_argument("--keep-logs", action="store_true", help="keep the workers' logs even when all is well")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    only = tuple(part for part in given.only.split(",") if part)
    return run(Options(given.seconds, seed, given.workers, given.rate, given.drain, only, given.keep_logs))


if __name__ == "__main__":
    sys.exit(main())
