"""Mutation testing, one module at a time: `nox -s mutants -- freshness expiry`.

mutmut changes one thing in a copy of the module and runs the tests that reach it; one of them must fail. What
survives is to be named in `equivalent.txt`, with the reason why no test can tell it from the original.

Each module has a folder of its own below `build/mutants`, for each has tests of its own. What was found is
kept there: the next time only what survived and what has changed is tested. `--afresh` begins anew.

mutmut changes nothing outside of functions, nor below decorators but our own marks (see `marked.py`). Each
call in the module goes through one of its own, so tests that count lines, frames or steps are not among those
that are run here.

Run nothing beside it: mutmut sends SIGXCPU to a mutant's process when its time is over, and by then that
number may be another process's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
WORK = PROJECT / "build" / "mutants"

FRESHNESS = ["freshness/test_ages.py", "freshness/test_ahead.py", "freshness/test_failures.py"]
GRACE = ["freshness/test_grace.py", "freshness/test_pool.py"]
HITS = ["threads/test_hits.py", "threads/test_control.py", "contract/test_control.py"]
STORE = ["core/test_store.py", "core/test_store_machine.py", "core/test_store_model.py"]
LOCKS = [
    "core/test_locks_machine.py",
    "threads/test_registry.py",
    "threads/test_deadlock.py",
    "asyncio/test_locks.py",
    "contract/test_locks.py",
]
CYCLES = [*LOCKS, "threads/test_cycles.py", "mixed/test_loops.py", "mixed/test_missed_cycles.py"]
DEAD = ["mixed/test_dead_loops.py", "fork"]
CALLS = ["contract/test_one_call.py", "contract/test_waiting.py", "contract/test_failure.py"]
DECIDING = [
    "core/test_boarding.py",
    "core/test_joining.py",
    "core/test_awaking.py",
    "core/test_looking.py",
    "core/test_refusing.py",
]
ENDING = ["core/test_landing.py", "core/test_failing.py", "core/test_ending.py", "core/test_unseating.py"]
MODELS = ["core/test_memo_machine.py", "core/test_memo_model.py"]
TASKS = ["asyncio/test_tasks.py", "asyncio/test_cancellation.py", "asyncio/test_without_a_task.py"]
DRIVEN = [
    *(*CALLS, *GRACE, "contract/test_left_over.py", "contract/test_led_elsewhere.py"),
    *("contract/test_directly.py", "freshness/test_soft_timeout.py", "freshness/test_failures.py"),
    *("contract/test_answer.py", "contract/test_copy.py", "contract/test_max_flights.py"),
    *("contract/test_executing.py", "contract/test_used_up.py", "freshness/test_unchanged.py"),
    "endings/test_garbage.py",
]
BULK = [
    *("bulk/test_one_call.py", "bulk/test_joining.py", "bulk/test_missing.py", "bulk/test_waiting.py"),
    *("bulk/test_told.py", "bulk/test_loader.py", "bulk/test_renewing.py", "bulk/test_cancelling.py"),
]
WINDOWS = ["bulk/test_gathering.py", "bulk/test_windows.py", "conformance/test_gathering.py"]
DECORATED = [
    *("decorators/test_decorated.py", "decorators/test_bound.py", "decorators/test_binding.py"),
    *("decorators/test_coroutines.py", "decorators/test_twin.py", "decorators/test_calls_made.py"),
]
KEYS = ["decorators/test_key_options.py", "decorators/test_key_model.py", "contract/test_key_names.py"]
TELLING = ["threads/test_told.py", "contract/test_one_call.py"]
SHARED = [
    *("redis/test_functions.py", "redis/test_faults.py", "redis/test_bulk.py"),
    "redis/test_clocks.py",
]
ACCOUNTS = [
    *("accounts/test_alpaca_prices.py", "accounts/test_bulk_prices.py", "accounts/test_trading.py"),
    *("accounts/test_interface.py", "accounts/test_tasks.py", "accounts/test_readings.py"),
    *("accounts/test_positions.py", "accounts/test_gathering.py"),
]

TESTS = {
    # storage
    "freshness": [*FRESHNESS, "core/test_options.py"],
    "ttl": ["contract/test_callable_ttl.py", "bulk/test_callable_ttl.py", "core/test_options.py"],
    "record": [*FRESHNESS, *HITS, *STORE, "freshness/test_grace.py", "contract/test_policy.py"],
    "expiry": [*STORE, "core/test_expiry.py", "core/test_policy.py", "contract/test_policy.py"],
    "policy": ["core/test_policy.py", "contract/test_policy.py"],
    "store": [
        *(*STORE, *HITS, "core/test_memo_machine.py", "core/test_spoilt_store.py", "fork"),
        *("contract/test_tags.py", "contract/test_clear.py"),
    ],
    # fleet
    "keybytes": ["fleet/test_keybytes.py"],
    "names": ["fleet/test_names.py"],
    "annotations": ["fleet/test_serializers.py"],
    "serializers": ["fleet/test_serializers.py"],
    "roundtrips": ["fleet/test_serializers.py"],
    "fingerprints": ["fleet/test_fingerprints.py", "fleet/test_serializers.py"],
    "envelopes": ["fleet/test_envelopes.py"],
    "failures": ["fleet/test_failures.py"],
    "near": ["fleet/test_near.py"],
    "claims": ["fleet/test_claims.py", "fleet/test_explored.py"],
    "breaker": ["fleet/test_breaker.py"],
    "drops": ["fleet/test_drops.py"],
    "cuts": ["fleet/test_cuts.py"],
    "mailboxes": ["fleet/test_mailboxes.py"],
    # redis
    "scripts": ["redis/test_scripts.py", "redis/test_contract.py"],
    "clients": ["redis/test_calls_sent.py", "redis/test_clients.py"],
    "sources": ["redis/test_sources.py"],
    "bus": ["redis/test_listening.py", "redis/test_bus.py"],
    "keeper": ["redis/test_keeping.py", "redis/test_keeper.py"],
    "cycles": ["redis/test_cycles.py"],
    "entries": ["redis/test_entries.py"],
    "passage": [
        *("redis/test_passage.py", "redis/test_passage_waiting.py", "redis/test_passage_ending.py"),
    ],
    "convoy": ["redis/test_convoy.py", "redis/test_bulk.py"],
    "shared": ["redis/test_shared.py", "redis/test_alone.py", *SHARED],
    "link": ["redis/test_linked.py", "redis/test_drops.py"],
    "redis_store": ["redis/test_redis_store.py"],
    # locks
    "latch": [*LOCKS, "core/test_gates.py", "contract/test_one_call.py", "contract/test_waiting.py"],
    "slots": [*CYCLES, *DEAD, "core/test_turns.py"],
    "line": ["core/test_line.py", "contract/test_max_flights.py"],
    "table": [*CYCLES, *DEAD, "core/test_idle.py", "core/test_turns.py", "core/test_locks.py"],
    "keyed": [*CYCLES, *DEAD, "core/test_locks.py", "core/test_turns.py"],
    "waiters": [*CYCLES, "core/test_turns.py", "threads/test_jobs.py"],
    "task_waiters": [*CYCLES, *TASKS, *DEAD, "core/test_gates.py"],
    "waitgraph": [
        *(*CYCLES, *DEAD, "core/test_cycles.py"),
        *("asyncio/test_shapes.py", "asyncio/test_recognition.py"),
    ],
    "asyncio_edges": [
        *("asyncio/test_shapes.py", "asyncio/test_recognition.py"),
        *("mixed/test_missed_cycles.py", "mixed/test_loops.py"),
    ],
    "unsettled": ["core/test_leaving.py", "core/test_ending.py", "core/test_locks.py", "endings"],
    "mutex": ["core/test_sections.py", "threads/test_found_once.py", "fork"],
    "jobs": ["threads/test_jobs.py", "mixed/test_dependencies.py", "mixed/test_frameworks.py", "fork"],
    "lives": ["endings/test_nobody_left.py", "threads/test_jobs.py"],
    # telemetry
    "emitter": ["core/test_emitter.py", "contract/test_observing.py", "contract/test_executing.py"],
    "executions": ["contract/test_executing.py"],
    "events": [*TELLING, "threads/test_told.py"],
    "kinds": ["decorators/test_slips.py", "decorators/test_light_imports.py"],
    "counters": [*HITS, "fork"],
    # core
    "cache": ["core/test_remembered.py", *DEAD, *HITS, "freshness/test_grace.py", "bulk/test_joining.py"],
    "answers": ["contract/test_answer.py"],
    "asked": ["contract/test_answer.py"],
    "current": ["freshness/test_unchanged.py"],
    "call": [*DECIDING, "core/test_leaving.py"],
    "flight": [*MODELS, *CALLS, *DEAD, "core/test_flights.py", "freshness/test_grace.py"],
    "transitions": [
        *(*ENDING, *DECIDING, *MODELS, *CALLS, "core/test_leaving.py", "core/test_flights.py"),
        *("contract/test_control.py", "bulk/test_joining.py", "asyncio/test_cancellation.py"),
        *("core/test_members.py", "core/test_at_once.py"),
    ],
    "renewal": ["core/test_serving.py", *GRACE, "freshness/test_ahead.py"],
    "leaving": [*DECIDING, "core/test_leaving.py", *CALLS, "asyncio/test_cancellation.py"],
    "landing": [
        *(*ENDING, "contract/test_failure.py", "freshness/test_failures.py", "freshness/test_ahead.py"),
        *("freshness/test_grace.py", "bulk/test_joining.py", "contract/test_spoilt_keys.py"),
        *("freshness/test_judged_failures.py", "freshness/test_judged_grace.py", "contract/test_tags.py"),
    ],
    "coordinator": [
        *(*DECIDING, *MODELS, *CALLS, "core/test_unseating.py", "core/test_softly.py"),
        *("core/test_joined_at_once.py", "threads/test_deadlock.py", "threads/test_cycles.py"),
        *("mixed/test_loops.py", "freshness/test_soft_timeout.py"),
    ],
    "controls": [
        *(*HITS, "core/test_controls_told.py", "core/test_spoilt_store.py", "contract/test_spoilt_keys.py"),
        *("contract/test_clear.py", "contract/test_tags.py", "contract/test_callable_ttl.py"),
        *("contract/test_copy.py", "contract/test_used_up.py", "contract/test_policy.py"),
        *("bulk/test_joining.py", "decorators/test_bound.py", "core/test_explained.py"),
        *("bulk/test_one_call.py", "metrics/test_totals.py", "fork/test_fork.py"),
        *("core/test_putting.py", "core/test_shown.py"),
    ],
    "bulk_call": ["core/test_bulk_calls.py", *BULK],
    "batch": ["core/test_batches.py", *BULK, "bulk/test_spoilt_keys.py"],
    "window": ["core/test_windows.py", "core/test_members.py", *WINDOWS, "redis/test_gathering.py"],
    "gathering": ["core/test_gathering.py", *WINDOWS],
    "options": ["core/test_options.py", "core/test_durations.py", "decorators/test_slips.py"],
    "outcome": ["core/test_outcomes.py", "core/test_frozen_errors.py", "contract/test_frozen_errors.py"],
    "shareable": ["contract/test_used_up.py", "bulk/test_used_up.py"],
    "functions": ["contract/test_used_up.py", "decorators/test_coroutines.py"],
    # drivers
    "threads": [
        *(*DRIVEN, "threads/test_failure.py", "threads/test_blocked_loop.py", "threads/test_found_once.py"),
        "endings/test_nobody_left.py",
    ],
    "tasks": [
        *(*DRIVEN, *TASKS, "asyncio/test_work.py", "asyncio/test_leftovers.py", "mixed/test_dead_loops.py"),
        *("endings/test_nobody_left.py", "endings/test_task_factories.py", "reentry/test_coroutines.py"),
        *("endings/test_unprintable_keys.py", "freshness/test_judged_failures.py"),
    ],
    "bulk_threads": ["bulk/test_left_over.py", *BULK, "bulk/test_gathering.py", "endings"],
    "bulk_tasks": ["bulk/test_left_over.py", *BULK, "bulk/test_gathering.py", "endings"],
    "gather_threads": ["threads/test_gathered.py", *WINDOWS],
    "gather_tasks": ["asyncio/test_gathered.py", *WINDOWS],
    "wait": [*CALLS, "bulk/test_waiting.py", "bulk/test_told.py"],
    "seats": ["contract/test_max_flights.py"],
    "delays": ["contract/test_max_flights.py", *SHARED],
    "pool": ["freshness/test_pool.py", "freshness/test_exit.py", "fork"],
    # process
    "registry": ["threads/test_control.py", "threads/test_told.py", "decorators/test_decorated.py", "fork"],
    "totals": ["metrics/test_totals.py", "metrics/test_prometheus.py", "metrics/test_beginning.py"],
    "drain": [
        *("asyncio/test_drain.py", "asyncio/test_without_a_task.py", "threads/test_jobs.py"),
        *("mixed/test_dead_loops.py", "endings/test_nobody_left.py"),
    ],
    # decorator
    "function": [*DECORATED, "decorators/test_identity.py", "decorators/test_looked_at.py"],
    "loader": [*BULK, "decorators/test_binding.py"],
    "loading": [*BULK, *WINDOWS, "decorators/test_binding.py", "decorators/test_calls_made.py"],
    "gathered": WINDOWS,
    "surface": [*HITS, *DECORATED],
    "assembly": DECORATED,
    "accelerate": [*DECORATED, *KEYS, "threads/test_hits.py"],
    "callforms": [
        *(*DECORATED, *KEYS, "decorators/test_parameters.py", "threads/test_hits.py"),
        *("contract/test_copy.py", "contract/test_policy.py"),
    ],
    "keyforms": KEYS,
    "keyparts": ["decorators/test_key_parts.py"],
    "parameters": ["decorators/test_parameters.py", "decorators/test_calls_made.py"],
    "binding": [
        *("decorators/test_parameters.py", "decorators/test_calls_made.py", "core/test_keys.py"),
        "decorators/test_key_options.py",
    ],
    "signatures": ["decorators/test_parameters.py", "decorators/test_twin.py", "core/test_keys.py"],
    "pickles": ["decorators/test_pickling.py"],
    "keys": [*KEYS, "core/test_keys.py", "decorators/test_unweakable.py", "decorators/test_bound.py"],
    # live
    "snapshot": ["live/test_snapshot.py"],
    "sockets": ["live/test_sockets.py"],
    "screen": ["live/test_commands.py"],
    # timeline
    "recorder": ["timeline/test_recording.py"],
    "notes": ["timeline/test_lanes.py", "timeline/test_recording.py"],
    "lanes": ["timeline/test_lanes.py"],
    "drawing": ["timeline/test_page.py"],
    "perfetto": ["timeline/test_perfetto.py"],
    # accounts
    "interface": ACCOUNTS,
    "alpaca": ACCOUNTS,
    "alpaca_data": ACCOUNTS,
    "alpaca_trading": ACCOUNTS,
    "readings": ACCOUNTS,
    "gate": ["accounts/test_gate.py"],
    "alpaca_adapter": ["accounts/test_alpaca_wire.py"],
    "alpaca_stream": ["accounts/test_stream.py"],
}
"""The tests that are run for each module: quick ones that look at what it does."""

LEFT_OUT = {
    "words": {"durations", "errors", "messages", "refusals", "replies", "slips", "views", "alpaca_settings"}
    | {"words", "entry"},
    "signatures that are passed on": {"decorate", "wrapt_types", "alpaca_clients", "workers"},
    "what is seen only from outside of the process, or of the frame": {"display", "forks", "frames"}
    | {"logs", "patches"},
    "helpers for users' tests": {"callers", "stampede"},
    "a show": {"demo"},
    "how things look": {"page", "shapes"},
    "what is run on the server": {"texts"},
    "protocols": {"tier"},
}
"""Modules that nothing is decided, driven, forwarded, bound or counted in, by what is in them instead."""

PYPROJECT = """
[tool.mutmut]
source_paths = ["singleflight"]
only_mutate = ["{path}"]
also_copy = ["conftest.py"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "--hypothesis-seed=0"]
process_isolation = "forkserver"  # no thread of an earlier run is in the process that tests a mutant
track_dependencies = false
use_git_change_detection = false
timeout_constant = 10.0
timeout_multiplier = 3.0

