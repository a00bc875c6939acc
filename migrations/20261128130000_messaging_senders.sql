-- A business may bring its own app of the carrier: its token, its app secrets, its verify token. Without, its numbers use
-- those of the installation's configuration. Beside them what the carrier says of the number.
alter table muneem.messaging_accounts
    -- Bearer token of the system user, sealed.
    add column access_token_sealed bytea,
    -- JSON list of the secrets that sign the app's webhooks, sealed: the present one and the one before.
    add column app_secrets_sealed bytea,
    -- What the carrier repeats when it verifies the webhook address of the business, sealed.
    add column verify_token_sealed bytea,
    -- `v25.0`; null: the installation's.
    add column api_version text
        constraint messaging_accounts_version_form check (api_version ~ '^v[0-9]{1,3}\.[0-9]{1,2}$'),
    -- The business portfolio, whose numbers share one messaging limit; null: the account stands for it.
    add column portfolio_id text
        constraint messaging_accounts_portfolio_form check (portfolio_id ~ '^[0-9]{1,32}$'),
    -- What the carrier takes from the number in a second, in and out.
    add column messages_per_second integer not null default 80
        constraint messaging_accounts_throughput_range check (messages_per_second between 1 and 10000),
    -- People that the portfolio may write to first in any 24 hours; null: no limit, or none known.
    add column daily_recipients integer
        constraint messaging_accounts_recipients_positive check (daily_recipients > 0),
    -- As the carrier says it.
    add column quality text,
    add column number_status text,
    add column verified_name text,
    -- When the carrier last told of the number, asked or by itself.
    add column told_at timestamptz,
    add constraint messaging_accounts_app_whole check (
        (access_token_sealed is null) = (app_secrets_sealed is null)
        and (access_token_sealed is null) = (verify_token_sealed is null));

-- Where nothing is to be sent, and until when. A hold that is over lets one message through; if the carrier takes it,
-- the hold is released, else it holds on, longer.
create table muneem.messaging_holds (
    hold_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    -- What is held, in the words of the table of codes: app, credential, account, number, template, portfolio.
    scope text not null constraint messaging_holds_scope_known check (scope in (
        'app', 'credential', 'account', 'number', 'template', 'portfolio')),
    -- Which one: `installation` or a number's id for app and credential, a WABA id, a phone number id,
    -- `<WABA id>/<name>/<language>`, a portfolio's id.
    key text not null constraint messaging_holds_key_length check (length(key) between 1 and 640),
    -- Which messages: all; those that the business begins; those that sell.
    covers text not null constraint messaging_holds_covers_known check (covers in ('all', 'begun', 'marketing')),
    -- The carrier's code, or what it told by webhook: `PAUSED`.
    code bigint,
    told text constraint messaging_holds_told_form check (length(told) between 1 and 64),
    -- How often in a row, which chooses the wait.
    strikes integer not null constraint messaging_holds_strikes_positive check (strikes > 0),
    since timestamptz not null,
    struck_at timestamptz not null,
    until timestamptz not null,
    -- When the message was let through that finds out whether it is over.
    probed_at timestamptz,
    released_at timestamptz,
    -- What released it: `carried`, `carrier`, `operator`.
    released_by text,
    constraint messaging_holds_release_whole check ((released_at is null) = (released_by is null))
);

create unique index messaging_holds_in_force on muneem.messaging_holds (business_id, scope, key, covers)
    where released_at is null;

-- When a number may post next. Its clock is the database's own, never the moved one: the carrier counts real seconds.
create table muneem.messaging_paces (
    phone_number_id text primary key references muneem.messaging_accounts (phone_number_id),
    business_id uuid not null references muneem.people_businesses (business_id),
    -- Theoretical time of the next message (generic cell rate algorithm, ITU-T I.371).
    next_at timestamptz not null,
    -- When somebody who found no place shall look again; a queue number, which binds nobody.
    look_at timestamptz not null,
    -- Share of the rate in use since `slowed_at`: halved when the carrier says that it was too much, and growing back.
    share real not null constraint messaging_paces_share_range check (share > 0 and share <= 1),
    slowed_at timestamptz not null
);

-- One number and one person: how soon the next message may follow, whether she opened a conversation, and when she was
-- last counted against the portfolio's limit.
create table muneem.messaging_pairs (
    phone_number_id text not null references muneem.messaging_accounts (phone_number_id),
    business_id uuid not null references muneem.people_businesses (business_id),
    -- Blind index of her number.
    person_mark bytea not null constraint messaging_pairs_mark_length check (length(person_mark) = 18),
    -- Theoretical time of the next message, in real time as in messaging_paces.
    next_at timestamptz not null,
    -- When she last wrote: 24 hours from then any message may be sent, not templates alone.
    heard_at timestamptz,
    -- When she last became one of the people that the portfolio wrote to first.
    counted_at timestamptz,
    primary key (phone_number_id, person_mark)
);

create index messaging_pairs_old on muneem.messaging_pairs (next_at);

-- How many people became counted, by five minutes: what the moving 24 hours are summed from.
create table muneem.messaging_reached (
    business_id uuid not null references muneem.people_businesses (business_id),
    portfolio text not null,
    begins_at timestamptz not null,
    people integer not null constraint messaging_reached_positive check (people >= 0),
    primary key (business_id, portfolio, begins_at)
);

