-- The second wall between businesses, behind the filters of the program: what a request of one business does runs as
-- the role muneem_business, and row-level security shows that role the rows of the business that the transaction names
-- in the setting `muneem.business`, and none where it names none.
--
-- A role of its own and not a condition on the app role: workers, schedules and commands serve all businesses, and the
-- queue's statements must not pay for a look at each row. For the app role the policy is the constant true, which the
-- planner drops. Both are set for one transaction (`set local`), so that a transaction pooler fits.
do $$
begin
    create role muneem_business nologin;
exception when duplicate_object or unique_violation then
    -- Roles belong to the whole cluster: another database of the same server made it already.
    null;
end
$$;

do $$
begin
    if not pg_has_role('muneem_app', 'muneem_business', 'member') then
        grant muneem_business to muneem_app;
    end if;
end
$$;

grant usage on schema muneem to muneem_business;

-- Builds the wall for every table of ours that says whose its rows are, and gives muneem_business what muneem_app may do
-- on them, less what only workers, schedules and commands do. `muneem migrate` calls it after its last step, so that no
-- later table is left outside. Again is no change. Left out, each for its reason:
--   evidence_*                  belongs to roles of its own; the app role can only add to it
--   vault_keys                  wrapped keys, which also seal what is the installation's
--   people sign-in, webhooks    nothing that a request of one business reads: no rights at all
-- Of evidence the role may only add an event; keys of the vault, kinds, workers and the clock it only reads. Functions
-- that run as their owner pass through row-level security, so it may call those alone that ask for the business.
create function muneem.people_build_wall() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    its record;
    no_business constant text[] := array[
        'people_credentials', 'people_recovery_codes', 'people_sign_in_codes', 'people_sign_in_failures',
        'people_passkeys', 'people_passkey_challenges', 'people_sessions', 'people_devices', 'people_factor_resets',
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

revoke all on function muneem.people_build_wall() from public;

-- As before, and nobody behind the wall cancels another's job: it runs as its owner.
create or replace function muneem.cancel_job(id bigint) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    holder bigint;
begin
    select j.claimed_by into holder
    from muneem.queue_jobs j
    where j.job_id = id
        and j.business_id = coalesce(nullif(current_setting('muneem.business', true), '')::uuid, j.business_id)
        and (not exists (select from muneem.people_logins l where l.login = session_user)
            or exists (select from muneem.people_logins l
                where l.login = session_user and l.business_id = j.business_id))
    for update;
    if not found then
        return false;
    end if;
    if holder is null then
        perform muneem.queue_end_cancelled(array[id]);
    else
        update muneem.queue_jobs set cancel_requested = true where job_id = id;
        perform pg_notify('muneem_queue', 'cancel');
    end if;
    return true;
end
$$;

-- As before, and nobody behind the wall means another business than her own: functions that run as their owner pass
-- through row-level security.
create or replace function muneem.people_resolve_business(handle text) returns uuid
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    bound boolean := exists (select from muneem.people_logins l where l.login = session_user);
    at_hand uuid := nullif(current_setting('muneem.business', true), '')::uuid;
    found_id uuid;
    candidates bigint;
begin
    if handle is not null then
        select b.business_id into found_id
        from muneem.people_businesses b
        where b.handle = people_resolve_business.handle
            and (at_hand is null or b.business_id = at_hand)
            and (not bound or exists (
                select from muneem.people_logins l where l.login = session_user and l.business_id = b.business_id));
        if found_id is null then
            raise exception 'no business %', quote_literal(left(handle, 64))
                using errcode = 'MN003', hint = 'take the handle of a business that this login may name, as `muneem people business list` shows it';
        end if;
        return found_id;
    end if;
    -- uuid has no min(): two rows are enough to know.
    select (array_agg(c.business_id))[1], count(*) into found_id, candidates
    from (
        select b.business_id
        from muneem.people_businesses b
        where (at_hand is null or b.business_id = at_hand)
            and (not bound or exists (
                select from muneem.people_logins l where l.login = session_user and l.business_id = b.business_id))
        limit 2
    ) c;
    if candidates = 0 then
        raise exception 'no business is set up'
            using errcode = 'MN003', hint = 'add one: muneem people business add HANDLE LEGAL_NAME';
    elsif candidates > 1 then
        raise exception 'which business? there are several'
            using errcode = 'MN004', hint = 'name one: business => ''handle''';
    end if;
    return found_id;
end
$$;

select muneem.people_build_wall();
