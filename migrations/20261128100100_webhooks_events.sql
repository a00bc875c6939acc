-- One thing that happened, as receivers are told of it. Kept only where an endpoint wanted its type.
create table muneem.webhooks_events (
    -- `evt_` and this is its webhook-id, the same in every attempt and replay.
    event_id uuid primary key,
    business_id uuid not null,
    event_type text not null constraint webhooks_events_type_form
        check (event_type ~ '^[a-z0-9_]+(\.[a-z0-9_]+)+$' and length(event_type) <= 100),
    -- Of the thing that it happened to: events of one are told one after the other.
    object_id text not null constraint webhooks_events_object_form check (length(object_id) between 1 and 200),
    occurred_at timestamptz not null,
    created_at timestamptz not null,
    -- The exact bytes that are posted and signed.
    body_sealed bytea not null
);

create index webhooks_events_of_business on muneem.webhooks_events (business_id, created_at, event_id);
create index webhooks_events_created_at on muneem.webhooks_events (created_at);

-- One event on its way to one endpoint.
create table muneem.webhooks_deliveries (
    -- The order of events.
    delivery_id bigint generated always as identity primary key,
    business_id uuid not null,
    event_id uuid not null references muneem.webhooks_events (event_id) on delete cascade,
    endpoint_id uuid not null references muneem.webhooks_endpoints (endpoint_id),
    -- `pending`: at next_at. `sending`: in the hand of a worker. The rest are ends: `delivered` (answered 2xx),
    -- `failed` (no attempt left, or answered 410), `expired` (waited too long), `dropped` (its endpoint was removed).
    state text not null constraint webhooks_deliveries_state_known
        check (state in ('pending', 'sending', 'delivered', 'failed', 'expired', 'dropped')),
    -- Attempts begun, ever.
    attempts integer not null default 0,
    -- Attempts that count against the retry schedule; a replay begins it anew.
    tries integer not null default 0,
    next_at timestamptz not null,
    claimed_at timestamptz,
    ended_at timestamptz,
    constraint webhooks_deliveries_once unique (endpoint_id, event_id),
    constraint webhooks_deliveries_claimed_whole check ((claimed_at is not null) = (state = 'sending')),
    constraint webhooks_deliveries_ended_whole check ((ended_at is null) = (state in ('pending', 'sending')))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

create index webhooks_deliveries_due on muneem.webhooks_deliveries (endpoint_id, next_at, delivery_id)
    where state = 'pending';
create index webhooks_deliveries_in_hand on muneem.webhooks_deliveries (endpoint_id) where state = 'sending';
create index webhooks_deliveries_of_event on muneem.webhooks_deliveries (event_id);
create index webhooks_deliveries_page on muneem.webhooks_deliveries (endpoint_id, delivery_id desc);

-- One try at one delivery. Of the answer its status is kept and nothing of its body.
create table muneem.webhooks_attempts (
    delivery_id bigint not null references muneem.webhooks_deliveries (delivery_id) on delete cascade,
    -- webhooks_deliveries.attempts when it began.
    number integer not null,
    business_id uuid not null,
    started_at timestamptz not null,
    -- Null: nobody knows whether it left, because the worker died.
    latency_ms integer,
    -- HTTP status of the answer; null: there was none.
    status smallint,
    -- Why it failed: `status`, `timed_out`, `connect`, `tls`, `name`, `address`, `broken`, `interrupted`, `unreadable`;
    -- null: it did not.
    cause text constraint webhooks_attempts_cause_form check (cause ~ '^[a-z_]{1,40}$'),
    primary key (delivery_id, number)
);

grant select, insert, update, delete on muneem.webhooks_events, muneem.webhooks_deliveries to muneem_app;
grant select, insert, delete on muneem.webhooks_attempts to muneem_app;
grant select (event_id, business_id, event_type, object_id, occurred_at, created_at)
    on muneem.webhooks_events to muneem_auditor;
grant select on muneem.webhooks_deliveries, muneem.webhooks_attempts to muneem_auditor;
