-- Requests that may come twice.

-- name: forget_keys
-- What is older than `$1` hours.
DELETE FROM idempotency_keys WHERE made_at < now() - $1 * interval '1 hour';

-- name: make_key
-- Nothing where it is there.
INSERT INTO idempotency_keys (key, request, reserved) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING reserved;

-- name: find_key
SELECT request, reserved, status, headers, body FROM idempotency_keys WHERE key = $1;

-- name: keep_answer
UPDATE idempotency_keys SET status = $2, headers = $3, body = $4 WHERE key = $1;
