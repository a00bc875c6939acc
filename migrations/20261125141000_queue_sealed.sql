-- Payloads that may be personal lie sealed. Muneem's own code seals them before they are written; what a frontend
-- enqueues by SQL, where there is no key, is sealed by the worker that claims it, before anything else is done with it,
-- or within a minute by `queue.seal_waiting` where nobody claims it for longer.

alter table muneem.queue_kinds
    -- Whether payloads of the kind may be personal, and so lie sealed. Until `migrate` has published the kinds of this
    -- version, nothing is refused for it.
    add column seals boolean not null default false;

alter table muneem.queue_jobs
    alter column payload drop not null,
    -- The payload's JSON text, sealed for this job (cell: muneem.queue_jobs, payload_sealed, job_id).
    add column payload_sealed bytea,
    -- The payload lies in clear and must not stay so. What was there before this version is looked at as if it were
    -- personal.
    add column to_seal boolean not null default true,
    add constraint queue_jobs_one_payload check ((payload is null) <> (payload_sealed is null)),
    add constraint queue_jobs_to_seal_is_clear check (not to_seal or payload is not null);

alter table muneem.queue_dead
    alter column payload drop not null,
    -- As it lay in queue_jobs: the cell is the same, so that it goes there and back unopened.
    add column payload_sealed bytea,
    add column to_seal boolean not null default true,
    add constraint queue_dead_one_payload check ((payload is null) <> (payload_sealed is null)),
    add constraint queue_dead_to_seal_is_clear check (not to_seal or payload is not null);

alter table muneem.queue_jobs alter column to_seal set default false;
alter table muneem.queue_dead alter column to_seal set default false;

-- For `queue.seal_waiting`. Empty but for what frontends have just enqueued.
create index queue_jobs_to_seal on muneem.queue_jobs (job_id) where to_seal;
create index queue_dead_to_seal on muneem.queue_dead (job_id) where to_seal;

-- Ciphertext does not compress: nobody need try.
alter table muneem.queue_jobs alter column payload_sealed set storage external;
alter table muneem.queue_dead alter column payload_sealed set storage external;

-- Puts a checked job in line, once for its key. Whoever sealed the payload brings the id that it is sealed for, and the
-- slot key, which is made of the clear payload.
drop function muneem.queue_insert(muneem.queue_kinds, jsonb, uuid, text, timestamptz, text, smallint);
create function muneem.queue_insert(
    kind muneem.queue_kinds, payload jsonb, business_id uuid, key text, run_at timestamptz, lane text, priority smallint,
    prepared_id bigint default null, payload_sealed bytea default null, slot_key text default null
) returns bigint
language plpgsql
as $$
#variable_conflict use_variable
declare
    new_id bigint := coalesce(prepared_id, nextval('muneem.queue_jobs_job_id_seq'));
    first_id bigint;
    present timestamptz := muneem.now();
    due_at timestamptz := greatest(coalesce(run_at, present), present);
    timed boolean := coalesce(run_at > greatest(present, now()), false);
    points smallint := coalesce(priority, 0);
    slot text := case
        when prepared_id is null then muneem.queue_slot_key(kind, business_id, payload)
        else slot_key end;
    into_lane muneem.queue_lane := coalesce(lane::muneem.queue_lane, kind.lane);
