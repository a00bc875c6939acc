-- What people want to hear: whom a business may write to, who has said no, and who must not come back.

-- One address at which a business reaches somebody: a mobile number, a mail address, a WhatsApp user id. The address
-- lies sealed; it is looked up by its blind index.
create table muneem.messaging_contacts (
    contact_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    kind text not null constraint messaging_contacts_kind_known check (kind in ('phone', 'email', 'user_id')),
    -- Blind index of the address in its canonical form: two bytes of the index key's version, then the digest.
    mark bytea not null constraint messaging_contacts_mark_length check (length(mark) = 18),
    address_sealed bytea not null,
    -- Contacts of one group are known to be one person: the carrier named a number and a user id together.
    group_id uuid not null,
    -- When she last wrote to the business: it proves that she can be reached.
    heard_at timestamptz,
    -- When the carrier first could not deliver (Cloud API error 131026) since then.
    undeliverable_at timestamptz,
    created_at timestamptz not null,
    constraint messaging_contacts_once unique (business_id, mark),
    constraint messaging_contacts_of_business unique (business_id, contact_id)
);

create index messaging_contacts_group on muneem.messaging_contacts (business_id, group_id);

-- One thing that somebody said about one purpose, or that follows from what the carrier said. Never changed; the one with
-- the latest `at` counts, whenever it arrived. Who must prove consent reads it here (DPDP Act 2023 s.6(10)).
create table muneem.messaging_consents (
    consent_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    contact_id uuid not null,
    -- A business's own word: `marketing.offers`.
    purpose text not null constraint messaging_consents_purpose_form
        check (length(purpose) <= 64 and purpose ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,3}$'),
    -- `ask_again`: given under a number that has passed to somebody else; she is asked under the new one.
    state text not null constraint messaging_consents_state_known check (state in ('given', 'withdrawn', 'ask_again')),
    source text not null constraint messaging_consents_source_form check (source ~ '^[a-z][a-z_]{1,39}$'),
    -- Which words she agreed to, and their language (BCP 47).
    wording_version text constraint messaging_consents_wording_form check (wording_version ~ '^[A-Za-z][A-Za-z0-9._:-]{0,63}$'),
    language text constraint messaging_consents_language_form check (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$'),
    -- What proves it, or where that lies.
    proof_sealed bytea,
    -- SHA-256 of the row's id, a line feed and the proof: evidence names it.
    proof_sha256 bytea constraint messaging_consents_proof_length check (length(proof_sha256) = 32),
    -- When she said it.
    at timestamptz not null,
    recorded_at timestamptz not null,
    recorded_by text not null,
    constraint messaging_consents_contact foreign key (business_id, contact_id)
        references muneem.messaging_contacts (business_id, contact_id) on delete cascade,
    constraint messaging_consents_given_is_proved check (
        state <> 'given' or (wording_version is not null and language is not null)),
    constraint messaging_consents_proof_whole check ((proof_sealed is null) = (proof_sha256 is null))
);

create index messaging_consents_latest on muneem.messaging_consents (contact_id, purpose, at desc);

-- One reason not to write to a contact, or its end. Never changed; of each scope, channel and cause the one with the
-- latest `at` counts.
create table muneem.messaging_suppressions (
    suppression_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    contact_id uuid not null,
    scope text not null constraint messaging_suppressions_scope_known
        check (scope in ('all', 'marketing', 'channel', 'identity')),
    -- Where it was said, or where it holds; none: everywhere.
    channel text constraint messaging_suppressions_channel_known check (channel in ('whatsapp', 'mail')),
    -- Who can end it: the person herself, her settings at the carrier, the carrier, the business.
    cause text not null constraint messaging_suppressions_cause_known
        check (cause in ('person', 'preference', 'carrier', 'operator')),
    state text not null constraint messaging_suppressions_state_known check (state in ('set', 'lifted')),
    reason text not null constraint messaging_suppressions_reason_form check (reason ~ '^[a-z][a-z0-9_]{1,63}$'),
    at timestamptz not null,
    until timestamptz,
    recorded_at timestamptz not null,
    recorded_by text not null,
    constraint messaging_suppressions_contact foreign key (business_id, contact_id)
        references muneem.messaging_contacts (business_id, contact_id) on delete cascade,
    constraint messaging_suppressions_ends_later check (until > at),
    constraint messaging_suppressions_channel_named check (scope <> 'channel' or channel is not null)
);

create index messaging_suppressions_latest on muneem.messaging_suppressions (contact_id, at desc);

-- An erased person's address, as a keyed index and nothing else: so that no import brings her back (DPDP Act 2023 s.8(7),
-- s.12(3)). What she says herself afterwards ends it.
create table muneem.messaging_erasures (
    erasure_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    mark bytea not null constraint messaging_erasures_mark_length check (length(mark) = 18),
    erased_at timestamptz not null,
    lifted_at timestamptz,
    -- The consent that she gave herself.
    lifted_by uuid,
    constraint messaging_erasures_lifted_whole check ((lifted_at is null) = (lifted_by is null))
);

