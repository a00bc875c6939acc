-- What workers call. The hot statements live in functions, planned once a session whatever the statistics say of a
-- table that fills and empties all day, and without named statements, so that a transaction pooler fits.

-- Takes up to `wanted[i]` jobs of `lanes[i]` for a worker: fair shares between businesses, beginning after `after[i]`,
-- oldest rank first within one. Claims commit without waiting for the disk: a claim that a power cut forgets is a job
-- that waits, and the acknowledgement behind it would have flushed it.
create function muneem.queue_claim(
    worker bigint, lanes muneem.queue_lane[], wanted integer[], after uuid[]
) returns table (
    job_id bigint, lane muneem.queue_lane, business_id uuid, attempt integer, uncounted integer, enqueued_at timestamptz,
    claimed_at timestamptz, kind text, payload jsonb
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
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
                        j.payload;
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

-- Businesses with jobs in line, from the one after `after` on and round again, at most `most`: one index probe each.
create function muneem.queue_waiting_businesses(one_lane muneem.queue_lane, after uuid, most integer) returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    answer uuid[] := '{}';
    seen uuid := after;
    next_one uuid;
    wrapped boolean := false;
begin
    while cardinality(answer) < most loop
        select j.business_id into next_one
        from muneem.queue_jobs j
        where j.lane = one_lane and j.parked is null and j.claimed_by is null and j.business_id > seen
        order by j.business_id
        limit 1;
        if not found then
            exit when wrapped;
            wrapped := true;
            seen := '00000000-0000-0000-0000-000000000000';
            continue;
        end if;
        exit when wrapped and next_one > after;
        answer := answer || next_one;
        seen := next_one;
    end loop;
    return answer;
end
$$;

-- Ends jobs well, in one statement; answers the ids that were still this worker's. Late holders change nothing.
create function muneem.queue_finish(worker bigint, ids bigint[], attempts integer[], results jsonb[]) returns setof bigint
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
    with gone as (
        delete from muneem.queue_jobs j
        using unnest(ids, attempts, results) e (job_id, attempt, result)
        where j.job_id = e.job_id and j.attempt = e.attempt and j.claimed_by = worker
        returning j.job_id, j.business_id, j.enqueued_at, j.claimed_at, j.attempt - j.uncounted as attempt, j.lane, j.kind,
            j.key, j.slot_key, j.quarantined, e.result
    ),
    freed as (
        delete from muneem.queue_slots s
        using gone
        where s.job_id = gone.job_id and (gone.slot_key is not null or gone.quarantined)
    )
    insert into muneem.queue_history (
        job_id, business_id, enqueued_at, claimed_at, finished_at, attempt, lane, cancelled, kind, key, result)
    select job_id, business_id, enqueued_at, claimed_at, muneem.now(), attempt, lane, false, kind, key, result
    from gone
    returning job_id
$$;

-- Puts jobs back: at `run_at` (null: in line at once), with the cause; `counts` false forgives the attempt. A handler that
-- ended by itself kills no worker: with a cause, suspicion ends. What somebody cancelled meanwhile ends here.
create function muneem.queue_put_back(
    worker bigint, ids bigint[], attempts integer[], run_ats timestamptz[], counts boolean[], causes text[], errors text[]
) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    put bigint[];
    cancelled bigint[];
begin
    with back as (
        update muneem.queue_jobs j
        set claimed_by = null,
            claimed_at = null,
            uncounted = case when e.counts then j.uncounted else j.uncounted + 1 end,
            run_at = coalesce(e.run_at, j.run_at),
            crashes = case when e.cause is null then j.crashes else 0 end,
            quarantined = j.quarantined and e.cause is null,
            parked = case
                when e.run_at is not null then 't'
                when j.slot_key is not null or (j.quarantined and e.cause is null) then 's'
            end::"char",
            last_cause = coalesce(e.cause, j.last_cause),
            last_error = coalesce(e.error, j.last_error)
        from unnest(ids, attempts, run_ats, counts, causes, errors) e (job_id, attempt, run_at, counts, cause, error)
        where j.job_id = e.job_id and j.attempt = e.attempt and j.claimed_by = worker
        returning j.job_id, j.quarantined, j.cancel_requested
    ),
    freed as (
        -- A suspect keeps the slot of its own key while it waits for the quarantine.
        delete from muneem.queue_slots s
        using back
        where s.job_id = back.job_id and (not back.quarantined or s.slot_key = 'quarantine')
    )
    select array_agg(back.job_id), array_agg(back.job_id) filter (where back.cancel_requested)
    into put, cancelled
    from back;
    if cancelled is not null then
        perform muneem.queue_end_cancelled(cancelled);
    end if;
    return query select unnest(put);
end
$$;

-- Gives jobs up, with the cause.
create function muneem.queue_bury(worker bigint, ids bigint[], attempts integer[], causes text[], errors text[])
returns setof bigint
language sql
set search_path = pg_catalog, pg_temp
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
        cause, error, payload)
    select job_id, business_id, enqueued_at, claimed_at, muneem.now(), attempt - uncounted, crashes, lane, priority, kind,
        key, slot_key, cause, error, payload
    from gone
    returning job_id
