-- The link by which somebody leaves is passed on with the mail: what opens it must not be what reports of the mail are
-- believed by. It is made of the token, which cannot be made of it.
alter table muneem.messaging_mail_tokens
    add column leave_sha256 bytea constraint messaging_mail_tokens_leave_length check (length(leave_sha256) = 32);

create unique index messaging_mail_tokens_leave on muneem.messaging_mail_tokens (leave_sha256)
    where leave_sha256 is not null;
