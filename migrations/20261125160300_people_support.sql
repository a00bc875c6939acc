-- One time for which the owner of a business lets support look in, masked. It ends by itself, by its owner, or at the
-- latest when its instant passes: whether the job that ends it has run makes no difference to who is let in.
create table muneem.people_support_grants (
    grant_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    -- Why, in her words, sealed.
    reason_sealed bytea not null,
    granted_by uuid not null,
    granted_at timestamptz not null,
    expires_at timestamptz not null constraint people_support_grants_a_day_at_most
        check (expires_at > granted_at and expires_at <= granted_at + interval '24 hours'),
    ended_at timestamptz,
    -- `operator`, `staff:<id>`, `token:<public id>`, or the job that came when its time was over.
    ended_by text constraint people_support_grants_ended_by_form
        check (ended_by ~ '^(operator|staff:[0-9a-f-]{36}|token:[0-9a-f]{16}|job:[0-9]{1,19})$'),
    constraint people_support_grants_ended_whole check ((ended_at is null) = (ended_by is null))
);

-- Only a person of the business itself lets anybody in.
alter table muneem.people_staff add constraint people_staff_of_business unique (staff_id, business_id);
alter table muneem.people_support_grants
    add constraint people_support_grants_by_its_own_staff
        foreign key (granted_by, business_id) references muneem.people_staff (staff_id, business_id);

create index people_support_grants_page on muneem.people_support_grants (business_id, grant_id desc);

-- The grant that a token of support stands on: it opens nothing without it.
alter table muneem.people_tokens
    add column support_grant_id uuid references muneem.people_support_grants (grant_id),
    add constraint people_tokens_support_is_somebody check (
        support_grant_id is null
        or (business_id is not null and staff_id is not null and expires_at is not null)
    );

create index people_tokens_support_grant on muneem.people_tokens (support_grant_id) where support_grant_id is not null;

grant select, insert on muneem.people_support_grants to muneem_app;
grant update (reason_sealed, ended_at, ended_by) on muneem.people_support_grants to muneem_app;
grant select (grant_id, business_id, granted_by, granted_at, expires_at, ended_at, ended_by)
    on muneem.people_support_grants to muneem_auditor;
grant select (support_grant_id) on muneem.people_tokens to muneem_auditor;
