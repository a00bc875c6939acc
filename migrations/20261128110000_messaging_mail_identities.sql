-- Whom the mail of a business comes from: one row for each business that has an address of its own. Without one, or
-- before its address was proved, mail comes from the installation's address under the business's name.
create table muneem.messaging_mail_identities (
    business_id uuid primary key references muneem.people_businesses (business_id),
    -- Personal: a proprietor's address is her own.
    from_sealed bytea not null,
    -- Its domain, which everybody can read in DNS.
    from_domain text not null constraint messaging_mail_identities_domain_form check (from_domain ~ '^[a-z0-9.-]{1,189}$'),
    from_name text not null constraint messaging_mail_identities_name_length check (length(from_name) between 1 and 120),
    -- Where answers go; null: to the sender's address.
    reply_to_sealed bytea,
    -- What its mail is signed with: all or none. The record to publish is public.
    dkim_domain text,
    dkim_selector text,
    dkim_record text,
    dkim_key_sealed bytea,
    -- Digest of the code that went to the address, and until when it proves something.
    code_sha256 bytea,
    code_expires_at timestamptz,
    -- Guesses at that code.
    code_tries integer not null default 0,
    -- When somebody who reads the address's mail showed it; null: nothing is sent from it.
    verified_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint messaging_mail_identities_dkim_whole check (
        (dkim_domain is null) = (dkim_key_sealed is null) and (dkim_domain is null) = (dkim_selector is null)
        and (dkim_domain is null) = (dkim_record is null)),
    constraint messaging_mail_identities_code_whole check ((code_sha256 is null) = (code_expires_at is null))
);

grant select, insert, update, delete on muneem.messaging_mail_identities to muneem_app;
grant select (business_id, from_domain, from_name, dkim_domain, dkim_selector, dkim_record, verified_at, created_at,
    updated_at) on muneem.messaging_mail_identities to muneem_auditor;

select muneem.people_build_wall();
