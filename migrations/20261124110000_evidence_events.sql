-- Who owns the log: nobody can log in as it. The app role writes, the sealer numbers, the auditor reads; none of them
-- owns what it touches, so none can alter, truncate or drop it, or switch its triggers off.
do $$
begin
    create role muneem_evidence_owner nologin;
exception when duplicate_object or unique_violation then
    -- Roles belong to the whole cluster: another database of the same server made it already.
    null;
end
$$;

-- For the length of these steps the migrator may hand things to the two roles; a superuser does not need it.
do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner, muneem_sealer to current_user;
    end if;
end
$$;

-- The owner makes the coming months' partitions.
grant usage, create on schema muneem to muneem_evidence_owner;
grant select on muneem.law_clock to muneem_evidence_owner, muneem_sealer;
grant execute on function muneem.now() to muneem_evidence_owner, muneem_sealer;

-- One thing that was decided or done, written in the transaction that did it. Append-only. No primary key: each index
-- is paid by every write of every duty, and what must be unique (the number) is given by the sealer.
create table muneem.evidence_events (
    -- UUIDv7, made by the writer.
    event_id uuid not null,
    -- Null: of the installation, such as a migration.
    business_id uuid,
    -- The writer can name neither: insert is granted on the other columns only.
    xid xid8 not null default pg_current_xact_id(),
    at timestamptz not null default muneem.now(),
    -- RFC 8785 canonical JSON, built once; these very bytes are what is hashed. Free of personal values.
    body bytea not null constraint evidence_events_body_size check (octet_length(body) between 2 and 16384)
) partition by range (at);

-- The sealer's order: no row can appear behind a (xid, event_id) that lies under the snapshot's xmin.
create index evidence_events_order on muneem.evidence_events (xid, event_id);

-- What no month has room for; empty as long as evidence_rotate_events runs.
create table muneem.evidence_events_other partition of muneem.evidence_events default;

create function muneem.evidence_refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
-- Reads neither OLD nor NEW: the same for rows and for TRUNCATE.
as $$ begin
    raise exception '% on muneem.% is refused: evidence is append-only', tg_op, tg_table_name using errcode = 'MN020';
end $$;

-- Copied to every partition by Postgres; truncate triggers are not, so whoever makes a partition adds its own.
create trigger evidence_events_append_only before update or delete on muneem.evidence_events
    for each row execute function muneem.evidence_refuse_change();
create trigger evidence_events_no_truncate before truncate on muneem.evidence_events
    for each statement execute function muneem.evidence_refuse_change();
create trigger evidence_events_other_no_truncate before truncate on muneem.evidence_events_other
    for each statement execute function muneem.evidence_refuse_change();

-- Makes the partitions of this month and the next three. Answers how many it made.
create function muneem.evidence_make_months() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    month date;
    made integer := 0;
begin
    for ahead in 0 .. 3 loop
        month := (date_trunc('month', muneem.now() at time zone 'UTC') + make_interval(months => ahead))::date;
        if to_regclass(format('muneem.evidence_events_%s', to_char(month, 'YYYYMMDD'))) is null
            and not exists (
                select from muneem.evidence_events_other o
                where o.at >= month::timestamp at time zone 'UTC'
                    and o.at < (month + interval '1 month') at time zone 'UTC')
        then
            execute format(
                'create table muneem.evidence_events_%s partition of muneem.evidence_events for values from (%L) to (%L)',
                to_char(month, 'YYYYMMDD'), month::timestamp at time zone 'UTC',
                (month + interval '1 month') at time zone 'UTC');
            execute format(
                'create trigger evidence_events_%s_no_truncate before truncate on muneem.evidence_events_%1$s
                 for each statement execute function muneem.evidence_refuse_change()',
                to_char(month, 'YYYYMMDD'));
            made := made + 1;
        end if;
    end loop;
    return made;
end
$$;

grant insert (event_id, business_id, body) on muneem.evidence_events to muneem_app;
grant select on muneem.evidence_events to muneem_sealer, muneem_auditor;

revoke all on function muneem.evidence_refuse_change() from public;
revoke all on function muneem.evidence_make_months() from public;
grant execute on function muneem.evidence_make_months() to muneem_app;

alter table muneem.evidence_events owner to muneem_evidence_owner;
alter table muneem.evidence_events_other owner to muneem_evidence_owner;
alter function muneem.evidence_refuse_change() owner to muneem_evidence_owner;
alter function muneem.evidence_make_months() owner to muneem_evidence_owner;

select muneem.evidence_make_months();
