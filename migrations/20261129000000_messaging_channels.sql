-- A message reaches a person by one of several ways, in the order she or the sender prefers. Each way that is taken is a
-- message of its own; together they are one delivery.
alter table muneem.messaging_messages
    alter column phone_number_id drop not null,
    alter column to_phone_sealed drop not null,
    alter column to_phone_ending drop not null,
    add column channel text not null default 'whatsapp' constraint messaging_messages_channel_known
        check (channel in ('whatsapp', 'mail')),
    -- Personal: the recipient of a mail.
    add column to_email_sealed bytea,
    -- The first message of those that follow each other; null: it is the only one there can be.
    add column delivery_id uuid references muneem.messaging_messages (message_id),
    -- Which of the ways it takes, from 0, and how many there are.
    add column way smallint not null default 0,
    add column ways smallint not null default 1,
    -- Personal: all of them, in their order.
    add column ways_sealed bytea,
    -- How long a way may take before the next is taken.
    add column fall_back_secs integer constraint messaging_messages_fall_back_positive check (fall_back_secs > 0),
    -- When somebody looks whether the next way is to be taken.
    add column fall_back_at timestamptz,
    add constraint messaging_messages_address check (
        case channel
            when 'whatsapp' then to_phone_sealed is not null and to_phone_ending is not null and to_email_sealed is null
                and (phone_number_id is not null or state = 'skipped')
            else to_email_sealed is not null and to_phone_sealed is null and to_mark is null and phone_number_id is null
        end),
    add constraint messaging_messages_ways check (
        way >= 0 and way < ways and ways <= 4 and (ways > 1) = (delivery_id is not null)
        and (ways > 1 or (ways_sealed is null and fall_back_secs is null))),
    add constraint messaging_messages_next_way check (fall_back_at is null or way + 1 < ways);

create unique index messaging_messages_delivery on muneem.messaging_messages (delivery_id, way)
    where delivery_id is not null;
create index messaging_messages_fall_back on muneem.messaging_messages (fall_back_at) where fall_back_at is not null;

alter table muneem.messaging_contacts
    -- In which she was asked for consent, or wrote a word that a list knows (BCP 47); what is sent to her is in it where
    -- nobody says otherwise.
    add column language text constraint messaging_contacts_language_form check (language ~ '^[a-z]{2,3}$');

grant update (language) on muneem.messaging_contacts to muneem_app;
grant select (language) on muneem.messaging_contacts to muneem_auditor;

select muneem.people_build_wall();