$$;

-- Ends running jobs that were cancelled.
create function muneem.queue_finish_cancelled(worker bigint, ids bigint[], attempts integer[]) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    held bigint[];
begin
    select array_agg(h.job_id) into held
    from (
        select j.job_id
        from muneem.queue_jobs j
        join unnest(ids, attempts) e (job_id, attempt) on j.job_id = e.job_id and j.attempt = e.attempt
        where j.claimed_by = worker
        for update of j
    ) h;
    perform muneem.queue_end_cancelled(held);
    return query select unnest(held);
end
$$;

-- Holds the row of a running job until the transaction ends; false when the lease is lost.
create function muneem.queue_hold(id bigint, job_attempt integer, worker bigint) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from muneem.queue_jobs j
    where j.job_id = id and j.attempt = job_attempt and j.claimed_by = worker
    for no key update;
    return found;
end
$$;

create function muneem.queue_complete(id bigint, job_attempt integer, worker bigint, result jsonb) returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$ select exists (select from muneem.queue_finish(worker, array[id], array[job_attempt], array[result])) $$;

create function muneem.queue_replace_payload(id bigint, job_attempt integer, worker bigint, payload jsonb) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    update muneem.queue_jobs j
    set payload = queue_replace_payload.payload
    where j.job_id = id and j.attempt = job_attempt and j.claimed_by = worker;
    return found;
end
$$;

create function muneem.queue_set_progress(id bigint, job_attempt integer, worker bigint, progress jsonb) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    update muneem.queue_jobs j
    set progress = queue_set_progress.progress
    where j.job_id = id and j.attempt = job_attempt and j.claimed_by = worker;
    return found;
end
$$;

-- Registers a worker incarnation.
create function muneem.queue_join(name text, lease interval, places integer) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into muneem.queue_workers (name, places, started_at, lease_until)
    values (name, places, clock_timestamp(), clock_timestamp() + lease)
    returning worker_id
$$;

-- Renews a lease; false when it was lost and the jobs are somebody else's.
create function muneem.queue_beat(worker bigint, lease interval) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- A lease that ran out stays out: its jobs may be somebody else's in a moment.
    update muneem.queue_workers w
    set lease_until = clock_timestamp() + lease
    where w.worker_id = worker and w.lease_until > clock_timestamp();
    return found;
end
$$;

