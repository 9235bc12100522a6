#!/usr/bin/env bash
# Seed 003 with curl alone: a payment gateway's connector is created, tested, run, paused; its history tells all of it.
#
#   samples/walkthroughs/003-gateway.sh [API [GATEWAY]]
#
# API is where `till status` says that the API listens (or $TILL_API). GATEWAY is an API that speaks as Razorpay does
# (or $GATEWAY_URL); `till demo` says where its own listens: "reading http://…/v1".
# $GATEWAY_KEY_ID and $GATEWAY_KEY_SECRET are its account; without them, that of the demonstration's gateway.
set -euo pipefail

api=${1:-${TILL_API:-http://127.0.0.1:8080}}
gateway=${2:-${GATEWAY_URL:-http://127.0.0.1:8090/v1}}
key_id=${GATEWAY_KEY_ID:-rzp_test_tillstream}
key_secret=${GATEWAY_KEY_SECRET:-gateway-demo-secret}
name=${TILL_CONNECTOR:-Gateway walk-through}

say() { printf '\n# %s\n' "$*"; }
call() { curl --silent --show-error --fail-with-body "$@" && echo; }
number_in() { sed -n "s/.*\"$1\":\"\{0,1\}\([0-9]\{1,\}\).*/\1/p" | head -n 1; }
wait_for() { # TEXT URL: ask until the answer holds the text, for a minute
  for _ in $(seq 240); do
    if answer=$(call "$2") && [[ $answer == *"$1"* ]]; then echo "$answer"; return; fi
    sleep 0.25
  done
  echo "$2 never said $1: $answer" >&2
  return 1
}

say "Create it. It has a schedule, so it does not poll; its secrets are kept apart, and never told again."
created=$(call -X POST "$api/connectors" -H "Content-Type: application/json" -d '{
  "name": "'"$name"'",
  "connector_type": "PG_API",
  "source_entity": "RAZORPAY",
  "connection_config": {
    "api_base_url": "'"$gateway"'",
    "username": "'"$key_id"'",
    "password": "'"$key_secret"'",
    "resources": [{"name": "payments", "settle_s": 0, "overlap_s": 60}, {"name": "refunds", "settle_s": 0, "overlap_s": 60}]
  },
  "schedule_cron": "0 2 * * *",
  "schedule_timezone": "Asia/Kolkata"
}') || { echo "$created" >&2; exit 1; }
echo "$created"
id=$(number_in id <<< "$created")

say "Test it: the gateway is asked for real, and nothing is published."
call -X POST "$api/connectors/$id/test" -H "Content-Type: application/json" -d '{"triggered_by": "USER_123"}'

say "Run it. The answer does not wait."
run=$(call -X POST "$api/connectors/$id/run" -H "Content-Type: application/json" -d '{"triggered_by": "USER_123"}')
echo "$run"

say "The history tells how it ended: once the payments are in the database."
wait_for '"run_type":"MANUAL","status":"SUCCESS"' "$api/connectors/$id/history?limit=5"

say "Pause it."
call -X POST "$api/connectors/$id/pause"

say "Now nobody can run it."
curl --silent --show-error -X POST "$api/connectors/$id/run" && echo

say "Resume it."
call -X POST "$api/connectors/$id/resume"

say "Its history, and its line in the list."
call "$api/connectors/$id/history"
call "$api/connectors?search=RAZORPAY"
