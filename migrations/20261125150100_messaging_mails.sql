-- One mail to one person of staff about her own access: a code to sign in with, a warning. Mail servers know no
-- idempotency, so the attempt is recorded before it is made and one whose outcome nobody knows is not made again.
create table muneem.messaging_mails (
    -- Also the left half of its Message-ID.
    mail_id uuid primary key,
    -- Under which its job runs: hers, or the oldest one for staff of the platform.
    business_id uuid not null references muneem.people_businesses (business_id),
    staff_id uuid not null references muneem.people_staff (staff_id),
    -- Folder of its words.
    template text not null constraint messaging_mails_template_form check (template ~ '^[a-z_]{1,40}$'),
    -- What the words are filled with, sealed; gone once the mail has ended.
    params_sealed bytea,
    -- `queued`: to be sent. `sending`: handed to the mail server, no answer yet. The rest are ends.
    state text not null constraint messaging_mails_state_known
        check (state in ('queued', 'sending', 'accepted', 'refused', 'unknown', 'expired')),
    -- Why it was not taken, free of personal data.
    failure text,
    -- After this instant no attempt begins.
    expires_at timestamptz not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint messaging_mails_params_while_needed check ((params_sealed is not null) = (state in ('queued', 'sending')))
);

create index messaging_mails_created_at on muneem.messaging_mails (created_at);

grant select, insert, delete on muneem.messaging_mails to muneem_app;
grant update (params_sealed, state, failure, updated_at) on muneem.messaging_mails to muneem_app;
grant select (mail_id, business_id, staff_id, template, state, failure, expires_at, created_at, updated_at)
    on muneem.messaging_mails to muneem_auditor;

select muneem.people_build_wall();
