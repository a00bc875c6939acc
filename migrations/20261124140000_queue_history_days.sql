-- Days of the history go one after another, each in its own transaction: what a long reader holds is left for the next
-- time and takes nothing else with it.

-- The days that are over, oldest first.
create function muneem.queue_history_over(keep interval) returns setof date
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select d.day
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join lateral (select to_date(right(c.relname, 8), 'YYYYMMDD')) d (day)
    where i.inhparent = 'muneem.queue_history'::regclass
        and c.relname ~ '^queue_history_[0-9]{8}$'
        and d.day < (muneem.now() - keep)::date
    order by d.day
$$;

-- Drops one of them; false when there is no such day, or when it is not over. Owner's work, lent to the app role.
create function muneem.queue_drop_history(day date, keep interval) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- Behind a long reader it gives up at once: every acknowledgement would queue behind it.
set lock_timeout = '1s'
as $$
begin
    if keep < interval '1 day' then
        raise exception 'history is kept at least a day, not %', keep using errcode = 'MN009';
    end if;
    if not exists (select from muneem.queue_history_over(keep) over (day) where over.day = queue_drop_history.day) then
        return false;
    end if;
    execute format('drop table muneem.queue_history_%s', to_char(day, 'YYYYMMDD'));
    return true;
end
$$;

-- Makes the day partitions for today and the coming days, and answers how many; deletes what is over of the days that
-- have none. Owner's work, lent to the app role.
create or replace function muneem.queue_rotate_history(keep interval) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    day date;
    made integer := 0;
begin
    if keep < interval '1 day' then
        raise exception 'history is kept at least a day, not %', keep using errcode = 'MN009';
    end if;
    for ahead in 0 .. 3 loop
        day := (muneem.now() at time zone 'UTC')::date + ahead;
        if to_regclass(format('muneem.queue_history_%s', to_char(day, 'YYYYMMDD'))) is null
            and not exists (
                select from muneem.queue_history_other o
                where o.finished_at >= day::timestamp at time zone 'UTC'
                    and o.finished_at < (day + 1)::timestamp at time zone 'UTC')
        then
            execute format(
                'create table muneem.queue_history_%s partition of muneem.queue_history for values from (%L) to (%L)',
                to_char(day, 'YYYYMMDD'), day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
            made := made + 1;
        end if;
    end loop;
    delete from muneem.queue_history_other o where o.finished_at < muneem.now() - keep;
    return made;
end
$$;

revoke all on function muneem.queue_history_over(interval), muneem.queue_drop_history(date, interval) from public;
grant execute on function muneem.queue_history_over(interval), muneem.queue_drop_history(date, interval) to muneem_app;
