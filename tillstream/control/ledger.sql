-- The last proof of the ledger.

-- name: keep_proof
-- `$1` when it began, `$2` when it ended, `$3` what does not balance. Of two at the same time the one that began later holds.
INSERT INTO ledger_proofs AS p (began_at, ended_at, findings) VALUES ($1, $2, $3)
    ON CONFLICT (newest) DO UPDATE
   SET began_at = excluded.began_at, ended_at = excluded.ended_at, findings = excluded.findings
 WHERE excluded.began_at >= p.began_at;

-- name: last_proof
SELECT began_at, ended_at, findings FROM ledger_proofs;
