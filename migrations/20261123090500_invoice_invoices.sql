-- One document: tax invoice, bill of supply or credit note. Never deleted before `keep_until`, its number never reused.
create table muneem.invoice_invoices (
    invoice_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    kind text not null constraint invoice_invoices_kind check (kind in ('tax_invoice', 'bill_of_supply', 'credit_note')),
    -- Who issued it: one business may be registered in several States. It spells the PAN of a proprietor: personal.
    supplier_gstin text not null constraint invoice_invoices_gstin_form check (supplier_gstin ~ '^[0-9A-Z]{15}$'),
    -- As printed; unique without regard to case (CGST Rules r.46(b); the portals fold case).
    number text not null constraint invoice_invoices_number_form check (number ~ '^[A-Za-z0-9/-]{1,16}$'),
    issued_on date not null,
    -- Calendar year in which the financial year of `issued_on` starts.
    financial_year integer not null constraint invoice_invoices_financial_year check (
        financial_year = extract(year from issued_on - interval '3 months')
    ),
    state text not null constraint invoice_invoices_state check (state in ('received', 'issued')),
    -- The document as handed over, in canonical form.
    document jsonb not null constraint invoice_invoices_document_form check (jsonb_typeof(document) = 'object'),
    -- Where it goes once issued; emptied when it has been handed over.
    deliver jsonb,
    -- Rupees.
    taxable numeric not null,
    tax numeric not null,
    round_off numeric not null constraint invoice_invoices_round_off check (round_off between -0.49 and 0.50),
    total numeric not null constraint invoice_invoices_total check (total = trunc(total) and total >= 0),
    -- File of the PDF.
    pdf_digest text references muneem.files_objects (digest),
    -- CGST Act s.36 and what else asks for books: eight years from the end of the financial year.
    keep_until date not null,
    received_at timestamptz not null,
    issued_at timestamptz,
    constraint invoice_invoices_issued check (
        (state = 'issued') = (pdf_digest is not null) and (state = 'issued') = (issued_at is not null)
    )
);

create unique index invoice_invoices_number_key
    on muneem.invoice_invoices (business_id, supplier_gstin, financial_year, kind, upper(number));
-- Pages of the list: newest first.
create index invoice_invoices_page on muneem.invoice_invoices (business_id, invoice_id desc);

-- One refused document, taken out of its job and kept until somebody has looked at it.
create table muneem.invoice_refusals (
    refusal_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    payload jsonb not null,
    -- [{field, wrong, mend}], free of values.
    problems jsonb not null constraint invoice_refusals_problems_form check (jsonb_typeof(problems) = 'array'),
    refused_at timestamptz not null
);

create index invoice_refusals_page on muneem.invoice_refusals (business_id, refusal_id desc);

-- One series of numbers in one financial year: its row lock makes callers wait for each other, so that a rolled back
-- number is given again and none is missing.
create table muneem.invoice_series (
    business_id uuid not null references muneem.people_businesses (business_id),
    series text not null constraint invoice_series_form check (series ~ '^[A-Z0-9][A-Z0-9-]{0,5}$'),
    financial_year integer not null,
    last_number bigint not null constraint invoice_series_last_number check (last_number > 0),
    constraint invoice_series_key primary key (business_id, series, financial_year)
);

-- The next number of a series: `SM/26-27/00001`. Part of the caller's transaction, which holds the series until it
-- ends: ask last. Gone on rollback, and given to the next who asks.
create function muneem.invoice_next_number(business text, series text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    its_business uuid := muneem.people_resolve_business(business);
    its_series text := upper(series);
    today date := (muneem.now() at time zone 'Asia/Kolkata')::date;
    year integer := extract(year from today - interval '3 months');
    prefix text;
    width integer;
    next_number bigint;
begin
    if its_series is null or its_series !~ '^[A-Z0-9][A-Z0-9-]{0,5}$' then
        raise exception 'invoice_next_number: series must be 1 to 6 letters, digits or hyphens'
            using errcode = 'invalid_parameter_value',
                hint = 'A number has at most 16 characters and the year takes 7 of them: use a short series such as SM.';
    end if;
    if its_series ~ '^0' then
        raise exception 'invoice_next_number: series starts with 0'
            using errcode = 'invalid_parameter_value',
                hint = 'Start with a letter or 1 to 9: the e-invoice portal refuses other numbers.';
    end if;

    insert into muneem.invoice_series as given (business_id, series, financial_year, last_number)
    values (its_business, its_series, year, 1)
    on conflict on constraint invoice_series_key do update
    set last_number = given.last_number + 1
    returning given.last_number into next_number;

    prefix := its_series || '/' || lpad((year % 100)::text, 2, '0') || '-' || lpad(((year + 1) % 100)::text, 2, '0') || '/';
    width := least(5, 16 - length(prefix));
    if length(prefix) + length(next_number::text) > 16 then
        raise exception 'invoice_next_number: series % has no number left in % of 16 characters', its_series, year
            using errcode = 'program_limit_exceeded',
                hint = 'Go on with another or shorter series: one series a counter, not one for all.';
    end if;
    return prefix || lpad(next_number::text, greatest(width, length(next_number::text)), '0');
end
$$;

comment on function muneem.invoice_next_number(text, text) is
    'Next serial number of a series in the present financial year, without gaps, in the caller''s transaction.';

revoke execute on function muneem.invoice_next_number(text, text) from public;
grant execute on function muneem.invoice_next_number(text, text) to muneem_app, muneem_enqueuer;

grant select, insert, update on muneem.invoice_invoices to muneem_app;
grant select, insert, delete on muneem.invoice_refusals to muneem_app;
grant select on muneem.invoice_series to muneem_app;
grant select on muneem.invoice_invoices, muneem.invoice_refusals, muneem.invoice_series to muneem_auditor;
