"""Puts things that exist into generated requests: random ids only ever find 404.

`RINGBACK_SEEDS` is a JSON object from a parameter's name to its values, such as
`{"jobId": [...], "groupId": [...], "deliveryId": [...], "endpointId": [...], "path": [...]}`. It is
used for parameters in the path and in the query. Of each list, the last value is kept for DELETE and
the others for everything else, unless there is a list such as `DELETE endpointId` for that alone, or
`GET endpointId` of things that nobody changes.
Where the path of a DELETE names two things, the first one stays, and is the first of its list, or one
of a list such as `DELETE secretId of endpointId`: of things that nobody changes. What is deleted there
is of the list `DELETE secretId of ` and the first one's id.

What is put where depends only on the case itself, because schemathesis replays cases and has to
see the same request again.
"""

import json
import os
import re
import zlib

import schemathesis

SEEDS = json.loads(os.environ.get("RINGBACK_SEEDS", "{}"))

# Longer waits are valid and only make the run longer.
LONGEST_WAIT = 1


@schemathesis.hook
def map_case(context, case):
    shorten_wait(case.query)
    # There, ids come from earlier answers by way of the document's links.
    if phase_of(case) != "stateful":
        seed(case, case.path_parameters)
        seed(case, case.query)
    return case


def phase_of(case):
    return case.meta.phase.name.value.lower() if case.meta else ""


def shorten_wait(query):
    wait = (query or {}).get("wait")
    try:
        if float(wait) > LONGEST_WAIT:
            query["wait"] = LONGEST_WAIT
    except (TypeError, ValueError):
        pass  # A wrong value is there to be refused.


def usable_for(case, parameters, name):
    *lasting, doomed = SEEDS[name]
    if case.method == "GET" and f"GET {name}" in SEEDS:
        return SEEDS[f"GET {name}"]
    if case.method != "DELETE":
        return lasting or [doomed]
    last = (re.findall(r"{(\w+)}", case.path) or [None])[-1]
    if last != name:
        return SEEDS.get(f"DELETE {last} of {name}") or lasting[:1] or [doomed]
    for other in parameters.values():
        if f"DELETE {name} of {other}" in SEEDS:
            return SEEDS[f"DELETE {name} of {other}"]
    return SEEDS.get(f"DELETE {name}", [doomed])


def seed(case, parameters):
    for name in sorted(parameters or {}):
        if not SEEDS.get(name):
            continue
        usable = usable_for(case, parameters, name)
        number = zlib.crc32(f"{case.method} {case.path} {parameters!r}".encode())
        # One in four stays as it was generated, for the refusals. Generated values can be seeds
        # too, because schemathesis takes them from earlier answers.
        if number % 4 or parameters[name] in SEEDS[name][:-1]:
            parameters[name] = usable[number // 4 % len(usable)]
