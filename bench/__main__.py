"""`python -m bench`: measure the worker beside two contestants, on the real local services.

Invariant: what was measured before an interruption is kept: the JSON is written after each profile.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from bench.ground import PREFIX, ROOT, BenchError, Ground
from bench.machine import busy_warning, describe_machine, describe_versions
from bench.profiles import PROFILES, Bench
from bench.report import TITLES, markdown
from bench.sizes import FULL, QUICK, Scale
from devstack.errors import DevstackError
from devstack.locks import exclusive
from devstack.stack import Stack

OUT = ROOT / "bench" / "out"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code says whether it could be done, not how good the figures are."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with exclusive(ROOT / ".devstack" / f"{options.stack}.in-use", "another run of the benchmark"):
            document = _measure(options)
    except (BenchError, DevstackError) as error:
        _say(f"The benchmark stopped: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Interrupted.")
        return 130
    if options.plot:
        from bench.plot import draw  # loads slowly

        draw(document, options.plot)
        _say(f"picture: {options.plot}")
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    scale: Scale = QUICK if options.quick else FULL
    machine = describe_machine()
    document: dict[str, Any] = {
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "machine": machine,
        "scale": scale.name,
        "repeats": options.repeats or (1 if options.quick else 3),
        "seed": options.seed,
        "warning": busy_warning(machine),
        "profiles": {},
    }
    if document["warning"]:
        _say(document["warning"])
    out = OUT / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}.json"
    stack = Stack(options.stack, say=_say)
    try:
        with Ground.open(stack) as ground:
            document["versions"] = describe_versions(ground)
            bench = Bench(ground, scale, document["repeats"], options.seed, _say)
            for name in options.profile:
                _say(f"{name}: {TITLES[name]}")
                began = time.monotonic()
                profile = PROFILES[name](bench)
                document["profiles"][name] = {**profile, "seconds": round(time.monotonic() - began, 1)}
                _write(out, document)
    finally:
        if not options.keep:
            stack.down()
    print(markdown(document))
    _say(f"written: {out.relative_to(ROOT)}, {out.with_suffix('.md').relative_to(ROOT)}")
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(document), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the worker beside two contestants.")
    parser.add_argument(
        "--profile",
        type=_profiles,
        default=[*PROFILES],
        metavar="NAME,...",
        help=f"which of {','.join(PROFILES)} (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat: does it run at all?")
    parser.add_argument("--repeats", type=int, metavar="N", help="of each variant (default: 3; 1 with --quick)")
    parser.add_argument("--seed", type=int, default=0, help="of the text families (default: 0)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the scaling curves")
    parser.add_argument("--stack", default=PREFIX, metavar="NAME", help=f"the local stack (default: {PREFIX})")
    parser.add_argument("--keep", action="store_true", help="leave the services running at the end")
    return parser


def _profiles(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted({*names} - {*PROFILES}):
        raise argparse.ArgumentTypeError(f"no such profile: {', '.join(unknown)}")
    return names


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
