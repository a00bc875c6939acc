-- Sealed events, the newest first, for whoever may read them.

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_auditor to current_user;
    end if;
end
$$;

-- At most `most` events of one business, or of all, whose number lies below `before` (null: from the newest on). The
-- number is the business's own where one is named, else the log's: each has its index.
create function muneem.evidence_list(business uuid, before bigint, most integer)
returns table (
    seq bigint, event_id uuid, business_id uuid, business_seq bigint, previous bytea, at timestamptz, body_sha256 bytea,
    leaf bytea, body bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if evidence_list.business is null then
        return query
            select l.seq, l.event_id, l.business_id, l.business_seq, l.previous, l.at, l.body_sha256, l.leaf,
                (select w.body from muneem.evidence_events w where w.xid = l.xid and w.event_id = l.event_id limit 1)
            from muneem.evidence_leaves l
            where l.seq < coalesce(evidence_list.before, 9223372036854775807)
            order by l.seq desc
            limit least(evidence_list.most, 1000);
    else
        return query
            select l.seq, l.event_id, l.business_id, l.business_seq, l.previous, l.at, l.body_sha256, l.leaf,
                (select w.body from muneem.evidence_events w where w.xid = l.xid and w.event_id = l.event_id limit 1)
            from muneem.evidence_leaves l
            where l.business_id = evidence_list.business
                and l.business_seq < coalesce(evidence_list.before, 9223372036854775807)
            order by l.business_seq desc
            limit least(evidence_list.most, 1000);
    end if;
end
$$;

revoke all on function muneem.evidence_list(uuid, bigint, integer) from public;
grant execute on function muneem.evidence_list(uuid, bigint, integer) to muneem_app;

grant create on schema muneem to muneem_auditor;
alter function muneem.evidence_list(uuid, bigint, integer) owner to muneem_auditor;
revoke create on schema muneem from muneem_auditor;

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        revoke muneem_auditor from current_user;
    end if;
end
$$;
