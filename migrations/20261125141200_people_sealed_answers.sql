-- Remembered answers lie sealed: an answer may hold what the caller alone may read. Nothing writes the column `answer`
-- any more, and a later version drops it; a key of the version before is refused as belonging to another request.
alter table muneem.people_idempotency_keys
    alter column answer drop not null,
    -- Whose keys seal the answer: the business of the token, or the installation.
    add column sealed_for uuid,
    -- The body of the answer (cell: muneem.people_idempotency_keys, answer_sealed, token id and digest of the key).
    add column answer_sealed bytea,
    add constraint people_idempotency_keys_one_answer check (
        num_nonnulls(answer, answer_sealed) = 1 and (answer_sealed is null or sealed_for is not null));

comment on column muneem.people_idempotency_keys.request_sha256 is
    'of key, method, path and body; the key alone is kept as a digest, so that nobody guesses the body from this one';
