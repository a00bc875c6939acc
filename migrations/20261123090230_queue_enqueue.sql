-- The way in. SQLSTATEs of class MN are ours: MN001 unknown kind, MN002 payload off its schema, MN003 no such business,
-- MN004 several businesses, MN006 payload too large, MN007 bad key, MN008 bad lane or priority.

-- What runs inside `enqueue` runs under its search path; setting it anew in each would cost more than the insert.

-- Refuses a payload, naming the first fields that are wrong. Only reached when the rule of its kind said no.
create function muneem.queue_refuse_payload(kind text, payload jsonb) returns void
language plpgsql stable
as $$
#variable_conflict use_variable
declare
    wrong text;
begin
    select string_agg(w.path || ' ' || w.demand, '; ') into wrong
    from (
        select f.path, f.demand
        from muneem.queue_kind_fields f
        where f.kind = queue_refuse_payload.kind and not coalesce(coalesce(payload, 'null') @@ f.rule, false)
        order by f.path, f.demand
        limit 8
    ) w;
    raise exception 'payload of %: %', kind, coalesce(wrong, 'is not what its schema says')
        using errcode = 'MN002', hint = format('select schema from muneem.queue_kinds where kind = %L', kind);
end
$$;

-- The row of one kind, or a refusal that names what there is.
create function muneem.queue_load_kind(kind text) returns muneem.queue_kinds
language plpgsql stable
as $$
#variable_conflict use_variable
declare
    found_kind muneem.queue_kinds;
begin
    select * into found_kind from muneem.queue_kinds k where k.kind = queue_load_kind.kind;
    if not found then
        raise exception 'no job kind %', coalesce(quote_literal(left(kind, 64)), 'null')
            using errcode = 'MN001', hint = 'muneem.queue_kinds lists the kinds; a new one appears with `muneem migrate`';
    end if;
    return found_kind;
end
$$;

-- The same for a frontend, which may not give muneem its own work.
create function muneem.queue_load_open_kind(kind text) returns muneem.queue_kinds
language plpgsql stable
as $$
declare
    found_kind muneem.queue_kinds := muneem.queue_load_kind(kind);
begin
    if not found_kind.open then
        raise exception 'job kind % is muneem''s own', quote_literal(kind)
            using errcode = 'MN001', hint = 'select kind from muneem.queue_kinds where open lists those for frontends';
    end if;
    return found_kind;
end
$$;

create function muneem.queue_check_lane(lane text, priority smallint) returns void
language plpgsql immutable
as $$
begin
    if lane is not null and lane not in ('otp', 'statutory', 'transactional', 'bulk', 'maintenance') then
        raise exception 'no lane %', quote_literal(left(lane, 64))
            using errcode = 'MN008', hint = 'take otp, statutory, transactional, bulk or maintenance';
    end if;
    if priority not between -1000 and 1000 then
        raise exception 'priority % is out of range', priority
            using errcode = 'MN008', hint = 'take -1000 to 1000; one point is a minute''s head start';
    end if;
end
$$;

-- A job for a day beyond every clock is a mistake, and infinity is no instant.
create function muneem.queue_check_run_at(run_at timestamptz, present timestamptz) returns void
language plpgsql immutable
as $$
begin
    if run_at > present + interval '100 years' then
        raise exception 'run_at is more than a hundred years away'
            using errcode = 'MN008', hint = 'take an instant within a hundred years; a schedule suits what comes again';
    end if;
end
$$;

-- What makes two jobs of a kind share slots; null when nothing limits it. Field values are hashed: they may be personal.
create function muneem.queue_slot_key(kind muneem.queue_kinds, business_id uuid, payload jsonb) returns text
language plpgsql immutable
as $$
begin
    return case kind.slot_scope
        when 'kind' then kind.kind
        when 'business' then kind.kind || ':' || business_id
        when 'field' then
            kind.kind || ':' || business_id || ':'
            || encode(sha256(convert_to(coalesce(payload ->> kind.slot_field, ''), 'UTF8')), 'hex')
    end;
end
$$;