[tool.pytest.ini_options]
addopts = ["--strict-markers", "--import-mode=importlib", "-m", "not long"]
markers = ["long"]
timeout = 20
timeout_method = "thread"
filterwarnings = ["error"]
"""

FOUND = {1: "killed", 3: "killed", -24: "timed out", 24: "timed out", 152: "timed out", -9: "timed out"}
"""How the tests end for a mutant that they find. (255, to mutmut a timeout, may be a missing test.)"""

Change = tuple[str, str]
"""A function's dotted name, and the lines that a mutant took out of it and put into it."""


def where(module: str) -> Path:
    """The file of a module, seen from the project's folder."""
    (path,) = (PROJECT / "singleflight").glob(f"*/{module}.py")
    return path.relative_to(PROJECT)


def prepare(module: str) -> Path:
    """The folder in which mutmut works on a module."""
    work = WORK / module
    work.mkdir(parents=True, exist_ok=True)
    for name in ("singleflight", "tests"):
        if not (work / name).exists():
            (work / name).symlink_to(PROJECT / name)
    shutil.copy2(HERE / "in_the_copy.py", work / "conftest.py")
    text = PYPROJECT.format(path=where(module), tests=json.dumps([f"tests/{path}" for path in TESTS[module]]))
    if not (work / "pyproject.toml").exists() or (work / "pyproject.toml").read_text() != text:
        (work / "pyproject.toml").write_text(text)
    shutil.rmtree(work / "mutants" / "tests", ignore_errors=True)  # mutmut would keep what is deleted here
    (work / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)  # what reached what then
    found = work / "mutants" / f"{where(module)}.meta"
    if found.exists():  # mutmut tests those again that have no result
        data = json.loads(found.read_text())
        codes = data["exit_code_by_key"]
        data["exit_code_by_key"] = {name: code if code in FOUND else None for name, code in codes.items()}
        found.write_text(json.dumps(data))
    return work


