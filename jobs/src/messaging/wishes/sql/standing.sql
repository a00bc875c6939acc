-- Each address under every mark it may have; `people` are the contacts behind it and those known to be the same person.
with asked as (
    select a.place, a.mark, a.addressed, a.purpose
    from unnest($2::bigint[], $3::bytea[], $4::boolean[], $5::text[]) as a (place, mark, addressed, purpose)
), people as (
    select a.place, a.purpose, c.contact_id, bool_or(a.addressed) as addressed
    from asked a
    join muneem.messaging_contacts known on known.business_id = $1 and known.mark = a.mark
    join muneem.messaging_contacts c on c.business_id = $1 and c.group_id = known.group_id
    group by a.place, a.purpose, c.contact_id
)
select a.place as "place!", 'erased' as "what!: What", null::text as "channel: Channel", a.addressed as "addressed!",
    e.erased_at as "at!"
from asked a
join muneem.messaging_erasures e on e.business_id = $1 and e.mark = a.mark and e.lifted_at is null
union all
select p.place, s.scope, s.channel, p.addressed, s.at
from people p
cross join lateral (
    select distinct on (one.scope, one.channel, one.cause) one.scope, one.channel, one.state, one.at, one.until
    from muneem.messaging_suppressions one
    where one.contact_id = p.contact_id and one.business_id = $1
    -- Of two at the same instant `set` outweighs `lifted`.
    order by one.scope, one.channel, one.cause, one.at desc, one.state desc, one.recorded_at desc
) s
where s.state = 'set' and (s.until is null or s.until > $6)
union all
select p.place, c.state, null::text, p.addressed, c.at
from people p
cross join lateral (
    select one.state, one.at
    from muneem.messaging_consents one
    where one.contact_id = p.contact_id and one.business_id = $1 and one.purpose = p.purpose
    -- Of two at the same instant the one that forbids outweighs.
    order by one.at desc, (one.state = 'given'), one.recorded_at desc
    limit 1
) c
