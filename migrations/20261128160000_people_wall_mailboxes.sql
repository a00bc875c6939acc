-- Where reading of a mailbox stands is the installation's own: no request of one business sees it.
create or replace function muneem.people_build_wall() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    its record;
    -- Rows that say whose they are through another table: the table, what it points with, the other table, to what of it.
    children constant text[] := array[
        'people_staff_roles staff_id people_staff staff_id',
        'people_idempotency_keys token_id people_tokens public_id',
        'messaging_attempts message_id messaging_messages message_id',
        'messaging_media phone_number_id messaging_accounts phone_number_id'];
    child text[];
    no_business constant text[] := array[
        'people_credentials', 'people_recovery_codes', 'people_sign_in_codes', 'people_sign_in_failures',
        'people_passkeys', 'people_passkey_challenges', 'people_sessions', 'people_devices', 'people_factor_resets',
        'people_oidc_providers', 'people_oidc_links', 'people_oidc_flows',
        'people_invitations', 'people_logins', 'messaging_webhooks', 'messaging_mailboxes', '_sqlx_migrations'];
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

    for child in select string_to_array(c, ' ') from unnest(children) c loop
        continue when not exists (
            select from pg_class c
            where c.oid = to_regclass('muneem.' || child[1]) and pg_has_role(c.relowner, 'usage'));
        execute format('alter table muneem.%I enable row level security', child[1]);
        if not exists (
            select from pg_policy p where p.polrelid = to_regclass('muneem.' || child[1]) and p.polname = 'house') then
            execute format(
                'create policy house on muneem.%I to muneem_app, muneem_auditor, muneem_enqueuer, muneem_sealer
                 using (true) with check (true)', child[1]);
        end if;
        if not exists (
            select from pg_policy p
            where p.polrelid = to_regclass('muneem.' || child[1]) and p.polname = 'own_business') then
            execute format(
                'create policy own_business on muneem.%1$I to muneem_business
                 using (exists (
                     select from muneem.%3$I parent
                     where parent.%4$I = %1$I.%2$I
                         and parent.business_id = nullif(current_setting(''muneem.business'', true), '''')::uuid))',
                child[1], child[2], child[3], child[4]);
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

revoke all on muneem.messaging_mailboxes from muneem_business;

select muneem.people_build_wall();
