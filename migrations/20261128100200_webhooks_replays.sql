-- Somebody wants an endpoint told again of everything since an instant. A job walks the events by created_at, a batch a
-- transaction; what ended after asked_at is passed by, so that whatever is walked twice is told once more and not twice.
create table muneem.webhooks_replays (
    replay_id uuid primary key,
    business_id uuid not null,
    endpoint_id uuid not null references muneem.webhooks_endpoints (endpoint_id),
    since timestamptz not null,
    -- Only what was not delivered.
    failed_only boolean not null,
    asked_at timestamptz not null,
    -- The last event that was looked at.
    cursor_at timestamptz,
    cursor_event uuid,
    -- Deliveries that were begun anew so far.
    replayed bigint not null default 0,
    ended_at timestamptz,
    constraint webhooks_replays_of_the_past check (since <= asked_at)
);

create index webhooks_replays_of_endpoint on muneem.webhooks_replays (endpoint_id, asked_at);

grant select, insert, delete on muneem.webhooks_replays to muneem_app;
grant update (cursor_at, cursor_event, replayed, ended_at) on muneem.webhooks_replays to muneem_app;
grant select on muneem.webhooks_replays to muneem_auditor;

select muneem.people_build_wall();
