-- What one person of staff signs in with. She is named by her staff id; what she is called and reached by stands
-- elsewhere, sealed.
create table muneem.people_credentials (
    staff_id uuid primary key,
    -- Argon2id in PHC form.
    password_hash text constraint people_credentials_password_hash_form check (password_hash like '$argon2id$%'),
    password_set_at timestamptz,
    -- The secret of her authenticator app, sealed by the vault.
    totp_sealed bytea,
    -- Set up and not yet proved with a code.
    totp_pending_sealed bytea,
    -- The last time step (RFC 6238 section 4.2) whose code was used. It only grows: a code works once.
    totp_last_step bigint not null default 0 constraint people_credentials_totp_last_step_sane
        check (totp_last_step >= 0),
    updated_at timestamptz not null,
    constraint people_credentials_password_whole check ((password_hash is null) = (password_set_at is null))
);

-- One recovery code, for the day on which the phone with the authenticator is gone. Shown once; 80 bits of chance, so
-- a fast digest is enough.
create table muneem.people_recovery_codes (
    staff_id uuid not null references muneem.people_credentials (staff_id) on delete cascade,
    code_sha256 bytea not null constraint people_recovery_codes_length check (octet_length(code_sha256) = 32),
    made_at timestamptz not null,
    used_at timestamptz,
    primary key (staff_id, code_sha256)
);

-- One six-digit code sent to a phone or a mail address. The digest covers a secret that only the asking browser holds:
-- whoever reads the table cannot try the million codes, and a code read out on the telephone opens nothing elsewhere.
create table muneem.people_sign_in_codes (
    code_id uuid primary key,
    staff_id uuid not null,
    channel text not null constraint people_sign_in_codes_channel_known check (channel in ('phone', 'email')),
    code_sha256 bytea not null constraint people_sign_in_codes_length check (octet_length(code_sha256) = 32),
    tries_left smallint not null constraint people_sign_in_codes_tries_sane check (tries_left >= 0),
    made_at timestamptz not null,
    expires_at timestamptz not null constraint people_sign_in_codes_expires_later check (expires_at > made_at),
    used_at timestamptz
);

create index people_sign_in_codes_staff on muneem.people_sign_in_codes (staff_id, made_at);

-- How often signing in to one account failed of late, from one place or, with an empty place, from anywhere. Both are
-- blind indexes: neither the account's name nor an address can be read here. An account that does not exist counts as
-- one that does.
create table muneem.people_sign_in_failures (
    account bytea not null constraint people_sign_in_failures_account_length check (octet_length(account) = 16),
    place bytea not null constraint people_sign_in_failures_place_length check (octet_length(place) in (0, 16)),
    failures integer not null constraint people_sign_in_failures_sane check (failures >= 0),
    -- No attempt is looked at before.
    not_before timestamptz not null,
    last_at timestamptz not null,
    primary key (account, place)
);

create index people_sign_in_failures_last_at on muneem.people_sign_in_failures (last_at);

-- One browser that somebody is signed in with. The token is in its cookie alone; here is its digest. A session ends and
-- never begins again: at each sign-in and step-up another takes its place.
create table muneem.people_sessions (
    session_id uuid primary key,
    token_sha256 bytea not null unique constraint people_sessions_token_length check (octet_length(token_sha256) = 32),
    staff_id uuid not null,
    -- `first`: the second factor is still to come. `full`: signed in.
    level text not null constraint people_sessions_level_known check (level in ('first', 'full')),
    -- The browser's own lasting mark, by its digest: known ones raise no alarm.
    device_sha256 bytea not null constraint people_sessions_device_length check (octet_length(device_sha256) = 32),
    -- What the browser calls itself, shortened: "Firefox on Linux".
    device_name text not null constraint people_sessions_device_name_short check (length(device_name) <= 60),
    opened_at timestamptz not null,
    -- To the minute, so that reading does not write.
    seen_at timestamptz not null,
    -- The last instant, however busy it is.
    expires_at timestamptz not null constraint people_sessions_expires_later check (expires_at > opened_at),
    -- When she last proved a factor for something that asks for it anew.
    stepped_up_at timestamptz,
    ended_at timestamptz
);

create index people_sessions_staff on muneem.people_sessions (staff_id, opened_at) where ended_at is null;
create index people_sessions_expires_at on muneem.people_sessions (expires_at);

-- One browser that somebody has signed in with before.
create table muneem.people_devices (
    staff_id uuid not null,
    device_sha256 bytea not null constraint people_devices_length check (octet_length(device_sha256) = 32),
    first_seen_at timestamptz not null,
    last_seen_at timestamptz not null,
    primary key (staff_id, device_sha256)
);

-- One wish to take somebody's second factor away, because she lost it. It takes a second person and a day, in which
-- she is told and may say no.
create table muneem.people_factor_resets (
    reset_id uuid primary key,
    staff_id uuid not null,
    asked_by uuid not null,
    asked_at timestamptz not null,
    approved_by uuid,
    -- Not before; set with the approval.
    due_at timestamptz,
    done_at timestamptz,
    cancelled_at timestamptz,
    constraint people_factor_resets_second_person check (approved_by <> asked_by and approved_by <> staff_id),
    constraint people_factor_resets_approved_whole check ((approved_by is null) = (due_at is null)),
    constraint people_factor_resets_delay check (due_at >= asked_at + interval '24 hours'),
    constraint people_factor_resets_done_in_order check (done_at is null or (done_at >= due_at and due_at is not null)),
    constraint people_factor_resets_one_end check (done_at is null or cancelled_at is null)
);

create unique index people_factor_resets_open on muneem.people_factor_resets (staff_id)
    where done_at is null and cancelled_at is null;

grant select, insert, update on muneem.people_credentials to muneem_app;
grant select, insert, delete on muneem.people_recovery_codes to muneem_app;
grant update (used_at) on muneem.people_recovery_codes to muneem_app;
grant select, insert, delete on muneem.people_sign_in_codes to muneem_app;
grant update (tries_left, used_at) on muneem.people_sign_in_codes to muneem_app;
grant select, insert, update, delete on muneem.people_sign_in_failures to muneem_app;
grant select, insert, delete on muneem.people_sessions to muneem_app;
grant update (seen_at, ended_at) on muneem.people_sessions to muneem_app;
grant select, insert, update on muneem.people_devices to muneem_app;
grant select, insert on muneem.people_factor_resets to muneem_app;
grant update (approved_by, due_at, done_at, cancelled_at) on muneem.people_factor_resets to muneem_app;
grant select on muneem.people_factor_resets to muneem_auditor;
grant select (session_id, staff_id, level, device_name, opened_at, seen_at, expires_at, stepped_up_at, ended_at)
    on muneem.people_sessions to muneem_auditor;
