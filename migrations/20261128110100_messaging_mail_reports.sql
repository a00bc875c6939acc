-- One attempt to send one mail, as its Message-ID and return path name it: whoever reports something of the mail brings
-- the token back. Kept are digests alone, so that a reader of this table can forge nothing and learns no address.
create table muneem.messaging_mail_tokens (
    token_sha256 bytea primary key constraint messaging_mail_tokens_length check (length(token_sha256) = 32),
    business_id uuid not null references muneem.people_businesses (business_id),
    -- `staff`: of messaging_mails. `message`: an attempt on the channel `mail` of messaging_messages.
    of_kind text not null constraint messaging_mail_tokens_kind_known check (of_kind in ('staff', 'message')),
    of_id uuid not null,
    attempt integer,
    -- HMAC of the recipient's address under the token.
    recipient_mark bytea not null,
    created_at timestamptz not null,
    constraint messaging_mail_tokens_attempt check ((attempt is not null) = (of_kind = 'message'))
);

create index messaging_mail_tokens_created_at on muneem.messaging_mail_tokens (created_at);

-- One mail, or one call of a webhook, that came back about mail of ours.
create table muneem.messaging_mail_reports (
    report_id uuid primary key,
    -- Of the raw bytes: the same again is the same.
    sha256 bytea not null constraint messaging_mail_reports_sha256_key unique
        constraint messaging_mail_reports_sha256_length check (length(sha256) = 32),
    source text not null constraint messaging_mail_reports_source_known check (source in ('imap', 'maildir', 'webhook')),
    format text not null constraint messaging_mail_reports_format_known check (format in ('rfc822', 'json')),
    -- Whose mail it is about; null: nobody's here, and then no job looks at it.
    business_id uuid references muneem.people_businesses (business_id),
    -- The raw bytes, while they may be of use; null where it is no report, for then it is somebody's letter.
    body_sealed bytea,
    -- `received`: a job will look at it. `applied`: it counted. `unfit`: it names somebody else than the recipient.
    -- `unmatched`: about no mail of ours. `answer`: a machine answered for a person. `ignored`: no report at all.
    state text not null constraint messaging_mail_reports_state_known
        check (state in ('received', 'applied', 'unfit', 'unmatched', 'answer', 'ignored')),
    -- What it says: of the first recipient it names.
    kind text constraint messaging_mail_reports_kind_known
        check (kind in ('failed', 'delayed', 'delivered', 'relayed', 'complaint')),
    status text constraint messaging_mail_reports_status_form check (status ~ '^[245]\.[0-9]{1,3}\.[0-9]{1,3}$'),
    permanent boolean,
    -- The mail it is about, as in messaging_mail_tokens.
    of_kind text,
    of_id uuid,
    attempt integer,
    received_at timestamptz not null,
    applied_at timestamptz,
    constraint messaging_mail_reports_job_has_what_it_needs
        check (state <> 'received' or (business_id is not null and body_sealed is not null))
);

create index messaging_mail_reports_received_at on muneem.messaging_mail_reports (received_at);
create index messaging_mail_reports_of on muneem.messaging_mail_reports (of_id) where of_id is not null;

-- How far a mailbox was read: a line for each mailbox that a process reads by IMAP.
create table muneem.messaging_mailboxes (
    -- Digest of server, user and name: none of them is needed to go on.
    mailbox text primary key constraint messaging_mailboxes_form check (mailbox ~ '^[0-9a-f]{64}$'),
    -- RFC 9051 section 2.3.1.1: while it stays, UIDs only grow.
    uid_validity bigint not null,
    last_uid bigint not null,
    updated_at timestamptz not null
);

alter table muneem.messaging_mails
    drop constraint messaging_mails_state_known,
    -- `bounced`: taken by our mail server, and then by nobody.
    add constraint messaging_mails_state_known
        check (state in ('queued', 'sending', 'accepted', 'refused', 'unknown', 'expired', 'bounced'));

grant select, insert, delete on muneem.messaging_mail_tokens to muneem_app;
-- The lock of the rows to forget asks for one column.
grant update (created_at) on muneem.messaging_mail_tokens to muneem_app;
grant select, insert, update, delete on muneem.messaging_mail_reports to muneem_app;
grant select, insert, update on muneem.messaging_mailboxes to muneem_app;
grant select (report_id, sha256, source, format, business_id, state, kind, status, permanent, of_kind, of_id, attempt,
    received_at, applied_at) on muneem.messaging_mail_reports to muneem_auditor;

select muneem.people_build_wall();
-- How far the house's mailbox was read is nothing that a request of one business needs.
revoke all on muneem.messaging_mailboxes from muneem_business;