begin
    perform muneem.queue_check_run_at(run_at, present);
    if key is not null then
        if key !~ '^[^[:cntrl:]]{1,200}$' then
            raise exception 'key must have 1 to 200 characters, none of them a control character'
                using errcode = 'MN007', hint = 'an order number with its kind of document makes a good key';
        end if;
        loop
            insert into muneem.queue_keys as k (business_id, kind, key, job_id, forget_at)
            values (business_id, kind.kind, key, new_id, due_at + kind.key_memory)
            on conflict on constraint queue_keys_pkey do update
                set job_id = excluded.job_id, forget_at = excluded.forget_at
                where k.forget_at <= present
                    and not exists (select from muneem.queue_jobs j where j.job_id = k.job_id)
                    and not exists (select from muneem.queue_dead d where d.job_id = k.job_id)
            returning job_id into first_id;
            exit when found;
            select k.job_id into first_id
            from muneem.queue_keys k
            where k.business_id = queue_insert.business_id and k.kind = kind.kind and k.key = queue_insert.key;
            if found then
                return first_id;
            end if;
            -- Forgotten in between: it is free now.
        end loop;
    end if;
    insert into muneem.queue_jobs (
        job_id, business_id, rank_at, run_at, enqueued_at, lane, priority, parked, kind, key, slot_key, payload,
        payload_sealed, to_seal)
    values (
        new_id, business_id, due_at - points * interval '1 minute', due_at, present, into_lane, points,
        case when timed then 't' when slot is not null then 's' end, kind.kind, key, slot, payload, payload_sealed,
        kind.seals and payload_sealed is null);
    perform muneem.queue_wake(into_lane, due_at, timed or slot is not null);
    return new_id;
end
$$;

-- As before, with a word on what is to be sealed.
create or replace function muneem.enqueue_many(
    kind text, payloads jsonb[], business text default null, keys text[] default null, run_at timestamptz default now(),
    lane text default null, priority smallint default null
) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    declared muneem.queue_kinds := muneem.queue_load_open_kind(kind);
    owner_id uuid := muneem.people_resolve_business(business);
    into_lane muneem.queue_lane;
    present timestamptz := muneem.now();
    due_at timestamptz := greatest(coalesce(run_at, present), present);
    timed boolean := coalesce(run_at > greatest(present, now()), false);
    points smallint := coalesce(priority, 0);
    -- Constants of the statement below, which Postgres would compute anew for each row.
    rank timestamptz := due_at - points * interval '1 minute';
    -- Parsed again, it is plain in memory; as stored, each row would unpack it.
    rule jsonpath := declared.rule::text::jsonpath;
    slotted boolean := declared.slot_scope is not null;
    to_seal boolean := declared.seals;
    parked_as "char" := case when timed then 't' when slotted then 's' end;
    taken bigint;
    one record;
begin
    perform muneem.queue_check_lane(lane, priority);
    perform muneem.queue_check_run_at(run_at, present);
    into_lane := coalesce(lane::muneem.queue_lane, declared.lane);
    if pg_column_size(payloads) > 1048576 then
        if exists (select from unnest(payloads) p (payload) where pg_column_size(p.payload) > 1048576) then
            perform muneem.queue_refuse_first(declared, payloads);
        end if;
    end if;
    if keys is null then
        -- One pass over the payloads: what is off is not inserted, and then nothing is.
        return query
            insert into muneem.queue_jobs (
                business_id, rank_at, run_at, enqueued_at, lane, priority, parked, kind, slot_key, payload, to_seal)
            select owner_id, rank, due_at, present, into_lane, points, parked_as, kind,
                case when slotted then muneem.queue_slot_key(declared, owner_id, p.payload) end, p.payload,
                to_seal
            -- In the select list, payloads come one by one; in `from`, they would be stored away first.
            from (select unnest(payloads) as payload) p
            where p.payload @@ rule
            returning job_id;
        get diagnostics taken = row_count;
        if taken < cardinality(payloads) then
            perform muneem.queue_refuse_first(declared, payloads);
        end if;
        perform muneem.queue_wake(into_lane, due_at, timed or declared.slot_scope is not null);
    else
        if cardinality(keys) <> cardinality(payloads) then
            raise exception 'keys: has % entries for % payloads', cardinality(keys), cardinality(payloads)
                using errcode = 'MN007', hint = 'give one key a payload';
        end if;
        if exists (select from unnest(payloads) p (payload) where not coalesce(p.payload @@ rule, false)) then
            perform muneem.queue_refuse_first(declared, payloads);
        end if;
        for one in
            select p.payload, p.key
            from unnest(payloads, keys) with ordinality p (payload, key, place)
            order by p.place
        loop
            return next muneem.queue_insert(declared, one.payload, owner_id, one.key, run_at, lane, priority);
        end loop;
    end if;
