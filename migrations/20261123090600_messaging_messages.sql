-- One WhatsApp number that a business sends from, as the carrier knows it.
create table muneem.messaging_accounts (
    -- The carrier's `phone_number_id`; a number belongs to one business.
    phone_number_id text primary key constraint messaging_accounts_number_form check (phone_number_id ~ '^[0-9]{1,32}$'),
    business_id uuid not null references muneem.people_businesses (business_id),
    -- The WhatsApp Business Account that the number and its templates belong to.
    waba_id text not null constraint messaging_accounts_waba_form check (waba_id ~ '^[0-9]{1,32}$'),
    -- The number as customers see it, in E.164.
    display_phone text not null constraint messaging_accounts_phone_form check (display_phone ~ '^\+[1-9][0-9]{7,14}$'),
    created_at timestamptz not null
);

create index messaging_accounts_business on muneem.messaging_accounts (business_id);

-- One thing to say to one person on WhatsApp. It may take several attempts; it is read at most once.
create table muneem.messaging_messages (
    message_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    phone_number_id text not null references muneem.messaging_accounts (phone_number_id),
    -- Personal: the recipient in E.164.
    to_phone text not null constraint messaging_messages_phone_form check (to_phone ~ '^\+[1-9][0-9]{7,14}$'),
    -- Folder under templates/messaging/, and the language folder within.
    template text not null,
    language text not null,
    -- Personal: the template's typed parameters.
    params jsonb not null,
    -- The file in the header: digest in the file store, and the name that the recipient sees.
    document_digest text constraint messaging_messages_document_form check (document_digest ~ '^[0-9a-f]{64}$'),
    document_filename text,
    -- Why it is said, for ledgers and counts: `invoice.issued`.
    purpose text not null constraint messaging_messages_purpose_form check (purpose ~ '^[a-z]+\.[a-z_]+$'),
    -- What to do when nobody can tell whether an attempt was sent.
    policy text not null constraint messaging_messages_policy_known check (policy in ('at_least_once', 'at_most_once')),
    state text not null constraint messaging_messages_state_known check (state in (
        'queued', 'posting', 'unknown', 'accepted', 'held', 'sent', 'delivered', 'read', 'failed', 'unknown_final')),
    -- While queued: whom the carrier wants to hear nothing from (app, credential, account, number, template).
    held_scope text,
    -- The carrier's code of the last refusal or failure, and its words without numbers.
    error_code bigint,
    error_details text,
    -- After this instant no further attempt starts.
    expires_at timestamptz not null,
    -- Two attempts were accepted: the recipient has it twice.
    duplicate_delivered_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint messaging_messages_document_whole check ((document_digest is null) = (document_filename is null))
);

create index messaging_messages_page on muneem.messaging_messages (business_id, message_id desc);

-- One POST to the carrier. The row is committed before the first byte leaves, so that no POST is without one.
create table muneem.messaging_attempts (
    message_id uuid not null references muneem.messaging_messages (message_id),
    -- From 1.
    number integer not null constraint messaging_attempts_number_positive check (number > 0),
    -- `w1.<message id>.<number>.<tag>`, echoed by the carrier; the tag is chance, so nobody guesses one.
    ref text not null constraint messaging_attempts_ref_key unique,
    -- Which lease of which job posted: a later lease that finds it still `posting` knows that its forerunner died.
    job_id bigint not null,
    job_attempt integer not null,
    outcome text not null constraint messaging_attempts_outcome_known check (outcome in (
        'posting', 'accepted', 'refused', 'not_sent', 'unknown', 'presumed_lost', 'failed')),
    -- Personal: the carrier's id spells the recipient's number.
    wamid text constraint messaging_attempts_wamid_key unique,
    -- Learned from a webhook, not from the answer to the POST.
    adopted_at timestamptz,
    http_status smallint,
    error_code bigint,
    -- What went wrong in words without personal data.
    error_details text,
    -- The carrier's trace id; its support asks for it.
    trace text,
    started_at timestamptz not null,
    ended_at timestamptz,
    primary key (message_id, number)
);

-- One webhook body, stored before it is answered. The carrier keeps no history, so this is the only copy.
create table muneem.messaging_webhooks (
    webhook_id uuid primary key,
    sha256 bytea not null constraint messaging_webhooks_sha256_key unique
        constraint messaging_webhooks_sha256_length check (length(sha256) = 32),
    -- Personal: the exact bytes that were signed.
    body bytea not null,
    -- `unreadable`: signed, but no JSON of the shape we know; kept for a person to look at.
    state text not null constraint messaging_webhooks_state_known check (state in ('received', 'unreadable', 'unmatched')),
    received_at timestamptz not null
);

-- One update out of a webhook: a status of a message of ours or a message from somebody. It may arrive before the
-- attempt it belongs to has its answer, hence no foreign key.
create table muneem.messaging_events (
    event_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    phone_number_id text not null,
    kind text not null constraint messaging_events_kind_known check (kind in ('status', 'inbound')),
    -- Personal, see messaging_attempts.
    wamid text not null,
    -- What the carrier echoed of us; null for inbound messages and foreign statuses.
    ref text,
    -- As the carrier wrote it, known to us or not: `sent`; for inbound messages their type: `text`.
    status text not null,
    error_code bigint,
    error_details text,
    -- The carrier's time of it, in whole seconds.
    at timestamptz not null,
    received_at timestamptz not null,
    -- Where the whole of it lies: the body, and the position among its updates.
    webhook_id uuid not null references muneem.messaging_webhooks (webhook_id),
    position integer not null,
    constraint messaging_events_once unique nulls not distinct (kind, wamid, status, error_code)
);

create index messaging_events_ref on muneem.messaging_events (ref) where ref is not null;

-- When a number was last heard of: what the silence of an attempt is measured against.
create index messaging_events_heard on muneem.messaging_events (phone_number_id, received_at);

-- One file that the carrier holds for a number; its id is good for thirty days.
create table muneem.messaging_media (
    digest text not null constraint messaging_media_digest_form check (digest ~ '^[0-9a-f]{64}$'),
    phone_number_id text not null references muneem.messaging_accounts (phone_number_id),
    media_id text not null,
    -- Thirty days after the upload, less a margin for messages under way.
    expires_at timestamptz not null,
    primary key (digest, phone_number_id)
);

grant select, insert, update on
    muneem.messaging_accounts, muneem.messaging_messages, muneem.messaging_attempts, muneem.messaging_media
    to muneem_app;
grant select, insert on muneem.messaging_webhooks, muneem.messaging_events to muneem_app;
grant delete on muneem.messaging_media to muneem_app;
