with declared as (
    insert into muneem.queue_kinds as k (
        kind, lane, schema, rule, max_attempts, key_memory, slot_limit, slot_scope, slot_field, open, seals)
    values ($1, $2::text::muneem.queue_lane, $3, $4::text::jsonpath, $5, $6, $7, $8, $9, $13, $14)
    on conflict (kind) do update
    set lane = excluded.lane, schema = excluded.schema, rule = excluded.rule, max_attempts = excluded.max_attempts,
        key_memory = excluded.key_memory, slot_limit = excluded.slot_limit, slot_scope = excluded.slot_scope,
        slot_field = excluded.slot_field, open = excluded.open, seals = excluded.seals
    returning k.kind
),
fields as (
    select f.path, f.demand, f.rule
    from unnest($10::text[], $11::text[], $12::text[]) f (path, demand, rule)
),
gone as (
    delete from muneem.queue_kind_fields f
    where f.kind = $1
        and not exists (select from fields n where n.path = f.path and n.demand = f.demand)
)
insert into muneem.queue_kind_fields as old (kind, path, demand, rule)
select declared.kind, fields.path, fields.demand, fields.rule::jsonpath
from declared, fields
on conflict (kind, path, demand) do update
set rule = excluded.rule
where old.rule::text <> excluded.rule::text