end
$$;

-- For muneem's own code, a business known by id and a payload in clear. A kind whose payloads lie sealed is refused:
-- its callers hold the vault (queue_prepare, queue_put).
create or replace function muneem.queue_enqueue(
    kind text, payload jsonb, business_id uuid, key text, run_at timestamptz, lane text, priority smallint
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    declared muneem.queue_kinds := muneem.queue_load_kind(kind);
begin
    if declared.seals then
        raise exception 'a payload of % may be personal and was not sealed', kind
            using errcode = 'MN010', hint = 'enqueue it with the vault at hand, or by muneem.enqueue';
    end if;
    perform muneem.queue_check_lane(lane, priority);
    if not coalesce(payload @@ declared.rule, false) then
        perform muneem.queue_refuse_payload(kind, payload);
    end if;
    return muneem.queue_insert(declared, payload, business_id, key, run_at, lane, priority);
end
$$;

-- Checks what `enqueue` checks and writes nothing: for whoever seals the payload before she puts the job in line.
-- Answers the id that it will have and is sealed for, whether its kind seals, and its slot key. `outside`: only kinds
-- that frontends may enqueue.
create function muneem.queue_prepare(
    kind text, payload jsonb, business_id uuid, outside boolean, lane text, priority smallint
) returns table (job_id bigint, seals boolean, slot_key text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    declared muneem.queue_kinds := case
        when outside then muneem.queue_load_open_kind(kind)
        else muneem.queue_load_kind(kind) end;
begin
    perform muneem.queue_check_lane(lane, priority);
    if pg_column_size(payload) > 1048576 then
        raise exception 'payload of %: is larger than 1 MiB', kind
            using errcode = 'MN006', hint = 'store the data and enqueue its id';
    end if;
    if not coalesce(payload @@ declared.rule, false) then
        perform muneem.queue_refuse_payload(kind, payload);
    end if;
    job_id := nextval('muneem.queue_jobs_job_id_seq');
    seals := declared.seals;
    slot_key := muneem.queue_slot_key(declared, business_id, payload);
    return next;
end
$$;

-- Puts a prepared job in line, its payload sealed or, for a kind that does not seal, in clear.
create function muneem.queue_put(
    id bigint, kind text, payload jsonb, payload_sealed bytea, slot_key text, business_id uuid, key text,
    run_at timestamptz, lane text, priority smallint
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    declared muneem.queue_kinds := muneem.queue_load_kind(kind);
begin
    if declared.seals and payload_sealed is null then
        raise exception 'a payload of % may be personal and was not sealed', kind
            using errcode = 'MN010', hint = 'the kind has just changed: enqueue it again';
    end if;
    return muneem.queue_insert(
        declared, payload, business_id, key, run_at, lane, priority, id, payload_sealed, slot_key);
end
$$;

-- As before, with the sealed payload beside the clear one.
drop function muneem.queue_claim(bigint, muneem.queue_lane[], integer[], uuid[]);
create function muneem.queue_claim(
    worker bigint, lanes muneem.queue_lane[], wanted integer[], after uuid[]
) returns table (
    job_id bigint, lane muneem.queue_lane, business_id uuid, attempt integer, uncounted integer, enqueued_at timestamptz,
    claimed_at timestamptz, kind text, payload jsonb, payload_sealed bytea
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '2s'
as $$
#variable_conflict use_column
declare
    place integer;
    one_lane muneem.queue_lane;
    left_to_take integer;
    waiting uuid[];
    still_waiting uuid[];
    share integer;
    taken integer;
    one_business uuid;
    claim_time timestamptz := clock_timestamp();
begin
    perform set_config('synchronous_commit', 'off', true);
    -- Nobody claims under a lease that ran out; until the commit, the reaper passes this worker by.
    perform from muneem.queue_workers w
    where w.worker_id = worker and w.lease_until > clock_timestamp()
    for key share;
    if not found then
        return;
    end if;
    for place in 1 .. cardinality(lanes) loop
        one_lane := lanes[place];
        left_to_take := wanted[place];
        continue when left_to_take <= 0;
        waiting := muneem.queue_waiting_businesses(one_lane, after[place], least(left_to_take, 64));
        while left_to_take > 0 and cardinality(waiting) > 0 loop
            share := greatest(1, left_to_take / cardinality(waiting));
            still_waiting := '{}';
            foreach one_business in array waiting loop
                exit when left_to_take = 0;
                return query
                    with picked as materialized (
                        select j.ctid as place_of
                        from muneem.queue_jobs j
                        where j.lane = one_lane and j.business_id = one_business and j.parked is null
                            and j.claimed_by is null
                        order by j.rank_at
                        limit least(share, left_to_take)
                        for no key update skip locked
                    )
                    update muneem.queue_jobs j
                    set claimed_by = worker, claimed_at = claim_time, attempt = j.attempt + 1
                    from picked
                    where j.ctid = picked.place_of and j.claimed_by is null
                    returning j.job_id, j.lane, j.business_id, j.attempt, j.uncounted, j.enqueued_at, j.claimed_at, j.kind,
                        j.payload, j.payload_sealed;
                get diagnostics taken = row_count;
                if taken = least(share, left_to_take) then
                    still_waiting := still_waiting || one_business;
                end if;
                left_to_take := left_to_take - taken;
            end loop;
            waiting := still_waiting;
        end loop;
    end loop;
end
$$;

-- Seals payloads of running jobs that were enqueued in clear; answers the ids that were still this worker's. Commits
-- without waiting for the disk: what a power cut forgets is a job that waits, in clear as before.
create function muneem.queue_seal(worker bigint, ids bigint[], attempts integer[], sealed bytea[]) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '2s'
as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    return query
        update muneem.queue_jobs j
        set payload = null, payload_sealed = e.sealed, to_seal = false
        from unnest(ids, attempts, queue_seal.sealed) e (job_id, attempt, sealed)
        where j.job_id = e.job_id and j.attempt = e.attempt and j.claimed_by = worker and j.payload is not null
        returning j.job_id;
end
$$;

create or replace function muneem.queue_bury(
    worker bigint, ids bigint[], attempts integer[], causes text[], errors text[]
) returns setof bigint
language sql
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
    with gone as (
        delete from muneem.queue_jobs j
        using unnest(ids, attempts, causes, errors) e (job_id, attempt, cause, error)
        where j.job_id = e.job_id and j.attempt = e.attempt and j.claimed_by = worker
        returning j.*, e.cause, e.error
    ),
    freed as (
        delete from muneem.queue_slots s using gone where s.job_id = gone.job_id
    )
    insert into muneem.queue_dead (
        job_id, business_id, enqueued_at, claimed_at, died_at, attempt, crashes, lane, priority, kind, key, slot_key,
        cause, error, payload, payload_sealed, to_seal)
    select job_id, business_id, enqueued_at, claimed_at, muneem.now(), attempt - uncounted, crashes, lane, priority, kind,
        key, slot_key, cause, error, payload, payload_sealed, to_seal
    from gone
    returning job_id
$$;

-- Replaces the payload of a running job: by a sealed one, or by one in clear that holds nothing.
drop function muneem.queue_replace_payload(bigint, integer, bigint, jsonb);
create function muneem.queue_replace_payload(
    id bigint, job_attempt integer, worker bigint, payload jsonb, payload_sealed bytea
) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    update muneem.queue_jobs j
    set payload = queue_replace_payload.payload, payload_sealed = queue_replace_payload.payload_sealed,
        to_seal = false
    where j.job_id = id and j.attempt = job_attempt and j.claimed_by = worker;
    return found;
end
$$;

-- The jobs of workers that are no more. Blame falls on those that can have begun: the first `places` of a lane, less
-- those whose payload is still to be sealed, which is done before a job begins. So nothing is set aside in clear.
create or replace function muneem.queue_take_back(dead_workers bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    held bigint[];
    suspects bigint[];
    cancelled bigint[];
    taken bigint;
begin
    select array_agg(h.job_id) into held
    from (
        select j.job_id
        from muneem.queue_jobs j
        where j.claimed_by = any (dead_workers)
        for update skip locked
    ) h;
    if held is null then
        return 0;
    end if;
    select array_agg(r.job_id) into suspects
    from (
        select j.job_id, w.places, j.to_seal,
            row_number() over (partition by j.claimed_by, j.lane order by j.claimed_at, j.rank_at, j.job_id) as place
        from muneem.queue_jobs j
        join muneem.queue_workers w on w.worker_id = j.claimed_by
        where j.job_id = any (held)
    ) r
    where r.place <= r.places and not r.to_seal;
    suspects := coalesce(suspects, '{}');

    with gone as (
        delete from muneem.queue_jobs j
        where j.job_id = any (held) and j.job_id = any (suspects) and j.crashes >= 2 and not j.cancel_requested
        returning j.*
    ),
    freed as (
        delete from muneem.queue_slots s using gone where s.job_id = gone.job_id
    )
    insert into muneem.queue_dead (
        job_id, business_id, enqueued_at, claimed_at, died_at, attempt, crashes, lane, priority, kind, key, slot_key,
        cause, error, payload, payload_sealed, to_seal)
    select job_id, business_id, enqueued_at, claimed_at, muneem.now(), attempt - uncounted, crashes + 1, lane, priority,
        kind, key, slot_key, 'queue.poison', 'three workers died with this job in hand', payload, payload_sealed, to_seal
    from gone;

    with back as (
        update muneem.queue_jobs j
        set claimed_by = null,
            claimed_at = null,
            crashes = j.crashes + (j.job_id = any (suspects))::integer,
            quarantined = j.quarantined or (j.crashes >= 1 and j.job_id = any (suspects)),
            parked = case
                when j.slot_key is not null or j.quarantined or (j.crashes >= 1 and j.job_id = any (suspects)) then 's'
            end::"char",
            last_cause = 'queue.worker_died',
            last_error = 'the worker died with this job in hand'
        where j.job_id = any (held)
        returning j.job_id, j.quarantined, j.cancel_requested
    ),
    freed as (
        -- A suspect keeps the slot of its own key, so that jobs of that key go on one at a time.
        delete from muneem.queue_slots s
        using back
        where s.job_id = back.job_id and (not back.quarantined or s.slot_key = 'quarantine')
    )
    select array_agg(back.job_id) filter (where back.cancel_requested)
    into cancelled
    from back;
    if cancelled is not null then
        perform muneem.queue_end_cancelled(cancelled);
    end if;
    taken := cardinality(held);
    return taken;
end
$$;

create or replace function muneem.queue_revive(ids bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    revived bigint;
    one_lane muneem.queue_lane;
begin
    with risen as (
        delete from muneem.queue_dead d where d.job_id = any (ids) returning d.*
    )
    insert into muneem.queue_jobs (
        job_id, business_id, rank_at, run_at, enqueued_at, lane, priority, parked, kind, key, slot_key, last_cause,
        last_error, payload, payload_sealed, to_seal)
    select job_id, business_id, muneem.now() - priority * interval '1 minute', muneem.now(), enqueued_at, lane, priority,
        case when slot_key is not null then 's' end, kind, key, slot_key, cause, error, payload, payload_sealed,
        to_seal
    from risen;
    get diagnostics revived = row_count;
    for one_lane in select distinct j.lane from muneem.queue_jobs j where j.job_id = any (ids) loop
        perform muneem.queue_wake(one_lane, muneem.now(), true);
    end loop;
    return revived;
end
$$;

do $$
declare
    f regprocedure;
begin
    for f in
        select p.oid::regprocedure
        from pg_proc p
        where p.pronamespace = 'muneem'::regnamespace and p.proname in (
            'queue_insert', 'queue_prepare', 'queue_put', 'queue_claim', 'queue_seal', 'queue_replace_payload')
    loop
        execute format('revoke all on function %s from public', f);
        execute format('grant execute on function %s to muneem_app', f);
    end loop;
end
$$;

select muneem.people_build_wall();
