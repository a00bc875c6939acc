-- What a message says of a person is sealed: whom it goes to, what it says, what the carrier told of it. Its carrier id
-- spells the recipient's number, so only a fingerprint of it is kept: it is looked up and never read.
alter table muneem.messaging_messages
    drop column to_phone,
    drop column params,
    -- The recipient in E.164.
    add column to_phone_sealed bytea not null,
    -- The last two digits, by which people tell recipients apart.
    add column to_phone_ending text not null
        constraint messaging_messages_phone_ending_form check (to_phone_ending ~ '^[0-9]{2}$'),
    -- The template's typed parameters, as JSON.
    add column params_sealed bytea not null;

alter table muneem.messaging_attempts
    drop column wamid,
    -- Blind index of the carrier's id: two bytes of the index key's version, then the digest.
    add column wamid_mark bytea constraint messaging_attempts_wamid_mark_key unique
        constraint messaging_attempts_wamid_mark_length check (length(wamid_mark) = 18);

alter table muneem.messaging_events
    drop column wamid,
    add column wamid_mark bytea not null
        constraint messaging_events_wamid_mark_length check (length(wamid_mark) = 18),
    add constraint messaging_events_once unique nulls not distinct (kind, wamid_mark, status, error_code);

alter table muneem.messaging_webhooks
    drop column body,
    -- The exact bytes that were signed. A body may concern several businesses, so the installation's key seals it.
    add column body_sealed bytea not null;
