-- One identity provider (OpenID Connect Core 1.0) that people of one business, or of all, may sign in with.
create table muneem.people_oidc_providers (
    provider_id uuid primary key,
    -- Whose people may link themselves with it; null: everybody's.
    business_id uuid references muneem.people_businesses (business_id),
    -- Stands in addresses.
    handle text not null constraint people_oidc_providers_handle_form check (handle ~ '^[a-z0-9]+(-[a-z0-9]+)*$' and length(handle) <= 40),
    -- "Sign in with …"
    label text not null constraint people_oidc_providers_label_short check (length(label) between 1 and 60),
    -- Exactly as the provider writes it into its tokens.
    issuer text not null constraint people_oidc_providers_issuer_form check (issuer ~ '^https?://' and length(issuer) <= 500),
    client_id text not null constraint people_oidc_providers_client_id_short check (length(client_id) between 1 and 300),
    -- Null: a public client, which PKCE alone protects.
    client_secret_sealed bytea,
    -- Values of `amr` (RFC 8176) and `acr` at which the provider's word counts as a second factor. Empty: never.
    trusted_amr text[] not null default '{}',
    trusted_acr text[] not null default '{}',
    created_at timestamptz not null,
    -- Nobody signs in with it from then on; rows stay, for the evidence names them.
    removed_at timestamptz
);

create unique index people_oidc_providers_handle on muneem.people_oidc_providers (handle) where removed_at is null;

-- One person of staff and who she is at a provider. Made by herself while signed in; nothing else ever links, above all
-- no mail address.
create table muneem.people_oidc_links (
    link_id uuid primary key,
    provider_id uuid not null references muneem.people_oidc_providers (provider_id),
    staff_id uuid not null references muneem.people_staff (staff_id),
    -- The `sub` of the provider's tokens, which some providers make of a mail address.
    subject_sealed bytea not null,
    -- Blind index of issuer and `sub` together.
    subject_index bytea not null constraint people_oidc_links_subject_index_length check (octet_length(subject_index) = 16),
    subject_index_version integer not null,
    linked_at timestamptz not null,
    last_used_at timestamptz,
    constraint people_oidc_links_one_person unique (provider_id, subject_index, subject_index_version),
    constraint people_oidc_links_one_identity unique (provider_id, staff_id)
);

create index people_oidc_links_staff on muneem.people_oidc_links (staff_id);

-- One way to a provider and back, for ten minutes. What is random stays in the browser: here are digests.
create table muneem.people_oidc_flows (
    state_sha256 bytea primary key constraint people_oidc_flows_state_length check (octet_length(state_sha256) = 32),
    provider_id uuid not null references muneem.people_oidc_providers (provider_id),
    -- Of the cookie of the browser that began it.
    binding_sha256 bytea not null constraint people_oidc_flows_binding_length check (octet_length(binding_sha256) = 32),
    -- Who links herself, and in which session; null: somebody signs in.
    staff_id uuid references muneem.people_staff (staff_id),
    session_id uuid,
    made_at timestamptz not null,
    expires_at timestamptz not null constraint people_oidc_flows_expires_later check (expires_at > made_at),
    -- It works once, right or wrong.
    used_at timestamptz,
    constraint people_oidc_flows_link_whole check ((staff_id is null) = (session_id is null))
);

create index people_oidc_flows_expires_at on muneem.people_oidc_flows (expires_at);

grant select, insert on muneem.people_oidc_providers to muneem_app;
grant update (removed_at) on muneem.people_oidc_providers to muneem_app;
grant select, insert, delete on muneem.people_oidc_links to muneem_app;
grant update (last_used_at) on muneem.people_oidc_links to muneem_app;
grant select, insert, delete on muneem.people_oidc_flows to muneem_app;
grant update (used_at) on muneem.people_oidc_flows to muneem_app;
grant select (provider_id, business_id, handle, label, issuer, client_id, trusted_amr, trusted_acr, created_at, removed_at)
    on muneem.people_oidc_providers to muneem_auditor;
