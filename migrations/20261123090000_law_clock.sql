-- The schema itself is made by the migrator (jobs/sqlx.toml).

-- NOLOGIN roles: what a login may do is what it is a member of. Roles belong to the whole cluster, so another database
-- of the same server may have made them already.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['muneem_app', 'muneem_sealer', 'muneem_auditor', 'muneem_enqueuer']
    loop
        begin
            execute format('create role %I nologin', wanted);
        exception when duplicate_object or unique_violation then
            null;
        end;
    end loop;
end
$$;

grant usage on schema muneem to muneem_app, muneem_sealer, muneem_auditor, muneem_enqueuer;

-- One row: how far the sandbox has moved the clock. Zero outside sandbox mode, for ever.
create table muneem.law_clock (
    only_row boolean primary key default true constraint law_clock_one_row check (only_row),
    moved_by interval not null default interval '0'
);

insert into muneem.law_clock default values;

-- The present instant for run-at, due dates and evidence. Leases alone use now(): several machines must agree on them.
-- In PL/pgSQL, which keeps its plan: every enqueue asks it.
create function muneem.now() returns timestamptz
language plpgsql stable parallel safe
as $$ begin return clock_timestamp() + (select c.moved_by from muneem.law_clock c); end $$;

-- Read by every process; moved through `POST /sandbox/clock`, which exists in sandbox mode only.
grant select, update on muneem.law_clock to muneem_app;
-- muneem.now() runs as its caller.
grant select on muneem.law_clock to muneem_enqueuer, muneem_auditor;
revoke all on function muneem.now() from public;
grant execute on function muneem.now() to muneem_app, muneem_enqueuer, muneem_auditor;

-- Whoever serves must see whether the schema is its version's. The migrator made this table before the first step.
do $$
begin
    if to_regclass('muneem._sqlx_migrations') is not null then
        grant select on muneem._sqlx_migrations to muneem_app;
    end if;
end
$$;
