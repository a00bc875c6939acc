-- What the vault knows of keys on their way out, and how far sealing anew has come.
alter table muneem.vault_keys
    -- Of a pending key: once every transaction below this one has ended, everybody who writes has heard of the key.
    add column fence bigint,
    -- Since when nothing refers to a key that opens only; from then on backups alone may need it.
    add column cleared_at timestamptz
        constraint vault_keys_cleared_seals_no_more check (cleared_at is null or state in ('decrypt_only', 'retired'));

grant update (fence, cleared_at) on muneem.vault_keys to muneem_app;
grant select (fence, cleared_at) on muneem.vault_keys to muneem_auditor;

-- Whether every transaction below `fence` has ended that may have written here. One of another database cannot have;
-- of whom that is not known, it may: pg_locks does not yet show a number that was given this instant, the snapshot does.
create function muneem.vault_fence_passed(fence bigint) returns boolean
language sql
stable strict
set search_path = pg_catalog, pg_temp
as $$
    select not exists (
        select
        from pg_snapshot_xip(pg_current_snapshot()) x (open)
        where x.open::text::bigint < fence
            and not exists (
                select
                from pg_locks l
                join pg_stat_activity a on a.pid = l.pid
                where l.locktype = 'transactionid'
                    and l.mode = 'ExclusiveLock'
                    and l.granted
                    and l.transactionid::text::bigint = x.open::text::bigint & 4294967295
                    and a.datname <> current_database()))
$$;

revoke execute on function muneem.vault_fence_passed(bigint) from public;
grant execute on function muneem.vault_fence_passed(bigint) to muneem_app;

-- One walk through everything sealed, in as many passes as it takes until nothing refers to the keys it is about.
create table muneem.vault_reseals (
    reseal_id uuid primary key,
    -- incomplete: something did not open, or a column could not be read.
    state text not null constraint vault_reseals_state_known check (state in ('running', 'paused', 'done', 'incomplete')),
    -- Keys that opened only when it began: `muneem.vault_keys`.
    keys bigint[] not null constraint vault_reseals_keys_some check (cardinality(keys) > 0),
    -- From 1.
    pass integer not null default 1 constraint vault_reseals_pass_positive check (pass >= 1),
    -- When the walk began, the oldest transaction still to come; a pass that began after all below it had ended has
    -- seen whatever they wrote.
    fence bigint not null,
    -- Whether the present pass began so.
    conclusive boolean not null,
    started_at timestamptz not null,
    changed_at timestamptz not null,
    ended_at timestamptz,
    constraint vault_reseals_end check ((state in ('done', 'incomplete')) = (ended_at is not null))
);

-- One at a time.
create unique index vault_reseals_one_open on muneem.vault_reseals ((true)) where state in ('running', 'paused');

-- How far a walk is in one column.
create table muneem.vault_reseal_columns (
    reseal_id uuid not null references muneem.vault_reseals (reseal_id),
    -- `schema.table.column`; of a frontend's column with the business's id behind it.
    place text not null,
    -- Rows of the table when the walk began, as the planner estimates them.
    rows_expected bigint not null,
    -- Primary key of the last row looked at in this pass; null: none yet.
    after_key text,
    finished boolean not null default false,
    -- In this pass.
    visited bigint not null default 0,
    -- In all passes: sealed anew; changed by somebody else meanwhile, to be found again.
    resealed bigint not null default 0,
    missed bigint not null default 0,
    -- In this pass: still under a key that is to go.
    found bigint not null default 0,
    -- Of these, what did not open.
    bad bigint not null default 0,
    -- Milliseconds that its batches took.
    busy_ms bigint not null default 0,
    -- Why it could not be walked, if so.
    trouble text,
    primary key (reseal_id, place)
);

-- One sealed value that did not open when it was to be sealed anew. It stays as it is, and its key is kept.
create table muneem.vault_quarantine (
    place text not null,
    -- Primary key: a number or a UUID, never a value.
    row_key text not null,
    business_id uuid not null,
    -- The key it names; null: it names none.
    key_id bigint,
    why text not null constraint vault_quarantine_why_known
        check (why in ('cut', 'version', 'algorithm', 'key', 'tag', 'shredded', 'form', 'taken')),
    found_at timestamptz not null,
    seen_at timestamptz not null,
    primary key (place, row_key)
);

create index vault_quarantine_key on muneem.vault_quarantine (key_id) where key_id is not null;

grant select, insert, update on muneem.vault_reseals, muneem.vault_reseal_columns to muneem_app;
grant select, insert, update, delete on muneem.vault_quarantine to muneem_app;
grant select on muneem.vault_reseals, muneem.vault_reseal_columns, muneem.vault_quarantine to muneem_auditor;

-- A walk is the whole house's: its rows name keys and tables of every business, and none of them sees one.
alter table muneem.vault_reseals enable row level security;
alter table muneem.vault_reseal_columns enable row level security;
create policy house on muneem.vault_reseals to muneem_app, muneem_auditor using (true) with check (true);
create policy house on muneem.vault_reseal_columns to muneem_app, muneem_auditor using (true) with check (true);

-- What is written once is yet sealed anew.
grant update (body_sealed) on muneem.messaging_webhooks to muneem_app;
grant update (payload_sealed) on muneem.invoice_refusals to muneem_app;

select muneem.people_build_wall();
