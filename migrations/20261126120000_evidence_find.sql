-- Every write of every duty paid for finding a leaf by its event, which a person asks for now and then. Event ids are
-- UUIDv7, so that leaves lie nearly in their order: a range of pages knows its first and last.

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner to current_user;
    end if;
end
$$;

drop index muneem.evidence_leaves_event;
create index evidence_leaves_event on muneem.evidence_leaves using brin (event_id)
    with (pages_per_range = 16, autosummarize = on);

-- The number of an event, if it is sealed and, where a business is named, of that business.
create function muneem.evidence_find(event uuid, business uuid) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
    select l.seq
    from muneem.evidence_leaves l
    where l.event_id = evidence_find.event
        and (evidence_find.business is null or l.business_id = evidence_find.business)
    limit 1
$$;

-- The smallest number, among those of a business, of its events with ids from the first to the second.
create function muneem.evidence_find_first(business uuid, first_event uuid, last_event uuid) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
-- The index on ids alone: another would lead through all that the business ever did.
set enable_seqscan = off
set enable_indexscan = off
set jit = off
as $$
    select min(l.business_seq)
    from muneem.evidence_leaves l
    where l.business_id = evidence_find_first.business
        and l.event_id between evidence_find_first.first_event and evidence_find_first.last_event
$$;

revoke all on function muneem.evidence_find(uuid, uuid), muneem.evidence_find_first(uuid, uuid, uuid) from public;
grant execute on function muneem.evidence_find(uuid, uuid), muneem.evidence_find_first(uuid, uuid, uuid)
    to muneem_app, muneem_auditor;

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        revoke muneem_evidence_owner from current_user;
    end if;
end
$$;
