-- $1 before, $2 business, $3 kind, $4 lane, $5 state, $6 cause, $7 limit, $8 exactly this job
select *
from (
    (
        select j.job_id, j.business_id, j.kind, j.lane::text as lane, s.state, j.key, j.attempt - j.uncounted as attempt, j.enqueued_at, j.run_at,
            j.claimed_at, null::timestamptz as finished_at, j.last_cause as cause, j.last_error as error, j.progress,
            null::jsonb as result, j.payload_sealed is not null as sealed
        from muneem.queue_jobs j
        cross join lateral (
            select case
                when j.claimed_by is not null then 'running'
                when j.parked = 't' and j.last_cause is not null then 'retrying'
                when j.parked = 't' then 'scheduled'
                else 'ready'
            end as state
        ) s
        where ($8::bigint is null or j.job_id = $8)
            and ($1::bigint is null or j.job_id < $1)
            and ($2::uuid is null or j.business_id = $2)
            and ($3::text is null or j.kind = $3)
            and ($4::text is null or j.lane::text = $4)
            and ($5::text is null or s.state = $5)
            and ($6::text is null or j.last_cause = $6)
        order by j.job_id desc
        limit $7
    )
    union all
    (
        select d.job_id, d.business_id, d.kind, d.lane::text, 'dead', d.key, d.attempt, d.enqueued_at, null, d.claimed_at,
            d.died_at, d.cause, d.error, null, null, d.payload_sealed is not null
        from muneem.queue_dead d
        where ($8::bigint is null or d.job_id = $8)
            and ($1::bigint is null or d.job_id < $1)
            and ($2::uuid is null or d.business_id = $2)
            and ($3::text is null or d.kind = $3)
            and ($4::text is null or d.lane::text = $4)
            and ($5::text is null or $5 = 'dead')
            and ($6::text is null or d.cause = $6)
        order by d.job_id desc
        limit $7
    )
    union all
    (
        select h.job_id, h.business_id, h.kind, h.lane::text, case when h.cancelled then 'cancelled' else 'done' end, h.key,
            h.attempt, h.enqueued_at, null, h.claimed_at, h.finished_at, null, null, null, h.result, null
        from muneem.queue_history h
        where ($8::bigint is null or h.job_id = $8)
            and ($1::bigint is null or h.job_id < $1)
            and ($2::uuid is null or h.business_id = $2)
            and ($3::text is null or h.kind = $3)
            and ($4::text is null or h.lane::text = $4)
            and ($5::text is null or $5 = case when h.cancelled then 'cancelled' else 'done' end)
            and $6::text is null
        order by h.job_id desc
        limit $7
    )
) one_page
order by job_id desc
limit $7