-- Says until when, and for which lanes, a worker looks for jobs by itself.
create function muneem.queue_stay_awake(worker bigint, span interval, lanes_awake integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    update muneem.queue_workers w
    set awake_until = clock_timestamp() + span, awake_lanes = lanes_awake
    where w.worker_id = worker;
end
$$;

-- The jobs among these that somebody wants cancelled.
create function muneem.queue_cancel_requests(ids bigint[]) returns setof bigint
language sql
set search_path = pg_catalog, pg_temp
as $$ select j.job_id from muneem.queue_jobs j where j.job_id = any (ids) and j.cancel_requested $$;

-- Leaves: what it still holds goes in line at once, without blame.
create function muneem.queue_leave(worker bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from muneem.queue_workers w where w.worker_id = worker;
    perform muneem.queue_release(worker, '-infinity');
end
$$;

-- Puts in line what a worker claimed after an instant: claims whose answer was lost on the way.
create function muneem.queue_release(worker bigint, claimed_after timestamptz) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    released bigint[];
    cancelled bigint[];
begin
    with back as (
        update muneem.queue_jobs j
        set claimed_by = null,
            claimed_at = null,
            uncounted = j.uncounted + 1,
            parked = case when j.slot_key is not null or j.quarantined then 's' end::"char"
        where j.claimed_by = worker and j.claimed_at > claimed_after
        returning j.job_id, j.quarantined, j.cancel_requested
    ),
    freed as (
        delete from muneem.queue_slots s
        using back
        where s.job_id = back.job_id and (not back.quarantined or s.slot_key = 'quarantine')
    )
    select array_agg(back.job_id), array_agg(back.job_id) filter (where back.cancel_requested)
    into released, cancelled
    from back;
    if cancelled is not null then
        perform muneem.queue_end_cancelled(cancelled);
    end if;
    return coalesce(cardinality(released), 0);
end
$$;

-- Puts timed jobs in line, gives free slots to who waits for them, takes jobs back from the dead. Answers when the next
-- timed job is due. Any number of workers may call it at any time.
create function muneem.queue_tick() returns table (promoted bigint, reaped bigint, next_due timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
begin
    reaped := muneem.queue_reap();
    with due as (
        select j.job_id
        from muneem.queue_jobs j
        where j.parked = 't' and j.run_at <= muneem.now()
        order by j.run_at
        limit 2000
        for update skip locked
    )
    update muneem.queue_jobs j
    set parked = case when j.slot_key is not null or j.quarantined then 's' end::"char"
    from due
    where j.job_id = due.job_id;
    get diagnostics promoted = row_count;
    promoted := promoted + muneem.queue_admit();
    select min(j.run_at) into next_due from muneem.queue_jobs j where j.parked = 't';
    return next;
end
$$;

-- Gives free slots to the first who wait for them. One admission at a time in the whole cluster: a lock of the
-- transaction, so that counting and taking are one step. Suspects of killing workers share the one slot `quarantine`
-- beside their own.
create function muneem.queue_admit() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    admitted bigint := 0;
    one_key text := '';
    suspect record;
    room integer;
    taken bigint;
begin
    if not exists (select from muneem.queue_jobs j where j.parked = 's') then
        return 0;
    end if;
    if not pg_try_advisory_xact_lock(hashtext('muneem.queue_admit')) then
        return 0;
    end if;
    for suspect in
        select j.job_id
        from muneem.queue_jobs j
        where j.parked = 's' and j.quarantined
            and not exists (select from muneem.queue_slots s where s.slot_key = 'quarantine')
        order by j.rank_at, j.job_id
        limit 1
        for update skip locked
    loop
        insert into muneem.queue_slots (job_id, slot_key) values (suspect.job_id, 'quarantine');
        update muneem.queue_jobs j set parked = null where j.job_id = suspect.job_id;
        admitted := admitted + 1;
    end loop;
    loop
        select j.slot_key into one_key
        from muneem.queue_jobs j
        where j.parked = 's' and j.slot_key > one_key
        order by j.slot_key
        limit 1;
        exit when not found;
        select k.slot_limit - (select count(*) from muneem.queue_slots s where s.slot_key = one_key)
        into room
        from muneem.queue_jobs j
        join muneem.queue_kinds k on k.kind = j.kind
        where j.parked = 's' and j.slot_key = one_key
        limit 1;
        continue when coalesce(room, 1) <= 0;
        with first as (
            select j.job_id
            from muneem.queue_jobs j
            where j.parked = 's' and j.slot_key = one_key and not j.quarantined
            order by j.rank_at, j.job_id
            limit coalesce(room, 1)
            for update skip locked
        ),
        slots as (
            insert into muneem.queue_slots (job_id, slot_key) select first.job_id, one_key from first
            on conflict do nothing
        )
        update muneem.queue_jobs j set parked = null from first where j.job_id = first.job_id;
        get diagnostics taken = row_count;
        admitted := admitted + taken;
    end loop;
    return admitted;
end
$$;

-- Takes the jobs of dead workers back: in line at once, the attempt counted. Who was in the hand of two dead workers
-- runs alone from then on; who was in the hand of three is set aside (`queue.poison`).
create function muneem.queue_reap() returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    dead_workers bigint[];
    taken bigint;
begin
    if not exists (select from muneem.queue_workers w where w.lease_until < clock_timestamp()) then
        return 0;
    end if;
    select array_agg(d.worker_id) into dead_workers
    from (
        select w.worker_id
        from muneem.queue_workers w
        where w.lease_until < clock_timestamp()
        for update skip locked
    ) d;
    if dead_workers is null then
        return 0;
    end if;
    taken := muneem.queue_take_back(dead_workers);
    -- A row that a dying connection still holds is taken back by a later tick.
    delete from muneem.queue_workers w
    where w.worker_id = any (dead_workers)
        and not exists (select from muneem.queue_jobs j where j.claimed_by = w.worker_id);
    return taken;
end
$$;

-- The jobs of workers that are no more. Blame falls on those that can have begun: the first `places` of a lane.
create function muneem.queue_take_back(dead_workers bigint[]) returns bigint
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
        select j.job_id, w.places,
            row_number() over (partition by j.claimed_by, j.lane order by j.claimed_at, j.rank_at, j.job_id) as place
        from muneem.queue_jobs j
        join muneem.queue_workers w on w.worker_id = j.claimed_by
        where j.job_id = any (held)
    ) r
    where r.place <= r.places;
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
        cause, error, payload)
    select job_id, business_id, enqueued_at, claimed_at, muneem.now(), attempt - uncounted, crashes + 1, lane, priority,
        kind, key, slot_key, 'queue.poison', 'three workers died with this job in hand', payload
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

-- Puts dead letters back in line with their attempts forgotten; answers how many.
create function muneem.queue_revive(ids bigint[]) returns bigint
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
        last_error, payload)
    select job_id, business_id, muneem.now() - priority * interval '1 minute', muneem.now(), enqueued_at, lane, priority,
        case when slot_key is not null then 's' end, kind, key, slot_key, cause, error, payload
    from risen;
    get diagnostics revived = row_count;
    for one_lane in select distinct j.lane from muneem.queue_jobs j where j.job_id = any (ids) loop
        perform muneem.queue_wake(one_lane, muneem.now(), true);
    end loop;
    return revived;
