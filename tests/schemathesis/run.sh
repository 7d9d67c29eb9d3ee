#!/usr/bin/env bash
# Checks a running server against its own OpenAPI document, with requests that schemathesis makes
# up from it. Ends with 0 if everything held, otherwise with a report of what did not.
#
#   RINGBACK_URL           where the server is
#   RINGBACK_API_KEY       a valid key with all scopes
#   RINGBACK_SEEDS         JSON of things that exist, see hooks.py
#   RINGBACK_SCHEMATHESIS  absolute path of the program `st`; ./test says which
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Its hooks are found by their module's name; nothing is written next to the sources.
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=hooks

# Hypothesis leaves files where it runs.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

checks=(
    not_a_server_error
    status_code_conformance
    content_type_conformance
    response_headers_conformance
    response_schema_conformance
)

check() {
    "${RINGBACK_SCHEMATHESIS:?run ./test, which sets it}" \
        --config-file "$here/schemathesis.toml" --no-color \
        run "${RINGBACK_URL:?}/openapi.json" \
        --url "$RINGBACK_URL" \
        --header "Authorization: Bearer ${RINGBACK_API_KEY:?}" \
        --phases "$1" \
        --checks "$(IFS=, && echo "${checks[*]}")"
}

# Twice, because what the first phases learn makes schemathesis end the stateful one early.
status=0
check examples,coverage,fuzzing || status=1
check stateful || status=1
exit "$status"
