-- By the index, whatever Postgres believes of the tables' sizes: a session keeps the plan that suited an empty log, and
-- read and sorted all of a grown one for each batch that it sealed.

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner, muneem_sealer, muneem_auditor to current_user;
    end if;
end
$$;

alter function muneem.evidence_seal(bigint, integer) set enable_seqscan = off;
alter function muneem.evidence_seal(bigint, integer) set enable_bitmapscan = off;
alter function muneem.evidence_seal(bigint, integer) set enable_sort = off;
alter function muneem.evidence_seal(bigint, integer) set jit = off;
alter function muneem.evidence_page(uuid, bigint, integer) set enable_seqscan = off;
alter function muneem.evidence_page(uuid, bigint, integer) set enable_bitmapscan = off;
alter function muneem.evidence_page(uuid, bigint, integer) set jit = off;
alter function muneem.evidence_list(uuid, bigint, integer) set enable_seqscan = off;
alter function muneem.evidence_list(uuid, bigint, integer) set enable_bitmapscan = off;
alter function muneem.evidence_list(uuid, bigint, integer) set jit = off;

-- As before; the head is read first, so that the index is entered behind it.
create or replace function muneem.evidence_unsealed_since() returns timestamptz
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
declare
    head record;
begin
    select h.xid, h.event_id into head from muneem.evidence_head h;
    return (
        select w.at
        from muneem.evidence_events w
        where (w.xid, w.event_id) > (head.xid, head.event_id)
        order by w.xid, w.event_id
        limit 1);
end
$$;

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        revoke muneem_evidence_owner, muneem_sealer, muneem_auditor from current_user;
    end if;
end
$$;
