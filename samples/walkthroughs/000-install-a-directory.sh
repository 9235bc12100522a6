#!/usr/bin/env bash
# Seed 000 with curl alone: watch a folder, put a file there, look at its tasks and its payment.
#
#   samples/walkthroughs/000-install-a-directory.sh [API [FOLDER]]
#
# API is where `till status` says that the API listens (or $TILL_API); workers must see FOLDER as this script does.
set -euo pipefail

api=${1:-${TILL_API:-http://127.0.0.1:8080}}
folder=${2:-$(mktemp -d "${TMPDIR:-/tmp}/payments.XXXXXX")}
name=${TILL_CONNECTOR:-example}

say() { printf '\n# %s\n' "$*"; }
call() { curl --silent --show-error --fail-with-body "$@" && echo; }
wait_for() { # TEXT URL: ask until the answer holds the text, for a minute
  for _ in $(seq 240); do
    if answer=$(call "$2") && [[ $answer == *"$1"* ]]; then echo "$answer"; return; fi
    sleep 0.25
  done
  echo "$2 never said $1: $answer" >&2
  return 1
}

say "Without a folder it says what is missing."
curl --silent --show-error "$api/connectors/$name" -X POST && echo

say "Watch $folder. curl calls the body a form; it is read as JSON."
call "$api/connectors/$name" -X POST -d "{\"directory\": \"$folder\", \"poll_s\": 0.5, \"rest_s\": 0.5}"

say "Its main task lists the folder."
wait_for '"status":"active"' "$api/connectors/$name/tasks"

say "Put a payin there: under another name first, so that nobody reads half of it."
cat > "$folder/.001.json.part" <<'JSON'
{"type": "payin", "reference": "001", "status": "succeeded", "asset": "USD", "initialAmount": 100}
JSON
mv "$folder/.001.json.part" "$folder/001.json"

say "The file is a task of its own."
wait_for '"descriptor":"001.json"' "$api/connectors/$name/tasks"

say "And a payment."
wait_for '"reference":"001"' "$api/payments?provider=$name"

say "Uninstall it. What it brought stays."
call "$api/connectors/$name" -X DELETE
call "$api/payments?provider=$name"