-- Wakes a worker with the lane's name (or `tick`, when the job must be put in line first), unless one is awake for this lane and will look within milliseconds anyway: a NOTIFY in each commit
-- would forbid group commit. Whoever this misses (a transaction that stays open until the worker sleeps again) is found
-- by the fall-back poll.
create function muneem.queue_wake(lane muneem.queue_lane, due_at timestamptz, parked boolean) returns void
language plpgsql
as $$
#variable_conflict use_variable
declare
    bit integer := case lane
        when 'otp' then 1 when 'statutory' then 2 when 'transactional' then 4 when 'bulk' then 8 else 16 end;
    real_now timestamptz := clock_timestamp();
    alive boolean := false;
    watcher record;
begin
    if due_at > muneem.now() + interval '2 seconds' then
        return;
    end if;
    for watcher in
        select w.awake_until > real_now and w.awake_lanes & bit <> 0 as awake
        from muneem.queue_workers w
        where w.lease_until > real_now
    loop
        if watcher.awake then
            return;
        end if;
        alive := true;
    end loop;
    if alive then
        perform pg_notify('muneem_queue', case when parked then 'tick' else lane::text end);
    end if;
end
$$;

-- Puts a checked job in line, once for its key.
create function muneem.queue_insert(
    kind muneem.queue_kinds, payload jsonb, business_id uuid, key text, run_at timestamptz, lane text, priority smallint
) returns bigint
language plpgsql
as $$
#variable_conflict use_variable
declare
    new_id bigint := nextval('muneem.queue_jobs_job_id_seq');
    first_id bigint;
    present timestamptz := muneem.now();
    due_at timestamptz := greatest(coalesce(run_at, present), present);
    timed boolean := coalesce(run_at > greatest(present, now()), false);
    points smallint := coalesce(priority, 0);
    slot text := muneem.queue_slot_key(kind, business_id, payload);
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
        job_id, business_id, rank_at, run_at, enqueued_at, lane, priority, parked, kind, key, slot_key, payload)
    values (
        new_id, business_id, due_at - points * interval '1 minute', due_at, present, into_lane, points,
        case when timed then 't' when slot is not null then 's' end, kind.kind, key, slot, payload);
    perform muneem.queue_wake(into_lane, due_at, timed or slot is not null);
    return new_id;
end
$$;

