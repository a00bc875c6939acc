-- The bodies of sealed events: found again for whoever may read them, and let go when the law's time is over.

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner, muneem_sealer, muneem_auditor to current_user;
    end if;
end
$$;

-- With event_id the way back to the body through the one index that events have. Not hashed: it proves nothing.
alter table muneem.evidence_leaves add column xid xid8;

-- As before, and keeps the transaction.
create or replace function muneem.evidence_seal(fence bigint, most integer) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    nil constant uuid := '00000000-0000-0000-0000-000000000000';
    head record;
    line xid8;
    event record;
    chain uuid;
    chain_seq bigint;
    chain_leaf bytea;
    digest bytea;
    seqs bigint[] := '{}';
    ids uuid[] := '{}';
    businesses uuid[] := '{}';
    business_seqs bigint[] := '{}';
    previouses bytea[] := '{}';
    instants timestamptz[] := '{}';
    digests bytea[] := '{}';
    leaves bytea[] := '{}';
    xids xid8[] := '{}';
    last_xid xid8;
    last_id uuid;
begin
    -- One at a time: this row is the gate.
    select h.size, h.xid, h.event_id, h.fence into head from muneem.evidence_head h for update;
    if head.fence <> evidence_seal.fence then
        raise exception 'sealing goes on under fencing number %, not %', head.fence, evidence_seal.fence
            using errcode = 'MN021';
    end if;
    line := pg_snapshot_xmin(pg_current_snapshot());
    -- A dump that was loaded into another server: its transactions count from below what is sealed, and what is
    -- written now would lie behind the line for ever.
    if line < head.xid then
        raise exception 'this server counts transactions from %, but the log is sealed up to %', line, head.xid
            using errcode = 'MN022', hint = 'the log was restored into another server: begin a new one beside it';
    end if;
    for event in
        select n.place, n.event_id, n.business_id, n.at, sha256(n.body) as body_sha256, n.xid
        from (
            select e.event_id, e.business_id, e.at, e.body, e.xid,
                row_number() over (order by e.xid, e.event_id) as place
            from (
                select w.event_id, w.business_id, w.at, w.body, w.xid
                from muneem.evidence_events w
                where (w.xid, w.event_id) > (head.xid, head.event_id)
                    and w.xid < line
                order by w.xid, w.event_id
                limit least(evidence_seal.most, 16384)
            ) e
        ) n
        order by n.business_id nulls first, n.place
    loop
        if chain is distinct from coalesce(event.business_id, nil) then
            if chain is not null then
                insert into muneem.evidence_counters as c (business_id, sealed, leaf)
                values (chain, chain_seq, chain_leaf)
                on conflict (business_id) do update set sealed = excluded.sealed, leaf = excluded.leaf;
            end if;
            chain := coalesce(event.business_id, nil);
            chain_seq := 0;
            chain_leaf := decode(repeat('00', 32), 'hex');
            select c.sealed, c.leaf into chain_seq, chain_leaf
            from muneem.evidence_counters c
            where c.business_id = chain;
            if not found then
                chain_seq := 0;
                chain_leaf := decode(repeat('00', 32), 'hex');
            end if;
        end if;
        chain_seq := chain_seq + 1;
        digest := sha256(
            '\x00'::bytea || 'muneem.evidence.v1'::bytea || uuid_send(event.event_id) || uuid_send(chain)
            || int8send(chain_seq) || chain_leaf || int8send((extract(epoch from event.at) * 1000000)::bigint)
            || event.body_sha256);
        seqs := seqs || (head.size + event.place - 1);
        ids := ids || event.event_id;
        businesses := businesses || event.business_id;
        business_seqs := business_seqs || chain_seq;
        previouses := previouses || chain_leaf;
        instants := instants || event.at;
        digests := digests || event.body_sha256;
        leaves := leaves || digest;
        xids := xids || event.xid;
        chain_leaf := digest;
        if last_xid is null or (event.xid, event.event_id) > (last_xid, last_id) then
            last_xid := event.xid;
            last_id := event.event_id;
        end if;
    end loop;
    if last_xid is null then
        return 0;
    end if;
    insert into muneem.evidence_counters as c (business_id, sealed, leaf)
    values (chain, chain_seq, chain_leaf)
    on conflict (business_id) do update set sealed = excluded.sealed, leaf = excluded.leaf;
    insert into muneem.evidence_leaves
        (seq, event_id, business_id, business_seq, previous, at, body_sha256, leaf, xid)
    select u.seq, u.event_id, u.business_id, u.business_seq, u.previous, u.at, u.body_sha256, u.leaf, u.xid
    from unnest(seqs, ids, businesses, business_seqs, previouses, instants, digests, leaves, xids)
        as u (seq, event_id, business_id, business_seq, previous, at, body_sha256, leaf, xid);
    update muneem.evidence_head
    set size = head.size + cardinality(seqs), xid = last_xid, event_id = last_id;
    return cardinality(seqs);
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
