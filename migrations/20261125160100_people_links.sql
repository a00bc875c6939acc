-- One link that somebody outside holds: for one purpose, about one thing, until it expires, is revoked or used up. Of
-- its secret only a digest stays; whoever follows it proves with a code that she holds the phone or mail address that
-- it was made for.
create table muneem.people_links (
    link_id uuid primary key,
    secret_sha256 bytea not null unique constraint people_links_secret_length check (octet_length(secret_sha256) = 32),
    business_id uuid not null references muneem.people_businesses (business_id),
    -- What it is good for: people::links::Purpose.
    purpose text not null constraint people_links_purpose_form check (purpose ~ '^[a-z][a-z_]{1,39}$'),
    -- The thing it is about, of the kind that its purpose says.
    subject_id uuid not null,
    -- BCP 47, of the message and the page.
    language text not null constraint people_links_language_form
        check (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    channel text not null constraint people_links_channel_known check (channel in ('phone', 'email')),
    -- Emptied when the link ends unused: then nobody needs to know any more whom it was for.
    contact_sealed bytea,
    -- The one of its channel, under the key of people_staff, so that a person of staff is recognised behind a link.
    phone_index bytea constraint people_links_phone_index_length check (octet_length(phone_index) = 16),
    phone_index_version integer,
    email_index bytea constraint people_links_email_index_length check (octet_length(email_index) = 16),
    email_index_version integer,
    -- What is still to be sent, sealed; emptied when it was.
    url_sealed bytea,
    -- Who made it, as people_staff_roles.granted_by.
    made_by text not null constraint people_links_made_by_form
        check (made_by ~ '^(operator|staff:[0-9a-f-]{36}|token:[0-9a-f]{16}|job:[0-9]{1,19})$'),
    made_at timestamptz not null,
    expires_at timestamptz not null constraint people_links_expires_soon
        check (expires_at > made_at and expires_at <= made_at + interval '90 days'),
    uses_left smallint not null constraint people_links_uses_sane check (uses_left between 0 and 1000),
    -- The code in force. The digest covers the link's own secret: a code alone opens nothing.
    code_sha256 bytea constraint people_links_code_length check (octet_length(code_sha256) = 32),
    code_sealed bytea,
    code_expires_at timestamptz,
    code_tries_left smallint constraint people_links_tries_sane check (code_tries_left >= 0),
    -- Codes made in the life of the link: with the tries of each they bound how often anybody may guess.
    codes_made smallint not null default 0 constraint people_links_codes_few check (codes_made between 0 and 10),
    -- What the browser got for the right code: it acts with this, not with the code again.
    proof_sha256 bytea constraint people_links_proof_length check (octet_length(proof_sha256) = 32),
    proof_expires_at timestamptz,
    -- When the holder first proved to hold the phone or mail address.
    verified_at timestamptz,
    used_at timestamptz,
    revoked_at timestamptz,
    constraint people_links_code_whole check (
        (code_sha256 is null) = (code_expires_at is null) and (code_sha256 is null) = (code_tries_left is null)
    ),
    constraint people_links_proof_whole check ((proof_sha256 is null) = (proof_expires_at is null)),
    constraint people_links_used_by_its_holder check (used_at is null or verified_at is not null),
    constraint people_links_contact_kept check (contact_sealed is not null or revoked_at is not null),
    constraint people_links_index_whole check (
        (phone_index is not null) = (contact_sealed is not null and channel = 'phone')
        and (email_index is not null) = (contact_sealed is not null and channel = 'email')
        and (phone_index is null) = (phone_index_version is null)
        and (email_index is null) = (email_index_version is null)
    )
);

create index people_links_subject on muneem.people_links (business_id, purpose, subject_id);

grant select, insert on muneem.people_links to muneem_app;
grant update (contact_sealed, phone_index, phone_index_version, email_index, email_index_version, url_sealed, uses_left, code_sha256, code_sealed, code_expires_at, code_tries_left,
    codes_made, proof_sha256, proof_expires_at, verified_at, used_at, revoked_at) on muneem.people_links to muneem_app;
grant select (link_id, business_id, purpose, subject_id, language, channel, made_by, made_at, expires_at, uses_left,
    codes_made, verified_at, used_at, revoked_at) on muneem.people_links to muneem_auditor;
