"""
One-line lies in the delivery path, and the tests that must notice each.

A mutant replaces `old`, which stands exactly once in its file, by `new`. Where a test runs real processes and real
faults, it stands beside the quick one that pins the same line: both have to fail.
"""

from __future__ import annotations

from dataclasses import dataclass

FAULTS = "tests/faults/"
UNIT = "tests/unit/"
INTEGRATION = "tests/integration/"
CONFORMANCE = INTEGRATION + "test_sink_conformance.py::TestPostgresSink::"

MODEL = "tests/model/test_delivery.py"
KILLS = FAULTS + "test_kill.py::test_ten_kills_at_the_worst_moments_lose_nothing_and_double_nothing"
ZOMBIE = FAULTS + (
    "test_group.py::test_a_worker_frozen_in_a_transaction_is_succeeded_and_its_late_commits_change_nothing"
)
POISON = FAULTS + "test_poison.py::test_exactly_the_poison_dies_among_a_thousand_good_records"
REFUSED_LETTER = FAULTS + (
    "test_poison.py::test_a_refused_dead_letter_keeps_its_record_and_all_behind_it_until_it_is_taken"
)
BREAKER = FAULTS + "test_poison.py::test_a_partition_in_which_everything_dies_is_held_and_let_through_one_by_one"
SHUFFLES = FAULTS + "test_order.py::test_shuffles_and_replays_of_one_history_leave_identical_tables"
READER = INTEGRATION + "test_reader.py::"
REPLAY = INTEGRATION + "test_sink_replay.py::"
REDRIVE = INTEGRATION + "test_redrive.py::"
FLEET = INTEGRATION + "test_fleet.py::"
EDITS = INTEGRATION + "test_cursor_takeover.py::"
FROZEN = FAULTS + (
    "test_workers.py::test_a_worker_frozen_past_its_session_is_succeeded_and_what_it_says_then_is_refused"
)
CONNECTORS = FAULTS + (
    "test_connector.py::test_connectors_killed_at_the_worst_moments_lose_no_row_and_their_ledger_balances"
)
API_DEATHS = FAULTS + "test_api.py::test_what_is_asked_for_is_done_once_wherever_the_api_is_killed"
OWNER_DEATHS = FAULTS + (
    "test_api.py::test_a_run_that_is_asked_for_outlives_its_owner_its_sink_and_its_monitor_at_every_step"
)
CANCELLED = FAULTS + (
    "test_api.py::test_a_cancelled_run_ends_whoever_dies_or_freezes_and_the_next_run_reads_what_it_left"
)
REDRIVE_DEATHS = FAULTS + "test_api.py::test_a_redrive_and_a_replay_survive_the_api_that_carries_them_out"
BROKER = FAULTS + "test_broker.py::test_a_broker_killed_under_load_loses_nothing_that_it_acknowledged"
DATABASE = FAULTS + "test_database.py::test_a_database_killed_in_a_transaction_costs_time_and_no_record"
RENAMED = FAULTS + "test_database.py::test_a_table_renamed_under_load_holds_everything_visibly_and_kills_nothing"
DEADLOCK = FAULTS + "test_database.py::test_a_deadlock_is_tried_again"
RESTORED = FAULTS + "test_database.py::test_a_database_restored_to_an_earlier_state_rewinds_consumption_and_heals"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`name` says the lie. Every one of `tests` has to fail on it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    # When is a slice done?
    Mutant(
        "ack before the commit",
        "streams/lanes.py",
        "                await self._apply(prepared)\n",
        "                self._task(self._apply(prepared))\n",
        (UNIT + "streams/test_lanes.py::test_slice_is_not_done_before_its_effect_is_durable", DATABASE),
    ),
    Mutant(
        "commit the whole poll, finished or not",
        "streams/inflight.py",
        "return self.done_to if self.done_to > floor and",
        "return self.position if self.position > floor and",
        (UNIT + "streams/test_inflight.py::test_one_undone_record_at_the_head_is_never_passed", DATABASE),
    ),
    Mutant(
        "a group that never committed starts at the end",
        "streams/position.py",
        "return Start(beginning, floor, Because.UNKNOWN)",
        "return Start(end, floor, Because.UNKNOWN)",
        (UNIT + "streams/test_position.py", SHUFFLES),
    ),
    Mutant(
        "start where the group stands, whatever the database holds",
        "streams/position.py",
        "wanted = min(committed, known_to_sink)",
        "wanted = committed",
        (UNIT + "streams/test_position.py", RESTORED),
    ),
    Mutant(
        "a zombie commits in whatever generation there is",
        "streams/fetch.py",
        "if generation <= 0 or coordinator.generation != generation:",
        "if False:",
        (INTEGRATION + "test_transport.py::test_frozen_worker_commits_nothing_when_it_thaws_and_joins_again",),
    ),
    # The sink's transaction.
    Mutant(
        "offsets stay out of the transaction",
        "sinks/postgres.py",
        "where = (place.topic, place.partition, next_offset)",
        "where = (place.topic, place.partition, None)",
        (CONFORMANCE + "test_the_next_offset_only_moves_forward", DATABASE),
    ),
    Mutant(
        "no second look at what another partition wrote meanwhile",
        "sinks/postgres.py",
        """return bool(await held.fetchval(self._sql["count_events"], row["payments"]) != row["folded"])""",
        "return False",
        (
            INTEGRATION + "test_sink_lock.py"
            "::test_one_payment_written_by_two_partitions_at_once_loses_nothing_because_of_a_second_look",
        ),
    ),
    Mutant(
        "the last write wins",
        "sinks/queries.sql",
        "ORDER BY effective_at DESC, rank DESC,\n",
        "ORDER BY arrival DESC, effective_at DESC, rank DESC,\n",
        (SHUFFLES,),
    ),
    Mutant(
        "no gate: a known event counts again",
        "sinks/queries.sql",
        "ON CONFLICT (digest) DO NOTHING\n    RETURNING digest, payment",
        "ON CONFLICT (digest) DO UPDATE SET raw = excluded.raw\n    RETURNING digest, payment",
        (CONFORMANCE + "test_a_new_fact_is_applied_once_and_redelivered_ever_after", KILLS),
    ),
    Mutant(
        "a dead record counts again",
        "sinks/queries.sql",
        "ON CONFLICT (digest, run, content) DO NOTHING\n    RETURNING digest, run, content\n",
        "ON CONFLICT (digest, run, content) DO UPDATE SET reason = excluded.reason\n"
        "    RETURNING digest, run, content\n",
        (CONFORMANCE + "test_a_dead_record_counts_once_in_its_run", KILLS),
    ),
    Mutant(
        "another record under a known event id is taken for the same",
        "sinks/queries.sql",
        "     WHERE s.content <> o.content\n",
        "     WHERE false\n",
        (
            CONFORMANCE + "test_another_record_under_a_known_event_id_is_named_and_nothing_of_its_slice_is_stored",
            MODEL,
        ),
    ),
    Mutant(
        "another record under the event id of its slice is taken for the same",
        "sinks/prepared.py",
        "record.run_id == other.run_id and said == facts(other.payment)",
        "record.run_id == other.run_id",
        (CONFORMANCE + "test_of_two_records_of_one_event_id_in_a_slice_the_second_is_named",),
    ),
    # What dies, and what does not.
    Mutant(
        "fire and forget the dead letter",
        "streams/ingest.py",
        "await self.ingest.letters.dead_letter(letters)",
        "asyncio.ensure_future(self.ingest.letters.dead_letter(letters))",
        (
            UNIT + "streams/test_ingest.py::test_a_slice_with_an_undeliverable_dead_letter_does_not_return",
            REFUSED_LETTER,
        ),
    ),
    Mutant(
        "poison is passed over without a letter",
        "streams/ingest.py",
        "await self._bury([self._poison_letter(item) for item in poison], poison) if poison else []",
        "[]",
        (POISON,),
    ),
    Mutant(
        "bisecting forgets the second half",
        "streams/ingest.py",
        "await self._store(records[middle:], right_dead, next_offset)",
        "await self._store([], right_dead, next_offset)",
        (UNIT + "streams/test_ingest.py::test_one_refused_record_in_a_thousand_dies_alone_in_few_transactions", POISON),
    ),
    Mutant(
        "a letter holds text instead of bytes",
        "streams/ingest.py",
        "**payload(raw.value,",
        "**payload(raw.value and raw.value.decode(errors='replace').encode(),",
        (POISON,),
    ),
    Mutant(
        "a letter published again is another letter",
        "schemas/letter.py",
        'return hashlib.sha256("\\n".join([stage, *place])',
        'return hashlib.sha256("\\n".join([stage, *place, __import__("os").urandom(8).hex()])',
        (UNIT + "schemas/test_letter.py", KILLS),
    ),
    Mutant(
        "the breaker never opens",
        "streams/breaker.py",
        "if self.in_a_row >= DEATHS_IN_A_ROW or self._too_many():",
        "if False:",
        (UNIT + "streams/test_breaker.py::test_a_hundred_deaths_in_a_row_open_the_breaker", BREAKER),
    ),
    Mutant(
        "a missing table is the records' fault",
        "sinks/sqlstate.py",
        '"42": SinkMisconfigured',
        '"42": SinkRefused',
        (UNIT + "sinks/test_sqlstate.py", RENAMED),
    ),
    Mutant(
        "a deadlock is the records' fault",
        "sinks/sqlstate.py",
        '"40": SinkUnavailable',
        '"40": SinkRefused',
        (UNIT + "sinks/test_sqlstate.py", DEADLOCK),
    ),
    Mutant(
        "a partition on hold is ready",
        "tillstream/wiring.py",
        "for place, why in list(ingest.holds.items()):",
        "for place, why in list[Any]():",
        (REFUSED_LETTER,),
    ),
    # Publishing.
    Mutant(
        "a producer that was given up lives on",
        "streams/publisher.py",
        "            await producer.client.close()  #",
        "            await asyncio.sleep(60)  #",
        (BROKER.rpartition("::")[0] + "::test_a_producer_that_was_given_up_leaves_no_task_and_no_connection",),
    ),
    Mutant(
        "publish without waiting for the broker's word",
        "streams/publisher.py",
        'acks="all"',
        "acks=0",
        (BROKER,),
    ),
    Mutant(
        "a producer that failed is used again",
        "streams/publisher.py",
        "            self._retire()\n            reason =",
        "            reason =",
        (BROKER,),
    ),
    Mutant(
        "the cursor moves before the acks",
        "connectors/delivery.py",
        "        prepared = ready.prepared.without(self._work.part)\n",
        "        prepared = ready.prepared\n        self._work.cursor = ready.batch.cursor\n",
        (
            UNIT + "connectors/test_runner.py"
            "::test_a_publish_without_an_acknowledgement_is_sent_again_and_moves_no_cursor",
        ),
    ),
    Mutant(
        "the checkpoint is written before the acks",
        "connectors/delivery.py",
        "        prepared = ready.prepared.without(self._work.part)\n",
        "        prepared = ready.prepared\n"
        "        self._work.cursor = ready.batch.cursor\n"
        "        await self._save()\n",
        (CONNECTORS,),
    ),
    Mutant(
        "files are told apart by name",
        "connectors/directory.py",
        "return Task(found.shown, found.sha256, found.sha256,",
        "return Task(found.shown, found.shown, found.sha256,",
        (
            INTEGRATION + "test_directory.py::test_the_same_content_is_read_once_under_whatever_name",
            INTEGRATION + "test_directory.py"
            "::test_new_content_under_a_known_name_is_a_new_revision_though_size_and_mtime_are_the_same",
        ),
    ),
    # The ledger.
    Mutant(
        "a redelivery of another run's event counts nowhere",
        "sinks/queries.sql",
        " WHERE s.run <> o.run\n",
        " WHERE false\n",
        (CONFORMANCE + "test_a_known_event_id_under_another_run_is_that_runs_duplicate_once", DATABASE),
    ),
    Mutant(
        "success without counting",
        "tillstream/control/verdict.py",
        "    if run.read == run.published + run.rejected + run.filtered and run.confirmed == run.published:\n"
        "        if run.sink_sum == run.published_sum:\n",
        "    if True:\n        if True:\n",
        (UNIT + "tillstream/test_verdict.py",),
    ),
    Mutant(
        "success although something died",
        "tillstream/control/verdict.py",
        "RunStatus.PARTIAL_SUCCESS if run.rejected or run.dead or run.problems else RunStatus.SUCCESS",
        "RunStatus.SUCCESS",
        (UNIT + "tillstream/test_verdict.py::test_a_run_with_anything_less_than_success_ends_partial",),
    ),
    Mutant(
        "a record that two runs rejected is listed for one of them",
        "sinks/letters.sql",
        " WHERE run_id IS NOT NULL AND NOT EXISTS (SELECT FROM listed)\n",
        " WHERE false AND NOT EXISTS (SELECT FROM listed)\n",
        (
            INTEGRATION + "test_sink_letters.py"
            "::test_letters_of_what_was_rejected_or_died_give_no_finding_however_often_they_were_published",
        ),
    ),
    Mutant(
        "a letter that is not listed is always on its way",
        "tillstream/control/ledger.py",
        "    if behind:\n",
        "    if True:\n",
        (
            INTEGRATION + "test_letters.py"
            "::test_a_letter_on_its_way_to_the_list_is_awaited_and_one_that_the_list_lost_is_named",
        ),
    ),
    Mutant(
        "a redelivery of a pruned run counts again",
        "sinks/queries.sql",
        "       AND o.run NOT IN (SELECT run FROM {schema}.pruned_repeats WHERE run = ANY ($7))\n",
        "",
        (INTEGRATION + "test_sink_prune.py::test_what_is_redelivered_of_a_pruned_run_counts_nowhere",),
    ),
    Mutant(
        "a database restored under a running worker is not looked at",
        "sinks/postgres.py",
        "        if expected is not None and (found is None or found < expected):\n",
        "        if False:\n",
        (
            INTEGRATION + "test_sink_rewound.py::test_nothing_is_stored_above_a_gap",
            FAULTS + "test_database.py"
            "::test_a_database_restored_under_a_running_worker_ends_it_and_what_was_between_is_read_again",
        ),
    ),
    Mutant(
        "lag is what the group has not committed, whatever the database holds",
        "tillstream/control/monitor.py",
        "stored = self._stored if topic == self.events_topic else None\n",
        "stored = None\n",
        (
            INTEGRATION + "test_monitor.py"
            "::test_a_database_that_was_restored_shows_as_lag_before_anybody_has_read_anything_again",
        ),
    ),
    Mutant(
        "pruning leaves no trace",
        "sinks/prune.sql",
        "{digest_sum} FROM summed\n",
        "{digest_sum} FROM summed WHERE false\n",
        (
            INTEGRATION + "test_sink_prune.py"
            "::test_a_run_that_closed_long_ago_loses_its_repeats_and_its_ledger_balances_all_the_same",
        ),
    ),
    Mutant(
        "pruning waits for no lock",
        "sinks/prune.py",
        "SELECT pg_advisory_xact_lock({partition_lock(LIVE_SCHEMA, place)})",
        "SELECT {partition_lock(LIVE_SCHEMA, place)}",
        (INTEGRATION + "test_sink_prune.py::test_pruning_leaves_a_partition_alone_that_is_at_work_and_comes_back",),
    ),
    # What is lost between two pages of an API?
    Mutant(
        "one reading of counted pages is enough",
        "connectors/http/resource.py",
        "        return self.paging in (Paging.PAGE, Paging.OFFSET) and self.window is not WindowKind.WHOLE\n",
        "        return False\n",
        (INTEGRATION + "test_http_api_drift.py::test_no_row_is_lost_while_the_list_moves_between_pages",),
    ),
    Mutant(
        "a window that never agreed is kept at its last reading",
        "connectors/http/standing.py",
        "        return standing.walk.is_worn_out\n",
        "        return False\n",
        (
            INTEGRATION + "test_http_api_drift.py"
            "::test_a_list_that_rests_again_is_read_from_the_cursor_of_its_restless_time",
        ),
    ),
    Mutant(
        "an offset counts what was asked for",
        "connectors/http/paging.py",
        'return {"offset": place.get("offset", 0) + len(page)}',
        'return {"offset": place.get("offset", 0) + resource.page_size}',
        (INTEGRATION + "test_http_api_drift.py::test_an_api_that_gives_less_than_was_asked_for_is_read_to_its_end",),
    ),
    Mutant(
        "a window begins where the last one ended",
        "connectors/http/window.py",
        "            begin = min(until, read_at - timedelta(seconds=overlap_s)).replace(microsecond=0)\n",
        "            begin = until\n",
        (INTEGRATION + "test_http_api_drift.py::test_what_turns_up_late_is_found_within_the_overlap_and_not_after_it",),
    ),
    Mutant(
        "what was read counts as seen before it is durable",
        "connectors/http/seen.py",
        "            for digest in list(self._at)[max(0, len(self._at) - later) :]:\n",
        "            for digest in list(self._at)[len(self._at) :]:\n",
        (
            UNIT + "connectors/test_http_parts.py::test_what_was_read_after_a_cursor_is_not_taken_for_durable",
            UNIT + "connectors/test_http_parts.py::test_nothing_is_ever_taken_for_seen_that_the_cursor_does_not_cover",
        ),
    ),
    Mutant(
        "a day that failed is left behind",
        "connectors/http_api.py",
        "            first=history.first_due,\n",
        "            first=None,\n",
        (
            INTEGRATION + "test_http_api_days.py::test_days_that_were_missed_are_made_up_for",
            INTEGRATION + "test_http_api_days.py::test_a_day_that_failed_is_tried_again_days_later",
        ),
    ),
    Mutant(
        "a window without an end is cut into pieces",
        "connectors/http/window.py",
        "    if not (resource.names_end or resource.ends_by_time):\n",
        "    if False:\n",
        (INTEGRATION + "test_http_api_drift.py::test_a_list_without_an_end_is_caught_up_with_however_far_behind",),
    ),
    Mutant(
        "a page of later windows' records is an empty one",
        "connectors/http/reader.py",
        "            walked.saw(sheet.listed)\n",
        "            walked.saw(sheet.names)\n",
        (INTEGRATION + "test_http_api_drift.py::test_pages_of_rows_that_are_too_young_yet_are_no_empty_pages",),
    ),
    Mutant(
        "an answer that does not say whether there is more was the last one",
        "connectors/http/paging.py",
        'in (False, 0, "false", "")',
        'in (None, False, 0, "false", "")',
        (INTEGRATION + "test_http_api_drift.py::test_an_answer_that_does_not_say_whether_there_is_more_is_asked_on",),
    ),
    Mutant(
        "a day is due as soon as it is over",
        "connectors/http/window.py",
        "        settled = day(of, self.zone).end + timedelta(seconds=self.settle_s)\n",
        "        settled = day(of, self.zone).end\n",
        (INTEGRATION + "test_http_api_days.py::test_a_day_is_asked_for_once_it_has_settled_and_then_whole",),
    ),
    Mutant(
        "what should have been read again in an absence never is",
        "connectors/http/history.py",
        "if 0 <= (newest - of).days - after < most and",
        "if (newest - of).days == after and",
        (
            INTEGRATION + "test_http_api_days.py"
            "::test_what_should_have_been_read_again_while_nobody_ran_is_made_up_for_once",
        ),
    ),
    Mutant(
        "a secret inside a text goes in the clear",
        "connectors/http/client.py",
        "(call.secrets or (carried.secrets and (carried.headers or carried.params)))",
        "False",
        (INTEGRATION + "test_http_api_access.py::test_no_secret_of_a_text_goes_anywhere_in_the_clear_in_production",),
    ),
    Mutant(
        "a cursor may name a secret",
        "connectors/http/request.py",
        "        return _FILLED_IN.sub(fill, template)\n",
        "        return _FILLED_IN.sub(fill, _FILLED_IN.sub(fill, template))\n",
        (UNIT + "connectors/test_http_parts.py::test_what_an_api_says_names_no_secret_and_no_secret_names_a_place",),
    ),
    Mutant(
        "credentials follow a redirect",
        "connectors/http/client.py",
        "    return replace(call, url=target, headers={}, params={}, secrets=frozenset()), "
        "Credentials(secrets=carried.secrets)\n",
        "    return replace(call, url=target), carried\n",
        (INTEGRATION + "test_http_api_access.py::test_a_redirect_to_another_origin_carries_no_credentials",),
    ),
    Mutant(
        "everybody asks for a token",
        "connectors/http/auth.py",
        "        if self._asking is None:\n",
        "        if True:\n",
        (INTEGRATION + "test_http_api_access.py::test_fifty_who_need_a_token_ask_once",),
    ),
    # Does whoever runs a connector, and whoever did, write only what is theirs?
    Mutant(
        "an outdated epoch's checkpoint counts",
        "streams/state.py",
        "        if checkpoint.epoch < self.newest_epoch(checkpoint.connector_id):\n",
        "        if False:\n",
        (FROZEN,),
    ),
    Mutant(
        "an outdated worker ends runs",
        "tillstream/control/claim.py",
        "    if newest is not None and newest > held_claim.epoch:\n",
        "    if False:\n",
        (INTEGRATION + "test_control.py::test_what_an_outdated_claim_writes_into_run_rows_is_refused",),
    ),
    Mutant(
        "a claim is raised in the midst of a writing",
        "tillstream/control/queries.sql",
        "SELECT epoch FROM connector_claims WHERE connector_id = $1 FOR SHARE;",
        "SELECT epoch FROM connector_claims WHERE connector_id = $1;",
        (INTEGRATION + "test_control.py::test_a_claim_waits_for_what_the_one_before_is_writing",),
    ),
    Mutant(
        "partitions are let go of before their connectors have stopped",
        "tillstream/control/fleet.py",
        "        await asyncio.gather(*(member.ended() for member in leaving))\n",
        "",
        (FLEET + "test_partitions_are_let_go_of_only_after_the_last_checkpoint",),
    ),
    Mutant(
        "an edit of a cursor keeps what is out of a batch",
        "tillstream/control/takeover.py",
        '                "part": (),\n',
        "",
        (EDITS + "test_an_edit_empties_what_was_out_of_a_batch_and_keeps_what_the_object_is",),
    ),
    Mutant(
        "an edit that was written by one who died is refused",
        "tillstream/control/takeover.py",
        'if there.edit is not None and there.edit.id == row["id"]:',
        "if False:",
        (EDITS + "test_an_edit_that_was_written_by_one_who_died_is_told_and_not_written_again",),
    ),
    Mutant(
        "an edit that the state lost is forgotten",
        "tillstream/control/takeover.py",
        'if there is not None and (there.epoch, there.seq) >= (row["applied_epoch"], row["applied_seq"]):',
        "if there is not None:",
        (EDITS + "test_an_edit_that_the_state_lost_with_its_last_writes_is_written_again",),
    ),
    Mutant(
        "a cursor is edited though its task moved on",
        "tillstream/control/takeover.py",
        'if (there.epoch, there.seq) > (row["epoch"], row["seq"]):',
        "if False:",
        (EDITS + "test_a_task_that_moved_on_since_the_operator_looked_is_not_edited",),
    ),
    Mutant(
        "a run that was asked for ends with its worker",
        "connectors/run.py",
        "        return self.request is not None and not self.cancelled\n",
        "        return False\n",
        (
            UNIT + "connectors/test_request.py::test_a_run_outlives_a_stop_and_the_next_runner_goes_on_with_its_counts",
            FLEET + "test_a_run_waits_for_a_worker_and_survives_the_ones_that_die",
        ),
    ),
    Mutant(
        "a run that goes on counts anew",
        "connectors/run.py",
        "run = Run(run_id, tell, request, dict(carried), counts=total(carried.values()))\n",
        "run = Run(run_id, tell, request, dict(carried))\n",
        (
            UNIT + "connectors/test_request.py::test_a_run_survives_a_crash_at_any_step_under_its_id_and_its_counts_"
            "are_those_of_its_events",
        ),
    ),
    Mutant(
        "what is read once more is a new revision",
        "connectors/known.py",
        "        revision_at = self._revisions.get(task.key) or self._next_revision(now)\n",
        "        revision_at = before.revision_at if before else self._next_revision(now)\n",
        (
            UNIT
            + "connectors/test_request.py::test_force_reads_what_is_done_once_more_with_the_same_events_and_revisions",
        ),
    ),
    Mutant(
        "a source's blocking calls take everybody's threads",
        "connectors/thread.py",
        "        return super().submit(fn, *args, **kwargs) if mine is None else mine.submit(fn, *args, **kwargs)\n",
        "        return super().submit(fn, *args, **kwargs)\n",
        (UNIT + "connectors/test_nasty.py::test_threads_that_a_source_blocks_for_ever_are_its_own_and_are_counted",),
    ),
    Mutant(
        "a source that cancels itself ends its connector for good",
        "connectors/wait.py",
        "    if task.cancelled():  # by itself: nobody of us cancelled it\n",
        "    if False:\n",
        (UNIT + "connectors/test_nasty.py::test_a_bug_in_a_source_is_told_and_tried_again",),
    ),
    # What leaves a connector?
    Mutant(
        "what a source says is told as it is",
        "connectors/execution.py",
        "                exc.retell(self.ports.redact)\n",
        "",
        (
            UNIT + "connectors/test_options.py::"
            "test_a_secret_in_a_sources_error_reaches_neither_status_nor_run_nor_task",
            INTEGRATION + "test_secrets.py::test_a_secret_that_a_server_repeats_to_a_careless_source_shows_nowhere",
        ),
    ),
    Mutant(
        "secrets are known in one spelling",
        "tillstream/redaction.py",
        "        yield from _parts(encode, raw)\n",
        "",
        (
            UNIT + "tillstream/test_redaction.py::test_a_secret_that_comes_back_in_another_spelling_is_removed",
            INTEGRATION + "test_secrets.py::test_a_secret_that_a_server_repeats_to_a_careless_source_shows_nowhere",
        ),
    ),
    Mutant(
        "a link leads out of the folder of secrets",
        "tillstream/secret.py",
        "            if not path.is_relative_to(folder) or not path.is_file():",
        "            if not path.is_file():",
        (UNIT + "tillstream/test_secret.py::test_a_link_out_of_the_folder_is_refused",),
    ),
    Mutant(
        "one public address makes a name public",
        "connectors/network.py",
        "        for address in found:\n            self.check(address, name)\n",
        "        self.check(found[0], name)\n",
        (UNIT + "connectors/test_network.py::test_one_private_address_among_public_ones_refuses_the_name",),
    ),
    Mutant(
        "an address is asked for by nobody, so it is not checked",
        "connectors/egress.py",
        '        guard.check(ip_address(str(where[0]).partition("%")[0]), str(where[0]))\n',
        "",
        (
            INTEGRATION + "test_egress.py::test_no_spelling_of_loopback_reaches_it",
            INTEGRATION + "test_egress.py::test_an_allowed_range_is_reached_and_a_redirect_out_of_it_is_not",
        ),
    ),
    Mutant(
        "what is held back keeps its place among the running",
        "connectors/execution.py",
        "        self.queue.give_way()\n",
        "",
        (UNIT + "connectors/test_options.py::test_what_is_held_back_holds_back_no_other_task",),
    ),
    Mutant(
        "a stop waits for the rate",
        "connectors/delivery.py",
        "            await self._limit.turn(len(part.messages), stop=self._run.stop)\n",
        "            await self._limit.turn(len(part.messages), stop=asyncio.Event())\n",
        (UNIT + "connectors/test_options.py::test_the_rate_holds_across_stops_and_nothing_is_published_twice",),
    ),
    Mutant(
        "a stop is a way round the rate",
        "connectors/limit.py",
        "            raise Stopped\n",
        "            return\n",
        (UNIT + "connectors/test_options.py::test_the_rate_holds_across_stops_and_nothing_is_published_twice",),
    ),
    Mutant(
        "what is out of a batch goes out again after a stop",
        "connectors/known.py",
        "tuple(bytes.fromhex(digest) for digest in checkpoint.part)\n",
        "()\n",
        (UNIT + "connectors/test_options.py::test_the_rate_holds_across_stops_and_nothing_is_published_twice",),
    ),
    Mutant(
        "a poll that fails begins to lag anew",
        "connectors/lag.py",
        "        self._since.setdefault(key, now)\n",
        "        self._since[key] = now\n",
        (UNIT + "connectors/test_options.py::test_a_poll_that_fails_again_and_again_lags_since_its_first_failure",),
    ),
    Mutant(
        "a worker tells of connectors that it has let go of",
        "tillstream/control/member.py",
        "        self.lease.end()\n",
        "",
        (INTEGRATION + "test_fleet.py::test_what_is_kept_for_a_paused_connector_is_looked_at_by_its_owner_alone",),
    ),
    Mutant(
        "a connector that paused itself is not looked at",
        "tillstream/control/fleet.py",
        "        paused += [each.desired for each in self._members.values() if each.is_over and not each.is_ending]\n",
        "",
        (INTEGRATION + "test_fleet.py::test_what_is_kept_for_a_paused_connector_is_looked_at_by_its_owner_alone",),
    ),
    Mutant(
        "a quiet hour ends in a burst",
        "connectors/limit.py",
        "max(self._free_at_s, now_s - _STEP_S)",
        "self._free_at_s",
        (UNIT + "connectors/test_options.py::test_a_quiet_time_is_not_saved_up",),
    ),
    Mutant(
        "True and 1 are one word",
        "connectors/record.py",
        "        if type(value) is str:\n            self._statuses[value] = found\n",
        "        self._statuses[value] = found\n",
        (UNIT + "connectors/test_mapping.py::test_one_and_true_are_two_words_whichever_comes_first",),
    ),
    # What another client may send, and what comes after a fault.
    Mutant(
        "a name of a header loses what is not UTF-8",
        "streams/batch.py",
        '.decode("utf-8", "surrogateescape"), item))',
        '.decode("utf-8", "replace"), item))',
        (
            UNIT + "streams/test_fetch.py::test_records_after_a_name_that_is_not_utf8_in_the_same_batch_come_once_each",
            POISON,
        ),
    ),
    Mutant(
        "a name of a header that is not UTF-8 stops its partition",
        "streams/batch.py",
        "    fetcher.MemoryRecords = Batches\n",
        "    fetcher.MemoryRecords = MemoryRecords\n",
        (
            UNIT + "streams/test_transport_contract.py::test_fetcher_makes_its_records_by_the_name_that_is_replaced",
            READER + "test_a_name_of_a_header_that_is_not_utf8_stops_neither_a_reader_nor_the_measure_of_lag",
        ),
    ),
    Mutant(
        "of an amount that stands twice the last one counts",
        "schemas/wire.py",
        "        or _has_doubled(event, value)\n",
        "",
        (
            UNIT + "schemas/test_wire.py::test_an_event_with_a_name_that_comes_twice_is_never_recognised",
            POISON,
        ),
    ),
    Mutant(
        "a reader waits for a dead broker for ever",
        "streams/reader.py",
        "0.0 if moved else waited_s + time.monotonic() - asked_at, positions",
        "0.0, positions",
        (READER + "test_a_broker_that_dies_while_it_is_read_from_is_told_as_unavailable",),
    ),
    Mutant(
        "mending leaves an outcome that no row has any more",
        "sinks/replay.sql",
        "AND NOT EXISTS (SELECT FROM counted c WHERE c.run = l.run AND c.outcome = l.outcome)",
        "AND FALSE",
        (REPLAY + "test_of_two_events_of_one_key_either_may_be_lost_and_comes_back",),
    ),
    Mutant(
        "a replay drops the tables of one that lives",
        "sinks/replay.py",
        '            await owner.execute(statements()["own_shadow"], schema)\n',
        "",
        (REPLAY + "test_what_a_killed_replay_leaves_behind_is_told_and_dropped_by_the_next_and_a_living_ones_is_not",),
    ),
    Mutant(
        "a redrive that failed redrove all its letters",
        "tillstream/control/queries.sql",
        "OR EXISTS (SELECT FROM event_deaths e WHERE e.digest = hashed.digest AND e.run = r.id))) AS counted",
        "OR TRUE)) AS counted",
        (REDRIVE + "test_of_a_redrive_that_ends_midway_what_was_sent_is_redriven_and_the_rest_may_be_sent_again",),
    ),
    Mutant(
        "a redrive tells nothing while a broker takes its time",
        "tillstream/control/letter.py",
        "                    await self._record(run_id)\n            await sending\n",
        "                    pass\n            await sending\n",
        (REDRIVE + "test_a_redrive_that_takes_long_lives_as_long_as_it_takes",),
    ),
    # What is asked for over HTTP.
    Mutant(
        "a key reserves nothing",
        "tillstream/control/idempotency.py",
        """            return Begun(row["reserved"], again=True)\n""",
        "            return Begun(uuid4(), again=False)\n",
        (API_DEATHS,),
    ),
    Mutant(
        "a cancellation that is sent again is a conflict with itself",
        "tillstream/api/v1/run.py",
        "        if not (reserved.again and (await runs.find_run(world.pool, str(view.id))).cancelled):\n",
        "        if True:\n",
        (API_DEATHS,),
    ),
    Mutant(
        "a test that is sent again is another one",
        "tillstream/api/v1/action.py",
        "            run_id=reserved.id,\n        )\n    return TryShape",
        "        )\n    return TryShape",
        (API_DEATHS,),
    ),
    Mutant(
        "a test whose process died goes on for ever",
        "tillstream/control/verdict.py",
        "        ended = silent_s > limits.heartbeat_timeout_s\n",
        "        ended = False\n",
        (
            INTEGRATION + "test_trial.py::test_a_test_whose_process_died_is_ended_by_its_heartbeat_and_by_nothing_else",
            API_DEATHS,
        ),
    ),
    Mutant(
        "a configuration names a secret before it is written",
        "tillstream/control/edit.py",
        "            await asyncio.to_thread(secrets.write, sealed)\n    return changed\n",
        "            pass\n    if secrets is not None and sealed is not None and not dry_run:\n"
        "        await asyncio.to_thread(secrets.write, sealed)\n    return changed\n",
        (API_DEATHS,),
    ),
    Mutant(
        "a request that was taken is its taker's for ever",
        "tillstream/control/queries.sql",
        "r.cancelled_at IS NULL AND (q.epoch IS NULL OR q.epoch <= $2)\n",
        "r.cancelled_at IS NULL AND q.epoch IS NULL\n",
        (OWNER_DEATHS,),
    ),
    Mutant(
        "what an earlier owner read of a cancelled run is forgotten",
        "tillstream/control/request.py",
        "        if counts is not None:\n            await run.record(held, run_id, counts)\n",
        "",
        (CANCELLED,),
    ),
    Mutant(
        "a replay that is sent again is only noted",
        "tillstream/api/v1/replay.py",
        "    if is_new:\n",
        "    if not reserved.again:\n",
        (REDRIVE_DEATHS,),
    ),
    Mutant(
        "a secret that was written anew is swept as what was there before",
        "tillstream/control/secret.py",
        "if before.get(name) == identity}",
        "if name in before}",
        (
            INTEGRATION + "test_secret_store.py"
            "::test_what_a_process_that_died_left_behind_is_not_removed_once_it_is_written_anew",
        ),
    ),
)
