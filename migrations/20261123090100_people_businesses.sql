-- One business: a Data Fiduciary whose records are kept here.
create table muneem.people_businesses (
    business_id uuid primary key,
    -- The short name that frontends and commands use: `sharma-mobiles`.
    handle text not null constraint people_businesses_handle_key unique
        constraint people_businesses_handle_form check (handle ~ '^[a-z0-9](-?[a-z0-9]){1,62}$'),
    legal_name text not null constraint people_businesses_legal_name_form check (legal_name ~ '\S'),
    created_at timestamptz not null
);

-- Which businesses a database login may name in muneem.enqueue. A login without a row may name any.
create table muneem.people_logins (
    login name not null,
    business_id uuid not null references muneem.people_businesses (business_id),
    primary key (login, business_id)
);

grant select, insert, update on muneem.people_businesses to muneem_app;
grant select on muneem.people_logins to muneem_app;
grant select on muneem.people_businesses, muneem.people_logins to muneem_auditor;
