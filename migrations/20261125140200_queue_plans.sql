-- On a server with JIT on, which is Postgres' default, the clock's row was read by a sequential scan that
-- `enable_seqscan = off` makes look endless: whoever finished jobs compiled a plan per job. By its key it costs a page.
create or replace function muneem.now() returns timestamptz
language plpgsql stable parallel safe
as $$ begin return clock_timestamp() + (select c.moved_by from muneem.law_clock c where c.only_row); end $$;

-- As before, asking for the present once a batch.
create or replace function muneem.queue_finish(worker bigint, ids bigint[], attempts integer[], results jsonb[])
returns setof bigint
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '2s'
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
    select job_id, business_id, enqueued_at, claimed_at, (select muneem.now()), attempt, lane, false, kind, key, result
    from gone
    returning job_id
$$;

-- Their plans are chosen, not estimated: nothing in them is worth compiling.
alter function muneem.queue_claim set jit = off;
alter function muneem.queue_waiting_businesses set jit = off;
