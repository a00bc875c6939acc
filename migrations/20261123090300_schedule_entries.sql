-- One row is one schedule: which job, how often, and how far its slots are settled. A slot is an instant at which the
-- expression falls due. Declared in code (source `code`, written at start) or put here by an operator (`table`).
create table muneem.schedule_entries (
    name text primary key constraint schedule_entries_name_form check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    source text not null default 'table' constraint schedule_entries_source_known check (source in ('code', 'table')),
    kind text not null,
    payload jsonb not null default '{}'
        constraint schedule_entries_payload_object check (jsonb_typeof(payload) = 'object'),
    -- Whom the job is for: `only` the one business there is (a fault when there are several), `named` the business
    -- below, `each` one job per business and slot, `house` nobody in particular, filed under the oldest business.
    scope text not null default 'only'
        constraint schedule_entries_scope_known check (scope in ('only', 'named', 'each', 'house')),
    business_id uuid references muneem.people_businesses (business_id),
    -- Null: the kind's own lane.
    lane text constraint schedule_entries_lane_known
        check (lane in ('otp', 'statutory', 'transactional', 'bulk', 'maintenance')),
    -- Crontab as people type it, in Asia/Kolkata; a row written by hand with one that means nothing gets a fault.
    expression text not null constraint schedule_entries_expression_length check (length(expression) between 1 and 200),
    -- What becomes of slots nobody was there for: one job for all, one for each, none.
    missed text not null default 'run_once' constraint schedule_entries_missed_known
        check (missed in ('run_once', 'run_all', 'skip')),
    -- Most jobs one tick makes up for; older slots are let go. Bounds a clock that jumps a year.
    catch_up_max integer not null default 100
        constraint schedule_entries_catch_up_max_range check (catch_up_max between 1 and 1000),
    paused boolean not null default false,
    -- Newest slot that is settled: its job exists, or the policy let it go. Never moves back, whatever the clock does.
    last_slot timestamptz,
    -- First slot that is not settled; null makes the next tick count from its own now. Written by the tick.
    next_slot timestamptz,
    -- Why the last tick could not make the job; null when it could. Its slots wait, none is lost.
    fault text,
    created_at timestamptz not null default muneem.now(),
    constraint schedule_entries_business_fits_scope check ((scope = 'named') = (business_id is not null)),
    constraint schedule_entries_slots_in_order check (next_slot > last_slot)
);

create index schedule_entries_due on muneem.schedule_entries (next_slot) where not paused;

-- Another expression has other slots, and what fell into a pause is not made up: both start from now, also when
-- the row is changed by hand.
create function muneem.schedule_start_from_now() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.next_slot := null;
    new.fault := null;
    return new;
end
$$;

create trigger schedule_entries_start_from_now
before update of expression, paused on muneem.schedule_entries
for each row
when (old.expression is distinct from new.expression or (old.paused and not new.paused))
execute function muneem.schedule_start_from_now();

-- A trigger runs its function whoever may call it.
revoke all on function muneem.schedule_start_from_now() from public;
grant select, insert, update, delete on muneem.schedule_entries to muneem_app;
grant select on muneem.schedule_entries to muneem_auditor;
