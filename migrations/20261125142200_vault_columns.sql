-- One column of the frontend's own whose values the vault sealed for one business: it is sealed anew when keys change,
-- and looked after daily.
create table muneem.vault_columns (
    column_id uuid primary key,
    business_id uuid not null,
    -- As Postgres has them; `table_name` without its schema.
    table_schema text not null constraint vault_columns_not_ours check (table_schema <> 'muneem'),
    table_name text not null,
    column_name text not null,
    class text not null constraint vault_columns_class_known check (class in (
        'contact', 'tax_id', 'payment_token', 'message_body', 'payload', 'document', 'credential')),
    -- The column that is the `row` of each value: unique, a number or a UUID.
    key_column text not null,
    key_type text not null constraint vault_columns_key_type_known check (key_type in ('uuid', 'smallint', 'integer', 'bigint')),
    -- Where the blind index lies: 16 bytes, the version beside them, and how values are written before.
    index_column text,
    version_column text,
    index_form text constraint vault_columns_form_known check (index_form in ('phone', 'email', 'gstin', 'exact')),
    -- drifted: it is not as it was when it was registered, and nothing is sealed, opened or found in it.
    state text not null constraint vault_columns_state_known check (state in ('sound', 'drifted')),
    -- What is off and what to do, without values.
    finding text,
    added_at timestamptz not null,
    checked_at timestamptz not null,
    constraint vault_columns_once unique (business_id, table_schema, table_name, column_name),
    constraint vault_columns_index_whole check (
        (index_column is null) = (version_column is null) and (index_column is null) = (index_form is null)),
    constraint vault_columns_finding_said check ((state = 'drifted') = (finding is not null))
);

grant select, insert, update, delete on muneem.vault_columns to muneem_app;
grant select on muneem.vault_columns to muneem_auditor;

select muneem.people_build_wall();
