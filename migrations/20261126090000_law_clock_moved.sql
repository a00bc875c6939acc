-- Every write of every duty asks muneem.now(), so that it must cost no query: how far the sandbox has moved the clock is
-- a constant that Postgres folds into the plans that use it, and that whoever updates muneem.law_clock writes anew.

create function muneem.law_clock_moved_by() returns interval
language sql immutable parallel safe
as $$ select interval '0' $$;

create or replace function muneem.now() returns timestamptz
language plpgsql stable parallel safe
as $$ begin return clock_timestamp() + muneem.law_clock_moved_by(); end $$;

-- Plans that hold the old constant are thrown away when the transaction that moved the clock commits. The row's lock
-- keeps two movers apart.
create function muneem.law_keep_clock() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $$
begin
    execute format(
        'create or replace function muneem.law_clock_moved_by() returns interval
        language sql immutable parallel safe
        as %L', format('select interval %L', new.moved_by));
    return null;
end
$$;

create trigger law_clock_kept after insert or update on muneem.law_clock
    for each row execute function muneem.law_keep_clock();
update muneem.law_clock set moved_by = moved_by;

revoke all on function muneem.law_clock_moved_by(), muneem.law_keep_clock() from public;
-- muneem.now() runs as its caller.
grant execute on function muneem.law_clock_moved_by()
    to muneem_app, muneem_enqueuer, muneem_auditor, muneem_sealer, muneem_evidence_owner;

-- Whoever moves the clock backdates evidence: only in a database that its owner has made a sandbox's (`muneem migrate`
-- with `sandbox.enabled`), and by these two alone.
alter table muneem.law_clock add column sandbox boolean not null default false;
revoke update on muneem.law_clock from muneem_app;

-- How far the clock is moved, nobody else moving it until the caller's transaction ends; no row outside a sandbox.
create function muneem.law_hold_clock() returns setof interval
language sql security definer
set search_path = pg_catalog, pg_temp
as $$ select c.moved_by from muneem.law_clock c where c.sandbox for update $$;

create function muneem.law_move_clock(moved_by interval) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update muneem.law_clock c set moved_by = law_move_clock.moved_by where c.sandbox;
    if not found then
        raise exception 'the clock of this database does not move'
            using errcode = 'MN040', hint = 'only a sandbox''s does: muneem migrate, with sandbox.enabled';
    end if;
end
$$;

revoke all on function muneem.law_hold_clock(), muneem.law_move_clock(interval) from public;
grant execute on function muneem.law_hold_clock(), muneem.law_move_clock(interval) to muneem_app;

select muneem.people_build_wall();
