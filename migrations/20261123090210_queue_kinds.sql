-- Urgency classes, most urgent first.
create type muneem.queue_lane as enum ('otp', 'statutory', 'transactional', 'bulk', 'maintenance');

-- One row per kind of job that some version of the binary declares; written by `muneem migrate`.
create table muneem.queue_kinds (
    kind text primary key constraint queue_kinds_kind_form check (kind ~ '^[a-z]+\.[a-z][a-z0-9_]*$'),
    lane muneem.queue_lane not null,
    -- Published JSON Schema (2020-12) of the payload.
    schema jsonb not null,
    -- The required fields and types of the schema as one predicate, evaluated at each enqueue.
    rule jsonpath not null,
    -- Whether frontends may enqueue it; the others are muneem's own.
    open boolean not null default false,
    max_attempts smallint not null constraint queue_kinds_max_attempts_positive check (max_attempts > 0),
    -- How long a used key refuses a second job; null is for ever (statutory kinds and invoices).
    key_memory interval,
    -- At most this many at once for equal slot keys; null is no limit.
    slot_limit smallint constraint queue_kinds_slot_limit_positive check (slot_limit > 0),
    -- What makes slot keys differ: nothing (`kind`), the business, or a field of the payload within the business.
    slot_scope text constraint queue_kinds_slot_scope_known check (slot_scope in ('kind', 'business', 'field')),
    slot_field text,
    constraint queue_kinds_slots_whole check (
        (slot_limit is null) = (slot_scope is null) and (slot_field is not null) = (slot_scope is not distinct from 'field'))
);

-- The same predicate, one row a field: read only to say what is wrong.
create table muneem.queue_kind_fields (
    kind text not null references muneem.queue_kinds (kind) on delete cascade,
    path text not null,
    -- What must hold: `is required`, `must be a string`.
    demand text not null,
    rule jsonpath not null,
    primary key (kind, path, demand)
);

grant select on muneem.queue_kinds, muneem.queue_kind_fields to muneem_app, muneem_enqueuer, muneem_auditor;