alter table muneem.messaging_messages
    -- Blind index of the recipient's number; null on rows older than this column.
    add column to_mark bytea constraint messaging_messages_to_mark_length check (length(to_mark) = 18),
    -- What kind of thing it is by law and the carrier's policy.
    add column class text not null default 'transactional' constraint messaging_messages_class_known check (
        class in ('otp', 'statutory', 'transactional', 'marketing')),
    -- Why it was never sent, where it was not to be: `stopped`, `no_consent`.
    add column skipped_because text,
    drop constraint messaging_messages_state_known,
    add constraint messaging_messages_state_known check (state in (
        'queued', 'posting', 'unknown', 'accepted', 'held', 'sent', 'delivered', 'read', 'failed', 'unknown_final',
        'skipped')),
    add constraint messaging_messages_skipped_why check ((skipped_because is not null) = (state = 'skipped'));

-- What is still to be sent to somebody, for the moment she says stop.
create index messaging_messages_waiting on muneem.messaging_messages (business_id, to_mark) where state = 'queued';

-- What the carrier told of an account, a number or a template by itself, for a person to see. Of each kind and thing the
-- last counts; what has ended is kept.
create table muneem.messaging_alerts (
    alert_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    -- The webhook field, or `billing` for what we find ourselves.
    field text not null constraint messaging_alerts_field_form check (length(field) between 1 and 64),
    -- What it is about: a WABA id, a phone number id, a template's name and language.
    about text not null constraint messaging_alerts_about_length check (length(about) between 1 and 640),
    -- The carrier's word: `ACCOUNT_VIOLATION`.
    event text not null constraint messaging_alerts_event_length check (length(event) between 1 and 128),
    severity text not null constraint messaging_alerts_severity_known check (severity in ('info', 'warning', 'critical')),
    -- Its own explanation, long digit runs removed.
    details text not null constraint messaging_alerts_details_length check (length(details) <= 1000),
    at timestamptz not null,
    received_at timestamptz not null,
    -- When a later word of the carrier or a person took it back.
    ended_at timestamptz,
    constraint messaging_alerts_once unique (business_id, field, about, event, at)
);

create index messaging_alerts_open on muneem.messaging_alerts (business_id, received_at desc) where ended_at is null;

grant select, insert, update on muneem.messaging_alerts to muneem_app;
grant select on muneem.messaging_alerts to muneem_auditor;

alter table muneem.messaging_webhooks
    -- Whose app signed it; null: the installation's. What it tells of anybody else's numbers is not believed.
    add column signed_for uuid references muneem.people_businesses (business_id),
    -- Bodies that came together are applied together.
    add column batch_id uuid,
    -- The businesses that it tells something.
    add column concerns uuid[] not null default '{}';

create index messaging_webhooks_batch on muneem.messaging_webhooks (batch_id) where batch_id is not null;

grant select, insert, update, delete on
    muneem.messaging_paces, muneem.messaging_pairs, muneem.messaging_reached to muneem_app;
grant select, insert, update on muneem.messaging_holds to muneem_app;
grant select on muneem.messaging_holds, muneem.messaging_paces, muneem.messaging_reached to muneem_auditor;
grant select (phone_number_id, business_id, next_at, heard_at, counted_at) on muneem.messaging_pairs to muneem_auditor;

-- The number's next places, for `wanted` messages. Answers how many it gives, when the first may be posted and how far
-- apart they are, all by the database's clock beside its own now; none given: when to look again.
--
-- Any one second then holds at most 0.89 of the limit by the pace, 0.05 by what is urgent, and what the line shakes
-- together: a place that is not used within 50 ms is not used at all.
create function muneem.messaging_take_places(number text, wanted integer, urgent boolean)
returns table (given integer, starts_at timestamptz, apart interval, seen_at timestamptz, look_again timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    pace muneem.messaging_paces;
    account record;
    moment timestamptz;
    step double precision;
    base timestamptz;
    ahead double precision;
    growth real;
begin
    select a.business_id, a.messages_per_second into strict account
    from muneem.messaging_accounts a where a.phone_number_id = number;
    insert into muneem.messaging_paces as p (phone_number_id, business_id, next_at, look_at, share, slowed_at)
    values (number, account.business_id, '-infinity', '-infinity', 1, '-infinity')
    on conflict do nothing;
    select * into strict pace from muneem.messaging_paces p where p.phone_number_id = number for update;
    moment := clock_timestamp();
    -- A fifth comes back each minute.
    growth := case when pace.share >= 1 then 1 else
        least(1, pace.share + 0.2 * extract(epoch from moment - pace.slowed_at) / 60) end;
    step := 1 / greatest(1, (0.95 * account.messages_per_second - 1) / 1.05) / growth;
    if urgent then
        -- May run ahead of the others by a twentieth of a second's messages.
        base := greatest(pace.next_at, moment) - make_interval(secs => greatest(1, floor(0.05 * account.messages_per_second)) * step);
        base := greatest(base, moment);
    else
        base := greatest(pace.next_at, moment);
    end if;
    ahead := extract(epoch from base - moment);
    -- Places lie at most 40 ms ahead, so that what is urgent never waits behind them.
    given := greatest(0, least(wanted, floor((0.04 - ahead) / step)::integer + 1));
    if ahead > 0.04 then
        given := 0;
    end if;
    starts_at := base;
    apart := make_interval(secs => step);
    seen_at := moment;
    look_again := greatest(pace.look_at, base, moment) + make_interval(secs => step);
    update muneem.messaging_paces p
    set next_at = greatest(pace.next_at, moment) + make_interval(secs => given * step),
        look_at = case when given = 0 then look_again else p.look_at end
    where p.phone_number_id = number;
    return next;
end
$$;
comment on function muneem.messaging_take_places(text, integer, boolean) is
    'Takes places in the rate of a number: how many, from when, how far apart';
revoke execute on function muneem.messaging_take_places(text, integer, boolean) from public;
grant execute on function muneem.messaging_take_places(text, integer, boolean) to muneem_app;

select muneem.people_build_wall();
