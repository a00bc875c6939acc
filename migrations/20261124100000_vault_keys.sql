-- One key of the vault, wrapped: a business's own key by the root key in the KMS, all others by their business's key.
-- No foreign key to the business: a key is made in a short transaction of its own, which must not wait for the
-- caller's, and the business may be new in that one. Business 0 is the installation itself.
create table muneem.vault_keys (
    -- As it stands in every ciphertext, 32 bits. Chosen by chance: after a restore no new key takes the number of one
    -- that the restored database never saw.
    key_id bigint primary key constraint vault_keys_key_id_range check (key_id between 1 and 4294967295),
    business_id uuid not null,
    -- `business` wraps the others; `index` makes blind indexes; the rest seal values of that class.
    class text not null constraint vault_keys_class_known check (class in (
        'business', 'index', 'contact', 'tax_id', 'payment_token', 'message_body', 'payload', 'document', 'credential')),
    -- Of an index key the column (`schema.table.column`), else empty.
    purpose text not null default ''
        constraint vault_keys_purpose_fits check ((class = 'index') = (purpose <> '') and length(purpose) <= 200),
    -- Of an index key 1, 2, 3; stands beside every index value. Else 1.
    version smallint not null default 1 constraint vault_keys_version_range check (version >= 1),
    -- pending: others learn of it. active: seals. decrypt_only: opens. retired: opens nothing, may come back.
    state text not null constraint vault_keys_state_known check (state in ('pending', 'active', 'decrypt_only', 'retired')),
    -- The business key that wraps it; null: the root key.
    wrapped_by bigint references muneem.vault_keys (key_id),
    -- Which root key wraps it, in the words of its KMS driver; null: a business key does.
    root text,
    wrapped bytea not null,
    -- Values that may have been sealed with it so far: taken in blocks before use, so never too low but after a
    -- restore, which vault_standing notices.
    uses bigint not null default 0 constraint vault_keys_uses_positive check (uses >= 0),
    created_at timestamptz not null,
    -- When it last changed its state.
    changed_at timestamptz not null,
    constraint vault_keys_wrapped_once check ((class = 'business') = (wrapped_by is null) and (class = 'business') = (root is not null))
);

create unique index vault_keys_one_active on muneem.vault_keys (business_id, class, purpose) where state = 'active';
create unique index vault_keys_one_pending on muneem.vault_keys (business_id, class, purpose) where state = 'pending';
create unique index vault_keys_index_version on muneem.vault_keys (business_id, purpose, version) where class = 'index';
create index vault_keys_business on muneem.vault_keys (business_id);

-- Where these rows lived when they were last used. Elsewhere, or in an earlier time, counters may have gone back:
-- then every key that seals is replaced.
create table muneem.vault_standing (
    one boolean primary key default true constraint vault_standing_single check (one),
    -- pg_control_system, pg_control_checkpoint, pg_database: they change with a restore, a promotion, a copy.
    system_identifier bigint not null,
    timeline integer not null,
    database_oid bigint not null,
    noticed_at timestamptz not null
);

-- Nothing is ever deleted, and a wrapped key never changes but by wrapping it anew.
grant select, insert on muneem.vault_keys to muneem_app;
grant update (state, uses, changed_at, wrapped_by, root, wrapped) on muneem.vault_keys to muneem_app;
grant select, insert, update on muneem.vault_standing to muneem_app;
grant select (key_id, business_id, class, purpose, version, state, wrapped_by, root, uses, created_at, changed_at)
    on muneem.vault_keys to muneem_auditor;
