"""`python -m tests.guards`: take each guard out of the code, one at a time, and see its test fail.

Invariant: the working tree is never touched: what is changed is a copy of `app`, which the test run imports instead.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from devstack.stack import Stack
from tests.support.stacks import SHARED_STACK, reserve

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
CONSUMER = "tests/integration/test_consumer.py"
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
        "WHEN t.status = 'IN_PROGRESS' AND t.claimed_alone AND t.attempts >= %(max_attempts)s THEN 'abandoned'",
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
        "      ON t.task_id = w.task_id AND t.claim_token = w.token\n    WHERE t.status = 'IN_PROGRESS'\n    ORDER BY",
        "      ON t.task_id = w.task_id\n    WHERE t.status = 'IN_PROGRESS'\n    ORDER BY",
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
        "    WHERE e.status = 'COMPLETED'\n    ON CONFLICT",
        "    WHERE e.status = 'NEVER'\n    ON CONFLICT",
        f"{RESULTS}::test_the_counters_decide_the_job_s_status",
    ),
    Guard(
        "the job's status from its locked counters",
        "app/db/results.py",
        "CASE j.failed_segments WHEN 0 THEN 'COMPLETED' ELSE 'FAILED' END",
        "CASE WHEN false THEN 'COMPLETED' ELSE 'FAILED' END",
        f"{RESULTS}::test_the_counters_decide_the_job_s_status",
    ),
    Guard(
        "a suspect is not claimed beside others",
        "app/db/claims.py",
        "WHEN t.status = 'IN_PROGRESS' AND t.claim_token IS NOT NULL AND NOT %(alone)s THEN 'suspect'",
        "WHEN t.claim_token IS NOT NULL AND NOT %(alone)s AND false THEN 'suspect'",
        f"{CLAIMS}::test_a_lease_that_ran_out_without_an_ending_makes_a_suspect_and_the_row_is_not_touched",
    ),
    Guard(
        "only a death that a segment was alone in is charged",
        "app/db/claims.py",
        "AND t.claim_token IS NOT NULL AND NOT t.claimed_alone THEN t.attempts",
        "AND t.claim_token IS NOT NULL AND false THEN t.attempts",
        f"{CLAIMS}::test_a_suspect_is_claimed_alone_and_a_death_beside_others_is_not_charged",
    ),
    Guard(
        "a suspect has its process to itself",
        "app/tasks.py",
        "            with self._room.alone():\n",
        "            with self._room.shared():\n",
        "tests/unit/test_tasks_failures.py::test_a_suspect_waits_until_nobody_else_works",
    ),
    Guard(
        "a claim that is repeated is known",
        "app/db/claims.py",
        "WHEN t.status = 'IN_PROGRESS' AND t.claim_token = w.token THEN 'ours'",
        "",
        f"{CLAIMS}::test_a_claim_that_is_repeated_is_the_same_claim",
    ),
    Guard(
        "a settling that is repeated is known",
        "app/db/results.py",
        "        settled_token = w.token,\n",
        "",
        f"{RESULTS}::test_a_settling_that_is_repeated_announces_its_job_as_the_first_time",
    ),
    Guard(
        "a job ends with its last row, whatever its producer counted",
        "app/db/results.py",
        "      AND NOT EXISTS (\n"
        "          SELECT FROM segment_task t\n"
        "          WHERE t.job_id = j.job_id AND t.status NOT IN ('COMPLETED', 'FAILED')\n"
        "      )\n",
        "",
        f"{RESULTS}::test_more_rows_than_counted_end_with_their_job",
    ),
    Guard(
        "the job is locked after its results are stored",
        "app/db/results.py",
        "FOR NO KEY UPDATE OF t;\n\nWITH wanted",
        "FOR NO KEY UPDATE OF t;\n\n"
        "SELECT 1 FROM root_job WHERE job_id = ANY(%(ending_jobs)s::uuid[]) FOR NO KEY UPDATE;\n\nWITH wanted",
        "tests/integration/test_locks.py::test_results_are_stored_before_the_job_is_locked",
    ),
    Guard(
        "a claim leaves the keys to open inserts",
        "app/db/claims.py",
        "        FOR NO KEY UPDATE SKIP LOCKED\n    )\n)",
        "        FOR UPDATE\n    )\n)",
        "tests/integration/test_locks.py::test_a_producer_s_open_insert_holds_nobody_up",
    ),
    Guard(
        "a claim waits for no job",
        "app/db/claims.py",
        "FOR NO KEY UPDATE SKIP LOCKED\n    )\n)",
        "FOR NO KEY UPDATE\n    )\n)",
        "tests/integration/test_locks.py::test_a_job_that_somebody_has_locked_is_started_by_its_first_ending",
    ),
    Guard(
        "a locked row lets the other leases be renewed",
        "app/db/claims.py",
        "    FOR NO KEY UPDATE OF t SKIP LOCKED\n",
        "    FOR NO KEY UPDATE OF t\n",
        "tests/integration/test_locks.py::test_a_lease_is_renewed_beside_a_row_that_somebody_has_locked",
    ),
    Guard(
        "a locked job's segments are given back",
        "app/service/settling.py",
        "            return self.settle([GivenBack(ending.claim) for ending in endings], charge)\n",
        "            return {}\n",
        "tests/unit/test_tasks_failures.py::test_a_locked_job_s_segments_are_given_back_and_the_others_are_stored",
    ),
    Guard(
        "a locked row keeps no other from being claimed",
        "app/service/claiming.py",
        "        for part in _parts(requests, tokens):\n            answers |=",
        "        for part in [dict(zip(tokens, requests, strict=True))]:\n            answers |=",
        "tests/unit/test_tasks_failures.py::test_a_locked_row_is_not_claimed_and_the_others_are",
    ),
    Guard(
        "a probe repeats the claim that failed",
        "app/service/claiming.py",
        "            self._unanswered.append((requests, tokens))\n",
        "",
        "tests/unit/test_tasks_failures.py::test_a_probe_repeats_the_claim_that_failed",
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
        "WHERE (SELECT mine FROM sweep)\n      AND j.cancelled_at",
        "WHERE j.cancelled_at",
        "tests/integration/test_locks.py::test_a_sweep_leaves_re_sending_to_the_one_that_is_at_it",
    ),
    Guard(
        "a job that lacks one message waits behind no other job",
        "app/db/outbox.py",
        "ORDER BY turn, since, task_id LIMIT",
        "ORDER BY since, task_id LIMIT",
        f"{OUTBOX}::test_jobs_share_what_is_sent_again_so_that_none_waits_behind_another",
    ),
    Guard(
        "what is due is looked up in an index",
        "app/db/outbox.py",
        "AND t.next_send_at <= statement_timestamp()",
        "AND t.next_send_at <= clock_timestamp()",
        "tests/integration/test_sweep_plans.py::test_what_is_due_is_looked_up_in_an_index",
    ),
    Guard(
        "only what can be sent is marked as sent",
        "app/db/outbox.py",
        "WHERE t.task_id = due.task_id AND due.span_start IS NOT NULL",
        "WHERE t.task_id = due.task_id",
        "tests/integration/test_completion.py::test_what_the_graph_does_not_answer_for_stays_due",
    ),
    Guard(
        "a job with too many rows ends with the last of them",
        "app/db/outbox.py",
        """      AND NOT EXISTS (
          SELECT 1 FROM segment_task t
          WHERE t.job_id = j.job_id AND t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
      )
