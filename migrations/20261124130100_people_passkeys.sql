-- One passkey (WebAuthn credential): the public half, so nothing here opens anything.
create table muneem.people_passkeys (
    credential_id bytea primary key constraint people_passkeys_credential_id_length
        check (octet_length(credential_id) between 1 and 1023),
    staff_id uuid not null,
    -- What she calls it: "laptop".
    label text not null constraint people_passkeys_label_form check (label ~ '\S' and length(label) <= 60),
    -- Public key and properties, as the library writes them.
    credential jsonb not null,
    -- The authenticator's own count of uses; it goes up or stays at nought.
    counter bigint not null constraint people_passkeys_counter_sane check (counter >= 0),
    made_at timestamptz not null,
    used_at timestamptz,
    -- When the counter went back: somewhere there is a copy. It opens nothing any more.
    suspect_at timestamptz
);

create index people_passkeys_staff on muneem.people_passkeys (staff_id);

-- One challenge given to a browser, answered once at most.
create table muneem.people_passkey_challenges (
    challenge_id uuid primary key,
    staff_id uuid not null,
    purpose text not null constraint people_passkey_challenges_purpose_known check (purpose in ('register', 'prove')),
    -- What the library compares the answer with.
    state jsonb not null,
    expires_at timestamptz not null
);

create index people_passkey_challenges_expires_at on muneem.people_passkey_challenges (expires_at);

grant select, insert, delete on muneem.people_passkeys to muneem_app;
grant update (credential, counter, used_at, suspect_at) on muneem.people_passkeys to muneem_app;
grant select, insert, delete on muneem.people_passkey_challenges to muneem_app;
