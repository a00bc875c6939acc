-- The bodies of sealed events: found again for whoever may read them, and let go when the law's time is over.

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner, muneem_sealer, muneem_auditor to current_user;
    end if;
end
$$;

-- Sealed events from `from_seq` on, of one business or of all, with their bodies where they are still kept. For export
-- and for reading: the app role may not look into the log itself.
create function muneem.evidence_page(business uuid, from_seq bigint, most integer)
returns table (
    seq bigint, event_id uuid, business_id uuid, business_seq bigint, previous bytea, at timestamptz, body_sha256 bytea,
    leaf bytea, body bytea)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select l.seq, l.event_id, l.business_id, l.business_seq, l.previous, l.at, l.body_sha256, l.leaf, e.body
    from (
        select s.seq, s.event_id, s.business_id, s.business_seq, s.previous, s.at, s.body_sha256, s.leaf, s.xid
        from muneem.evidence_leaves s
        where s.seq >= evidence_page.from_seq
            and (evidence_page.business is null or s.business_id = evidence_page.business)
        order by s.seq
        limit least(evidence_page.most, 10000)
    ) l
    left join lateral (
        select w.body
        from muneem.evidence_events w
        where w.xid = l.xid and w.event_id = l.event_id
        limit 1
    ) e on true
    order by l.seq
$$;

-- Since when the oldest event waits for its number; null: nothing waits.
create function muneem.evidence_unsealed_since() returns timestamptz
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select w.at
    from muneem.evidence_events w, muneem.evidence_head h
    where (w.xid, w.event_id) > (h.xid, h.event_id)
    order by w.xid, w.event_id
    limit 1
$$;

-- Lets go of the bodies of whole months that ended more than `keep` ago, once each of their events has its number and a
-- signed head stands over it. Leaves stay for ever. Answers the end of the newest month that went, or null.
create function muneem.evidence_retire_months(keep interval) returns timestamptz
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    old record;
    month_end timestamptz;
    retired timestamptz;
    waits boolean;
begin
    -- One year of logs: DPDP Rules 2025 r.6(1)(e); the 180 days of the CERT-In Directions of 28 April 2022 lie within.
    if keep < interval '1 year' then
        raise exception 'bodies are kept at least a year, not %', keep using errcode = 'MN025';
    end if;
    if exists (select from muneem.evidence_forks) then
        raise exception 'the log went back in time: nothing is let go' using errcode = 'MN023';
    end if;
    for old in
        select c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') as month
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'muneem.evidence_events'::regclass
            and c.relname ~ '^evidence_events_[0-9]{8}$'
        order by 2
    loop
        month_end := (old.month + interval '1 month') at time zone 'UTC';
        exit when month_end > muneem.now() - keep;
        execute format(
            'select exists (
                select from muneem.%I w, muneem.evidence_head h where (w.xid, w.event_id) > (h.xid, h.event_id))',
            old.relname) into waits;
        exit when waits or exists (
            select from muneem.evidence_leaves l
            where l.at < month_end
                and l.seq >= coalesce((select max(c.size) from muneem.evidence_checkpoints c), 0));
        execute format('drop table muneem.%I', old.relname);
        retired := month_end;
    end loop;
    return retired;
end
$$;

revoke all on function muneem.evidence_page(uuid, bigint, integer) from public;
revoke all on function muneem.evidence_unsealed_since() from public;
revoke all on function muneem.evidence_retire_months(interval) from public;
grant execute on function muneem.evidence_page(uuid, bigint, integer), muneem.evidence_unsealed_since(),
    muneem.evidence_retire_months(interval) to muneem_app;

grant create on schema muneem to muneem_auditor, muneem_sealer;
alter function muneem.evidence_page(uuid, bigint, integer) owner to muneem_auditor;
alter function muneem.evidence_unsealed_since() owner to muneem_sealer;
alter function muneem.evidence_retire_months(interval) owner to muneem_evidence_owner;
revoke create on schema muneem from muneem_auditor, muneem_sealer;

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        revoke muneem_evidence_owner, muneem_sealer, muneem_auditor from current_user;
    end if;
end
$$;
