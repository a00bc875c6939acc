-- One link with which somebody sets up what she signs in with: the first owner of a business, an operator, or a person
-- who is here already and has nothing to sign in with. Whoever holds the link may use it, once; here is its digest.
create table muneem.people_invitations (
    invitation_id uuid primary key,
    token_sha256 bytea not null unique constraint people_invitations_token_length check (octet_length(token_sha256) = 32),
    -- Whom the person works for. Null: the platform, or a business that the new owner names herself.
    business_id uuid references muneem.people_businesses (business_id),
    -- The person, if she is here already.
    staff_id uuid references muneem.people_staff (staff_id),
    -- What a new person becomes.
    role text constraint people_invitations_role_known check (role in ('owner', 'operator')),
    -- `operator`, `staff:<id>` or `token:<public id>`; `muneem` at the first start.
    made_by text not null constraint people_invitations_made_by_form
        check (made_by ~ '^(muneem|operator|staff:[0-9a-f-]{36}|token:[0-9a-f]{16})$'),
    made_at timestamptz not null,
    expires_at timestamptz not null constraint people_invitations_expires_later check (expires_at > made_at),
    used_at timestamptz,
    constraint people_invitations_somebody check ((staff_id is null) = (role is not null)),
    constraint people_invitations_operator_of_platform check (role is distinct from 'operator' or business_id is null)
);

grant select, insert, delete on muneem.people_invitations to muneem_app;
grant update (used_at) on muneem.people_invitations to muneem_app;
grant select (invitation_id, business_id, staff_id, role, made_by, made_at, expires_at, used_at)
    on muneem.people_invitations to muneem_auditor;

-- The country that a trusted proxy named when this browser was last signed in with (ISO 3166-1 alpha-2).
alter table muneem.people_devices
    add column country text constraint people_devices_country_form check (country ~ '^[A-Z]{2}$');

-- As before, and what lets people in is not open behind the wall.
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
        'people_invitations', 'people_logins', 'messaging_webhooks', '_sqlx_migrations'];
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
