select
    l.lane as "lane!: Lane",
    count(*) filter (where j.job_id is not null and j.claimed_by is null and j.parked is distinct from 't') as "ready!",
    count(*) filter (where j.claimed_by is not null) as "running!",
    count(*) filter (where j.parked = 't' and j.last_cause is null) as "scheduled!",
    count(*) filter (where j.parked = 't' and j.last_cause is not null) as "retrying!",
    (
        select count(*)
        from muneem.queue_dead d
        where d.lane = l.lane and ($1::uuid is null or d.business_id = $1)
    ) as "dead!",
    coalesce(extract(epoch from muneem.now() - min(j.run_at) filter (
        where j.claimed_by is null and j.parked is distinct from 't')), 0)::double precision as "oldest_secs!"
from unnest(enum_range(null::muneem.queue_lane)) l (lane)
left join muneem.queue_jobs j on j.lane = l.lane and ($1::uuid is null or j.business_id = $1)
group by l.lane
order by l.lane
