-- One bearer token of the HTTP API. Its secret is shown once, when it is made; only the digest stays.
create table muneem.people_tokens (
    -- Stands in the token in clear: enough to find this row, worth nothing alone.
    public_id text primary key constraint people_tokens_public_id_form check (public_id ~ '^[0-9a-f]{16}$'),
    secret_sha256 bytea not null constraint people_tokens_secret_length check (octet_length(secret_sha256) = 32),
    -- Who or what holds it, in the words of whoever made it: "checkout page".
    label text not null constraint people_tokens_label_form check (label ~ '\S' and length(label) <= 100),
    -- The one business it may see. Null: all of them, for whoever runs this installation.
    business_id uuid references muneem.people_businesses (business_id),
    -- What it may do: `queue:write`, `invoice:read`.
    scopes text[] not null constraint people_tokens_scopes_some check (cardinality(scopes) > 0),
    created_at timestamptz not null,
    expires_at timestamptz constraint people_tokens_expires_later check (expires_at > created_at),
    -- To the minute, so that reading does not write.
    last_used_at timestamptz,
    revoked_at timestamptz
);

grant select, insert on muneem.people_tokens to muneem_app;
grant update (last_used_at, revoked_at) on muneem.people_tokens to muneem_app;
grant select (public_id, label, business_id, scopes, created_at, expires_at, last_used_at, revoked_at)
    on muneem.people_tokens to muneem_auditor;

-- One POST that has been answered, for a day: the same Idempotency-Key again gets the same answer and no second
-- effect. The row commits together with the effect, so there is no key without its effect and no effect without it.
create table muneem.people_idempotency_keys (
    token_id text not null references muneem.people_tokens (public_id),
    key_sha256 bytea not null,
    -- Of method, path and body: another request under the same key is refused.
    request_sha256 bytea not null,
    status smallint not null,
    -- The body of the answer, as it was sent.
    answer text not null,
    created_at timestamptz not null,
    primary key (token_id, key_sha256)
);

create index people_idempotency_keys_created_at on muneem.people_idempotency_keys (created_at);

-- Update is for the row locks of the sweep alone.
grant select, insert, update, delete on muneem.people_idempotency_keys to muneem_app;

-- Health and doctor compare what is applied with what the program brings. The table is the migrator's own; where the
-- files are applied by hand there is none.
do $$
begin
    if to_regclass('muneem._sqlx_migrations') is not null then
        grant select on muneem._sqlx_migrations to muneem_app;
    end if;
end
$$;
