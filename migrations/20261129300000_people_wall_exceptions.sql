-- What the wall between businesses (muneem.people_build_wall) leaves out or treats otherwise, as rows: a later step that
-- adds a table without business_id inserts its name here, before it calls the function, and leaves the function alone.
-- Only the owner of the schema writes, and only steps like this one do.
create table muneem.people_wall_exceptions (
    -- house_only: a table of which muneem_business has no rights at all; no request of one business reads it.
    -- no_wall: a table with a business_id that is not behind row-level security.
    -- asks_for_business: a function that runs as its owner and asks itself which business it is for; muneem_business may
    --     call it.
    what text not null constraint people_wall_exceptions_what_known check (
        what in ('house_only', 'no_wall', 'asks_for_business')),
    -- Of a table or function in schema muneem. It need not be there yet.
    name text not null constraint people_wall_exceptions_name_form check (name ~ '^[a-z_][a-z0-9_]{0,62}$'),
    why text not null constraint people_wall_exceptions_why_length check (length(why) between 8 and 200),
    primary key (what, name)
);

-- Tables whose rows say through another table whose they are: the table, what it points with, the other table, to what
-- of it.
create table muneem.people_wall_children (
    name text primary key constraint people_wall_children_name_form check (name ~ '^[a-z_][a-z0-9_]{0,62}$'),
    points_with text not null,
    parent text not null,
    parent_key text not null
);

revoke all on muneem.people_wall_exceptions, muneem.people_wall_children from public;

insert into muneem.people_wall_exceptions (what, name, why)
values
    ('no_wall', 'vault_keys', 'wrapped keys, which also seal what is the installation''s'),
    ('no_wall', 'people_logins', 'says to which businesses a login of the database is bound'),
    ('house_only', 'people_logins', 'says to which businesses a login of the database is bound'),
    ('house_only', 'people_credentials', 'signs people in'),
    ('house_only', 'people_recovery_codes', 'signs people in'),
    ('house_only', 'people_sign_in_codes', 'signs people in'),
    ('house_only', 'people_sign_in_failures', 'signs people in'),
    ('house_only', 'people_passkeys', 'signs people in'),
    ('house_only', 'people_passkey_challenges', 'signs people in'),
    ('house_only', 'people_sessions', 'signs people in'),
    ('house_only', 'people_devices', 'signs people in'),
    ('house_only', 'people_factor_resets', 'signs people in'),
    ('house_only', 'people_oidc_providers', 'signs people in'),
    ('house_only', 'people_oidc_links', 'signs people in'),
    ('house_only', 'people_oidc_flows', 'signs people in'),
    ('house_only', 'people_invitations', 'makes people members of staff'),
    ('house_only', 'messaging_webhooks', 'read before it is known whose it is'),
    ('house_only', 'messaging_mailboxes', 'where reading of the installation''s mailbox stands'),
    ('house_only', '_sqlx_migrations', 'which steps were taken'),
    ('asks_for_business', 'enqueue', 'resolves the business it is given'),
    ('asks_for_business', 'enqueue_many', 'resolves the business it is given'),
    ('asks_for_business', 'cancel_job', 'looks whose the job is'),
    ('asks_for_business', 'invoice_next_number', 'resolves the business it is given'),
    ('asks_for_business', 'people_resolve_business', 'knows no other business than the one entered');

insert into muneem.people_wall_children (name, points_with, parent, parent_key)
values
    ('people_staff_roles', 'staff_id', 'people_staff', 'staff_id'),
    ('people_idempotency_keys', 'token_id', 'people_tokens', 'public_id'),
    ('messaging_attempts', 'message_id', 'messaging_messages', 'message_id'),
    ('messaging_media', 'phone_number_id', 'messaging_accounts', 'phone_number_id');

-- As before, with what it leaves out as rows. What is of the house alone loses what an earlier call had given of it.
create or replace function muneem.people_build_wall() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    its record;
    child record;
    read_only constant text := '^(vault_|law_|queue_kind|queue_workers$)';
    house_only constant text[] := coalesce(
        (select array_agg(e.name) from muneem.people_wall_exceptions e where e.what = 'house_only'), '{}');
    asks_for_business constant text[] := coalesce(
        (select array_agg(e.name) from muneem.people_wall_exceptions e where e.what = 'asks_for_business'), '{}');
begin
    for its in
        select c.oid::regclass::text as name, c.oid, c.relrowsecurity
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attname = 'business_id' and not a.attisdropped
        where c.relnamespace = 'muneem'::regnamespace
            and c.relkind in ('r', 'p')
            and not c.relispartition
            and c.relname !~ '^evidence_'
            and not exists (
                select from muneem.people_wall_exceptions e where e.what = 'no_wall' and e.name = c.relname)
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

    for child in select * from muneem.people_wall_children loop
        continue when not exists (
            select from pg_class c
            where c.oid = to_regclass('muneem.' || child.name) and pg_has_role(c.relowner, 'usage'));
        execute format('alter table muneem.%I enable row level security', child.name);
        if not exists (
            select from pg_policy p where p.polrelid = to_regclass('muneem.' || child.name) and p.polname = 'house') then
            execute format(
                'create policy house on muneem.%I to muneem_app, muneem_auditor, muneem_enqueuer, muneem_sealer
                 using (true) with check (true)', child.name);
        end if;
        if not exists (
            select from pg_policy p
            where p.polrelid = to_regclass('muneem.' || child.name) and p.polname = 'own_business') then
            execute format(
                'create policy own_business on muneem.%1$I to muneem_business
                 using (exists (
                     select from muneem.%3$I parent
                     where parent.%4$I = %1$I.%2$I
                         and parent.business_id = nullif(current_setting(''muneem.business'', true), '''')::uuid))',
                child.name, child.points_with, child.parent, child.parent_key);
        end if;
    end loop;

    for its in
        select format('revoke all on %s from muneem_business', c.oid::regclass) as statement
        from pg_class c
        where c.relnamespace = 'muneem'::regnamespace
            and c.relkind in ('r', 'p')
            and c.relname = any (house_only)
            and has_any_column_privilege('muneem_business', c.oid, 'select, insert, update, references')
            and pg_has_role(c.relowner, 'usage')
    loop
        execute its.statement;
    end loop;

    for its in
        select format('grant %s on %s to muneem_business', x.privilege_type, c.oid::regclass) as statement
        from pg_class c
        cross join aclexplode(c.relacl) x
        where c.relnamespace = 'muneem'::regnamespace
            and c.relkind in ('r', 'p')
            and x.grantee = 'muneem_app'::regrole
            and c.relname <> all (house_only)
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
            and c.relname <> all (house_only)
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
