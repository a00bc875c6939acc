-- What is known of a business beyond its names. Personal cells are sealed by the vault; the GSTIN of a proprietor spells
-- her PAN and is one of them.
alter table muneem.people_businesses
    add column gstin_sealed bytea,
    add column gstin_index bytea constraint people_businesses_gstin_index_length check (octet_length(gstin_index) = 16),
    add column gstin_index_version integer,
    -- BCP 47, of what the business itself reads.
    add column language text not null default 'en' constraint people_businesses_language_form
        check (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    add column contact_name_sealed bytea,
    add column contact_phone_sealed bytea,
    add column contact_email_sealed bytea,
    -- WhatsApp Business Account as the Cloud API numbers it. Its phone numbers are rows of messaging_accounts.
    add column whatsapp_account_id text constraint people_businesses_whatsapp_account_form
        check (whatsapp_account_id ~ '^[0-9]{1,32}$'),
    -- The address that its mail is sent from.
    add column mail_from_sealed bytea,
    -- Decides the second factor and the promised recovery point: people::Plan.
    add column plan text not null default 'basic' constraint people_businesses_plan_known
        check (plan in ('basic', 'standard', 'premium')),
    -- The business's own wish for a second factor; its plan may demand one anyway.
    add column second_factor_wanted boolean not null default false,
    add constraint people_businesses_gstin_index_whole check (
        (gstin_sealed is null) = (gstin_index is null) and (gstin_sealed is null) = (gstin_index_version is null)
    );

-- One person who works here: of a business, or of the platform itself (business_id null). Somebody who works for two
-- businesses is two rows. Rows stay when the person leaves: evidence and grants name them.
create table muneem.people_staff (
    staff_id uuid primary key,
    business_id uuid references muneem.people_businesses (business_id),
    name_sealed bytea,
    language text not null default 'en' constraint people_staff_language_form
        check (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    phone_sealed bytea,
    -- Blind index of the canonical phone and mail address, under one key for all staff: sign-in does not know the
    -- business yet.
    phone_index bytea constraint people_staff_phone_index_length check (octet_length(phone_index) = 16),
    phone_index_version integer,
    -- When the person proved to hold it; a change of the phone empties it.
    phone_verified_at timestamptz,
    email_sealed bytea,
    email_index bytea constraint people_staff_email_index_length check (octet_length(email_index) = 16),
    email_index_version integer,
    email_verified_at timestamptz,
    created_at timestamptz not null,
    removed_at timestamptz,
    constraint people_staff_phone_whole check (
        (phone_sealed is null) = (phone_index is null) and (phone_sealed is null) = (phone_index_version is null)
        and (phone_sealed is not null or phone_verified_at is null)
    ),
    constraint people_staff_email_whole check (
        (email_sealed is null) = (email_index is null) and (email_sealed is null) = (email_index_version is null)
        and (email_sealed is not null or email_verified_at is null)
    ),
    -- Whoever has left is no longer kept by name and number; whoever is here has a name and can be reached.
    constraint people_staff_known_while_here check (
        (removed_at is null) = (name_sealed is not null)
        and (removed_at is null) = (phone_sealed is not null or email_sealed is not null)
    )
);

create unique index people_staff_phone_key on muneem.people_staff (business_id, phone_index) nulls not distinct
    where phone_index is not null;
create unique index people_staff_email_key on muneem.people_staff (business_id, email_index) nulls not distinct
    where email_index is not null;
-- Sign-in looks a person up by index alone.
create index people_staff_phone on muneem.people_staff (phone_index) where phone_index is not null;
create index people_staff_email on muneem.people_staff (email_index) where email_index is not null;

-- One role of one person. What a role may do stands in the program (people::roles), so that no row can widen it.
create table muneem.people_staff_roles (
    staff_id uuid not null references muneem.people_staff (staff_id),
    role text not null constraint people_staff_roles_known check (role in (
        'owner', 'manager', 'counter_staff', 'read_only', 'privacy_officer', 'incident_lead', 'approver', 'operator',
        'auditor', 'support'
    )),
    granted_at timestamptz not null,
    -- `operator`, `staff:<id>` or `token:<public id>`.
    granted_by text not null constraint people_staff_roles_granted_by_form
        check (granted_by ~ '^(operator|staff:[0-9a-f-]{36}|token:[0-9a-f]{16})$'),
    primary key (staff_id, role)
);

alter table muneem.people_tokens
    -- The person it was made for: it ends with her. Null: a machine of the business, or of whoever runs this.
    add column staff_id uuid references muneem.people_staff (staff_id),
    -- Addresses it may be used from, as CIDR blocks. Null: from anywhere.
    add column networks text[] constraint people_tokens_networks_some check (cardinality(networks) between 1 and 64),
    -- When it was first seen in the query of a URL, where logs and histories keep it: to be replaced.
    add column exposed_at timestamptz;

create index people_tokens_staff on muneem.people_tokens (staff_id) where staff_id is not null;

grant select, insert, update on muneem.people_staff to muneem_app;
grant select, insert, delete on muneem.people_staff_roles to muneem_app;
grant update (exposed_at) on muneem.people_tokens to muneem_app;
grant select (staff_id, networks, exposed_at) on muneem.people_tokens to muneem_auditor;
grant select (staff_id, business_id, language, phone_verified_at, email_verified_at, created_at, removed_at)
    on muneem.people_staff to muneem_auditor;
grant select on muneem.people_staff_roles to muneem_auditor;
-- The auditor reads, and never what is sealed.
revoke select on muneem.people_businesses from muneem_auditor;
grant select (business_id, handle, legal_name, created_at, language, whatsapp_account_id, plan, second_factor_wanted)
    on muneem.people_businesses to muneem_auditor;
