"""`python -m devstack up|down|status|load|env`: only what was asked for goes to standard output."""

import argparse
import sys

from devstack.errors import DevstackError
from devstack.families import load_example
from devstack.stack import CHECKOUT, Stack
from devstack.status import table

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parse(arguments)
    try:
        return _run(options)
    except DevstackError as error:
        print(f"devstack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "devstack: interrupted; what was started keeps running, `up` and `down` know of it",
            file=sys.stderr,
        )
        return INTERRUPTED


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=sys.modules["devstack"].__doc__)
    parser.add_argument("--name", default="dev", help="which stack of this checkout (default: dev)")
    parser.add_argument("--durable-queues", action="store_true", help="keep messages when the SQS server restarts")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start what is not running and wait until each service answers")
    down = commands.add_parser("down", help="stop what `up` started; the data stays")
    down.add_argument("--all", action="store_true", help="every stack of this checkout")
    commands.add_parser("status", help="show each service; exit code 1 unless all answer")
    commands.add_parser("load", help="load a small family of aligned texts, root-bo among them, into the graph")
    commands.add_parser("env", help='print export lines, for: eval "$(python -m devstack env)"')
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    stack = Stack(options.name, durable_queues=options.durable_queues, say=_say)
    match options.command:
        case "up":
            stack.up()
        case "down":
            _down(stack, options.all)
        case "status":
            rows = stack.status()
            print(table(rows))
            return 0 if all(row.up for row in rows) else 1
        case "load":
            family = load_example(stack.env())
            print(f"The graph holds {', '.join(sorted(family.manifestations))}.")
        case "env":
            quiet = Stack(options.name)
            for name, value in quiet.env().items():
                print(f"export {name}={_quote(value)}")
    return 0


def _down(stack: Stack, every: bool) -> None:
    names = sorted(path.parent.name for path in (CHECKOUT / ".devstack").glob("*/lock")) if every else [stack.name]
    for name in names:
        Stack(name, say=_say).down()


def _quote(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
