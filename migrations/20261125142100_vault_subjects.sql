-- The key of one Data Principal, wrapped by her business's key. What must not outlive her erasure in any copy is sealed
-- with it. Leave this table out of the backups that are kept long (`pg_dump --exclude-table-data`), or shredding does
-- not reach them.
create table muneem.vault_subject_keys (
    -- As it stands in every ciphertext, 32 bits, chosen by chance.
    key_id bigint primary key constraint vault_subject_keys_key_id_range check (key_id between 1 and 4294967295),
    business_id uuid not null,
    -- The Data Principal.
    subject_id uuid not null,
    wrapped_by bigint not null references muneem.vault_keys (key_id),
    wrapped bytea not null,
    created_at timestamptz not null,
    constraint vault_subject_keys_one unique (business_id, subject_id)
);

create index vault_subject_keys_wrapped_by on muneem.vault_subject_keys (wrapped_by);

-- One key that was destroyed: a tombstone, for ever. The person may come back, her key does not.
create table muneem.vault_shreds (
    key_id bigint primary key,
    business_id uuid not null,
    subject_id uuid not null,
    shredded_at timestamptz not null
);

create index vault_shreds_subject on muneem.vault_shreds (business_id, subject_id);

-- A row out of an old backup does not bring a destroyed key back.
create function muneem.vault_refuse_shredded() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from muneem.vault_shreds s where s.key_id = new.key_id) then
        raise exception 'vault: key % was shredded', new.key_id
            using errcode = 'restrict_violation',
                hint = 'What was erased stays erased: leave the row out of what you restore.';
    end if;
    return new;
end
$$;

revoke execute on function muneem.vault_refuse_shredded() from public;
create trigger vault_subject_keys_not_shredded before insert or update on muneem.vault_subject_keys
    for each row execute function muneem.vault_refuse_shredded();

grant select, insert, delete on muneem.vault_subject_keys to muneem_app;
grant update (wrapped_by, wrapped) on muneem.vault_subject_keys to muneem_app;
grant select, insert on muneem.vault_shreds to muneem_app;
grant select on muneem.vault_shreds to muneem_auditor;

select muneem.people_build_wall();
