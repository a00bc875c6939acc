-- The same thing said to many: messages that a campaign's own workers send, without a job each.
create table muneem.messaging_campaigns (
    campaign_id uuid primary key,
    business_id uuid not null references muneem.people_businesses (business_id),
    -- For people of the business alone; no recipient sees it.
    name text not null constraint messaging_campaigns_name_length check (length(name) between 1 and 120),
    -- The word under which consent is kept.
    purpose text not null constraint messaging_campaigns_purpose_form check (purpose ~ '^[a-z]+\.[a-z_]+$'),
    class text not null constraint messaging_campaigns_class_known check (
        class in ('statutory', 'transactional', 'marketing')),
    phone_number_id text not null references muneem.messaging_accounts (phone_number_id),
    template text not null,
    -- `draft`: people are added. `running`, `paused`. `stopped`, `done`: ends.
    state text not null constraint messaging_campaigns_state_known check (
        state in ('draft', 'running', 'paused', 'stopped', 'done')),
    -- Why it rests by itself: `wave`, `failures`.
    paused_because text,
    -- After so many messages were begun it rests until somebody lets it go on; null: it does not.
    rests_after bigint constraint messaging_campaigns_rests_positive check (rests_after > 0),
    -- After this instant nothing more begins.
    expires_at timestamptz not null,
    created_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    constraint messaging_campaigns_ended check ((ended_at is not null) = (state in ('stopped', 'done')))
);

create index messaging_campaigns_page on muneem.messaging_campaigns (business_id, campaign_id desc);

-- How many messages of a campaign are in which state. Those who move messages add what they moved to one of several
-- rows, so that they need not wait for each other; the sum counts.
create table muneem.messaging_campaign_counts (
    campaign_id uuid not null references muneem.messaging_campaigns (campaign_id),
    business_id uuid not null references muneem.people_businesses (business_id),
    shard smallint not null,
    state text not null,
    messages bigint not null,
    primary key (campaign_id, shard, state)
);

alter table muneem.messaging_messages
    add column campaign_id uuid references muneem.messaging_campaigns (campaign_id),
    -- No attempt begins before.
    add column not_before timestamptz;

create index messaging_messages_campaign on muneem.messaging_messages (campaign_id, message_id)
    where state = 'queued' and campaign_id is not null;

-- Attempts that nobody knows the end of: few at any time.
create index messaging_attempts_open on muneem.messaging_attempts (started_at) where outcome in ('posting', 'unknown');

grant select, insert, update on muneem.messaging_campaigns, muneem.messaging_campaign_counts to muneem_app;
grant select on muneem.messaging_campaigns, muneem.messaging_campaign_counts to muneem_auditor;

select muneem.people_build_wall();
