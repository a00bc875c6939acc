-- What a document says of people is sealed: the document itself, where it goes, who issued it (a proprietor's GSTIN
-- spells the PAN), and what was refused.
alter table muneem.invoice_invoices
    drop column document,
    drop column deliver,
    -- The unique index of numbers goes with it.
    drop column supplier_gstin,
    -- The document as handed over, as JSON.
    add column document_sealed bytea not null,
    -- Where it goes once issued, as JSON; emptied when it has been handed over.
    add column deliver_sealed bytea,
    -- Blind index of the GSTIN it was issued under: two bytes of the index key's version, then the digest.
    add column supplier_gstin_mark bytea not null
        constraint invoice_invoices_gstin_mark_length check (length(supplier_gstin_mark) = 18);

create unique index invoice_invoices_number_key
    on muneem.invoice_invoices (business_id, supplier_gstin_mark, financial_year, kind, upper(number));

alter table muneem.invoice_refusals
    drop column payload,
    -- The payload as handed over.
    add column payload_sealed bytea not null,
    -- The document's number, where what was handed over has one of the form of a number; else empty.
    add column number text not null default ''
        constraint invoice_refusals_number_form check (number ~ '^[A-Za-z0-9/-]{0,16}$');
