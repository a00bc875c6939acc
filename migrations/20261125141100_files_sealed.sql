-- Files lie sealed in the object store, each under a key of its own, which lies sealed in its row: to turn the vault's
-- keys, rows are written anew and no file; to lose the row is to lose the file. They are named by the digest of what lies
-- there. A digest of the content would tell whoever has a document, or can guess it, that it is here.
alter table muneem.files_objects
    -- Whose keys seal it. Null: nobody refers to it.
    add column business_id uuid,
    -- The file's key, sealed (cell: muneem.files_objects, key_sealed, digest). Null: it was put before files were
    -- sealed, lies in clear, and is named by its content.
    add column key_sealed bytea constraint files_objects_key_has_owner check (key_sealed is null or business_id is not null);

update muneem.files_objects f
set business_id = i.business_id
from muneem.invoice_invoices i
where i.pdf_digest = f.digest;

update muneem.files_objects f
set business_id = m.business_id
from muneem.messaging_messages m
where m.document_digest = f.digest and f.business_id is null;

select muneem.people_build_wall();