end
$$;

-- Day partitions of the history for today and the coming days; days past `keep` are dropped whole. Owner's work, lent
-- to the app role.
create function muneem.queue_rotate_history(keep interval) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- Behind a long reader it gives up at once: every acknowledgement would queue behind it. The job tries again.
set lock_timeout = '1s'
as $$
declare
    day date;
    old record;
    dropped integer := 0;
begin
    if keep < interval '1 day' then
        raise exception 'history is kept at least a day, not %', keep using errcode = 'MN009';
    end if;
    for ahead in 0 .. 3 loop
        day := (muneem.now() at time zone 'UTC')::date + ahead;
        if to_regclass(format('muneem.queue_history_%s', to_char(day, 'YYYYMMDD'))) is null
            and not exists (
                select from muneem.queue_history_other o
                where o.finished_at >= day::timestamp at time zone 'UTC'
                    and o.finished_at < (day + 1)::timestamp at time zone 'UTC')
        then
            execute format(
                'create table muneem.queue_history_%s partition of muneem.queue_history for values from (%L) to (%L)',
                to_char(day, 'YYYYMMDD'), day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
        end if;
    end loop;
    for old in
        select c.relname
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'muneem.queue_history'::regclass
            and c.relname ~ '^queue_history_[0-9]{8}$'
            and to_date(right(c.relname, 8), 'YYYYMMDD') < (muneem.now() - keep)::date
    loop
        execute format('drop table muneem.%I', old.relname);
        dropped := dropped + 1;
    end loop;
    delete from muneem.queue_history_other o where o.finished_at < muneem.now() - keep;
    return dropped;
end
$$;

select muneem.queue_rotate_history(interval '30 days');

do $$
declare
    f regprocedure;
begin
    for f in
        select p.oid::regprocedure
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'muneem' and p.proname in (
            'queue_claim', 'queue_waiting_businesses', 'queue_finish', 'queue_put_back', 'queue_bury',
            'queue_finish_cancelled', 'queue_hold', 'queue_complete', 'queue_replace_payload', 'queue_set_progress',
            'queue_join', 'queue_beat', 'queue_stay_awake', 'queue_cancel_requests', 'queue_leave', 'queue_release',
            'queue_tick',
            'queue_admit', 'queue_reap', 'queue_take_back', 'queue_revive', 'queue_rotate_history')
    loop
        execute format('revoke all on function %s from public', f);
        execute format('grant execute on function %s to muneem_app', f);
    end loop;
end
$$;
