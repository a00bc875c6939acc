-- The contact person of a business is found by her phone or mail address: by a blind index under the installation's own
-- key, since whoever looks does not know the business yet.
alter table muneem.people_businesses
    add column contact_phone_index bytea
        constraint people_businesses_contact_phone_index_length check (octet_length(contact_phone_index) = 16),
    add column contact_phone_index_version integer,
    add column contact_email_index bytea
        constraint people_businesses_contact_email_index_length check (octet_length(contact_email_index) = 16),
    add column contact_email_index_version integer,
    add constraint people_businesses_contact_phone_whole check (
        (contact_phone_sealed is null) = (contact_phone_index is null)
        and (contact_phone_sealed is null) = (contact_phone_index_version is null)
    ),
    add constraint people_businesses_contact_email_whole check (
        (contact_email_sealed is null) = (contact_email_index is null)
        and (contact_email_sealed is null) = (contact_email_index_version is null)
    );

create index people_businesses_gstin on muneem.people_businesses (gstin_index) where gstin_index is not null;