grant select (link_id, provider_id, staff_id, linked_at, last_used_at) on muneem.people_oidc_links to muneem_auditor;

-- As before, and what signs people in through a provider is nothing that a request of one business reads.
create or replace function muneem.people_build_wall() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    its record;
    no_business constant text[] := array[
        'people_credentials', 'people_recovery_codes', 'people_sign_in_codes', 'people_sign_in_failures',
        'people_passkeys', 'people_passkey_challenges', 'people_sessions', 'people_devices', 'people_factor_resets',
        'people_oidc_providers', 'people_oidc_links', 'people_oidc_flows',
        'people_logins', 'messaging_webhooks', '_sqlx_migrations'];
    read_only constant text := '^(vault_|law_|queue_kind|queue_workers$)';
    asks_for_business constant text[] := array[
        'enqueue', 'enqueue_many', 'cancel_job', 'invoice_next_number', 'people_resolve_business'];
begin
    for its in
        select c.oid::regclass::text as name, c.oid, c.relrowsecurity
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attname = 'business_id' and not a.attisdropped
        where c.relnamespace = 'muneem'::regnamespace
            and c.relkind in ('r', 'p')
            and not c.relispartition
            and c.relname !~ '^evidence_'
            and c.relname not in ('vault_keys', 'people_logins')
            and pg_has_role(c.relowner, 'usage')
        order by c.relname
    loop
        if not its.relrowsecurity then
            execute format('alter table %s enable row level security', its.name);
        end if;
        if not exists (select from pg_policy p where p.polrelid = its.oid and p.polname = 'house') then
            execute format(
                'create policy house on %s to muneem_app, muneem_auditor, muneem_enqueuer, muneem_sealer
                 using (true) with check (true)', its.name);
        end if;
        if not exists (select from pg_policy p where p.polrelid = its.oid and p.polname = 'own_business') then
            execute format(
                'create policy own_business on %s to muneem_business
                 using (business_id = (select nullif(current_setting(''muneem.business'', true), '''')::uuid))', its.name);
        end if;
    end loop;

    for its in
        select format('grant %s on %s to muneem_business', x.privilege_type, c.oid::regclass) as statement
        from pg_class c
        cross join aclexplode(c.relacl) x
        where c.relnamespace = 'muneem'::regnamespace
            and c.relkind in ('r', 'p')
            and x.grantee = 'muneem_app'::regrole
            and c.relname <> all (no_business)
            and c.relname !~ '^evidence_'
            and (x.privilege_type = 'SELECT' or c.relname !~ read_only)
            and pg_has_role(c.relowner, 'usage')
        union all
        select format('grant %s on sequence %s to muneem_business', x.privilege_type, c.oid::regclass)
        from pg_class c
        cross join aclexplode(c.relacl) x
        where c.relnamespace = 'muneem'::regnamespace
            and c.relkind = 'S'
            and x.grantee = 'muneem_app'::regrole
            and pg_has_role(c.relowner, 'usage')
        union all
        select format('grant %s (%I) on %s to muneem_business', x.privilege_type, a.attname, c.oid::regclass)
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and not a.attisdropped
        cross join aclexplode(a.attacl) x
        where c.relnamespace = 'muneem'::regnamespace
            and x.grantee = 'muneem_app'::regrole
            and c.relname <> all (no_business)
            and (c.relname = 'evidence_events' or c.relname !~ '^evidence_')
            and (x.privilege_type = 'SELECT' or c.relname !~ read_only)
            and pg_has_role(c.relowner, 'usage')
        union all
        select format('grant execute on function %s to muneem_business', p.oid::regprocedure)
        from pg_proc p
        cross join aclexplode(p.proacl) x
        where p.pronamespace = 'muneem'::regnamespace
            and x.grantee = 'muneem_app'::regrole
            and (not p.prosecdef or p.proname = any (asks_for_business))
            and pg_has_role(p.proowner, 'usage')
    loop
        execute its.statement;
    end loop;
end
$$;

select muneem.people_build_wall();