create index messaging_erasures_mark on muneem.messaging_erasures (business_id, mark) where lifted_at is null;

-- One thing somebody said that had an effect, by the blind index of the carrier's id of it: again is no effect.
create table muneem.messaging_heard (
    heard_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    mark bytea not null constraint messaging_heard_mark_length check (length(mark) = 18),
    -- Not a foreign key: she may be erased since.
    contact_id uuid not null,
    route text not null constraint messaging_heard_route_form check (route ~ '^[a-z_]{1,40}$'),
    -- What she was answered, if anything.
    answer text constraint messaging_heard_answer_form check (answer ~ '^[a-z_]{1,40}$'),
    at timestamptz not null,
    recorded_at timestamptz not null,
    constraint messaging_heard_once unique (business_id, mark)
);

create index messaging_heard_answers on muneem.messaging_heard (contact_id, recorded_at) where answer is not null;
create index messaging_heard_recorded_at on muneem.messaging_heard (recorded_at);

-- A list of opt-out words that no native speaker has read, taken at its word by this business.
create table muneem.messaging_opt_words (
    business_id uuid not null references muneem.people_businesses (business_id),
    language text not null constraint messaging_opt_words_language_form check (language ~ '^[a-z]{2,3}(-[A-Za-z]{4})?$'),
    turned_on boolean not null,
    set_at timestamptz not null,
    set_by text not null,
    primary key (business_id, language)
);

-- Rows that say what was said are added and, with their person, deleted; keys change their sealed columns and indexes.
grant select, insert, delete on muneem.messaging_contacts, muneem.messaging_consents, muneem.messaging_suppressions,
    muneem.messaging_heard to muneem_app;
grant update (mark, address_sealed, group_id, heard_at, undeliverable_at) on muneem.messaging_contacts to muneem_app;
grant update (proof_sealed) on muneem.messaging_consents to muneem_app;
grant update (answer) on muneem.messaging_heard to muneem_app;
grant select, insert on muneem.messaging_erasures to muneem_app;
grant update (lifted_at, lifted_by) on muneem.messaging_erasures to muneem_app;
grant select, insert, update on muneem.messaging_opt_words to muneem_app;
grant select (contact_id, business_id, kind, group_id, heard_at, undeliverable_at, created_at)
    on muneem.messaging_contacts to muneem_auditor;
grant select (consent_id, business_id, contact_id, purpose, state, source, wording_version, language, proof_sha256, at,
    recorded_at, recorded_by) on muneem.messaging_consents to muneem_auditor;
grant select on muneem.messaging_suppressions, muneem.messaging_opt_words to muneem_auditor;
grant select (erasure_id, business_id, erased_at, lifted_at, lifted_by) on muneem.messaging_erasures to muneem_auditor;
grant select (heard_id, business_id, contact_id, route, answer, at, recorded_at) on muneem.messaging_heard to muneem_auditor;

select muneem.people_build_wall();