-- Puts a job in the queue as part of the caller's transaction: visible on commit, gone on rollback.
-- The same (business, kind, key) again answers the first job's id and makes no second one.
create function muneem.enqueue(
    kind text, payload jsonb, business text default null, key text default null, run_at timestamptz default now(),
    lane text default null, priority smallint default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    declared muneem.queue_kinds := muneem.queue_load_open_kind(kind);
begin
    perform muneem.queue_check_lane(lane, priority);
    if pg_column_size(payload) > 1048576 then
        raise exception 'payload of %: is larger than 1 MiB', kind
            using errcode = 'MN006', hint = 'store the data and enqueue its id';
    end if;
    if not coalesce(payload @@ declared.rule, false) then
        perform muneem.queue_refuse_payload(kind, payload);
    end if;
    return muneem.queue_insert(
        declared, payload, muneem.people_resolve_business(business), key, run_at, lane, priority);
end
$$;

-- The same for a business known by id: for muneem's own code.
create function muneem.queue_enqueue(
    kind text, payload jsonb, business_id uuid, key text, run_at timestamptz, lane text, priority smallint
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    declared muneem.queue_kinds := muneem.queue_load_kind(kind);
begin
    perform muneem.queue_check_lane(lane, priority);
    if not coalesce(payload @@ declared.rule, false) then
        perform muneem.queue_refuse_payload(kind, payload);
    end if;
    return muneem.queue_insert(declared, payload, business_id, key, run_at, lane, priority);
end
$$;

-- Refuses the first of some payloads that is off.
create function muneem.queue_refuse_first(kind muneem.queue_kinds, payloads jsonb[]) returns void
language plpgsql stable
as $$
#variable_conflict use_variable
declare
    off jsonb;
begin
    select p.payload into off
    from unnest(payloads) p (payload)
    where not coalesce(p.payload @@ kind.rule, false)
    limit 1;
    if found then
        perform muneem.queue_refuse_payload(kind.kind, off);
    end if;
    raise exception 'payloads of %: one is larger than 1 MiB', kind.kind
        using errcode = 'MN006', hint = 'store the data and enqueue its id';
end
$$;

-- Many jobs of one kind at once; ids in the order of the payloads. `keys`, when given, is as long as `payloads`.
create function muneem.enqueue_many(
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
    rule jsonpath := declared.rule;
    slotted boolean := declared.slot_scope is not null;
    parked_as "char" := case when timed then 't' when slotted then 's' end;
    all_small boolean := pg_column_size(payloads) <= 1048576;
    taken bigint;
    one record;
begin
    perform muneem.queue_check_lane(lane, priority);
    perform muneem.queue_check_run_at(run_at, present);
    into_lane := coalesce(lane::muneem.queue_lane, declared.lane);
    if keys is null then
        -- One pass over the payloads: what is off is not inserted, and then nothing is.
        return query
            insert into muneem.queue_jobs (
                business_id, rank_at, run_at, enqueued_at, lane, priority, parked, kind, slot_key, payload)
            select owner_id, rank, due_at, present, into_lane, points, parked_as, kind,
                case when slotted then muneem.queue_slot_key(declared, owner_id, p.payload) end, p.payload
            from unnest(payloads) p (payload)
            where p.payload @@ rule and (all_small or pg_column_size(p.payload) <= 1048576)
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
        if exists (
            select from unnest(payloads) p (payload)
            where not coalesce(p.payload @@ declared.rule, false) or pg_column_size(p.payload) > 1048576)
        then
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

-- Takes a waiting job out of the queue, or asks the worker of a running one to stop. False when it has ended already,
-- or is another business's.
create function muneem.cancel_job(id bigint) returns boolean
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

-- Moves jobs to the history as cancelled. The caller holds their rows.
create function muneem.queue_end_cancelled(ids bigint[]) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        delete from muneem.queue_jobs j where j.job_id = any (ids)
        returning j.job_id, j.business_id, j.enqueued_at, j.claimed_at, j.attempt, j.uncounted, j.lane, j.kind, j.key
    ),
    freed as (
        delete from muneem.queue_slots s using gone where s.job_id = gone.job_id
    ),
    kept as (
        insert into muneem.queue_history (
            job_id, business_id, enqueued_at, claimed_at, finished_at, attempt, lane, cancelled, kind, key)
        select job_id, business_id, enqueued_at, claimed_at, muneem.now(), attempt - uncounted, lane, true, kind, key
        from gone
        returning 1
    )
    select count(*) from kept
$$;

revoke all on function muneem.queue_refuse_payload(text, jsonb),
    muneem.queue_refuse_first(muneem.queue_kinds, jsonb[]), muneem.queue_load_kind(text), muneem.queue_load_open_kind(text),
    muneem.queue_check_lane(text, smallint), muneem.queue_check_run_at(timestamptz, timestamptz), muneem.queue_slot_key(muneem.queue_kinds, uuid, jsonb),
    muneem.queue_wake(muneem.queue_lane, timestamptz, boolean),
    muneem.queue_insert(muneem.queue_kinds, jsonb, uuid, text, timestamptz, text, smallint),
    muneem.queue_enqueue(text, jsonb, uuid, text, timestamptz, text, smallint),
    muneem.enqueue(text, jsonb, text, text, timestamptz, text, smallint),
    muneem.enqueue_many(text, jsonb[], text, text[], timestamptz, text, smallint),
    muneem.cancel_job(bigint), muneem.queue_end_cancelled(bigint[]) from public;
grant execute on function muneem.queue_refuse_payload(text, jsonb),
    muneem.queue_refuse_first(muneem.queue_kinds, jsonb[]), muneem.queue_load_kind(text), muneem.queue_load_open_kind(text),
    muneem.queue_check_lane(text, smallint), muneem.queue_check_run_at(timestamptz, timestamptz), muneem.queue_slot_key(muneem.queue_kinds, uuid, jsonb),
    muneem.queue_wake(muneem.queue_lane, timestamptz, boolean),
    muneem.queue_insert(muneem.queue_kinds, jsonb, uuid, text, timestamptz, text, smallint),
    muneem.queue_enqueue(text, jsonb, uuid, text, timestamptz, text, smallint),
    muneem.queue_end_cancelled(bigint[]) to muneem_app;
grant execute on function muneem.enqueue(text, jsonb, text, text, timestamptz, text, smallint),
    muneem.enqueue_many(text, jsonb[], text, text[], timestamptz, text, smallint), muneem.cancel_job(bigint)
    to muneem_app, muneem_enqueuer;
