#!/usr/bin/env bash
# Seed 004 with curl alone: a bank's files on its SFTP server are tested, read, not read again, backfilled; and its health.
#
#   samples/walkthroughs/004-bank-sftp.sh [API [SFTP_HOST [SFTP_PORT]]]
#
# API is where `till status` says that the API listens (or $TILL_API). $SFTP_HOST, $SFTP_PORT, $SFTP_USER and $SFTP_PASS
# are the server's, as in the seed: `make connectors-up` starts one. Elsewhere than on this machine, give $SFTP_HOST_KEY
# too: the key that the bank told you; the test tells the one that its server shows.
set -euo pipefail

api=${1:-${TILL_API:-http://127.0.0.1:8080}}
host=${2:-${SFTP_HOST:-localhost}}
port=${3:-${SFTP_PORT:-2222}}
user=${SFTP_USER:-bank}
pass=${SFTP_PASS:-bankpass}
host_key=${SFTP_HOST_KEY:+"\"hostKey\": \"$SFTP_HOST_KEY\","}
name=${TILL_CONNECTOR:-AXIS Bank SFTP}

say() { printf '\n# %s\n' "$*"; }
call() { curl --silent --show-error --fail-with-body "$@" && echo; }
id_in() { sed -n 's/.*"id":"\(conn_[0-9]\{1,\}\)".*/\1/p' | head -n 1; }
wait_for() { # TEXT URL: ask until the answer holds the text, for a minute
  for _ in $(seq 240); do
    if answer=$(call "$2") && [[ $answer == *"$1"* ]]; then echo "$answer"; return; fi
    sleep 0.25
  done
  echo "$2 never said $1: $answer" >&2
  return 1
}
ended() { # RUN: wait until the run of this number has ended well
  wait_for "\"id\":\"$1\",\"run_type\":\"$2\",\"status\":\"SUCCESS\"" "$api/ops/connectors/$id/runs?limit=5" > /dev/null
  call "$api/ops/connectors/$id/runs?limit=1"
}
run_in() { sed -n 's/.*"run_id":\([0-9]\{1,\}\).*/\1/p'; }

say "1. Create the connector. The password is kept apart, and never told again."
created=$(call -X POST "$api/ops/connectors" -H "Content-Type: application/json" -d '{
  "name": "'"$name"'",
  "type": "SFTP",
  "provider": "AXIS",
  "config": {
    "host": "'"$host"'",
    "port": '"$port"',
    "username": "'"$user"'",
    "password": "'"$pass"'",
    '"$host_key"'
    "remotePath": "/upload",
    "filePattern": "AXIS_RECON_YYYYMMDD*.csv",
    "checksumExt": ".sha256",
    "schedule": "0 19 * * *",
    "timezone": "Asia/Kolkata"
  }
}') || { echo "$created" >&2; exit 1; }
echo "$created"
id=$(id_in <<< "$created")

say "2. Test the connection: it names the files that it would read."
tested=$(call -X POST "$api/ops/connectors/$id/test")
echo "$tested"
if [[ $tested != *'"success":true'* ]]; then
  echo "the test failed: is it the right password? See \$SFTP_PASS above. The connector is left: $api/ops/connectors/$id" >&2
  exit 1
fi

say "3. Run it now: download, verify, read, publish, store."
run=$(call -X POST "$api/ops/connectors/$id/run-now" | tee /dev/stderr | run_in)
ended "$run" MANUAL

say "4. Again: what was read is skipped."
run=$(call -X POST "$api/ops/connectors/$id/run-now" | tee /dev/stderr | run_in)
ended "$run" MANUAL

say "5. Backfill three days."
run=$(call -X POST "$api/ops/connectors/$id/backfill" -d '{"startDate": "2025-01-08", "endDate": "2025-01-10"}' |
  tee /dev/stderr | run_in)
ended "$run" BACKFILL

say "6. How it fares: health_status, last_run_at, backlog."
call "$api/ops/connectors/$id"
