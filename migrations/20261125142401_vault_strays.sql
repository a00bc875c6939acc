-- One column of a frontend's that /v1/vault has sealed values for and that nobody registered: no walk meets what stands
-- there, so its keys are never taken for unused.
create table muneem.vault_strays (
    business_id uuid not null,
    -- `schema.table`, as the values name it.
    table_name text not null,
    column_name text not null,
    class text not null,
    first_at timestamptz not null,
    primary key (business_id, table_name, column_name, class)
);

grant select, insert, delete on muneem.vault_strays to muneem_app;
grant select on muneem.vault_strays to muneem_auditor;

-- Whether values may stand under a key where no walk meets them.
create function muneem.vault_key_strays(of_business uuid, of_class text, of_purpose text) returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select
        from muneem.vault_strays s
        where s.business_id = of_business
            and (s.class = of_class or of_class = 'index' and s.table_name || '.' || s.column_name = of_purpose)
            and not exists (
                select
                from muneem.vault_columns c
                where c.business_id = s.business_id
                    and c.table_schema || '.' || c.table_name = s.table_name
                    and c.column_name = s.column_name))
$$;

revoke execute on function muneem.vault_key_strays(uuid, text, text) from public;
grant execute on function muneem.vault_key_strays(uuid, text, text) to muneem_app;

select muneem.people_build_wall();
