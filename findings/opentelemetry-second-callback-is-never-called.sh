#!/usr/bin/env bash
# opentelemetry-sdk 1.45.2: of two observable instruments of one name, the callbacks of the second are never called.
#
# A meter that is asked again for an observable counter (a module is reloaded, an instrumentation is undone and done again)
# returns the first one, without a warning. The callback that is passed the second time is dropped: the numbers are the first
# one's for ever, or none, if that one has stopped observing.
#
# A good guess gets it wrong because counters that are not observable work as one hopes (both names lead to one counter,
# which both callers add to), and because a conflict (another unit or description) is logged.
#
# Output seen:
#
#     callbacks that were called: [1]
#     exported: [1]
#     warnings: []
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check opentelemetry-sdk==1.45.2
"$folder/venv/bin/python" - <<'PROGRAM'
import logging

from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


class Kept(logging.Handler):
    lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


logging.getLogger().addHandler(Kept())
called = []


def observing(number):
    def callback(options):
        called.append(number)
        return [Observation(number)]

    return callback


reader = InMemoryMetricReader()
meter = MeterProvider([reader]).get_meter("app")
meter.create_observable_counter("jobs", [observing(1)])
meter.create_observable_counter("jobs", [observing(2)])
data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data
exported = [point.value for point in data.data_points]
print("callbacks that were called:", called)
print("exported:", exported)
print("warnings:", Kept.lines)
assert called == [1] and exported == [1] and Kept.lines == []
PROGRAM
