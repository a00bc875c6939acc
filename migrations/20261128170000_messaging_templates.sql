-- A template as the carrier has it, for one account of one business: what it was when somebody last asked, and what the
-- carrier told by webhook since. A template without a row was never asked for: nobody knows anything against it.
create table muneem.messaging_templates (
    business_id uuid not null references muneem.people_businesses (business_id),
    waba_id text not null constraint messaging_templates_waba_form check (waba_id ~ '^[0-9]{1,32}$'),
    -- As it is known to the carrier, not the folder of its words.
    name text not null constraint messaging_templates_name_length check (length(name) between 1 and 512),
    -- The carrier's code, with an underscore: `en`, `en_US`.
    language text not null constraint messaging_templates_language_form check (language ~ '^[A-Za-z_]{2,12}$'),
    -- The carrier's id; null: a webhook told of it before it was asked for.
    carrier_id text constraint messaging_templates_id_form check (carrier_id ~ '^[0-9]{1,32}$'),
    -- `APPROVED`, `PENDING`, `REJECTED`, `PAUSED` …, as the carrier writes it; null: not known.
    status text constraint messaging_templates_status_form check (status ~ '^[A-Z0-9_.-]{1,64}$'),
    -- When the carrier was so asked or so told; what is older changes nothing.
    status_at timestamptz not null default '-infinity',
    -- `UTILITY`, `AUTHENTICATION`, `MARKETING`; null: not known.
    category text constraint messaging_templates_category_form check (category ~ '^[A-Z0-9_.-]{1,64}$'),
    -- The one that the carrier finds right and will put it in.
    correct_category text constraint messaging_templates_correct_form check (correct_category ~ '^[A-Z0-9_.-]{1,64}$'),
    category_at timestamptz not null default '-infinity',
    -- `GREEN`, `YELLOW`, `RED`, `UNKNOWN`; null: not known.
    quality text constraint messaging_templates_quality_form check (quality ~ '^[A-Z0-9_.-]{1,64}$'),
    quality_at timestamptz not null default '-infinity',
    -- Why it was rejected, in the carrier's words.
    rejected_reason text constraint messaging_templates_reason_length check (length(rejected_reason) between 1 and 500),
    -- When it was last asked for; null: never.
    pulled_at timestamptz,
    primary key (business_id, waba_id, name, language)
);

grant select, insert, update, delete on muneem.messaging_templates to muneem_app;
grant select on muneem.messaging_templates to muneem_auditor;

select muneem.people_build_wall();
