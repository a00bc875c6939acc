-- Invitations by phone. Whoever runs a business reads what her own WhatsApp account sends, codes too: an invitation to
-- decide, and its codes, are carried by another business's account or not at all. The program checks it; this holds it.
alter table muneem.people_links
    add column carried_by uuid references muneem.people_businesses (business_id),
    add constraint people_links_carried_by_another check (
        purpose <> 'approval' or channel <> 'phone' or (carried_by is not null and carried_by <> business_id)
    );
comment on column muneem.people_links.carried_by is
    'Business whose WhatsApp account carries the message and its codes; none: its own, or a mail server';
grant select (carried_by) on muneem.people_links to muneem_auditor;
