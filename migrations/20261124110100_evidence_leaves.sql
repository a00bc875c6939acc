-- One sealed event: its number in the one log of this installation, its number and predecessor among those of its
-- business, and its RFC 6962 leaf hash. Outlives the event's body. Written by muneem.evidence_seal alone.
create table muneem.evidence_leaves (
    -- From 0 without gaps: the leaf's index in the tree.
    seq bigint not null constraint evidence_leaves_pkey primary key,
    event_id uuid not null,
    business_id uuid,
    -- From 1 without gaps within the business (or within what is the installation's own).
    business_seq bigint not null,
    -- Leaf hash of the business's event before; 32 zero bytes for its first.
    previous bytea not null constraint evidence_leaves_previous_size check (octet_length(previous) = 32),
    at timestamptz not null,
    body_sha256 bytea not null constraint evidence_leaves_body_size check (octet_length(body_sha256) = 32),
    leaf bytea not null constraint evidence_leaves_leaf_size check (octet_length(leaf) = 32),
    -- With event_id the way back to the body through the one index that events have. Not hashed: it proves nothing.
    xid xid8
);

create unique index evidence_leaves_business on muneem.evidence_leaves (business_id, business_seq) nulls not distinct;
create index evidence_leaves_event on muneem.evidence_leaves (event_id);

-- How far each business is sealed. The nil UUID stands for the installation itself.
create table muneem.evidence_counters (
    business_id uuid not null constraint evidence_counters_pkey primary key,
    sealed bigint not null,
    leaf bytea not null
);

-- One row: how far the log is sealed, and who seals it.
create table muneem.evidence_head (
    only_row boolean primary key default true constraint evidence_head_one_row check (only_row),
    -- Leaves so far, which is the next leaf's seq.
    size bigint not null default 0,
    -- The last event sealed; everything up to here in (xid, event_id) order is.
    xid xid8 not null default '0',
    event_id uuid not null default '00000000-0000-0000-0000-000000000000',
    -- Fencing number of whoever leads; writes under an older one are refused.
    fence bigint not null default 0,
    holder text not null default '',
    leased_until timestamptz not null default '-infinity'
);

insert into muneem.evidence_head default values;

create trigger evidence_leaves_append_only before update or delete on muneem.evidence_leaves
    for each row execute function muneem.evidence_refuse_change();
create trigger evidence_leaves_no_truncate before truncate on muneem.evidence_leaves
    for each statement execute function muneem.evidence_refuse_change();

-- The lead of sealing for `lease`, if it is free or already the caller's: a fencing number; else null. A row and not
-- a session's advisory lock, so that a transaction pooler fits.
create function muneem.evidence_lead(holder text, lease interval) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    given bigint;
begin
    update muneem.evidence_head h
    set fence = case when h.holder = evidence_lead.holder then h.fence else h.fence + 1 end,
        holder = evidence_lead.holder,
        leased_until = now() + least(evidence_lead.lease, interval '5 minutes')
    where h.holder = evidence_lead.holder or h.leased_until < now()
    returning h.fence into given;
    return given;
end
$$;

-- Seals the next events, `most` at a time, in (xid, event_id) order, all of them below the oldest transaction that may
-- still write; answers how many. Whoever may call it can have events numbered, but cannot choose numbers, order,
-- instants or hashes: that is why the app role needs no right on these tables.
--
-- leaf = SHA-256(0x00 || 'muneem.evidence.v1' || event_id || business_id or nil || business_seq (8 bytes, big-endian)
--        || previous || microseconds since 1970 (8 bytes, big-endian) || SHA-256(body))
create function muneem.evidence_seal(fence bigint, most integer) returns integer
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

grant select on muneem.evidence_leaves, muneem.evidence_counters, muneem.evidence_head to muneem_app, muneem_auditor;
grant select, insert on muneem.evidence_leaves to muneem_sealer;
grant select, insert, update on muneem.evidence_counters to muneem_sealer;
grant select, update on muneem.evidence_head to muneem_sealer;

revoke all on function muneem.evidence_lead(text, interval) from public;
revoke all on function muneem.evidence_seal(bigint, integer) from public;
grant execute on function muneem.evidence_lead(text, interval), muneem.evidence_seal(bigint, integer) to muneem_app;

alter table muneem.evidence_leaves owner to muneem_evidence_owner;
alter table muneem.evidence_counters owner to muneem_evidence_owner;
alter table muneem.evidence_head owner to muneem_evidence_owner;
-- A function's new owner must be able to make things in the schema at that moment.
grant create on schema muneem to muneem_sealer;
alter function muneem.evidence_lead(text, interval) owner to muneem_sealer;
alter function muneem.evidence_seal(bigint, integer) owner to muneem_sealer;
revoke create on schema muneem from muneem_sealer;
