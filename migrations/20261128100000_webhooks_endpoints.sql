-- One receiver of a business: where its frontend wants to hear of what happens, of what, and how it has been answering.
create table muneem.webhooks_endpoints (
    endpoint_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    -- Scheme, host and port alone. Paths and queries of receivers often are secrets: the whole stands sealed.
    origin text not null constraint webhooks_endpoints_origin_form
        check (origin ~ '^https?://[^/?#@]+$' and length(origin) <= 300),
    url_sealed bytea,
    -- What staff wrote about it, sealed.
    description_sealed bytea,
    -- Exact types, `messaging.*`, or `*`.
    event_types text[] not null constraint webhooks_endpoints_event_types_few
        check (cardinality(event_types) between 1 and 64),
    -- `enabled`. `paused`: it has failed for so long that it is only asked now and then; everything waits. `disabled`:
    -- nothing goes there, and nothing new is kept for it. `removed`: the row stays for what refers to it.
    state text not null constraint webhooks_endpoints_state_known
        check (state in ('enabled', 'paused', 'disabled', 'removed')),
    -- Why it is paused or disabled: `failing`, `asked` (by somebody), `gone` (it answered 410), `address` (it may not
    -- be called any more), `unreadable` (its sealed address or secret does not open).
    reason text constraint webhooks_endpoints_reason_known
        check (reason in ('failing', 'asked', 'gone', 'address', 'unreadable')),
    created_at timestamptz not null,
    changed_at timestamptz not null,
    -- Attempts that failed since the last one that did not.
    failures integer not null default 0 constraint webhooks_endpoints_failures_sane check (failures >= 0),
    failing_since timestamptz,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    -- Of the last failure, as webhooks_attempts.cause.
    last_cause text,
    -- No attempt before this instant: it asked for the pause, or has just failed several times.
    wait_until timestamptz,
    -- A job of webhooks.deliver looks then; written with that job. Whoever emits shortly before needs none of its own.
    next_look_at timestamptz,
    constraint webhooks_endpoints_whole_until_removed check ((url_sealed is null) = (state = 'removed')),
    constraint webhooks_endpoints_reason_whole check ((reason is not null) = (state in ('paused', 'disabled'))),
    constraint webhooks_endpoints_failing_whole check ((failures > 0) = (failing_since is not null))
) with (fillfactor = 70);

create index webhooks_endpoints_of_business on muneem.webhooks_endpoints (business_id) where state <> 'removed';

-- One secret that a receiver checks signatures with. While one is replaced there are two, and two signatures.
create table muneem.webhooks_secrets (
    secret_id uuid primary key,
    business_id uuid not null,
    endpoint_id uuid not null references muneem.webhooks_endpoints (endpoint_id),
    secret_sealed bytea not null,
    created_at timestamptz not null,
    -- Until when it signs; null is until it is replaced.
    ends_at timestamptz
);

create index webhooks_secrets_of_endpoint on muneem.webhooks_secrets (endpoint_id);

grant select, insert, update on muneem.webhooks_endpoints to muneem_app;
grant select, insert, delete on muneem.webhooks_secrets to muneem_app;
grant update (secret_sealed, ends_at) on muneem.webhooks_secrets to muneem_app;
grant select (endpoint_id, business_id, origin, event_types, state, reason, created_at, changed_at, failures,
    failing_since, last_success_at, last_failure_at, last_cause, wait_until, next_look_at)
    on muneem.webhooks_endpoints to muneem_auditor;
grant select (secret_id, business_id, endpoint_id, created_at, ends_at) on muneem.webhooks_secrets to muneem_auditor;
