-- One-time codes that a business's own customers prove a phone or mail address with.

-- One request for a code. Its codes, one for each channel that was tried, share its tries and its end.
create table muneem.messaging_otps (
    otp_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    -- What the business asks it for: `sign_in`, `checkout`.
    purpose text not null constraint messaging_otps_purpose_form
        check (length(purpose) <= 64 and purpose ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,3}$'),
    language text not null,
    -- Blind indexes of where it goes, under the keys of messaging_contacts.mark.
    phone_mark bytea constraint messaging_otps_phone_mark_length check (length(phone_mark) = 18),
    email_mark bytea constraint messaging_otps_email_mark_length check (length(email_mark) = 18),
    -- Where it goes, as JSON; gone once nothing more is sent.
    to_sealed bytea,
    channels text[] not null constraint messaging_otps_channels_known
        check (channels <@ array['whatsapp', 'mail'] and cardinality(channels) between 1 and 2),
    digits smallint not null constraint messaging_otps_digits_range check (digits between 4 and 8),
    -- `open` until one of its ends.
    state text not null constraint messaging_otps_state_known
        check (state in ('open', 'verified', 'locked', 'superseded', 'disowned')),
    tries_left smallint not null constraint messaging_otps_tries_range check (tries_left between 0 and 5),
    asked_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    constraint messaging_otps_to_somebody check (num_nonnulls(phone_mark, email_mark) > 0),
    constraint messaging_otps_life check (expires_at > created_at and expires_at <= created_at + interval '10 minutes'),
    constraint messaging_otps_ended check ((state = 'open') = (ended_at is null))
);

create index messaging_otps_phone on muneem.messaging_otps (business_id, phone_mark) where state = 'open';
create index messaging_otps_email on muneem.messaging_otps (business_id, email_mark) where state = 'open';
create index messaging_otps_expires_at on muneem.messaging_otps (expires_at);

-- One code of a request, on one channel; the code itself is kept nowhere.
create table muneem.messaging_otp_codes (
    code_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    otp_id uuid not null references muneem.messaging_otps (otp_id) on delete cascade,
    -- Which of the request's channels, from 0.
    hop smallint not null,
    channel text not null constraint messaging_otp_codes_channel_known check (channel in ('whatsapp', 'mail')),
    -- Keyed hash of business, request, addresses, purpose and code; none: nothing was sent this way.
    code_mark bytea constraint messaging_otp_codes_mark_length check (length(code_mark) = 18),
    -- The WhatsApp message that carries it.
    message_id uuid,
    -- `sending`: handed to the mail server, no answer yet.
    state text not null constraint messaging_otp_codes_state_known
        check (state in ('planned', 'sending', 'sent', 'failed', 'skipped')),
    -- Why not, for `failed` and `skipped`.
    reason text,
    issued_at timestamptz not null,
    -- Since when it is good for nothing, though the request is open.
    voided_at timestamptz,
    constraint messaging_otp_codes_once unique (otp_id, hop),
    constraint messaging_otp_codes_skipped_has_none check (state <> 'skipped' or code_mark is null)
);

-- How much each of many may still ask for: the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371).
-- A row whose time has passed says nothing and is deleted.
create table muneem.messaging_otp_limits (
    business_id uuid not null references muneem.people_businesses (business_id),
    bucket text not null constraint messaging_otp_limits_bucket_form check (bucket ~ '^[a-z_]{1,32}$'),
    -- Blind index or digest of what is counted; empty for the business itself.
    key bytea not null,
    arrives_at timestamptz not null,
    primary key (business_id, bucket, key)
);

create index messaging_otp_limits_arrives_at on muneem.messaging_otp_limits (arrives_at);

grant select, insert, delete on muneem.messaging_otps, muneem.messaging_otp_codes, muneem.messaging_otp_limits to muneem_app;
grant update (to_sealed, state, tries_left, ended_at) on muneem.messaging_otps to muneem_app;
grant update (code_mark, message_id, state, reason, issued_at, voided_at) on muneem.messaging_otp_codes to muneem_app;
grant update (arrives_at) on muneem.messaging_otp_limits to muneem_app;
grant select (otp_id, business_id, purpose, language, channels, digits, state, tries_left, asked_by, created_at,
    expires_at, ended_at) on muneem.messaging_otps to muneem_auditor;
grant select (code_id, business_id, otp_id, hop, channel, message_id, state, reason, issued_at, voided_at)
    on muneem.messaging_otp_codes to muneem_auditor;

select muneem.people_build_wall();
