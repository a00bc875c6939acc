-- Numbers that are given up go to other people: a phone that nobody has proved to hold for long lets nobody in by itself.

alter table muneem.people_staff
    -- When a code to such a phone was right, and in which browser (its lasting mark, by its digest). The phone counts as
    -- verified again once another factor of hers follows there; until then this says nothing of who holds it.
    add column phone_proved_at timestamptz,
    add column phone_proved_on bytea
        constraint people_staff_phone_proved_on_length check (octet_length(phone_proved_on) = 32),
    add constraint people_staff_phone_proved_whole check ((phone_proved_at is null) = (phone_proved_on is null));

-- A code that was sent to nobody: whoever has a password in several places of work chooses between them with it. It proves
-- no phone and no mail address.
alter table muneem.people_sign_in_codes
    add column chooses uuid[],
    alter column channel drop not null,
    add constraint people_sign_in_codes_sent_or_chooses check ((channel is null) <> (chooses is null));
