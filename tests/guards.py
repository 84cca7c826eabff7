"""`python -m tests.guards`: take each guard out of the code, one at a time, and see its test fail.

Invariant: the working tree is never touched: what is changed is a copy of `app`, which the test run imports instead.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
LIMIT_SECONDS: Final = 600
RUN: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); import app, pytest; sys.exit(pytest.main(sys.argv[1:]))"


class Guard(NamedTuple):
    """`code` stands once in `path`; with `without` in its place, `test` fails."""

    what: str
    path: str
    code: str
    without: str
    test: str


CLAIMS = "tests/contract/test_claim_store.py"
RESULTS = "tests/contract/test_result_store.py"
OUTBOX = "tests/contract/test_outbox_store.py"
ACKNOWLEDGE = "tests/integration/test_acknowledge.py"

GUARDS: Final = (
    Guard(
        "the lease check of the claim",
        "app/db/claims.py",
        "WHEN t.status = 'IN_PROGRESS' AND t.lease_expires_at > clock.now THEN 'held'",
        "",
        f"{CLAIMS}::test_a_live_lease_holds_and_the_row_is_not_touched",
    ),
    Guard(
        "the wait of a RETRYING segment",
        "app/db/claims.py",
        "WHEN t.status = 'RETRYING' AND t.retry_at > clock.now THEN 'held'",
        "",
        f"{CLAIMS}::test_retrying_is_held_until_its_time_and_then_claimed",
    ),
    Guard(
        "the limit on attempts of the claim",
        "app/db/claims.py",
        "WHEN t.status = 'IN_PROGRESS' AND t.attempts >= %(max_attempts)s THEN 'abandoned'",
        "",
        f"{CLAIMS}::test_the_workers_died_on_it_so_often_that_it_is_abandoned",
    ),
    Guard(
        "a row is claimed only as it was classified",
        "app/db/claims.py",
        "      AND t.claim_token IS NOT DISTINCT FROM seen.claim_token\n      AND t.status = seen.status\n",
        "",
        "tests/integration/test_locks.py::test_a_row_inserted_after_the_locks_is_claimed_only_as_it_was_classified",
    ),
    Guard(
        "the token when a lease is renewed",
        "app/db/claims.py",
        "AND t.claim_token = w.token AND t.status = 'IN_PROGRESS'\nRETURNING",
        "AND t.status = 'IN_PROGRESS'\nRETURNING",
        f"{CLAIMS}::test_only_live_tokens_are_renewed",
    ),
    Guard(
        "the token when a segment ends",
        "app/db/results.py",
        "WHERE t.task_id = w.task_id AND t.claim_token = w.token AND t.status = 'IN_PROGRESS'",
        "WHERE t.task_id = w.task_id AND t.status = 'IN_PROGRESS'",
        f"{RESULTS}::test_a_token_that_is_gone_changes_and_counts_nothing",
    ),
    Guard(
        "only rows that were changed are counted",
        "app/db/results.py",
        "    FROM settled\n    WHERE status IN",
        "    FROM (SELECT t.job_id, w.status FROM wanted w JOIN segment_task t USING (task_id)) AS all_wanted\n"
        "    WHERE status IN",
        f"{RESULTS}::test_a_token_that_is_gone_changes_and_counts_nothing",
    ),
    Guard(
        "the outbox row in the transaction that completes the job",
        "app/db/results.py",
        "    WHERE status = 'COMPLETED'\n    ON CONFLICT",
        "    WHERE status = 'NEVER'\n    ON CONFLICT",
        f"{RESULTS}::test_the_counters_decide_the_job_s_status",
    ),
    Guard(
        "the job's status from its locked counters",
        "app/db/results.py",
        "WHEN j.completed_segments + c.completed = j.total_segments THEN 'COMPLETED'",
        "WHEN false THEN 'COMPLETED'",
        f"{RESULTS}::test_the_counters_decide_the_job_s_status",
    ),
    Guard(
        "the lease on an outbox row",
        "app/db/outbox.py",
        "AND (o.leased_until IS NULL OR o.leased_until < clock_timestamp())",
        "",
        f"{OUTBOX}::test_a_completed_job_has_one_row_leased_to_its_finisher",
    ),
    Guard(
        "the token when a completion is marked sent",
        "app/db/outbox.py",
        "WHERE o.job_id = w.job_id AND o.lease_token = w.token",
        "WHERE o.job_id = w.job_id",
        f"{OUTBOX}::test_a_lease_that_ran_out_goes_to_somebody_else_whose_token_alone_marks",
    ),
    Guard(
        "one sweep at a time re-sends",
        "app/db/outbox.py",
        "WHERE (SELECT mine FROM turn)\n      AND t.status",
        "WHERE t.status",
        "tests/integration/test_locks.py::test_a_sweep_leaves_re_sending_to_the_one_that_is_at_it",
    ),
    Guard(
        "what is set ends with its transaction",
        "app/db/postgres.py",
        "SET LOCAL statement_timeout =",
        "SET statement_timeout =",
        "tests/integration/test_postgres.py::test_nothing_that_is_set_outlives_its_transaction",
    ),
    Guard(
        "the planner's settings end with their transaction",
        "app/db/prepared.py",
        "SET LOCAL plan_cache_mode =",
        "SET plan_cache_mode =",
        "tests/integration/test_prepared.py::test_plans_that_suit_small_tables_are_ruled_out_while_it_runs_and_no_longer",
    ),
    Guard(
        "what a pooler refuses is repeated as text",
        "app/db/postgres.py",
        "repeatable = code in _REPEATABLE or code in _NO_SUCH_PLAN",
        "repeatable = code in _REPEATABLE",
        "tests/integration/test_prepared.py::test_lanes_that_are_refused_at_once_all_repeat",
    ),
    Guard(
        "a PostgreSQL that only reads is down",
        "app/db/postgres.py",
        "if only_reads:",
        "if False:",
        "tests/integration/test_postgres.py::test_a_server_that_only_reads_is_down",
    ),
    Guard(
        "a missing right is not a missing migration",
        "app/db/postgres.py",
        "if code in _OTHER_TABLES:",
        'if code[:2] == "42":',
        "tests/integration/test_postgres.py::test_a_right_that_is_missing_is_named_and_no_migration_advised",
    ),
    Guard(
        "a held message is hidden, not deleted",
        "app/tasks.py",
        'return Hide(seconds, "held")',
        'return Done("held")',
        "tests/unit/test_tasks.py::test_what_another_works_on_is_hidden_until_just_after_its_lease",
    ),
    Guard(
        "an outage charges no attempt",
        "app/tasks.py",
        "return [GivenBack(claim) for claim in held]",
        "return [self._charge(claim, error) for claim in held]",
        "tests/unit/test_tasks_failures.py::test_an_outage_of_the_graph_gives_all_back_and_pauses",
    ),
    Guard(
        "a lost claim's message is left alone",
        "app/tasks.py",
        'return Leave("the claim is lost")',
        'return Done("the claim is lost")',
        "tests/unit/test_tasks_failures.py::test_a_claim_lost_before_the_walk_is_not_walked",
    ),
    Guard(
        "no work goes on whose lease is gone",
        "app/tasks.py",
        "held = [claim for claim in claims if not self._leases.is_lost(claim)]",
        "held = list(claims)",
        "tests/unit/test_tasks_failures.py::test_a_claim_lost_before_the_walk_is_not_walked",
    ),
    Guard(
        "a lost claim's visibility is not extended",
        "app/heartbeat.py",
        "            self._let_go({(claim.job_id, claim.segment_id) for claim in gone})\n",
        "",
        "tests/unit/test_heartbeat.py::test_a_lost_claim_is_marked_and_its_message_left_alone",
    ),
    Guard(
        "a fresh copy on the last receive",
        "app/acknowledge.py",
        "case Hide(seconds) if self._is_last_receive(delivery):",
        "case Hide(seconds) if False:",
        f"{ACKNOWLEDGE}::test_on_the_last_receive_good_work_is_sent_as_a_fresh_copy",
    ),
    Guard(
        "a copied message is deleted only once its copy is sent",
        "app/acknowledge.py",
        "for at, (delivery, _) in enumerate(copying) if at not in refused]",
        "for at, (delivery, _) in enumerate(copying)]",
        f"{ACKNOWLEDGE}::test_an_original_whose_copy_can_not_be_sent_stays_where_it_is",
    ),
    Guard(
        "a dead letter is deleted only once it is sent on",
        "app/acknowledge.py",
        "                hiding.append((delivery, REDRIVE_SECONDS))\n            else:",
        "                deleting.append(delivery)\n            else:",
        f"{ACKNOWLEDGE}::test_a_dead_letter_that_can_not_be_sent_stays_where_it_is",
    ),
    Guard(
        "the freshness of pages in memory",
        "app/cache_memory.py",
        "entry.page.read_at_us >= fresh_since_us and ",
        "",
        "tests/unit/test_cache.py::test_no_worker_ever_gets_a_page_older_than_it_asks_for",
    ),
    Guard(
        "the freshness of pages in the shared cache",
        "app/cache_shared.py",
        "page is not None and page.read_at_us >= needs[name]",
        "page is not None",
        "tests/unit/test_cache.py::test_no_worker_ever_gets_a_page_older_than_it_asks_for",
    ),
    Guard(
        "the freshness of pages at hand",
        "app/mirrors.py",
        "if page.read_at_us >= read_at_us:",
        "if True:",
        "tests/unit/test_mirrors.py::test_a_page_that_was_read_earlier_shows_nothing",
    ),
    Guard(
        "a merged pair is read from its other end",
        "app/mirrors.py",
        "if pair.is_whole and pair.target in mirrors:",
        "if pair.target in mirrors:",
        "tests/unit/test_mirrors.py::test_pages_of_any_family_are_the_same_beside_pages_at_hand",
    ),
    Guard(
        "the checksum of a cached page",
        "app/page_format.py",
        "if blake2b(rest, digest_size=DIGEST_BYTES).digest() != data[len(MAGIC) : _HEADER.size]:",
        "if False:",
        "tests/unit/test_page_format.py::test_a_flipped_bit_anywhere_is_noticed",
    ),
)


def main() -> int:
    """Try each; 1 when a test does not miss its guard."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.guards",
        description="Takes each guard out of a copy of the code, one at a time, and sees its test fail.",
    )
    parser.add_argument("words", nargs="*", help="only guards whose description holds all of them")
    words = parser.parse_args().words
    chosen = [guard for guard in GUARDS if all(word in guard.what for word in words)]
    if not chosen:
        parser.error(f"no guard is described by: {' '.join(words)}")
    passed, output = _run(sorted({guard.test for guard in chosen}))
    if not passed:
        print(f"The tests fail although nothing was taken out:\n{output}")
        return 1
    return 1 if sum([not _is_missed(guard) for guard in chosen]) else 0


def _is_missed(guard: Guard) -> bool:
    passed, output = _run([guard.test], guard)
    lines = output.splitlines()
    failures = [line for line in lines if line.startswith(f"FAILED {guard.test}")]
    missed = not passed and bool(failures) and not any(line.startswith("ERROR ") for line in lines)
    print(f"{'ok        ' if missed else 'NOT MISSED'} without {guard.what}: {(failures or lines[-1:])[0]}", flush=True)
    return missed


def _run(tests: Sequence[str], without: Guard | None = None) -> tuple[bool, str]:
    """Whether the tests pass on a copy of the code, and what pytest says."""
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        shutil.copytree(ROOT / "app", Path(folder) / "app")
        if without is not None:
            _remove(without, Path(folder))
        command = [sys.executable, "-c", RUN, folder, "-q", "-x", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    return done.returncode == 0, done.stdout.strip()


def _remove(guard: Guard, folder: Path) -> None:
    path = folder / guard.path
    text = path.read_text(encoding="utf-8")
    assert text.count(guard.code) == 1, guard
    path.write_text(text.replace(guard.code, guard.without), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
