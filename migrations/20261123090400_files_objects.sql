-- One file in the object store, named by its SHA-256. Equal bytes are one file, whoever refers to it.
create table muneem.files_objects (
    digest text primary key constraint files_objects_digest_form check (digest ~ '^[0-9a-f]{64}$'),
    size_bytes bigint not null constraint files_objects_size check (size_bytes >= 0),
    media_type text not null constraint files_objects_media_type_form check (media_type ~ '^[a-z]+/[a-z0-9.+-]+$'),
    -- Last day on which a law or a policy keeps it; null: nobody has said.
    keep_until date,
    created_at timestamptz not null
);

grant select, insert, update on muneem.files_objects to muneem_app;
grant select on muneem.files_objects to muneem_auditor;
