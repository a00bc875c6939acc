-- Batches at the speed of plain inserts: ids by the handful, the rule parsed once a call, payloads read one by one.

-- Sessions take ids by the handful, so that producers do not queue for the sequence: ids are unique, not an order.
alter table muneem.queue_jobs alter column job_id set cache 32;

-- Many jobs of one kind at once; ids in the order of the payloads. `keys`, when given, is as long as `payloads`.
create or replace function muneem.enqueue_many(
    kind text, payloads jsonb[], business text default null, keys text[] default null, run_at timestamptz default now(),
    lane text default null, priority smallint default null
) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    declared muneem.queue_kinds := muneem.queue_load_open_kind(kind);
    owner_id uuid := muneem.people_resolve_business(business);
    into_lane muneem.queue_lane;
    present timestamptz := muneem.now();
    due_at timestamptz := greatest(coalesce(run_at, present), present);
    timed boolean := coalesce(run_at > greatest(present, now()), false);
    points smallint := coalesce(priority, 0);
    -- Constants of the statement below, which Postgres would compute anew for each row.
    rank timestamptz := due_at - points * interval '1 minute';
    -- Parsed again, it is plain in memory; as stored, each row would unpack it.
    rule jsonpath := declared.rule::text::jsonpath;
    slotted boolean := declared.slot_scope is not null;
    parked_as "char" := case when timed then 't' when slotted then 's' end;
    taken bigint;
    one record;
begin
    perform muneem.queue_check_lane(lane, priority);
    perform muneem.queue_check_run_at(run_at, present);
    into_lane := coalesce(lane::muneem.queue_lane, declared.lane);
    if pg_column_size(payloads) > 1048576 then
        if exists (select from unnest(payloads) p (payload) where pg_column_size(p.payload) > 1048576) then
            perform muneem.queue_refuse_first(declared, payloads);
        end if;
    end if;
    if keys is null then
        -- One pass over the payloads: what is off is not inserted, and then nothing is.
        return query
            insert into muneem.queue_jobs (
                business_id, rank_at, run_at, enqueued_at, lane, priority, parked, kind, slot_key, payload)
            select owner_id, rank, due_at, present, into_lane, points, parked_as, kind,
                case when slotted then muneem.queue_slot_key(declared, owner_id, p.payload) end, p.payload
            -- In the select list, payloads come one by one; in `from`, they would be stored away first.
            from (select unnest(payloads) as payload) p
            where p.payload @@ rule
            returning job_id;
        get diagnostics taken = row_count;
        if taken < cardinality(payloads) then
            perform muneem.queue_refuse_first(declared, payloads);
        end if;
        perform muneem.queue_wake(into_lane, due_at, timed or declared.slot_scope is not null);
    else
        if cardinality(keys) <> cardinality(payloads) then
            raise exception 'keys: has % entries for % payloads', cardinality(keys), cardinality(payloads)
                using errcode = 'MN007', hint = 'give one key a payload';
        end if;
        if exists (select from unnest(payloads) p (payload) where not coalesce(p.payload @@ rule, false)) then
            perform muneem.queue_refuse_first(declared, payloads);
        end if;
        for one in
            select p.payload, p.key
            from unnest(payloads, keys) with ordinality p (payload, key, place)
            order by p.place
        loop
            return next muneem.queue_insert(declared, one.payload, owner_id, one.key, run_at, lane, priority);
        end loop;
    end if;
end
$$;