""",
        "",
        f"{OUTBOX}::test_a_job_with_more_rows_than_its_total_ends_when_they_have",
    ),
    Guard(
        "no backlog is doubled by the sweep",
        "app/outbox/pace.py",
        "if not self.has_more or 2 * waiting > self.limit:",
        "if not self.has_more:",
        "tests/integration/test_completion.py::test_a_backlog_that_stands_gets_no_more_than_one_sweep_s",
    ),
    Guard(
        "a producer's open INSERT holds up no operator",
        "app/db/repairs.py",
        "SELECT 1 FROM root_job WHERE job_id = %(job_id)s::uuid FOR NO KEY UPDATE;\n\nWITH r",
        "SELECT 1 FROM root_job WHERE job_id = %(job_id)s::uuid FOR UPDATE;\n\nWITH r",
        "tests/integration/test_jobs_repairs.py::test_no_statement_waits_for_a_producer_s_open_insert",
    ),
    Guard(
        "a reconciliation does not flood the queue",
        "app/jobs/repairs.py",
        "limit = max(FEWEST_RESENT, MOST_ON_QUEUE - messages_on_queue)",
        "limit = MOST_ON_QUEUE",
        "tests/integration/test_jobs_repairs.py::test_into_a_full_queue_it_sends_no_more_than_a_worker_would",
    ),
    Guard(
        "what has not ended is not pruned",
        "app/db/pruning.py",
        "t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')",
        "false",
        "tests/integration/test_jobs_prune.py::test_a_job_that_says_it_has_ended_before_its_rows_stays",
    ),
    Guard(
        "a job whose completion is unannounced is not pruned",
        "app/db/pruning.py",
        "o.sent_at IS NULL AND j.status = 'COMPLETED'",
        "false",
        "tests/integration/test_jobs_prune.py::test_what_ended_long_ago_goes_and_all_else_stays",
    ),
    Guard(
        "a dead letter is deleted only once it was sent on",
        "app/sqs/dead_letters.py",
        "if at not in refused]\n        kept",
        "]\n        kept",
        "tests/integration/test_jobs_dead_letters.py::test_what_the_input_queue_refuses_is_left",
    ),
    Guard(
        "redriving ends although letters come back",
        "app/jobs/dead_letters.py",
        "if letter.delivery.sent_at_ms <= until_ms",
        "if until_ms",
        "tests/integration/test_jobs_dead_letters.py::test_a_letter_that_failed_again_meanwhile_is_left",
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
        "a cut connection takes the idle ones with it",
        "app/db/pool.py",
        "if self._is_cut(error):",
        "if False:",
        "tests/integration/test_postgres.py::test_idle_connections_that_are_all_cut_cost_one_repeat",
    ),
    Guard(
        "a connection with something open on it is not lent again",
        "app/db/pool.py",
        " and made.connection.is_idle",
        "",
        "tests/integration/test_postgres.py::test_what_is_left_open_or_closed_is_not_lent_again",
    ),
    Guard(
        "a place in the pool is free whatever its borrower ends by",
        "app/db/pool.py",
        "self._places.release()",
        "pass",
        "tests/unit/test_pool.py::test_whatever_a_borrower_ends_by_gives_its_place_back",
    ),
    Guard(
        "a PostgreSQL that only reads is down",
        "app/db/checks.py",
        "if only_reads:",
        "if False:",
        "tests/integration/test_postgres.py::test_a_server_that_only_reads_is_down",
    ),
    Guard(
        "a missing right is not a missing migration",
        "app/db/failures.py",
        "if code in _OTHER_TABLES:",
        'if code[:2] == "42":',
        "tests/integration/test_postgres.py::test_a_right_that_is_missing_is_named_and_no_migration_advised",
    ),
    Guard(
        "a held message is hidden, not deleted",
        "app/service/unclaimed.py",
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
        "app/service/unclaimed.py",
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
        "app/worker/in_flight.py",
        "                if segment in segments:\n                    self._deliveries.pop(handle, None)\n",
        "                pass\n",
        "tests/unit/test_heartbeat.py::test_a_lost_claim_is_marked_and_its_message_left_alone",
    ),
    Guard(
        "a poll that may have been answered is not repeated",
        "app/sqs/lean.py",
        '        if status >= SERVER_ERROR:\n            raise _as_client_error(status, reply, "ReceiveMessage")\n',
        "",
        "tests/unit/test_lean_calls.py::test_a_poll_that_may_have_been_answered_is_not_repeated",
    ),
    Guard(
        "a fresh copy on the last receive",
        "app/sqs/acknowledge.py",
        "case Hide(seconds) if self._is_last_receive(delivery):",
        "case Hide(seconds) if False:",
        f"{ACKNOWLEDGE}::test_on_the_last_receive_good_work_is_sent_as_a_fresh_copy",
    ),
    Guard(
        "a copied message is deleted only once its copy is sent",
        "app/sqs/acknowledge.py",
        "for at, (delivery, _) in enumerate(copying) if at not in refused]",
        "for at, (delivery, _) in enumerate(copying)]",
        f"{ACKNOWLEDGE}::test_an_original_whose_copy_can_not_be_sent_stays_where_it_is",
    ),
    Guard(
        "a dead letter is deleted only once it is sent on",
        "app/sqs/acknowledge.py",
        "return [delivery for at, (delivery, _) in enumerate(burying) if at not in refused]",
        "return [delivery for delivery, _ in burying]",
        f"{ACKNOWLEDGE}::test_a_dead_letter_that_can_not_be_sent_stays_where_it_is",
    ),
    Guard(
        "a refusal of the graph charges no segment",
        "app/graph/session.py",
        "    if isinstance(error, vendor.ClientError):\n        return RefusedError(SERVICE, _brief(error))\n",
        "",
        "tests/unit/test_neo4j_session.py::test_nothing_that_the_server_says_fails_a_segment_for_good",
    ),
    Guard(
        "no text exists only in a graph that shows others",
        "app/graph/page_reading.py",
        "self._note_texts(pages)",
        "pass",
        "tests/integration/test_neo4j_database.py::test_a_graph_that_shows_no_text_any_more_is_an_outage",
    ),
    Guard(
        "a walk's waiting for the graph is bounded",
        "app/graph/page_reading.py",
        "if reading.patience.left <= 0:",
        "if False:",
        "tests/unit/test_neo4j_session.py::"
        "test_a_walk_does_not_wait_for_a_slow_server_without_end_and_blames_no_page_that_was_not_tried",
    ),
    Guard(
        "each part of a load is kept",
        "app/caching/tiers.py",
        "            self._memory.put(pages.values())\n            if (shared",
        "            if (shared",
        "tests/unit/test_cache.py::test_each_part_of_a_load_is_kept_though_a_later_one_fails",
    ),
    Guard(
        "a page that took too long is not asked for by one thread after another",
        "app/caching/tiers.py",
        "self._remember_too_slow(error.pages)",
        "pass",
        "tests/unit/test_cache.py::test_who_waits_for_a_page_that_took_too_long_shares_that_and_the_others_go_on",
    ),
    Guard(
        "what a hung lane holds is left to its leases",
        "app/worker/loop.py",
        "                self._abandon(stalled)\n",
        "",
        f"{CONSUMER}::test_what_a_hung_lane_holds_is_left_to_its_lease_and_the_rest_is_given_back",
    ),
    Guard(
        "every thread is watched",
        "app/worker/loop.py",
        "        self.parts.progress.watch(thread)\n",
        "",
        f"{CONSUMER}::test_a_helper_that_hangs_or_dies_ends_the_process",
    ),
    Guard(
        "a parked poll ends before the process does",
        "app/worker/drain.py",
        "_wait_for(lambda: not self._poller.under_way() and not parts.in_flight.snapshot()[0], finishing_until)",
        "_wait_for(lambda: not parts.in_flight.snapshot()[0], finishing_until)",
        f"{CONSUMER}::test_what_a_parked_poll_brings_while_stopping_is_handed_back_at_once",
    ),
    Guard(
        "what is being settled at the deadline is waited for",
        "app/worker/drain.py",
        "_wait_for(lambda: settling.isdisjoint(claim.token for claim in parts.in_flight.snapshot()[1]), deadline)",
        "pass",
        f"{CONSUMER}::test_a_job_that_ends_at_the_deadline_is_announced_by_this_process",
    ),
    Guard(
        "a handler of one's own is called from one thread",
        "app/worker/wiring.py",
        "if is_asked_for else 1",
        "",
        f"{CONSUMER}::test_a_subclass_is_called_from_one_thread_unless_more_are_asked_for",
    ),
    Guard(
        "queues that are one are refused",
        "app/config.py",
        "        if path == other_path\n",
        "        if False\n",
        "tests/unit/test_config.py::test_two_variables_that_name_the_same_queue_are_refused",
    ),
    Guard(
        "the freshness of pages in memory",
        "app/caching/memory.py",
        "entry.page.read_at_us >= fresh_since_us and ",
        "",
        "tests/unit/test_cache.py::test_no_worker_ever_gets_a_page_older_than_it_asks_for",
    ),
    Guard(
        "the freshness of pages in the shared cache",
        "app/caching/shared.py",
        "page is not None and page.read_at_us >= needs[name] and",
        "page is not None and",
        "tests/unit/test_cache.py::test_no_worker_ever_gets_a_page_older_than_it_asks_for",
    ),
    Guard(
        "the freshness of pages at hand",
        "app/pages/mirrors.py",
        "if pair.target in mirrors and page.read_at_us >= min(needs[pair.target], read_at_us):",
        "if pair.target in mirrors:",
        "tests/unit/test_mirrors.py::test_a_page_that_was_read_earlier_than_was_asked_for_shows_nothing",
    ),
    Guard(
        "a page is as old as what it was shown",
        "app/pages/build.py",
        "min(oldest_us, read_at_us)",
        "read_at_us",
        "tests/unit/test_mirrors.py::test_a_page_is_as_old_as_what_it_was_shown",
    ),
    Guard(
        "reading ahead leaves half of the memory",
        "app/caching/ahead.py",
        "if room_bytes < 0 or len(part)",
        "if len(part)",
        "tests/unit/test_read_ahead.py::test_half_of_the_memory_is_left_to_what_walks_ask_for",
    ),
    Guard(
        "what earlier jobs have filled the memory with is in nobody's way",
        "app/caching/ahead.py",
        "self._memory.fresh_bytes(fresh_since_us)",
        "self._memory.held_bytes",
        "tests/unit/test_read_ahead.py::test_a_memory_that_is_full_of_what_the_job_can_not_use_is_read_into",
    ),
    Guard(
        "nothing is read ahead beside a suspect",
        "app/caching/ahead.py",
        "with self._enter():",
        "with nullcontext():",
        "tests/unit/test_read_ahead.py::test_nothing_is_read_ahead_beside_a_suspect",
    ),
    Guard(
        "reading ahead pays",
        "app/caching/ahead.py",
        "min(most, MAX_PAGES_AT_ONCE)",
        "MAX_PAGES_AT_ONCE",
        "tests/unit/test_read_ahead.py::test_a_job_has_no_more_pages_read_than_it_has_segments",
    ),
    Guard(
        "what is read ahead is overtaken",
        "app/caching/tiers.py",
        "if flight.load.is_ahead and looks == LOOKS_AHEAD:",
        "if False:",
        "tests/unit/test_cache.py::test_what_is_read_ahead_is_overtaken_by_who_needs_a_page_behind_one_that_takes_long",
    ),
    Guard(
        "the checksum of a cached page",
        "app/pages/format.py",
        "if not compare_digest(_checksum(rest, key), data[len(MAGIC) : _HEADER.size]):",
        "if False:",
        "tests/unit/test_page_format.py::test_a_flipped_bit_anywhere_is_noticed",
    ),
    Guard(
        "the key in the checksum of a cached page",
        "app/pages/format.py",
        "blake2b(rest, key=key, ",
        "blake2b(rest, ",
        "tests/unit/test_cache_shared.py::test_a_page_that_was_forged_without_the_key_is_a_miss_with_a_warning",
    ),
    Guard(
        "the graph and the clock in the key to cached pages",
        "app/caching/key.py",
        "json.dumps([graph_id, clock_id])",
        "json.dumps([])",
        "tests/unit/test_page_key.py::test_another_password_graph_or_clock_is_another_key",
    ),
    Guard(
        "no cached page is of the future",
        "app/caching/shared.py",
        "if page.read_at_us > self._server_clock.latest_us:",
        "if False:",
        "tests/unit/test_cache.py::test_a_page_of_the_future_is_loaded_instead_and_nothing_of_it_is_kept",
    ),
    Guard(
        "the bound on a cached page before it is unpacked",
        "app/pages/format.py",
        "if size > _longest_body(len(rest)):",
        "if False:",
        "tests/unit/test_page_format.py::test_a_forged_length_does_not_fill_the_memory",
    ),
    Guard(
        "the bound on what the cache sends",
        "app/caching/redis_store.py",
        "if self._fed_bytes > MAX_REPLY_BYTES:",
        "if False:",
        "tests/integration/test_cache_dragonfly.py::test_a_reply_that_is_too_long_is_not_taken_into_memory",
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
    with reserve("guards") as name:
        stack = Stack(name=name)
        stack.up()
        os.environ[SHARED_STACK] = name
        try:
            return _try(chosen)
        finally:
            stack.down()


def _try(chosen: Sequence[Guard]) -> int:
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
