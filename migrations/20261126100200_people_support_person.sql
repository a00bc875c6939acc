-- Whom of support the owner lets in; null: whoever of support takes it up.
alter table muneem.people_support_grants
    add column only_staff uuid references muneem.people_staff (staff_id);

create index people_support_grants_only_staff on muneem.people_support_grants (only_staff)
    where only_staff is not null;

grant select (only_staff) on muneem.people_support_grants to muneem_auditor;