def mutate(work: Path) -> None:
    """Have mutmut test what is not tested yet."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONPATH", None)
    with (work / "mutmut.log").open("w") as log:
        command = [sys.executable, HERE / "marked.py", "run", "--max-children", "1"]
        ended = subprocess.run(command, cwd=work, env=environment, stdout=log, stderr=log, check=False)
    if ended.returncode:
        sys.exit(f"mutmut failed; it said:\n{(work / 'mutmut.log').read_text()[-5000:]}")


def results(work: Path, module: str) -> tuple[Counter[str], dict[Change, list[str]]]:
    """How many mutants ended how, and those that no test found."""
    os.chdir(work)
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    path = where(module)
    codes = json.loads((Path("mutants") / f"{path}.meta").read_text())["exit_code_by_key"]
    counts: Counter[str] = Counter()
    survivors: dict[Change, list[str]] = {}
    for name, code in codes.items():
        counts[FOUND.get(code, "survived")] += 1
        if code not in FOUND:
            function = name.partition("__mutmut_")[0].partition(".")[2].partition(".")[2]  # without its room
            function = function.replace(".x_", ".").replace("xǁ", "").replace("ǁ", ".")
            survivors.setdefault((function, change(get_diff_for_mutant(name, path=path))), []).append(name)
    return counts, survivors


def change(diff: str) -> str:
    """The lines that a diff takes out and puts in, without their indentation."""
    lines = [line for line in diff.splitlines() if line[:1] in "-+" and line[:3] not in ("---", "+++")]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines if line[1:].strip())


def listed() -> dict[Change, str]:
    """What `equivalent.txt` names, and why."""
    found: dict[Change, str] = {}
    reason = function = ""
    lines: list[str] = []
    for line in [*(HERE / "equivalent.txt").read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("# "):
            reason = line[2:]
        elif line.startswith(("- ", "+ ")):
            lines.append(line)
        else:
            if lines:
                found[function, "\n".join(lines)] = reason
                lines = []
            function = line.strip() or function
    return found


def report(module: str, work: Path) -> bool:
    """Say what was found; whether every survivor is in the list."""
    counts, survivors = results(work, module)
    known = {key for key in listed() if key[0].partition(".")[0] == module}
    print(
        f"{module}: {counts.total()} mutants: " + ", ".join(f"{n} {how}" for how, n in counts.most_common())
    )
    print(f"{module}: {sum(len(survivors.get(key, ())) for key in known)} of them are listed as equivalent")
    for function, lines in sorted(known - survivors.keys()):
        print(f"\nlisted, but it is killed or does not exist any more:\n{function}\n{lines}")
    unknown = sorted(survivors.keys() - known)
    for function, lines in unknown:
        print(
            f"\nsurvives, and is not listed ({', '.join(survivors[function, lines])}):\n{function}\n{lines}"
        )
    return not unknown


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of the modules that are named, or of all.")
    parser.add_argument("modules", nargs="*", metavar="module", help=", ".join(TESTS))
    parser.add_argument("--afresh", action="store_true", help="forget what was found before")
    asked = parser.parse_args()
    if unknown := set(asked.modules) - TESTS.keys():
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}")
    good = True
    for module in asked.modules or TESTS:
        if asked.afresh:
            shutil.rmtree(WORK / module, ignore_errors=True)
        began = time.monotonic()
        work = prepare(module)
        mutate(work)
        good = report(module, work) and good
        print(f"{module}: {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
